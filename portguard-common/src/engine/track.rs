//! Who began a conversation: what the tables of conversations learn from a packet that leaves, and from one that is let in.
//!
//! TCP and SCTP begin with an opening that leaves, and what comes midway begins nothing. What has no handshake is begun by whoever
//! speaks first: undocumented datagrams that are let in are noted as the other end's, and answers to them begin nothing.

use crate::engine::config::Config;
use crate::engine::conntrack::{self as flow, Class, Hashed, Lifetimes, Next, Said, Tuple};
use crate::engine::reason::{Direction, Reason};
use crate::engine::tables::{Key, Tables};
use crate::engine::verdict;
use crate::wire::addr::Addr;
use crate::wire::packet::{Shape, Subject, protocol, tcp};

/// The tables of conversations, to be written. In the kernel each of these is a function of its own, which the verifier sees
/// once.
pub trait Conversations: Tables {
    /// Writes a conversation of the host in place of the cell that it has.
    fn renew(&self, hashed: Hashed, own: u64, class: Class);
    /// Writes one that was not known.
    fn begin(&self, hashed: Hashed, class: Class);
    /// See [`note`].
    fn note_theirs(&self, hashed: Hashed) -> bool;
    /// Ends what is [`closed`].
    fn end_closed(&self, hashed: Hashed);
}

/// The table of conversations that other ends began.
pub trait Theirs: Tables {
    /// The cell of a tuple.
    fn theirs(&self, hashed: Hashed) -> Option<u64>;
    /// Writes one, in place of the cell that it has or anew.
    fn write_theirs(&self, hashed: Hashed, own: Option<u64>);
    /// Writes down that this host asks there, in the cell that it has: see [`note`].
    fn mark_asked(&self, hashed: Hashed, own: u64);
    /// Writes down that this host spoke first, in place of the cell that it has or anew.
    fn write_first(&self, hashed: Hashed, own: Option<u64>);
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

/// Who sends a packet that leaves.
pub trait Sender {
    /// Whether it came in before.
    fn is_forwarded(&self) -> bool;
    /// Whether it may end a conversation, by a reset or a close. What came in from where it goes to may not, nor may a reset of
    /// the host's own stack, which says that no socket here has what is forwarded.
    fn may_end(&self, is_reset: bool) -> bool;
    /// Does what [`goes_on`] does.
    fn goes_on(&self, hashed: Hashed, own: u64);
    /// Whether a TCP socket of this host sends it that its program has closed, and that has something left to say.
    fn is_finishing(&self) -> bool;
    /// Whether a TCP socket of this host sends it that is followed, although the packet filter has given it other ends: then it
    /// is noted that its close ends this conversation, too.
    fn is_followed(&self) -> bool;
    /// Does what [`opens`] does. In the kernel a function of its own: it is called rarely, and needs much.
    fn opens(&self, opening: &Opening);
    /// Whether it came in from where it goes to, or as a violation by another guarded interface, goes to a group, or would be answered to a socket that did not send it: such
    /// a one begins nothing.
    fn is_foreign(&self, tuple: &Tuple) -> bool;
    /// What connection tracking has of it, for datagrams that are forwarded: see [`tracked`].
    fn tracked(&self) -> u32;
    /// What is known of the UDP socket that sends it: see [`owner`].
    fn owner(&self, tuple: &Tuple) -> u32;
    /// Notes that this socket serves.
    fn note_service(&self, tuple: &Tuple);
    /// Whether it asks in the protocol of the port that it goes to, or opens an association: see [`mod@crate::engine::question`].
    fn is_question(&self, tuple: &Tuple) -> bool;
}

/// A packet that leaves and may begin a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Its tuple.
    pub tuple: Tuple,
    /// The same, hashed.
    pub hashed: Hashed,
    /// The class that it begins with.
    pub class: Class,
    /// The cell of one of the same tuple that is over, or nobody's here, which it takes over; 0 = none.
    pub known: u64,
    /// Whether its flags do not say that it begins one, as those of TCP do.
    pub is_datagram: bool,
    /// Whether the policy documents that the host asks for this.
    pub is_documented: bool,
}

/// What is known of a UDP socket of the host's own: bits.
pub mod owner {
    /// There is one.
    pub const FOUND: u32 = 1;
    /// Its program asked for its port.
    pub const ASKED: u32 = 2;
    /// The kernel picked its port. Neither: the kernel does not say.
    pub const PICKED: u32 = 4;
    /// It was there before an interface was guarded, or answers strangers: a service, if its program asked for its port.
    pub const WAS_THERE: u32 = 8;
    /// Its port was open: a service.
    pub const WAS_OPEN: u32 = 16;
    /// Above this many bits: the time at which that was noted, as [`crate::engine::conntrack::now`] has it.
    pub const NOTED: u32 = 8;
}

/// What connection tracking has of a packet: the low bits; and above [`tracked::PORT`] bits, if it asks, the port of the end
/// behind this host, as that has it itself; 0 = not known.
pub mod tracked {
    /// Nothing.
    pub const NO: u32 = 0;
    /// It is of the end that spoke first.
    pub const ASKS: u32 = 1;
    /// It answers.
    pub const ANSWERS: u32 = 2;
    /// Bits of one of those.
    pub const STATE: u32 = 3;
    /// Bits below the port.
    pub const PORT: u32 = 16;
}

/// Whether a packet that leaves for a `reason` says anything of a conversation. Answers of documented services do, too, but they
/// cost no state.
#[inline(always)]
pub fn is_noted<T: Tables + ?Sized, S: Subject>(tables: &T, packet: &S, reason: Reason) -> bool {
    tables.config().flows != 0
        && matches!(packet.shape(), Shape::Ports)
        && !matches!(reason, Reason::Transit)
}

/// Takes note of a packet that leaves for a `reason`.
#[inline(always)]
pub fn sent<T: Conversations + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    reason: Reason,
    sender: &impl Sender,
) {
    if !is_noted(tables, packet, reason) {
        return;
    }
    let facts = tables.config();
    if matches!(reason, Reason::Reply) {
        // If this generation gives way, what it answered is still no question of the host's.
        if facts.deadline != 0 && packet.protocol() == protocol::UDP && tables.may_give_way() {
            tables.note_theirs(verdict::tuple(packet, Direction::Egress).hash(facts.flow_key));
        }
        return;
    }
    let Some(said) = said(packet) else { return };
    let is_reset = matches!(said, Said::Resets);
    if (is_reset || matches!(said, Said::Closes)) && !sender.may_end(is_reset) {
        return;
    }
    let tuple = verdict::tuple(packet, Direction::Egress);
    let hashed = tuple.hash(facts.flow_key);
    let own = verdict::conversation(tables, hashed);
    let now = || flow::now(tables.jiffies(), facts.tick_shift);
    let lifetimes = facts.lifetimes();
    let (class, known) = match flow::next(own, said, packet.space(), lifetimes, now) {
        Next::Same => {
            if let Some(own) = own
                && matches!(Class::of(own), Class::Closing)
            {
                sender.goes_on(hashed, own);
            }
            return;
        }
        // In place of one of the same tuple that is over: who looks for it would find that first.
        Next::Begin(class) => (class, own.unwrap_or(0)),
        // A socket that has the port of what was forwarded asks for itself.
        Next::Renew(Class::Forwarded) if !sender.is_forwarded() => {
            (Class::Datagrams, own.unwrap_or(0))
        }
        // Ports that are used again may be another socket's.
        Next::Renew(Class::Opening) => (Class::Opening, own.unwrap_or(0)),
        Next::Renew(class) => return tables.renew(hashed, own.unwrap_or(0), class),
    };
    sender.opens(&Opening {
        tuple,
        hashed,
        class,
        known,
        is_datagram: matches!(said, Said::Datagram),
        is_documented: matches!(reason, Reason::Granted),
    });
}

/// Has a conversation that ended be known for longer where its socket still sends what its program left: that takes as long as
/// the other end does.
#[inline(always)]
pub fn goes_on<T: Conversations + ?Sized>(
    tables: &T,
    hashed: Hashed,
    own: u64,
    sender: &impl Sender,
) {
    let now = flow::now(tables.jiffies(), tables.config().tick_shift);
    if flow::age(own, now) != 0 && sender.is_finishing() {
        tables.renew(hashed, own, Class::Closing);
    }
}

/// Begins a conversation with a packet that leaves, if it is a question.
#[inline(always)]
pub fn opens<T: Conversations + Theirs + ?Sized>(
    tables: &T,
    opening: &Opening,
    sender: &impl Sender,
) {
    if let Some(class) = opens_as(tables, opening, sender) {
        begins(tables, opening.hashed, opening.known, class);
    }
}

/// The class of the conversation that a packet begins, if it begins one.
#[inline(always)]
pub fn opens_as<T: Theirs + ?Sized>(
    tables: &T,
    opening: &Opening,
    sender: &impl Sender,
) -> Option<Class> {
    let Opening { tuple, hashed, .. } = *opening;
    if tuple.remote.is_group() || sender.is_foreign(&tuple) {
        return None;
    }
    if opening.is_datagram {
        let said = Datagram::of(opening, sender, tables.config());
        match asks(tables, hashed, &said, || sender.is_question(&tuple)) {
            asks::NO => return None,
            asks::REFUSED => {
                if let Some(own) = tables.theirs(hashed) {
                    tables.mark_asked(hashed, own);
                }
                return None;
            }
            asks::ANSWERS => {
                sender.note_service(&tuple);
                return None;
            }
            asks::FIRST => {
                note_first(tables, hashed);
                return None;
            }
            _ => {}
        }
    }
    let class = opening.class;
    Some(
        if matches!(class, Class::Datagrams) && sender.is_forwarded() {
            Class::Forwarded
        } else if matches!(class, Class::Opening) && sender.is_followed() {
            Class::Socket
        } else {
            class
        },
    )
}

/// Writes a conversation that begins, in place of what is `known` of its tuple; 0 = nothing.
#[inline(always)]
pub fn begins<T: Conversations + ?Sized>(tables: &T, hashed: Hashed, known: u64, class: Class) {
    if known != 0 {
        tables.renew(hashed, known, class);
    } else {
        tables.begin(hashed, class);
    }
}

/// A packet of UDP or SCTP that leaves, as far as it matters who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and most combinations occur"
)]
pub struct Datagram {
    /// See [`Subject::space`].
    pub space: u32,
    /// Whether the policy documents that the host asks for this.
    pub is_documented: bool,
    /// Whether the kernel picked the port, as it does for programs that ask.
    pub is_picked: bool,
    /// Whether its socket serves.
    pub is_service: bool,
    /// Whether it is forwarded.
    pub is_forwarded: bool,
    /// If so, what connection tracking has of it: see [`tracked`].
    pub tracked: u32,
    /// The port of who sends it, before the packet filter gave it another.
    pub sender_port: u16,
    /// Whether it spoke first, where the kernel does not let that port be read.
    pub is_first: bool,
    /// When that was noted: see [`owner::NOTED`].
    pub noted: u32,
    /// The host's port.
    pub port: u16,
    /// The other end.
    pub peer: Addr,
    /// Its port.
    pub peer_port: u16,
}

impl Datagram {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits are left")]
    fn of(opening: &Opening, sender: &impl Sender, config: &Config) -> Self {
        let tuple = &opening.tuple;
        let port = tuple.local_port;
        let is_forwarded = sender.is_forwarded();
        let (known, tracked) = match (tuple.space, is_forwarded) {
            (1, false) => (sender.owner(tuple), tracked::NO),
            (1, true) => (0, sender.tracked()),
            _ => (0, tracked::NO),
        };
        let sender_port = match tracked >> tracked::PORT {
            0 => port,
            port => port as u16,
        };
        let is_picked = is_picked(config, sender_port, known);
        Self {
            space: tuple.space,
            is_documented: opening.is_documented,
            is_picked,
            is_service: known & owner::WAS_OPEN != 0 || known & owner::WAS_THERE != 0 && !is_picked,
            is_forwarded,
            tracked: tracked & tracked::STATE,
            sender_port,
            is_first: tracked == tracked::ASKS,
            noted: known >> owner::NOTED,
            port,
            peer: tuple.remote,
            peer_port: tuple.remote_port,
        }
    }
}

/// Units of time after which what a socket says is no more the answer to what it heard: before there was a guard, or last.
const SETTLED: u32 = 2;

/// Whether a UDP socket that speaks serves by this policy, which has lapsed: its program asked for a port that is open. Whom it
/// heard by that is a stranger to the policy before.
#[inline(always)]
pub fn served<T: Tables + ?Sized>(tables: &T, port: u16, known: u32) -> bool {
    !is_picked(tables.config(), port, known)
        && !tables
            .entry(Direction::Ingress, Key::port(1, port))
            .is_closed()
}

/// Whether the kernel picked a port. Where it does not say, the number does.
#[inline(always)]
const fn is_picked(config: &Config, port: u16, known: u32) -> bool {
    if known & (owner::ASKED | owner::PICKED) == 0 {
        config.is_picked(port)
    } else {
        known & owner::PICKED != 0
    }
}

/// What a packet without handshake is, of a conversation that is not known.
pub mod asks {
    /// No question.
    pub const NO: u32 = 0;
    /// A question, which begins a conversation.
    pub const YES: u32 = 1;
    /// An answer to who was let in although nothing documents it.
    pub const ANSWERS: u32 = 2;
    /// As a question it would be one, but the other end spoke first.
    pub const REFUSED: u32 = 3;
    /// No question by this policy; but a socket of this host spoke first, so that what comes back is an answer.
    pub const FIRST: u32 = 4;
}

/// Whether a packet of UDP or SCTP, of a conversation that is not known, asks something rather than answering it: see
/// [`mod@asks`].
///
/// Programs that ask mostly let the kernel pick the port. From any other port, only what is documented is a question: the
/// rest is what a service says, however long ago it was asked, by whichever interface. Where the policy does not name whom
/// the host asks, whoever spoke first of the two asks, and what a service says is no question, unless its protocol says so
/// ([`mod@crate::engine::question`]). Where both ends have the port of that protocol, as resolvers and time servers have
/// among themselves, that alone decides.
///
/// What is forwarded has no socket here, and its port may be the packet filter's choice. Connection tracking knows the port
/// that its sender has itself: that is judged as the host's own would be by its number, and what answers asks nothing.
#[inline(always)]
pub fn asks<T: Theirs + ?Sized>(
    tables: &T,
    hashed: Hashed,
    said: &Datagram,
    is_question: impl Fn() -> bool,
) -> u32 {
    let config = tables.config();
    let is_answer = said.tracked == tracked::ANSWERS;
    // A port that is published, or was ever open, is a service's, whoever connection tracking takes for the first.
    let is_served = (said.is_forwarded || !said.is_picked) && tables.is_served(said.sender_port);
    let is_service = said.is_service || is_answer || is_served;
    let is_picked = said.is_picked && !is_answer;
    let own = Key::port(said.space, said.port);
    let may_be_free = !is_service && tables.entry(Direction::Ingress, own).is_closed();
    // So is one that is open by this policy, or was until its rows ended, where a program asked for it.
    #[expect(
        clippy::needless_bitwise_bool,
        reason = "a branch is another path for a verifier"
    )]
    let is_service = is_service | (!may_be_free & !said.is_forwarded & !said.is_picked);
    let is_client = may_be_free && is_picked;
    // Of what is documented, a client's question is one, whoever spoke first; and so is what is said to peers that the policy
    // names.
    let asked = Key::port(said.space, said.peer_port);
    let is_asked = said.is_documented
        && (is_client && !said.is_forwarded
            || tables.entry(Direction::Egress, asked).is_restricted());
    if said.space != 1 {
        // An association is opened by its first packet, as with TCP, and what comes midway begins nothing.
        if !is_question() {
            return asks::NO;
        }
    } else if !is_asked {
        let is_free = is_client || may_be_free && said.is_first;
        let is_question = (!is_free || said.is_forwarded) && said.is_documented && is_question();
        let is_among_equals = is_question && said.port == said.peer_port;
        // Else it may be the echo of what a stranger said before there was a guard, until that has been answered.
        let is_settled = || {
            let now = flow::now(tables.jiffies(), tables.config().tick_shift);
            flow::age(said.noted.into(), now) > u64::from(SETTLED)
        };
        let may_ask = is_free
            || said.is_documented
                && (!is_service || is_among_equals || is_question && is_settled());
        // Who else has the port of a client next is somebody else. A port that a program chose keeps its program. What is
        // marked as a question is one, unless it may be the echo of what was just heard.
        let idle = if is_question {
            SETTLED
        } else if is_client {
            config.udp_idle
        } else {
            config.tcp_idle
        };
        if !is_among_equals && is_theirs(tables, hashed, idle) {
            return if is_client || is_question {
                asks::REFUSED
            } else if !may_ask && !is_picked && !is_service {
                asks::ANSWERS
            } else {
                asks::NO
            };
        }
        if !may_ask {
            let may_be_client = !said.is_forwarded && !is_service;
            return if may_be_client { asks::FIRST } else { asks::NO };
        }
    }
    // What leaves from a port that the peer may use needs no state.
    let is_granted = verdict::is_granted(tables, own, said.peer, said.peer_port);
    if is_granted && tables.may_give_way() {
        // If this generation gives way, it is still no question of the host's.
        note(tables, hashed);
    }
    if is_granted { asks::NO } else { asks::YES }
}

/// Whether the other end began this, and went on with it less than so many units ago.
#[inline(always)]
pub fn is_theirs<T: Theirs + ?Sized>(tables: &T, hashed: Hashed, idle: u32) -> bool {
    let facts = tables.config();
    let Some(cell) = tables.theirs(hashed).filter(|cell| !is_first(*cell)) else {
        return false;
    };
    let now = || flow::now(tables.jiffies(), facts.tick_shift);
    let lifetimes = Lifetimes {
        udp_idle: idle,
        ..facts.lifetimes()
    };
    flow::is_live(cell, lifetimes, now)
}

/// Notes that the other end began this, or goes on with it. A late answer to what the host asked is nothing of that: says whether
/// it is none. What comes where the host asks by itself may be its answer, and keeps nothing.
#[inline(always)]
pub fn note<T: Theirs + ?Sized>(tables: &T, hashed: Hashed) -> bool {
    if verdict::conversation(tables, hashed).is_some() {
        return false;
    }
    let own = tables.theirs(hashed);
    let config = tables.config();
    let now = flow::now(tables.jiffies(), config.tick_shift);
    let stays = |cell: u64| {
        let age = flow::age(cell, now);
        let is_ours = is_asked(cell) || is_first(cell);
        age == 0 || is_ours && age <= u64::from(config.udp_idle)
    };
    if !own.is_some_and(stays) {
        tables.write_theirs(hashed, own);
    }
    true
}

/// The cell of what the other end began, and where the host asks, too.
#[inline(always)]
pub const fn asked(cell: u64) -> u64 {
    flow::cell(flow::tag(cell), Class::Forwarded, cell)
}

/// Whether it is such a cell.
#[inline(always)]
const fn is_asked(cell: u64) -> bool {
    matches!(Class::of(cell), Class::Forwarded)
}

/// Whether a cell is one of this host's, which spoke first.
#[inline(always)]
const fn is_first(cell: u64) -> bool {
    matches!(Class::of(cell), Class::Closing)
}

/// Notes that a socket of this host spoke first, unless the other end is known to have.
#[inline(always)]
fn note_first<T: Theirs + ?Sized>(tables: &T, hashed: Hashed) {
    let own = tables.theirs(hashed);
    let now = flow::now(tables.jiffies(), tables.config().tick_shift);
    if own.is_none_or(|cell| is_first(cell) && flow::age(cell, now) != 0) {
        tables.write_first(hashed, own);
    }
}

/// As [`is_theirs`] has it: what was let in as a violation and leaves again was noted the moment before.
pub const JUST_NOW: u32 = 1;

/// Whether a packet that is let in, although nothing documents it, may begin a conversation of the other end's.
#[inline(always)]
pub fn is_begun_by_peer<T: Tables + ?Sized, S: Subject>(
    tables: &T,
    packet: &S,
    reason: Reason,
) -> bool {
    tables.config().flows != 0
        && reason.is_violation()
        && matches!(packet.shape(), Shape::Ports)
        && (packet.protocol() == protocol::UDP || packet.is_opening())
}

/// Takes note of a packet that is let in for a `reason`.
#[inline(always)]
pub fn received<T: Conversations + ?Sized, S: Subject>(tables: &T, packet: &S, reason: Reason) {
    if is_begun_by_peer(tables, packet, reason) {
        note_received(tables, packet);
    }
}

/// Takes note of a packet that [`is_begun_by_peer`].
#[inline(always)]
pub fn note_received<T: Conversations + ?Sized, S: Subject>(tables: &T, packet: &S) {
    let tuple = verdict::tuple(packet, Direction::Ingress);
    let hashed = tuple.hash(tables.config().flow_key);
    if packet.protocol() == protocol::TCP {
        tables.end_closed(hashed);
    }
    tables.note_theirs(hashed);
}

/// The cell of a conversation that is closed, and whose ports the other end uses again.
#[inline(always)]
pub fn closed<T: Tables + ?Sized>(tables: &T, hashed: Hashed) -> Option<u64> {
    let cell = verdict::conversation(tables, hashed)?;
    matches!(Class::of(cell), Class::Closing | Class::HalfClosed).then_some(cell)
}
