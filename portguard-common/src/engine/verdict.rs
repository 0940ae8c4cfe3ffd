//! From facts to a verdict: one function a direction, the same in the kernel and on the host.

use crate::engine::classes;
use crate::engine::conntrack::{self, Hashed, Tuple};
use crate::engine::reason::{Direction, Reason};
use crate::engine::tables::{Key, Tables};
use crate::wire::addr::Addr;
use crate::wire::packet::{Malformed, Shape, Subject};

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
    pub(super) const ECHO: u8 = 8;
}

/// ICMPv6 types (IANA).
mod icmp6 {
    pub(super) const ECHO: u8 = 128;
    pub(super) const ECHO_REPLY: u8 = 129;
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

#[inline(always)]
fn question<T: Tables + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    direction: Direction,
) -> Question {
    let config = tables.config();
    Question::answered(match packet.shape() {
        Shape::Malformed(cause) => {
            return Question {
                cause: Some(cause),
                ..Question::answered(Reason::Malformed)
            };
        }
        Shape::Arp => Reason::Arp,
        Shape::NonIp if config.strict_ethertypes != 0 => Reason::StrictEthertype,
        Shape::NonIp => Reason::NonIp,
        _ if is_transit(tables, packet, direction) => Reason::Transit,
        Shape::Fragment if config.strict_fragments != 0 => Reason::StrictFragment,
        Shape::Fragment => Reason::Fragment,
        Shape::Ports => {
            let key = Key::port(packet.space(), packet.destination_port());
            return Question::granted(key, Reason::UndocumentedPort);
        }
        Shape::Protocol => {
            let key = Key::protocol(packet.protocol());
            return Question::granted(key, Reason::UndocumentedProtocol);
        }
        Shape::Icmp => match icmp(packet) {
            Some(reason) => reason,
            None => return Question::granted(Key::ECHO, Reason::Icmp),
        },
    })
}

#[inline(always)]
fn is_transit<T: Tables + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    direction: Direction,
) -> bool {
    if tables.config().scoped == 0 {
        return false;
    }
    match direction {
        Direction::Ingress => {
            !packet.destination().is_group() && !is_own(tables, packet.destination())
        }
        Direction::Egress => !is_own(tables, packet.source()),
    }
}

#[inline(always)]
fn is_own<T: Tables + ?Sized>(tables: &T, address: Addr) -> bool {
    address.is_link_local() || tables.own(address)
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
    // Who asks to open a conversation answers nothing, whatever the tables say.
    if packet.is_opening() {
        return false;
    }
    match direction {
        // The host opened this conversation, and may still have it.
        Direction::Ingress => {
            tables.config().flows != 0 && is_live(tables, packet) && may_ask(tables, packet)
        }
        // The peer was allowed to open this conversation: replies of documented services cost no state.
        Direction::Egress => {
            let listening = Key::port(packet.space(), packet.source_port());
            is_granted(tables, listening, packet.destination())
        }
    }
}

/// What ICMP of this type is; `None` for an echo request.
#[inline(always)]
fn icmp<S: Subject>(packet: &S) -> Option<Reason> {
    let kind = packet.icmp_type();
    if packet.source().v6 {
        match kind {
            // Errors (RFC 4443), MLD (RFC 2710, RFC 3810).
            1..=4 | 130..=132 | 143 => Some(Reason::IcmpEssential),
            // Neighbour discovery is only valid from the link itself (RFC 4861 section 7.1).
            133..=137 if packet.hop_limit() == 255 => Some(Reason::IcmpEssential),
            icmp6::ECHO_REPLY => Some(Reason::EchoReply),
            icmp6::ECHO => None,
            _ => Some(Reason::Icmp),
        }
    } else {
        match kind {
            // Unreachable (path MTU too), source quench, time exceeded, parameter problem (RFC 792).
            3 | 4 | 11 | 12 => Some(Reason::IcmpEssential),
            icmp4::ECHO_REPLY => Some(Reason::EchoReply),
            icmp4::ECHO => None,
            _ => Some(Reason::Icmp),
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
    if entry.is_closed() {
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
    verdict
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
pub fn is_granted<T: Tables + ?Sized>(tables: &T, key: Key, peer: Addr) -> bool {
    let closed = Reason::UndocumentedPort;
    granted(tables, Direction::Ingress, key, || peer, closed).reason == Reason::Granted
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
        conntrack::is_live(cell, config.lifetimes(), now)
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
    let source = || packet.source();
    let closed = Reason::UndocumentedPort;
    let verdict = granted(tables, Direction::Egress, asked, source, closed);
    verdict.reason == Reason::Granted || verdict.audit_only
}
