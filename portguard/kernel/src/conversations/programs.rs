//! The embedded object that follows sockets, in the kernel and on the root of cgroup v2.

use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSock, SchedClassifier, SockOps};
use aya::{Ebpf, EbpfLoader};
use portguard_common::abi::namespace::word;

use super::{Namespace, cgroup, set_word};
use crate::error::Context as _;
use crate::object::{refused, spilled};
use crate::record;

/// The program that follows sockets.
const SOCKETS: &str = "portguard_sockets";
/// The program that writes what user space asks for.
const ADOPT: &str = "portguard_adopt";

/// The programs that follow the ports of UDP sockets, and the pins of their links. That which sees sockets close comes first:
/// a port that is counted and never counted back would stay closed to what is forwarded.
const PORTS: [(&str, &str); 3] = [
    ("portguard_close", "close"),
    ("portguard_bind4", "bind4"),
    ("portguard_bind6", "bind6"),
];

/// The maps that only these programs have.
pub(super) const OWN: [&str; 3] = ["NAMESPACE", "COUNTS", "BOUND"];

/// The pin of the link.
pub(super) const LINK: &str = "sockets";
/// The pin of the program that it runs.
pub(super) const PROGRAM: &str = "program";
/// The pin of the program that writes.
pub(super) const WRITER: &str = "adopt";

/// Makes the tables, and has the kernel take the programs; what has a pin stays. A program that follows sockets may be
/// refused: an old kernel has no cookies of network namespaces.
pub(super) fn load(namespace: &Namespace) -> crate::Result<()> {
    let directory = namespace.directory();
    let sets = namespace.sets();
    let is_new = !directory.join("NAMESPACE").exists();
    let mut loader = EbpfLoader::new();
    loader
        .btf(None)
        .map_max_entries("FLOWS", sets)
        .map_max_entries("THEIRS", sets)
        .map_max_entries("SPILLED", spilled(sets));
    let shared = ["FLOWS", "THEIRS", "SPILLED", "ENDS_WITH", "HELD"];
    for name in shared.iter().chain(&OWN) {
        loader.map_pin_path(name, directory.join(name));
    }
    let mut object = loader
        .load(record::SOCKETS)
        .map_err(|error| refused("object", error.into()))?;
    if is_new {
        for (index, value) in (0..).zip(namespace.words) {
            set_word(directory, index, value)?;
        }
    }
    let absent = |name| format!("the embedded object has no program `{name}`");
    let pin = directory.join(WRITER);
    if !pin.exists() {
        let adopt = object.program_mut(ADOPT).with_context(|| absent(ADOPT))?;
        let adopt: &mut SchedClassifier = adopt.try_into()?;
        adopt.load().map_err(|error| refused(ADOPT, error.into()))?;
        adopt
            .pin(&pin)
            .with_context(|| format!("cannot pin `{ADOPT}`"))?;
    }
    if namespace.word(word::COOKIE) == 0 {
        return Ok(());
    }
    follow_ports(&mut object, directory)?;
    let pin = directory.join(PROGRAM);
    if pin.exists() {
        return Ok(());
    }
    let sockets = object
        .program_mut(SOCKETS)
        .with_context(|| absent(SOCKETS))?;
    let sockets: &mut SockOps = sockets.try_into()?;
    match sockets.load() {
        Ok(()) => sockets
            .pin(&pin)
            .with_context(|| format!("cannot pin `{SOCKETS}`")),
        Err(error) => {
            tracing::info!("the kernel refused `{SOCKETS}`: {error}");
            Ok(())
        }
    }
}

/// Has the kernel take the programs that follow ports, and attaches them; what has a pin stays. Those that it refuses, for
/// want of sockets that are seen to close (Linux 5.9), are missed by [`are_ports_followed`].
fn follow_ports(object: &mut Ebpf, directory: &Path) -> crate::Result<()> {
    let Ok(root) = cgroup::root() else {
        return Ok(());
    };
    for (name, pin) in PORTS {
        let pin = directory.join(pin);
        if pin.exists() {
            continue;
        }
        let program = object
            .program_mut(name)
            .with_context(|| format!("the embedded object has no program `{name}`"))?;
        let program: &mut CgroupSock = program.try_into()?;
        let attached = program
            .load()
            .and_then(|()| program.attach(&root, CgroupAttachMode::Single));
        let id = match attached {
            Ok(id) => id,
            Err(error) => {
                tracing::info!("the kernel refused `{name}`: {error}");
                return Ok(());
            }
        };
        let Ok(link) = FdLink::try_from(program.take_link(id)?) else {
            return Ok(());
        };
        link.pin(&pin)
            .with_context(|| format!("cannot pin `{}`", pin.display()))?;
    }
    Ok(())
}

/// The pins of all links.
pub(super) fn links() -> impl Iterator<Item = &'static str> {
    PORTS.iter().map(|(_, pin)| *pin).chain([LINK])
}

/// Whether the ports of UDP sockets are known from the moment they have them.
pub(super) fn are_ports_followed(directory: &Path) -> bool {
    PORTS.iter().all(|(_, pin)| directory.join(pin).exists())
}

/// Attaches the program that follows sockets, beside those of others, and pins the link. Where that cannot be, nothing is
/// attached: [`missing`] says why.
pub(super) fn attach(directory: &Path) -> crate::Result<()> {
    let pin = directory.join(PROGRAM);
    let (Ok(root), true) = (cgroup::root(), pin.exists()) else {
        return Ok(());
    };
    let mut program = open_program(&pin)?;
    // A link is always one of several; the kernel takes no flag that says so.
    let Ok(id) = program.attach(root, CgroupAttachMode::Single) else {
        return Ok(());
    };
    let Ok(link) = FdLink::try_from(program.take_link(id)?) else {
        return Ok(());
    };
    let pin = directory.join(LINK);
    link.pin(&pin)
        .with_context(|| format!("cannot pin `{}`", pin.display()))?;
    Ok(())
}

fn open_program(pin: &Path) -> crate::Result<SockOps> {
    SockOps::from_pin(pin).with_context(|| format!("cannot open `{}`", pin.display()))
}

/// Why sockets are not followed; `None` if they are.
pub(super) fn missing(directory: &Path) -> Option<String> {
    if directory.join(LINK).exists() {
        return None;
    }
    Some(if !directory.join(PROGRAM).exists() {
        "this kernel does not take the program for it".to_owned()
    } else if let Err(why) = cgroup::root() {
        why.to_string()
    } else {
        "the link of the program for it is gone, or a program on the root of cgroup v2 keeps others away".to_owned()
    })
}
