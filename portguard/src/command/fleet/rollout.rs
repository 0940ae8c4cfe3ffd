//! `portguard fleet rollout` and `rollback`.

use std::time::Duration;

use clap::{Args, Subcommand};
use portguard_fleet::follow::{self, LEASE_SECONDS, ask, published, take_step};
use portguard_fleet::rollout::Position;
use portguard_fleet::rollout::control::{Request, Who};
use portguard_fleet::store::Store as _;
use portguard_fleet::{layout, now};
use portguard_observe::evidence::accept::who;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::{plain, time};

use super::project::{ProjectArgs, eprint_line};
use super::said::Said;
use super::sign::{signed_order, write_order};
use super::{block_on, follow_fault, store_fault};
use crate::command::{interrupted, print, print_json};

/// How often a controller looks.
const EVERY: Duration = Duration::from_secs(2);

/// Let the waves begin, stop them, or be the controller
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet rollout start
  portguard fleet rollout pause --because \"month's end\"
  portguard fleet rollout --follow                       the controller: a service; several may run, one is it
  portguard fleet rollout history --json | tail -1")]
pub(super) struct RolloutArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Be the controller until interrupted: of several, one at a time is it
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Let the first wave begin
    Start(AskArgs),
    /// Let nobody else begin
    Pause(AskArgs),
    /// Go on after a pause or a halt
    Resume(AskArgs),
    /// Give up; hosts stay as they are
    Abort(AskArgs),
    /// What happened
    History(HistoryArgs),
}

#[derive(Debug, Args)]
struct AskArgs {
    /// Why
    #[arg(long, value_name = "REASON", default_value = "asked for")]
    because: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Args)]
struct HistoryArgs {
    /// Write lines of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Runs the verb.
pub(super) fn run(args: &RolloutArgs) -> anyhow::Result<Exit> {
    match &args.verb {
        Some(Verb::Start(asked)) => request(asked, Request::Start),
        Some(Verb::Pause(asked)) => request(asked, Request::Pause),
        Some(Verb::Resume(asked)) => request(asked, Request::Resume),
        Some(Verb::Abort(asked)) => request(asked, Request::Abort),
        Some(Verb::History(args)) => history(args),
        None if args.follow => control(&args.project),
        None => Err(Fault::usage("what is to happen?")
            .hint("`start`, `pause`, `resume`, `abort`, `history`, or `--follow`; `portguard fleet status` shows how far it is")
            .into()),
    }
}

/// Go back to the release that was in force before
///
/// What is gone back to may admit more, so the publishers sign it: `portguard fleet sign --rollback` with enough keys, then
/// this. Only within `rollback_within` of fleet.toml hosts obey without.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet sign --rollback -s alice.key
  portguard fleet rollback --because \"the new version of the document is wrong\"
  portguard fleet status --wait reverted")]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    asked: AskArgs,
}

/// Goes back.
pub(super) fn rollback(args: &RollbackArgs) -> anyhow::Result<Exit> {
    request(&args.asked, Request::Rollback)
}

fn request(args: &AskArgs, what: Request) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let store = project.store()?;
    let mut trust = project.trust()?;
    let by = who();
    let who = Who {
        by: &by,
        at: now(),
        why: &args.because,
    };
    let asking = async {
        let order = if what == Request::Rollback {
            let found = published(&store, &mut trust)
                .await
                .map_err(|error| follow_fault(&error))?;
            let order = signed_order(&project, &found.manifest, &trust.keys)?;
            if order.is_none() && found.manifest.rollback_within == 0 {
                let what = write_order(&project, &found.manifest)?;
                return Err(Fault::usage(format!(
                    "the publishers did not sign the {what}, and no host would obey it"
                ))
                .hint("`portguard fleet sign --rollback -s KEY`, or `minisign -S -m back/order.txt -x back/NAME.minisig`")
                .into());
            }
            order
        } else {
            None
        };
        ask(&store, &mut trust, what, order, &who)
            .await
            .map_err(|error| follow_fault(&error).into())
    };
    let position = block_on(asking)?;
    project.keep_trust(&trust);
    if args.json {
        print_json(&Said::of(&position))?;
    } else {
        eprint_line(&line(&position));
    }
    Ok(Exit::Ok)
}

fn line(position: &Position) -> String {
    format!(
        "{}  release {}  {}  wave {}, {} open  {}: {}",
        time(position.at),
        position.serial,
        position.phase.name(),
        position.wave + 1,
        position.open,
        plain(&position.by),
        plain(&position.why)
    )
}

fn history(args: &HistoryArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let store = project.store()?;
    let events = block_on(async {
        follow::history(&store)
            .await
            .map_err(|error| store_fault(&error).into())
    })?;
    print(|out| {
        for event in &events {
            if args.json {
                serde_json::to_writer(&mut *out, &Said::of(event))?;
                writeln!(out)?;
            } else {
                writeln!(out, "{}", line(event))?;
            }
        }
        Ok(())
    })?;
    Ok(Exit::Ok)
}

/// It keeps no state: killed at any moment, another goes on.
fn control(project: &ProjectArgs) -> anyhow::Result<Exit> {
    let project = project.open()?;
    let store = project.store()?;
    let mut trust = project.trust()?;
    let me = format!("controller {}@{}", std::process::id(), hostname());
    block_on(async {
        let mut stop = std::pin::pin!(interrupted()?);
        let mut last = String::new();
        let mut say = |text: String| {
            if text != last {
                // A reason is what some host says.
                eprint_line(&plain(&text));
            }
            last = text;
        };
        loop {
            // What another verb here has seen meanwhile, this one has, too.
            if let Ok(there) = project.trust()
                && there.covers(&trust)
            {
                trust = there;
            }
            let turn = async {
                let mine = store
                    .lease(layout::CONTROLLER, me.as_bytes(), LEASE_SECONDS, true)
                    .await
                    .map_err(|error| error.to_string())?;
                if !mine {
                    return Err("another controller is at work".to_owned());
                }
                match take_step(&store, &mut trust, &me, now()).await {
                    Ok(Ok(position)) => Ok(line(&position)),
                    Ok(Err(waits)) => Err(format!("waits: {waits}")),
                    Err(error) => Err(error.to_string()),
                }
            };
            let turn = turn.await;
            // Killed at any moment, it believes no older release afterwards.
            project.keep_trust(&trust);
            match turn {
                // What was opened may let more follow at once.
                Ok(text) => {
                    say(text);
                    continue;
                }
                Err(text) => say(text),
            }
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        let _ = store.release(layout::CONTROLLER).await;
        Ok(())
    })?;
    Ok(Exit::Ok)
}

fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
