//! Horizontal bars: costs by class with their budgets, and live rates.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::paint::{BAD, GOOD, GREY, GRID, INK, PLAIN, Painted, Side, letters};
use crate::results::Run;

/// One bar.
struct Bar {
    name: String,
    value: f64,
    /// Half the height of the whisker.
    spread: f64,
    label: String,
    budget: Option<f64>,
    colour: RGBColor,
}

/// A picture of bars.
struct Picture<'a> {
    title: &'a str,
    note: &'a str,
    /// Largest value that the axis shows; longer bars are cut, with their figure beside.
    limit: f64,
    step: f64,
    groups: Vec<(String, Vec<Bar>)>,
}

const WIDTH: i32 = 900;
const LEFT: i32 = 250;
const RIGHT: i32 = 80;
const TOP: i32 = 76;
const ROW: i32 = 20;

/// Costs by class.
pub(super) fn costs(run: &Run, path: &Path) -> Result<()> {
    let mut groups: Vec<(String, Vec<Bar>)> = Vec::new();
    let classes = run
        .costs
        .iter()
        .filter(|figure| matches!(figure.group.as_str(), "reference" | "class" | "egress"));
    for figure in classes {
        let (family, name) = figure.name.split_once('/').unwrap_or(("", &figure.name));
        let bar = Bar {
            name: name.to_owned(),
            value: figure.net.max(0.0),
            spread: figure.spread,
            label: format!("{:.1}", figure.net),
            budget: figure.budget,
            colour: match figure.met {
                Some(true) => GOOD,
                Some(false) => BAD,
                None => PLAIN,
            },
        };
        match groups.last_mut() {
            Some((last, bars)) if last == title(family) => bars.push(bar),
            _ => groups.push((title(family).to_owned(), vec![bar])),
        }
    }
    let largest = groups.iter().flat_map(|(_, bars)| bars);
    let largest = largest.fold(0.0, |largest: f64, bar| largest.max(bar.value));
    let limit = if largest > 120.0 {
        200.0
    } else if largest > 60.0 {
        100.0
    } else {
        60.0
    };
    let picture = Picture {
        title: "What a packet costs, by kind",
        note: "nanoseconds above a program that does nothing; tick: budget, blue: met, orange: missed, grey: no budget",
        limit,
        step: limit / 10.0,
        groups,
    };
    draw(&picture, path).map_err(|error| anyhow!("{error}"))
}

fn title(family: &str) -> &str {
    match family {
        "reference" => "To compare with",
        "port" => "Ports decide",
        "flow" => "The host's own conversations",
        "source" => "Sources decide, 1,000 prefixes",
        "source100k" => "Sources decide, 100,000 prefixes",
        "egress" => "What the host sends",
        "flood" => "A flood from spoofed sources",
        other => other,
    }
}

/// Rates of denied packets.
pub(super) fn live(run: &Run, path: &Path) -> Result<()> {
    let bars = run.live.iter().filter_map(|one| {
        let (ratio, nanoseconds) = (one.ratio?, one.nanoseconds?);
        let name = one.name.trim_start_matches("live/");
        Some(Bar {
            name: name.to_owned(),
            value: ratio,
            spread: 0.0,
            label: format!("{ratio:.2} ({nanoseconds:.0} ns)"),
            budget: one.budget,
            colour: if name == "portguard" { GOOD } else { PLAIN },
        })
    });
    let picture = Picture {
        title: "Denied packets a second of CPU time",
        note: "against a bare drop in the same run (1.0), on a veth pair; tick: budget",
        limit: 1.1,
        step: 0.1,
        groups: vec![(String::new(), bars.collect())],
    };
    draw(&picture, path).map_err(|error| anyhow!("{error}"))
}

fn draw(picture: &Picture<'_>, path: &Path) -> Painted {
    let rows: usize = picture.groups.iter().map(|(_, bars)| bars.len()).sum();
    let named = picture
        .groups
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .count();
    let height = TOP + ROW * i32::try_from(rows)? + (ROW + 14) * i32::try_from(named)? + 30;
    let size = (u32::try_from(WIDTH)?, u32::try_from(height)?);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    area.draw(&Text::new(
        picture.title,
        (24, 24),
        letters(20, INK, Side::Right),
    ))?;
    area.draw(&Text::new(
        picture.note,
        (24, 46),
        letters(12, GREY, Side::Right),
    ))?;

    let span = f64::from(WIDTH - LEFT - RIGHT);
    #[expect(clippy::cast_possible_truncation, reason = "pixels of a picture")]
    let x = |value: f64| LEFT + (value.min(picture.limit) / picture.limit * span).round() as i32;
    let mut tick = 0.0;
    while tick <= picture.limit + 1e-9 {
        let at = x(tick);
        area.draw(&PathElement::new(
            vec![(at, TOP - 8), (at, height - 24)],
            GRID,
        ))?;
        let digits = usize::from(picture.step < 1.0);
        let text = format!("{tick:.digits$}");
        area.draw(&Text::new(
            text,
            (at, height - 12),
            letters(11, GREY, Side::Middle),
        ))?;
        tick += picture.step;
    }
    let mut y = TOP;
    for (name, bars) in &picture.groups {
        if !name.is_empty() {
            y += 14;
            let style = letters(13, INK, Side::Right);
            area.draw(&Text::new(name.as_str(), (24, y + ROW / 2), style))?;
            y += ROW;
        }
        for bar in bars {
            let middle = y + ROW / 2;
            let style = letters(12, INK, Side::Left);
            area.draw(&Text::new(bar.name.as_str(), (LEFT - 10, middle), style))?;
            let end = x(bar.value);
            let corners = [(LEFT, y + 4), (end.max(LEFT + 1), y + ROW - 4)];
            area.draw(&Rectangle::new(corners, bar.colour.filled()))?;
            let (low, high) = (
                x((bar.value - bar.spread).max(0.0)),
                x(bar.value + bar.spread),
            );
            if high > low {
                area.draw(&PathElement::new(vec![(low, middle), (high, middle)], INK))?;
            }
            let mut after = high.max(end);
            if let Some(budget) = bar.budget {
                let at = x(budget);
                let line = vec![(at, y + 1), (at, y + ROW - 1)];
                area.draw(&PathElement::new(line, INK.stroke_width(2)))?;
                after = if at >= after - 2 && at < after + 44 {
                    at
                } else {
                    after
                };
            }
            let style = letters(11, INK, Side::Right);
            area.draw(&Text::new(bar.label.as_str(), (after + 7, middle), style))?;
            y += ROW;
        }
    }
    area.present()?;
    Ok(())
}
