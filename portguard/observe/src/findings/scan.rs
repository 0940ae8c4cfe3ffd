//! Scans: many ports tried that nothing listens on. A port is told by itself again once it was tried often.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Half, Side};
use portguard_policy::catalog::Transport;

/// Who tries so many ports that nobody listens on scans them.
pub(crate) const PORTS: usize = 16;

/// So many closed ports are noise, whoever tries them.
const NOISE: usize = 64;

/// A closed port that more packets than this came to is no noise.
pub(crate) const OFTEN: u64 = 64;

/// Who scans, in one direction.
#[derive(Default)]
pub(super) struct Scanners<'a> {
    peers: BTreeSet<&'a str>,
    /// Ports that belong to the noise.
    noise: BTreeSet<(Transport, u16)>,
}

impl<'a> Scanners<'a> {
    /// Looks at both transports and all ports of a direction that are `closed`.
    pub(super) fn find(
        direction: &'static str,
        halves: &BTreeMap<Side, Half<'a>>,
        is_closed: impl Fn(Transport, u16) -> bool,
    ) -> Self {
        let mut tried: BTreeMap<&str, BTreeSet<(Transport, u16)>> = BTreeMap::new();
        let mut quiet = BTreeSet::new();
        for ((side, transport), half) in halves {
            if *side != direction {
                continue;
            }
            for (number, port) in &half.ports {
                let place = (*transport, *number);
                if port.documented || !is_closed(*transport, *number) {
                    continue;
                }
                if port.count <= OFTEN {
                    quiet.insert(place);
                }
                for talker in port.talkers() {
                    if let Some(peer) = &talker.peer {
                        tried.entry(peer).or_default().insert(place);
                    }
                }
            }
        }
        let scanners = tried.into_iter().filter(|(_, ports)| ports.len() >= PORTS);
        let peers: BTreeSet<&str> = scanners.map(|(peer, _)| peer).collect();
        Self {
            peers,
            noise: if quiet.len() >= NOISE {
                quiet
            } else {
                BTreeSet::new()
            },
        }
    }

    pub(super) fn has(&self, peer: Option<&String>) -> bool {
        peer.is_some_and(|peer| self.peers.contains(peer.as_str()))
    }

    pub(super) fn are_known(&self) -> bool {
        !self.peers.is_empty()
    }

    pub(super) fn is_noise(&self, place: (Transport, u16)) -> bool {
        self.noise.contains(&place)
    }
}
