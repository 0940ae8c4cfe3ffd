//! `portguard fleet rollout` and `rollback`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use clap::{Args, Subcommand};
use portguard_fleet::follow::{self, FollowError, LEASE_SECONDS, ask, published, take_step};
use portguard_fleet::publish::head;
use portguard_fleet::rollout::Position;
use portguard_fleet::rollout::control::{Request, Who};
use portguard_fleet::store::{AnyStore, Store as _};
use portguard_fleet::{layout, now};
use portguard_observe::evidence::accept::who;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::plain;

use super::project::ProjectArgs;
use super::said::{Said, folded, line};
use super::sign::{signed_order, write_order};
use super::{block_on, follow_fault, store_fault};
use crate::command::interrupted;
use crate::command::selection::hostname;
use crate::stderr::say;
use crate::stdout::{json_line, print, print_json};

/// How often a controller looks.
const EVERY: Duration = Duration::from_secs(2);

/// Let the waves begin, stop them, or be the controller
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet rollout start
  portguard fleet rollout pause --because \"month's end\"
  portguard fleet rollout --follow
      the controller: a service; several may run, one is it
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
    #[command(after_help = "\
Examples:
  portguard fleet rollout start --because \"change 4711\"")]
    Start(AskArgs),
    /// Let nobody else begin
    #[command(after_help = "\
Examples:
  portguard fleet rollout pause --because \"month's end\"")]
    Pause(AskArgs),
    /// Go on after a pause or a halt
    #[command(after_help = "\
Examples:
  portguard fleet rollout resume --because \"the reason of the halt is mended\"")]
    Resume(AskArgs),
    /// Give up; hosts stay as they are
    #[command(after_help = "\
Examples:
  portguard fleet rollout abort --because \"a new plan follows\"")]
    Abort(AskArgs),
    /// What happened
    #[command(after_help = "\
Examples:
  portguard fleet rollout history
  portguard fleet rollout history --json | tail -1")]
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
        None => Err(Fault::usage("what should happen?")
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
                    "the publishers did not sign the {what}, so no host would obey it"
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
    let waves = block_on(async { Ok(waves(&store, &position).await) })?;
    project.keep_trust(&trust);
    if args.json {
        print_json(&Said::of(&position, &waves))?;
    } else {
        say(&line(&position, &waves));
    }
    Ok(Exit::Ok)
}

/// The names of a release's waves; none where it is not in the store any more.
async fn waves(store: &AnyStore, position: &Position) -> Vec<String> {
    follow::waves(store, position.serial)
        .await
        .unwrap_or_default()
}

fn history(args: &HistoryArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let store = project.store()?;
    let (events, named) = block_on(async {
        let events = follow::history(&store)
            .await
            .map_err(|error| store_fault(&error))?;
        let mut named = BTreeMap::new();
        for event in &events {
            if let Entry::Vacant(empty) = named.entry(event.serial) {
                empty.insert(waves(&store, event).await);
            }
        }
        Ok((events, named))
    })?;
    print(|out| {
        for event in &events {
            let waves = named.get(&event.serial).map_or(&[][..], Vec::as_slice);
            if args.json {
                json_line(out, &Said::of(event, waves))?;
            } else {
                writeln!(out, "{}", folded(&line(event, waves)))?;
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
    let host = hostname().unwrap_or_else(|| "unknown".to_owned());
    let me = format!("controller {}@{}", std::process::id(), host);
    block_on(async {
        let mut stop = std::pin::pin!(interrupted()?);
        let mut last = String::new();
        let mut say = |text: String| {
            if text != last {
                // A reason is what some host says.
                say(&plain(&text));
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
                let (found, _) = head(&store).await.map_err(|error| error.to_string())?;
                if let (None, Some((seen, _))) = (found, &trust.seen) {
                    // Nothing is written to it: it may be the directory under what is not mounted.
                    return Err(FollowError::Lost(*seen).to_string());
                }
                let mine = store
                    .lease(layout::CONTROLLER, me.as_bytes(), LEASE_SECONDS, true)
                    .await
                    .map_err(|error| error.to_string())?;
                if !mine {
                    return Err("another controller is at work".to_owned());
                }
                match take_step(&store, &mut trust, &me, now()).await {
                    Ok(Ok(position)) => {
                        let waves = waves(&store, &position).await;
                        Ok(line(&position, &waves))
                    }
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
