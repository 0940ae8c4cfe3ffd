//! The Ethernet header and VLAN tags (IEEE 802.3, 802.1Q).

use crate::wire::frame::{Frame, Window};
use crate::wire::network::{Network, short};
use crate::wire::packet::{Malformed, Packet, Shape};

/// EtherTypes (IANA, IEEE).
pub mod ethertype {
    /// IPv4 (RFC 894).
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
    /// A customer's VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A provider's VLAN tag (802.1ad).
    pub const PROVIDER_VLAN: u16 = 0x88a8;
    /// A provider's VLAN tag before 802.1ad.
    pub const OLD_PROVIDER_VLAN: u16 = 0x9100;
}

/// Offsets in the header.
pub(crate) mod field {
    pub(crate) const ETHERTYPE: usize = 12;
}

/// Offsets in a tag, which stands before the EtherType of what it tags.
mod tag {
    pub(super) const CONTROL: usize = 0;
    pub(super) const ETHERTYPE: usize = 2;
}

/// Up to here the EtherType is the length of an 802.3 frame, which has an LLC header.
const MAX_LENGTH: u16 = 0x5ff;
/// Destination and source SAP of spanning tree (802.1D).
const SPANNING_TREE: u16 = 0x4242;

/// What stands for the EtherType of an 802.3 frame with spanning tree: a number that no frame has.
pub const STP: u16 = 0x42;
/// The same for any other 802.3 frame.
pub const LLC: u16 = 0;

/// Length of the header without tags.
pub(crate) const HEADER: usize = 14;
/// Length of a VLAN tag.
pub(crate) const TAG: usize = 4;

/// Whether an EtherType announces a VLAN tag.
#[inline(always)]
pub(crate) const fn is_vlan(ethertype: u16) -> bool {
    matches!(
        ethertype,
        ethertype::VLAN | ethertype::PROVIDER_VLAN | ethertype::OLD_PROVIDER_VLAN
    )
}

/// The header and its tags: where the network header starts, or what the frame is if there is none.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it was sixteen bits")]
pub(crate) fn parse<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &mut Packet,
) -> Result<usize, Network> {
    let Some(header) = frame.window::<HEADER>(0) else {
        return Err(short(frame, HEADER));
    };
    packet.ethertype = header.u16::<{ field::ETHERTYPE }>();
    let mut at = HEADER;
    if is_vlan(packet.ethertype) {
        let is_tagged = packet.vlan != 0;
        let Some(tag) = frame.window::<TAG>(at) else {
            return Err(short(frame, at + TAG));
        };
        if !is_tagged {
            packet.vlan = u32::from(tag.u16::<{ tag::CONTROL }>()) | 1 << 16;
        }
        packet.ethertype = tag.u16::<{ tag::ETHERTYPE }>();
        at += TAG;
        if is_vlan(packet.ethertype) {
            if is_tagged {
                return Err(Network::Done(Shape::Malformed(Malformed::VlanDepth)));
            }
            let Some(tag) = frame.window::<TAG>(at) else {
                return Err(short(frame, at + TAG));
            };
            packet.ethertype = tag.u16::<{ tag::ETHERTYPE }>();
            at += TAG;
            if is_vlan(packet.ethertype) {
                return Err(Network::Done(Shape::Malformed(Malformed::VlanDepth)));
            }
        }
    }
    if packet.ethertype <= MAX_LENGTH {
        let Some(llc) = frame.window::<2>(at) else {
            return Err(short(frame, at + 2));
        };
        let is_spanning_tree = llc.u16::<0>() == SPANNING_TREE;
        let protocol = if is_spanning_tree { STP } else { LLC };
        // One state for verifiers.
        packet.ethertype = frame.barrier_var(protocol.into()) as u16;
    }
    // One state for verifiers, however many tags there are; the mask gives it a bound.
    frame.renew();
    Ok(frame.barrier_var(at) & 31)
}
