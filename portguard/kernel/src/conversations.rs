//! The conversations of the host, one state a network namespace for all its guarded interfaces.
//!
//! ```text
//! /sys/fs/bpf/portguard/conversations-v2/7-4026531840/   cookie and inode of the network namespace
//!     FLOWS SPILLED THEIRS                               the tables, see `portguard_common::conntrack`
//!     ENDS_WITH                                          what ends when a TCP socket closes
//!     OUTSIDE SERVICES SERVED                            interfaces, sockets and ports that begin none
//!     HELD BOUND                                         ports that the host's UDP sockets have, and which has which
//!     NAMESPACE COUNTS                                   what the socket programs need and count
//!     sockets bind4 bind6 close                          their links, on the root of cgroup v2
//!     adopt                                              what writes from user space: run, attached nowhere
//! ```
//!
//! It comes with the first guard of the namespace, before that is put in force, and goes with the last. First the sockets
//! are followed, and then what was open already is asked for: nothing falls in between. A state that a killed tool left
//! incomplete is made anew; pins that are gone are made again from what the programs in force hold, and so is what those do not
//! hold: the tables stay, and sockets are followed anew.

mod adopt;
mod bounds;
pub(crate) mod cgroup;
mod forget;
mod forwarded;
mod held;
mod outside;
mod programs;
mod read;
mod repin;
mod served;
mod services;
mod streams;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use portguard_common::abi::ABI_VERSION;
use portguard_common::abi::namespace::{WORDS, word};
use portguard_policy::image::flow_sets;
use portguard_policy::policy::Policy;

use crate::clock::tick_shift;
use crate::error::Context as _;
use crate::fault::step;
use crate::flows;
use crate::host::owners;
use crate::host::sockets::{Service, sessions};
use crate::notice;
use crate::pins::bpffs::{self, Lock};
use crate::pins::guarded;
use crate::pins::identity;
use crate::pins::mounts::MOUNT;
use crate::pins::namespaces;

pub use adopt::Adopted;
pub use bounds::Bound;
pub(crate) use forwarded::take_over;
pub use forwarded::{Passing, passing};
pub(crate) use outside::expect as expect_interfaces;
pub use outside::follow as follow_interfaces;
pub use read::{Begun, Counts, Table};
pub(crate) use services::note_services;
pub use streams::{Heard, streams};

/// The state of this process's network namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    directory: PathBuf,
    words: [u64; WORDS as usize],
    /// What was taken over, where this made the state.
    adopted: Option<Adopted>,
    /// The UDP sockets that were there when it was made sure of.
    sockets: Vec<Service>,
}

impl Namespace {
    /// Where its pins are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The secret of the hash.
    pub fn key(&self) -> [u64; 2] {
        [self.word(word::KEY), self.word(word::KEY + 1)]
    }

    /// See [`portguard_common::config::Config::tick_shift`].
    pub fn tick_shift(&self) -> u32 {
        u32::try_from(self.word(word::TICK_SHIFT)).unwrap_or(0)
    }

    /// How many sets its tables have.
    pub fn sets(&self) -> u32 {
        u32::try_from(self.word(word::MASK)).map_or(1, |mask| mask + 1)
    }

    /// The UDP sockets that were there when this state was made sure of, once.
    pub(crate) fn take_sockets(&mut self) -> Vec<Service> {
        std::mem::take(&mut self.sockets)
    }

    /// What was open before and is known now, where this state was made just now.
    pub fn adopted(&self) -> Option<Adopted> {
        self.adopted
    }

    /// Whether programs see the host's TCP sockets connect, and close.
    fn follows_sockets(&self) -> bool {
        programs::missing(&self.directory).is_none()
            && programs::are_ports_followed(&self.directory)
    }

    fn word(&self, index: u32) -> u64 {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.words.get(index))
            .copied()
            .unwrap_or(0)
    }

    /// Which of its pins are gone, if any.
    pub fn gaps(&self) -> Option<String> {
        let missing = repin::missing(&self.directory);
        (!missing.is_empty()).then(|| {
            format!(
                "pins of the table of conversations are gone ({}): load again to recreate them",
                missing.join(", ")
            )
        })
    }

    /// What is known less well than it could be, in a line: `doctor` says what follows from it.
    pub fn weakness(&self) -> Option<String> {
        let sockets = programs::missing(&self.directory)
            .map(|why| format!("the host's sockets are not followed, since {why}"));
        let ports = (sockets.is_none() && !programs::are_ports_followed(&self.directory))
            .then(|| "UDP sockets that are bound to a device later are not seen".to_owned());
        let picked = (owners::bit() == 0)
            .then(|| "the kernel does not say which UDP ports it picked".to_owned());
        let all: Vec<String> = sockets.into_iter().chain(ports).chain(picked).collect();
        (!all.is_empty()).then(|| all.join("; ") + " (`portguard doctor` says what to do)")
    }
}

impl Namespace {
    /// That the table was full, if it was.
    pub fn shortage(&self) -> Option<String> {
        let lost = self.counts().ok()?.lost;
        (lost > 0).then(|| {
            format!(
                "there was no room for some of the host's connections, and replies to them are violations ({lost} so far): {MORE_ROOM}"
            )
        })
    }

    /// That the table is not as large as a policy wants it, if so.
    pub fn misfit(&self, policy: &Policy) -> Option<String> {
        let (now, wanted) = (self.sets(), flow_sets(policy.settings.flows));
        (now != wanted).then(|| {
            format!(
                "the table of conversations keeps its {now} sets; to get {wanted}, unload all interfaces and load again"
            )
        })
    }
}

/// What gives the table more room.
pub const MORE_ROOM: &str =
    "raise `flows` in `[timeouts]`, then `portguard unload` all interfaces and load again";

/// Directory of all states of this version.
fn root() -> PathBuf {
    Path::new(MOUNT).join(format!("portguard/conversations-v{ABI_VERSION}"))
}

fn directory() -> crate::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let path = "/proc/thread-self/ns/net";
    let inode = fs::metadata(path)
        .with_context(|| format!("cannot look at `{path}`"))?
        .ino();
    let cookie = identity::cookie().unwrap_or(0);
    Ok(root().join(format!("{cookie}-{inode}")))
}

/// The state, if there is one.
pub fn find() -> Option<Namespace> {
    let directory = directory().ok()?;
    let map = MapData::from_pin(directory.join("NAMESPACE")).ok()?;
    let map: Array<MapData, u64> = Map::Array(map).try_into().ok()?;
    let mut words = [0; WORDS as usize];
    for (index, word) in (0..).zip(&mut words) {
        *word = map.get(&index, 0).ok()?;
    }
    let found = Namespace {
        directory,
        words,
        adopted: None,
        sockets: Vec::new(),
    };
    (found.word(word::COMPLETE) == 1).then_some(found)
}

/// The state, made if there is none. A policy that is loaded later may change its lifetimes, not its size.
///
/// # Errors
/// What the kernel refuses: memory, the program that writes the tables, and the list of sockets. Socket programs that it
/// refuses are [`Namespace::weakness`].
pub(crate) fn ensure(_lock: &Lock, policy: &Policy) -> crate::Result<Namespace> {
    let settings = &policy.settings;
    let lifetimes = |shift| {
        [settings.tcp_idle, settings.udp_idle].map(|idle| u64::from(flows::units(idle, shift)))
    };
    let directory = directory()?;
    let mended = repin::repin(&directory)?;
    // How many sockets have a port is worth nothing without which.
    if !directory.join("BOUND").exists() {
        remove_file(&directory.join("HELD"))?;
    }
    if let Some(mut found) = find() {
        if has_tables(&directory) {
            let [tcp, udp] = lifetimes(found.tick_shift());
            set_word(&found.directory, word::TCP_IDLE, tcp)?;
            set_word(&found.directory, word::UDP_IDLE, udp)?;
            if !repin::missing(&directory).is_empty()
                || programs::missing(&directory).is_some()
                || !programs::are_ports_followed(&directory)
            {
                programs::load(&found)?;
            }
            if programs::missing(&directory).is_some() {
                programs::attach(&directory)?;
            }
            found.sockets = held::follow(&found)?;
            if !mended.is_empty() {
                notice::warn(&format!("restored missing pins: {}", mended.join(", ")));
            }
            forget::forget_closed(&found)?;
            return Ok(found);
        }
        notice::warn(
            "the table of conversations is created again, since its pins were gone and no program held it: replies to datagrams are let in once the host asks again",
        );
    }
    let shape = repin::in_force(&directory);
    if shape.is_some() {
        notice::warn("restored missing pins: sockets are followed again");
        for name in repin::OF_SOCKETS {
            remove_file(&directory.join(name))?;
        }
    } else {
        bpffs::remove(&directory)
            .with_context(|| format!("cannot remove `{}`", directory.display()))?;
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
    }
    let Shape {
        key: [first, second],
        sets,
        shift,
    } = match shape {
        Some(shape) => shape,
        None => Shape {
            key: secret()?,
            sets: flow_sets(settings.flows),
            shift: tick_shift(),
        },
    };
    let [tcp, udp] = lifetimes(shift);
    let mut namespace = Namespace {
        directory,
        words: [
            first,
            second,
            u64::from(sets - 1),
            u64::from(shift),
            identity::cookie().unwrap_or(0),
            tcp,
            udp,
            0,
        ],
        adopted: None,
        sockets: Vec::new(),
    };
    programs::load(&namespace)?;
    step("followed")?;
    programs::attach(&namespace.directory)?;
    namespace.sockets = held::follow(&namespace)?;
    step("following")?;
    namespace.adopted = Some(adopt::all(&namespace, policy, &sessions()?)?);
    forget::forget_closed(&namespace)?;
    set_word(&namespace.directory, word::COMPLETE, 1)?;
    Ok(namespace)
}

/// What tables were made with, and those who read them have to know.
struct Shape {
    /// The secret of the hash.
    key: [u64; 2],
    sets: u32,
    /// See [`portguard_common::config::Config::tick_shift`].
    shift: u32,
}

/// Whether the tables have pins, and not only programs.
fn has_tables(directory: &Path) -> bool {
    ["FLOWS", "THEIRS", "SPILLED", "COUNTS"]
        .iter()
        .all(|name| directory.join(name).exists())
}

fn remove_file(pin: &Path) -> crate::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("cannot remove `{}`", pin.display())),
    }
}

fn set_word(directory: &Path, word: u32, value: u64) -> crate::Result<()> {
    let pin = directory.join("NAMESPACE");
    let map =
        MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
    let mut map: Array<MapData, u64> = Map::Array(map).try_into()?;
    map.set(word, value, 0)
        .with_context(|| format!("cannot write `{}`", pin.display()))
}

fn secret() -> crate::Result<[u64; 2]> {
    let mut halves = [[0; 8]; 2];
    let mut random = File::open("/dev/urandom").context("cannot open `/dev/urandom`")?;
    for half in &mut halves {
        random.read_exact(half)?;
    }
    Ok(halves.map(u64::from_le_bytes))
}

/// Removes the state where no interface of this network namespace is guarded any more, and that of namespaces that ended.
///
/// # Errors
/// If pins cannot be removed.
pub(crate) fn remove_unused() -> io::Result<()> {
    let own = directory().unwrap_or_default();
    let is_used = !bpffs::layouts_here().is_empty();
    let there = fs::read_dir(root()).into_iter().flatten().flatten();
    let there: Vec<PathBuf> = there.map(|entry| entry.path()).collect();
    let others = there.iter().filter(|directory| **directory != own);
    let mut others: BTreeSet<_> = others.filter_map(|other| namespace_of(other)).collect();
    // A guard that is attached says that its namespace lives, without a look at every process.
    let attached = guarded::namespaces();
    others.retain(|namespace| !attached.contains(namespace));
    let alive = namespaces::alive(&others);
    for directory in there {
        let is_over = if directory == own {
            !is_used
        } else {
            namespace_of(&directory).is_some_and(|there| alive.get(&there) == Some(&Some(false)))
        };
        if is_over {
            bpffs::remove(&directory)?;
        }
    }
    Ok(())
}

fn namespace_of(directory: &Path) -> Option<identity::Namespace> {
    directory.file_name()?.to_str()?.parse().ok()
}
