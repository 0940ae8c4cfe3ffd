//! Putting prepared generations in force, all or none, and removing a guard.

use anyhow::Context as _;
use aya::programs::Xdp;
use aya_obj::programs::XdpAttachType;
use portguard_common::reason::Direction;

use super::attach;
use super::bpffs::{Layout, Lock, remove};
use super::fault::step;
use super::generation::{Live, Prepared, live, sweep};
use crate::error::Fault;

/// Puts generations in force, one interface after the other; if one cannot be, those before it are taken back.
///
/// # Errors
/// What the kernel refuses; what was in force then still is.
pub fn publish(mut prepared: Vec<Prepared>) -> anyhow::Result<Vec<Live>> {
    let result = swap_all(&mut prepared);
    if let Err(error) = result {
        prepared.iter().for_each(Prepared::withdraw);
        return Err(error);
    }
    let mut published = Vec::new();
    for next in &prepared {
        step("published")?;
        let mut kept = vec![next.meta.number];
        kept.extend(next.meta.previous);
        sweep(&next.layout, &kept)?;
        step("finished")?;
        let live =
            live(&next.layout)?.context("the generation was published, and yet is not in force")?;
        published.push(live);
    }
    Ok(published)
}

fn swap_all(prepared: &mut [Prepared]) -> anyhow::Result<()> {
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
    let Err(error) = outcome else {
        return Ok(());
    };
    for next in prepared.iter().take(done).rev() {
        if let Err(second) = next.take_back() {
            return Err(error.context(format!(
                "and `{}` could not be given back what it had: {second:#}",
                next.interface.name
            )));
        }
    }
    Err(error)
}

impl Prepared {
    /// Attaches or swaps. An error after the swap has already taken it back.
    fn swap(&mut self) -> anyhow::Result<()> {
        step("egress")?;
        let pin = self.layout.link(Direction::Ingress);
        let attached = attach::inspect(&pin)?;
        // A link whose interface is gone, or that holds another interface which had the name before, guards nothing here.
        self.replaces = attached.is_some_and(|link| link.ifindex == self.interface.index);
        if self.replaces && !self.is_same_mode() {
            return Err(
                Fault::usage("the XDP mode cannot be changed while the guard is loaded")
                    .hint(format!(
                        "`portguard unload --interface {}` first",
                        self.interface.name
                    ))
                    .into(),
            );
        }
        if self.replaces {
            attach::replace_xdp(self.loaded.ingress()?, &pin)?;
        } else {
            attach::detach(&pin)?;
            let program = self.loaded.ingress()?;
            attach::attach_xdp(program, &self.interface, self.meta.xdp_mode, &pin)?;
        }
        if let Err(error) = step("ingress") {
            self.take_back()?;
            return Err(error);
        }
        Ok(())
    }

    fn is_same_mode(&self) -> bool {
        self.previous
            .as_ref()
            .is_none_or(|live| live.meta.xdp_mode == self.meta.xdp_mode)
    }

    /// Puts what was in force before back in force.
    fn take_back(&self) -> anyhow::Result<()> {
        match &self.previous {
            Some(live) if self.replaces => revert(&self.layout, live.meta.number),
            _ => attach::detach(&self.layout.link(Direction::Ingress)).map(drop),
        }
    }
}

/// Makes the links run a generation that is still pinned, ingress first.
///
/// # Errors
/// If its program is gone, and what the kernel refuses.
pub fn revert(layout: &Layout, number: u64) -> anyhow::Result<()> {
    let directory = layout.generation(number);
    let mut program = Xdp::from_pin(
        directory.join(Direction::Ingress.name()),
        XdpAttachType::Interface,
    )
    .with_context(|| format!("generation {number} has no program any more"))?;
    attach::replace_xdp(&mut program, &layout.link(Direction::Ingress))
}

/// Removes everything of ours from an interface: attachments first. Says whether there was anything.
///
/// # Errors
/// If pins cannot be removed.
pub fn unload(_lock: &Lock, layout: &Layout) -> anyhow::Result<bool> {
    let mut found = attach::detach(&layout.link(Direction::Ingress))?;
    step("unload-ingress")?;
    found |= attach::detach(&layout.link(Direction::Egress))?;
    step("unload-egress")?;
    found |= layout.directory.exists();
    remove(&layout.directory)
        .with_context(|| format!("cannot remove `{}`", layout.directory.display()))?;
    step("unload-pins")?;
    Ok(found)
}
