//! Captures (pcap and pcapng) and frames in hex, as packets.
//!
//! A captured frame may be cut: what the parser needs of it decides whether it can be judged, as with frames of the kernel
//! whose headers lie outside of the linear part.

mod blocks;

use std::io::{self, BufRead, ErrorKind};

use self::blocks::Blocks;
use pcap_file::pcap::PcapReader;
use portguard_common::ethernet::ethertype;
use portguard_common::frame::Frame;
use portguard_common::packet::Packet;
use portguard_common::parse::{parse, parse_network};
use portguard_common::reason::Direction;

/// First bytes of a pcapng file, in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Link types (the registry of tcpdump.org).
mod link {
    /// The type itself; other bits say how long a check sequence is that ends each frame, where there is one.
    pub(super) const TYPE: u32 = 0x03ff_ffff;
    pub(super) const ETHERNET: u32 = 1;
    pub(super) const RAW: u32 = 101;
    pub(super) const LINUX_SLL: u32 = 113;
    pub(super) const IPV4: u32 = 228;
    pub(super) const IPV6: u32 = 229;
    pub(super) const LINUX_SLL2: u32 = 276;
}

/// Packet type of a cooked capture: sent by the host itself.
const OUTGOING: u16 = 4;

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It is no capture, or a broken one.
    #[error("not a valid pcap or pcapng file: {0}")]
    Format(String),
    /// Link type without parser.
    #[error("link type {0} is not supported; Ethernet, raw IP and Linux cooked captures are")]
    LinkType(u32),
    /// Reading failed.
    #[error("cannot read the capture")]
    Read(#[from] io::Error),
}

/// One frame of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Counted from 1.
    pub number: u64,
    /// The facts; `None` if the capture holds too little of the frame.
    pub packet: Option<Packet>,
    /// Which way it went, where the capture says so.
    pub direction: Option<Direction>,
}

/// How a capture ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// After its last frame.
    Whole,
    /// Within a frame, as one does whose writer was stopped: those before it are whole.
    Cut,
}

/// Hands over every frame of a capture; `each` may end it with an error of its own.
///
/// # Errors
/// [`CaptureError`], as the caller's error type.
pub fn read<E: From<CaptureError>>(
    mut file: impl BufRead,
    mut each: impl FnMut(Captured) -> Result<(), E>,
) -> Result<End, E> {
    let start = file.fill_buf().map_err(CaptureError::Read)?;
    if start.starts_with(&PCAPNG) {
        let mut blocks = Blocks::new(file);
        read_all(|| blocks.next(), &mut each)
    } else {
        let mut reader = PcapReader::new(file).map_err(format)?;
        let link_type = u32::from(reader.header().datalink);
        let next = || {
            let Some(next) = reader.next_raw_packet() else {
                return Ok(None);
            };
            let next = next.map_err(format)?;
            Ok(Some(Raw {
                link_type,
                length: next.orig_len,
                bytes: next.data.into_owned(),
            }))
        };
        read_all(next, &mut each)
    }
}

/// A frame as a file has it.
struct Raw {
    link_type: u32,
    /// As much of it as was kept.
    bytes: Vec<u8>,
    /// As long as it was.
    length: u32,
}

fn read_all<E: From<CaptureError>>(
    mut next: impl FnMut() -> Result<Option<Raw>, CaptureError>,
    each: &mut impl FnMut(Captured) -> Result<(), E>,
) -> Result<End, E> {
    let mut number = 0;
    loop {
        match next() {
            Ok(None) => return Ok(End::Whole),
            Ok(Some(raw)) => {
                number += 1;
                each(captured(number, &raw)?)?;
            }
            Err(CaptureError::Read(error))
                if number > 0 && error.kind() == ErrorKind::UnexpectedEof =>
            {
                return Ok(End::Cut);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn format(error: pcap_file::PcapError) -> CaptureError {
    if let pcap_file::PcapError::IoError(error) = error {
        CaptureError::Read(error)
    } else {
        CaptureError::Format(error.to_string())
    }
}

fn captured(number: u64, raw: &Raw) -> Result<Captured, CaptureError> {
    let bytes = raw.bytes.as_slice();
    let wire = (raw.length as usize).max(bytes.len());
    let mut frame = Cut { bytes, wire };
    let number_at = |at: usize| {
        let octets = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(octets))
    };
    let mut direction = None;
    let packet = match raw.link_type & link::TYPE {
        link::ETHERNET => parse(&mut frame).ok(),
        link::RAW | link::IPV4 | link::IPV6 => match bytes.first().map(|octet| octet >> 4) {
            Some(6) => parse_network(&mut frame, ethertype::IPV6, 0, 0).ok(),
            _ => parse_network(&mut frame, ethertype::IPV4, 0, 0).ok(),
        },
        link::LINUX_SLL => {
            direction = number_at(0).map(cooked_direction);
            number_at(14).and_then(|kind| parse_network(&mut frame, kind, 0, 16).ok())
        }
        link::LINUX_SLL2 => {
            direction = bytes.get(10).map(|kind| cooked_direction(u16::from(*kind)));
            number_at(0).and_then(|kind| parse_network(&mut frame, kind, 0, 20).ok())
        }
        other => return Err(CaptureError::LinkType(other)),
    };
    Ok(Captured {
        number,
        packet,
        direction,
    })
}

const fn cooked_direction(kind: u16) -> Direction {
    if kind == OUTGOING {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// A frame of which a capture holds the first bytes.
struct Cut<'a> {
    bytes: &'a [u8],
    wire: usize,
}

impl Frame for Cut<'_> {
    type Window<const N: usize> = [u8; N];

    fn window<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.window(offset)
    }

    fn linear(&self) -> usize {
        self.bytes.len()
    }

    fn holds(&self, length: usize) -> bool {
        self.wire >= length
    }
}

/// The bytes of a frame in hex; blanks, colons, dashes and a leading `0x` do not matter.
///
/// # Errors
/// In words.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let text = text.strip_prefix("0x").unwrap_or(text);
    let mut digits = Vec::new();
    for character in text.chars() {
        match character.to_digit(16).and_then(|d| u8::try_from(d).ok()) {
            Some(digit) => digits.push(digit),
            None if character.is_whitespace() || ":-".contains(character) => {}
            None => {
                return Err(format!(
                    "`{}` is not a hexadecimal digit",
                    character.escape_default()
                ));
            }
        }
    }
    if digits.len() % 2 != 0 {
        return Err("an odd number of hexadecimal digits".to_owned());
    }
    if digits.is_empty() {
        return Err("no bytes".to_owned());
    }
    Ok(digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect())
}

/// The facts of a whole frame.
pub fn packet(bytes: &[u8]) -> Packet {
    // A slice is never cut; should that change, an empty packet is judged malformed.
    parse(&mut &*bytes).unwrap_or_else(|_cut| Packet::new(bytes.len()))
}

#[cfg(test)]
mod tests;
