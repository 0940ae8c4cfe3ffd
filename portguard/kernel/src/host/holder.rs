//! Who holds an interface's hooks: programs that are not ours are named, never replaced.

use std::fmt;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use netlink_sys::protocols::NETLINK_ROUTE;
use portguard_common::reason::Direction;

use crate::host::links;
use crate::host::netlink::{link, request};

/// A program on a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `native XDP`, `generic XDP`, `offloaded XDP`, `TCX egress`.
    pub hook: &'static str,
    /// Program id.
    pub id: u32,
    /// Program name; empty if the kernel knows none.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} program {}", self.hook, self.id)?;
        if self.name.is_empty() {
            Ok(())
        } else {
            write!(f, " (`{}`)", self.name.escape_default())
        }
    }
}

/// XDP programs on an interface.
///
/// # Errors
/// See [`link`].
pub fn xdp(index: u32) -> crate::Result<Vec<Holder>> {
    let attributes = link(index)?.attributes.into_iter();
    let holders = attributes.flat_map(|attribute| programs(&attribute));
    Ok(holders
        .map(|(hook, id)| Holder {
            hook,
            id,
            name: name(id),
        })
        .collect())
}

/// XDP programs on all interfaces of this network namespace, by the interface's name; their own names are left out.
///
/// # Errors
/// If the kernel does not say.
pub fn all_xdp() -> crate::Result<Vec<(String, Holder)>> {
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut found = Vec::new();
    for answer in request(NETLINK_ROUTE, question, NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewLink(link) = answer else {
            continue;
        };
        let interface = link.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::IfName(name) = attribute {
                Some(name.clone())
            } else {
                None
            }
        });
        for (hook, id) in link.attributes.iter().flat_map(programs) {
            let interface = interface.clone().unwrap_or_default();
            let name = String::new();
            found.push((interface, Holder { hook, id, name }));
        }
    }
    Ok(found)
}

/// Ids of the XDP programs on an interface.
///
/// # Errors
/// See [`link`].
pub fn xdp_programs(index: u32) -> crate::Result<Vec<u32>> {
    let attributes = link(index)?.attributes.into_iter();
    Ok(attributes
        .flat_map(|attribute| programs(&attribute))
        .map(|(_, id)| id)
        .collect())
}

/// Hooks and programs that an attribute of an interface names.
pub(super) fn programs(attribute: &LinkAttribute) -> Vec<(&'static str, u32)> {
    let LinkAttribute::Xdp(facts) = attribute else {
        return Vec::new();
    };
    let name = |fact: &LinkXdp| {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the enum grows, and only these name a hook and its program"
        )]
        match fact {
            LinkXdp::DrvProgId(id) => Some(("native XDP", *id)),
            LinkXdp::SkbProgId(id) => Some(("generic XDP", *id)),
            LinkXdp::HwProgId(id) => Some(("offloaded XDP", *id)),
            _ => None,
        }
    };
    facts.iter().filter_map(name).collect()
}

/// The first of the interfaces that stand right on this one, and of those that are part of it, that have an XDP program: while
/// they do, the kernel attaches none to it, or none in the driver.
pub fn in_the_way(index: u32) -> Option<(String, Holder)> {
    let links = links::all().unwrap_or_default();
    let master = links.iter().find(|link| link.index == index)?.master;
    let others = links.iter().filter(|link| {
        let is_above = link.below == Some(index) || master == Some(link.index);
        is_above || link.master == Some(index)
    });
    let mut held = others.filter_map(|link| {
        let holder = xdp(link.index).ok()?.into_iter().next()?;
        Some((link.name.clone(), holder))
    });
    held.next()
}

/// TCX programs on an interface that see one direction, in the order in which they run; none where the kernel has no TCX.
pub fn tcx(interface: &str, direction: Direction) -> Vec<Holder> {
    let (hook, attached) = match direction {
        Direction::Ingress => ("TCX ingress", TcAttachType::Ingress),
        Direction::Egress => ("TCX egress", TcAttachType::Egress),
    };
    let programs = SchedClassifier::query_tcx(interface, attached).map(|(_, programs)| programs);
    let programs = programs.unwrap_or_default();
    programs
        .iter()
        .map(|program| Holder {
            hook,
            id: program.id(),
            name: text(program),
        })
        .collect()
}

/// The TCX programs that egress runs before one; none where the kernel does not say, or that one is not there.
pub fn before(interface: &str, program: u32) -> Vec<Holder> {
    let all = tcx(interface, Direction::Egress);
    let ours = all.iter().position(|holder| holder.id == program);
    all.into_iter().take(ours.unwrap_or(0)).collect()
}

/// The name of a loaded program.
pub(crate) fn name(id: u32) -> String {
    loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .map(|program| text(&program))
        .unwrap_or_default()
}

fn text(program: &ProgramInfo) -> String {
    program.name_as_str().unwrap_or_default().to_owned()
}
