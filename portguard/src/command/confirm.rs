//! `portguard confirm` and `portguard rollback`: what is in force stays, or what was before comes back.

use std::io::{self, Write as _};

use clap::Args;
use serde::Serialize;

use super::load::weaker::{Weaker, weaker};
use super::load::{keep, safety};
use crate::failure;
use crate::stderr::stderr;
use crate::stdout::print_json;
use portguard_kernel::generation::confirm;
use portguard_kernel::generation::publish::{before, roll_back};
use portguard_kernel::generation::{self, Live};
use portguard_kernel::host::interface::{Interface, canonical};
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::{self, Layout, Lock};
use portguard_kernel::recovery::reconcile::reconcile;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::plain;

/// Keep what was loaded with `--confirm-within`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard load --enforce --confirm-within 2m && portguard confirm")]
pub struct ConfirmArgs {
    /// Interface; may be repeated [default: all guarded ones of this network namespace]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Go back to the generation that was in force before
///
/// Takes effect at once, and warns if the policy is weaker. If it drops more, open sessions are checked as by `load`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard rollback  what was in force before the last load is in force again
  portguard rollback --interface eth0")]
pub struct RollbackArgs {
    /// Go back although open sessions would be cut; your own is still looked at
    #[arg(long)]
    cut_sessions: bool,
    /// Go back even if open sessions, or your own, would be cut
    #[arg(long)]
    force: bool,
    /// Interface; may be repeated [default: all guarded ones of this network namespace]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Confirms.
///
/// # Errors
/// If it is too late, or nothing is guarded.
pub fn confirm(args: &ConfirmArgs) -> anyhow::Result<Exit> {
    let lock = pins::lock()?;
    let mut all = Outcome::new(args.json);
    for (name, layout, live) in guarded(&lock, &args.interfaces)? {
        let result = confirm_one(&lock, &name, &layout, &live);
        if let Ok((_, said)) = &result {
            all.say(&name, &format!("generation {}: {said}", live.meta.number))?;
        }
        all.add(name, result.map(|(changed, _)| changed));
    }
    all.end()
}

fn confirm_one(
    lock: &Lock,
    name: &str,
    layout: &Layout,
    live: &Live,
) -> anyhow::Result<(Changed, &'static str)> {
    let is_confirmed = confirm::confirm(lock, layout, live)?;
    let said = if is_confirmed {
        if let Some(confirmed) = generation::live(layout)? {
            keep(name, &confirmed);
        }
        "confirmed"
    } else {
        "there was nothing to confirm"
    };
    let changed = Changed {
        name: name.to_owned(),
        generation: live.meta.number,
        confirmed: Some(is_confirmed),
        replaced: None,
    };
    Ok((changed, said))
}

/// Goes back.
///
/// # Errors
/// If there is nothing to go back to, and what the system refuses.
pub fn rollback(args: &RollbackArgs) -> anyhow::Result<Exit> {
    let lock = pins::lock()?;
    let mut all = Outcome::new(args.json);
    let guarded = guarded(&lock, &args.interfaces)?;
    let is_there = |(name, _, live): &(String, Layout, Live)| {
        !live.effective.is_elsewhere && Interface::find(name).is_ok()
    };
    // What nobody named is no reason to leave the others as they are.
    let mut turns = guarded;
    if args.interfaces.is_empty() && turns.iter().any(is_there) {
        let (there, gone): (Vec<_>, Vec<_>) = turns.into_iter().partition(is_there);
        turns = there;
        for (name, ..) in gone {
            all.skip(name)?;
        }
    }
    let losses = ask(args, &turns)?;
    for ((name, layout, live), loss) in turns.into_iter().zip(losses) {
        let result = go_back(&lock, &name, &layout, &live);
        if let Ok((changed, mode)) = &result {
            let (now, gone) = (changed.generation, live.meta.number);
            let words = format!("generation {now} is in force again ({mode}); {gone} is gone");
            all.say(&name, &words)?;
            for one in loss {
                tell(&name, &format!("warning: less is dropped now: {one}"))?;
            }
        }
        all.add(name, result.map(|(changed, _)| changed));
    }
    all.end()
}

/// Asks of all, before anything is changed, what each would lose.
fn ask(args: &RollbackArgs, turns: &[(String, Layout, Live)]) -> anyhow::Result<Vec<Vec<Weaker>>> {
    let (mut interfaces, mut policies, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut none, mut some) = (Vec::new(), Vec::new());
    for (name, layout, live) in turns {
        let Some(to) = before(layout, live)? else {
            none.push((name, live.meta.number));
            continue;
        };
        some.push(format!("--interface {}", plain(name)));
        losses.push(weaker(live, &to.policy));
        interfaces.push(Interface::find(name)?);
        policies.push(to.policy);
    }
    if let Some((name, number)) = none.first() {
        let name = plain(name);
        let what = format!("there is no generation before {number} on `{name}`");
        let mut hint = format!("`portguard unload --interface {name}` stops guarding it");
        if !some.is_empty() {
            hint = format!(
                "`portguard rollback {}` goes back where there is one; {hint}",
                some.join(" ")
            );
        }
        return Err(Fault::usage(what).hint(hint).into());
    }
    // What speaks against them may have come since they were in force.
    let cuts = args.force || args.cut_sessions;
    safety::check(args.force, cuts, &interfaces, &policies)?;
    Ok(losses)
}

fn go_back(
    lock: &Lock,
    name: &str,
    layout: &Layout,
    live: &Live,
) -> anyhow::Result<(Changed, &'static str)> {
    let to = roll_back(lock, layout, live)?;
    if let Some(back) = generation::live(layout)? {
        keep(name, &back);
    }
    let changed = Changed {
        name: name.to_owned(),
        generation: to.number,
        confirmed: None,
        replaced: Some(live.meta.number),
    };
    Ok((changed, to.policy.settings.mode()))
}

/// What is in force now.
#[derive(Debug, Serialize)]
struct Changed {
    name: String,
    generation: u64,
    /// Whether there was something to confirm.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed: Option<bool>,
    /// The generation that is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<u64>,
}

/// An interface that was left as it is.
#[derive(Debug, Serialize)]
struct Failed {
    name: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// What became of each interface: one that fails keeps no other from its turn.
struct Outcome {
    as_json: bool,
    interfaces: Vec<Changed>,
    failed: Vec<(String, anyhow::Error)>,
    /// Those that have gone, so that nothing is judged there.
    gone: Vec<String>,
}

#[derive(Serialize)]
struct Answer {
    interfaces: Vec<Changed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
}

impl Outcome {
    const fn new(as_json: bool) -> Self {
        Self {
            as_json,
            interfaces: Vec::new(),
            failed: Vec::new(),
            gone: Vec::new(),
        }
    }

    fn say(&self, name: &str, what: &str) -> io::Result<()> {
        if self.as_json {
            Ok(())
        } else {
            tell(name, what)
        }
    }

    fn skip(&mut self, name: String) -> io::Result<()> {
        tell(
            &name,
            &format!(
                "the interface has gone, and nothing is judged there; `portguard unload --interface {0}` removes its guard",
                plain(&name)
            ),
        )?;
        self.gone.push(name);
        Ok(())
    }

    fn add(&mut self, name: String, result: anyhow::Result<Changed>) {
        match result {
            Ok(changed) => self.interfaces.push(changed),
            Err(error) => self.failed.push((name, error)),
        }
    }

    /// Says what failed. With something done and something not, the exit code is that of a system that refused: something
    /// was changed.
    fn end(mut self) -> anyhow::Result<Exit> {
        if self.interfaces.is_empty() && self.failed.len() == 1 {
            return self
                .failed
                .pop()
                .map_or(Ok(Exit::Ok), |(_, error)| Err(error));
        }
        let exit = match self.failed.first() {
            None => Exit::Ok,
            Some(_) if !self.interfaces.is_empty() => Exit::System,
            Some((_, error)) => failure::exit_of(error),
        };
        for (_, error) in &self.failed {
            failure::say(error);
        }
        if self.as_json {
            let failed = self.failed.into_iter().map(|(name, error)| Failed {
                name,
                message: format!("{error:#}"),
                hint: failure::hint_of(&error).map(str::to_owned),
            });
            print_json(&Answer {
                failed: failed.collect(),
                interfaces: self.interfaces,
                gone: self.gone,
            })?;
        } else if exit != Exit::Ok {
            writeln!(
                stderr(),
                "failed: `portguard status` shows what is in force"
            )?;
        }
        Ok(exit)
    }
}

fn tell(name: &str, what: &str) -> io::Result<()> {
    writeln!(stderr(), "{}: {what}", plain(name))
}

fn guarded(lock: &Lock, named: &[String]) -> anyhow::Result<Vec<(String, Layout, Live)>> {
    reconcile(lock)?;
    let layouts: Vec<Layout> = if named.is_empty() {
        bpffs::layouts_here()
    } else {
        named
            .iter()
            .map(|name| Layout::of(&canonical(name)))
            .collect()
    };
    let mut found = Vec::new();
    for layout in layouts {
        let (name, _) = layout.interface();
        match generation::live(&layout)? {
            Some(live) => found.push((name, layout, live)),
            None if named.is_empty() => {}
            None => return Err(not_guarded(&format!("`{name}` is not guarded")).into()),
        }
    }
    if found.is_empty() {
        return Err(not_guarded("no interface is guarded").into());
    }
    Ok(found)
}

fn not_guarded(what: &str) -> Fault {
    Fault::usage(what).hint("`portguard status` lists the guarded interfaces")
}
