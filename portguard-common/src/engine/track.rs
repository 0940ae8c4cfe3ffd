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
    /// See [`is_question`].
    fn is_question(&self, hashed: Hashed, said: &Datagram) -> bool;
    /// See [`note`].
    fn note_theirs(&self, hashed: Hashed);
    /// Ends what is [`closed`].
    fn end_closed(&self, hashed: Hashed);
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
    if flags & tcp::RST != 0 {
        Some(Said::Resets)
    } else if flags & tcp::FIN != 0 {
        Some(Said::Closes)
    } else if flags & tcp::SYN == 0 {
        Some(Said::Speaks)
    } else if flags & tcp::ACK == 0 {
        Some(Said::Opens)
    } else {
        None
    }
}

/// Takes note of a packet that leaves. `is_forwarded` says whether it came in before, and `is_foreign` whether by a guarded
/// interface, or goes to a group: such a one begins nothing. `is_service` says whether the socket that sends it serves.
#[inline(always)]
pub fn sent<T: Conversations + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    verdict: &Verdict,
    is_forwarded: impl Fn() -> bool,
    is_foreign: impl FnOnce() -> bool,
    is_service: impl FnOnce() -> bool,
) {
    let facts = tables.config();
    // Answers of documented services, too: they cost no state.
    if facts.flows == 0
        || !matches!(packet.shape(), Shape::Ports)
        || matches!(verdict.reason, Reason::Transit)
    {
        return;
    }
    if matches!(verdict.reason, Reason::Reply) {
        // If this generation gives way, what it answered is still no question of the host's.
        if facts.deadline != 0 && packet.protocol() == protocol::UDP && tables.may_give_way() {
            tables.note_theirs(verdict::tuple(packet, Direction::Egress).hash(facts.flow_key));
        }
        return;
    }
    let Some(said) = said(packet) else { return };
    let hashed = verdict::tuple(packet, Direction::Egress).hash(facts.flow_key);
    let own = verdict::conversation(tables, hashed);
    // A socket that has the port of what was forwarded asks for itself.
    let before = own.filter(|cell| matches!(Class::of(*cell), Class::Forwarded) && !is_forwarded());
    let own = if before.is_some() { None } else { own };
    let now = || flow::now(tables.jiffies(), facts.tick_shift);
    let lifetimes = facts.lifetimes();
    match flow::next(own, said, packet.space(), lifetimes, now) {
        Next::Same => {}
        Next::Renew(class) => tables.renew(hashed, own.unwrap_or(0), class),
        Next::Begin(class) => {
            if packet.destination().is_group() || is_foreign() {
                return;
            }
            if matches!(said, Said::Datagram) {
                let said = Datagram {
                    space: packet.space(),
                    is_documented: matches!(verdict.reason, Reason::Granted),
                    is_service: packet.space() == 1 && is_service(),
                    port: packet.source_port(),
                    peer: packet.destination(),
                    peer_port: packet.destination_port(),
                };
                if !tables.is_question(hashed, &said) {
                    return;
                }
            }
            let class = match class {
                Class::Datagrams if is_forwarded() => Class::Forwarded,
                class => class,
            };
            match before {
                Some(cell) => tables.renew(hashed, cell, class),
                None => tables.begin(hashed, class),
            }
        }
    }
}

/// A packet without handshake that leaves, as far as it matters who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// See [`Subject::space`].
    pub space: u32,
    /// Whether the policy documents that the host asks for this.
    pub is_documented: bool,
    /// Whether its socket serves: it was there, on a port of its own, before the policy at hand.
    pub is_service: bool,
    /// The host's port.
    pub port: u16,
    /// The other end.
    pub peer: Addr,
    /// Its port.
    pub peer_port: u16,
}

/// Whether a packet without handshake, of a conversation that is not known, asks something rather than answering it.
///
/// Programs that ask mostly let the kernel pick the port. From any other port, only what is documented is a question: the
/// rest is what a service says, however long ago it was asked, by whichever interface. What a service says to a port that
/// anybody may be asked at is none either, unless both ends have the same port, as time servers do among themselves.
#[inline(always)]
pub fn is_question<T: Theirs + ?Sized>(tables: &T, hashed: Hashed, said: &Datagram) -> bool {
    let own = Key::port(said.space, said.port);
    let is_client = !said.is_service
        && tables.config().is_picked(said.port)
        && tables.entry(Direction::Ingress, own).is_closed();
    if said.space == 1 && !said.is_documented && !is_client {
        return false;
    }
    // Of what is documented, a client's question is one, whoever spoke first; and so is what is said to peers that the policy
    // names.
    let asked = Key::port(said.space, said.peer_port);
    let is_asked =
        said.is_documented && (is_client || tables.entry(Direction::Egress, asked).is_restricted());
    if said.is_service && !is_asked && said.port != said.peer_port {
        return false;
    }
    // Nor is what leaves from a port that the peer may use: that needs no state.
    if !is_asked && is_theirs(tables, hashed) {
        return false;
    }
    let is_granted = verdict::is_granted(tables, own, said.peer, said.peer_port);
    if is_granted && tables.may_give_way() {
        // If this generation gives way, it is still no question of the host's.
        note(tables, hashed);
    }
    !is_granted
}

/// Whether the other end began this, and went on with it not long ago.
#[inline(always)]
pub fn is_theirs<T: Theirs + ?Sized>(tables: &T, hashed: Hashed) -> bool {
    let facts = tables.config();
    let Some(cell) = tables.theirs(hashed) else {
        return false;
    };
    let now = || flow::now(tables.jiffies(), facts.tick_shift);
    flow::is_live(cell, facts.lifetimes(), now)
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

/// Whether a packet that is let in, although nothing documents it, may begin a conversation of the other end's.
#[inline(always)]
pub fn is_begun_by_peer<T: Tables + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    verdict: &Verdict,
) -> bool {
    tables.config().flows != 0
        && verdict.reason.is_violation()
        && matches!(packet.shape(), Shape::Ports)
        && (packet.protocol() != protocol::TCP || packet.is_opening())
}

/// Takes note of such a packet.
#[inline(always)]
pub fn note_received<T: Conversations + ?Sized, S: Subject>(tables: &T, packet: &S) {
    let hashed = verdict::tuple(packet, Direction::Ingress).hash(tables.config().flow_key);
    if packet.protocol() == protocol::TCP {
        tables.end_closed(hashed);
    } else {
        tables.note_theirs(hashed);
    }
}

/// The cell of a conversation that is closed, and whose ports the other end uses again.
#[inline(always)]
pub fn closed<T: Tables + ?Sized>(tables: &T, hashed: Hashed) -> Option<u64> {
    let cell = verdict::conversation(tables, hashed)?;
    matches!(Class::of(cell), Class::Closing | Class::HalfClosed).then_some(cell)
}
