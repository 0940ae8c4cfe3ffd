//! Makes the conversations that the host has open known to the flow table, before a guard asks for them.

use aya::maps::{Array, MapData};
use portguard_common::conntrack::Tuple;
use portguard_common::packet::{protocol, space};

use crate::fault::step;
use crate::flows::{Flows, Inserted};
use crate::generation::Prepared;
use crate::host::sockets::Session;

/// What became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seeded {
    /// In the table now.
    pub known: usize,
    /// Took the place of another: the table is too small.
    pub evicted: usize,
}

impl Prepared {
    /// Seeds sessions; nothing where the policy has no flow table.
    ///
    /// # Errors
    /// If the table cannot be written.
    pub fn seed(&mut self, sessions: &[Session]) -> anyhow::Result<Seeded> {
        step("seeded")?;
        let mut seeded = Seeded::default();
        if self.meta.egress_hook.is_none() {
            return Ok(seeded);
        }
        let facts = self.pair.loaded.facts;
        let sets: Array<&mut MapData, _> = self.pair.loaded.map_mut("FLOWS")?.try_into()?;
        let mut flows = Flows::new(sets, facts);
        for session in sessions {
            let tuple = Tuple {
                space: space(if session.is_tcp {
                    protocol::TCP
                } else {
                    protocol::UDP
                }),
                local: session.local.ip().into(),
                remote: session.remote.ip().into(),
                local_port: session.local.port(),
                remote_port: session.remote.port(),
            };
            seeded.known += 1;
            if flows.insert(&tuple)? == Inserted::Evicted {
                seeded.evicted += 1;
            }
        }
        Ok(seeded)
    }
}
