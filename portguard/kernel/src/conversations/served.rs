//! Which UDP ports are services': those that are published from containers, and those that are open, or were since there is a
//! state. What leaves from one begins nothing unless a row names whom it asks, so that nothing has to be known of its callers.

use std::ops::RangeInclusive;

use aya::maps::{Array, Map, MapData};
use portguard_common::conntrack::SERVED_WORDS;
use portguard_policy::catalog::Transport;
use portguard_policy::policy::Policy;

use super::Namespace;
use crate::error::Context as _;
use crate::host::nat::{self, Reading, Unread, World};
use crate::host::owners::ephemeral;
use crate::notice;
use crate::pins::namespaces::is_forwarding;

/// A range that is longer is not taken for services' where the kernel picks ports for clients.
const LONGEST: usize = 1024;

/// Whether a range that is open says nothing of one of its ports: it is long, and the kernel picks the port for clients.
pub(super) fn is_of_clients(
    ports: &RangeInclusive<u16>,
    clients: &RangeInclusive<u16>,
    port: u16,
) -> bool {
    ports.len() > LONGEST && clients.contains(&port)
}

/// A bit a port.
pub(super) struct Served {
    words: Vec<u64>,
    clients: RangeInclusive<u16>,
    /// Parts of the packet filter that nobody could read: what they publish is not known.
    unread: Vec<Unread>,
}

impl Served {
    /// By these policies, and by what the packet filter hands on now.
    pub(super) fn by<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Self {
        let (first, last) = ephemeral();
        let mut served = Self {
            words: vec![0; SERVED_WORDS],
            clients: first..=last,
            unread: Vec::new(),
        };
        for policy in policies {
            let udp = policy.inbound.iter();
            for grant in udp.filter(|grant| grant.transport == Transport::Udp) {
                served.add(grant.first..=grant.last);
            }
        }
        if is_forwarding() {
            let Reading { published, unread } = nat::read(&World::here(&[]));
            served.unread = unread;
            served.unread.retain(Unread::is_whole);
            for one in published
                .iter()
                .filter(|one| one.transport == Transport::Udp)
            {
                served.add(one.ports());
                served.add(one.inner_ports());
            }
        }
        served
    }

    fn add(&mut self, ports: RangeInclusive<u16>) {
        for port in ports.clone() {
            if is_of_clients(&ports, &self.clients, port) {
                continue;
            }
            if let Some(word) = self.words.get_mut(usize::from(port) / 64) {
                *word |= 1 << (port % 64);
            }
        }
    }

    /// Whether a port is among them.
    pub(super) fn has(&self, port: u16) -> bool {
        let word = self.words.get(usize::from(port) / 64);
        word.is_some_and(|word| word >> (port % 64) & 1 != 0)
    }

    /// Adds them to those that the data plane knows.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub(super) fn write(&self, namespace: &Namespace) -> crate::Result<()> {
        let pin = namespace.directory().join("SERVED");
        if !pin.exists() {
            return Ok(());
        }
        if let Some(Unread { rule, why }) = self.unread.first() {
            notice::warn(&format!(
                "which UDP ports are published is not known ({rule}: {why}): a service behind this host that no row documents may \
                 count as a client, and then whoever it speaks to is heard"
            ));
        }
        let map =
            MapData::from_pin(&pin).with_context(|| format!("cannot open `{}`", pin.display()))?;
        let mut map: Array<MapData, u64> = Map::Array(map).try_into()?;
        for (index, word) in (0..).zip(&self.words).filter(|(_, word)| **word != 0) {
            let before = map.get(&index, 0).context("cannot read map `SERVED`")?;
            if before | word != before {
                map.set(index, before | word, 0)
                    .context("cannot write map `SERVED`")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ranges_leave_the_ports_of_clients_alone() {
        let mut served = Served {
            words: vec![0; SERVED_WORDS],
            clients: 32_768..=60_999,
            unread: Vec::new(),
        };
        served.add(51_820..=51_820);
        served.add(30_000..=33_000);
        for (port, wanted) in [
            (51_820, true),
            (51_821, false),
            (30_000, true),
            (32_767, true),
            (32_768, false),
            (33_000, false),
        ] {
            assert_eq!(served.has(port), wanted, "{port}");
        }
    }
}
