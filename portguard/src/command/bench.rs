//! `portguard bench`: what the guard costs on this very host.

use anyhow::Context as _;
use aya::programs::Xdp;
use clap::Args;
use serde::Serialize;

use super::table::Column::{Number, Prose, Whole};
use super::table::{Grid, hanging};
use crate::fold::{folded, width};
use crate::stdout::{print, print_field};
use portguard_kernel::bench::classes::classes;
use portguard_kernel::bench::{Baseline, Effort, answer};
use portguard_kernel::generation::{self, Live};
use portguard_kernel::object::memory::{self, Memory};
use portguard_kernel::object::{self, HostFacts};
use portguard_observe::observe;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::image::Image;

/// Measure what a packet costs under the policy in force
///
/// Loads a second copy of the program and policy, with separate counters, flows and events, in a separate network namespace,
/// and runs frames of every kind through it. Traffic and the guard's counters are not affected. Uses one CPU for some
/// seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard bench
  portguard bench --rounds 50 --json     steadier figures")]
pub struct BenchArgs {
    /// Only measure the policy of this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Visit each kind of packet at most N times, with some hundred measurements each
    #[arg(long, value_name = "N", default_value_t = 12,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    generation: u64,
    digest: String,
    /// Milliseconds that loading the program and its tables took.
    load_milliseconds: f64,
    memory: Bytes,
    classes: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Bytes {
    generation: u64,
    shared: u64,
    per_cpu: u64,
}

#[derive(Debug, Serialize)]
struct Measured {
    direction: &'static str,
    class: String,
    what: String,
    verdict: &'static str,
    /// Above a program that drops everything.
    net_nanoseconds: f64,
    spread_nanoseconds: f64,
    /// With the kernel's test loop.
    raw_nanoseconds: f64,
    /// The share of trials that counted, since the core was at its fastest; 0 if nearly none was, so that all did.
    undisturbed: f64,
}

/// Measures, and prints.
///
/// # Errors
/// If nothing is guarded, and what the kernel refuses.
pub fn run(args: &BenchArgs) -> anyhow::Result<Exit> {
    let mut interfaces = Vec::new();
    for layout in observe::layouts(args.interface.as_deref())? {
        if let Some(live) = generation::live(&layout)? {
            let (name, _) = layout.interface();
            interfaces.push(measure(name, &live, args.rounds)?);
        }
    }
    if interfaces.is_empty() {
        return Err(
            Fault::usage("no interface is guarded, so there is no policy to measure")
                .hint("`portguard load` first")
                .into(),
        );
    }
    if args.json {
        print_field("interfaces", &interfaces)?;
    } else {
        text(&interfaces)?;
    }
    Ok(Exit::Ok)
}

fn measure(name: String, live: &Live, rounds: u32) -> anyhow::Result<Interface> {
    let meta = &live.meta;
    let image = Image::build(&meta.policy, meta.directory.clone())
        .context("the policy in force cannot be built again")?;
    let host = HostFacts {
        // As it is in force: events are possible, and since nobody listens to this copy, none are written.
        tick_shift: meta.tick_shift,
        ..HostFacts::default()
    };
    let begun = std::time::Instant::now();
    let mut scratch = object::load(&image, &host, None)?;
    let load_milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    let Memory {
        generation,
        shared,
        per_cpu,
    } = memory::of(&scratch)?;
    let effort = Effort {
        rounds,
        ..Effort::default()
    };
    let mut baseline = Baseline::load()?;
    let classes = classes(&meta.policy);
    let frames: Vec<&[u8]> = classes.iter().map(|class| class.frame.as_slice()).collect();
    let program = scratch.ingress()?;
    let costs = baseline.measure(program, &frames, effort)?;
    let mut measured = Vec::new();
    for (class, cost) in classes.iter().zip(costs) {
        measured.push(Measured {
            direction: "in",
            class: class.name.clone(),
            what: class.what.clone(),
            verdict: verdict(program, &class.frame)?,
            net_nanoseconds: cost.net,
            spread_nanoseconds: cost.spread,
            raw_nanoseconds: cost.raw,
            undisturbed: cost.undisturbed,
        });
    }
    Ok(Interface {
        name,
        generation: meta.number,
        digest: meta.digest.clone(),
        load_milliseconds,
        memory: Bytes {
            generation,
            shared,
            per_cpu,
        },
        classes: measured,
    })
}

fn verdict(program: &Xdp, frame: &[u8]) -> anyhow::Result<&'static str> {
    Ok(match answer(program, frame)? {
        1 => "drop",
        2 => "pass",
        _ => "aborted",
    })
}

fn text(interfaces: &[Interface]) -> anyhow::Result<()> {
    print(|out| {
        for one in interfaces {
            writeln!(
                out,
                "{}: generation {}, loaded once more in {:.0} ms",
                one.name, one.generation, one.load_milliseconds
            )?;
            writeln!(
                out,
                "memory: {} KiB of tables, {} KiB shared, {} KiB a CPU",
                one.memory.generation >> 10,
                one.memory.shared >> 10,
                one.memory.per_cpu >> 10
            )?;
            let mut table = Grid::new(&[
                ("class", Whole),
                ("packet", Prose),
                ("verdict", Whole),
                ("ns", Number),
                ("±", Number),
            ]);
            for class in &one.classes {
                table.row([
                    class.class.clone(),
                    class.what.clone(),
                    class.verdict.to_owned(),
                    format!("{:.1}", class.net_nanoseconds),
                    format!("{:.1}", class.spread_nanoseconds),
                ]);
            }
            writeln!(out, "{table}")?;
        }
        let ns = "CPU time a packet, above a program that drops everything; hot caches, no driver, the core to itself";
        hanging(out, "ns: ", ns)?;
        let disturbed = interfaces
            .iter()
            .flat_map(|one| &one.classes)
            .any(|class| class.undisturbed == 0.0);
        if disturbed {
            let busy = "a core was hardly ever at its full speed: the machine is busy; try again, or use more `--rounds`";
            writeln!(out, "{}", folded(busy, width()))?;
        }
        Ok(())
    })
}
