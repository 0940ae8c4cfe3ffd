//! Domain names of the policies in force: asked again when their TTLs end, and swapped in when their addresses change.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use super::names::{Bounds, Names, News};
use crate::command::load::keep;
use crate::metrics;
use portguard_fleet::now;
use portguard_kernel::generation;
use portguard_kernel::generation::refresh::{Refreshed, provide, refresh};
use portguard_kernel::generation::standby::Standby;
use portguard_kernel::host::resolve::{Answer, Resolver, server};
use portguard_observe::observe;
use portguard_policy::domains::Domains;

/// How long to wait where no name is due.
const IDLE: Duration = Duration::from_hours(1);

/// How domain names are resolved.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Domain names")]
pub(super) struct NamesArgs {
    /// Name server to ask [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = server, env = "PORTGUARD_RESOLVER")]
    resolver: Option<SocketAddr>,
    /// Minimum seconds between two queries for a name, however short its TTL
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    min_ttl: u64,
    /// Maximum seconds between two queries for a name, however long its TTL
    #[arg(long, value_name = "N", default_value_t = 3600,
          value_parser = clap::value_parser!(u64).range(1..=604_800))]
    max_ttl: u64,
    /// Seconds that an address stays admitted after it disappeared from the answer: rotating names return only some of their
    /// addresses at a time
    #[arg(long, value_name = "N", default_value_t = 900,
          value_parser = clap::value_parser!(u64).range(0..=604_800))]
    hold: u64,
}

/// What was swapped in.
type Swapped = portguard_kernel::Result<Vec<Refreshed>>;

/// Work of the kernel that has come to its end.
enum Done {
    /// Addresses were swapped in.
    Swapped(Swapped),
    /// Programs were loaded for the next time.
    Provided(portguard_kernel::Result<()>),
}

/// Questions, answers and swaps.
pub(super) struct Refresher {
    names: Names,
    bounds: Bounds,
    server: Option<SocketAddr>,
    /// Made when the first name is met: without names nobody needs a name server.
    resolver: Option<Resolver>,
    questions: JoinSet<(String, Answer)>,
    swaps: JoinSet<(Done, Standby)>,
    /// Programs for the next swap; while one is under way, it has them.
    standby: Standby,
    /// There are answers that no swap has taken yet.
    has_news: bool,
    /// The last swap failed, and is tried again.
    has_failed: bool,
    /// Programs for the next swap could not be loaded: not tried again before that.
    cannot_provide: bool,
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
            standby: Standby::default(),
            has_news: false,
            has_failed: false,
            cannot_provide: false,
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
        self.standby.forget_gone();
        let mut policies: Vec<Domains> = Vec::new();
        let mut lacks_standby = false;
        for layout in observe::layouts(None)? {
            if let Some(live) = generation::live(&layout)? {
                lacks_standby |= self.standby.lacks(&layout, &live);
                policies.push(live.meta.policy.domains);
            }
        }
        self.names.track(policies.iter(), Instant::now());
        if lacks_standby && !self.has_news && !self.cannot_provide {
            self.provide();
        }
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
                Ok((done, standby)) => {
                    self.standby = standby;
                    self.done(done);
                }
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
        let mut standby = std::mem::take(&mut self.standby);
        self.swaps
            .spawn_blocking(move || (Done::Swapped(refresh(&answers, &mut standby)), standby));
    }

    /// Has programs loaded for the next swap, where there are none; nothing waits for that.
    fn provide(&mut self) {
        let mut standby = std::mem::take(&mut self.standby);
        self.swaps
            .spawn_blocking(move || (Done::Provided(provide(&mut standby)), standby));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Swapped(swapped) => {
                self.swapped(swapped);
                self.cannot_provide = false;
            }
            Done::Provided(Ok(())) => {
                tracing::info!("programs for the next swap of addresses are ready");
            }
            Done::Provided(Err(error)) => {
                self.cannot_provide = true;
                tracing::warn!("{error:#}: the next swap of addresses takes longer");
            }
        }
    }

    fn swapped(&mut self, swapped: Swapped) {
        match swapped {
            Ok(swapped) => {
                for Refreshed {
                    interface,
                    live,
                    from_standby,
                } in swapped
                {
                    self.swapped += 1;
                    tracing::info!(
                        %interface,
                        generation = live.meta.number,
                        digest = %live.meta.digest,
                        from_standby,
                        "addresses of domain names changed: swapped"
                    );
                    keep(&interface, &live);
                }
            }
            Err(error) => {
                self.has_failed = true;
                tracing::error!("{error:#}; the policy in force stays");
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
