//! The policy as tables: what a judgement may look up, in the kernel's maps or in an image on the host.

use crate::engine::config::Config;
use crate::engine::conntrack::Set;
use crate::engine::reason::Direction;
use crate::wire::addr::Addr;

/// What a table cell says about a port, an IP protocol or echo.
///
/// ```text
/// bit 15    some peers only: the rest is a rule index. Otherwise the rest is the counter cell, 0 = nobody
/// bit 14    stays in audit: violations here are never dropped
/// bits 0-13 rule index, or counter cell
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry(pub u16);

impl Entry {
    /// Bit 15.
    pub const RESTRICTED: u16 = 0x8000;
    /// Bit 14.
    pub const AUDIT: u16 = 0x4000;
    /// Bits 0 to 13.
    pub const INDEX: u16 = 0x3fff;

    /// Whether nobody is granted this.
    #[inline(always)]
    pub const fn is_closed(self) -> bool {
        self.0 & !Self::AUDIT == 0
    }

    /// Whether only some peers are.
    #[inline(always)]
    pub const fn is_restricted(self) -> bool {
        self.0 & Self::RESTRICTED != 0
    }

    /// Whether violations stay in audit.
    #[inline(always)]
    pub const fn is_audit(self) -> bool {
        self.0 & Self::AUDIT != 0
    }

    /// Rule index or counter cell.
    #[inline(always)]
    pub const fn index(self) -> u16 {
        self.0 & Self::INDEX
    }
}

/// Cells in all: what an [`crate::engine::tables::Entry`] can name.
pub const MAX_CELLS: u32 = 16_384;

/// When the first of the grants behind a counter cell ends, and which cell counts what is left of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ending {
    /// Nanoseconds since the Unix epoch; 0 = never.
    pub at: u64,
    /// The cell from then on; 0 = nothing is left for these peers.
    pub cell: u32,
    /// What the port is from then on for who has nothing left: see [`Ending::CLOSED`].
    pub left: u32,
}

impl Ending {
    /// Others still have something.
    pub const OTHERS: u32 = 0;
    /// Nobody has: the port is closed.
    pub const CLOSED: u32 = 1;
    /// The same, and only the rows that have ended kept it in audit.
    pub const CLOSED_WITH_AUDIT: u32 = 2;

    /// Where the ending of a rule as a whole stands: whoever it does not admit has no cell.
    #[inline(always)]
    pub const fn of_rule(rule: u16) -> u32 {
        MAX_CELLS + rule as u32
    }
}

/// Endings in a row that a cell may have.
pub const MAX_ENDINGS: usize = 4;

/// What a [`Entry`] is kept under: four spaces of 65,536 numbers.
///
/// ```text
/// 0x0pppp TCP port   0x1pppp UDP port   0x2pppp SCTP port   0x300nn IP protocol   0x30100 echo request
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

impl Key {
    /// Numbers of the key space; three spaces of ports and one chunk of protocols are in use.
    pub const COUNT: u32 = 4 << 16;
    /// Ping.
    pub const ECHO: Self = Self(3 << 16 | 0x100);
    /// Nothing is kept under it.
    pub const NONE: Self = Self(u32::MAX);
    /// Keys from here on are not in use.
    pub const END: u32 = (3 << 16) + 4096;

    /// The key of a TCP (0), UDP (1) or SCTP (2) port.
    #[inline(always)]
    pub const fn port(space: u32, port: u16) -> Self {
        Self(space << 16 | port as u32)
    }

    /// The key of an IP protocol.
    #[inline(always)]
    pub const fn protocol(number: u8) -> Self {
        Self(3 << 16 | number as u32)
    }

    /// Space: 0 TCP, 1 UDP, 2 SCTP, 3 protocols.
    pub const fn space(self) -> u32 {
        self.0 >> 16
    }

    /// Port or protocol number.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is the number"
    )]
    pub const fn number(self) -> u16 {
        self.0 as u16
    }
}

/// A rule: for which class of peers, and where its counter cells start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rule(pub u32);

impl Rule {
    /// From peer class and first counter cell.
    pub const fn new(peers: u16, cell: u16) -> Self {
        Self((peers as u32) << 16 | cell as u32)
    }

    /// Column of the admission matrix.
    #[inline(always)]
    pub const fn peers(self) -> u32 {
        self.0 >> 16
    }

    /// Cell of the first variant.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the cell")]
    pub const fn cell(self) -> u16 {
        self.0 as u16
    }
}

/// A word of the address tables.
///
/// ```text
/// bits 31-30  00 address class   01 the same, and hosts of other classes here   10 block   11 step
/// bits 0-29   address class, or number of a block or step
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leaf(pub u32);

impl Leaf {
    /// Bit 31: more specific prefixes below.
    pub const MORE: u32 = 1 << 31;
    /// Bit 30: with [`Self::MORE`] a step, otherwise hosts.
    pub const OTHER: u32 = 1 << 30;
    /// A block follows.
    pub const BLOCK: u32 = Self::MORE;
    /// A step follows.
    pub const STEP: u32 = Self::MORE | Self::OTHER;
    /// An address class, and the host table has hosts here.
    pub const HOSTS: u32 = Self::OTHER;
    /// Bits 0 to 29.
    pub const VALUE: u32 = Self::OTHER - 1;
}

/// Bits that all prefixes below have in common: one comparison instead of a block for each octet of them.
///
/// An address is taken as two halves of 64 bits, of which only one is at hand; IPv4 stands in the first 32 bits of a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Step {
    /// What the bits of `mask` must be; the others are zero.
    pub bits: u64,
    /// Which bits of the half are compared.
    pub mask: u64,
    /// The [`Leaf`] of addresses that differ: a class.
    pub miss: u32,
    /// The [`Leaf`] of those that do not.
    pub next: u32,
    /// How many bits of the half come before the octet that a block in `next` is indexed by.
    pub rotate: u32,
    /// Padding.
    pub reserved: u32,
}

/// An IPv6 network of 64 bits in which anything is named that is no shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Net6 {
    /// First half of the addresses, host order.
    pub high: u64,
    /// The [`Leaf`] that leads on, by the second half; 0 = empty cell.
    pub leaf: u32,
    /// Padding.
    pub reserved: u32,
}

/// Cells that a lookup in the table of networks tries.
pub const NET_PROBES: u32 = 8;

/// One IPv6 host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Host6 {
    /// First half of the address, host order.
    pub high: u64,
    /// Second half.
    pub low: u64,
    /// Address class plus one; 0 = empty cell.
    pub class: u32,
    /// Padding.
    pub reserved: u32,
}

/// Cells that a lookup in the host table tries.
pub const HOST_PROBES: u32 = 8;

/// What a judgement may look up. Every answer is total: an index out of range reads as zero.
pub trait Tables {
    /// Whether the generation has a deadline, and nobody has confirmed it yet: the one before may have to judge.
    fn may_give_way(&self) -> bool {
        false
    }

    /// The frozen facts.
    fn config(&self) -> &Config;
    /// Who may use `key`, in one direction.
    fn entry(&self, direction: Direction, key: Key) -> Entry;
    /// A rule by index.
    fn rule(&self, index: u16) -> Rule;
    /// The admission matrix: 0 = not admitted, else the variant counted from 1.
    fn admit(&self, index: u32) -> u32;
    /// When grants behind a cell end, or those of a rule: see [`Ending::of_rule`]. Only asked if [`Config::endings`].
    fn ending(&self, cell: u32) -> Ending;
    /// See [`left`]. In the kernel a function of its own, which the verifier sees once.
    fn left(&self, index: u32) -> u32 {
        left(index, |index| self.ending(index), || self.wall_time())
    }
    /// Nanoseconds since the Unix epoch, as [`Ending::at`] is compared with.
    fn wall_time(&self) -> u64;
    /// Root of the IPv4 table, by the first 16 bits of an address.
    fn root4(&self, index: u16) -> Leaf;
    /// Root of the IPv6 table, by the first 16 bits of an address.
    fn root6(&self, index: u16) -> Leaf;
    /// A word of the filter in front of the table of networks.
    fn filter6(&self, word: u32) -> u64;
    /// A cell of the table of networks.
    fn net6(&self, cell: u32) -> Net6;
    /// A step by number.
    fn step(&self, index: u32) -> Option<&Step>;
    /// A word of a block.
    fn block(&self, block: u32, index: u8) -> Leaf;
    /// A cell of the host table.
    fn host6(&self, cell: u32) -> Host6;
    /// Whether the kernel's routing forwards what goes from one address to another, so that it is for somebody else: on the
    /// way in, by its destination; on the way out, if it came from another interface and its source is not the host's. What
    /// is not known to be forwarded is not. Only asked if [`Config::scoped`].
    fn is_forwarded(&self, direction: Direction, source: Addr, destination: Addr) -> bool;
    /// Whether a frame that arrives is for another host of the link, and nothing here takes it. What is not known to be, is not.
    /// Only asked of what would be a violation, and if [`Config::card`].
    #[inline(always)]
    fn is_for_other_host(&self) -> bool {
        false
    }
    /// Whether a UDP socket of the host has a port; false where nothing is known of them.
    fn is_held(&self, _port: u16) -> bool {
        false
    }

    /// Whether a UDP port is a service's: it is published from somebody behind this host, or was open.
    #[inline(always)]
    fn is_served(&self, _port: u16) -> bool {
        false
    }
    /// A set of the flow table, which others may be writing to: each cell is whole, the set as such need not be.
    fn flow_set(&self, index: u32) -> Option<&Set>;
    /// The cell of a conversation that its set had no room for, by [`super::conntrack::Hashed::key`].
    fn spilled(&self, key: u64) -> Option<u64>;
    /// Jiffies since some time.
    fn jiffies(&self) -> u64;
    /// See [`crate::wire::frame::Frame::barrier_var`].
    #[inline(always)]
    fn barrier_var(&self, number: u64) -> u64 {
        number
    }
}

/// What is left now of a cell, or of a rule ([`Ending::of_rule`]), whose grants may have ended: the cell that counts it, or 0
/// with [`Ending::left`] in the high half.
#[inline(always)]
pub fn left(mut index: u32, ending: impl Fn(u32) -> Ending, time: impl Fn() -> u64) -> u32 {
    for _ in 0..MAX_ENDINGS {
        let ending = ending(index);
        // The clock is asked only for what ends at some time.
        if ending.at == 0 || time() < ending.at {
            break;
        }
        if ending.cell == 0 {
            return ending.left << 16;
        }
        index = ending.cell;
    }
    index
}
