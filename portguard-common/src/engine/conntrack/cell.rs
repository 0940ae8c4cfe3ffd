//! A cell: a tag, what is known of a conversation, and a coarse time.

/// Cells in a set.
pub const WAYS: usize = 7;
/// Cells of a set that TCP may have: one is always left for the rest. TCP beyond goes to the overflow table.
pub const TCP_WAYS: usize = 6;

/// Of these, cells that TCP may have which no socket of this host is known to have: one is always left for those.
pub const OTHERS_WAYS: usize = 5;

/// Bits of a cell below its tag.
pub(super) const LOW_BITS: u32 = 24;
pub(super) const LOW_MASK: u64 = (1 << LOW_BITS) - 1;
/// Bits of a cell that hold the time; the class stands between it and the tag.
pub(super) const TIME_BITS: u32 = 21;
pub(super) const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Units of time that a conversation which ended is still known for: the last segments may come twice.
pub const CLOSING: u32 = 120;
/// Units of time that an opening may wait for its answer.
pub const OPENING: u32 = 120;

/// What is known of a conversation, and so how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Not TCP: until nothing was sent for `udp_idle`.
    Datagrams = 0,
    /// TCP that ended: for [`CLOSING`] units.
    Closing = 1,
    /// TCP that was asked for and not answered yet: for [`OPENING`] units.
    Opening = 2,
    /// TCP (or SCTP) that is known by its packets: until nothing was sent for `tcp_idle`.
    Packets = 3,
    /// TCP of a socket of this namespace: until the socket closes.
    Socket = 4,
    /// TCP that is known by its packets, and of which this end is closed: as long as [`Self::Packets`], but it gives way,
    /// since whether the other end is closed too does not show.
    HalfClosed = 5,
    /// Not TCP, and nobody's here: it was forwarded. As [`Self::Datagrams`], as long as no socket of the host has its port.
    Forwarded = 6,
}

impl Class {
    /// The class of a cell.
    #[inline(always)]
    pub const fn of(cell: u64) -> Self {
        match cell >> TIME_BITS & 7 {
            0 => Self::Datagrams,
            1 => Self::Closing,
            2 => Self::Opening,
            3 => Self::Packets,
            5 => Self::HalfClosed,
            6 => Self::Forwarded,
            _ => Self::Socket,
        }
    }

    /// Whether a live cell of it gives way to nothing.
    #[inline(always)]
    pub const fn stays(self) -> bool {
        matches!(self, Self::Opening | Self::Packets | Self::Socket)
    }

    /// Cells that it may share with others of TCP in a set.
    #[inline(always)]
    pub const fn ways(self) -> usize {
        if matches!(self, Self::Socket) {
            TCP_WAYS
        } else {
            OTHERS_WAYS
        }
    }
}

/// How long conversations live, in units of [`now`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// See [`Class::Packets`].
    pub tcp_idle: u32,
    /// See [`Class::Datagrams`].
    pub udp_idle: u32,
}

/// The coarse time: jiffies shifted to about a second a unit, modulo 2^21 (24 days).
#[inline(always)]
pub const fn now(jiffies: u64, tick_shift: u32) -> u64 {
    jiffies >> tick_shift & TIME_MASK
}

/// Units since a cell was written.
#[inline(always)]
pub const fn age(cell: u64, now: u64) -> u64 {
    now.wrapping_sub(cell) & TIME_MASK
}

/// A cell's content.
#[inline(always)]
pub const fn cell(tag: u64, class: Class, now: u64) -> u64 {
    tag | (class as u64) << TIME_BITS | now & TIME_MASK
}

/// The tag of a cell.
#[inline(always)]
pub const fn tag(cell: u64) -> u64 {
    cell & !LOW_MASK
}

/// Whether a cell holds this conversation: then nothing but class and time is left above the tag.
#[inline(always)]
pub const fn same_flow(cell: u64, tag: u64) -> bool {
    cell.wrapping_sub(tag) <= LOW_MASK
}

/// Whether the conversation of a cell still lives.
#[inline(always)]
pub fn is_live(cell: u64, lifetimes: Lifetimes, now: impl FnOnce() -> u64) -> bool {
    let idle = match Class::of(cell) {
        Class::Socket => return true,
        Class::Packets | Class::HalfClosed => lifetimes.tcp_idle,
        Class::Datagrams | Class::Forwarded => lifetimes.udp_idle,
        Class::Opening => OPENING,
        Class::Closing => CLOSING,
    };
    age(cell, now()) <= u64::from(idle)
}
