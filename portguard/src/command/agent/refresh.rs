//! Domain names of the policies in force: asked again when their TTLs end, and swapped in when their addresses change.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use super::names::{Bounds, Names, News};
use crate::command::load::keep;
use crate::domains::Domains;
use crate::human::now;
use crate::kernel::generation::{self, Live};
use crate::kernel::refresh::refresh;
use crate::metrics;
use crate::observe;
use crate::resolve::{Answer, Resolver, server};

/// How long to wait where no name is due.
const IDLE: Duration = Duration::from_hours(1);

/// How domain names are resolved.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Domain names")]
pub(super) struct NamesArgs {
    /// Name server to ask [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = server, env = "PORTGUARD_RESOLVER")]
    resolver: Option<SocketAddr>,
    /// Seconds between two questions for a name, at least, however short its TTL
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    min_ttl: u64,
    /// Seconds between two questions for a name, at most, however long its TTL
    #[arg(long, value_name = "N", default_value_t = 3600,
          value_parser = clap::value_parser!(u64).range(1..=604_800))]
    max_ttl: u64,
    /// Seconds that an address stays admitted after its name's answer has lost it: names that rotate answer with some of
    /// their addresses at a time
    #[arg(long, value_name = "N", default_value_t = 900,
          value_parser = clap::value_parser!(u64).range(0..=604_800))]
    hold: u64,
}

/// What was swapped in, by interface.
type Swapped = anyhow::Result<Vec<(String, Live)>>;

/// Questions, answers and swaps.
pub(super) struct Refresher {
    names: Names,
    bounds: Bounds,
    server: Option<SocketAddr>,
    /// Made when the first name is met: without names nobody needs a name server.
    resolver: Option<Resolver>,
    questions: JoinSet<(String, Answer)>,
    swaps: JoinSet<Swapped>,
    /// There are answers that no swap has taken yet.
    has_news: bool,
    /// The last swap failed, and is tried again.
    has_failed: bool,
    swapped: u64,
}

impl Refresher {
    pub(super) fn new(args: &NamesArgs) -> Self {
        Self {
            names: Names::default(),
            bounds: Bounds {
                least: Duration::from_secs(args.min_ttl.min(args.max_ttl)),
                most: Duration::from_secs(args.max_ttl),
                hold: Duration::from_secs(args.hold),
            },
            server: args.resolver,
            resolver: None,
            questions: JoinSet::new(),
            swaps: JoinSet::new(),
            has_news: false,
            has_failed: false,
            swapped: 0,
        }
    }

    /// Looks at which names the policies in force have.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        if self.has_news || !self.swaps.is_empty() {
            // What is in force is about to change.
            self.has_news |= std::mem::take(&mut self.has_failed);
            return Ok(());
        }
        self.has_news = std::mem::take(&mut self.has_failed);
        let mut policies: Vec<Domains> = Vec::new();
        for layout in observe::layouts(None)? {
            if let Some(live) = generation::live(&layout)? {
                policies.push(live.meta.policy.domains);
            }
        }
        self.names.track(policies.iter(), Instant::now());
        Ok(())
    }

    /// Waits until something happens to a name, and does what follows.
    pub(super) async fn step(&mut self) {
        self.swap_if_new();
        let next = self.names.next();
        let due = next.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => self.ask(),
            Some(answered) = self.questions.join_next() => {
                if let Ok((name, answer)) = answered {
                    self.answered(&name, answer);
                }
            }
            Some(swapped) = self.swaps.join_next() => match swapped {
                Ok(swapped) => self.swapped(swapped),
                Err(error) => tracing::error!("a swap broke off: {error}"),
            },
        }
    }

    fn ask(&mut self) {
        let due = self.names.due(Instant::now());
        if due.is_empty() {
            return;
        }
        if self.resolver.is_none() {
            match Resolver::new(self.server) {
                Ok(resolver) => self.resolver = Some(resolver),
                Err(error) => {
                    let why = format!("{error:#}");
                    for name in due {
                        self.answered(&name, [Err(why.clone()), Err(why.clone())]);
                    }
                    return;
                }
            }
        }
        for name in due {
            if let Some(resolver) = self.resolver.clone() {
                self.questions.spawn(async move {
                    let answer = resolver.lookup(&name).await;
                    (name, answer)
                });
            }
        }
    }

    fn answered(&mut self, name: &str, answer: Answer) {
        match self
            .names
            .answered(name, answer, (Instant::now(), now()), &self.bounds)
        {
            News::Nothing => {}
            News::Failed(why) => {
                tracing::warn!(domain = %name, "does not resolve ({why}): the last good answer stays");
                // Other name servers, perhaps, next time.
                if self.server.is_none() {
                    self.resolver = None;
                }
            }
            News::Recovered => tracing::info!(domain = %name, "resolves again"),
        }
        self.has_news = true;
    }

    /// Swaps in all answers at once, when no more are under way.
    fn swap_if_new(&mut self) {
        if !self.has_news || !self.questions.is_empty() || !self.swaps.is_empty() {
            return;
        }
        self.has_news = false;
        let answers = self.names.answers();
        // Loading takes the kernel a while; scrapes are answered meanwhile.
        self.swaps.spawn_blocking(move || refresh(&answers));
    }

    fn swapped(&mut self, swapped: Swapped) {
        match swapped {
            Ok(swapped) => {
                for (interface, live) in swapped {
                    self.swapped += 1;
                    tracing::info!(
                        %interface,
                        generation = live.meta.number,
                        digest = %live.meta.digest,
                        "addresses of domain names changed: swapped"
                    );
                    keep(&interface, &live);
                }
            }
            Err(error) => {
                self.has_failed = true;
                tracing::error!("{error:#}; what was in force still is");
            }
        }
    }

    /// What the metrics say of the names.
    pub(super) fn state(&self) -> metrics::Names {
        let name = |(text, name): (&str, &super::names::Name)| metrics::Name {
            name: text.to_owned(),
            addresses: name.addresses().len(),
            error: name.error.clone(),
            failures: name.failures,
            answered: name.answered,
            is_used: name.is_used,
        };
        metrics::Names {
            names: self.names.iter().map(name).collect(),
            swaps: self.swapped,
        }
    }
}
