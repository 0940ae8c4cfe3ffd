//! Frames and payloads that every network has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Frame, Icmp, Ipv4, Ipv6, number};

const BROADCAST: [u8; 6] = [0xff; 6];

/// Asks who has an IPv4 address.
pub fn arp_request(source: [u8; 6], from: Ipv4Addr, asked: Ipv4Addr) -> Frame {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend_from_slice(&source);
    body.extend_from_slice(&from.octets());
    body.extend_from_slice(&[0; 6]);
    body.extend_from_slice(&asked.octets());
    Frame::new(BROADCAST, source)
        .ethertype(number::ARP)
        .payload(body)
}

/// Asks who has an IPv6 address, by its solicited-node group.
pub fn neighbour_solicitation(source: [u8; 6], from: Ipv6Addr, asked: Ipv6Addr) -> Frame {
    let [.., a, b, c] = asked.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut body = asked.octets().to_vec();
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&source);
    Frame::new([0x33, 0x33, 0xff, a, b, c], source)
        .ipv6(Ipv6::new(from, group).hop_limit(255))
        .icmpv6(Icmp::new(135, 0))
        .payload(body)
}

/// Tells where an IPv6 address is.
pub fn neighbour_advertisement(
    destination: [u8; 6],
    source: [u8; 6],
    from: Ipv6Addr,
    to: Ipv6Addr,
) -> Frame {
    let mut body = from.octets().to_vec();
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&source);
    Frame::new(destination, source)
        .ipv6(Ipv6::new(from, to).hop_limit(255))
        .icmpv6(Icmp::new(136, 0).rest([0x60, 0, 0, 0]))
        .payload(body)
}

/// A router's advertisement to all nodes, without prefixes and with lifetime 0: it changes nothing at the receiver.
pub fn router_advertisement(source: [u8; 6], from: Ipv6Addr) -> Frame {
    let mut body = vec![0; 8];
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&source);
    Frame::new([0x33, 0x33, 0, 0, 0, 1], source)
        .ipv6(Ipv6::new(from, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)).hop_limit(255))
        .icmpv6(Icmp::new(134, 0).rest([64, 0, 0, 0]))
        .payload(body)
}

/// An echo request of either family; both addresses must be of the same.
pub fn echo_request(frame: Frame, from: IpAddr, to: IpAddr, id: u16, sequence: u16) -> Frame {
    let [a, b] = id.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    let frame = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frame
            .ipv4(Ipv4::new(from, to))
            .icmpv4(Icmp::new(8, 0).rest([a, b, c, d])),
        (from, to) => frame
            .ipv6(Ipv6::new(mapped(from), mapped(to)))
            .icmpv6(Icmp::new(128, 0).rest([a, b, c, d])),
    };
    frame.payload(*b"portguard!")
}

/// An ICMP error about an IP packet that the receiver sent (from its IP header on; what fits is quoted).
pub fn icmp_error(
    frame: Frame,
    from: IpAddr,
    to: IpAddr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    about: &[u8],
) -> Frame {
    let message = Icmp::new(kind, code).rest(rest);
    let frame = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frame.ipv4(Ipv4::new(from, to)).icmpv4(message),
        (from, to) => frame
            .ipv6(Ipv6::new(mapped(from), mapped(to)))
            .icmpv6(message),
    };
    let quoted = about.len().min(1200);
    frame.payload(about.get(..quoted).unwrap_or_default())
}

/// The payload of a DHCP message (ports 67 and 68): 1 discover, 2 offer, 3 request, 5 acknowledgement.
pub fn dhcp(message: u8, transaction: u32, client: [u8; 6]) -> Vec<u8> {
    let request = !matches!(message, 2 | 5 | 6);
    let mut out = vec![if request { 1 } else { 2 }, 1, 6, 0];
    out.extend_from_slice(&transaction.to_be_bytes());
    out.resize(28, 0);
    out.extend_from_slice(&client);
    out.resize(236, 0);
    out.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, message, 255]);
    out.resize(300, 0);
    out
}

/// The payload of a `DHCPv6` message (ports 547 and 546) with the client's identifier: 1 solicit, 2 advertise, 7 reply.
pub fn dhcpv6(message: u8, transaction: u32, client: [u8; 6]) -> Vec<u8> {
    let mut out = ((u32::from(message) << 24) | (transaction & 0xff_ffff))
        .to_be_bytes()
        .to_vec();
    out.extend_from_slice(&[0, 1, 0, 10, 0, 3, 0, 1]);
    out.extend_from_slice(&client);
    out
}

/// An SCTP INIT chunk, the payload that opens an association.
pub fn sctp_init() -> Vec<u8> {
    let mut out = vec![1, 0, 0, 20];
    out.extend_from_slice(&1_u32.to_be_bytes());
    out.extend_from_slice(&65_536_u32.to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 1]);
    out.extend_from_slice(&1_u32.to_be_bytes());
    out
}

/// An IPv6 address; of an IPv4 one, the mapped form.
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
