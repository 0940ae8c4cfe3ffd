//! Plain packets: what nearly every packet is, parsed just far enough to look its port up.

use crate::addr::Addr;
use crate::frame::{Frame, HEADER_SPAN, Window};
use crate::packet::{Shape, Subject, protocol};
use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Payload};

/// A well-formed TCP, UDP or SCTP packet without IP options or extension headers, no fragment, all headers in place.
///
/// Holds what every packet is asked for; the rest is read from the frame when somebody asks. That the headers are there
/// was checked when this was made, so that a window which cannot be had stands for nothing that exists.
#[derive(Debug, Clone, Copy)]
pub struct Plain<F> {
    frame: F,
    /// Where the transport header starts.
    at: usize,
    v6: bool,
    protocol: u8,
    destination_port: u16,
    length: usize,
}

const IPV4: usize = 20;
const IPV6: usize = 40;

impl<F: Frame + Clone> Plain<F> {
    /// From a frame whose network header has been looked at.
    #[inline(always)]
    pub(crate) fn new(
        frame: &F,
        protocol: u8,
        v6: bool,
        length: usize,
        payload: Payload,
    ) -> Option<Self> {
        let Payload { at, end, whole: _ } = payload;
        // Before anything else, and on `at` alone: it is what the verifier bounds the packet pointer by.
        if at > HEADER_SPAN - 14 {
            return None;
        }
        let destination_port = if protocol == protocol::TCP {
            if at + 20 > end {
                return None;
            }
            frame.window::<14>(at)?.u16::<2>()
        } else {
            let header = match protocol {
                protocol::UDP => 8,
                protocol::SCTP => 12,
                _ => return None,
            };
            if at + header > end {
                return None;
            }
            frame.window::<4>(at)?.u16::<2>()
        };
        Some(Self {
            frame: frame.clone(),
            at,
            v6,
            protocol,
            destination_port,
            length,
        })
    }

    /// The addresses of an IPv6 header, source first.
    #[inline(always)]
    fn ends6<const O: usize, const P: usize>(&self) -> Addr {
        let header = self.frame.again().window::<40>(self.at - IPV6);
        header.map_or(Addr::v6(0, 0), |header| {
            Addr::v6(header.u64::<O>(), header.u64::<P>())
        })
    }

    #[inline(always)]
    fn end4<const O: usize>(&self) -> Addr {
        let header = self.frame.again().window::<20>(self.at - IPV4);
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
        self.protocol
    }

    #[inline(always)]
    fn source_port(&self) -> u16 {
        let header = self.frame.again().window::<4>(self.at);
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
        if self.protocol != protocol::TCP {
            return 0;
        }
        let header = self.frame.again().window::<14>(self.at);
        header.map_or(0, |header| header.u8::<13>())
    }

    #[inline(always)]
    fn hop_limit(&self) -> u8 {
        if self.v6 {
            let header = self.frame.again().window::<40>(self.at - IPV6);
            header.map_or(0, |header| header.u8::<7>())
        } else {
            let header = self.frame.again().window::<20>(self.at - IPV4);
            header.map_or(0, |header| header.u8::<8>())
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }
}
