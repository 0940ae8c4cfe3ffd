//! What a person reads.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, Color, Table, presets};

use crate::budget::Budgets;
use crate::results::{Figure, Run, labelled};

/// All tables of a run; with another one, how much has changed since.
pub(crate) fn show(out: &mut dyn Write, run: &Run, against: Option<&Run>) -> io::Result<()> {
    let machine = &run.machine;
    writeln!(
        out,
        "portguard {} on Linux {}, {} x {}{}; {:.0} % of the CPU time went to other work before; load {:.1} before, {:.1} after",
        machine.version,
        machine.kernel,
        machine.cpus,
        machine.processor,
        if machine.is_virtual { " (virtual)" } else { "" },
        machine.busy * 100.0,
        machine.load[0],
        machine.load[1],
    )?;
    for (group, title) in [
        ("reference", "What it is compared with"),
        ("class", "Packets that arrive"),
        ("egress", "Packets that leave"),
        ("growth", "Growing policies"),
    ] {
        let figures: Vec<&Figure> = run
            .costs
            .iter()
            .filter(|figure| figure.group == group)
            .collect();
        if !figures.is_empty() {
            writeln!(
                out,
                "\n{title}: ns a packet above a program that does nothing"
            )?;
            writeln!(out, "{}", costs(&figures, against))?;
        }
    }
    if !run.growth.is_empty() {
        writeln!(out, "\nGrowth from the smallest to the largest policy, ns")?;
        let mut table = new(&["case", "from", "to", "more", "times", "budget", ""]);
        for growth in &run.growth {
            table.add_row(vec![
                Cell::new(&growth.name),
                right(growth.from),
                right(growth.to),
                right(format!("{:+.1}", growth.more)),
                right(format!("{:.2}", growth.times)),
                right(
                    growth
                        .budget
                        .map_or(String::new(), |budget| format!("< {budget}")),
                ),
                verdict(growth.met),
            ]);
        }
        writeln!(out, "{table}")?;
    }
    if !run.live.is_empty() {
        writeln!(
            out,
            "\nPackets on a veth pair, CPU time of the receiver; rate against a bare drop (or pass) right before, and against a drop that has read the Ethernet type"
        )?;
        writeln!(out, "{}", live(run))?;
    }
    if !run.scaling.is_empty() {
        writeln!(
            out,
            "\nOne port on several CPUs at once, ns a packet with the test loop"
        )?;
        let mut table = new(&["program", "one CPU", "all", "CPUs"]);
        for one in &run.scaling {
            table.add_row(vec![
                Cell::new(&one.name),
                right(format!("{:.1}", one.alone)),
                right(format!("{:.1}", one.together)),
                right(one.cpus),
            ]);
        }
        writeln!(out, "{table}")?;
    }
    if !run.queues.is_empty() {
        writeln!(
            out,
            "\nDenied packets from all CPUs to a veth with several receive queues, which the same CPUs poll"
        )?;
        writeln!(out, "{}", queues(run))?;
    }
    if !run.control.is_empty() {
        writeln!(out, "\nControl path")?;
        writeln!(out, "{}", control(run))?;
    }
    let verdicts = run.verdicts();
    let met = verdicts.iter().filter(|met| **met).count();
    writeln!(out, "\n{met} of {} budgets met", verdicts.len())?;
    missed(out, run)
}

/// What is beyond its budget, and where it stands what was tried.
fn missed(out: &mut dyn Write, run: &Run) -> io::Result<()> {
    let budgets = Budgets::read().map_err(io::Error::other)?;
    for one in run.missed() {
        writeln!(
            out,
            "missed: {}: {:.3} times {}, budget {}; {}",
            one.name,
            one.ratio,
            one.of,
            one.budget,
            match budgets.tried(&one.name) {
                Some(tried) => format!("what was tried: {tried}"),
                None => "nothing was tried yet".to_owned(),
            }
        )?;
    }
    Ok(())
}

fn control(run: &Run) -> Table {
    let mut table = new(&["what", "value", "", "budget", "of it", ""]);
    for one in &run.control {
        table.add_row(vec![
            Cell::new(one.label()),
            right(format!("{:.1}", one.value)),
            Cell::new(&one.unit),
            right(
                one.budget
                    .map_or(String::new(), |budget| format!("{budget}")),
            ),
            right(
                one.budget
                    .map_or(String::new(), |budget| format!("{:.2}", one.value / budget)),
            ),
            verdict(one.met),
        ]);
    }
    table
}

fn queues(run: &Run) -> Table {
    let mut table = new(&["program", "queues", "Mpackets/s", "ns of the receiver"]);
    for one in &run.queues {
        table.add_row(vec![
            Cell::new(&one.name),
            right(one.count),
            right(format!("{:.2}", one.rate)),
            right(format!("{:.0}", one.nanoseconds)),
        ]);
    }
    table
}

fn live(run: &Run) -> Table {
    let mut table = new(&["case", "ns", "rate", "of touching", "budget", ""]);
    for one in &run.live {
        let figure = |value: Option<f64>, digits: usize| {
            right(value.map_or(String::new(), |value| format!("{value:.digits$}")))
        };
        let last = match &one.absent {
            Some(why) => Cell::new(format!("absent: {why}")),
            None => verdict(one.met),
        };
        table.add_row(vec![
            Cell::new(&one.name),
            figure(one.nanoseconds, 0),
            figure(one.ratio, 2),
            figure(one.touching, 2),
            right(
                one.budget
                    .map_or(String::new(), |budget| format!(">= {budget}")),
            ),
            last,
        ]);
    }
    table
}

fn costs(figures: &[&Figure], against: Option<&Run>) -> Table {
    let mut head = vec![
        "case",
        "net",
        "±",
        "reference",
        "times it",
        "budget",
        "",
        "raw",
        "bare",
        "counted",
    ];
    if against.is_some() {
        head.push("before");
        head.push("change");
    }
    let mut table = new(&head);
    for figure in figures {
        let mut row = vec![
            Cell::new(labelled(&figure.name, figure.size)),
            right(format!("{:.1}", figure.net)),
            right(format!("{:.1}", figure.spread)),
            right(figure.against.as_ref().map_or(String::new(), |against| {
                let net = against.net.unwrap_or(f64::NAN);
                format!(
                    "{} {net:.1}",
                    against.reference.trim_start_matches("reference/")
                )
            })),
            right(
                figure
                    .ratio()
                    .map_or(String::new(), |ratio| format!("{ratio:.2}")),
            ),
            right(
                figure
                    .against
                    .as_ref()
                    .map_or(String::new(), |against| format!("{}", against.times)),
            ),
            verdict(figure.met),
            right(format!("{:.1}", figure.raw)),
            right(format!("{:.1}", figure.bare)),
            right(counted(figure)),
        ];
        if let Some(before) = against {
            let found = before
                .costs
                .iter()
                .find(|other| other.name == figure.name && other.size == figure.size);
            row.push(right(
                found.map_or(String::new(), |b| format!("{:.1}", b.net)),
            ));
            row.push(change(figure, found));
        }
        table.add_row(row);
    }
    table
}

/// How much of what was measured counted: "all" if too little would have.
pub(crate) fn counted(figure: &Figure) -> String {
    if figure.undisturbed > 0.0 {
        format!("{:.0}%", figure.undisturbed * 100.0)
    } else {
        "all".to_owned()
    }
}

/// Beyond what both runs scatter, in colour.
fn change(now: &Figure, before: Option<&Figure>) -> Cell {
    let Some(before) = before else {
        return Cell::new("");
    };
    let change = now.net - before.net;
    let cell = right(format!("{change:+.1}"));
    if change.abs() <= now.spread + before.spread {
        cell
    } else if change < 0.0 {
        cell.fg(Color::Green)
    } else {
        cell.fg(Color::Red)
    }
}

fn new(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(head);
    table
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "numbers and strings made for it"
)]
fn right(text: impl ToString) -> Cell {
    Cell::new(text.to_string()).set_alignment(CellAlignment::Right)
}

fn verdict(met: Option<bool>) -> Cell {
    match met {
        Some(true) => Cell::new("met").fg(Color::Green),
        Some(false) => Cell::new("MISSED").fg(Color::Red),
        None => Cell::new(""),
    }
}
