//! Tables beside that of the conversations that have room for so many and no more: how full they are, and what a full one means.

use aya::maps::{HashMap, Map, MapData};
use portguard_common::conntrack::WAYS;

use super::Namespace;
use crate::error::Context as _;
use portguard_policy::human::grouped;

/// A table with room for so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// What it is called in all views.
    pub name: &'static str,
    /// How many entries it has now.
    pub held: u64,
    /// How many it has room for.
    pub room: u64,
    /// Whether what comes beyond finds no place.
    is_full: bool,
    /// What that means for what comes beyond, and what to do.
    means: &'static str,
}

/// The tables: the pin, what it is called, and what comes beyond.
const TABLES: [(&str, &str, &str); 5] = [
    (
        "SPILLED",
        "overflow",
        "replies to more of the host's connections may be violations: raise `flows` in `[timeouts]`, then unload all interfaces and load again",
    ),
    (
        "ENDS_WITH",
        "translated",
        "more of the host's connections that its packet filter gives other ends are tracked by their packets, and forgotten once the host sends nothing on them for `tcp_idle`: raise that",
    ),
    (
        "BOUND",
        "udp-sockets",
        "ports of more UDP sockets are not known: answers to datagrams that are forwarded from their ports can reach them",
    ),
    (
        "SERVICES",
        "services",
        "more UDP sockets that serve look like clients where they speak to ports that anybody may be asked at: name those servers in `[baseline]`",
    ),
    (
        "OUTSIDE",
        "interfaces",
        "what comes by more interfaces counts as from inside, and may begin conversations: guard fewer of them",
    ),
];

/// Sets of such a table that are looked at: each costs a system call.
const SAMPLED: u32 = 1024;

/// What other ends began, as far as it was let in as a violation: a table of sets, of which each has a place for few.
const THEIRS: (&str, &str, &str) = (
    "THEIRS",
    "inbound",
    "more of those whom audit lets in are forgotten, and what is said to them at ports that anybody may be asked at counts as a question: raise `flows` in `[timeouts]`, or name the servers of such ports in `[baseline]`",
);

impl Bound {
    /// What a full table means, if it is.
    pub fn warning(&self) -> Option<String> {
        self.is_full.then(|| {
            format!(
                "table `{}` of conversations is full ({} of {}): {}",
                self.name,
                grouped(self.held),
                grouped(self.room),
                self.means
            )
        })
    }
}

impl Namespace {
    /// How full they are; those whose pins are gone are not among them.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn bounds(&self) -> crate::Result<Vec<Bound>> {
        let mut bounds = Vec::new();
        for (pin, name, means) in TABLES {
            let path = self.directory().join(pin);
            if !path.exists() {
                continue;
            }
            let map = MapData::from_pin(&path)
                .with_context(|| format!("cannot open `{}`", path.display()))?;
            let room = map.info()?.max_entries().into();
            let map = Map::HashMap(map);
            let held = match pin {
                "OUTSIDE" => count::<u32, u32>(map),
                "BOUND" | "SERVICES" => count::<u64, u32>(map),
                "ENDS_WITH" => count::<u64, [u64; 2]>(map),
                _ => count::<u64, u64>(map),
            };
            let held = held
                .with_context(|| format!("cannot read map `{pin}`"))?
                // One that changes while it is read is seen in parts twice.
                .min(room);
            bounds.push(Bound {
                name,
                held,
                room,
                is_full: held >= room,
                means,
            });
        }
        bounds.extend(self.inbound()?);
        Ok(bounds)
    }

    /// The table of what other ends began. As sets fill by chance, the last cell is free for long after most have to give way;
    /// and as tuples have any set, some of the sets stand for all.
    fn inbound(&self) -> crate::Result<Option<Bound>> {
        let (pin, name, means) = THEIRS;
        if !self.directory().join(pin).exists() {
            return Ok(None);
        }
        let every = (self.sets() / SAMPLED).max(1);
        let theirs = self.table()?.theirs;
        let found = theirs.occupancy_of(usize::try_from(every).unwrap_or(1))?;
        let sets = found.capacity / WAYS as u64;
        Ok(Some(Bound {
            name,
            held: found.live * u64::from(every),
            room: found.capacity * u64::from(every),
            is_full: found.full_sets * 2 >= sets,
            means,
        }))
    }
}

fn count<K: aya::Pod, V: aya::Pod>(map: Map) -> crate::Result<u64> {
    let map: HashMap<MapData, K, V> = map.try_into()?;
    let mut held = 0;
    for key in map.keys() {
        key?;
        held += 1;
    }
    Ok(held)
}
