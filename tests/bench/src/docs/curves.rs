//! Curves: cost against the size of what grows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::paint::{GREY, GRID, INK, Painted, SERIES, Side, letters};
use crate::results::Run;

/// Size and cost.
type Points = Vec<(f64, f64)>;
/// By family, as in `ports/hot`, and by name.
type Families<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Points>>;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 380;

/// A picture of panels side by side.
struct Picture<'a> {
    title: &'a str,
    note: &'a str,
    /// Family, and what its axis counts.
    panels: &'a [(&'a str, &'a str)],
    families: Families<'a>,
    /// The least that the highest mark of all panels says; none for a scale of its own each.
    shared: Option<f64>,
}

/// What a packet costs: ports, rows, prefixes, flows.
pub(super) fn packets(run: &Run, path: &Path) -> Result<()> {
    let costs = run.costs.iter();
    let sized = costs.filter_map(|one| Some((one.name.as_str(), one.size?, one.net)));
    let picture = Picture {
        title: "What a packet costs as the policy grows",
        note: "nanoseconds a packet above a program that does nothing; sizes on a logarithmic axis",
        panels: &[
            ("ports", "documented ports"),
            ("rows", "rows"),
            ("prefixes", "prefixes of peers"),
            ("flows", "flows of the host"),
        ],
        families: families(sized),
        shared: Some(20.0),
    };
    picture.draw(path).map_err(|error| anyhow!("{error}"))
}

/// What somebody waits for: rows, interfaces, hosts.
pub(super) fn waits(run: &Run, path: &Path) -> Result<()> {
    let times = run.control.iter().filter(|one| one.unit == "ms");
    let sized = times.filter_map(|one| Some((one.name.as_str(), one.size?, one.value)));
    let picture = Picture {
        title: "What a load takes as a host or a site grows",
        note: "milliseconds, a scale for each; sizes on a logarithmic axis",
        panels: &[
            ("rows", "rows for sixteen ports"),
            ("interfaces", "interfaces of one load"),
            ("hosts", "hosts of a site, compiled"),
        ],
        families: families(sized),
        shared: None,
    };
    picture.draw(path).map_err(|error| anyhow!("{error}"))
}

fn families<'a>(sized: impl Iterator<Item = (&'a str, u32, f64)>) -> Families<'a> {
    let mut families = Families::new();
    for (name, size, cost) in sized {
        if let Some((family, name)) = name.split_once('/') {
            let series = families.entry(family).or_default().entry(name).or_default();
            series.push((f64::from(size), cost));
        }
    }
    families
}

fn highest<'a>(series: impl Iterator<Item = &'a Points>, least: f64) -> f64 {
    series
        .flatten()
        .fold(least, |highest, (_, cost)| highest.max(*cost))
}

impl Picture<'_> {
    fn draw(&self, path: &Path) -> Painted {
        let area = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE)?;
        area.draw(&Text::new(
            self.title,
            (24, 24),
            letters(20, INK, Side::Right),
        ))?;
        area.draw(&Text::new(
            self.note,
            (24, 46),
            letters(12, GREY, Side::Right),
        ))?;
        let (_, below) = area.split_vertically(60);
        let all = self.families.values().flat_map(BTreeMap::values);
        let shared = self.shared.map(|least| highest(all, least));
        let areas = below.split_evenly((1, self.panels.len()));
        for (area, (family, title)) in areas.iter().zip(self.panels) {
            if let Some(series) = self.families.get(family) {
                let highest = shared.unwrap_or_else(|| highest(series.values(), 0.0));
                panel(area, title, series, highest * 1.25)?;
            }
        }
        area.present()?;
        Ok(())
    }
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    series: &BTreeMap<&str, Points>,
    highest: f64,
) -> Painted {
    let last = series.values().flatten().map(|(size, _)| *size);
    let last = last.fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_right(20)
        .x_label_area_size(44)
        .y_label_area_size(40)
        .build_cartesian_2d((1.0..last * 1.3).log_scale(), 0.0..highest)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_desc(title)
        .x_labels(5)
        .y_labels(6)
        .x_label_formatter(&|size| human(*size))
        .y_label_formatter(&|cost| format!("{cost:.0}"))
        .label_style(letters(11, GREY, Side::Middle))
        .axis_desc_style(letters(12, INK, Side::Middle))
        .draw()?;
    for ((name, points), colour) in series.iter().zip(SERIES) {
        let line = points.iter().copied();
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name.replace('-', " "))
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 14, y)], colour.stroke_width(2))
            });
        let dots = points
            .iter()
            .map(|point| Circle::new(*point, 3, colour.filled()));
        chart.draw_series(dots)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .label_font(letters(11, INK, Side::Right))
        .draw()?;
    Ok(())
}

/// `65k`, `1M`.
fn human(size: f64) -> String {
    if size >= 1e6 {
        format!("{:.0}M", size / 1e6)
    } else if size >= 1e3 {
        format!("{:.0}k", size / 1e3)
    } else {
        format!("{size:.0}")
    }
}
