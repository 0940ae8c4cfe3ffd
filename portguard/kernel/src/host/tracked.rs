//! The connections that the kernel's connection tracking knows: who began them, and as what they leave this host.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the attributes, which grow, a few are read"
)]

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol,
    Status, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use portguard_policy::catalog::Transport;

use super::netlink::request;

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tracked {
    /// Its transport.
    pub(crate) transport: Transport,
    /// From whom to whom its first packet was, as it came.
    pub(crate) first: (SocketAddr, SocketAddr),
    /// From whom to whom its answers are, as they come.
    pub(crate) answer: (SocketAddr, SocketAddr),
    /// Who began it, where that was seen.
    pub(crate) is_begun: bool,
    /// Whether the other end has answered: who forges a sender gets no answer.
    pub(crate) is_answered: bool,
    /// Whether it is TCP that goes on.
    pub(crate) is_open: bool,
}

/// States of TCP in which both ends may still say something, as connection tracking numbers them: established, and closed by
/// one end or both but not acknowledged.
const OPEN: [u8; 4] = [3, 4, 5, 6];
/// A flag of a connection that was taken up midway: nothing says who began it.
const LIBERAL: u8 = 0x08;

/// All of them, of both families.
///
/// # Errors
/// If the kernel does not list them.
pub(crate) fn tracked() -> crate::Result<Vec<Tracked>> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let question = NetfilterMessage::new(header, ConntrackMessage::Get(Vec::new()));
    let answers = request(NETLINK_NETFILTER, question, NLM_F_DUMP)?;
    Ok(answers.iter().filter_map(read).collect())
}

/// The one whose packets have these ends, in either direction; `None` also where nothing is tracked.
fn find(transport: Transport, from: SocketAddr, to: SocketAddr) -> Option<Tracked> {
    let family = match from {
        SocketAddr::V4(_) => NetfilterProtoFamily::IPv4,
        SocketAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    let header = NetfilterHeader::new(family, 0, 0);
    let wanted = ConntrackAttribute::CtaTupleOrig(tuple(transport, from, to));
    let question = NetfilterMessage::new(header, ConntrackMessage::Get(vec![wanted]));
    let answers = request(NETLINK_NETFILTER, question, 0).ok()?;
    answers.iter().find_map(read)
}

fn tuple(transport: Transport, from: SocketAddr, to: SocketAddr) -> Vec<Tuple> {
    let protocol = match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => Protocol::Sctp,
    };
    vec![
        Tuple::Ip(vec![
            IPTuple::SourceAddress(from.ip()),
            IPTuple::DestinationAddress(to.ip()),
        ]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(protocol),
            ProtoTuple::SourcePort(from.port()),
            ProtoTuple::DestinationPort(to.port()),
        ]),
    ]
}

/// Whether a socket with these ends began its session, where connection tracking has seen it begin.
pub(super) fn is_begun_here(
    transport: Transport,
    local: SocketAddr,
    remote: SocketAddr,
) -> Option<bool> {
    let one = find(transport, local, remote)?;
    if !one.is_open || !one.is_begun || !one.is_answered {
        None
    } else if one.first == (local, remote) {
        Some(true)
    } else if one.answer == (local, remote) {
        Some(false)
    } else {
        None
    }
}

fn read(message: &NetfilterMessage) -> Option<Tracked> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &message.inner else {
        return None;
    };
    let (mut first, mut answer, mut infos) = (None, None, Vec::new());
    let mut is_answered = false;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => first = ends(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => answer = ends(tuple),
            ConntrackAttribute::CtaProtoInfo(info) => infos.extend(info),
            ConntrackAttribute::CtaStatus(status) => {
                is_answered = status.contains(Status::SeenReply);
            }
            _ => {}
        }
    }
    let (transport, first) = first?;
    let (_, answer) = answer?;
    let (mut is_open, mut is_begun) = (false, true);
    for info in infos.into_iter().filter_map(|info| match info {
        ProtoInfo::TCP(info) => Some(info),
        _ => None,
    }) {
        for one in info {
            match one {
                ProtoInfoTCP::State(state) => is_open = OPEN.contains(state),
                ProtoInfoTCP::OriginalFlags(flags) | ProtoInfoTCP::ReplyFlags(flags) => {
                    is_begun &= flags.flags & LIBERAL == 0;
                }
                _ => {}
            }
        }
    }
    Some(Tracked {
        transport,
        first,
        answer,
        is_begun,
        is_answered,
        is_open,
    })
}

type Ends = (SocketAddr, SocketAddr);

fn ends(tuple: &[Tuple]) -> Option<(Transport, Ends)> {
    let (mut from, mut to): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let (mut transport, mut ports) = (None, (None, None));
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => from = Some(*address),
                        IPTuple::DestinationAddress(address) => to = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(Protocol::Tcp) => transport = Some(Transport::Tcp),
                        ProtoTuple::Protocol(Protocol::Udp) => transport = Some(Transport::Udp),
                        ProtoTuple::Protocol(Protocol::Sctp) => transport = Some(Transport::Sctp),
                        ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let end = |address: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(address?, port?));
    Some((transport?, (end(from, ports.0)?, end(to, ports.1)?)))
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::conntrack::TCPFlags;

    use super::*;

    fn message(transport: Transport, info: Vec<ProtoInfoTCP>) -> NetfilterMessage {
        let ends = |from: &str, to: &str| {
            let [from, to] = [from, to].map(|end| end.parse().expect("an end"));
            tuple(transport, from, to)
        };
        let attributes = vec![
            ConntrackAttribute::CtaTupleOrig(ends("10.9.0.2:40000", "192.0.2.1:443")),
            ConntrackAttribute::CtaTupleReply(ends("192.0.2.1:443", "10.1.0.1:50000")),
            ConntrackAttribute::CtaStatus(Status::Confirmed | Status::SeenReply),
            ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(info)]),
        ];
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        NetfilterMessage::new(header, ConntrackMessage::New(attributes))
    }

    #[test]
    fn who_began_is_known_unless_it_was_taken_up_midway() {
        let flags = |flags| TCPFlags::parse(&[flags, 0]).expect("two bytes");
        let with = |state, first, second| {
            vec![
                ProtoInfoTCP::State(state),
                ProtoInfoTCP::OriginalFlags(flags(first)),
                ProtoInfoTCP::ReplyFlags(flags(second)),
            ]
        };
        for (state, first, second, wanted) in [
            (3, 0x23, 0x23, (true, true)),
            (4, 0x03, 0x01, (true, true)),
            (3, 0x0a, 0x0a, (true, false)),
            (3, 0x03, 0x08, (true, false)),
            (1, 0x03, 0x00, (false, true)),
            (7, 0x03, 0x03, (false, true)),
        ] {
            let found = read(&message(Transport::Tcp, with(state, first, second))).expect("TCP");
            assert_eq!((found.is_open, found.is_begun), wanted, "{state}");
            assert!(found.is_answered);
            assert_eq!(found.first.0, "10.9.0.2:40000".parse().expect("an end"));
            assert_eq!(found.answer.1, "10.1.0.1:50000".parse().expect("an end"));
        }
        let udp = read(&message(Transport::Udp, Vec::new())).expect("UDP");
        assert_eq!((udp.transport, udp.is_open), (Transport::Udp, false));
    }
}
