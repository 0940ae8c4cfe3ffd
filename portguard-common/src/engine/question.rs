//! Who asks, as a datagram itself says: name servers and time servers ask each other from the port that they answer from, and
//! mark which of the two they do.

use crate::wire::packet::protocol;

/// DNS (RFC 1035).
const DNS: u16 = 53;
/// NTP (RFC 5905).
const NTP: u16 = 123;

/// Octets of a UDP header.
const HEADER: u64 = 8;

/// The chunk of SCTP that opens an association, alone in its packet (RFC 9260 section 5.1).
const INIT: u64 = 1;

/// Whether what is said to a port is marked as a question or an answer.
#[inline(always)]
pub const fn is_marked(port: u16) -> bool {
    matches!(port, DNS | NTP)
}

/// Whether a datagram asks in the protocol of the port that it goes to; or, of SCTP (space 2), whether it opens an association. `read`
/// gives eight octets of the packet, from its IP header on; zeroes where there are none.
#[inline(always)]
pub fn asks(space: u32, port: u16, v6: bool, read: impl Fn(u32) -> u64) -> bool {
    if space == 1 && !is_marked(port) {
        return false;
    }
    let number = if space == 1 {
        protocol::UDP
    } else {
        protocol::SCTP
    };
    match behind(number, v6, read(0)) {
        Some(at) if space == 1 => is_question(port, read(at), read(at + 8)),
        // What opens an association has no verification tag, and nothing else has none (RFC 9260 section 8.5.1).
        Some(at) => read(at) << 32 == 0 && read(at + 8) >> 24 & 0xff == INIT,
        None => false,
    }
}

/// Where the header of a protocol stands in a packet that starts so; `None` if it is not behind the IP header.
#[inline(always)]
const fn behind(number: u8, v6: bool, start: u64) -> Option<u32> {
    if !v6 {
        Some((start >> 56 & 15) as u32 * 4)
    } else if start >> 8 & 0xff == number as u64 {
        Some(40)
    } else {
        None
    }
}

/// The same, by its UDP header and the eight octets behind that.
#[inline(always)]
const fn is_question(port: u16, header: u64, start: u64) -> bool {
    let length = (header >> 16 & 0xffff).saturating_sub(HEADER);
    let first = start >> 56;
    match port {
        // No answer, no error, what is reserved is zero, one question: its shortest name is empty.
        DNS => start & 0x804f_ffff_0000 == 0x0000_0001_0000 && length >= 17,
        // A client, or one of two equals who speaks first; with a version, and a stratum that exists.
        NTP => {
            matches!(first & 7, 1 | 3)
                && first & 0x38 != 0
                && start >> 48 & 0xff <= 16
                && length >= 48
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    extern crate std;

    /// The header and the start of a datagram.
    fn words(payload: &[u8]) -> (u64, u64) {
        let mut start = [0; 8];
        let (length, known) = (payload.len(), payload.len().min(8));
        start[..known].copy_from_slice(&payload[..known]);
        ((length as u64 + HEADER) << 16, u64::from_be_bytes(start))
    }

    fn is_one(port: u16, start: &[u8], length: usize) -> bool {
        let mut payload = [0; 512];
        payload[..start.len()].copy_from_slice(start);
        let (header, start) = words(&payload[..length]);
        is_question(port, header, start)
    }

    #[test]
    fn questions_are_told_from_answers() {
        for (what, port, start, length, wanted) in [
            ("query", DNS, &[7, 7, 1, 0, 0, 1, 0, 0][..], 33, true),
            ("with options", DNS, &[7, 7, 1, 0x20, 0, 1, 0, 0], 44, true),
            ("notify", DNS, &[7, 7, 0x24, 0, 0, 1, 0, 0], 33, true),
            ("answer", DNS, &[7, 7, 0x81, 0x80, 0, 1, 0, 1], 49, false),
            ("refused", DNS, &[7, 7, 0x81, 0x05, 0, 1, 0, 0], 33, false),
            ("nothing asked", DNS, &[7, 7, 1, 0, 0, 0, 0, 0], 33, false),
            ("cut", DNS, &[7, 7, 1, 0, 0, 1, 0, 0], 16, false),
            ("client", NTP, &[0x23, 0, 6, 0xe9], 48, true),
            ("not set", NTP, &[0xe3, 0, 10, 0], 48, true),
            ("version 3", NTP, &[0x1b, 0, 0, 0], 48, true),
            ("with a code", NTP, &[0x23, 2, 6, 0xe9], 68, true),
            ("equal", NTP, &[0x21, 3, 6, 0xe9], 48, true),
            ("server", NTP, &[0x24, 2, 6, 0xe9], 48, false),
            ("equal that answers", NTP, &[0x22, 2, 6, 0xe9], 48, false),
            ("broadcast", NTP, &[0x25, 2, 6, 0xe9], 48, false),
            ("control", NTP, &[0x26, 2, 0, 1], 48, false),
            ("no version", NTP, &[3, 0, 0, 0], 48, false),
            ("cut", NTP, &[0x23, 0, 6, 0xe9], 47, false),
            ("elsewhere", 500, &[7, 7, 1, 0, 0, 1, 0, 0], 33, false),
        ] {
            assert_eq!(is_one(port, start, length), wanted, "{what} to {port}");
        }
    }

    #[test]
    fn text_and_zeroes_ask_nothing() {
        for port in [DNS, NTP] {
            assert!(!is_one(port, &[], 300));
            for first in b' '..=b'~' {
                for length in [1, 4, 60, 300] {
                    let text = [first; 300];
                    assert!(!is_one(port, &text[..length], length), "{first} to {port}");
                }
            }
        }
    }

    #[test]
    fn the_datagram_is_found_behind_its_headers() {
        let question = [0, 123, 0, 123, 0, 56, 0, 0, 0x23, 0, 6, 0xe9, 0, 0, 0, 0];
        let v4 = |options: u8| {
            let mut header = vec![0; 20 + usize::from(options) * 4];
            header[0] = 0x45 + options;
            header
        };
        let v6 = |next: u8| {
            let mut header = vec![0; 40];
            (header[0], header[6]) = (0x60, next);
            header
        };
        for (what, is_six, network, wanted) in [
            ("IPv4", false, v4(0), true),
            ("options", false, v4(3), true),
            ("IPv6", true, v6(17), true),
            ("hop-by-hop", true, v6(0), false),
        ] {
            let packet = [network, question.to_vec()].concat();
            let read = |at: u32| {
                let bytes = packet.get(at as usize..).and_then(<[u8]>::first_chunk);
                bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
            };
            assert_eq!(asks(1, NTP, is_six, read), wanted, "{what}");
            assert!(!asks(1, DNS, is_six, read), "{what}");
            let cut = |at: u32| {
                let is_there = packet.len() > at as usize + 8;
                if is_there { read(at) } else { 0 }
            };
            assert!(!asks(1, NTP, is_six, cut), "{what}, cut");
        }
    }

    #[test]
    fn an_association_is_opened_by_its_first_packet() {
        for (what, tag, chunk, is_six, wanted) in [
            ("INIT", 0, 1, false, true),
            ("the same, IPv6", 0, 1, true, true),
            ("INIT ACK", 7, 2, false, false),
            ("data", 7, 0, true, false),
            ("heartbeat", 7, 4, false, false),
            ("INIT with a tag", 7, 1, false, false),
            ("a heartbeat without", 0, 4, false, false),
        ] {
            let mut packet = if is_six { vec![0; 40] } else { vec![0; 20] };
            packet[0] = if is_six { 0x60 } else { 0x45 };
            packet[if is_six { 6 } else { 9 }] = protocol::SCTP;
            packet.extend([
                0x13, 0x88, 0x17, 0x70, 0, 0, 0, tag, 1, 2, 3, 4, chunk, 0, 0, 4,
            ]);
            let read = |at: u32| {
                let bytes = packet.get(at as usize..).and_then(<[u8]>::first_chunk);
                bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
            };
            assert_eq!(asks(2, 6000, is_six, read), wanted, "{what}");
        }
    }
}
