//! Takes over what was open before, and forgets what closed without a program seeing it.

use std::collections::BTreeSet;
use std::path::Path;

use aya::programs::SchedClassifier;
use portguard_common::addr::Addr;
use portguard_common::conntrack::{Class, Hashed, Record, Tuple, record};
use portguard_common::packet::{protocol, space};
use portguard_policy::policy::Policy;

use super::Namespace;
use super::programs::{WRITER, missing};
use crate::error::Context as _;
use crate::host::sessions::{asks_by_protocol, is_ours};
use crate::host::sockets::{Began, Session, sessions};
use crate::record::{record_of, run};

/// What became of the sessions that were open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Begun by the host, and known now.
    pub known: usize,
    /// There was no room for these.
    pub lost: usize,
    /// Begun by other ends.
    pub theirs: usize,
}

/// What writes to the tables.
pub(super) struct Writer {
    program: SchedClassifier,
}

impl Writer {
    pub(super) fn open(directory: &Path) -> crate::Result<Self> {
        let pin = directory.join(WRITER);
        let program = SchedClassifier::from_pin(&pin)
            .with_context(|| format!("cannot open `{}`", pin.display()))?;
        Ok(Self { program })
    }

    pub(super) fn write(&mut self, record: &Record) -> crate::Result<u32> {
        run(&mut self.program, record).context("cannot write the table of conversations")
    }
}

/// The conversation of a session.
pub(crate) fn tuple(session: &Session) -> Tuple {
    Tuple {
        space: space(if session.is_tcp {
            protocol::TCP
        } else {
            protocol::UDP
        }),
        local: session.local.ip().into(),
        remote: session.remote.ip().into(),
        local_port: session.local.port(),
        remote_port: session.remote.port(),
    }
}

impl Namespace {
    /// Makes sessions known as those are that were open when this state was made.
    ///
    /// # Errors
    /// If the tables cannot be written.
    pub fn adopt(&self, policy: &Policy, sessions: &[Session]) -> crate::Result<Adopted> {
        all(self, policy, sessions)
    }
}

/// Takes over sessions: what the host began is known from now on, and of what other ends began without a handshake that
/// they did. Neither depends on the mode, nor on what is documented inbound.
pub(super) fn all(
    namespace: &Namespace,
    policy: &Policy,
    sessions: &[Session],
) -> crate::Result<Adopted> {
    let mut writer = Writer::open(namespace.directory())?;
    let by_sockets = missing(namespace.directory()).is_none();
    let mut adopted = Adopted::default();
    for session in sessions {
        let is_ours = is_ours(session, policy);
        let class = match (session.is_tcp, by_sockets) {
            (false, _) => Class::Datagrams,
            (true, true) => Class::Socket,
            (true, false) => Class::Packets,
        };
        let what = if is_ours {
            record::OURS
        } else {
            record::THEIRS
        };
        if !is_ours {
            if session.began == Began::Picked || asks_by_protocol(session, policy) {
                continue;
            }
            adopted.theirs += 1;
            if session.is_tcp {
                continue;
            }
        }
        let done = writer.write(&record_of(&tuple(session), what, class))?;
        if is_ours {
            match done {
                record::LOST => adopted.lost += 1,
                _ => adopted.known += 1,
            }
        }
    }
    Ok(adopted)
}

/// Units of time that a cell must be old before it is missed: who opened it may not have been listed yet.
const YOUNG: u64 = 30;

/// Removes conversations of sockets that are not there any more. A program sees every close but those of sockets that were
/// open before it came.
pub(super) fn forget_closed(namespace: &Namespace) -> crate::Result<usize> {
    let mut missed = missed(namespace)?;
    if missed.is_empty() {
        return Ok(0);
    }
    // A list of sockets that changes while it is read may lack one: who is missed twice is gone.
    let again = self::missed(namespace)?;
    missed.retain(|cell| again.contains(cell));
    let mut writer = Writer::open(namespace.directory())?;
    let mut removed = 0;
    for (set, cell) in missed {
        let record = Record {
            set: u64::from(set),
            cell,
            ..record_of(&NOBODY, record::REMOVE, Class::Socket)
        };
        removed += usize::from(writer.write(&record)? == record::DONE);
    }
    Ok(removed)
}

/// For records that need no conversation.
pub(super) const NOBODY: Tuple = Tuple {
    space: 0,
    local: Addr::v4(0),
    remote: Addr::v4(0),
    local_port: 0,
    remote_port: 0,
};

/// Cells of sockets that no socket has, with their sets.
fn missed(namespace: &Namespace) -> crate::Result<Vec<(u32, u64)>> {
    let old = namespace.of_sockets(YOUNG)?;
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let there: BTreeSet<(u32, u64)> = sessions()?
        .iter()
        .filter(|session| session.is_tcp)
        .map(|session| {
            let Hashed { set, tag } = tuple(session).hash(namespace.key());
            (set & (namespace.sets() - 1), tag)
        })
        .collect();
    Ok(old
        .into_iter()
        .filter(|(set, cell)| !there.contains(&(*set, portguard_common::conntrack::tag(*cell))))
        .collect())
}
