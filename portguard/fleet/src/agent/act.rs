//! Towards the release: watch, judge, enforce, and confirm through a connection that was made afterwards.

use std::time::{Duration, Instant};

use super::{Agent, Attempt, Current, Guard, GuardError, InForce, Known};
use crate::release::{Closing, HostEntry, Manifest, Target};
use crate::rollout::{Hold, Phase, Position};
use crate::status::State;
use crate::store::{Store, StoreError};
use crate::{layout, now};

/// How often a release is tried whose enforcing was cut short: a machine that goes down each time must not do so for ever.
const TRIES: u32 = 3;

impl<S: Store, G: Guard> Agent<S, G> {
    pub(super) async fn act(&mut self, position: Option<&Position>, hold: Option<&Hold>) {
        self.settle_unconfirmed().await;
        let result = match self.put_back().await {
            Ok(None) => return,
            Ok(Some(in_force)) => self.towards(&in_force, position, hold).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.trouble(error);
        }
    }

    async fn towards(
        &mut self,
        in_force: &InForce,
        position: Option<&Position>,
        hold: Option<&Hold>,
    ) -> Result<(), GuardError> {
        let Some(current) = self.current.clone().filter(|_| self.refused.is_none()) else {
            return Ok(());
        };
        if let Some(hold) = hold {
            self.enter(State::Held, hold.words());
            return Ok(());
        }
        if self.kept.reverted == Some(current.manifest.serial) {
            let back = match self.release_in_force(in_force) {
                Some(serial) => format!("; release {serial} is in force"),
                None => String::new(),
            };
            self.enter(State::Reverted, self.kept.reverted_why.clone() + &back);
            return Ok(());
        }
        match position {
            Some(position) if position.phase.is_back() => {
                self.roll_back(&current, in_force, position).await
            }
            _ => self.go_on(&current, in_force, position).await,
        }
    }

    /// What was final here and is gone, since the host was booted or somebody unloaded it, is in force again before anything
    /// else, also without the store: it was proven. `None`: it was, and there is more to be done at the next step.
    pub(super) async fn put_back(&mut self) -> Result<Option<InForce>, GuardError> {
        let in_force = self.in_force().await?;
        let known = self.kept.in_force.and_then(|serial| {
            let known = self.kept.known.get(&serial)?;
            Some((serial, known.clone()))
        });
        let Some((serial, known)) = known else {
            return Ok(Some(in_force));
        };
        let asked = self.named();
        let here = known
            .digests
            .iter()
            .filter(|(name, _)| asked.contains(name));
        let mut gone = here.filter(|(name, _)| !in_force.digests.contains_key(*name));
        let mut rest = in_force.digests.iter();
        let is_gone = (gone.next().is_some() || in_force.has_lapsed)
            && rest.all(|(name, digest)| known.digests.get(name) == Some(digest));
        if !is_gone || !known.enforces || self.kept.attempt.is_some() {
            return Ok(Some(in_force));
        }
        let sha256 = known.sha256;
        let current = match self.stored(&Target { serial, sha256 }) {
            Ok((manifest, documents)) => self.compiled(manifest, documents).await,
            Err(why) => Err(why.into()),
        };
        let current = match current {
            Ok(current) => current,
            Err(why) => {
                tracing::error!(
                    serial,
                    "the policy that was in force cannot be restored: {why}"
                );
                return Ok(Some(in_force));
            }
        };
        tracing::warn!(serial, "the policy in force is gone: restoring it");
        let within = current.manifest.plan.gate.confirm;
        self.swap(&current, &in_force, within, None, true).await?;
        self.confirm().await?;
        self.settled();
        Ok(None)
    }

    /// Towards the release.
    async fn go_on(
        &mut self,
        current: &Current,
        in_force: &InForce,
        position: Option<&Position>,
    ) -> Result<(), GuardError> {
        let entry = current.entry();
        let is_final = in_force.digests == current.digests && in_force.enforces == entry.enforce;
        if is_final && !in_force.has_lapsed {
            if !in_force.is_unconfirmed {
                self.enter(State::Confirmed, remark(&current.manifest, in_force));
                self.keep_in_force(current.manifest.serial, current.known())?;
            }
            return Ok(());
        }
        let is_watching = in_force.digests == current.audit_digests && !in_force.enforces;
        let named = entry.digests.keys();
        let unguarded = named.filter(|name| !in_force.digests.contains_key(*name));
        let to_watch: Vec<String> = if in_force.enforces {
            // What enforces goes on; an interface that is new in this release is watched first, as every other was.
            unguarded.cloned().collect()
        } else if is_watching {
            Vec::new()
        } else {
            entry.digests.keys().cloned().collect()
        };
        if !to_watch.is_empty() {
            self.patiently(async |guard| guard.audit(&current.documents, &to_watch).await)
                .await?;
            self.judged_at = None;
            self.enter(State::Audit, "begins to watch");
        }
        if !entry.enforce {
            if in_force.enforces {
                // The site was signed so; but what enforces stops to only in its turn, as everything else.
                return self.loosen(current, position).await;
            }
            self.enter(State::Confirmed, "the site keeps it in audit");
            return Ok(self.keep_in_force(current.manifest.serial, current.known())?);
        }
        let gate = &current.manifest.plan.gate;
        let turn = may(current, position);
        // Whose turn it is not need not look again at everything whenever another host has taken its own.
        let is_recent = |at: Instant| at.elapsed() < self.identity.retry;
        if turn.is_ok() || !self.judged_at.is_some_and(is_recent) {
            let judging = self.patiently(async |guard| guard.judge(&current.documents, gate).await);
            self.judged = judging.await?;
            self.judged_at = Some(Instant::now());
        }
        if let Some(why) = self.judged.refusal(gate) {
            self.enter(State::Audit, why);
            return Ok(());
        }
        if let Err(why) = turn {
            self.enter(State::Ready, why);
        } else if self.enforce(current, in_force, gate.confirm, None).await? {
            self.enter(State::Confirmed, "");
        }
        Ok(())
    }

    /// From enforce to audit, as the release was signed.
    async fn loosen(
        &mut self,
        current: &Current,
        position: Option<&Position>,
    ) -> Result<(), GuardError> {
        if let Err(why) = may(current, position) {
            self.enter(State::Ready, why);
            return Ok(());
        }
        self.audit(current).await?;
        self.enter(State::Confirmed, "the site keeps it in audit");
        Ok(())
    }

    /// Audits for good, as it was signed.
    pub(super) async fn audit(&mut self, current: &Current) -> Result<(), GuardError> {
        let all: Vec<String> = current.entry().digests.keys().cloned().collect();
        self.patiently(async |guard| guard.audit(&current.documents, &all).await)
            .await?;
        Ok(self.keep_in_force(current.manifest.serial, current.watched())?)
    }

    /// Swaps, and confirms through a connection that was made afterwards; whether it could.
    pub(super) async fn enforce(
        &mut self,
        current: &Current,
        in_force: &InForce,
        within: u64,
        leaves: Option<u64>,
    ) -> Result<bool, GuardError> {
        // Where the publishers want what is open to be closed, or to go back, no session is a reason not to.
        let closing = current.manifest.plan.gate.closing;
        let cuts = leaves.is_some() || closing == Closing::Allow;
        self.swap(current, in_force, within, leaves, cuts).await?;
        self.enter(State::Enforcing, "not confirmed yet");
        if let Err(error) = self.prove().await {
            self.why = format!("cannot be confirmed yet: {error}");
            return Ok(false);
        }
        self.confirm().await?;
        self.settled();
        Ok(true)
    }

    async fn swap(
        &mut self,
        current: &Current,
        in_force: &InForce,
        within: u64,
        leaves: Option<u64>,
        cuts: bool,
    ) -> Result<(), GuardError> {
        self.kept.attempt = Some(Attempt {
            serial: current.manifest.serial,
            leaves,
            known: current.known(),
            before: in_force.generations.clone(),
        });
        self.disk.keep(&self.kept)?;
        let within = Duration::from_secs(within);
        let enforcing = async |guard: &mut G| {
            let enforcing = guard.enforce(&current.documents, within, cuts);
            enforcing.await
        };
        let result = self.patiently(enforcing).await;
        let may_be_swapped = match &result {
            Ok(()) => true,
            Err(GuardError::Failed(_)) => false,
            // What was ended because it took long may have swapped all the same.
            Err(GuardError::Late(_)) => {
                let now = self.in_force().await;
                now.map_or(true, |now| now.digests == current.known().digests)
            }
        };
        if !may_be_swapped {
            // There is nothing to confirm, and nothing that went back.
            self.kept.attempt = None;
            self.disk.keep(&self.kept)?;
        }
        result
    }

    async fn confirm(&mut self) -> Result<(), GuardError> {
        let named = self.named();
        self.patiently(async |guard| guard.confirm(&named).await)
            .await
    }

    /// A new connection, something read, and something written: under the policy that is in force now.
    async fn prove(&mut self) -> Result<(), StoreError> {
        self.store.reconnect().await?;
        self.store.get(layout::HEAD).await?;
        self.report_now().await
    }

    /// What was enforced and not confirmed: confirm it if that is proven by now, or take note of what became of it.
    pub(super) async fn settle_unconfirmed(&mut self) {
        let Some(attempt) = self.kept.attempt.clone() else {
            return;
        };
        let in_force = match self.in_force().await {
            Ok(in_force) => in_force,
            Err(error) => {
                self.trouble(error);
                return;
            }
        };
        if self.was_proven(&attempt) {
            // What was final here before is put back without a word from the store, and whatever became of that is no reason
            // to give it up.
            let is_it = in_force.digests == attempt.known.digests;
            if is_it
                && in_force.is_unconfirmed
                && !in_force.has_lapsed
                && let Err(why) = self.confirm().await
            {
                self.why = format!("cannot be confirmed: {why}");
                return;
            }
            self.kept.attempt = None;
            self.note();
        } else if in_force.has_lapsed {
            self.went_back(
                &attempt,
                "the store could not be reached under the new policy: the kernel went back by itself",
            );
        } else if in_force.is_unconfirmed {
            self.enter(State::Enforcing, "not confirmed yet");
            if let Err(error) = self.prove().await {
                self.why = format!("cannot be confirmed yet: {error}");
                return;
            }
            // Too late, or whatever else it is: the kernel says at the next step what became of it.
            match self.confirm().await {
                Ok(()) => self.settled(),
                Err(why) => self.why = format!("cannot be confirmed: {why}"),
            }
        } else if in_force.digests == attempt.known.digests {
            self.settled();
        } else {
            self.not_there(&attempt, &in_force);
        }
    }

    /// Whether it is what is in force here by what was kept.
    fn was_proven(&self, attempt: &Attempt) -> bool {
        let serial = attempt.serial;
        self.kept.in_force == Some(serial) && self.kept.known.get(&serial) == Some(&attempt.known)
    }

    /// What was tried is not there: this host went down before it was swapped, or was booted anew; or somebody loaded
    /// something else.
    fn not_there(&mut self, attempt: &Attempt, in_force: &InForce) {
        let serial = attempt.serial;
        // A boot begins to count anew; whatever is loaded or rolled back counts up.
        let is_other = in_force.generations.iter().any(|(name, now)| {
            let before = attempt.before.get(name);
            before.is_some_and(|before| now > before)
        });
        if is_other {
            self.went_back(
                attempt,
                "something else was loaded here before it was confirmed",
            );
            return;
        }
        let times = match self.kept.cut_short {
            Some((same, times)) if same == serial => times + 1,
            _ => 1,
        };
        if times >= TRIES {
            let why = format!("this host went down {times} times while it was being enforced");
            self.went_back(attempt, &why);
            return;
        }
        tracing::warn!(serial, times, "enforcing was interrupted: trying again");
        self.kept.attempt = None;
        self.kept.cut_short = Some((serial, times));
        self.note();
    }

    /// It is not tried again.
    fn went_back(&mut self, attempt: &Attempt, why: &str) {
        self.kept.attempt = None;
        if attempt.leaves.is_some() {
            self.kept.not_left = attempt.leaves;
        } else {
            self.kept.reverted = Some(attempt.serial);
            why.clone_into(&mut self.kept.reverted_why);
            self.enter(State::Reverted, why);
        }
        self.note();
    }

    fn note(&self) {
        if let Err(error) = self.disk.keep(&self.kept) {
            tracing::error!("{error}");
        }
    }

    /// Of the interfaces that the release names: what else is guarded here is not the fleet's.
    pub(super) async fn in_force(&mut self) -> Result<InForce, GuardError> {
        let named = self.named();
        self.guard.in_force(&named).await
    }

    fn named(&self) -> Vec<String> {
        let current = self
            .current
            .as_ref()
            .map(|current| &current.entry().digests);
        let kept = || {
            let serial = self.kept.in_force?;
            Some(&self.kept.known.get(&serial)?.digests)
        };
        let named = current.or_else(kept);
        named.map_or_else(Vec::new, |named| named.keys().cloned().collect())
    }

    /// The release that judges packets here now, as far as the kernel's word and what was kept tell it.
    pub(super) fn release_in_force(&self, in_force: &InForce) -> Option<u64> {
        if in_force.has_lapsed {
            return self.kept.in_force;
        }
        let last = self.kept.in_force;
        let known = last.and_then(|serial| self.kept.known.get(&serial));
        if known.is_some_and(|known| known.digests == in_force.digests) {
            return last;
        }
        if let Some(current) = &self.current
            && [&current.digests, &current.audit_digests].contains(&&in_force.digests)
        {
            return Some(current.manifest.serial);
        }
        let attempt = self.kept.attempt.as_ref();
        let attempt = attempt.map(|attempt| (&attempt.serial, &attempt.known));
        let mut known = attempt.into_iter().chain(self.kept.known.iter().rev());
        known
            .find(|(_, known)| known.digests == in_force.digests)
            .map(|(serial, _)| *serial)
    }

    /// What was tried is in force for good.
    fn settled(&mut self) {
        let Some(attempt) = self.kept.attempt.take() else {
            return;
        };
        let kept = self
            .keep_in_force(attempt.serial, attempt.known)
            .and_then(|()| self.disk.keep(&self.kept));
        if let Err(error) = kept {
            tracing::error!("{error}");
        }
    }

    pub(super) fn keep_in_force(&mut self, serial: u64, known: Known) -> Result<(), String> {
        if self.kept.in_force == Some(serial) && self.kept.known.get(&serial) == Some(&known) {
            return Ok(());
        }
        if self.kept.in_force != Some(serial) {
            self.kept.enforced_before = self.kept.in_force;
            self.kept.in_force = Some(serial);
            self.kept.enforced_at = Some(now());
        }
        self.kept.known.insert(serial, known);
        let needed = [self.kept.in_force, self.kept.enforced_before];
        self.kept
            .known
            .retain(|serial, _| needed.contains(&Some(*serial)));
        self.disk.keep(&self.kept)?;
        self.disk.prune(&needed)
    }
}

/// Whether it is this host's turn: by the position, and by what was signed about time.
fn may(current: &Current, position: Option<&Position>) -> Result<(), String> {
    let manifest = &current.manifest;
    let entry = current.entry();
    let position = position.ok_or("waits: there is no position for this release")?;
    turn(entry, position)?;
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

/// Whether the position lets this host.
pub(super) fn turn(entry: &HostEntry, position: &Position) -> Result<(), String> {
    if position.lets(entry.wave, entry.turn) {
        return Ok(());
    }
    let is_running = position.phase == Phase::Running;
    Err(match position.phase.name() {
        _ if is_running && entry.wave > position.wave => "waits for its wave".to_owned(),
        _ if is_running => "waits for its turn in its wave".to_owned(),
        phase => format!("waits for its turn: the rollout is {phase}"),
    })
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
