//! `portguard fleet`: one signed site for many hosts, rolled out in waves.

mod classes;
mod enroll;
mod guard;
mod hold;
pub(super) mod host;
mod init;
mod plan;
mod project;
mod rollout;
mod said;
mod seen;
mod sign;
mod status;

use clap::{Args, Subcommand};
use portguard_fleet::follow::FollowError;
use portguard_fleet::store::etcd::is_open;
use portguard_fleet::store::{AnyStore, StoreError};
use portguard_policy::error::{Exit, Fault};

use super::block_on;
use crate::stderr::say;

/// Publish one signed site for many hosts, and roll it out in waves
///
/// `init`, `enroll` each host, `plan`, `sign`, `apply`; then `rollout start` and `status --wait confirmed`. Each host runs
/// `portguard agent --fleet STORE`. A fleet is a directory with `fleet.toml` and the site; the store is a directory, or etcd.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet plan && portguard fleet sign -s alice.key
  portguard fleet apply --start
  portguard fleet status --wait confirmed --timeout 4d")]
pub struct FleetArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::InitArgs),
    Classes(classes::ClassesArgs),
    Enroll(enroll::EnrollArgs),
    Revoke(enroll::RevokeArgs),
    Plan(plan::PlanArgs),
    Diff(plan::DiffArgs),
    Sign(sign::SignArgs),
    Apply(sign::ApplyArgs),
    Status(status::StatusArgs),
    Evidence(seen::EvidenceArgs),
    Counters(seen::CountersArgs),
    Drift(seen::DriftArgs),
    Report(seen::ReportArgs),
    Rollout(rollout::RolloutArgs),
    Rollback(rollout::RollbackArgs),
    Hold(hold::HoldArgs),
    Unhold(hold::UnholdArgs),
}

/// Runs the verb.
///
/// # Errors
/// Whatever it could not do.
pub fn run(args: &FleetArgs) -> anyhow::Result<Exit> {
    match &args.verb {
        Verb::Init(args) => init::init(args),
        Verb::Classes(args) => classes::run(args),
        Verb::Enroll(args) => enroll::enroll(args),
        Verb::Revoke(args) => enroll::revoke(args),
        Verb::Plan(args) => plan::run(args),
        Verb::Diff(args) => plan::diff(args),
        Verb::Sign(args) => sign::sign(args),
        Verb::Apply(args) => sign::apply(args),
        Verb::Status(args) => status::run(args),
        Verb::Evidence(args) => seen::evidence(args),
        Verb::Counters(args) => seen::counters(args),
        Verb::Drift(args) => seen::drift(args),
        Verb::Report(args) => seen::report(args),
        Verb::Rollout(args) => rollout::run(args),
        Verb::Rollback(args) => rollout::rollback(args),
        Verb::Hold(args) => hold::hold(args),
        Verb::Unhold(args) => hold::unhold(args),
    }
}

/// What the store did not do, with what to do about it.
fn store_fault(error: &StoreError) -> Fault {
    let fault = match error {
        StoreError::Invalid(_) | StoreError::ReadOnly(_) => Fault::usage(error.to_string()),
        StoreError::Unreachable(_) | StoreError::Refused(_) | StoreError::TooLarge(_) => {
            Fault::system(error.to_string())
        }
    };
    match error {
        StoreError::Unreachable(_) => fault.hint("is `store` in fleet.toml right, and is it up?"),
        // etcd's word for a quota that is used up: then nobody's class lets anybody write.
        StoreError::Refused(why) if why.contains("space exceeded") => fault.hint(
            "etcd's quota is used up: delete what nobody needs, then `etcdctl compact`, `defrag` and `alarm disarm`: docs/fleet.md",
        ),
        StoreError::Refused(_) => fault
            .hint("the class of your certificate (`[tls]` in fleet.toml) decides what you may do: docs/fleet.md has a table"),
        StoreError::Invalid(_) | StoreError::ReadOnly(_) | StoreError::TooLarge(_) => fault,
    }
}

/// Says it where etcd lets everybody write everything; whoever publishes is who can change that.
async fn warn_if_open(store: &AnyStore) {
    let AnyStore::Etcd(etcd) = store else { return };
    if is_open(etcd).await == Ok(true) {
        say(
            "warning: etcd's authorisation is off: whoever has any certificate of it, each host among them, can hold hosts, move \
             the rollout and withhold releases; `portguard fleet classes` turns it on",
        );
    }
}

fn follow_fault(error: &FollowError) -> Fault {
    match error {
        FollowError::Store(error) => store_fault(error),
        FollowError::Refused(_) => {
            Fault::system(format!("the published release is not trusted: {error}")).hint(
                "who publishes goes on from the last release that this directory saw: `portguard fleet plan --repair`",
            )
        }
        FollowError::Denied(_) | FollowError::Overtaken => Fault::usage(error.to_string()),
        FollowError::Lost(_) => Fault::system(error.to_string()).hint(
            "is `store` in fleet.toml right, and is it mounted? If it is, who publishes goes on: `portguard fleet plan --repair`",
        ),
        FollowError::Empty => {
            Fault::usage(error.to_string()).hint("`portguard fleet plan`, `sign`, `apply`")
        }
    }
}
