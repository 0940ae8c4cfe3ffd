//! What a host says of itself: when something changed, and as a sign of life.

use std::time::Duration;

use super::{Agent, Guard, Identity, InForce};
use crate::status::{ALIVE_SECONDS, Alive, BEAT_SECONDS, MAX_EVIDENCE, State, Status};
use crate::store::{Store, StoreError};
use crate::{Hash, layout, now};

/// Counts alone are worth a new status only so often.
const COUNTS_SECONDS: u64 = 60;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Reported {
    status: Option<Status>,
    hash: Option<Hash>,
    beat_at: u64,
    evidence_at: u64,
    /// What was in force then, and whether it dropped anything.
    evidence_of: Option<(Option<u64>, bool)>,
}

/// A sign of life, which stands by this status, and by the one before while it is replaced.
async fn beat(
    store: &impl Store,
    identity: &Identity,
    status: &Hash,
    before: Option<Hash>,
) -> Result<(), StoreError> {
    let alive = identity.key.alive(&Alive {
        host: identity.host.clone(),
        at: now(),
        status: status.clone(),
        before,
    });
    let key = layout::alive(&identity.host);
    store.lease(&key, &alive, ALIVE_SECONDS, false).await?;
    Ok(())
}

/// How often [`Agent::step`] must be called for signs of life to be in time.
#[derive(Debug, Clone, Copy)]
pub struct Beat;

impl Beat {
    /// In seconds.
    pub const SECONDS: u64 = BEAT_SECONDS / 4;
}

impl<S: Store, G: Guard> Agent<S, G> {
    /// Asks the guard, however long it takes, and says meanwhile that this host lives: one that is slow is not silent.
    pub(super) async fn patiently<T>(&mut self, ask: impl AsyncFnOnce(&mut G) -> T) -> T {
        let Self {
            guard,
            store,
            identity,
            reported,
            ..
        } = self;
        let mut asking = std::pin::pin!(ask(guard));
        loop {
            tokio::select! {
                biased;
                done = &mut asking => return done,
                () = tokio::time::sleep(Duration::from_secs(BEAT_SECONDS)) => {}
            }
            if let (Some(status), true) = (&reported.hash, store.is_writable()) {
                let beat = beat(store, identity, status, None).await;
                if let Err(error) = beat {
                    tracing::warn!("{error}");
                }
            }
        }
    }

    pub(super) async fn report(&mut self) -> Result<(), StoreError> {
        let status = self.status().await;
        let turn = self.told.as_ref().and_then(|told| told.turn.as_ref());
        let resumed = turn.and_then(|turn| turn.resumed_at).unwrap_or(0);
        let last = self.reported.status.as_ref();
        let has_changed = last.is_none_or(|last| {
            (
                last.state,
                last.serial,
                &last.why,
                last.in_force,
                last.enforces,
            ) != (
                status.state,
                status.serial,
                &status.why,
                status.in_force,
                status.enforces,
            ) || status.at >= last.at + COUNTS_SECONDS
                || last.at < resumed
        });
        if has_changed || now() >= self.reported.beat_at + BEAT_SECONDS {
            self.say(status).await?;
        }
        self.send_evidence().await
    }

    /// Whatever was said before.
    pub(super) async fn report_now(&mut self) -> Result<(), StoreError> {
        let status = self.status().await;
        self.say(status).await
    }

    async fn say(&mut self, status: Status) -> Result<(), StoreError> {
        if !self.store.is_writable() {
            return Ok(());
        }
        let sealed = self.identity.key.status(&status);
        let hash = Hash::of(&sealed);
        let at = now();
        // First the sign of life, which stands by both while the status is replaced, wherever this host is killed meanwhile.
        let before = self.reported.hash.clone().filter(|last| *last != hash);
        beat(&self.store, &self.identity, &hash, before).await?;
        self.store
            .put(&layout::status(&self.identity.host), sealed)
            .await?;
        self.reported.status = Some(status);
        self.reported.hash = Some(hash);
        self.reported.beat_at = at;
        Ok(())
    }

    async fn status(&mut self) -> Status {
        let in_force = self.in_force().await.unwrap_or_default();
        let serial = self.refused.as_ref().map(|refused| refused.serial);
        let current = self.current.as_ref().map(|current| current.manifest.serial);
        let release = self.current.as_ref().filter(|_| serial.is_none());
        Status {
            release: release.map(|current| current.known().sha256),
            host: self.identity.host.clone(),
            serial: serial.or(current).unwrap_or_default(),
            state: self.state,
            since: self.since,
            at: now(),
            in_force: self.release_in_force(&in_force),
            enforces: self.enforces(&in_force),
            watched: self.judged.watched,
            packets: self.judged.packets,
            would_drop: self.judged.would_drop,
            violations: in_force.violations,
            drift: 0,
            tool: self.identity.tool.clone(),
            why: self.why.clone(),
        }
    }

    /// Whether anything is dropped now: where the kernel went back, by what it went back to.
    fn enforces(&self, in_force: &InForce) -> bool {
        if !in_force.has_lapsed {
            return in_force.enforces;
        }
        let serial = self.kept.in_force;
        let known = serial.and_then(|serial| self.kept.known.get(&serial));
        known.is_some_and(|known| known.enforces)
    }

    /// What was seen, as long as anything judges packets here.
    async fn send_evidence(&mut self) -> Result<(), StoreError> {
        let judges = matches!(
            self.state,
            State::Audit | State::Ready | State::Confirmed | State::Held | State::Reverted
        );
        if !self.store.is_writable() || !judges {
            return Ok(());
        }
        let status = self.reported.status.as_ref();
        let in_force = status.map(|status| (status.in_force, status.enforces));
        let is_early = now() < self.reported.evidence_at + self.identity.evidence_seconds;
        // What was seen under another policy, or by one that only watched, says nothing of now.
        if is_early && in_force == self.reported.evidence_of {
            return Ok(());
        }
        self.reported.evidence_at = now();
        self.reported.evidence_of = in_force;
        let serial = self.current.as_ref().map(|current| current.manifest.serial);
        for mut evidence in self.guard.evidence().await {
            evidence.host.clone_from(&self.identity.host);
            evidence.serial = serial.unwrap_or_default();
            evidence.at = now();
            let sealed = self.identity.key.evidence(&evidence.fitted());
            if sealed.len() <= MAX_EVIDENCE && layout::is_name(&evidence.interface) {
                let key = layout::evidence(&self.identity.host, &evidence.interface);
                self.store.put(&key, sealed).await?;
            }
        }
        Ok(())
    }
}
