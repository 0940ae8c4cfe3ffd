//! Interfaces of this network namespace that came from another one with their guard: it goes on, and its pins are that
//! namespace's.

use portguard_common::reason::Direction;

use super::bpffs::{Layout, layouts_here, layouts_of_all_versions};
use super::namespaces;
use crate::error::{Error, Kind};
use crate::hook::attach;
use crate::host::holder::{self, Holder};
use portguard_policy::human::plain;

/// An interface whose guard is another network namespace's.
#[derive(Debug, Clone)]
pub struct Moved {
    /// What it is called here.
    pub interface: String,
    /// What it was called there, by which the guard is known there.
    pub there: String,
    /// Its pins.
    pub layout: Layout,
    /// Nobody can go where it came from: that namespace has ended.
    pub is_orphan: bool,
    /// How a command is run there, as far as that is known.
    pub way: Option<String>,
    program: u32,
}

impl Moved {
    /// What is so.
    pub fn describe(&self) -> String {
        let ends = if self.is_orphan {
            "and that namespace has ended"
        } else {
            "and ends only there"
        };
        format!(
            "`{}` is guarded from another network namespace, which it came from: that guard goes on, {ends}",
            plain(&self.interface)
        )
    }

    /// What ends the guard.
    pub fn todo(&self) -> String {
        let command = format!("portguard unload --interface {}", plain(&self.there));
        if self.is_orphan {
            let own = plain(&self.interface);
            return format!("`portguard unload --interface {own}` here, then load it");
        }
        match &self.way {
            Some(way) => format!("`{way} {command}`, then load it here"),
            None => format!("`{command}` in that network namespace, then load it here"),
        }
    }

    /// As an error for who wants to know of it, or to have its hook.
    pub fn fault(&self) -> Error {
        Error::new(Kind::HookBusy, self.describe()).hint(self.todo())
    }
}

/// All of them.
pub fn here() -> Vec<Moved> {
    let hooks = holder::all_xdp().unwrap_or_default();
    if hooks.is_empty() {
        return Vec::new();
    }
    let program = |layout: &Layout| {
        let link = attach::inspect(&layout.link(Direction::Ingress)).ok()??;
        (link.ifindex != 0).then_some(link.program)
    };
    let own: Vec<u32> = layouts_here().iter().filter_map(program).collect();
    let foreign: Vec<(String, Holder)> = hooks
        .into_iter()
        .filter(|(_, holder)| !own.contains(&holder.id))
        .collect();
    if foreign.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for layout in layouts_of_all_versions() {
        let Some(program) = program(&layout) else {
            continue;
        };
        let moved: Vec<_> = foreign
            .iter()
            .filter(|(_, holder)| holder.id == program)
            .collect();
        let Some(namespace) = (!moved.is_empty()).then(|| layout.namespace()) else {
            continue;
        };
        let is_alive = namespace.and_then(|one| namespaces::alive(&[one].into()).remove(&one)?);
        let moved = moved.into_iter();
        found.extend(moved.map(|(interface, holder)| Moved {
            interface: interface.clone(),
            there: layout.interface().0,
            layout: layout.clone(),
            is_orphan: is_alive == Some(false),
            way: namespaces::way(namespace),
            program: holder.id,
        }));
    }
    found
}

/// The one whose guard is this program.
pub(crate) fn of(holder: &Holder) -> Option<Moved> {
    here().into_iter().find(|moved| moved.program == holder.id)
}
