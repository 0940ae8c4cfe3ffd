//! Putting prepared generations in force, all or none, and removing a guard.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::{SchedClassifier, Xdp};
use aya_obj::programs::XdpAttachType;
use portguard_common::reason::Direction;

use crate::conversations;
use crate::error::{Context as _, Error, Kind, gone};
use crate::fault::step;
use crate::generation::effective;
use crate::generation::endings;
use crate::generation::pair::Pair;
use crate::generation::{Live, Prepared, explained, sweep};
use crate::generation::{marker, migrate};
use crate::hook::attach::{self, Found};
use crate::hook::egress::{self, EgressHook};
use crate::host::holder;
use crate::host::interface::Interface;
use crate::pins::bpffs::{Layout, Lock, remove};
use crate::pins::hidden;
use crate::pins::meta::{Meta, XdpModeName};
use crate::pins::programs::program_of;

/// Puts generations in force, one interface after the other; if one cannot be, those before it are taken back.
///
/// # Errors
/// What the kernel refuses; what was in force then still is.
pub fn publish(prepared: Vec<Prepared>) -> crate::Result<Vec<Live>> {
    let published = publish_and_keep(prepared)?;
    Ok(published.into_iter().map(|(live, _)| live).collect())
}

/// As [`publish`] does; gives the programs to who may want them later.
///
/// # Errors
/// Those of [`publish`].
pub(crate) fn publish_and_keep(mut prepared: Vec<Prepared>) -> crate::Result<Vec<(Live, Pair)>> {
    let result = swap_all(&mut prepared);
    if let Err(error) = result {
        prepared.iter().for_each(Prepared::withdraw);
        return Err(error);
    }
    // They were expected, one after the other; what is no more is among them.
    conversations::follow_interfaces()?;
    let mut published = Vec::new();
    for next in prepared {
        if let Some(other) = &next.other {
            migrate::take_over(&next.layout, &other.layout)?;
        }
        step("published")?;
        let mut kept = vec![next.meta.number];
        kept.extend(next.meta.previous);
        sweep(&next.layout, &kept)?;
        step("finished")?;
        let not_there = "the generation was published, but is not in force";
        let attached = attach::inspect(&next.layout.link(Direction::Ingress))?;
        let own = program_of(&next.layout, next.meta.number, Direction::Ingress);
        let attached = attached
            .filter(|link| Some(link.program) == own)
            .context(not_there)?;
        let live = explained(&next.layout, attached, next.meta)?;
        published.push((live, next.pair));
    }
    Ok(published)
}

fn swap_all(prepared: &mut [Prepared]) -> crate::Result<()> {
    step("prepared")?;
    let mut done = 0;
    let mut outcome = Ok(());
    for next in prepared.iter_mut() {
        outcome = next
            .swap()
            .with_context(|| format!("cannot guard `{}`", next.interface.name));
        if outcome.is_err() {
            break;
        }
        done += 1;
    }
    let outcome = outcome.and_then(|()| prepared.iter().try_for_each(Prepared::settle));
    let Err(error) = outcome else {
        return Ok(());
    };
    for next in prepared.iter().take(done).rev() {
        if let Err(second) = next.take_back() {
            return Err(error.context(format!(
                "and `{}` could not be restored: {second:#}",
                next.interface.name
            )));
        }
    }
    Err(error)
}

impl Prepared {
    /// Attaches or swaps, egress first: it knows the host's conversations before ingress asks for them. After an error
    /// what was in force before is in force again.
    fn swap(&mut self) -> crate::Result<()> {
        let pin = self.holder().link(Direction::Ingress);
        let attached = attach::inspect(&pin)?;
        // A link whose interface is gone, or that holds another interface which had the name before, guards nothing here.
        self.found = match attached {
            None => Found::Nothing,
            Some(link) if link.ifindex == 0 => Found::Lost,
            Some(link)
                if link.ifindex == self.interface.index && effective::runs(&self.layout, link) =>
            {
                Found::Guarded
            }
            Some(_) if self.other.is_some() => Found::Nothing,
            Some(_) => {
                let what = format!(
                    "the guarded interface `{}` was renamed or moved meanwhile",
                    self.interface.name
                );
                return Err(Error::new(Kind::Busy, what).hint("load again"));
            }
        };
        if self.found == Found::Guarded && !self.is_same_mode() {
            return Err(Error::new(
                Kind::Unsuitable,
                "the XDP mode cannot be changed while the guard is loaded",
            )
            .hint(format!(
                "`portguard unload --interface {}` first",
                self.interface.name
            )));
        }
        let swapped = self.swap_both(&pin);
        if let Err(error) = swapped {
            let error = match Interface::name_of(self.interface.index) {
                Some(_) => error,
                None => gone(&self.interface.name).caused_by(error),
            };
            return Err(match self.take_back() {
                Ok(()) => error,
                Err(second) => error.context(format!(
                    "and what was there could not be put back: {second:#}"
                )),
            });
        }
        Ok(())
    }

    fn swap_both(&mut self, pin: &Path) -> crate::Result<()> {
        let egress_pin = self.holder().link(Direction::Egress);
        marker::begin(&self.layout)?;
        step("marked")?;
        if let Some(hook) = self.meta.egress_hook {
            egress::set(
                self.pair.loaded.egress()?,
                &self.interface,
                hook,
                &egress_pin,
            )?;
        }
        step("egress")?;
        let new = self.attached_at();
        let program = self.pair.loaded.ingress()?;
        if self.found == Found::Guarded {
            attach::replace_xdp(program, pin)?;
        } else {
            attach::detach(&new)?;
            attach::attach_xdp(
                program,
                &self.interface,
                self.meta.xdp_mode,
                &new,
                hidden::occupied,
            )?;
        }
        if self.meta.egress_hook.is_none() {
            let hook = self
                .previous
                .as_ref()
                .map_or(Some(EgressHook::of(&self.interface)), |live| {
                    live.meta.egress_hook
                });
            egress::clear(&self.interface, hook, &egress_pin)?;
        }
        step("ingress")?;
        marker::end(&self.layout)?;
        step("swapped")
    }

    /// Where a new ingress attachment is pinned. That of an interface which went keeps its pin until the guard is whole again:
    /// a guard without one is taken for remains, and whatever fails now must be tried again.
    fn attached_at(&self) -> PathBuf {
        if self.found == Found::Lost {
            self.layout.returning()
        } else {
            self.holder().link(Direction::Ingress)
        }
    }

    /// Lets a new attachment take the place of the one whose interface went.
    fn settle(&self) -> crate::Result<()> {
        if self.found == Found::Lost {
            fs::rename(self.attached_at(), self.holder().link(Direction::Ingress))
                .context("cannot put the attachment in its place")?;
        }
        Ok(())
    }

    /// Whose links are replaced: another version's, where it is migrated.
    fn holder(&self) -> &Layout {
        self.other
            .as_ref()
            .map_or(&self.layout, |other| &other.layout)
    }

    fn is_same_mode(&self) -> bool {
        if self.other.is_some() || self.is_over_unknown {
            let now = holder::xdp(self.interface.index).unwrap_or_default();
            let is_generic = now.iter().any(|holder| holder.hook == "generic XDP");
            return is_generic == (self.meta.xdp_mode == XdpModeName::Generic);
        }
        self.previous
            .as_ref()
            .is_none_or(|live| live.meta.xdp_mode == self.meta.xdp_mode)
    }

    /// Puts what was in force before back in force.
    fn take_back(&self) -> crate::Result<()> {
        if let Some(other) = &self.other {
            return migrate::undo(other);
        }
        match &self.previous {
            Some(live) if self.found == Found::Guarded => revert(
                &self.layout,
                &self.interface,
                &live.meta,
                self.meta.egress_hook,
            ),
            // What nobody can read can be put back by nobody; whichever of the two judges now goes on.
            None if self.is_over_unknown => Ok(()),
            _ => {
                attach::detach(&self.attached_at())?;
                let pin = self.layout.link(Direction::Egress);
                egress::clear(&self.interface, self.meta.egress_hook, &pin).map(drop)
            }
        }
    }
}

/// Makes the hooks run a generation that is still pinned, ingress first. `hook`: where an egress program hangs now.
///
/// # Errors
/// If its program is gone, and what the kernel refuses.
pub fn revert(
    layout: &Layout,
    interface: &Interface,
    to: &Meta,
    hook: Option<EgressHook>,
) -> crate::Result<()> {
    let directory = layout.generation(to.number);
    let mut program = Xdp::from_pin(
        directory.join(Direction::Ingress.name()),
        XdpAttachType::Interface,
    )
    .with_context(|| format!("generation {} no longer has a program", to.number))?;
    marker::begin(layout)?;
    step("revert-marked")?;
    attach::replace_xdp(&mut program, &layout.link(Direction::Ingress))?;
    step("revert-ingress")?;
    let pin = layout.link(Direction::Egress);
    match to.egress_hook {
        Some(hook) => {
            let mut program = SchedClassifier::from_pin(directory.join(Direction::Egress.name()))?;
            egress::set(&mut program, interface, hook, &pin)?;
        }
        None => {
            egress::clear(interface, hook, &pin)?;
        }
    }
    step("revert-egress")?;
    marker::end(layout)
}

/// The generation that [`roll_back`] would go back to, if there is one.
///
/// # Errors
/// If its description cannot be read.
pub fn before(layout: &Layout, live: &Live) -> crate::Result<Option<Meta>> {
    let previous = live.meta.previous;
    let read = previous.map(|number| Meta::read(&layout.generation(number).join("meta")));
    read.transpose()
}

/// Goes back to the generation before the one in force, which is removed. The counters keep their meaning.
///
/// # Errors
/// [`Error`] if there is none, and what the kernel refuses.
pub fn roll_back(_lock: &Lock, layout: &Layout, live: &Live) -> crate::Result<Meta> {
    let (name, _) = layout.interface();
    let Some(number) = live.meta.previous else {
        return Err(Error::new(
            Kind::NotThere,
            format!(
                "there is no generation before {} on `{name}`",
                live.meta.number
            ),
        )
        .hint(format!(
            "`portguard unload --interface {name}` stops guarding it"
        )));
    };
    if live.effective.is_elsewhere {
        let what = format!(
            "the interface that was `{name}` is in another network namespace now, where its guard goes on"
        );
        return Err(Error::new(Kind::Unsuitable, what).hint(format!(
            "`portguard unload --interface {name}` here ends it; then load it there"
        )));
    }
    let interface = Interface::find(&name)?;
    let directory = layout.generation(number);
    let mut to = Meta::read(&directory.join("meta"))?;
    // Counter cells that the later generation took have their meaning from it; nothing else may take them now.
    to.directory.clone_from(&live.meta.directory);
    to.previous = None;
    let next = directory.join("meta-next");
    let _ = fs::remove_file(&next);
    to.pin(&next)?;
    fs::rename(&next, directory.join("meta")).context("cannot describe the generation anew")?;
    step("rollback-described")?;
    endings::follow_clock()?;
    conversations::note_services(Some(&live.meta.policy), &to.policy, None)?;
    revert(layout, &interface, &to, live.meta.egress_hook)?;
    step("rollback-swapped")?;
    sweep(layout, &[number])?;
    Ok(to)
}

/// Removes everything of ours from an interface: attachments first. Says whether there was anything.
///
/// # Errors
/// If pins cannot be removed.
pub fn unload(_lock: &Lock, layout: &Layout) -> crate::Result<bool> {
    let (name, _) = layout.interface();
    let is_filter = layout.generations().into_iter().any(|number| {
        Meta::read(&layout.generation(number).join("meta"))
            .is_ok_and(|meta| meta.egress_hook == Some(EgressHook::Clsact))
    });
    if layout.directory.exists() {
        // Without it, who finds the one attachment without the other takes it for a guard; a full disk keeps nobody from ending one.
        let _ = marker::begin(layout);
    }
    let mut found = attach::detach(&layout.link(Direction::Ingress))?;
    found |= attach::detach(&layout.returning())?;
    step("unload-ingress")?;
    found |= attach::detach(&layout.link(Direction::Egress))?;
    if let Ok(interface) = Interface::find(&name)
        && is_filter
    {
        let pin = layout.link(Direction::Egress);
        found |= egress::clear(&interface, Some(EgressHook::Clsact), &pin)?;
    }
    step("unload-egress")?;
    found |= layout.directory.exists();
    remove(&layout.directory)
        .with_context(|| format!("cannot remove `{}`", layout.directory.display()))?;
    conversations::remove_unused().context("cannot remove the table of conversations")?;
    conversations::follow_interfaces()?;
    step("unload-pins")?;
    Ok(found)
}
