//! Back to the release before.

use super::{Agent, Current, Guard, GuardError, InForce};
use crate::now;
use crate::release::Target;
use crate::rollout::{Position, rollback_order};
use crate::status::State;
use crate::store::Store;

impl<S: Store, G: Guard> Agent<S, G> {
    /// To the release that this one names, and to no other. Nobody but the publishers decides what a host admits: they signed
    /// the order, or that for some time none is needed; and without one only to what was in force here before.
    pub(super) async fn roll_back(
        &mut self,
        current: &Current,
        in_force: &InForce,
        position: &Position,
    ) -> Result<(), GuardError> {
        let Some(target) = current.manifest.rollback_to.clone() else {
            "the release names none to go back to".clone_into(&mut self.why);
            return Ok(());
        };
        let serial = current.manifest.serial;
        if self.kept.not_left == Some(serial) {
            return Err(GuardError::Failed(format!(
                "the rollback to release {} could not be confirmed: release {serial} is in force again",
                target.serial
            )));
        }
        let why = format!("back to release {}", target.serial);
        if self.has_in_force(&target, in_force) {
            self.enter(State::Reverted, why);
            return Ok(());
        }
        let is_this =
            in_force.digests == current.digests || in_force.digests == current.audit_digests;
        if !is_this || in_force.has_lapsed {
            let why = match self.release_in_force(in_force) {
                Some(there) if there == target.serial => format!("back to release {there}"),
                Some(there) => format!("release {there} is in force, and release {serial} is not"),
                None => format!(
                    "the policy in force here belongs to no release that this host knows, and not to {serial}"
                ),
            };
            self.enter(State::Reverted, why);
            return Ok(());
        }
        let was_here = self.kept.enforced_before == Some(target.serial);
        if in_force.enforces && !self.is_ordered(current, &target, position) {
            let within = current.manifest.rollback_within;
            let until = self.kept.enforced_at.map(|at| at.saturating_add(within));
            if within == 0 || until.is_none_or(|until| now() > until) {
                "a rollback that the publishers did not sign: `portguard fleet sign --rollback`"
                    .clone_into(&mut self.why);
                return Ok(());
            }
            if !was_here {
                self.why = format!(
                    "release {} was not in force here before: only a signed rollback goes there",
                    target.serial
                );
                return Ok(());
            }
        }
        let (manifest, documents) = match self.fetch_named(&target).await {
            Ok(found) => found.map_err(|refused| refused.to_string())?,
            Err(error) => return Err(error.to_string().into()),
        };
        let back = self.compiled(manifest, documents).await?;
        // What enforces is never made to audit, unless what is gone back to was signed so.
        let enforces = in_force.enforces && back.entry().enforce;
        let known = if enforces {
            back.known()
        } else {
            back.watched()
        };
        if in_force.digests == known.digests && in_force.enforces == known.enforces {
            // The two differ in nothing that the kernel has: there is nothing to swap.
            self.keep_in_force(target.serial, known)?;
            self.enter(State::Reverted, why);
            return Ok(());
        }
        if enforces {
            let within = current.manifest.plan.gate.confirm;
            if !self.enforce(&back, in_force, within, Some(serial)).await? {
                return Ok(());
            }
        } else {
            self.audit(&back).await?;
        }
        self.enter(State::Reverted, why);
        Ok(())
    }

    /// Whether this release was made final here last, and the kernel has it.
    fn has_in_force(&self, target: &Target, in_force: &InForce) -> bool {
        let known = self.kept.known.get(&target.serial);
        let known = known.filter(|_| self.kept.in_force == Some(target.serial));
        known.is_some_and(|known| {
            known.sha256 == target.sha256
                && known.digests == in_force.digests
                && known.enforces == in_force.enforces
                && !in_force.is_unconfirmed
        })
    }

    /// Whether enough publishers signed this very rollback.
    fn is_ordered(&self, current: &Current, target: &Target, position: &Position) -> bool {
        let order = rollback_order(&current.manifest.fleet, current.manifest.serial, target);
        position
            .order
            .as_ref()
            .is_some_and(|signatures| self.trust.keys.verify(&order, signatures, None).is_ok())
    }
}
