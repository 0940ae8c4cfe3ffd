//! `portguard events`: sampled violations as they happen.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use portguard_common::abi::{Event, slot};

use crate::catalog::Catalog;
use crate::error::Exit;
use crate::events::pcap::Capture;
use crate::events::stream::{Stream, booted};
use crate::events::{Line, Words};
use crate::human::plain;
use crate::observe::{self, Observed};

/// How often a listener says that it still listens, and looks for events that were lost.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// Show sampled violations with their reason, and the rows that come near
///
/// The data plane writes events only while somebody listens, a bounded number of each reason in a second; what there is
/// no room for is counted as lost. `portguard counters` counts all.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Go on until interrupted; otherwise listen for `--seconds`
    #[arg(short, long)]
    follow: bool,
    /// How long to listen
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "follow",
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    seconds: u64,
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
    /// Write the heads of the frames to a pcapng file, with the reason as each packet's comment; the kernel keeps the first
    /// 96 bytes, of shorter frames 74, 66, 60, 54, 42 or 14
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
        let _ = writeln!(io::stderr(), "no interface is guarded");
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for events")?;
    runtime.block_on(listen(
        args,
        &observed,
        Sink {
            capture,
            json: args.json,
        },
    ))?;
    Ok(Exit::Ok)
}

/// Where events go.
struct Sink {
    capture: Option<Capture<BufWriter<File>>>,
    json: bool,
}

impl Sink {
    /// Says whether anybody still reads.
    fn write(&mut self, index: u32, words: &Words<'_>, events: &[Event]) -> anyhow::Result<bool> {
        let booted = booted();
        let mut out = io::stdout().lock();
        for event in events {
            let line = words.tell(event, booted);
            if let Some(capture) = &mut self.capture {
                capture.write(index, event, &line, booted)?;
            }
            if let Err(error) = self.print(&mut out, &line) {
                return ended(error);
            }
        }
        if let Some(capture) = &mut self.capture {
            capture.flush().context("cannot write the capture file")?;
        }
        match out.flush() {
            Ok(()) => Ok(true),
            Err(error) => ended(error),
        }
    }

    fn print(&self, out: &mut impl io::Write, line: &Line) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, line)?;
            writeln!(out)
        } else {
            writeln!(out, "{}", plain(&line.text()))
        }
    }
}

fn ended(error: io::Error) -> anyhow::Result<bool> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Ok(false)
    } else {
        Err(error).context("cannot write to standard output")
    }
}

async fn listen(args: &EventsArgs, observed: &[Observed], mut sink: Sink) -> anyhow::Result<()> {
    let catalog = Catalog::embedded()?;
    let mut streams = Vec::new();
    for one in observed {
        let stream = Stream::open(&one.layout)?;
        stream.announce()?;
        streams.push((
            stream,
            Words::new(&one.name, &one.live.meta.policy, &catalog),
        ));
    }
    let mut lost: Vec<u64> = observed.iter().map(|one| lost_of(&one.raw)).collect();
    let mut stop = std::pin::pin!(super::interrupted()?);
    let end = tokio::time::sleep(Duration::from_secs(args.seconds));
    let mut end = std::pin::pin!(end);
    let mut clock = tokio::time::interval(ANNOUNCE);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = &mut end, if !args.follow => break,
            _ = clock.tick() => {
                for ((stream, _), (one, lost)) in streams.iter().zip(observed.iter().zip(&mut lost)) {
                    stream.announce()?;
                    tell_lost(one, lost)?;
                }
            }
            found = next(&mut streams) => {
                let (index, events) = found?;
                let Some((_, words)) = streams.get(index) else { continue };
                if !sink.write(u32::try_from(index)?, words, &events)? {
                    return Ok(());
                }
            }
        }
    }
    // What came since the last look, and what there was no room for since the last word.
    for (index, (stream, words)) in streams.iter_mut().enumerate() {
        stream.hush()?;
        if !sink.write(u32::try_from(index)?, words, &stream.ready())? {
            return Ok(());
        }
    }
    for (one, lost) in observed.iter().zip(&mut lost) {
        tell_lost(one, lost)?;
    }
    Ok(())
}

/// The first events of any stream.
async fn next(streams: &mut [(Stream, Words<'_>)]) -> anyhow::Result<(usize, Vec<Event>)> {
    let mut waiting: Vec<_> = streams
        .iter_mut()
        .map(|(stream, _)| Box::pin(stream.wait()))
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

fn lost_of(snapshot: &crate::counters::Snapshot) -> u64 {
    snapshot.slot(slot::EVENTS_LOST).packets
}

/// Says on standard error how many events there was no room for since the last word.
fn tell_lost(one: &Observed, before: &mut u64) -> anyhow::Result<()> {
    let snapshot = crate::counters::Snapshot::read(&one.layout.shared(), 0)?;
    let now = lost_of(&snapshot);
    let lost = now.saturating_sub(*before);
    if lost > 0 {
        let _ = writeln!(io::stderr(), "{}: {lost} events lost", plain(&one.name));
    }
    *before = now;
    Ok(())
}
