//! What user space asks of the tables, and what was done.

/// What is done to the table from outside the packets' path: a record of it, behind an Ethernet header, is what
/// `portguard_adopt` is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// See the constants here.
    pub what: u8,
    /// The [`super::Class`], as a number.
    pub class: u8,
    /// See [`super::Tuple::space`].
    pub space: u8,
    /// 1 = IPv6.
    pub v6: u8,
    /// See [`super::Tuple::local_port`].
    pub local_port: u16,
    /// See [`super::Tuple::remote_port`].
    pub remote_port: u16,
    /// See [`super::Tuple::local`].
    pub local: [u64; 2],
    /// See [`super::Tuple::remote`].
    pub remote: [u64; 2],
    /// With [`REMOVE`]: the number of the set, and the cell that is to be emptied if it still stands there. With
    /// [`OURS`]: the cookie of the TCP socket whose close ends it, 0 = none.
    pub set: u64,
    /// See there.
    pub cell: u64,
}

/// Make known a conversation that the host began.
pub const OURS: u8 = 1;
/// Make known one that the other end began.
pub const THEIRS: u8 = 2;
/// Empty a cell.
pub const REMOVE: u8 = 3;
/// A UDP socket, whose cookie stands where the set would, has the local port.
pub const HOLD: u8 = 4;
/// That socket is closed.
pub const RELEASE: u8 = 5;
/// Where the record stands.
pub const AT: usize = 14;

/// Answer: it was there already.
pub const KNOWN: u32 = 0;
/// Answer: done.
pub const DONE: u32 = 1;
/// Answer: done, in the overflow table.
pub const SPILLED: u32 = 2;
/// Answer: no room.
pub const LOST: u32 = 3;
/// Answer: not understood.
pub const WRONG: u32 = 1 << 16;
