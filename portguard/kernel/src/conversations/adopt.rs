//! Takes over what was open before.

use std::path::Path;

use aya::programs::SchedClassifier;
use portguard_common::addr::Addr;
use portguard_common::conntrack::{Class, Record, Tuple, record};
use portguard_common::packet::{protocol, space};
use portguard_policy::policy::Policy;

use super::Namespace;
use super::programs::{WRITER, missing};
use crate::error::Context as _;
use crate::host::sessions::{asks_by_protocol, is_ours};
use crate::host::sockets::{Began, Session};
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
        let cookie = if session.is_tcp && by_sockets {
            session.cookie
        } else {
            0
        };
        let done = writer.write(&Record {
            set: cookie,
            ..record_of(&tuple(session), what, class)
        })?;
        if is_ours {
            match done {
                record::LOST => adopted.lost += 1,
                _ => adopted.known += 1,
            }
        }
    }
    Ok(adopted)
}

/// For records that need no conversation.
pub(super) const NOBODY: Tuple = Tuple {
    space: 0,
    local: Addr::v4(0),
    remote: Addr::v4(0),
    local_port: 0,
    remote_port: 0,
};
