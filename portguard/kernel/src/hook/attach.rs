//! Attaching, replacing and detaching: links that are pinned, and what the kernel's refusals mean.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, LinkInfo, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use portguard_common::reason::Direction;

use crate::error::{Context as _, Error, Kind, errno, gone};
use crate::hook::XdpModeName;
use crate::host::holder::{self, Holder};
use crate::host::interface::Interface;
use portguard_policy::human::plain;

/// An attachment that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Id of the program that it runs.
    pub program: u32,
    /// Index of the interface; 0 = the interface is gone and the link with it.
    pub ifindex: u32,
}

/// What a swap finds where it attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// No program of ours.
    Nothing,
    /// One of ours, which is replaced.
    Guarded,
    /// The pin of an attachment to an interface that went.
    Lost,
}

/// Looks at a pinned link; `None` if there is no pin.
///
/// # Errors
/// If there is something that is no link.
pub fn inspect(path: &Path) -> crate::Result<Option<Attached>> {
    if !path.exists() {
        return Ok(None);
    }
    let link = PinnedLink::from_pin(path)
        .with_context(|| format!("cannot open the link `{}`", path.display()))?;
    let link = FdLink::from(link);
    let info = link
        .info()
        .with_context(|| format!("cannot inspect `{}`", path.display()))?;
    let Some(ifindex) = ifindex(&info) else {
        let what = format!(
            "`{}` is no attachment: something else was put there",
            path.display()
        );
        return Err(Error::new(Kind::Damaged, what)
            .hint("`portguard unload` removes it with all that belongs to it; then load again"));
    };
    Ok(Some(Attached {
        program: info.program_id(),
        ifindex,
    }))
}

/// The interface of a link, 0 if that is gone; `None` if it is no link. The kernel tells it to the link's owner only, by a file of
/// this process.
fn ifindex(info: &LinkInfo) -> Option<u32> {
    let wanted = format!("link_id:\t{}", info.id());
    let Ok(files) = fs::read_dir("/proc/thread-self/fdinfo") else {
        return Some(0);
    };
    for file in files.flatten() {
        let Ok(text) = fs::read_to_string(file.path()) else {
            continue;
        };
        if text.lines().any(|line| line == wanted) {
            let mut lines = text.lines();
            let index = lines.find_map(|line| line.strip_prefix("ifindex:\t")?.trim().parse().ok());
            return Some(index.unwrap_or(0));
        }
    }
    None
}

/// Attaches an ingress program to an interface that has none of ours, and pins the link.
///
/// # Errors
/// [`Error`]: another program holds the hook (`occupied` describes it), the driver cannot, no privilege.
pub fn attach_xdp(
    program: &mut Xdp,
    interface: &Interface,
    mode: XdpModeName,
    pin: &Path,
    occupied: impl FnOnce(&Interface, &Holder) -> Error,
) -> crate::Result<()> {
    let flags = match mode {
        XdpModeName::Native => XdpMode::Driver,
        XdpModeName::Generic => XdpMode::Skb,
    };
    let id = program
        .attach_to_if_index(interface.index, flags)
        .map_err(|error| refused_xdp(error, interface, mode, occupied))?;
    let link = program.take_link(id)?;
    // On kernels without XDP links aya falls back to netlink, whose attachment nobody can pin: dropped here, it detaches.
    let link = FdLink::try_from(link).map_err(|_netlink| {
        Error::new(
            Kind::NoXdpLinks,
            "this kernel has no XDP links (Linux 5.9), which keep the guard when the tool ends",
        )
        .hint("boot Linux 5.10 or newer, the oldest that is tested")
    })?;
    link.pin(pin)
        .with_context(|| format!("cannot pin `{}`", pin.display()))?;
    Ok(())
}

/// Makes a pinned XDP link run another program, atomically.
///
/// # Errors
/// What the kernel refuses; the link then runs what it ran.
pub fn replace_xdp(program: &mut Xdp, pin: &Path) -> crate::Result<()> {
    let link = PinnedLink::from_pin(pin)
        .with_context(|| format!("cannot open the link `{}`", pin.display()))?;
    let link = XdpLink::try_from(FdLink::from(link))?;
    let id = program
        .attach_to_link(link)
        .context("cannot replace the ingress program")?;
    // The pin keeps the link: whoever holds the program on, as the agent does, must not.
    drop(program.take_link(id)?);
    Ok(())
}

fn refused_xdp(
    error: ProgramError,
    interface: &Interface,
    mode: XdpModeName,
    occupied: impl FnOnce(&Interface, &Holder) -> Error,
) -> Error {
    let name = &interface.name;
    let fault = match errno(&error) {
        Some(libc::EBUSY | libc::EEXIST) => match holder::xdp(interface.index)
            .unwrap_or_default()
            .first()
        {
            Some(holder) => occupied(interface, holder),
            None => blocked(interface)
                .unwrap_or_else(|| Error::new(Kind::HookBusy, format!("another XDP program is attached to `{name}`"))),
        },
        Some(libc::ENODEV | libc::ENXIO) => {
            gone(name)
        }
        Some(libc::EOPNOTSUPP) => blocked(interface).unwrap_or_else(|| {
            Error::new(Kind::Driver, format!("the driver of `{name}` has no {} XDP", mode.name())).hint(
                "`--xdp-mode generic` works with every driver, after the kernel has allocated the packet: \
                 several times slower, and fit for audit or for slow links",
            )
        }),
        Some(libc::ERANGE) => Error::new(Kind::Driver, format!("the MTU of `{name}` is too large for its driver's XDP"))
            .hint("lower the MTU; `portguard doctor` says more"),
        Some(libc::EPERM | libc::EACCES) => {
            Error::new(Kind::NotPermitted, "the kernel does not let this process attach programs")
                .hint("run as root, or with CAP_BPF and CAP_NET_ADMIN")
        }
        _ => Error::new(Kind::Refused, format!("the kernel refused to attach to `{name}`")),
    };
    fault.caused_by(error)
}

/// What to say where an interface above or below has the program that is in the way.
fn blocked(interface: &Interface) -> Option<Error> {
    let (other, holder) = holder::in_the_way(interface.index)?;
    let (name, other) = (plain(&interface.name), plain(&other));
    let what = format!(
        "the kernel attaches no XDP program to `{name}` while `{other}`, which stands on it or is part of it, has one: {holder}"
    );
    Some(Error::new(Kind::HookBusy, what).hint(format!(
        "a port comes before its bridge: if the guard is portguard's, `portguard unload --interface {other}`, then load both \
         together; `portguard load --interface {name} --interface {other}` does so in the right order"
    )))
}

/// How long the kernel may take to take a program off its hook.
const DETACHING: Duration = Duration::from_secs(5);

/// Removes a pinned link, and with it the attachment; nothing there is fine.
///
/// The kernel drops the pin's reference some time after the pin is gone; this waits until the program no longer runs.
///
/// # Errors
/// If the pin cannot be removed.
pub fn detach(pin: &Path) -> crate::Result<bool> {
    // What cannot be inspected can still be removed.
    let attached = inspect(pin).ok().flatten();
    match fs::remove_file(pin) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(Error::from(error).context(format!("cannot remove `{}`", pin.display())));
        }
    }
    if let Some(attached) = attached.filter(|link| link.ifindex != 0) {
        let deadline = Instant::now() + DETACHING;
        while Instant::now() < deadline && runs(attached) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(true)
}

/// Whether the interface still runs the program of a link.
fn runs(attached: Attached) -> bool {
    let xdp = holder::xdp(attached.ifindex).unwrap_or_default();
    let tcx = Interface::name_of(attached.ifindex)
        .map(|name| holder::tcx(&name, Direction::Egress))
        .unwrap_or_default();
    xdp.iter()
        .chain(&tcx)
        .any(|holder| holder.id == attached.program)
}
