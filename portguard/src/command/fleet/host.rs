//! `portguard agent --fleet`: this host's part.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use portguard_fleet::agent::{Agent, Beat, Identity, run};
use portguard_fleet::evidence::EVERY_SECONDS;
use portguard_fleet::release::Trust;
use portguard_fleet::status::HostKey;
use portguard_fleet::store::{Address, AnyStore, Files, Store as _};
use portguard_policy::error::Fault;
use portguard_policy::human::duration;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::guard::Verbs;
use super::store_fault;

/// Who this host is, and whom it trusts.
pub(super) const IDENTITY: &str = "identity.json";

/// What `enroll` writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enrolled {
    pub(super) host: String,
    pub(super) trust: Trust,
    pub(super) key: String,
}

/// Of `agent`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Fleet")]
pub(in crate::command) struct HostArgs {
    /// Take part in a fleet: `etcd://HOST[:PORT],...`, `file:DIR` or `https://HOST/PATH`
    #[arg(long, value_name = "STORE", env = "PORTGUARD_STORE")]
    fleet: Option<Address>,
    /// What `portguard fleet enroll` wrote for this host, with ca.pem, agent.pem and agent.key where the store wants them
    #[arg(long, value_name = "DIR", default_value = "/etc/portguard/fleet")]
    fleet_identity: PathBuf,
    /// Where to keep releases
    #[arg(long, value_name = "DIR", default_value = "/var/lib/portguard/fleet")]
    fleet_state: PathBuf,
    /// Seconds between checks, besides notifications
    #[arg(long, value_name = "N", default_value_t = Beat::SECONDS, hide = true)]
    fleet_every: u64,
    /// Seconds between reports of what was seen
    #[arg(long, value_name = "N", default_value_t = EVERY_SECONDS, hide = true)]
    fleet_evidence_every: u64,
}

/// Takes part in a fleet on a thread of its own, if this host is to; the rest of the agent does not depend on it.
///
/// # Errors
/// If it cannot begin: what is wrong then is wrong on this host.
pub(in crate::command) fn begin(args: &HostArgs) -> anyhow::Result<()> {
    let Some(address) = args.fleet.clone() else {
        return Ok(());
    };
    let path = args.fleet_identity.join(IDENTITY);
    let bytes = std::fs::read(&path).map_err(|error| {
        Fault::usage(format!("cannot read {}: {error}", path.display()))
            .hint("`portguard fleet enroll HOST` writes it")
    })?;
    let enrolled: Enrolled = serde_json::from_slice(&bytes)
        .map_err(|error| Fault::usage(format!("{}: {error}", path.display())))?;
    let store = AnyStore::open(&address, &files(&args.fleet_identity))
        .map_err(|error| store_fault(&error))?;
    let key = HostKey::parse(&enrolled.key, &enrolled.trust.fleet).map_err(Fault::usage)?;
    let identity = Identity {
        host: enrolled.host.clone(),
        key,
        directory: args.fleet_state.clone(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        evidence_seconds: args.fleet_evidence_every,
        retry: Duration::from_secs(args.fleet_every),
    };
    let guard = Verbs::new(&enrolled.host).map_err(Fault::system)?;
    let every = Duration::from_secs(args.fleet_every.max(1));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the fleet's part of the agent")?;
    let agent = runtime
        .block_on(Agent::begin(identity, store, guard, enrolled.trust))
        .map_err(|why| {
            Fault::system(why).hint(format!(
                "restore {}; or take it away and enrol the host again, which forgets the newest release that it has seen",
                args.fleet_state.display()
            ))
        })?;
    tracing::info!(host = %enrolled.host, store = %address, "fleet");
    std::thread::spawn(move || runtime.block_on(follow(agent, every)));
    Ok(())
}

/// Those that are there.
fn files(directory: &Path) -> Files {
    let at = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
    Files {
        ca: at("ca.pem"),
        cert: at("agent.pem"),
        key: at("agent.key"),
    }
}

/// For ever: whatever the store does, what is in force stays in force.
async fn follow(mut agent: Agent<AnyStore, Verbs>, every: Duration) {
    let mut heard = Instant::now();
    loop {
        let why = match agent.store().watch(&agent.keys()).await {
            Ok(watch) => run(&mut agent, watch, every, &mut heard).await,
            Err(error) => error.to_string(),
        };
        let ago = duration(heard.elapsed().as_secs());
        tracing::warn!(
            "{why}; what is in force stays in force, and is as the store had it {ago} ago"
        );
        agent.alone(&why).await;
        // Thousands that lost it together do not come back together.
        tokio::time::sleep(Duration::from_millis(500 + fastrand::u64(..2500))).await;
    }
}
