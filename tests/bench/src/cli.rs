//! The command line, and the order in which things are measured.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use portguard_kernel::bench::Effort;

use crate::budget::Budgets;
use crate::machine::Machine;
use crate::plan::{Extent, Plan};
use crate::results::Run;
use crate::{control, docs, held, live, measure, scaling, table};

/// Measures portguard's programs on this machine, beside programs that do nothing.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Cli {
    /// A minute rather than ten: fewer rounds, without the largest policies
    #[arg(long)]
    quick: bool,
    /// Only figures whose name contains this, or one of these: `port/v4,flow/`, `live/`, `control/`,
    /// `conversations/`
    #[arg(long, value_name = "PATTERN", default_value = "")]
    only: String,
    /// Rounds at most, each of one visit to each case that is not measured well enough
    #[arg(long)]
    rounds: Option<u32>,
    /// End after so long: every case is visited once, and some less often than it takes
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(3..=240))]
    minutes: u64,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the figures under this name, for `--against`
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// Compare with the figures that were kept under this name
    #[arg(long, value_name = "NAME")]
    against: Option<String>,
    /// Write `docs/performance.md` and its pictures
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    docs: bool,
    /// Write the page from the figures of this file, and measure nothing
    #[arg(long, hide = true, value_name = "FILE")]
    docs_from: Option<PathBuf>,
    /// Where kept figures are
    #[arg(long, hide = true, default_value = "target/bench")]
    kept: PathBuf,
}

impl Cli {
    pub(crate) fn run(&self) -> Result<()> {
        LazyLock::force(&BEGUN);
        if let Some(path) = &self.docs_from {
            return docs::write(&Run::read(path)?, Path::new("docs"));
        }
        ensure!(
            nix::unistd::geteuid().is_root(),
            "loading programs takes root"
        );
        let against = match &self.against {
            Some(name) => Some(Run::read(&self.file(name))?),
            None => None,
        };
        let budgets = Budgets::read()?;
        let mut machine = Machine::look();
        if self.docs {
            machine.wait_until_quiet()?;
        }
        let mut run = Run::new(machine);
        let extent = Extent {
            only: self.only.clone(),
            quick: self.quick,
        };
        if extent.wants(&["live/", "scaling/"]) {
            live::Stage::check()?;
        }
        // What needs its CPU to itself, and caches that nothing else has filled, comes first.
        if extent.wants(&["control/", "memory/"]) {
            say("control path: compiling");
            run.control = control::run(self.quick)?;
        }
        if extent.wants(&["conversations/"]) {
            let seconds = if self.quick { 3 } else { 10 };
            run.control.extend(held::run(Duration::from_secs(seconds))?);
        }
        if extent.wants(&["live/"]) {
            run.live = live::run(if self.quick { 3 } else { 11 }, self.part(Part::Live))?;
        }
        if extent.wants(&["scaling/"]) {
            run.scaling = scaling::run(if self.quick { 5 } else { 21 })?;
            say("several receive queues");
            run.queues = scaling::queues(if self.quick { 3 } else { 9 })?;
        }
        self.test_runs(&mut run, &extent, &budgets)?;
        run.judge(&budgets);
        run.machine.done();
        if let Some(path) = &self.json {
            run.write(path)?;
        }
        if let Some(name) = &self.save {
            run.write(&self.file(name))?;
        }
        if self.docs {
            docs::write(&run, Path::new("docs"))?;
        }
        table::show(&mut io::stdout().lock(), &run, against.as_ref())?;
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.kept.join(Path::new(name).with_extension("json"))
    }

    /// When a part has to end.
    fn part(&self, part: Part) -> Instant {
        let all = Duration::from_secs(60 * self.minutes);
        match part {
            Part::Live => Instant::now() + all / 4,
            // Some seconds are for what is written in the end.
            Part::TestRuns => *BEGUN + all.saturating_sub(Duration::from_secs(10)),
        }
    }

    fn effort(&self) -> Effort {
        let rounds = if self.quick { 3 } else { 30 };
        Effort {
            rounds: self.rounds.unwrap_or(rounds),
            ..Effort::default()
        }
    }

    fn test_runs(&self, run: &mut Run, extent: &Extent, budgets: &Budgets) -> Result<()> {
        say("loading programs and filling their tables");
        let mut plan = Plan::new(extent)?;
        if plan.cases.is_empty() {
            return Ok(());
        }
        measure::stay_on(0)?;
        let effort = self.effort();
        let count = plan.cases.len();
        let until = self.part(Part::TestRuns);
        let costs = measure::all(&mut plan, effort, until, |round, unsettled| {
            if unsettled > 0 {
                let last = effort.rounds;
                say(&format!(
                    "round {} of at most {last}: {unsettled} of {count} cases",
                    round + 1
                ));
            }
        })?;
        run.add_costs(&plan, &costs, budgets);
        Ok(())
    }
}

/// What takes as long as it may.
#[derive(Debug, Clone, Copy)]
enum Part {
    Live,
    TestRuns,
}

/// When this run began.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Says how far it is, and after how long. Nobody listening is no failure.
pub(crate) fn say(line: &str) {
    let seconds = BEGUN.elapsed().as_secs();
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let _ = writeln!(io::stderr().lock(), "{minutes}:{seconds:02} {line}");
}
