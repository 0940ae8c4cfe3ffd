//! Plain packets: what nearly every packet is, parsed just far enough to look its port up.

use crate::wire::addr::Addr;
use crate::wire::ethernet::{self, TAG, ethertype, is_vlan};
use crate::wire::frame::{Frame, Window};
use crate::wire::ipv4::{self, HEADER as IPV4};
use crate::wire::ipv6::{self, HEADER as IPV6};
use crate::wire::packet::{Shape, Subject, protocol};
use crate::wire::transport::{field, header};

/// A well-formed TCP or UDP packet without IP options or extension headers, no fragment, all headers in place.
///
/// Holds what every packet is asked for; the rest is read from the frame when somebody asks. That the headers are there
/// was checked when this was made, so that a window which cannot be had stands for nothing that exists.
#[derive(Debug, Clone, Copy)]
pub struct Plain<F> {
    frame: F,
    /// Where the network header starts. The transport header is at a fixed distance from it: verifiers take no way back
    /// from an offset that they do not know.
    at: usize,
    v6: bool,
    /// As in [`Subject::space`], which is asked for most often; the protocol follows from it.
    space: u32,
    destination_port: u16,
    /// As in [`Subject::tcp_flags`]. Kept, since most violations ask to open a connection.
    flags: u8,
    length: usize,
}

/// Where the network header of a frame without tags starts, and the transport headers behind it.
const NETWORK: usize = ethernet::HEADER;
const TRANSPORT4: usize = NETWORK + IPV4;
const TRANSPORT6: usize = NETWORK + IPV6;
/// Ethernet, IPv4 and UDP without tags and options: the shortest frame that is plain.
const SHORTEST4: usize = TRANSPORT4 + header::UDP;
/// The same with TCP.
const SHORTEST4_TCP: usize = TRANSPORT4 + header::TCP;
/// Ethernet, IPv6 and UDP.
const SHORTEST6: usize = TRANSPORT6 + header::UDP;
/// Ethernet, IPv6 and TCP.
const SHORTEST6_TCP: usize = TRANSPORT6 + header::TCP;

impl<F: Frame + Clone> Plain<F> {
    /// By one check of the frame's length and reads at fixed places, for each number of tags; `vlan` is a tag that is known
    /// from elsewhere, or 0.
    #[inline(always)]
    pub(crate) fn parse(frame: &F, vlan: u32) -> Option<Self> {
        let third = || None;
        let second = || Self::behind(frame, 2 * TAG, third);
        let first = || Self::behind(frame, TAG, || if vlan == 0 { second() } else { None });
        Self::behind(frame, 0, first)
    }

    /// Behind so many bytes of tags; where another one follows, as `deeper` says.
    #[inline(always)]
    fn behind(frame: &F, tags: usize, deeper: impl FnOnce() -> Option<Self>) -> Option<Self> {
        let start = frame.window::<SHORTEST4>(tags)?;
        match start.u16::<{ ethernet::field::ETHERTYPE }>() {
            ethertype::IPV4 => Self::ipv4(frame, tags),
            ethertype::IPV6 => Self::ipv6(frame, tags),
            other if is_vlan(other) => deeper(),
            _ => None,
        }
    }

    /// IPv4 behind so many bytes of tags.
    #[inline(always)]
    fn ipv4(frame: &F, tags: usize) -> Option<Self> {
        let start = frame.window::<SHORTEST4>(tags)?;
        // Version and length of the header; neither a fragment nor the first of some.
        if start.u8::<{ NETWORK + ipv4::field::VERSION_LENGTH }>() != ipv4::PLAIN
            || start.u16::<{ NETWORK + ipv4::field::FRAGMENT }>() & ipv4::FRAGMENTED != 0
        {
            return None;
        }
        let (space, least, flags) = match start.u8::<{ NETWORK + ipv4::field::PROTOCOL }>() {
            protocol::TCP => {
                let start = frame.window::<SHORTEST4_TCP>(tags)?;
                (
                    0,
                    header::TCP,
                    start.u8::<{ TRANSPORT4 + field::TCP_FLAGS }>(),
                )
            }
            protocol::UDP => (1, header::UDP, 0),
            _ => return None,
        };
        let total = usize::from(start.u16::<{ NETWORK + ipv4::field::TOTAL_LENGTH }>());
        if !holds(frame, tags + NETWORK, total, IPV4 + least) {
            return None;
        }
        Some(Self {
            frame: frame.clone(),
            at: tags + NETWORK,
            v6: false,
            space,
            destination_port: start.u16::<{ TRANSPORT4 + field::DESTINATION_PORT }>(),
            flags,
            length: frame.linear(),
        })
    }

    /// IPv6 behind so many bytes of tags.
    #[inline(always)]
    fn ipv6(frame: &F, tags: usize) -> Option<Self> {
        let start = frame.window::<SHORTEST6>(tags)?;
        if start.u8::<{ NETWORK + ipv6::field::VERSION }>() >> 4 != 6 {
            return None;
        }
        let (space, least, flags) = match start.u8::<{ NETWORK + ipv6::field::NEXT_HEADER }>() {
            protocol::TCP => {
                let start = frame.window::<SHORTEST6_TCP>(tags)?;
                (
                    0,
                    header::TCP,
                    start.u8::<{ TRANSPORT6 + field::TCP_FLAGS }>(),
                )
            }
            protocol::UDP => (1, header::UDP, 0),
            _ => return None,
        };
        let payload = usize::from(start.u16::<{ NETWORK + ipv6::field::PAYLOAD_LENGTH }>());
        if !holds(frame, tags + TRANSPORT6, payload, least) {
            return None;
        }
        Some(Self {
            frame: frame.clone(),
            at: tags + NETWORK,
            v6: true,
            space,
            destination_port: start.u16::<{ TRANSPORT6 + field::DESTINATION_PORT }>(),
            flags,
            length: frame.linear(),
        })
    }

    /// The packet of a frame that has this [`Subject::handle`], as far as the tables of conversations ask.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes fields out of a word"
    )]
    pub fn found(frame: &F, handle: u64) -> Self {
        Self {
            frame: frame.clone(),
            // Two tags at the most.
            at: (handle & 0x1f) as usize,
            v6: handle >> 5 & 1 != 0,
            space: (handle >> 6 & 1) as u32,
            destination_port: (handle >> 16) as u16,
            flags: (handle >> 8) as u8,
            length: 0,
        }
    }

    /// An address of the network header: at `FOUR` of IPv4, at `HIGH` and `LOW` of IPv6.
    #[inline(always)]
    fn address<const FOUR: usize, const HIGH: usize, const LOW: usize>(&self) -> Addr {
        let frame = self.frame.again();
        if self.v6 {
            let header = frame.window::<IPV6>(self.at);
            header.map_or(Addr::v6(0, 0), |header| {
                ipv6::address::<_, HIGH, LOW>(&header)
            })
        } else {
            let header = frame.window::<IPV4>(self.at);
            header.map_or(Addr::v4(0), |header| ipv4::address::<_, FOUR>(&header))
        }
    }
}

/// Whether `said` bytes from `at` on are enough for the headers and no more than there are. What is still to be cut into
/// segments says nothing of the kind: its headers were read already.
#[inline(always)]
fn holds<F: Frame>(frame: &F, at: usize, said: usize, least: usize) -> bool {
    (said >= least && at + said <= frame.linear()) || frame.is_segmented()
}

impl<F: Frame + Clone> Subject for Plain<F> {
    /// See [`crate::engine::config::Config::no_fast_path`].
    const IS_ROUTED: bool = false;

    #[inline(always)]
    fn shape(&self) -> Shape {
        Shape::Ports
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        if self.v6 {
            ethertype::IPV6
        } else {
            ethertype::IPV4
        }
    }

    #[inline(always)]
    fn source(&self) -> Addr {
        self.address::<{ ipv4::field::SOURCE }, { ipv6::field::SOURCE }, { ipv6::field::SOURCE_LOW }>()
    }

    #[inline(always)]
    fn destination(&self) -> Addr {
        self.address::<{ ipv4::field::DESTINATION }, { ipv6::field::DESTINATION }, { ipv6::field::DESTINATION_LOW }>()
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        if self.space == 0 {
            protocol::TCP
        } else {
            protocol::UDP
        }
    }

    #[inline(always)]
    fn handle(&self) -> u64 {
        self.at as u64
            | u64::from(self.v6) << 5
            | u64::from(self.space) << 6
            | u64::from(self.flags) << 8
            | u64::from(self.destination_port) << 16
    }

    #[inline(always)]
    fn space(&self) -> u32 {
        self.space
    }

    #[inline(always)]
    fn ends(&self) -> (Addr, Addr, u16) {
        const PORT4: usize = IPV4 + field::SOURCE_PORT;
        const PORT6: usize = IPV6 + field::SOURCE_PORT;
        let frame = self.frame.again();
        if self.v6 {
            let start = frame.window::<{ PORT6 + 2 }>(self.at);
            start.map_or((Addr::v6(0, 0), Addr::v6(0, 0), 0), |start| {
                (
                    ipv6::address::<_, { ipv6::field::SOURCE }, { ipv6::field::SOURCE_LOW }>(
                        &start,
                    ),
                    ipv6::address::<
                        _,
                        { ipv6::field::DESTINATION },
                        { ipv6::field::DESTINATION_LOW },
                    >(&start),
                    start.u16::<PORT6>(),
                )
            })
        } else {
            let start = frame.window::<{ PORT4 + 2 }>(self.at);
            start.map_or((Addr::v4(0), Addr::v4(0), 0), |start| {
                (
                    ipv4::address::<_, { ipv4::field::SOURCE }>(&start),
                    ipv4::address::<_, { ipv4::field::DESTINATION }>(&start),
                    start.u16::<PORT4>(),
                )
            })
        }
    }

    #[inline(always)]
    fn source_port(&self) -> u16 {
        let network = if self.v6 { IPV6 } else { IPV4 };
        let start = self
            .frame
            .again()
            .window::<{ header::PORTS }>(self.at + network);
        start.map_or(0, |start| start.u16::<{ field::SOURCE_PORT }>())
    }

    #[inline(always)]
    fn destination_port(&self) -> u16 {
        self.destination_port
    }

    #[inline(always)]
    fn icmp_type(&self) -> u8 {
        0
    }

    #[inline(always)]
    fn tcp_flags(&self) -> u8 {
        self.flags
    }

    #[inline(always)]
    fn hop_limit(&self) -> u8 {
        if self.v6 {
            let header = self.frame.again().window::<IPV6>(self.at);
            header.map_or(0, |header| header.u8::<{ ipv6::field::HOP_LIMIT }>())
        } else {
            let header = self.frame.again().window::<IPV4>(self.at);
            header.map_or(0, |header| header.u8::<{ ipv4::field::TTL }>())
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::wire::packet::Subject;
    use crate::wire::parse::{parse_plain, parse_tagged};

    extern crate std;

    /// Frames that are often plain, and often just not.
    fn frame() -> impl Strategy<Value = std::vec::Vec<u8>> {
        let ethernet = prop_oneof![
            Just([0x08, 0x00].to_vec()),
            Just([0x86, 0xdd].to_vec()),
            Just([0x81, 0x00, 0x00, 0x05, 0x08, 0x00].to_vec()),
            Just([0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x00, 0x06, 0x86, 0xdd].to_vec()),
        ];
        let protocol = prop_oneof![
            Just(6u8),
            Just(17),
            Just(132),
            Just(1),
            Just(58),
            any::<u8>()
        ];
        let first = prop_oneof![Just(0x45u8), Just(0x60), Just(0x46), any::<u8>()];
        let fragment = prop_oneof![4 => Just(0u16), 1 => Just(0x4000), 1 => any::<u16>()];
        let rest = prop::collection::vec(any::<u8>(), 0..80);
        (ethernet, first, protocol, fragment, 0u16..90, rest).prop_map(
            |(ethernet, first, protocol, fragment, length, rest)| {
                let mut frame = std::vec![2; 12];
                frame.extend(&ethernet);
                let at = frame.len();
                frame.extend(rest);
                let six = ethernet.ends_with(&[0x86, 0xdd]);
                let mut put = |offset: usize, octets: &[u8]| {
                    for (index, octet) in octets.iter().enumerate() {
                        if let Some(place) = frame.get_mut(at + offset + index) {
                            *place = *octet;
                        }
                    }
                };
                put(0, &[if six && first == 0x45 { 0x60 } else { first }]);
                if six {
                    put(4, &length.to_be_bytes());
                    put(6, &[protocol]);
                } else {
                    put(2, &length.to_be_bytes());
                    put(6, &fragment.to_be_bytes());
                    put(9, &[protocol]);
                }
                frame
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn plain_packets_are_what_the_parser_says(frame in frame(), vlan in prop_oneof![Just(0u32), Just(1 << 16 | 7)]) {
            if let Some(plain) = parse_plain(&frame.as_slice(), vlan) {
                let packet = parse_tagged(&mut frame.as_slice(), vlan).unwrap();
                prop_assert_eq!(plain.shape(), packet.shape);
                prop_assert_eq!(plain.ethertype(), packet.ethertype);
                prop_assert_eq!(plain.source(), packet.source);
                prop_assert_eq!(plain.destination(), packet.destination);
                prop_assert_eq!(plain.protocol(), packet.protocol);
                prop_assert_eq!(plain.source_port(), packet.source_port);
                prop_assert_eq!(plain.destination_port(), packet.destination_port);
                prop_assert_eq!(plain.icmp_type(), packet.icmp_type);
                prop_assert_eq!(plain.tcp_flags(), packet.tcp_flags);
                prop_assert_eq!(plain.hop_limit(), packet.hop_limit);
                prop_assert_eq!(plain.length(), packet.length);
            }
        }
    }

    #[test]
    fn every_plain_packet_is_one() {
        for (ethertype, protocol, plain) in [
            ([8, 0], 6, true),
            ([8, 0], 17, true),
            ([8, 0], 132, false),
            ([8, 0], 1, false),
            ([0x86, 0xdd], 6, true),
            ([0x86, 0xdd], 58, false),
            ([0x86, 0xdd], 0, false),
            ([8, 6], 6, false),
        ] {
            let mut frame = std::vec![0u8; 12];
            frame.extend(ethertype);
            if ethertype == [0x86, 0xdd] {
                frame.extend([0x60, 0, 0, 0, 0, 20, protocol, 64]);
                frame.extend([0; 52]);
            } else {
                frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol]);
                frame.extend([0; 30]);
            }
            assert_eq!(
                parse_plain(&frame.as_slice(), 0).is_some(),
                plain,
                "{protocol}"
            );
        }
    }
}
