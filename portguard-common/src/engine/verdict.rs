//! From facts to a verdict: one function a direction, the same in the kernel and on the host.

use crate::engine::classes;
use crate::engine::config::dhcp;
use crate::engine::conntrack::{self, Class, Hashed, Tuple};
use crate::engine::ethertypes;
use crate::engine::reason::{Direction, Reason};
use crate::engine::tables::{Ending, Entry, Key, Tables};
use crate::wire::addr::Addr;
use crate::wire::packet::{Malformed, Shape, Subject, protocol};

/// The verdict before audit or enforce is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// What was looked up, or [`Key::NONE`]. No option: its undefined payload would be spilled, which verifiers refuse.
    pub key: Key,
    /// The counter cell of the grant, with [`Reason::Granted`].
    pub cell: u16,
    /// The cause, with [`Reason::Malformed`].
    pub cause: Option<Malformed>,
    /// A violation that stays in audit whatever the mode.
    pub audit_only: bool,
}

impl Verdict {
    #[inline(always)]
    pub(crate) const fn plain(reason: Reason) -> Self {
        Self {
            reason,
            key: Key::NONE,
            cell: 0,
            cause: None,
            audit_only: false,
        }
    }

    /// What the mode makes of it: whether the frame is dropped.
    #[inline(always)]
    pub const fn is_drop(&self, enforce: bool) -> bool {
        enforce && self.reason.is_violation() && !self.audit_only
    }
}

/// ICMPv4 types (IANA).
mod icmp4 {
    pub(super) const ECHO_REPLY: u8 = 0;
    /// Carries the path MTU, too.
    pub(super) const UNREACHABLE: u8 = 3;
    pub(super) const SOURCE_QUENCH: u8 = 4;
    pub(super) const ECHO: u8 = 8;
    pub(super) const TIME_EXCEEDED: u8 = 11;
    pub(super) const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types (IANA).
mod icmp6 {
    pub(super) const UNREACHABLE: u8 = 1;
    pub(super) const PACKET_TOO_BIG: u8 = 2;
    pub(super) const TIME_EXCEEDED: u8 = 3;
    pub(super) const PARAMETER_PROBLEM: u8 = 4;
    pub(super) const ECHO: u8 = 128;
    pub(super) const ECHO_REPLY: u8 = 129;
    pub(super) const LISTENER_QUERY: u8 = 130;
    pub(super) const LISTENER_REPORT: u8 = 131;
    pub(super) const LISTENER_DONE: u8 = 132;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const REDIRECT: u8 = 137;
    pub(super) const LISTENER_REPORT_V2: u8 = 143;
}

/// IGMP types (IANA).
mod igmp {
    pub(super) const QUERY: u8 = 0x11;
    pub(super) const REPORT_V1: u8 = 0x12;
    pub(super) const REPORT_V2: u8 = 0x16;
    pub(super) const LEAVE: u8 = 0x17;
    pub(super) const REPORT_V3: u8 = 0x22;
}

/// Judges a frame that arrives.
#[inline(always)]
pub fn ingress<T: Tables + ?Sized, S: Subject>(tables: &T, packet: &S) -> Verdict {
    judge(tables, packet, Direction::Ingress)
}

/// Judges a frame that the host sends.
#[inline(always)]
pub fn egress<T: Tables + ?Sized, S: Subject>(tables: &T, packet: &S) -> Verdict {
    judge(tables, packet, Direction::Egress)
}

/// Judges a frame in one direction. The peer is the source of what arrives and the destination of what is sent.
#[inline(always)]
pub fn judge<T: Tables + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    direction: Direction,
) -> Verdict {
    let verdict = judge_as_own(tables, packet, direction);
    if matches!(direction, Direction::Ingress)
        && tables.config().card != 0
        && verdict.reason.is_violation()
        // Not all handlers of other protocols ask for whom a frame is.
        && !matches!(verdict.reason, Reason::StrictEthertype)
        && tables.is_for_other_host()
    {
        return Verdict::plain(Reason::OtherHost);
    }
    verdict
}

/// As [`judge`] does, whoever the frame is for by its link address.
#[inline(always)]
fn judge_as_own<T: Tables + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    direction: Direction,
) -> Verdict {
    let question = question(tables, packet, direction);
    if !question.is_open {
        return Verdict {
            cause: question.cause,
            ..Verdict::plain(question.reason)
        };
    }
    let verdict = granted(
        tables,
        direction,
        question.key,
        || peer(packet, direction),
        || packet.source_port(),
        question.reason,
    );
    if verdict.reason.is_violation()
        && matches!(packet.shape(), Shape::Ports)
        && is_reply(tables, packet, direction)
    {
        return Verdict::plain(Reason::Reply);
    }
    verdict
}

/// What is left to ask about a packet. Not an enum: the bytes that its variants do not share would be undefined, and the
/// compiler spills such registers, which verifiers refuse.
struct Question {
    /// Whether the tables decide: whether `key` is granted to the peer.
    is_open: bool,
    key: Key,
    /// The answer, or what it is called if `key` is granted to nobody.
    reason: Reason,
    cause: Option<Malformed>,
}

impl Question {
    #[inline(always)]
    const fn answered(reason: Reason) -> Self {
        Self {
            is_open: false,
            key: Key(0),
            reason,
            cause: None,
        }
    }

    #[inline(always)]
    const fn granted(key: Key, closed: Reason) -> Self {
        Self {
            is_open: true,
            key,
            ..Self::answered(closed)
        }
    }
}

/// The table of SPECIFICATION, line by line: the first that fits decides.
#[inline(always)]
fn question<T: Tables + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    direction: Direction,
) -> Question {
    let config = tables.config();
    let answer = Question::answered;
    match packet.shape() {
        Shape::Malformed(cause) => Question {
            cause: Some(cause),
            ..answer(Reason::Malformed)
        },
        Shape::Arp => answer(Reason::Arp),
        Shape::NonIp if config.strict_ethertypes == 0 => answer(Reason::NonIp),
        Shape::NonIp if ethertypes::is_among(config.ethertypes, packet) => answer(Reason::NonIp),
        Shape::NonIp => answer(Reason::StrictEthertype),
        _ if is_transit(tables, packet, direction) => answer(Reason::Transit),
        Shape::Fragment if config.strict_fragments == 0 => answer(Reason::Fragment),
        Shape::Fragment => answer(Reason::StrictFragment),
        Shape::Icmp => icmp(packet),
        Shape::Protocol => protocol(packet),
        Shape::Ports => {
            let key = Key::port(packet.space(), packet.destination_port());
            Question::granted(key, Reason::UndocumentedPort)
        }
    }
}

/// By the site's list of protocols.
#[inline(always)]
fn protocol<S: Subject>(packet: &S) -> Question {
    let key = Key::protocol(packet.protocol());
    Question::granted(key, Reason::UndocumentedProtocol)
}

/// ICMP and IGMP by their types.
#[inline(always)]
fn icmp<S: Subject>(packet: &S) -> Question {
    let answer = Question::answered;
    let echo = || Question::granted(Key::ECHO, Reason::Icmp);
    let kind = packet.icmp_type();
    if packet.source().v6 {
        match kind {
            // Errors (RFC 4443).
            icmp6::UNREACHABLE
            | icmp6::PACKET_TOO_BIG
            | icmp6::TIME_EXCEEDED
            | icmp6::PARAMETER_PROBLEM
            // Multicast listener discovery (RFC 2710, RFC 3810).
            | icmp6::LISTENER_QUERY
            | icmp6::LISTENER_REPORT
            | icmp6::LISTENER_DONE
            | icmp6::LISTENER_REPORT_V2 => answer(Reason::IcmpEssential),
            // Neighbour discovery is only valid from the link itself (RFC 4861 section 7.1).
            icmp6::ROUTER_SOLICITATION..=icmp6::REDIRECT if packet.hop_limit() == 255 => {
                answer(Reason::IcmpEssential)
            }
            icmp6::ECHO_REPLY => answer(Reason::EchoReply),
            icmp6::ECHO => echo(),
            _ => answer(Reason::Icmp),
        }
    } else if packet.protocol() == protocol::IGMP {
        match kind {
            // Membership of multicast groups, of all versions; no router forwards it (RFC 3376 section 4).
            igmp::QUERY | igmp::REPORT_V1 | igmp::REPORT_V2 | igmp::LEAVE | igmp::REPORT_V3
                if packet.hop_limit() == 1 && packet.destination().is_group() =>
            {
                answer(Reason::IcmpEssential)
            }
            _ => protocol(packet),
        }
    } else {
        match kind {
            // Errors (RFC 792).
            icmp4::UNREACHABLE
            | icmp4::SOURCE_QUENCH
            | icmp4::TIME_EXCEEDED
            | icmp4::PARAMETER_PROBLEM => answer(Reason::IcmpEssential),
            icmp4::ECHO_REPLY => answer(Reason::EchoReply),
            icmp4::ECHO => echo(),
            _ => answer(Reason::Icmp),
        }
    }
}

/// Whether a packet is for somebody else. What is for all of a link is for this host too, and no router forwards what is for
/// a link-local address.
#[inline(always)]
fn is_transit<T: Tables + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    direction: Direction,
) -> bool {
    if !S::IS_ROUTED || tables.config().scoped == 0 {
        return false;
    }
    let own = match direction {
        Direction::Ingress => packet.destination(),
        Direction::Egress => packet.source(),
    };
    !own.is_group()
        && !own.is_link_local()
        && tables.is_forwarded(direction, packet.source(), packet.destination())
}

#[inline(always)]
fn peer<S: Subject>(packet: &S, direction: Direction) -> Addr {
    match direction {
        Direction::Ingress => packet.source(),
        Direction::Egress => packet.destination(),
    }
}

/// Whether a packet that no grant admits answers one that was.
#[inline(always)]
fn is_reply<T: Tables + ?Sized, S: Subject>(tables: &T, packet: &S, direction: Direction) -> bool {
    // Asked first, since it costs nothing: where it is known to be so, the verifier removes the rest.
    if matches!(direction, Direction::Ingress) && tables.config().flows == 0 {
        return false;
    }
    // Who asks to open a conversation answers nothing, whatever the tables say.
    if packet.is_opening() {
        return false;
    }
    match direction {
        // The host opened this conversation, and may still have it.
        Direction::Ingress => is_live(tables, packet) && may_ask(tables, packet),
        // The peer was allowed to open this conversation: replies of documented services cost no state.
        Direction::Egress => {
            let listening = Key::port(packet.space(), packet.source_port());
            let (peer, port) = (packet.destination(), packet.destination_port());
            is_granted(tables, listening, peer, port)
        }
    }
}

/// Looks a key up: granted to this peer, to others, or (`closed`) to nobody.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "cells are below 2^14")]
fn granted<T: Tables + ?Sized>(
    tables: &T,
    direction: Direction,
    key: Key,
    peer: impl FnOnce() -> Addr,
    peer_port: impl FnOnce() -> u16,
    closed: Reason,
) -> Verdict {
    let entry = tables.entry(direction, key);
    let mut verdict = Verdict {
        reason: Reason::Granted,
        key,
        cell: entry.index(),
        cause: None,
        audit_only: entry.is_audit(),
    };
    if entry.is_closed() || is_no_dhcp(tables, direction, key, peer_port) {
        verdict.reason = closed;
    } else if tables.config().sources != 0 && entry.is_restricted() {
        let rule = tables.rule(entry.index());
        let class = classes::class(tables, peer());
        let variant = tables.admit(class * tables.config().width + rule.peers());
        if variant == 0 {
            verdict.reason = Reason::UndocumentedPeer;
        } else {
            verdict.cell = rule.cell() + (variant - 1) as u16;
        }
    }
    if tables.config().endings != 0 {
        end(tables, entry, &mut verdict, closed);
    }
    verdict
}

/// Takes from a verdict the grants that have ended.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half is a cell")]
fn end<T: Tables + ?Sized>(tables: &T, entry: Entry, verdict: &mut Verdict, closed: Reason) {
    if matches!(verdict.reason, Reason::Granted) {
        let left = tables.left(verdict.cell.into());
        verdict.cell = left as u16;
        if verdict.cell != 0 {
            return;
        }
        verdict.reason = if left >> 16 == Ending::OTHERS {
            Reason::UndocumentedPeer
        } else {
            closed
        };
        if left >> 16 == Ending::CLOSED_WITH_AUDIT {
            verdict.audit_only = false;
        }
    }
    if entry.is_audit() && entry.is_restricted() {
        verdict.audit_only &= tables.left(Ending::of_rule(entry.index())) as u16 != 0;
    }
}

/// Whether a port that is open for DHCP only is asked for by something else than a server: RFC 2131 section 4.1, RFC 8415
/// section 7.2.
#[inline(always)]
fn is_no_dhcp<T: Tables + ?Sized>(
    tables: &T,
    direction: Direction,
    key: Key,
    peer_port: impl FnOnce() -> u16,
) -> bool {
    let only = tables.config().dhcp;
    if only == 0 || matches!(direction, Direction::Egress) {
        return false;
    }
    for (bit, client, server) in dhcp::PORTS {
        if key == Key::port(1, client) {
            return only & bit != 0 && peer_port() != server;
        }
    }
    false
}

/// The conversation of a packet with ports, from the host's view.
#[inline(always)]
pub fn tuple<S: Subject>(packet: &S, direction: Direction) -> Tuple {
    let (source, destination, source_port) = packet.ends();
    let destination_port = packet.destination_port();
    let (local, remote, local_port, remote_port) = match direction {
        Direction::Ingress => (destination, source, destination_port, source_port),
        Direction::Egress => (source, destination, source_port, destination_port),
    };
    Tuple {
        space: packet.space(),
        local,
        remote,
        local_port,
        remote_port,
    }
}

/// Whether what comes in for this key is granted to a peer.
#[inline(always)]
pub fn is_granted<T: Tables + ?Sized>(tables: &T, key: Key, peer: Addr, peer_port: u16) -> bool {
    let closed = Reason::UndocumentedPort;
    let verdict = granted(
        tables,
        Direction::Ingress,
        key,
        || peer,
        || peer_port,
        closed,
    );
    verdict.reason == Reason::Granted
}

/// The cell of a conversation of the host.
#[inline(always)]
pub fn conversation<T: Tables + ?Sized>(tables: &T, hashed: Hashed) -> Option<u64> {
    let set = tables.flow_set(hashed.set & tables.config().flow_mask)?;
    match set.find(hashed.tag) {
        None if set.spilled != 0 => tables.spilled(hashed.key()),
        found => found,
    }
}

#[inline(always)]
fn is_live<T: Tables + ?Sized, S: Subject>(tables: &T, packet: &S) -> bool {
    let config = tables.config();
    let hashed = tuple(packet, Direction::Ingress).hash(config.flow_key);
    conversation(tables, hashed).is_some_and(|cell| {
        let now = || conntrack::now(tables.jiffies(), config.tick_shift);
        // What was forwarded is answered to a socket here, once one has its port and the packet filter has forgotten.
        let is_taken = matches!(Class::of(cell), Class::Forwarded)
            && tables.is_held(packet.destination_port());
        !is_taken && conntrack::is_live(cell, config.lifetimes(), now)
    })
}

/// Whether the outbound policy lets the host ask what this packet answers: a conversation that it would not let begin any
/// more is over, whoever let it begin.
#[inline(always)]
fn may_ask<T: Tables + ?Sized, S: Subject>(tables: &T, packet: &S) -> bool {
    if tables.config().enforce_out == 0 {
        return true;
    }
    let asked = Key::port(packet.space(), packet.source_port());
    let verdict = granted(
        tables,
        Direction::Egress,
        asked,
        || packet.source(),
        || packet.source_port(),
        Reason::UndocumentedPort,
    );
    verdict.reason == Reason::Granted || verdict.audit_only
}
