//! What one host does: fetch, verify, compile for itself, watch, and enforce when its turn and its own evidence let it.
//!
//! The store can hold a host back, and nothing else: what is enforced was signed, compiles here to what was signed, was
//! watched here for as long as was signed, and is confirmed only through a connection that was made under it.

mod disk;
mod fetch;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use disk::{Disk, Kept};
pub use fetch::Documents;
pub use report::Beat;

use crate::release::{Closing, Gate, HostEntry, Manifest, Refused, Trust};
use crate::rollout::{Hold, Phase, Position};
use crate::status::{HostKey, State};
use crate::store::{Snapshot, Store, StoreError};
use crate::{layout, now};

/// The host's own guard.
pub trait Guard: Send {
    /// Compiles the site's documents for this host: the digest of its policy by interface. `audit`: with everything in
    /// audit, whatever the site says.
    fn compile(
        &mut self,
        documents: &Documents,
        audit: bool,
    ) -> impl Future<Output = Result<BTreeMap<String, String>, String>> + Send;

    /// What is in force now.
    fn in_force(&mut self) -> impl Future<Output = Result<InForce, String>> + Send;

    /// Watches by these documents, and drops nothing.
    fn audit(&mut self, documents: &Documents) -> impl Future<Output = Result<(), String>> + Send;

    /// What speaks for and against enforcing them, by what was seen here.
    fn judge(
        &mut self,
        documents: &Documents,
        gate: &Gate,
    ) -> impl Future<Output = Result<Judgement, String>> + Send;

    /// Enforces them; unless confirmed in time, the kernel goes back by itself.
    fn enforce(
        &mut self,
        documents: &Documents,
        within: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Makes final what is enforced.
    fn confirm(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// What is worth sending of what enforcing would drop, by interface.
    fn evidence(&mut self) -> impl Future<Output = BTreeMap<String, String>> + Send {
        async { BTreeMap::new() }
    }
}

/// What the kernel does now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InForce {
    /// Digest by interface; empty if nothing is guarded.
    pub digests: BTreeMap<String, String>,
    /// Whether anything enforces.
    pub enforces: bool,
    /// Whether it was not confirmed yet.
    pub is_unconfirmed: bool,
    /// Whether it was not confirmed in time: what was in force before is what judges packets.
    pub has_lapsed: bool,
    /// Packets dropped, or that would have been.
    pub violations: u64,
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
    /// What the documents close that is open now.
    pub closes: Vec<String>,
    /// Everything else that speaks against it.
    pub against: Vec<String>,
}

impl Judgement {
    /// Why not, by the gate that was signed.
    fn refusal(&self, gate: &Gate) -> Option<String> {
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
            return Some(format!(
                "would drop {} flows that are not accepted, {} allowed",
                self.would_drop, gate.would_drop
            ));
        }
        if gate.closing == Closing::Refuse && !self.closes.is_empty() {
            return Some(format!(
                "closes what is open now: {}",
                self.closes.join("; ")
            ));
        }
        self.against.first().cloned()
    }
}

/// Who this host is.
#[derive(Debug)]
pub struct Identity {
    /// Its name in the inventory.
    pub host: String,
    /// Its key.
    pub key: HostKey,
    /// Where it keeps what it has.
    pub directory: PathBuf,
    /// Version of the tool.
    pub tool: String,
}

/// A host of the fleet.
#[derive(Debug)]
pub struct Agent<S, G> {
    identity: Identity,
    store: S,
    guard: G,
    disk: Disk,
    trust: Trust,
    kept: Kept,
    /// The release that this host goes by.
    current: Option<Current>,
    state: State,
    since: u64,
    why: String,
    judged: Judgement,
    reported: report::Reported,
    /// The serial that could not be believed, so that it is not fetched again and again.
    refused: Option<(u64, String)>,
}

/// A release that is believed and on the disk.
#[derive(Debug, Clone)]
struct Current {
    manifest: Manifest,
    documents: Documents,
    /// What it compiles to here, as the site has it and in audit.
    digests: BTreeMap<String, String>,
    audit_digests: BTreeMap<String, String>,
}

impl Current {
    fn entry(&self) -> &HostEntry {
        &self.documents.entry
    }
}

impl<S: Store, G: Guard> Agent<S, G> {
    /// A host as it was left: what is on the disk is checked again, as if it came from the store.
    ///
    /// # Errors
    /// If the disk cannot be read, or has nothing that says which keys to trust.
    pub async fn begin(
        identity: Identity,
        store: S,
        guard: G,
        trust: Trust,
    ) -> Result<Self, String> {
        let disk = Disk::open(&identity.directory)?;
        let trust = disk.trust()?.unwrap_or(trust);
        let kept = disk.kept()?;
        let mut agent = Self {
            identity,
            store,
            guard,
            disk,
            trust,
            kept,
            current: None,
            state: State::Pending,
            since: now(),
            why: String::new(),
            judged: Judgement::default(),
            reported: report::Reported::default(),
            refused: None,
        };
        if let Some((serial, _)) = agent.trust.seen.clone() {
            match agent.recall(serial) {
                Ok((manifest, documents)) => agent.verify(manifest, documents).await,
                Err(why) => tracing::warn!(
                    serial,
                    "the release on the disk: {why}; it is fetched again"
                ),
            }
        }
        Ok(agent)
    }

    /// Where the host is.
    pub fn state(&self) -> (State, &str) {
        (self.state, &self.why)
    }

    /// The store, for the loop around.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The guard, for tests and for the loop around.
    pub fn guard(&mut self) -> &mut G {
        &mut self.guard
    }

    /// The keys to watch.
    pub fn keys(&self) -> Vec<String> {
        vec![
            layout::HEAD.to_owned(),
            layout::POSITION.to_owned(),
            layout::hold(&self.identity.host),
        ]
    }

    /// Does what is to be done by what the store says now, and reports. Called when something changed, and now and then.
    ///
    /// # Errors
    /// If the store is gone; what is in force stays in force.
    pub async fn step(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let value = |index: usize| snapshot.get(index).and_then(Option::as_ref);
        let head =
            value(0).and_then(|entry| std::str::from_utf8(&entry.value).ok()?.trim().parse().ok());
        let position: Option<Position> =
            value(1).and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let hold: Option<Hold> =
            value(2).and_then(|entry| serde_json::from_slice(&entry.value).ok());
        if let Some(serial) = head {
            self.follow(serial).await?;
        }
        let serial = self.current.as_ref().map(|current| current.manifest.serial);
        let position = position.filter(|position| Some(position.serial) == serial);
        let hold = hold.filter(|hold| hold.is_in_force(now()));
        self.act(position.as_ref(), hold.as_ref()).await;
        self.report().await
    }

    /// Without the store: what was begun is watched, and nothing new begins.
    pub async fn alone(&mut self, why: &str) {
        self.settle_unconfirmed().await;
        self.why = format!("the store does not answer: {why}");
    }

    fn enter(&mut self, state: State, why: impl Into<String>) {
        let why = why.into();
        if self.state != state {
            tracing::info!(state = state.name(), %why, "fleet");
            self.since = now();
        }
        self.state = state;
        self.why = why;
    }

    /// Takes in the release that is the head, if it is another.
    async fn follow(&mut self, serial: u64) -> Result<(), StoreError> {
        let is_here = self
            .current
            .as_ref()
            .is_some_and(|current| current.manifest.serial == serial);
        if is_here && self.refused.is_none() {
            return Ok(());
        }
        if let Some((refused, why)) = self.refused.clone()
            && refused == serial
        {
            self.enter(State::Failed, why);
            return Ok(());
        }
        self.refused = None;
        match self.fetch(serial).await? {
            Ok((manifest, documents)) => {
                self.enter(State::Fetched, "");
                self.judged = Judgement::default();
                self.verify(manifest, documents).await;
            }
            Err(refused) => {
                let is_passing = matches!(refused, Refused::Object(_) | Refused::Chain(..));
                let why = refused.to_string();
                tracing::error!(serial, "{why}; what was in force still is");
                self.enter(State::Failed, why.clone());
                // A document that is not there yet may come; a signature does not become right.
                if !is_passing {
                    self.refused = Some((serial, why));
                }
            }
        }
        Ok(())
    }

    /// Compiles, and compares with what was signed.
    async fn verify(&mut self, manifest: Manifest, documents: Documents) {
        let serial = manifest.serial;
        let verdict = match self.guard.compile(&documents, false).await {
            Ok(digests) if digests == documents.entry.digests => self
                .guard
                .compile(&documents, true)
                .await
                .map(|audit| (digests, audit)),
            Ok(digests) => Err(format!(
                "compiles to another policy here than was signed: {digests:?}, expected {:?}",
                documents.entry.digests
            )),
            Err(why) => Err(format!("does not compile: {why}")),
        };
        match verdict {
            Ok((digests, audit_digests)) => {
                self.current = Some(Current {
                    manifest,
                    documents,
                    digests,
                    audit_digests,
                });
                self.enter(State::Verified, "");
            }
            Err(why) => {
                tracing::error!(serial, "{why}; what was in force still is");
                self.enter(State::Failed, why.clone());
                self.refused = Some((serial, why));
            }
        }
    }

    async fn act(&mut self, position: Option<&Position>, hold: Option<&Hold>) {
        self.settle_unconfirmed().await;
        if self.refused.is_some() {
            return;
        }
        let Some(current) = self.current.clone() else {
            return;
        };
        if let Some(hold) = hold {
            self.enter(State::Held, format!("{}: {}", hold.by, hold.because));
            return;
        }
        let serial = current.manifest.serial;
        if self.kept.reverted == Some(serial) {
            self.enter(State::Reverted, self.kept.reverted_why.clone());
            return;
        }
        let result = if position.is_some_and(|position| position.phase == Phase::RollingBack) {
            self.roll_back(&current).await
        } else {
            self.go_on(&current, position).await
        };
        if let Err(why) = result {
            self.enter(State::Failed, why);
        }
    }

    /// Towards the release.
    async fn go_on(
        &mut self,
        current: &Current,
        position: Option<&Position>,
    ) -> Result<(), String> {
        let in_force = self.guard.in_force().await?;
        let entry = current.entry();
        let is_final = in_force.digests == current.digests && in_force.enforces == entry.enforce;
        if is_final && !in_force.has_lapsed {
            if !in_force.is_unconfirmed {
                self.enter(State::Confirmed, staleness(&current.manifest));
                self.keep_in_force(current.manifest.serial)?;
            }
            return Ok(());
        }
        let is_watching = in_force.digests == current.audit_digests && !in_force.enforces;
        if !in_force.enforces && !is_watching {
            self.guard.audit(&current.documents).await?;
            self.enter(State::Audit, "begins to watch");
        }
        if !entry.enforce {
            if in_force.enforces {
                // The site was signed so; but what enforces stops to only in its turn, as everything else.
                return self.loosen(current, position).await;
            }
            self.enter(State::Confirmed, "the site has it audit");
            return self.keep_in_force(current.manifest.serial);
        }
        let gate = &current.manifest.plan.gate;
        self.judged = self.guard.judge(&current.documents, gate).await?;
        if let Some(why) = self.judged.refusal(gate) {
            self.enter(State::Audit, why);
            return Ok(());
        }
        match may(current, position) {
            Err(why) => {
                self.enter(State::Ready, why);
                Ok(())
            }
            Ok(()) => {
                self.enforce(&current.documents, gate.confirm, State::Confirmed)
                    .await
            }
        }
    }

    /// From enforce to audit, as the release was signed.
    async fn loosen(
        &mut self,
        current: &Current,
        position: Option<&Position>,
    ) -> Result<(), String> {
        if let Err(why) = may(current, position) {
            self.enter(State::Ready, why);
            return Ok(());
        }
        self.guard.audit(&current.documents).await?;
        self.enter(State::Confirmed, "the site has it audit");
        self.keep_in_force(current.manifest.serial)
    }

    /// Swaps, and confirms through a connection that was made afterwards.
    async fn enforce(
        &mut self,
        documents: &Documents,
        within: u64,
        then: State,
    ) -> Result<(), String> {
        let serial = documents.serial;
        self.kept.attempt = Some(serial);
        self.disk.keep(&self.kept)?;
        let within = Duration::from_secs(within);
        if let Err(why) = self.guard.enforce(documents, within).await {
            // Nothing was swapped: there is nothing to confirm, and nothing that went back.
            self.kept.attempt = None;
            self.disk.keep(&self.kept)?;
            return Err(why);
        }
        self.enter(State::Enforcing, "not confirmed yet");
        match self.prove().await {
            Ok(()) => {
                self.guard.confirm().await?;
                self.kept.attempt = None;
                self.keep_in_force(serial)?;
                self.kept.enforced_at = Some(now());
                self.disk.keep(&self.kept)?;
                self.enter(then, "");
            }
            Err(error) => {
                self.why = format!("cannot be confirmed yet: {error}");
            }
        }
        Ok(())
    }

    /// A new connection, something read, and something written: under the policy that is in force now.
    async fn prove(&mut self) -> Result<(), StoreError> {
        self.store.reconnect().await?;
        self.store.get(layout::HEAD).await?;
        self.report_now().await
    }

    /// What was enforced and not confirmed: confirm it if that is proven by now, or take note that the kernel went back.
    async fn settle_unconfirmed(&mut self) {
        let Some(serial) = self.kept.attempt else {
            return;
        };
        let in_force = match self.guard.in_force().await {
            Ok(in_force) => in_force,
            Err(why) => {
                self.enter(State::Failed, why);
                return;
            }
        };
        let current = self
            .current
            .clone()
            .filter(|current| current.manifest.serial == serial);
        let is_it = current
            .as_ref()
            .is_some_and(|current| in_force.digests == current.digests);
        let note = |agent: &mut Self, why: &str| {
            agent.kept.attempt = None;
            agent.kept.reverted = Some(serial);
            why.clone_into(&mut agent.kept.reverted_why);
            if let Err(error) = agent.disk.keep(&agent.kept) {
                tracing::error!("{error}");
            }
            agent.enter(State::Reverted, why);
        };
        if in_force.has_lapsed || (!in_force.is_unconfirmed && !is_it) {
            note(
                self,
                "the store could not be reached under the new policy: the kernel went back by itself",
            );
        } else if in_force.is_unconfirmed {
            self.enter(State::Enforcing, "not confirmed yet");
            if let Err(error) = self.prove().await {
                self.why = format!("cannot be confirmed yet: {error}");
                return;
            }
            match self.guard.confirm().await {
                Ok(()) => {
                    self.kept.attempt = None;
                    self.kept.enforced_at = Some(now());
                    if let Err(error) = self.disk.keep(&self.kept) {
                        tracing::error!("{error}");
                    }
                }
                Err(why) => note(self, &why),
            }
        } else {
            self.kept.attempt = None;
        }
    }

    /// To the release that this one names, and to no other; only for as long as was signed.
    async fn roll_back(&mut self, current: &Current) -> Result<(), String> {
        let Some(target) = current.manifest.rollback_to.clone() else {
            "the release names none to go back to".clone_into(&mut self.why);
            return Ok(());
        };
        let in_force = self.guard.in_force().await?;
        let is_this =
            in_force.digests == current.digests || in_force.digests == current.audit_digests;
        let serial = current.manifest.serial;
        if !is_this || self.kept.rolled_back == Some(serial) {
            let why = format!("back to release {}", target.serial);
            self.enter(State::Reverted, why);
            return Ok(());
        }
        let until = self
            .kept
            .enforced_at
            .map(|at| at.saturating_add(current.manifest.rollback_within));
        if in_force.enforces && until.is_some_and(|until| now() > until) {
            self.why = format!(
                "in force for longer than the {} s within which a rollback is obeyed: publish a release",
                current.manifest.rollback_within
            );
            return Ok(());
        }
        let (_, documents) = match self.fetch_named(&target).await {
            Ok(found) => found.map_err(|refused| refused.to_string())?,
            Err(error) => return Err(error.to_string()),
        };
        let was_enforced = self.kept.enforced_before == Some(target.serial);
        if in_force.enforces && was_enforced && documents.entry.enforce {
            let within = current.manifest.plan.gate.confirm;
            self.enforce(&documents, within, State::Reverted).await?;
        } else {
            self.guard.audit(&documents).await?;
        }
        self.kept.rolled_back = Some(serial);
        self.disk.keep(&self.kept)?;
        self.enter(
            State::Reverted,
            format!("back to release {}", target.serial),
        );
        Ok(())
    }

    fn keep_in_force(&mut self, serial: u64) -> Result<(), String> {
        if self.kept.in_force == Some(serial) {
            return Ok(());
        }
        self.kept.enforced_before = self.kept.in_force;
        self.kept.in_force = Some(serial);
        self.disk.keep(&self.kept)?;
        self.disk.prune(&[Some(serial), self.kept.enforced_before])
    }
}

/// Whether it is this host's turn: by the position, and by what was signed about time.
fn may(current: &Current, position: Option<&Position>) -> Result<(), String> {
    let manifest = &current.manifest;
    let entry = current.entry();
    let position = position.ok_or("waits: there is no position for this release")?;
    if !position.lets(entry.wave, entry.turn) {
        return Err(format!(
            "waits for its turn: the rollout is {}",
            position.phase.name()
        ));
    }
    let earliest = manifest
        .issued
        .saturating_add(manifest.plan.earliest(entry.wave));
    let now = now();
    if now < earliest {
        return Err(format!(
            "waits: its wave begins in {} s at the earliest",
            earliest - now
        ));
    }
    Ok(())
}

fn staleness(manifest: &Manifest) -> String {
    if manifest.valid_until <= now() {
        "the release is no longer valid: publish a new one".to_owned()
    } else {
        String::new()
    }
}
