//! `portguard agent`: metrics, samples for the report, interfaces that come back, domain names whose addresses change.
//! The guard works without it.

mod http;
mod log;
mod names;
mod newcomers;
mod refresh;
mod returning;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;

use self::http::{Request, Response, Room};
use self::log::LogFormat;
use self::newcomers::Newcomers;
use self::refresh::{NamesArgs, Refresher};
use super::{catalogs, drift};
use crate::metrics::{self, Format, Found, Seen};
use portguard_fleet::now;
use portguard_kernel::conversations;
use portguard_kernel::generation::effective::Effective;
use portguard_kernel::generation::endings;
use portguard_observe::evidence;
use portguard_observe::history::{self, Sample};
use portguard_observe::observe;
use portguard_policy::error::{Exit, Fault};

/// How soon the agent puts right what a tool left half done that died.
const TORN_EVERY: Duration = Duration::from_secs(1);
/// How often to look which domain names the policies in force have.
const LOOK: Duration = Duration::from_secs(5);

/// Serve metrics, keep samples for the report, follow domain names, and reattach guards
///
/// The guard is in the kernel and works without the agent: stopping it does not change what is dropped or counted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  systemctl enable --now portguard-agent  as the package runs it
  portguard agent --listen 127.0.0.1:9475
      then `curl 127.0.0.1:9475/metrics`, or `/healthz`
  portguard agent --once  only reattach guards to interfaces that came back")]
pub struct AgentArgs {
    /// Where to listen for scrapes
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9475")]
    listen: SocketAddr,
    /// Where to keep samples
    #[arg(long, value_name = "DIR", default_value = history::DIRECTORY)]
    history: PathBuf,
    /// Seconds between samples
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    /// How to write the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
    /// The same as `--log json`: one object a line, on standard error as all of the log
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    names: NamesArgs,
    #[cfg(feature = "fleet")]
    #[command(flatten)]
    fleet: super::fleet::host::HostArgs,
    /// Reattach guards to interfaces that came back, then exit
    #[arg(long)]
    once: bool,
}

/// Serves until it is told to end.
///
/// # Errors
/// If the address cannot be listened on.
pub fn run(args: &AgentArgs) -> anyhow::Result<Exit> {
    log::begin(if args.json { LogFormat::Json } else { args.log });
    if args.once {
        returning::look()?;
        return Ok(Exit::Ok);
    }
    #[cfg(feature = "fleet")]
    super::fleet::host::begin(&args.fleet)?;
    // Waits in the kernel, and ends with the process.
    let newcomers = Newcomers::since_now();
    std::thread::spawn(|| {
        if let Err(error) = returning::watch(newcomers) {
            tracing::error!("{error:#}");
        }
    });
    super::block_on(agent(args))?;
    Ok(Exit::Ok)
}

async fn agent(args: &AgentArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        let fault = Fault::system(format!("cannot listen on {}", args.listen));
        anyhow::Error::new(error).context(fault.hint("choose another address with `--listen`"))
    })?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    if !address.ip().is_loopback() {
        tracing::warn!("metrics are served to other hosts, without authentication");
    }
    notify("READY=1");
    let mut stop = std::pin::pin!(super::interrupted()?);
    let mut clock = tokio::time::interval(Duration::from_secs(args.every));
    let mut torn = tokio::time::interval(TORN_EVERY);
    let mut look = tokio::time::interval(LOOK);
    let mut state = Watched::default();
    let mut refresher = Refresher::new(&args.names);
    let mut room = Room::default();
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = clock.tick() => state.sample(args),
            _ = torn.tick() => if returning::is_torn() {
                // Waits for the tool that is at work, if it is alive.
                tokio::task::spawn_blocking(returning::look_again);
            },
            _ = look.tick() => state.said(refresher.look()),
            () = refresher.step() => {}
            accepted = listener.accept() => {
                // Out of descriptors, most likely: what was open is answered meanwhile.
                let Ok((peer, _)) = accepted else { tokio::task::yield_now().await; continue };
                let namespace = conversations::find();
                let seen = Seen {
                    drift: state.drift.clone(),
                    names: refresher.state(),
                    sockets: namespace.as_ref().and_then(|found| found.counts().ok()),
                    tables: namespace
                        .and_then(|found| found.bounds().ok())
                        .unwrap_or_default(),
                };
                room.serve(peer, move |request| answer(request, &seen));
            }
        }
    }
    notify("STOPPING=1");
    tracing::info!("ended; the guard goes on");
    Ok(())
}

/// What was seen at the last sample.
#[derive(Default)]
struct Watched {
    drift: Option<Found>,
    generations: BTreeMap<String, (u64, Effective)>,
    last_error: String,
}

impl Watched {
    /// Writes a sample, and looks for drift and for changes worth a line.
    fn sample(&mut self, args: &AgentArgs) {
        let result = self.try_sample(args);
        self.said(result);
    }

    /// Logs an error once, not every minute.
    fn said(&mut self, result: anyhow::Result<()>) {
        let Err(error) = result else { return };
        let error = format!("{error:#}");
        if error != self.last_error {
            tracing::error!("{error}");
        }
        self.last_error = error;
    }

    fn try_sample(&mut self, args: &AgentArgs) -> anyhow::Result<()> {
        if endings::follow_clock()? > 0 {
            tracing::info!("the clock was set: rows end by its time now");
        }
        let observed = observe::interfaces(None)?;
        let mut generations = BTreeMap::new();
        for one in &observed {
            let meta = &one.live.meta;
            let now = (meta.number, one.live.effective.clone());
            if self.generations.get(&one.name) != Some(&now) {
                tracing::info!(
                    interface = %one.name,
                    number = meta.number,
                    mode = now.1.inbound.name(),
                    digest = %meta.digest,
                    "generation"
                );
                if let Some(because) = &now.1.because {
                    tracing::warn!(interface = %one.name, "{because}");
                }
                for ending in now.1.endings.iter().filter(|ending| ending.is_over) {
                    tracing::warn!(interface = %one.name, row = %ending.row, "ended: it opens nothing");
                }
            }
            generations.insert(one.name.clone(), now);
        }
        let before = std::mem::replace(&mut self.generations, generations);
        for interface in before.keys() {
            if !self.generations.contains_key(interface) {
                tracing::warn!(%interface, "no longer guarded");
            }
        }
        let here = observe::listeners()?;
        let each = observed.iter().map(|one| one.sight(&here.1, None, true));
        let seen: Vec<_> = each.collect();
        let mut found = Found::default();
        if !seen.is_empty() {
            // What cannot be read of it was said at the load.
            let (catalog, _) = catalogs::found(observed.iter().map(|one| &one.live.meta))?;
            let drift = drift::gather(&drift::in_force(&observed), &catalog, here, &seen);
            for item in &drift.items {
                *found.ports.entry(item.state).or_default() += 1;
            }
            found.portless = drift.portless.len() as u64;
            let rules = drift.unread.iter().filter(|one| one.is_rule());
            found.unread = rules.count() as u64;
        }
        self.drift = Some(found);
        for one in &observed {
            evidence::gather(one, now())?;
        }
        for (one, sight) in observed.iter().zip(&seen) {
            let sample = Sample::of(&sight.report, now());
            history::append(&args.history, &one.pinned_name(), &sample)
                .with_context(|| format!("cannot keep samples in `{}`", args.history.display()))?;
        }
        Ok(())
    }
}

fn answer(request: &Request, seen: &Seen) -> Response {
    match request.path.as_str() {
        "/metrics" => match observe::interfaces(None) {
            Ok(observed) => {
                let format = Format::accepted(&request.accept);
                Response {
                    status: "200 OK",
                    media_type: format.media_type(),
                    body: metrics::text(&observed, seen, format),
                }
            }
            Err(error) => failed(&error),
        },
        "/healthz" => match observe::interfaces(None) {
            Ok(observed) => health(&observed, &seen.names),
            Err(error) => failed(&error),
        },
        "/" => Response::plain("200 OK", "portguard agent: /metrics, /healthz\n".to_owned()),
        _ => Response::plain("404 Not Found", "404 Not Found\n".to_owned()),
    }
}

/// Healthy is: something is guarded, and all of it is as it should be.
fn health(observed: &[observe::Observed], names: &metrics::Names) -> Response {
    let mut troubles: Vec<String> = observed
        .iter()
        .flat_map(|one| {
            let name = &one.name;
            one.live
                .warnings
                .iter()
                .map(move |warning| format!("{name}: {warning}"))
        })
        .collect();
    troubles.extend(names.names.iter().filter_map(metrics::Name::trouble));
    if observed.is_empty() {
        troubles = vec!["no interface is guarded".to_owned()];
    }
    if troubles.is_empty() {
        Response::plain("200 OK", "ok\n".to_owned())
    } else {
        Response::plain("503 Service Unavailable", troubles.join("\n") + "\n")
    }
}

fn failed(error: &portguard_kernel::Error) -> Response {
    Response::plain("500 Internal Server Error", format!("{error:#}\n"))
}

/// Tells the service manager, where one asked to be told; nothing depends on it.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let path = path.to_string_lossy();
    let address = match path.strip_prefix('@') {
        Some(name) => UnixAddr::from_abstract_name(name),
        None => UnixAddr::from_pathname(path.as_ref()),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}
