//! Towards the release: watch, judge, enforce, and confirm through a connection that was made afterwards.

use std::time::Duration;

use super::{Agent, Current, Documents, Guard, InForce};
use crate::release::Manifest;
use crate::rollout::{Hold, Phase, Position};
use crate::status::State;
use crate::store::{Store, StoreError};
use crate::{layout, now};

impl<S: Store, G: Guard> Agent<S, G> {
    pub(super) async fn act(&mut self, position: Option<&Position>, hold: Option<&Hold>) {
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
        let result = match position {
            Some(position) if position.phase == Phase::RollingBack => {
                self.roll_back(&current, position).await
            }
            _ => self.go_on(&current, position).await,
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
        let in_force = self.in_force().await?;
        let entry = current.entry();
        let is_final = in_force.digests == current.digests && in_force.enforces == entry.enforce;
        if is_final && !in_force.has_lapsed {
            if !in_force.is_unconfirmed {
                self.enter(State::Confirmed, remark(&current.manifest, &in_force));
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
    pub(super) async fn enforce(
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
                self.settled(serial);
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
    pub(super) async fn settle_unconfirmed(&mut self) {
        let Some(serial) = self.kept.attempt else {
            return;
        };
        let in_force = match self.in_force().await {
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
                Ok(()) => self.settled(serial),
                Err(why) => note(self, &why),
            }
        } else {
            self.settled(serial);
        }
    }

    /// Of the interfaces that the release names: what else is guarded here is not the fleet's.
    pub(super) async fn in_force(&mut self) -> Result<InForce, String> {
        let current = self.current.as_ref();
        let named = current.map(|current| current.entry().digests.keys().cloned().collect());
        let named: Vec<String> = named.unwrap_or_default();
        self.guard.in_force(&named).await
    }

    /// What was tried is in force for good.
    fn settled(&mut self, serial: u64) {
        self.kept.attempt = None;
        let kept = self
            .keep_in_force(serial)
            .and_then(|()| self.disk.keep(&self.kept));
        if let Err(error) = kept {
            tracing::error!("{error}");
        }
    }

    fn keep_in_force(&mut self, serial: u64) -> Result<(), String> {
        if self.kept.in_force == Some(serial) {
            return Ok(());
        }
        self.kept.enforced_before = self.kept.in_force;
        self.kept.in_force = Some(serial);
        self.kept.enforced_at = Some(now());
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

/// What somebody should know of a host that is where it should be.
fn remark(manifest: &Manifest, in_force: &InForce) -> String {
    if manifest.valid_until <= now() {
        return "the release is no longer valid: publish a new one".to_owned();
    }
    if !in_force.others.is_empty() {
        let others = in_force.others.join(", ");
        return format!("the release does not name these, which are guarded, too: {others}");
    }
    String::new()
}
