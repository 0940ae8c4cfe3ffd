//! Who began a conversation: what the tables of conversations learn from a packet that leaves, and from one that is let in.
//!
//! TCP begins with an opening that leaves, and what comes midway begins nothing. What has no handshake is begun by whoever
//! speaks first: undocumented datagrams that are let in are noted as the other end's, and answers to them begin nothing.

use crate::engine::conntrack::{self as flow, Class, Hashed, Next, Said};
use crate::engine::reason::{Direction, Reason};
use crate::engine::tables::{Key, Tables};
use crate::engine::verdict::{self, Verdict};
use crate::wire::addr::Addr;
use crate::wire::packet::{Shape, Subject, protocol, tcp};

/// The tables of conversations, to be written. In the kernel each of these is a function of its own, which the verifier sees
/// once.
pub trait Conversations: Tables {
    /// Writes a conversation of the host in place of the cell that it has.
    fn renew(&self, hashed: Hashed, own: u64, class: Class);
    /// Writes one that was not known.
    fn begin(&self, hashed: Hashed, class: Class);
    /// See [`goes_on`].
    fn is_theirs(&self, hashed: Hashed) -> bool;
    /// See [`note`].
    fn note_theirs(&self, hashed: Hashed);
    /// See [`verdict::is_granted`], of what comes in.
    fn is_granted(&self, key: Key, peer: Addr, peer_port: u16) -> bool;
}

/// The table of conversations that other ends began.
pub trait Theirs: Tables {
    /// The cell of a tuple.
    fn theirs(&self, hashed: Hashed) -> Option<u64>;
    /// Writes one, in place of the cell that it has or anew.
    fn write_theirs(&self, hashed: Hashed, own: Option<u64>);
}

/// What a packet that leaves says; `None` if it only answers.
#[inline(always)]
pub fn said<S: Subject>(packet: &S) -> Option<Said> {
    if packet.protocol() != protocol::TCP {
        return Some(Said::Datagram);
    }
    let flags = packet.tcp_flags();
    if flags & (tcp::RST | tcp::FIN) != 0 {
        Some(Said::Ends)
    } else if flags & tcp::SYN == 0 {
        Some(Said::Speaks)
    } else if flags & tcp::ACK == 0 {
        Some(Said::Opens)
    } else {
        None
    }
}

/// Takes note of a packet that leaves. `is_foreign` says whether it came in by a guarded interface before, or goes to a group:
/// such a one begins nothing.
#[inline(always)]
pub fn sent<T: Conversations + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    verdict: &Verdict,
    is_foreign: impl FnOnce() -> bool,
) {
    let facts = tables.config();
    // Answers of documented services, too: they cost no state.
    if facts.flows == 0
        || !matches!(packet.shape(), Shape::Ports)
        || matches!(verdict.reason, Reason::Reply | Reason::Transit)
    {
        return;
    }
    let Some(said) = said(packet) else { return };
    let hashed = verdict::tuple(packet, Direction::Egress).hash(facts.flow_key);
    let own = verdict::conversation(tables, hashed);
    let now = || flow::now(tables.jiffies(), facts.tick_shift);
    let lifetimes = facts.lifetimes();
    match flow::next(own, said, packet.space(), lifetimes, now) {
        Next::Same => {}
        Next::Renew(class) => tables.renew(hashed, own.unwrap_or(0), class),
        Next::Begin(class) => {
            if packet.destination().is_group() || is_foreign() {
                return;
            }
            if matches!(said, Said::Datagram)
                && (tables.is_theirs(hashed) || is_answer(tables, packet))
            {
                return;
            }
            tables.begin(hashed, class);
        }
    }
}

/// Whether a packet without handshake answers on a port that the peer may use: then it needs no state, and begins none.
#[inline(always)]
fn is_answer<T: Conversations + ?Sized, S: Subject>(tables: &T, packet: &S) -> bool {
    let key = Key::port(packet.space(), packet.source_port());
    tables.is_granted(key, packet.destination(), packet.destination_port())
}

/// Whether the other end began this; if so, that is known for as long as the two go on.
#[inline(always)]
pub fn goes_on<T: Theirs + ?Sized>(tables: &T, hashed: Hashed) -> bool {
    let facts = tables.config();
    let Some(cell) = tables.theirs(hashed) else {
        return false;
    };
    let now = flow::now(tables.jiffies(), facts.tick_shift);
    if !flow::is_live(cell, facts.lifetimes(), || now) {
        return false;
    }
    if flow::age(cell, now) != 0 {
        tables.write_theirs(hashed, Some(cell));
    }
    true
}

/// Notes that the other end began this, or goes on with it. A late answer to what the host asked is nothing of that.
#[inline(always)]
pub fn note<T: Theirs + ?Sized>(tables: &T, hashed: Hashed) {
    if verdict::conversation(tables, hashed).is_some() {
        return;
    }
    let own = tables.theirs(hashed);
    let now = flow::now(tables.jiffies(), tables.config().tick_shift);
    if own.is_none_or(|cell| flow::age(cell, now) != 0) {
        tables.write_theirs(hashed, own);
    }
}

/// Takes note of a packet that is let in although nothing documents it.
#[inline(always)]
pub fn received<T: Conversations + ?Sized, S: Subject>(tables: &T, packet: &S, verdict: &Verdict) {
    let facts = tables.config();
    if facts.flows == 0
        || !verdict.reason.is_violation()
        || !matches!(packet.shape(), Shape::Ports)
        || packet.protocol() == protocol::TCP
    {
        return;
    }
    let hashed = verdict::tuple(packet, Direction::Ingress).hash(facts.flow_key);
    tables.note_theirs(hashed);
}
