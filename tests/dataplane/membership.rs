//! Membership of groups, without which a switch that snoops stops what is documented for a group: it passes in both directions
//! where everything is enforced, and nothing else does by its name.

use std::net::Ipv4Addr;

use portguard_harness::frames::{Extension, Frame, Icmp, Ipv4, Ipv6, checksum};
use portguard_kernel::object::HostFacts;
use portguard_policy::policy::Outbound;

use super::{DROP, NEXT, PASS, SHOT, egress, guard, ingress};

const IGMP: u8 = 2;
/// Tells routers on the way to look at a packet (RFC 2113, RFC 2711).
const ALERT: [u8; 4] = [0x94, 4, 0, 0];

/// A message about a group: query, report of version 1, 2 or 3, leave.
fn igmp(kind: u8, to: [u8; 4], ttl: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 239, 1, 2, 3];
    let sum = checksum(&[&message]).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let mut header = Ipv4::new(Ipv4Addr::new(192, 0, 2, 1), to.into()).options(ALERT);
    header.ttl = ttl;
    let frame = Frame::new([2; 6], [4; 6]).ipv4(header);
    frame.protocol(IGMP).payload(message).build()
}

/// The same of IPv6: query, reports of version 1 and 2, done.
fn mld(kind: u8) -> anyhow::Result<Vec<u8>> {
    let header = Ipv6::new("fe80::1".parse()?, "ff02::16".parse()?).hop_limit(1);
    let frame = Frame::new([2; 6], [4; 6]).ipv6(header);
    let frame = frame.extension(Extension::hop_by_hop(0));
    Ok(frame.icmpv6(Icmp::new(kind, 0)).payload([0; 16]).build())
}

#[test]
fn membership_of_groups_passes_in_both_directions() -> anyhow::Result<()> {
    for multi_buffer in [false, true] {
        let host = HostFacts {
            multi_buffer,
            ..HostFacts::default()
        };
        let guard = &mut guard(Outbound::Enforce, &host);
        for kind in [0x11, 0x12, 0x16, 0x17, 0x22] {
            for to in [
                [224, 0, 0, 1],
                [224, 0, 0, 2],
                [224, 0, 0, 22],
                [239, 1, 2, 3],
            ] {
                let frame = igmp(kind, to, 1);
                assert_eq!(ingress(guard, &frame), PASS, "{kind:#x} to {to:?}");
                assert_eq!(egress(guard, &frame, None), NEXT, "{kind:#x} to {to:?}");
            }
            // What a router forwarded, or one host was sent, is nothing of the kind.
            for (to, ttl) in [
                ([239, 1, 2, 3], 2),
                ([239, 1, 2, 3], 0),
                ([192, 0, 2, 2], 1),
            ] {
                let frame = igmp(kind, to, ttl);
                assert_eq!(ingress(guard, &frame), DROP, "{kind:#x} to {to:?}");
                assert_eq!(egress(guard, &frame, None), SHOT, "{kind:#x} to {to:?}");
            }
        }
        // Other messages of the protocol: multicast traceroute, router discovery.
        for kind in [0x1e, 0x1f, 0x13, 0x30, 0xff] {
            let frame = igmp(kind, [224, 0, 0, 1], 1);
            assert_eq!(ingress(guard, &frame), DROP, "{kind:#x}");
            assert_eq!(egress(guard, &frame, None), SHOT, "{kind:#x}");
        }
        for kind in [130, 131, 132, 143] {
            let frame = mld(kind)?;
            assert_eq!(ingress(guard, &frame), PASS, "{kind}");
            assert_eq!(egress(guard, &frame, None), NEXT, "{kind}");
        }
    }
    Ok(())
}
