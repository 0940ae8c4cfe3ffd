//! Plain packets: what nearly every packet is, parsed just far enough to look its port up.

use crate::addr::Addr;
use crate::frame::{Frame, Window};
use crate::ipv4::HEADER as IPV4;
use crate::ipv6::HEADER as IPV6;
use crate::packet::{Shape, Subject, protocol};
use crate::parse::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, is_vlan};

/// A well-formed TCP, UDP or SCTP packet without IP options or extension headers, no fragment, all headers in place.
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
    /// As in [`Subject::tcp_flags`]. Kept, since who knocks mostly asks to open a connection.
    flags: u8,
    length: usize,
}

/// Bytes of a VLAN tag.
const TAG: usize = 4;
/// Ethernet, IPv4 and TCP without tags and options: with padding, no frame on a wire is shorter (802.3 section 4A.4.2).
const SHORTEST4: usize = ETHERNET + IPV4 + 20;
/// Ethernet, IPv6 and UDP.
const SHORTEST6: usize = ETHERNET + IPV6 + 8;
/// Ethernet, IPv6 and TCP.
const SHORTEST6_TCP: usize = ETHERNET + IPV6 + 20;

impl<F: Frame + Clone> Plain<F> {
    /// The frames that are seen most, by one check of their length and reads at fixed places, for each number of tags; `vlan`
    /// is a tag that is known from elsewhere, or 0. What it says `None` to may still be plain.
    #[inline(always)]
    pub(crate) fn most(frame: &F, vlan: u32) -> Option<Self> {
        let third = || None;
        let second = || Self::behind(frame, 2 * TAG, third);
        let first = || Self::behind(frame, TAG, || if vlan == 0 { second() } else { None });
        Self::behind(frame, 0, first)
    }

    /// Behind so many bytes of tags; where another one follows, as `deeper` says.
    #[inline(always)]
    fn behind(frame: &F, tags: usize, deeper: impl FnOnce() -> Option<Self>) -> Option<Self> {
        match frame.window::<SHORTEST4>(tags)?.u16::<12>() {
            ETHERTYPE_IPV4 => Self::most4(frame, tags),
            ETHERTYPE_IPV6 => Self::most6(frame, tags),
            ethertype if is_vlan(ethertype) => deeper(),
            _ => None,
        }
    }

    /// IPv4 behind so many bytes of tags.
    #[inline(always)]
    fn most4(frame: &F, tags: usize) -> Option<Self> {
        let header = frame.window::<SHORTEST4>(tags)?;
        let length = frame.linear();
        // Version and length of the header; neither a fragment nor the first of some.
        if header.u8::<14>() != 0x45 || header.u16::<20>() & 0x3fff != 0 {
            return None;
        }
        let total = usize::from(header.u16::<16>());
        let (space, least, flags) = match header.u8::<23>() {
            protocol::TCP => (0, IPV4 + 20, header.u8::<47>()),
            protocol::UDP => (1, IPV4 + 8, 0),
            _ => return None,
        };
        if total < least || tags + ETHERNET + total > length || frame.is_segmented() {
            return None;
        }
        Some(Self {
            frame: frame.clone(),
            at: tags + ETHERNET,
            v6: false,
            space,
            destination_port: header.u16::<36>(),
            flags,
            length,
        })
    }

    /// IPv6 behind so many bytes of tags.
    #[inline(always)]
    fn most6(frame: &F, tags: usize) -> Option<Self> {
        let header = frame.window::<SHORTEST6>(tags)?;
        let length = frame.linear();
        if header.u8::<14>() >> 4 != 6 {
            return None;
        }
        let payload = usize::from(header.u16::<18>());
        let (space, least, flags) = match header.u8::<20>() {
            protocol::TCP => {
                let header = frame.window::<SHORTEST6_TCP>(tags)?;
                (0, 20, header.u8::<67>())
            }
            protocol::UDP => (1, 8, 0),
            _ => return None,
        };
        if payload < least || tags + ETHERNET + IPV6 + payload > length || frame.is_segmented() {
            return None;
        }
        Some(Self {
            frame: frame.clone(),
            at: tags + ETHERNET,
            v6: true,
            space,
            destination_port: header.u16::<56>(),
            flags,
            length,
        })
    }

    /// From a frame whose network header at `at`, without options, has been looked at; the packet ends at `end`.
    #[inline(always)]
    pub(crate) fn new(
        frame: &F,
        at: usize,
        (v6, protocol): (bool, u8),
        length: usize,
        end: usize,
    ) -> Option<Self> {
        let payload = at + if v6 { IPV6 } else { IPV4 };
        let (space, destination_port, flags) = match protocol {
            protocol::TCP if payload + 20 <= end => {
                let header = frame.window::<14>(payload)?;
                (0, header.u16::<2>(), header.u8::<13>())
            }
            protocol::UDP if payload + 8 <= end => (1, frame.window::<4>(payload)?.u16::<2>(), 0),
            protocol::SCTP if payload + 12 <= end => (2, frame.window::<4>(payload)?.u16::<2>(), 0),
            _ => return None,
        };
        Some(Self {
            frame: frame.clone(),
            at,
            v6,
            space,
            destination_port,
            flags,
            length,
        })
    }

    /// The addresses of an IPv6 header, source first.
    #[inline(always)]
    fn ends6<const O: usize, const P: usize>(&self) -> Addr {
        let header = self.frame.again().window::<IPV6>(self.at);
        header.map_or(Addr::v6(0, 0), |header| {
            Addr::v6(header.u64::<O>(), header.u64::<P>())
        })
    }

    #[inline(always)]
    fn end4<const O: usize>(&self) -> Addr {
        let header = self.frame.again().window::<IPV4>(self.at);
        Addr::v4(header.map_or(0, |header| header.u32::<O>()))
    }
}

impl<F: Frame + Clone> Subject for Plain<F> {
    #[inline(always)]
    fn shape(&self) -> Shape {
        Shape::Ports
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        if self.v6 {
            ETHERTYPE_IPV6
        } else {
            ETHERTYPE_IPV4
        }
    }

    #[inline(always)]
    fn source(&self) -> Addr {
        if self.v6 {
            self.ends6::<8, 16>()
        } else {
            self.end4::<12>()
        }
    }

    #[inline(always)]
    fn destination(&self) -> Addr {
        if self.v6 {
            self.ends6::<24, 32>()
        } else {
            self.end4::<16>()
        }
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        match self.space {
            0 => protocol::TCP,
            1 => protocol::UDP,
            _ => protocol::SCTP,
        }
    }

    #[inline(always)]
    fn space(&self) -> u32 {
        self.space
    }

    #[inline(always)]
    fn ends(&self) -> (Addr, Addr, u16) {
        let frame = self.frame.again();
        if self.v6 {
            let header = frame.window::<{ IPV6 + 4 }>(self.at);
            header.map_or((Addr::v6(0, 0), Addr::v6(0, 0), 0), |header| {
                (
                    Addr::v6(header.u64::<8>(), header.u64::<16>()),
                    Addr::v6(header.u64::<24>(), header.u64::<32>()),
                    header.u16::<IPV6>(),
                )
            })
        } else {
            let header = frame.window::<{ IPV4 + 4 }>(self.at);
            header.map_or((Addr::v4(0), Addr::v4(0), 0), |header| {
                (
                    Addr::v4(header.u32::<12>()),
                    Addr::v4(header.u32::<16>()),
                    header.u16::<IPV4>(),
                )
            })
        }
    }

    #[inline(always)]
    fn source_port(&self) -> u16 {
        let network = if self.v6 { IPV6 } else { IPV4 };
        let header = self.frame.again().window::<4>(self.at + network);
        header.map_or(0, |header| header.u16::<0>())
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
            header.map_or(0, |header| header.u8::<7>())
        } else {
            let header = self.frame.again().window::<IPV4>(self.at);
            header.map_or(0, |header| header.u8::<8>())
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

    use crate::packet::Subject;
    use crate::parse::{parse_plain, parse_tagged};

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
            if let Some(plain) = parse_plain(&mut frame.as_slice(), vlan) {
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
            ([8, 0], 132, true),
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
                parse_plain(&mut frame.as_slice(), 0).is_some(),
                plain,
                "{protocol}"
            );
        }
    }
}
