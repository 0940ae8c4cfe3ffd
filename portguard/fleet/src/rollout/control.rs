//! The controller: it keeps no state, so that another can take over at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use super::position::MOST;
use super::waves::share;
use super::{Phase, Position};
use crate::release::Plan;
use crate::status::{BEAT_SECONDS, FAILED_SECONDS, SKEW, State, Status};
use crate::text::flows;

/// For how long hosts may take to report after somebody let a rollout go on; until then, what they said before halts nothing.
const REPORT_SECONDS: u64 = 3 * BEAT_SECONDS;
/// Hosts that are named in a reason; the rest is counted.
const NAMED: usize = 3;

/// What the release says of the rollout.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Of the release.
    pub serial: u64,
    /// Waves and gate.
    pub plan: Plan,
    /// The hosts of each wave, in their turn.
    pub waves: Vec<Vec<String>>,
    /// Those that the release has only audit: there is nothing that they must have watched.
    pub audits: BTreeSet<String>,
}

/// What is known of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it is; [`State::Silent`] without a fresh sign of life.
    pub state: State,
    /// What it says, if it says anything of this release.
    pub status: Option<Status>,
    /// Why not, else.
    pub doubt: Option<String>,
}

impl Seen {
    /// Of a host that says this.
    pub fn saying(status: Status) -> Self {
        Self {
            state: status.state,
            status: Some(status),
            doubt: None,
        }
    }
}

/// All hosts, by name.
pub type View = BTreeMap<String, Seen>;

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Let the first wave begin.
    Start,
    /// Let nobody else begin.
    Pause,
    /// Go on after a pause or a halt.
    Resume,
    /// Give up; hosts stay as they are.
    Abort,
    /// Go back to the release that the manifest names.
    Rollback,
}

/// Why a request is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// Who asks, when, and why.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Name.
    pub by: &'a str,
    /// Seconds since the epoch.
    pub at: u64,
    /// Reason.
    pub why: &'a str,
}

/// The position after a request.
///
/// # Errors
/// [`Denied`], if it makes no sense now.
pub fn request(
    position: &Position,
    request: Request,
    has_way_back: bool,
    who: &Who<'_>,
) -> Result<Position, Denied> {
    use Phase::{Aborted, Auditing, Done, Halted, Paused, RollingBack, Running};
    let phase = match (request, position.phase) {
        (Request::Start, Auditing) | (Request::Resume, Paused | Halted) => Running,
        (Request::Pause, Auditing | Running | Halted) => Paused,
        (Request::Abort, Auditing | Running | Paused | Halted) => Aborted,
        (Request::Rollback, Auditing | Running | Paused | Halted | Aborted | Done)
            if has_way_back =>
        {
            RollingBack
        }
        (Request::Rollback, phase) if !phase.is_back() => {
            return Err(Denied(
                "the release names no release to go back to: publish one that does".to_owned(),
            ));
        }
        (_, phase) => {
            return Err(Denied(format!(
                "the rollout of release {} is {}",
                position.serial,
                phase.name()
            )));
        }
    };
    let mut next = position.clone();
    next.phase = phase;
    if request == Request::Resume {
        next.resumed_at = Some(who.at);
    }
    if position.phase == Auditing {
        next.since = who.at;
    }
    Ok(signed(next, who))
}

/// The next step, or why there is none now.
///
/// # Errors
/// The reason for which it waits: nothing is wrong.
pub fn step(
    rollout: &Rollout,
    position: &Position,
    view: &View,
    who: &Who<'_>,
) -> Result<Position, String> {
    if position.serial != rollout.serial {
        return Err(format!(
            "the position is of release {}, the head is release {}",
            position.serial, rollout.serial
        ));
    }
    if position.phase == Phase::RollingBack {
        return back(rollout, position, view, who);
    }
    if position.phase != Phase::Running {
        return Err(position.phase.name().to_owned());
    }
    let with = |why: String, change: &dyn Fn(&mut Position)| {
        let mut next = position.clone();
        change(&mut next);
        Ok(signed(next, &Who { why: &why, ..*who }))
    };
    if let Some(why) = too_much_trouble(rollout, position, view, who.at)? {
        return with(why, &|next| next.phase = Phase::Halted);
    }
    reporting(rollout, view)?;
    let index = usize::try_from(position.wave).unwrap_or(usize::MAX);
    let (Some(wave), Some(plan)) = (rollout.waves.get(index), rollout.plan.wave.get(index)) else {
        return with("no wave is left".to_owned(), &|next| {
            next.phase = Phase::Done;
        });
    };
    let open = usize::try_from(position.open)
        .unwrap_or(usize::MAX)
        .min(wave.len());
    let (opened, waiting) = wave.split_at(open);
    let unfinished: Vec<&String> = opened
        .iter()
        .filter(|host| !is_finished(view, host, who.at))
        .collect();
    let limit = share(wave.len(), plan.at_once).max(1);
    if let Some(next_host) = waiting.first() {
        let room = limit.saturating_sub(unfinished.len());
        if room == 0 {
            return Err(waits_for(&plan.name, &unfinished));
        }
        let ready = waiting
            .iter()
            .take(room)
            .take_while(|host| gate(rollout, view, host).is_ok())
            .count();
        if ready == 0 {
            let why = gate(rollout, view, next_host).err().unwrap_or_default();
            return Err(format!("wave `{}`: {next_host} {why}", plan.name));
        }
        let open = u32::try_from(open + ready).unwrap_or(u32::MAX);
        let why = format!(
            "wave `{}`: {open} of {} hosts may enforce",
            plan.name,
            wave.len()
        );
        return with(why, &|next| next.open = open);
    }
    if !unfinished.is_empty() {
        return Err(waits_for(&plan.name, &unfinished));
    }
    finish(rollout, position, view, index, who)
}

/// Why it halts, if more hosts are in trouble than may be.
///
/// # Errors
/// What it waits for before it halts: whether that lasts, and what hosts say of it after somebody let it go on.
fn too_much_trouble(
    rollout: &Rollout,
    position: &Position,
    view: &View,
    now: u64,
) -> Result<Option<String>, String> {
    let troubled = trouble(rollout, position, view);
    let may_be = rollout.plan.gate.max_failed;
    if troubled.len() as u64 <= may_be {
        return Ok(None);
    }
    let lasting = troubled.iter().filter(|host| lasts(view, host, now));
    let (stale, lasting): (Vec<&str>, Vec<&str>) =
        lasting.partition(|host| is_of_before(position, view, host, now));
    if let (true, Some(resumed)) = (
        lasting.len() as u64 <= may_be && !stale.is_empty(),
        position.resumed_at,
    ) {
        return Err(format!(
            "waiting for {} to report since {}",
            some(&stale, str::to_owned),
            clock(resumed)
        ));
    }
    let why = format!(
        "{} in trouble, {may_be} may be: {}",
        hosts_are(troubled.len()),
        names(&troubled, view)
    );
    if lasting.len() as u64 > may_be {
        return Ok(Some(why));
    }
    Err(format!("{why}; it halts if that lasts"))
}

/// Whether what is known of a host is of before somebody let the rollout go on, and the host may still say otherwise.
fn is_of_before(position: &Position, view: &View, host: &str, now: u64) -> bool {
    let Some(resumed) = position.resumed_at else {
        return false;
    };
    let said = view.get(host).and_then(|seen| seen.status.as_ref());
    said.is_none_or(|said| said.at < resumed) && now < resumed.saturating_add(REPORT_SECONDS)
}

/// `12:00:03 UTC`.
fn clock(at: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(at.min(MOST));
    let text = humantime::format_rfc3339_seconds(at).to_string();
    format!("{} UTC", text.get(11..19).unwrap_or(&text))
}

fn waits_for(wave: &str, hosts: &[&String]) -> String {
    let have = match hosts.len() {
        1 => "1 host has".to_owned(),
        count => format!("{count} hosts have"),
    };
    let first = hosts.first().map_or("", |host| host.as_str());
    format!("wave `{wave}`: {have} not confirmed yet, among them {first}")
}

/// Whether all hosts went back that can.
fn back(
    rollout: &Rollout,
    position: &Position,
    view: &View,
    who: &Who<'_>,
) -> Result<Position, String> {
    let hosts = || rollout.waves.iter().flatten();
    let missing: Vec<&String> = hosts()
        .filter(|host| !matches!(state(view, host), State::Reverted | State::Held))
        .collect();
    if let Some(first) = missing.first() {
        let are = hosts_are(missing.len());
        return Err(format!("{are} not back yet, among them {first}"));
    }
    let next = Position {
        phase: Phase::RolledBack,
        ..position.clone()
    };
    let why = format!("all hosts are back{}", but_for_held(view, hosts()));
    Ok(signed(next, &Who { why: &why, ..*who }))
}

/// `1 host is`.
fn hosts_are(count: usize) -> String {
    match count {
        1 => "1 host is".to_owned(),
        count => format!("{count} hosts are"),
    }
}

/// Of those that are held nothing was asked.
fn but_for_held<'a>(view: &View, hosts: impl Iterator<Item = &'a String>) -> String {
    let held = hosts
        .filter(|host| state(view, host) == State::Held)
        .count();
    match held {
        0 => String::new(),
        1 => ", but for 1 host that is held".to_owned(),
        held => format!(", but for {held} hosts that are held"),
    }
}

/// All hosts of the wave are done: the next one begins in its time.
fn finish(
    rollout: &Rollout,
    position: &Position,
    view: &View,
    index: usize,
    who: &Who<'_>,
) -> Result<Position, String> {
    let name = |index: usize| {
        let wave = rollout.plan.wave.get(index);
        wave.map_or("", |wave| wave.name.as_str())
    };
    let with = |why: String, change: &dyn Fn(&mut Position)| {
        let mut next = position.clone();
        change(&mut next);
        Ok(signed(next, &Who { why: &why, ..*who }))
    };
    let Some(done_at) = position.done_at else {
        let is_last = index + 1 >= rollout.waves.len();
        let hosts = rollout.waves.get(index).into_iter().flatten();
        let held = but_for_held(view, hosts);
        return with(format!("wave `{}` is done{held}", name(index)), &|next| {
            next.done_at = Some(who.at);
            if is_last {
                next.phase = Phase::Done;
            }
        });
    };
    if done_at > who.at.saturating_add(SKEW) {
        // Whoever wrote that, its clock was ahead; the wave was done by now.
        return with(
            "the clock of whoever wrote this was ahead".to_owned(),
            &|next| {
                next.done_at = Some(who.at);
            },
        );
    }
    let after = rollout
        .plan
        .wave
        .get(index + 1)
        .map_or(0, |next| next.after);
    let begins = done_at.saturating_add(after);
    if who.at < begins {
        return Err(format!("the next wave begins in {} s", begins - who.at));
    }
    with(format!("wave `{}` begins", name(index + 1)), &|next| {
        next.wave += 1;
        next.open = 0;
        next.since = who.at;
        next.done_at = None;
    })
}

fn signed(mut position: Position, who: &Who<'_>) -> Position {
    who.by.clone_into(&mut position.by);
    who.why.clone_into(&mut position.why);
    position.at = who.at;
    position
}

fn state(view: &View, host: &str) -> State {
    view.get(host).map_or(State::Silent, |seen| seen.state)
}

/// Nothing more is to be expected of it.
fn is_finished(view: &View, host: &str, now: u64) -> bool {
    let state = state(view, host);
    let is_done = state == State::Confirmed || state == State::Held;
    is_done || (state.is_trouble() && lasts(view, host, now))
}

/// Whether a host's trouble is there to stay: what it could not read or load it tries again.
fn lasts(view: &View, host: &str, now: u64) -> bool {
    let seen = view.get(host).filter(|seen| seen.state == State::Failed);
    let said = seen.and_then(|seen| seen.status.as_ref());
    said.is_none_or(|said| now.saturating_sub(said.since) >= FAILED_SECONDS)
}

/// Hosts that failed or went back, wherever; and those that are silent since it was their turn.
fn trouble<'a>(rollout: &'a Rollout, position: &Position, view: &View) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (wave, hosts) in rollout.waves.iter().enumerate() {
        let wave = u32::try_from(wave).unwrap_or(u32::MAX);
        for (turn, host) in hosts.iter().enumerate() {
            let turn = u32::try_from(turn).unwrap_or(u32::MAX);
            let state = state(view, host);
            let had_turn = position.lets(wave, turn);
            if state.is_trouble() && (state != State::Silent || had_turn) {
                found.push(host.as_str());
            }
        }
    }
    found
}

fn names(hosts: &[&str], view: &View) -> String {
    some(hosts, |host| {
        let seen = view.get(host);
        let why = seen
            .and_then(|seen| seen.status.as_ref())
            .map_or("", |said| said.why.as_str());
        let state = state(view, host).name();
        if why.is_empty() {
            format!("{host} {state}")
        } else {
            format!("{host} {state} ({why})")
        }
    })
}

/// The first of them in words, and how many more there are.
fn some(hosts: &[&str], words: impl Fn(&str) -> String) -> String {
    let shown: Vec<String> = hosts.iter().take(NAMED).map(|host| words(host)).collect();
    let more = hosts.len().saturating_sub(shown.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    shown.join(", ") + &more
}

/// Hosts that are held do not count, neither as reporting nor as missing: a hold says nothing of them.
fn reporting(rollout: &Rollout, view: &View) -> Result<(), String> {
    let hosts = rollout.waves.iter().flatten();
    let states = hosts.map(|host| state(view, host));
    let states: Vec<State> = states.filter(|state| *state != State::Held).collect();
    let all = states.len();
    if all == 0 {
        return Err("every host is held".to_owned());
    }
    let fresh = states
        .iter()
        .filter(|state| !matches!(state, State::Silent | State::Pending))
        .count();
    let wanted = share(all, rollout.plan.gate.reporting);
    if fresh < wanted {
        return Err(format!("{fresh} of {all} hosts report, {wanted} must"));
    }
    Ok(())
}

/// The gate, by what the host says of itself. The host judges it, too, by what it saw.
fn gate(rollout: &Rollout, view: &View, host: &str) -> Result<(), String> {
    let gate = &rollout.plan.gate;
    let seen = view.get(host).ok_or("is silent")?;
    match seen.state {
        State::Confirmed | State::Held => return Ok(()),
        State::Ready => {}
        State::Pending
        | State::Fetched
        | State::Verified
        | State::Audit
        | State::Enforcing
        | State::Failed
        | State::Reverted
        | State::Silent => {
            let state = seen.state.name();
            return Err(match seen.status.as_ref().map(|said| said.why.as_str()) {
                None | Some("") => format!("is {state}"),
                Some(why) => format!("is {state}: {why}"),
            });
        }
    }
    if rollout.audits.contains(host) {
        return Ok(());
    }
    let said = seen.status.as_ref().ok_or("says nothing")?;
    if said.watched < gate.audit {
        return Err(format!("watched for {} s of {}", said.watched, gate.audit));
    }
    if said.packets < gate.packets {
        return Err(format!(
            "judged {} packets of {}",
            said.packets, gate.packets
        ));
    }
    if said.would_drop > gate.would_drop {
        return Err(format!(
            "would drop {}, {} allowed",
            flows(said.would_drop),
            gate.would_drop
        ));
    }
    Ok(())
}
