//! The host's own guard, as the fleet needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Documents;
use crate::evidence::Evidence;
use crate::release::{Closing, Gate};
use crate::text::flows;

/// The host's own guard.
pub trait Guard: Send {
    /// Compiles the site's documents for this host: the digest of its policy by interface. `audit`: with everything in
    /// audit, whatever the site says.
    fn compile(
        &mut self,
        documents: &Documents,
        audit: bool,
    ) -> impl Future<Output = Result<BTreeMap<String, String>, GuardError>> + Send;

    /// What is in force now on these interfaces; with none named, on all.
    fn in_force(
        &mut self,
        interfaces: &[String],
    ) -> impl Future<Output = Result<InForce, GuardError>> + Send;

    /// Watches by these documents on these interfaces, and drops nothing there.
    fn audit(
        &mut self,
        documents: &Documents,
        interfaces: &[String],
    ) -> impl Future<Output = Result<(), GuardError>> + Send;

    /// What speaks for and against enforcing them, by what was seen here.
    fn judge(
        &mut self,
        documents: &Documents,
        gate: &Gate,
    ) -> impl Future<Output = Result<Judgement, GuardError>> + Send;

    /// Enforces them; unless confirmed in time, the kernel goes back by itself. `cuts`: also where that ends open sessions,
    /// which nobody may hold open to keep a host as it is.
    fn enforce(
        &mut self,
        documents: &Documents,
        within: Duration,
        cuts: bool,
    ) -> impl Future<Output = Result<(), GuardError>> + Send;

    /// Makes final what is enforced on these interfaces; on all, if there are none.
    fn confirm(
        &mut self,
        interfaces: &[String],
    ) -> impl Future<Output = Result<(), GuardError>> + Send;

    /// What was seen here, an entry for each interface; who says it, and of which release, is filled in by the agent.
    fn evidence(&mut self) -> impl Future<Output = Vec<Evidence>> + Send {
        async { Vec::new() }
    }
}

/// Why the guard did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// It has not answered in time: that says nothing of what it was asked, and it is asked again.
    #[error("{0}")]
    Late(String),
    /// It cannot, or must not.
    #[error("{0}")]
    Failed(String),
}

impl From<String> for GuardError {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// What the kernel does now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InForce {
    /// Digest by interface; empty if nothing is guarded.
    pub digests: BTreeMap<String, String>,
    /// Generation by interface: every load and every rollback gives another.
    pub generations: BTreeMap<String, u64>,
    /// Whether anything enforces.
    pub enforces: bool,
    /// Whether it was not confirmed yet.
    pub is_unconfirmed: bool,
    /// Whether it was not confirmed in time: what was in force before is what judges packets.
    pub has_lapsed: bool,
    /// Packets dropped, or that would have been.
    pub violations: u64,
    /// Guarded interfaces that were not asked about.
    pub others: Vec<String>,
}

/// What speaks for and against enforcing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Seconds watched.
    pub watched: u64,
    /// Packets judged.
    pub packets: u64,
    /// Flows that would be dropped and that nobody accepted.
    pub would_drop: u64,
    /// The first of them, in words.
    pub flows: Vec<String>,
    /// What the documents close that is open now.
    pub closes: Vec<String>,
    /// Everything else that speaks against it.
    pub against: Vec<String>,
}

impl Judgement {
    /// Why not, by the gate that was signed.
    pub(super) fn refusal(&self, gate: &Gate) -> Option<String> {
        if self.watched < gate.audit {
            return Some(format!("watched for {} s of {}", self.watched, gate.audit));
        }
        if self.packets < gate.packets {
            return Some(format!(
                "judged {} packets of {}",
                self.packets, gate.packets
            ));
        }
        if self.would_drop > gate.would_drop {
            let left_off = self.would_drop > self.flows.len() as u64;
            let named = match &self.flows[..] {
                [] => String::new(),
                some if left_off => format!(": {}, ...", some.join(", ")),
                all => format!(": {}", all.join(", ")),
            };
            return Some(format!(
                "would drop {} not accepted, {} allowed{named}",
                flows(self.would_drop),
                gate.would_drop
            ));
        }
        if gate.closing == Closing::Refuse && !self.closes.is_empty() {
            return Some(format!(
                "{} (`closing = \"allow\"` in [gate] closes them all the same)",
                self.closes.join("; ")
            ));
        }
        self.against.first().cloned()
    }
}
