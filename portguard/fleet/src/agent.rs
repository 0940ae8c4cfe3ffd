//! What one host does: fetch, verify, compile for itself, watch, and enforce when its turn and its own evidence let it.
//!
//! The store can hold a host back, and nothing else: what is enforced was signed, compiles here to what was signed, was
//! watched here for as long as was signed, and is confirmed only through a connection that was made under it.

mod act;
mod back;
mod disk;
mod fetch;
mod guard;
mod report;
mod run;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use disk::{Attempt, Disk, Kept, Known};
pub use fetch::Documents;
pub use guard::{Guard, GuardError, InForce, Judgement};
pub use report::Beat;
pub use run::run;

use crate::release::{HostEntry, Manifest, Signatures, Trust};
use crate::rollout::{Hold, Position};
use crate::status::{HostKey, State};
use crate::store::{Snapshot, Store, StoreError};
use crate::{Hash, layout, now};

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
    /// How often it sends what it saw, at most: [`crate::evidence::EVERY_SECONDS`].
    pub evidence_seconds: u64,
    /// How long it waits before it looks again at what speaks against enforcing, unless it is its turn, and at a release
    /// that it refused; there each time twice as long, up to sixty-four times.
    pub retry: Duration,
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
    /// Whether the state changed since somebody asked.
    has_moved: bool,
    why: String,
    judged: Judgement,
    /// When.
    judged_at: Option<Instant>,
    reported: report::Reported,
    /// The release that this host does not go by, though it is the head.
    refused: Option<Refusal>,
    /// What the store meant for this host at the last step.
    told: Option<Meaning>,
}

/// What the store says.
struct Heard {
    head: Option<u64>,
    position: Option<Position>,
    hold: Option<Hold>,
}

impl Heard {
    fn of(snapshot: &Snapshot) -> Self {
        let value = |index: usize| Some(&snapshot.get(index)?.as_ref()?.value);
        let json = |index: usize| value(index).map(Vec::as_slice);
        Self {
            head: value(0).and_then(|head| std::str::from_utf8(head).ok()?.trim().parse().ok()),
            position: json(1).and_then(|text| serde_json::from_slice(text).ok()),
            hold: json(2).and_then(|text| serde_json::from_slice(text).ok()),
        }
    }
}

/// What that means for this host.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    head: Option<u64>,
    hold: Option<Hold>,
    turn: Option<Turn>,
}

#[derive(Debug, PartialEq, Eq)]
struct Turn {
    is_back: bool,
    order: Option<Signatures>,
    may: Result<(), String>,
    /// Since then it is to say where it is, as it may have said before.
    resumed_at: Option<u64>,
}

/// Why it is not gone by.
#[derive(Debug, Clone)]
struct Refusal {
    serial: u64,
    why: String,
    /// When it was refused first.
    since: u64,
    /// How often it was looked at.
    times: u32,
    /// What was read may have been half written, the clock wrong, this host too busy: it is looked at again then.
    again: Instant,
}

/// Twice as long each time, up to that many times.
const DOUBLINGS: u32 = 6;

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

    /// What the kernel has while it is watched.
    fn watched(&self) -> Known {
        Known {
            digests: self.audit_digests.clone(),
            enforces: false,
            ..self.known()
        }
    }

    /// What the kernel has once it is final here.
    fn known(&self) -> Known {
        let enforces = self.entry().enforce;
        let digests = if enforces {
            &self.digests
        } else {
            &self.audit_digests
        };
        Known {
            sha256: Hash::of(self.manifest.canonical().as_bytes()),
            digests: digests.clone(),
            enforces,
        }
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
            has_moved: false,
            why: String::new(),
            judged: Judgement::default(),
            judged_at: None,
            reported: report::Reported::default(),
            refused: None,
            told: None,
        };
        if let Some((serial, _)) = agent.trust.seen.clone() {
            match agent.recall(serial) {
                Ok((manifest, documents)) => agent.verify(manifest, documents, None).await,
                Err(why) => {
                    tracing::warn!(serial, "the release on the disk: {why}; fetching it again");
                }
            }
        }
        Ok(agent)
    }

    /// Where the host is.
    pub fn state(&self) -> (State, &str) {
        (self.state, &self.why)
    }

    /// Whether there is more to do soon: something changed since this was last asked, or waits to be confirmed.
    pub fn is_under_way(&mut self) -> bool {
        std::mem::take(&mut self.has_moved) || self.state == State::Enforcing
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
        let Heard {
            head,
            position,
            hold,
        } = Heard::of(snapshot);
        match (head, &self.trust.seen) {
            (Some(serial), _) => self.follow(serial).await?,
            // Nothing is written to it: it may be the directory under what is not mounted.
            (None, Some((seen, _))) => {
                return Err(StoreError::Unreachable(format!(
                    "it has no head, though release {seen} was published"
                )));
            }
            (None, None) => {}
        }
        let serial = self.current.as_ref().map(|current| current.manifest.serial);
        let position = position.filter(|position| Some(position.serial) == serial);
        let hold = hold.filter(|hold| hold.is_in_force(now()));
        self.act(position.as_ref(), hold.as_ref()).await;
        self.told = Some(self.meaning(snapshot));
        self.report().await
    }

    /// Whether what the store says now means something else for this host than it did at its last step. How far others are
    /// does not: else every host took a step for every other.
    pub fn is_concerned(&self, snapshot: &Snapshot) -> bool {
        self.told.as_ref() != Some(&self.meaning(snapshot))
    }

    /// Whether there is another release.
    fn is_news(&self, snapshot: &Snapshot) -> bool {
        let head = Heard::of(snapshot).head;
        head.is_some() && head != self.trust.seen.as_ref().map(|(serial, _)| *serial)
    }

    fn meaning(&self, snapshot: &Snapshot) -> Meaning {
        let Heard {
            head,
            position,
            hold,
        } = Heard::of(snapshot);
        let turn = self.current.as_ref().and_then(|current| {
            let position = position.filter(|one| one.serial == current.manifest.serial)?;
            Some(Turn {
                is_back: position.phase.is_back(),
                may: act::turn(current.entry(), &position),
                resumed_at: position.resumed_at,
                order: position.order,
            })
        });
        Meaning { head, hold, turn }
    }

    /// Without the store: what was begun is watched, and nothing new begins.
    pub async fn alone(&mut self, why: &str) {
        self.settle_unconfirmed().await;
        if let Err(why) = self.put_back().await {
            tracing::error!("{why}");
        }
        self.why = format!("the store does not answer: {why}");
    }

    fn enter(&mut self, state: State, why: impl Into<String>) {
        let why = why.into();
        if self.state != state {
            tracing::info!(state = state.name(), %why, "fleet");
            self.since = now();
            self.has_moved = true;
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
        let refused = self.refused.clone();
        let refused = refused.filter(|refused| refused.serial == serial);
        if let Some(refused) = &refused
            && Instant::now() < refused.again
        {
            self.enter(State::Failed, refused.why.clone());
            return Ok(());
        }
        match self.fetch(serial).await? {
            Ok((manifest, documents)) => {
                self.enter(State::Fetched, "");
                self.judged = Judgement::default();
                self.judged_at = None;
                self.verify(manifest, documents, refused).await;
            }
            Err(why) => self.refuse(serial, why.to_string(), refused),
        }
        Ok(())
    }

    /// Does not go by it; `before`: it was refused already.
    fn refuse(&mut self, serial: u64, why: String, before: Option<Refusal>) {
        tracing::error!(serial, "{why}; the policy in force stays");
        self.enter(State::Failed, why.clone());
        let times = before.as_ref().map_or(0, |before| before.times);
        // To look at it again is no new failure.
        let since = before.map_or(self.since, |before| before.since);
        self.since = since;
        let pause = self.identity.retry * (1 << times.min(DOUBLINGS));
        self.refused = Some(Refusal {
            serial,
            why,
            since,
            times: times + 1,
            again: Instant::now() + pause,
        });
    }

    /// Goes by a release, if it compiles to what was signed.
    async fn verify(&mut self, manifest: Manifest, documents: Documents, before: Option<Refusal>) {
        let serial = manifest.serial;
        match self.compiled(manifest, documents).await {
            Ok(current) => {
                self.refused = None;
                self.current = Some(current);
                self.enter(State::Verified, "");
            }
            // It is compiled again at the next step: nothing speaks against it yet.
            Err(GuardError::Late(why)) => self.is_late(&why),
            Err(GuardError::Failed(why)) => self.refuse(serial, why, before),
        }
    }

    /// What takes long is no failure: this host is where it was.
    fn is_late(&mut self, why: &str) {
        tracing::warn!("{why}; trying again");
        self.why = format!("is slow: {why}");
    }

    fn trouble(&mut self, error: GuardError) {
        match error {
            GuardError::Late(why) => self.is_late(&why),
            GuardError::Failed(why) => self.enter(State::Failed, why),
        }
    }

    /// Compiles, and compares with what was signed.
    async fn compiled(
        &mut self,
        manifest: Manifest,
        documents: Documents,
    ) -> Result<Current, GuardError> {
        let compiles = |error| match error {
            GuardError::Failed(why) => GuardError::Failed(format!("does not compile: {why}")),
            late @ GuardError::Late(_) => late,
        };
        let compiled = self
            .patiently(async |guard| {
                let digests = guard.compile(&documents, false).await?;
                Ok((digests, guard.compile(&documents, true).await?))
            })
            .await;
        let (digests, audit_digests) = compiled.map_err(compiles)?;
        if digests != documents.entry.digests {
            return Err(GuardError::Failed(format!(
                "compiles to a different policy here than the signed one: {digests:?}, expected {:?}",
                documents.entry.digests
            )));
        }
        Ok(Current {
            manifest,
            documents,
            digests,
            audit_digests,
        })
    }
}
