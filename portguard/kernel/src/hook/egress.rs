//! The egress hook: TCX where the kernel has it, a filter under the clsact qdisc where not.

use std::path::Path;

use aya::programs::links::{FdLink, Link as _, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Kind};
use crate::hook::attach::{self, Attached, inspect};
use crate::host::interface::Interface;
use crate::machine;

/// Where the egress program hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressHook {
    /// A TCX link.
    Tcx,
    /// A filter of the clsact qdisc; replaced and removed by its priority and handle.
    Clsact,
}

impl EgressHook {
    /// What this kernel offers on an interface.
    pub fn of(interface: &Interface) -> Self {
        // Asking takes more privileges than attaching; distributions brought TCX to older kernels.
        let is_told = SchedClassifier::query_tcx(&interface.name, TcAttachType::Egress).is_ok();
        if is_told || machine::version().is_some_and(|running| running >= TCX) {
            Self::Tcx
        } else {
            Self::Clsact
        }
    }

    /// `tcx` or `clsact`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// The first kernel with TCX.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);
/// Priority of our filter under clsact.
const CLSACT_PRIORITY: u16 = 49_152;
/// Handle of our filter under clsact.
const CLSACT_HANDLE: u32 = 0x7067;

/// Makes the hook run a program: attaches it before what is there, since any other may end the chain (`TCX_PASS`), and ours
/// never does so for what it passes; or replaces what we have there, atomically.
///
/// # Errors
/// What the kernel refuses; the hook then runs what it ran.
pub fn set(
    program: &mut SchedClassifier,
    interface: &Interface,
    hook: EgressHook,
    pin: &Path,
) -> crate::Result<()> {
    let set = match hook {
        EgressHook::Tcx => set_tcx(program, interface, pin),
        EgressHook::Clsact => set_clsact(program, interface),
    };
    set.map_err(|error| {
        let what = format!("the kernel refused the egress program on `{}`", interface.name);
        Error::new(Kind::Refused, what)
            .hint("`portguard doctor` says more; with `--outbound off` there is none, and replies are not known")
            .caused_by(error)
    })
}

fn set_tcx(program: &mut SchedClassifier, interface: &Interface, pin: &Path) -> crate::Result<()> {
    let is_first = |link: Attached| {
        // Asking takes more privileges than attaching.
        let asked = SchedClassifier::query_tcx(&interface.name, TcAttachType::Egress);
        link.ifindex == interface.index
            && asked.map_or(true, |(_, programs)| {
                programs
                    .first()
                    .is_some_and(|first| first.id() == link.program)
            })
    };
    if inspect(pin)?.is_some_and(is_first) {
        let link = PinnedLink::from_pin(pin)
            .with_context(|| format!("cannot open the link `{}`", pin.display()))?;
        let id = program.attach_to_link(SchedClassifierLink::try_from(FdLink::from(link))?)?;
        // The pin keeps it.
        drop(program.take_link(id)?);
        return Ok(());
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&interface.name, TcAttachType::Egress, order)?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    // What is behind another program goes once this one is in front.
    attach::detach(pin)?;
    link.pin(pin)
        .with_context(|| format!("cannot pin `{}`", pin.display()))?;
    Ok(())
}

fn ours(interface: &Interface) -> crate::Result<SchedClassifierLink> {
    Ok(SchedClassifierLink::attached(
        &interface.name,
        TcAttachType::Egress,
        CLSACT_PRIORITY,
        CLSACT_HANDLE.into(),
        None,
    )?)
}

fn set_clsact(program: &mut SchedClassifier, interface: &Interface) -> crate::Result<()> {
    // Already there is fine, also when another made it: it is never removed.
    let _ = qdisc_add_clsact(&interface.name);
    let options = NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE.into(),
        ..NlOptions::default()
    };
    let attached = program.attach_with_options(
        &interface.name,
        TcAttachType::Egress,
        TcAttachOptions::Netlink(options),
    );
    let id = match attached {
        Ok(id) => id,
        // There is one of ours: it is replaced in place.
        Err(_) => program.attach_to_link(ours(interface)?)?,
    };
    // The filter outlives this process.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Takes our program off the hook; none there is fine. Says whether there was one.
///
/// # Errors
/// If the pin cannot be removed.
pub fn clear(interface: &Interface, hook: Option<EgressHook>, pin: &Path) -> crate::Result<bool> {
    let mut found = attach::detach(pin)?;
    if hook == Some(EgressHook::Clsact) {
        found |= ours(interface)?.detach().is_ok();
    }
    Ok(found)
}
