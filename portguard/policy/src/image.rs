//! The image: exactly what a generation's maps will hold, and what each counter cell means.
//!
//! Pure and deterministic: the same policy and the same cell directory give the same bytes. [`Tables`] is implemented for
//! it, so that the verdict function of the kernel runs over it on the host.

mod classes;
mod endings;
mod hosts;
mod nets;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use portguard_common::abi::{Block, MAX_CELLS};
use portguard_common::addr::Addr;
use portguard_common::config::{Config, dhcp};
use portguard_common::conntrack::Set;
use portguard_common::reason::Direction;
use portguard_common::tables::{
    Ending, Entry, Host6, Key, Leaf, MAX_ENDINGS, Net6, Rule, Step, Tables,
};

use crate::catalog::Transport;
use crate::cells::Directory;
use crate::policy::{Grant, GrantKind, Outbound, Policy};

pub(crate) use sweep::SINGLE_PORTS;
pub use sweep::{Span, Variant, covering, spans};

/// What a generation's maps hold.
#[derive(Clone)]
pub struct Image {
    /// Frozen facts; those that only the loading host knows (flow key, tick, multi-buffer) are zero.
    pub facts: Config,
    /// Entries by key, ingress.
    pub inbound: Vec<u16>,
    /// Entries by key, egress.
    pub outbound: Vec<u16>,
    /// Rules by index, [`MAX_CELLS`] of them.
    pub rules: Vec<u32>,
    /// IPv4 by the first 16 bits.
    pub root4: Vec<u32>,
    /// IPv6 by the first 16 bits.
    pub root6: Vec<u32>,
    /// Blocks of both families; at least one.
    pub blocks: Vec<Block>,
    /// Steps of both families; at least one.
    pub steps: Vec<Step>,
    /// The filter in front of [`Self::nets`]: words of bits; a power of two.
    pub filter: Vec<u64>,
    /// IPv6 networks of 64 bits, open addressing; a power of two.
    pub nets: Vec<Net6>,
    /// IPv6 hosts, open addressing; a power of two.
    pub hosts: Vec<Host6>,
    /// Admission by address class and peer class; at least one word.
    pub admit: Vec<u32>,
    /// When the grants behind counter cells end, by cell; a single word that says never where none does.
    pub endings: Vec<Ending>,
    /// The time that its verdicts are of, as [`Ending::at`] has it; 0: before anything ends.
    pub time: u64,
    /// The host's own addresses as far as the policy knows them: the kernel asks its routes instead.
    pub own: Vec<Addr>,
    /// What every cell means, those of earlier generations included.
    pub directory: Directory,
}

/// The policy does not fit into the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// More distinct port entries than counter cells.
    #[error("the policy needs more than {} counter cells", MAX_CELLS - 1)]
    Cells,
    /// More distinct restricted entries than rules.
    #[error("the policy has more than {} entries that are open to some peers only", MAX_CELLS - 1)]
    Rules,
    /// More days on which something ends than a cell can follow.
    #[error("rows for the same port and peers end at more than {MAX_ENDINGS} different times")]
    Endings,
    /// IPv6 networks that were chosen to be kept in the same place.
    #[error("the policy names IPv6 networks of 64 bits that all have the same hash")]
    Networks,
    /// The admission matrix would be too large.
    #[error("the policy combines too many peer sets: {0} address classes by {1} peer classes")]
    Admission(usize, usize),
}

/// Words of the admission matrix that are accepted (8 bytes each in the kernel).
pub(crate) const MAX_ADMISSION: usize = 4 << 20;

/// How many sets a table of conversations has for so many of them: at least a word each, a power of two.
pub const fn flow_sets(flows: u32) -> u32 {
    let sets = (flows / 8).next_power_of_two();
    if sets == 0 { 1 } else { sets }
}

impl Image {
    /// Builds the image of a policy; cells that `directory` already knows keep their place.
    ///
    /// # Errors
    /// [`TooLarge`] if the policy does not fit.
    pub fn build(policy: &Policy, directory: Directory) -> Result<Self, TooLarge> {
        let classes = classes::Classes::build(&policy.sets)?;
        let mut builder = sweep::Builder::new(policy, &classes, directory);
        let inbound = builder.direction(Direction::Ingress)?;
        let outbound = builder.direction(Direction::Egress)?;
        let sweep::Built {
            mut rules,
            peer_classes,
            directory,
            endings,
        } = builder.finish();
        let width = peer_classes.len().max(1);
        let words = classes.members.len() * width;
        if words > MAX_ADMISSION {
            return Err(TooLarge::Admission(classes.members.len(), width));
        }
        let mut admit = vec![0; words];
        for (column, peer_class) in peer_classes.iter().enumerate() {
            for (row, variant) in peer_class.variants.iter().enumerate() {
                if let Some(word) = admit.get_mut(row * width + column) {
                    *word = *variant;
                }
            }
        }
        rules.resize(MAX_CELLS as usize, 0);
        let settings = &policy.settings;
        // As the kernel has it: broadcasts of its networks are for the host too, and of IPv6 what is for any of a network's
        // routers (RFC 4291 section 2.6.1).
        let mut own: Vec<Addr> = Vec::new();
        for net in settings.host_addresses.iter().flatten() {
            let all = match net {
                IpNet::V4(net) => net.broadcast().into(),
                IpNet::V6(net) => net.network().into(),
            };
            own.extend([net.addr(), all].map(Addr::from));
        }
        let facts = Config {
            enforce: u32::from(settings.enforce),
            enforce_out: u32::from(settings.outbound == Outbound::Enforce),
            strict_fragments: u32::from(settings.strict_fragments),
            strict_ethertypes: u32::from(settings.strict_ethertypes),
            sources: u32::from(!peer_classes.is_empty()),
            hosts: u32::from(classes.has_hosts),
            host_mask: u32::try_from(classes.hosts.len() - 1).unwrap_or(0),
            nets: u32::from(classes.has_nets),
            net_mask: u32::try_from(classes.nets.len() - 1).unwrap_or(0),
            filter_mask: u32::try_from(classes.filter.len() * 64 - 1).unwrap_or(0),
            width: u32::try_from(width).unwrap_or(1),
            scoped: u32::from(settings.host_addresses.is_some()),
            flows: u32::from(settings.outbound != Outbound::Off),
            flow_mask: flow_sets(settings.flows) - 1,
            tcp_idle: settings.tcp_idle,
            udp_idle: settings.udp_idle,
            tick_shift: 0,
            multi_buffer: 0,
            raw_ip: 0,
            card: 0,
            card_address: 0,
            no_fast_path: 0,
            ethertypes: settings.ethertypes,
            dhcp: dhcp_only(&policy.inbound),
            picked_ports: 0,
            endings: u32::from(endings.len() > 1),
            deadline: 0,
            flow_key: [0; 2],
        };
        let classes::Classes {
            root4,
            root6,
            blocks,
            steps,
            filter,
            nets,
            hosts,
            ..
        } = classes;
        Ok(Self {
            facts,
            inbound,
            outbound,
            rules,
            root4,
            root6,
            blocks,
            steps,
            filter,
            nets,
            hosts,
            admit,
            endings,
            time: 0,
            own,
            directory,
        })
    }
}

impl Tables for Image {
    fn config(&self) -> &Config {
        &self.facts
    }

    fn entry(&self, direction: Direction, key: Key) -> Entry {
        let table = match direction {
            Direction::Ingress => &self.inbound,
            Direction::Egress => &self.outbound,
        };
        Entry(at(table, key.0))
    }

    fn rule(&self, index: u16) -> Rule {
        Rule(at(&self.rules, u32::from(index)))
    }

    fn admit(&self, index: u32) -> u32 {
        at(&self.admit, index)
    }

    fn ending(&self, cell: u32) -> Ending {
        at(&self.endings, cell)
    }

    fn wall_time(&self) -> u64 {
        self.time
    }

    fn root4(&self, index: u16) -> Leaf {
        Leaf(at(&self.root4, u32::from(index)))
    }

    fn root6(&self, index: u16) -> Leaf {
        Leaf(at(&self.root6, u32::from(index)))
    }

    fn step(&self, index: u32) -> Option<&Step> {
        self.steps.get(index as usize)
    }

    fn block(&self, block: u32, index: u8) -> Leaf {
        let block = self.blocks.get(block as usize);
        Leaf(block.map_or(0, |block| at(&block.leaves, u32::from(index))))
    }

    fn filter6(&self, word: u32) -> u64 {
        at(&self.filter, word)
    }

    fn net6(&self, cell: u32) -> Net6 {
        at(&self.nets, cell)
    }

    fn host6(&self, cell: u32) -> Host6 {
        at(&self.hosts, cell)
    }

    /// The kernel asks its routes; here, what the policy knows of the host's addresses has to do.
    fn is_forwarded(&self, direction: Direction, source: Addr, destination: Addr) -> bool {
        // What stays on its link is never forwarded, whichever end says so.
        let stays = |one: Addr| {
            one.v6 && (one.is_group() || one.is_link_local() || IpAddr::from(one).is_loopback())
        };
        if stays(source) || stays(destination) {
            return false;
        }
        let own = match direction {
            Direction::Ingress => destination,
            Direction::Egress => source,
        };
        let is_known = self.own.iter().any(|one| one.v6 == own.v6);
        is_known && !self.own.contains(&own) && !IpAddr::from(own).is_loopback()
    }

    fn flow_set(&self, _index: u32) -> Option<&Set> {
        None
    }

    fn spilled(&self, _key: u64) -> Option<u64> {
        None
    }

    fn jiffies(&self) -> u64 {
        0
    }
}

/// Which ports of DHCP clients nothing but the baseline opens: see [`Config::dhcp`].
pub(crate) fn dhcp_only(inbound: &[Grant]) -> u32 {
    let mut bits = 0;
    for (bit, client, _) in dhcp::PORTS {
        let mut opened = inbound
            .iter()
            .filter(|grant| grant.transport == Transport::Udp && grant.covers(client))
            .peekable();
        if opened.peek().is_some() && opened.all(|grant| grant.kind == GrantKind::Baseline) {
            bits |= bit;
        }
    }
    bits
}

fn at<T: Copy + Default>(table: &[T], index: u32) -> T {
    table.get(index as usize).copied().unwrap_or_default()
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("facts", &self.facts)
            .field("blocks", &self.blocks.len())
            .field("steps", &self.steps.len())
            .field("hosts", &self.hosts.len())
            .field("admit", &self.admit.len())
            .field("cells", &self.directory.cells.len())
            .finish_non_exhaustive()
    }
}
