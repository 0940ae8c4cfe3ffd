//! Where the makers of all classes take their numbers, addresses and sound parts from.

use std::net::{Ipv4Addr, Ipv6Addr};

use fastrand::Rng;

use super::Palette;
use crate::frames::{Extension, Frame, Ipv4, Ipv6, Sctp, Tcp, Udp, number};

/// Where makers take their numbers from.
pub(super) struct Source<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) palette: &'a Palette,
}

impl Source<'_> {
    /// A plain packet.
    pub(super) fn ipv4(&mut self) -> Frame {
        let frame = self.ethernet().ipv4(self.ip4());
        self.transport(frame)
    }

    /// A plain packet.
    pub(super) fn ipv6(&mut self) -> Frame {
        let frame = self.ethernet().ipv6(self.ip6());
        self.transport(frame)
    }

    pub(super) fn one_in(&mut self, count: u32) -> bool {
        self.rng.u32(..count) == 0
    }

    pub(super) fn mac(&mut self) -> [u8; 6] {
        let drawn = self.rng.choice(&self.palette.macs).copied();
        match drawn {
            Some(mac) if !self.one_in(8) => mac,
            _ => std::array::from_fn(|_| self.rng.u8(..)),
        }
    }

    pub(super) fn v4(&mut self) -> Ipv4Addr {
        let drawn = self.rng.choice(&self.palette.v4).copied();
        match drawn {
            Some(address) if !self.one_in(4) => address,
            _ => Ipv4Addr::from_bits(self.rng.u32(..)),
        }
    }

    pub(super) fn v6(&mut self) -> Ipv6Addr {
        let drawn = self.rng.choice(&self.palette.v6).copied();
        match drawn {
            Some(address) if !self.one_in(4) => address,
            _ => Ipv6Addr::from_bits(self.rng.u128(..)),
        }
    }

    pub(super) fn port(&mut self) -> u16 {
        let drawn = self.rng.choice(&self.palette.ports).copied();
        match drawn {
            Some(port) if self.rng.bool() => port,
            // A neighbour of a port that means something.
            Some(port) if self.one_in(4) => {
                port.wrapping_add(1).wrapping_sub(self.rng.u16(..2) * 2)
            }
            _ => self.rng.u16(..),
        }
    }

    pub(super) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.usize(..=most)];
        self.rng.fill(&mut bytes);
        bytes
    }

    pub(super) fn payload(&mut self) -> Vec<u8> {
        self.bytes(self.palette.payload)
    }

    pub(super) fn ethernet(&mut self) -> Frame {
        let frame = Frame::new(self.mac(), self.mac());
        let frame = if self.one_in(8) {
            frame.pad(60 + self.rng.usize(..20))
        } else {
            frame
        };
        if self.one_in(8) {
            self.tagged(frame)
        } else {
            frame
        }
    }

    pub(super) fn tagged(&mut self, frame: Frame) -> Frame {
        let kind = self
            .rng
            .choice([number::VLAN, number::QINQ, number::QINQ_OLD]);
        frame.tag(kind.unwrap_or(number::VLAN), self.rng.u16(..))
    }

    pub(super) fn ip4(&mut self) -> Ipv4 {
        let mut header = Ipv4::new(self.v4(), self.v4());
        header.ttl = self.rng.u8(..);
        header.service = self.rng.u8(..);
        header.id = self.rng.u16(..);
        header.dont_fragment = self.rng.bool();
        header.reserved = self.one_in(32);
        header
    }

    pub(super) fn ip6(&mut self) -> Ipv6 {
        let mut header = Ipv6::new(self.v6(), self.v6());
        header.hop_limit = if self.rng.bool() {
            255
        } else {
            self.rng.u8(..)
        };
        header.class = self.rng.u8(..);
        header.flow = self.rng.u32(..);
        header
    }

    /// A transport header and payload, mostly sound.
    pub(super) fn transport(&mut self, frame: Frame) -> Frame {
        let (source, destination) = (self.port(), self.port());
        let frame = match self.rng.u8(..8) {
            0..4 => {
                let mut header = Tcp::new(source, destination, self.rng.u8(..));
                if self.rng.bool() {
                    header.flags = Tcp::SYN;
                }
                if self.one_in(4) {
                    header.options = vec![1; self.rng.usize(..=40)];
                }
                if self.one_in(16) {
                    header.data_offset = Some(self.rng.u8(..16));
                }
                frame.tcp(header)
            }
            4..7 => {
                let mut header = Udp::new(source, destination);
                if self.one_in(16) {
                    header.length = Some(self.rng.u16(..));
                }
                if self.one_in(16) {
                    header.checksum = Some(self.rng.u16(..2));
                }
                frame.udp(header)
            }
            _ => frame.sctp(Sctp::new(source, destination)),
        };
        frame.payload(self.payload())
    }

    pub(super) fn either(&mut self) -> Frame {
        if self.rng.bool() {
            self.ipv4()
        } else {
            self.ipv6()
        }
    }

    pub(super) fn extension(&mut self) -> Extension {
        match self.rng.u8(..6) {
            0 => Extension::hop_by_hop(self.rng.u8(..3)),
            1 => Extension::routing(self.rng.u8(1..6), self.rng.u8(..3)),
            2 => Extension::fragment(0, false, self.rng.u32(..)).second(self.rng.u8(..)),
            3 => Extension::authentication(self.rng.u8(3..9)),
            _ => Extension::destination(self.rng.u8(..3)),
        }
    }
}
