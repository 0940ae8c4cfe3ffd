//! Who asks to open a connection answers nobody, however the asking is wrapped up.

use std::net::IpAddr;

use portguard_common::abi::slot;
use portguard_harness::frames::{Extension, Frame, Ipv4, Ipv6, Tcp, fragments, number};
use portguard_kernel::object::{HostFacts, Loaded};
use portguard_policy::policy::Outbound;

use super::{DROP, NEXT, PASS, SHOT, counter, egress, guard, ingress};

/// All that open a connection: nothing is acknowledged.
const OPENINGS: [u8; 4] = [
    Tcp::SYN,
    // With explicit congestion notification.
    Tcp::SYN | 0xc0,
    Tcp::SYN | Tcp::PSH | Tcp::URG,
    Tcp::SYN | Tcp::FIN,
];
/// What goes on with one.
const ANSWERS: [u8; 3] = [Tcp::SYN | Tcp::ACK, Tcp::ACK, Tcp::ACK | Tcp::PSH];

/// The port that the policy of these tests opens.
const SERVICE: u16 = 22;

/// A segment with 40 bytes of data, so that its first fragment may hold all of the TCP header.
fn segment(frame: Frame, flags: u8, (from, to): (u16, u16)) -> Vec<u8> {
    let segment = Tcp::new(from, to, flags);
    frame.tcp(segment).payload([0x5a; 40]).build()
}

/// The same segment in all shapes: plain, tagged, with what stands between the headers, and the first of two fragments.
fn shapes(
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    flags: u8,
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let ports = (from.1, to.1);
    let mut found = Vec::new();
    for tags in 0..3 {
        let frame = || {
            let plain = Frame::new([2; 6], [4; 6]);
            (0..tags).fold(plain, |frame, tag| frame.tag(number::VLAN, 5 + tag))
        };
        let within = match (from.0, to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let options = Ipv4::new(from, to).options([1; 4]);
                [
                    ("no options", frame().ipv4(Ipv4::new(from, to))),
                    ("options", frame().ipv4(options)),
                ]
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let head = frame().ipv6(Ipv6::new(from, to));
                let options = head.clone().extension(Extension::destination(0));
                [("no options", head), ("options", options)]
            }
            _ => anyhow::bail!("two families"),
        };
        for (what, frame) in within {
            let whole = segment(frame, flags, ports);
            // Behind whatever stands between, the first fragment ends after the TCP header.
            let between = if what == "options" && from.0.is_ipv6() {
                8
            } else {
                0
            };
            let shared = 20 + 40 + between;
            let first = 24 + between;
            let pieces = fragments(&whole, 7, &[0..first, first..shared])?;
            let first = pieces.into_iter().next().unwrap_or_default();
            found.push((format!("{tags} tags, {what}, whole"), whole));
            found.push((format!("{tags} tags, {what}, first fragment"), first));
        }
    }
    Ok(found)
}

/// The host and a peer, by family.
const ENDS: [[&str; 2]; 2] = [
    ["192.0.2.1", "198.51.100.7"],
    ["2001:db8::1", "2001:db8:7::7"],
];

/// One that enforces in both directions, and with it a name for messages.
fn guards() -> Vec<(String, Loaded)> {
    let one = |multi_buffer| {
        let host = HostFacts {
            multi_buffer,
            ..HostFacts::default()
        };
        let guard = guard(Outbound::Enforce, &host);
        (format!("multi buffer: {multi_buffer}"), guard)
    };
    vec![one(false), one(true)]
}

#[test]
fn nothing_is_opened_from_a_documented_port() -> anyhow::Result<()> {
    for (kind, guard) in &mut guards() {
        for [host, peer] in ENDS {
            let host = (host.parse()?, SERVICE);
            for port in [443, 50_000] {
                let peer = (peer.parse()?, port);
                for flags in OPENINGS {
                    for (what, frame) in shapes(host, peer, flags)? {
                        let judged = egress(guard, &frame, None);
                        assert_eq!(judged, SHOT, "{kind}, {what}, flags {flags:#x}");
                    }
                }
                // It does answer, or nothing would be shown.
                for flags in ANSWERS {
                    for (what, frame) in shapes(host, peer, flags)? {
                        let judged = egress(guard, &frame, None);
                        assert_eq!(judged, NEXT, "{kind}, {what}, flags {flags:#x}");
                    }
                }
            }
        }
        assert_eq!(counter(guard, slot::FLOWS_CREATED).0, 0, "{kind}");
    }
    Ok(())
}

#[test]
fn nothing_is_opened_within_a_conversation_of_the_host() -> anyhow::Result<()> {
    for multi_buffer in [false, true] {
        let host = HostFacts {
            multi_buffer,
            ..HostFacts::default()
        };
        let guard = &mut guard(Outbound::Audit, &host);
        for [host, peer] in ENDS {
            let (host, peer) = ((host.parse()?, 40_000), (peer.parse()?, 443));
            let (_, asking) = shapes(host, peer, Tcp::SYN)?.swap_remove(0);
            assert_eq!(egress(guard, &asking, None), NEXT);
            for flags in ANSWERS {
                for (what, frame) in shapes(peer, host, flags)? {
                    assert_eq!(ingress(guard, &frame), PASS, "{what}, flags {flags:#x}");
                }
            }
            for flags in OPENINGS {
                for (what, frame) in shapes(peer, host, flags)? {
                    assert_eq!(ingress(guard, &frame), DROP, "{what}, flags {flags:#x}");
                }
            }
            // It lives on.
            let (_, answer) = shapes(peer, host, Tcp::ACK)?.swap_remove(0);
            assert_eq!(ingress(guard, &answer), PASS);
        }
    }
    Ok(())
}

/// A fragment without the flags says of no conversation that it is one of its answers.
#[test]
fn a_fragment_without_its_flags_is_no_answer() -> anyhow::Result<()> {
    let guard = &mut guard(Outbound::Audit, &HostFacts::default());
    for [host, peer] in ENDS {
        let (host, peer) = ((host.parse()?, 40_000), (peer.parse()?, 443));
        let (_, asking) = shapes(host, peer, Tcp::SYN)?.swap_remove(0);
        assert_eq!(egress(guard, &asking, None), NEXT);
        for flags in [OPENINGS, [Tcp::ACK; 4]].concat() {
            let (_, whole) = shapes(peer, host, flags)?.swap_remove(0);
            let pieces = fragments(&whole, 7, &[0..8, 8..60])?;
            assert_eq!(ingress(guard, &pieces[0]), DROP, "flags {flags:#x}");
            // Nor the flags alone, where they would be read over what came before.
            assert_eq!(ingress(guard, &pieces[1]), DROP, "flags {flags:#x}");
        }
    }
    Ok(())
}
