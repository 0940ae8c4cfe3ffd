//! `portguard top`: the guard on a terminal.

mod draw;
mod state;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::state::Top;
use super::counters;
use portguard_observe::observe;
use portguard_policy::error::{Exit, Fault};

/// Callers that can be scrolled to.
const TALKERS: usize = 200;

/// Watch the guard: rates, ports, violations and who sends them
///
/// Keys: tab or left/right switch view, up/down scroll, s sort, / filter, n next interface, space pause, ? help, q quit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard top                      ports with their rates
  portguard top --view findings      violations by their cause
  portguard top --json | head -1     the same numbers for a program")]
pub struct TopArgs {
    /// Start with this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Start with this view
    #[arg(long, value_enum, default_value_t = View::Ports)]
    view: View,
    /// Seconds between updates
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    /// Write the numbers as JSON instead, one object a line: those of `counters --by peer --watch --json`
    #[arg(long)]
    json: bool,
}

/// `--view`, in the order of the tab key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Ports, with rates.
    Ports,
    /// Violations by their cause.
    Findings,
    /// Top talkers of violations.
    Talkers,
    /// Rows that were never used.
    Unused,
}

/// Shows the dashboard until `q`.
///
/// # Errors
/// If standard output is no terminal, nothing is guarded, and what the system refuses.
pub fn run(args: &TopArgs) -> anyhow::Result<Exit> {
    if args.json {
        return counters::lines(args.interface.as_deref(), Duration::from_secs(args.every));
    }
    if !io::stdout().is_terminal() {
        return Err(Fault::usage("`portguard top` needs a terminal")
            .hint("`portguard counters --watch` writes to anything")
            .into());
    }
    let mut top = Top::new(args.interface.clone());
    top.view = args.view as usize;
    look(&mut top)?;
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let result = show(&mut terminal, &mut top, Duration::from_secs(args.every));
    ratatui::restore();
    result?;
    Ok(Exit::Ok)
}

fn look(top: &mut Top) -> anyhow::Result<()> {
    let observed = observe::interfaces(None)?;
    if observed.is_empty() {
        return Err(Fault::usage("no interface is guarded")
            .hint("`portguard load` guards one")
            .into());
    }
    top.read_catalog(&observed)?;
    let mut talkers = BTreeMap::new();
    for one in &observed {
        talkers.insert(
            one.name.clone(),
            one.top_talkers(Some(&top.catalog), TALKERS, false),
        );
    }
    top.update(observed, Instant::now());
    top.talkers = talkers;
    Ok(())
}

fn show(terminal: &mut DefaultTerminal, top: &mut Top, every: Duration) -> anyhow::Result<()> {
    let mut next = Instant::now() + every;
    loop {
        terminal.draw(|frame| draw::draw(frame, top))?;
        if event::poll(next.saturating_duration_since(Instant::now()))? {
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && is_end(top, key.code, key.modifiers)
            {
                return Ok(());
            }
            continue;
        }
        next = Instant::now() + every;
        if !top.is_paused {
            look(top)?;
        }
    }
}

/// Does what a key asks for; says whether it asks for the end.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "keys that the terminal may learn of mean nothing here"
)]
fn is_end(top: &mut Top, key: KeyCode, modifiers: KeyModifiers) -> bool {
    if key == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL) {
        return true;
    }
    if top.is_typing {
        match key {
            KeyCode::Enter => top.is_typing = false,
            KeyCode::Esc => {
                top.is_typing = false;
                top.filter.clear();
            }
            KeyCode::Backspace => {
                top.filter.pop();
            }
            KeyCode::Char(letter) => top.filter.push(letter),
            _ => {}
        }
        top.offset = 0;
        return false;
    }
    match key {
        KeyCode::Char('?') => top.is_help = !top.is_help,
        KeyCode::Esc if top.is_help => top.is_help = false,
        KeyCode::Esc if !top.filter.is_empty() => top.filter.clear(),
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('/') => top.is_typing = true,
        KeyCode::Char('s') => top.next_sort(),
        KeyCode::Tab | KeyCode::Right => top.turn(1),
        KeyCode::BackTab | KeyCode::Left => top.turn(-1),
        KeyCode::Down | KeyCode::Char('j') => top.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => top.scroll(-1),
        KeyCode::PageDown => top.scroll(10),
        KeyCode::PageUp => top.scroll(-10),
        KeyCode::Char('n') => top.next_interface(),
        // With the control key it is what a terminal without a keyboard sends.
        KeyCode::Char(' ') if modifiers.is_empty() => top.is_paused = !top.is_paused,
        _ => {}
    }
    false
}

#[cfg(test)]
mod tests;
