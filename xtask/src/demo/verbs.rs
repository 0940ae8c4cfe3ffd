//! How long verbs take, as operators wait for them: whole processes of the program that is shipped, on the demo's host.

mod ports;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::attempt;
use super::probes::probes;
use super::stage::{INTERFACE, Stage};
use ports::listen_everywhere;

pub(crate) use ports::{ListenArgs, listen};

use crate::shell::{capture, result};

/// Runs of each verb; the median counts.
const RUNS: usize = 21;
const PATIENCE: Duration = Duration::from_mins(1);

/// Verbs, and the milliseconds that they may take. `SITE` stands for the flags of the demo's site.
const VERBS: [(&str, Option<u64>); 14] = [
    ("status", Some(20)),
    ("counters", Some(20)),
    ("counters --violations", Some(20)),
    ("counters --by peer", Some(20)),
    ("check SITE", Some(20)),
    ("report --format html", Some(100)),
    ("drift", None),
    ("flows", None),
    ("events --seconds 0", None),
    ("explain SITE tcp 10.77.0.66 9999", None),
    ("catalog show wso2", None),
    ("export SITE --format nftables", None),
    ("doctor --interface IF", None),
    ("load SITE --interface IF --audit", None),
];

/// What `drift` may take on a host that listens on every port.
const EVERYWHERE: u64 = 500;

/// Times each verb, and writes the table into a page.
pub(crate) fn measure(program: &Path, page: &Path) -> Result<()> {
    let stage = Stage::new(program.to_owned())?;
    stage.load("--audit")?;
    attempt(&stage, &probes())?;
    let mut times = Times::default();
    for (line, most) in VERBS {
        times.add(&stage, program, (line, ""), most)?;
    }
    let everywhere = listen_everywhere(&stage)?;
    let line = ("drift --json", " of a host that listens on every port");
    times.add(&stage, program, line, Some(EVERYWHERE))?;
    drop(everywhere);
    let Times { table, slow } = times;
    let text = format!(
        "# How long verbs take\n\n\
         A whole process each, from its start to its end, on a ThoughtSpot node with one guarded interface: median and quartiles of {RUNS} \
         runs of the program that is shipped, on {}. `cargo xtask bench --verbs` measures it and writes this page.\n\n\
         | verb | median | half of the runs | budget |\n| --- | ---: | --- | ---: |\n{table}",
        machine()?
    );
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))?;
    result(table.trim_end());
    ensure!(slow.is_empty(), "over budget: {}", slow.join(", "));
    Ok(())
}

/// Lines of the table, and the verbs among them that are over their budgets.
#[derive(Default)]
struct Times {
    table: String,
    slow: Vec<String>,
}

impl Times {
    /// Times a verb, about which there may be something to say.
    fn add(
        &mut self,
        stage: &Stage,
        program: &Path,
        (line, about): (&str, &str),
        most: Option<u64>,
    ) -> Result<()> {
        let args = words(line);
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let mut command = Command::new(program);
            command.args(&args).env_remove("PORTGUARD_CONFIG");
            let begin = Instant::now();
            let output = stage.run(&mut command, PATIENCE)?;
            times.push(begin.elapsed());
            ensure!(output.code() <= 1, "`portguard {line}`: {output}");
        }
        times.sort_unstable();
        let at = |part: usize| {
            let index = (times.len() - 1) * part / 4;
            times.get(index).copied().unwrap_or_default()
        };
        let shown = line.replace(" SITE", "").replace("IF", INTERFACE);
        let budget = most.map_or("-".to_owned(), |most| format!("{most} ms"));
        writeln!(
            self.table,
            "| `{shown}`{about} | {} | {} to {} | {budget} |",
            milliseconds(at(2)),
            milliseconds(at(1)),
            milliseconds(at(3))
        )?;
        if most.is_some_and(|most| at(2) > Duration::from_millis(most)) {
            self.slow.push(shown);
        }
        Ok(())
    }
}

fn words(line: &str) -> Vec<&str> {
    let words = line.split(' ');
    words
        .flat_map(|word| match word {
            "SITE" => Stage::site(),
            "IF" => vec![INTERFACE],
            word => vec![word],
        })
        .collect()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Kernel and CPU.
fn machine() -> Result<String> {
    let kernel = capture(Command::new("uname").args(["-s", "-r"]))?;
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("a CPU without a name", |(_, model)| model);
    Ok(format!("{}, {model}", kernel.trim()))
}
