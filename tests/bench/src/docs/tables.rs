//! The tables of the page, in Markdown.

mod first;

use std::fmt::Write as _;

use crate::budget::Budgets;
use crate::results::{Figure, Run, labelled};
use crate::table::counted;

/// What stands at each place of the template.
pub(super) fn all(run: &Run) -> Vec<(&'static str, String)> {
    let group =
        |name: &str| -> Vec<&Figure> { run.costs.iter().filter(|one| one.group == name).collect() };
    let classes: Vec<&Figure> = [group("reference"), group("class"), group("egress")].concat();
    vec![
        ("short", first::packets(run)),
        ("others", first::others(run)),
        ("link", first::link(run)),
        ("machine", machine(run)),
        ("summary", summary(run)),
        ("missed", missed(run)),
        ("classes", costs(&classes)),
        ("growth", costs(&group("growth"))),
        ("live", live(run)),
        ("scaling", scaling(run)),
        ("queues", queues(run)),
        ("control", control(run)),
        ("wire", wire(run)),
    ]
}

fn machine(run: &Run) -> String {
    let machine = &run.machine;
    let mut text = format!(
        "{} CPUs, {}{}, Linux {}, portguard {}. Before it began, {:.0} % of its CPU time went to other work{}.",
        machine.cpus,
        machine.processor,
        if machine.is_virtual {
            " (a virtual machine)"
        } else {
            ""
        },
        machine.kernel,
        machine.version,
        machine.busy * 100.0,
        if machine.is_quiet() {
            ""
        } else {
            ": it was not quiet, and its figures are worth less"
        },
    );
    if !machine.mitigations.is_empty() {
        let _ = write!(
            text,
            " Guards against speculation: {}.",
            machine.mitigations.join("; ")
        );
    }
    text
}

fn summary(run: &Run) -> String {
    let verdicts = run.verdicts();
    let met = verdicts.iter().filter(|met| **met).count();
    format!("**{met} of {} budgets met.**", verdicts.len())
}

/// What is beyond its budget.
fn missed(run: &Run) -> String {
    let missed = run.missed();
    if missed.is_empty() {
        return "Nothing is beyond its budget.".to_owned();
    }
    let mut text = "Beyond their budgets, and what was tried:\n\n\
         | figure | times | of | budget | tried |\n| --- | ---: | --- | ---: | --- |\n"
        .to_owned();
    let budgets = Budgets::read().ok();
    for one in missed {
        let tried = budgets
            .as_ref()
            .and_then(|budgets| budgets.tried(&one.name));
        let tried = tried.map_or("nothing yet".to_owned(), |tried| {
            let path = tried.trim_start_matches("docs/");
            format!("[here]({})", path.trim_start_matches("performance.md"))
        });
        let _ = writeln!(
            text,
            "| `{}` | {:.3} | `{}` | {} | {tried} |",
            one.name, one.ratio, one.of, one.budget
        );
    }
    text
}

const fn word(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    }
}

/// As many digits as it has, and one at the most.
fn budget(budget: Option<f64>) -> String {
    budget.map_or(String::new(), |budget| {
        let text = format!("{budget:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    })
}

fn costs(figures: &[&Figure]) -> String {
    let mut text =
        "| packets | net ns | ± | reference, ns | times it | budget | | raw ns | counted |\n| --- | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: |\n"
            .to_owned();
    for one in figures {
        let _ = writeln!(
            text,
            "| `{}` | {:.1} | {:.1} | {} | {} | {} | {} | {:.1} | {} |",
            labelled(&one.name, one.size),
            one.net,
            one.spread,
            against(one),
            one.ratio()
                .map_or(String::new(), |ratio| format!("{ratio:.2}")),
            one.against
                .as_ref()
                .map_or(String::new(), |against| budget(Some(against.times))),
            word(one.met),
            one.raw,
            counted(one)
        );
    }
    text
}

/// What it is compared with, and what that costs.
fn against(figure: &Figure) -> String {
    figure.against.as_ref().map_or(String::new(), |against| {
        let reference = against.reference.trim_start_matches("reference/");
        format!("`{reference}` {:.1}", against.net.unwrap_or(f64::NAN))
    })
}

fn live(run: &Run) -> String {
    let mut text =
        "| in force | ns of the receiver | rate | rate against a touching drop | budget | |\n| --- | ---: | ---: | ---: | ---: | --- |\n"
            .to_owned();
    for one in &run.live {
        let title = one.name.trim_start_matches("live/");
        let _ = match (&one.absent, one.nanoseconds, one.ratio) {
            (None, Some(nanoseconds), Some(ratio)) => writeln!(
                text,
                "| {title} | {nanoseconds:.0} | {ratio:.2} | {} | {} | {} |",
                one.touching
                    .map_or(String::new(), |ratio| format!("{ratio:.2}")),
                budget(one.budget),
                word(one.met)
            ),
            (why, ..) => {
                let why = why.as_deref().unwrap_or("not measured");
                writeln!(text, "| {title} | | | | | absent: {why} |")
            }
        };
    }
    text
}

fn scaling(run: &Run) -> String {
    let mut text = "| program | one CPU, raw ns | all at once, raw ns | CPUs |\n| --- | ---: | ---: | ---: |\n".to_owned();
    for one in &run.scaling {
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {} |",
            one.name, one.alone, one.together, one.cpus
        );
    }
    text
}

fn queues(run: &Run) -> String {
    let mut text = "| program | receive queues | million packets a second | ns of the receiver |\n| --- | ---: | ---: | ---: |\n".to_owned();
    for one in &run.queues {
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.0} |",
            one.name, one.count, one.rate, one.nanoseconds
        );
    }
    text
}

fn control(run: &Run) -> String {
    let mut text =
        "| what | measured | budget | of it | |\n| --- | ---: | ---: | ---: | --- |\n".to_owned();
    for one in &run.control {
        let _ = writeln!(
            text,
            "| `{}` | {:.1} {} | {} | {} | {} |",
            one.label(),
            one.value,
            one.unit,
            budget(one.budget),
            one.budget
                .map_or(String::new(), |budget| format!("{:.2}", one.value / budget)),
            word(one.met)
        );
    }
    text
}

/// Bits that a frame takes on the wire beside its own: preamble and gap.
const BESIDE: f64 = 20.0 * 8.0;
/// What drivers take for a packet that XDP drops, nanoseconds; an assumption, see the page.
pub(super) const DRIVER: f64 = 25.0;

/// The arithmetic of fast links.
fn wire(run: &Run) -> String {
    let cost = |name: &str| {
        let found = run.costs.iter().find(|one| one.name == name);
        found.map_or(f64::NAN, |one| one.net.max(0.0))
    };
    let (denied, random) = (
        cost("flow/v4-tcp-no-flow-syn"),
        cost("port/v4-random-ports-and-sources"),
    );
    let mut text = format!(
        "With {denied:.1} ns for a denied packet and {random:.1} ns for one of random port and source, and {DRIVER:.0} ns for the driver:\n\n\
         | link | frame | packets a second | ns a packet on one core | cores, one port | cores, random |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for gigabits in [10.0, 25.0, 100.0, 400.0] {
        for bytes in [64.0, 512.0, 1518.0] {
            let rate = gigabits * 1e9 / (bytes * 8.0 + BESIDE);
            let cores = |cost: f64| (rate * (cost + DRIVER) / 1e9).ceil();
            let _ = writeln!(
                text,
                "| {gigabits} Gb/s | {bytes} B | {:.1} M | {:.1} | {:.0} | {:.0} |",
                rate / 1e6,
                1e9 / rate,
                cores(denied),
                cores(random)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::BESIDE;

    #[test]
    fn the_wire_carries_what_the_standard_says() {
        let rate = |gigabits: f64| gigabits * 1e9 / (64.0 * 8.0 + BESIDE);
        assert!((rate(25.0) / 1e6 - 37.2).abs() < 0.01);
        assert!((rate(100.0) / 1e6 - 148.8).abs() < 0.02);
        assert!((rate(400.0) / 1e6 - 595.2).abs() < 0.1);
    }
}
