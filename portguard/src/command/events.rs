//! `portguard events`: sampled violations as they happen.

mod filter;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::stderr::stderr;
use crate::stdout::{is_read, json_line};
use anyhow::Context as _;
use clap::Args;
use portguard_common::abi::{Event, slot};

use self::filter::Filter;
use super::catalogs;
use crate::fold::folded;
use portguard_observe::counters::Snapshot;
use portguard_observe::events::pcap::Capture;
use portguard_observe::events::stream::{Stream, boot_time, booted};
use portguard_observe::events::tally::{Summary, Tally};
use portguard_observe::events::{Line, Words};
use portguard_observe::observe::{self, Observed};
use portguard_policy::catalog::Catalog;
use portguard_policy::error::Exit;
use portguard_policy::human::{count, plain};

/// How often a listener says that it still listens, and looks for events that were lost.
const ANNOUNCE: Duration = Duration::from_secs(1);
/// How often JSON has a summary, if something happened.
const SUMMARY: Duration = Duration::from_secs(10);

/// Show sampled violations with their reason and the nearest rows
///
/// Events are only written while somebody listens, up to a limit per reason and second; events without room are counted as
/// lost. At the end, standard error has the number of violations, and how many were shown, not sampled, and lost. With
/// `--json`, a line with the field `summary` has the same, at the end and every ten seconds in which something happened.
/// `portguard counters` counts all violations.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard events --follow --port tcp/443  who is dropped at one port
  portguard events --follow --peer 10.0.0.0/8 --json | jq .source
  portguard events --seconds 60 --direction out \\
      --reason undocumented-destination-port")]
pub struct EventsArgs {
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Listen until interrupted, not only for `--seconds`
    #[arg(short, long)]
    follow: bool,
    /// How long to listen
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "follow",
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    seconds: u64,
    #[command(flatten)]
    filter: Filter,
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
    /// Write the start of each frame to a pcapng file, with the reason as its comment: the first 96 bytes, of shorter frames
    /// 74, 66, 60, 54, 42 or 14
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// Shows events.
///
/// # Errors
/// If an interface is named that is not guarded, another process reads the events, and what the system refuses.
pub fn run(args: &EventsArgs) -> anyhow::Result<Exit> {
    let observed = observe::interfaces(args.interface.as_deref())?;
    if observed.is_empty() {
        let _ = writeln!(stderr(), "no interface is guarded");
        return Ok(Exit::Ok);
    }
    let names: Vec<&str> = observed.iter().map(|one| one.name.as_str()).collect();
    let capture = match &args.pcap {
        None => None,
        Some(path) => {
            let file =
                File::create(path).with_context(|| format!("cannot make `{}`", path.display()))?;
            Some(Capture::new(BufWriter::new(file), &names)?)
        }
    };
    super::block_on(listen(
        args,
        &observed,
        Sink {
            filter: &args.filter,
            capture,
            json: args.json,
            width: terminal_width(),
        },
    ))?;
    Ok(Exit::Ok)
}

/// Where events go.
struct Sink<'f> {
    filter: &'f Filter,
    capture: Option<Capture<BufWriter<File>>>,
    json: bool,
    /// Columns of the terminal, if it is one.
    width: Option<usize>,
}

impl Sink<'_> {
    /// Says whether anybody still reads.
    fn write(&mut self, listener: &mut Listener<'_>, events: &[Event]) -> anyhow::Result<bool> {
        let booted = booted();
        let mut out = io::stdout().lock();
        let index = listener.index;
        for event in events {
            listener.tally.tell(event);
            let line = listener.words.tell(event, booted);
            if !self.filter.admits(&line) {
                continue;
            }
            if let Some(capture) = &mut self.capture {
                capture.write(index, event, &line, booted)?;
            }
            if !is_read(self.print(&mut out, &line))? {
                return Ok(false);
            }
        }
        if let Some(capture) = &mut self.capture {
            capture.flush().context("cannot write the capture file")?;
        }
        is_read(out.flush())
    }

    fn print(&self, out: &mut dyn io::Write, line: &Line) -> io::Result<()> {
        if self.json {
            json_line(out, line)
        } else {
            writeln!(out, "{}", folded(&plain(&line.text()), self.width))
        }
    }

    /// Says how much of what happened was told. Says whether anybody still reads.
    fn sum_up(&self, summary: &Summary) -> anyhow::Result<bool> {
        if !self.json {
            return Ok(true);
        }
        let mut out = io::stdout().lock();
        let written = json_line(&mut out, &BTreeMap::from([("summary", summary)]));
        is_read(written.and_then(|()| out.flush()))
    }
}

/// Who listens to one interface.
struct Listener<'a> {
    index: u32,
    one: &'a Observed,
    words: Words<'a>,
    tally: Tally,
    lost: u64,
    /// What the last summary said.
    said: u64,
}

impl<'a> Listener<'a> {
    /// Opens the events of an interface: those from now on.
    fn open(
        index: usize,
        one: &'a Observed,
        catalog: &'a Catalog,
    ) -> anyhow::Result<(Stream, Self)> {
        let mut stream = Stream::open(&one.layout)?;
        // What an earlier listener left is not what happens now.
        drop(stream.ready());
        let before = counters(one)?;
        let listener = Self {
            index: u32::try_from(index)?,
            one,
            words: Words::new(&one.name, &one.live.meta.policy, catalog),
            lost: lost_of(&before),
            tally: Tally::new(&one.name, before, now()),
            said: 0,
        };
        stream.announce()?;
        Ok((stream, listener))
    }

    /// Says on standard error how many events there was no room for since the last word.
    fn tell_lost(&mut self, counters: &Snapshot) {
        let now = lost_of(counters);
        let lost = now.saturating_sub(self.lost);
        if lost > 0 {
            let _ = writeln!(
                stderr(),
                "{}: {} lost",
                plain(&self.one.name),
                count(lost, "event")
            );
        }
        self.lost = now;
    }

    fn summary(&mut self, counters: &Snapshot) -> Summary {
        let meta = &self.one.live.meta;
        let summary = self.tally.summary(meta, counters, now());
        self.said = summary.violations;
        summary
    }
}

async fn listen(
    args: &EventsArgs,
    observed: &[Observed],
    mut sink: Sink<'_>,
) -> anyhow::Result<()> {
    let catalog = catalogs::in_force(observed.iter().map(|one| &one.live.meta))?;
    let mut streams = Vec::new();
    let mut listeners = Vec::new();
    for (index, one) in observed.iter().enumerate() {
        let (stream, listener) = Listener::open(index, one, &catalog)?;
        streams.push(stream);
        listeners.push(listener);
    }
    let mut stop = std::pin::pin!(super::interrupted()?);
    let end = tokio::time::sleep(Duration::from_secs(args.seconds));
    let mut end = std::pin::pin!(end);
    let mut clock = tokio::time::interval(ANNOUNCE);
    let mut next_summary = Instant::now() + SUMMARY;
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = &mut end, if !args.follow => break,
            _ = clock.tick() => {
                let is_time = Instant::now() >= next_summary;
                for (stream, listener) in streams.iter().zip(&mut listeners) {
                    stream.announce()?;
                    let counters = counters(listener.one)?;
                    listener.tell_lost(&counters);
                    let said = listener.said;
                    if is_time {
                        let summary = listener.summary(&counters);
                        if summary.violations != said && !sink.sum_up(&summary)? {
                            return Ok(());
                        }
                    }
                }
                if is_time {
                    next_summary = Instant::now() + SUMMARY;
                }
            }
            found = next(&mut streams) => {
                let (index, events) = found?;
                let Some(listener) = listeners.get_mut(index) else { continue };
                if !sink.write(listener, &events)? {
                    return Ok(());
                }
            }
        }
    }
    // What came since the last look, and what there was no room for since the last word.
    for (stream, listener) in streams.iter_mut().zip(&mut listeners) {
        stream.hush()?;
        if !sink.write(listener, &stream.ready())? {
            return Ok(());
        }
        let counters = counters(listener.one)?;
        listener.tell_lost(&counters);
        let summary = listener.summary(&counters);
        if !sink.sum_up(&summary)? {
            return Ok(());
        }
        let _ = writeln!(stderr(), "{}", plain(&summary.text()));
    }
    Ok(())
}

/// The first events of any stream.
async fn next(streams: &mut [Stream]) -> portguard_kernel::Result<(usize, Vec<Event>)> {
    let mut waiting: Vec<_> = streams
        .iter_mut()
        .map(|stream| Box::pin(stream.wait()))
        .collect();
    std::future::poll_fn(|context| {
        for (index, wait) in waiting.iter_mut().enumerate() {
            if let std::task::Poll::Ready(result) = wait.as_mut().poll(context) {
                return std::task::Poll::Ready(result.map(|events| (index, events)));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn counters(one: &Observed) -> portguard_kernel::Result<Snapshot> {
    Snapshot::read(&one.layout.shared(), 0)
}

fn lost_of(snapshot: &Snapshot) -> u64 {
    snapshot.slot(slot::EVENTS_LOST).packets
}

/// Nanoseconds since the Unix epoch, by the clock that events are told by.
fn now() -> u64 {
    booted().saturating_add(boot_time())
}

fn terminal_width() -> Option<usize> {
    let (columns, _) = io::stdout()
        .is_terminal()
        .then(ratatui::crossterm::terminal::size)?
        .ok()?;
    Some(columns.into())
}
