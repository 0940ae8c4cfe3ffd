//! Cuts a packet into fragments, in any order and with any overlap.

use std::ops::Range;

use anyhow::{Context, Result, bail};

use super::{checksum, length16, number, put};

/// Cuts the IP packet of a frame into fragments: one frame for each range of its fragmentable part, in the order given.
///
/// Ranges count bytes from the first that fragments share out: behind the IPv4 header, or behind the IPv6 header, its
/// hop-by-hop options and its routing header (with the destination options before that). Each begins at a multiple of 8;
/// "more fragments" is set unless it reaches the end. Ranges may overlap, repeat or leave holes: the receiver's problem.
pub fn fragments(frame: &[u8], id: u32, ranges: &[Range<usize>]) -> Result<Vec<Vec<u8>>> {
    let shape = Shape::of(frame)?;
    let head = frame.get(..shape.shared).context("frame too short")?;
    let body = frame
        .get(shape.shared..shape.end)
        .context("frame too short")?;
    ranges
        .iter()
        .map(|range| {
            let piece = body.get(range.clone()).with_context(|| {
                format!(
                    "fragment {range:?} of a packet with {} bytes to share out",
                    body.len()
                )
            })?;
            if range.start % 8 != 0 {
                bail!("fragment {range:?} does not begin at a multiple of 8");
            }
            let more = range.end < body.len();
            let place = u16::try_from(range.start).context("fragment offset")?;
            let mut out = head.to_vec();
            if shape.v6 {
                out.extend_from_slice(&[shape.next, 0]);
                out.extend_from_slice(&(place | u16::from(more)).to_be_bytes());
                out.extend_from_slice(&id.to_be_bytes());
                put(&mut out, shape.next_at, &[number::FRAGMENT]);
            }
            out.extend_from_slice(piece);
            let ip = out.get_mut(shape.ip..).unwrap_or_default();
            if shape.v6 {
                let length = length16(ip.len().saturating_sub(40));
                put(ip, 4, &length.to_be_bytes());
            } else {
                let length = length16(ip.len());
                put(ip, 2, &length.to_be_bytes());
                let [.., id_high, id_low] = id.to_be_bytes();
                put(ip, 4, &[id_high, id_low]);
                put(
                    ip,
                    6,
                    &((place / 8) | (u16::from(more) << 13)).to_be_bytes(),
                );
                put(ip, 10, &[0, 0]);
                let sum = checksum(&[ip.get(..shape.shared - shape.ip).unwrap_or_default()]);
                put(ip, 10, &sum.to_be_bytes());
            }
            Ok(out)
        })
        .collect()
}

/// Ranges for [`fragments`]: a part of `total` bytes cut every `size` bytes (a multiple of 8), in order.
pub fn split(total: usize, size: usize) -> Vec<Range<usize>> {
    let size = size.max(8) / 8 * 8;
    (0..total)
        .step_by(size)
        .map(|start| start..(start + size).min(total))
        .collect()
}

/// Where things are in a frame.
struct Shape {
    v6: bool,
    /// Start of the IP header.
    ip: usize,
    /// Start of the part that is shared out.
    shared: usize,
    /// End of the packet, without Ethernet's padding.
    end: usize,
    /// IPv6: the "next" field that will say "fragment", and what it says now.
    next_at: usize,
    next: u8,
}

impl Shape {
    fn of(frame: &[u8]) -> Result<Self> {
        let byte = |at: usize| {
            frame
                .get(at)
                .copied()
                .map(usize::from)
                .context("frame too short")
        };
        let word = |at: usize| Ok::<_, anyhow::Error>((byte(at)? << 8) | byte(at + 1)?);
        let mut ip = 14;
        while matches!(word(ip - 2)?, 0x8100 | 0x88a8 | 0x9100) {
            ip += 4;
        }
        match word(ip - 2)? {
            0x0800 => Ok(Self {
                v6: false,
                ip,
                shared: ip + (byte(ip)? & 15) * 4,
                end: ip + word(ip + 2)?,
                next_at: 0,
                next: 0,
            }),
            0x86dd => {
                let (mut shared, mut next_at) = (ip + 40, ip + 6);
                let (mut header, mut at) = (byte(ip + 6)?, ip + 40);
                // Walks all options and routing headers, keeps what every fragment must repeat.
                while [0, 43, 60].contains(&header) {
                    let routing_or_hops = header != 60;
                    header = byte(at)?;
                    let field = at;
                    at += (byte(at + 1)? + 1) * 8;
                    if routing_or_hops {
                        (shared, next_at) = (at, field);
                    }
                }
                let next = u8::try_from(byte(next_at)?)?;
                Ok(Self {
                    v6: true,
                    ip,
                    shared,
                    end: ip + 40 + word(ip + 4)?,
                    next_at,
                    next,
                })
            }
            other => bail!("EtherType {other:#06x} is not IP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Extension, Frame, Ipv4, Ipv6, Udp};
    use super::*;

    #[test]
    fn v4_pieces_carry_everything_once() {
        let payload: Vec<u8> = (0..100).collect();
        let whole = Frame::new([2; 6], [4; 6])
            .tag(0x8100, 3)
            .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).options([1, 1, 1, 0]))
            .udp(Udp::new(1, 2))
            .payload(payload)
            .pad(400)
            .build();
        let pieces = fragments(&whole, 0x1234, &split(108, 40)).unwrap();
        assert_eq!(pieces.len(), 3);
        let body: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| piece[42..].to_vec())
            .collect();
        assert_eq!(body, whole[42..42 + 108]);
        assert_eq!(pieces[1][24..26], [0x20, 5]);
        assert_eq!(pieces[2][24..26], [0, 10]);
        assert!(pieces.iter().all(|piece| checksum(&[&piece[18..42]]) == 0));
    }

    #[test]
    fn v6_repeats_hops_and_routing_only() {
        let whole = Frame::new([2; 6], [4; 6])
            .ipv6(Ipv6::new([1; 8].into(), [2; 8].into()))
            .extension(Extension::hop_by_hop(0))
            .extension(Extension::destination(0))
            .extension(Extension::routing(4, 0))
            .extension(Extension::destination(1))
            .udp(Udp::new(1, 2))
            .payload([7; 20])
            .build();
        let pieces = fragments(&whole, 9, &split(16 + 28, 16)).unwrap();
        assert_eq!(pieces.len(), 3);
        let start = 54 + 24;
        assert_eq!(
            pieces[0][54 + 16],
            number::FRAGMENT,
            "the routing header's next"
        );
        assert_eq!(pieces[0][start], number::DESTINATION);
        assert_eq!(pieces[2][start + 2..start + 4], [0, 32]);
        assert_eq!(pieces[0][start + 3], 1, "more follow");
        assert_eq!(usize::from(pieces[2][19]), 24 + 8 + 12);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let whole = Frame::new([2; 6], [4; 6])
            .ipv4(Ipv4::new([1; 4].into(), [2; 4].into()))
            .build();
        assert!(fragments(&whole, 1, &[0..0, 0..1]).is_err());
        assert!(fragments(&whole[..20], 1, &[]).is_err());
        assert!(fragments(&Frame::new([0; 6], [0; 6]).build(), 1, &[]).is_err());
    }
}
