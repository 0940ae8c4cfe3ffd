//! Non-IP protocols that have a name and a counter of their own.

use crate::wire::ethernet::LLC;
pub use crate::wire::ethernet::STP;
use crate::wire::packet::Subject;

/// A protocol by its name, its EtherTypes, and whether a host that is strict usually needs it to stay on its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtherType {
    /// Its number where it has one; a stand-in below 1536, which no frame has, for what 802.3 frames carry.
    pub number: u16,
    /// Kebab-case name, the same for all numbers of a protocol.
    pub name: &'static str,
    /// Passes strict hosts unless their site says otherwise.
    pub by_default: bool,
}

const fn named(number: u16, name: &'static str, by_default: bool) -> EtherType {
    EtherType {
        number,
        name,
        by_default,
    }
}

/// Link aggregation.
pub const LACP: u16 = 0x8809;

/// All, by the index of their counter; "other" comes behind them.
pub const ALL: [EtherType; 14] = [
    named(0x88cc, "lldp", true),
    named(LACP, "lacp", true),
    named(0x888e, "eapol", true),
    named(0x88e5, "macsec", false),
    named(0x8847, "mpls", false),
    named(0x8848, "mpls", false),
    named(0x8863, "pppoe", false),
    named(0x8864, "pppoe", false),
    named(STP, "stp", true),
    named(0x88f7, "ptp", false),
    named(LLC, "llc", false),
    named(0x8906, "fcoe", false),
    named(0x8914, "fcoe", false),
    named(0x8892, "profinet", false),
];

/// Index of those that have no name.
#[expect(clippy::cast_possible_truncation, reason = "a short list")]
pub const OTHER: u32 = ALL.len() as u32;

/// The index of an EtherType as [`crate::wire::packet::Packet::ethertype`] has it.
#[inline(always)]
pub const fn index(ethertype: u16) -> u32 {
    match ethertype {
        0x88cc => 0,
        LACP => 1,
        0x888e => 2,
        0x88e5 => 3,
        0x8847 => 4,
        0x8848 => 5,
        0x8863 => 6,
        0x8864 => 7,
        STP => 8,
        0x88f7 => 9,
        0x8906 => 11,
        0x8914 => 12,
        0x8892 => 13,
        ..1536 => 10,
        _ => OTHER,
    }
}

/// Whether a frame that is not IP is among the exceptions of a strict host.
#[inline(always)]
pub fn is_among<S: Subject>(exceptions: u32, packet: &S) -> bool {
    exceptions >> index(packet.ethertype()) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::{ALL, OTHER, index};

    #[test]
    fn every_number_has_the_index_of_its_name() {
        for (at, one) in (0..).zip(ALL) {
            assert_eq!(index(one.number), at, "{}", one.name);
        }
        assert_eq!(index(0x9000), OTHER);
        assert_eq!(index(1535), 10);
        const { assert!(OTHER < 16, "a slot each, and a bit each") };
    }
}
