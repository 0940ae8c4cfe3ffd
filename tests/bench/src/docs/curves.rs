//! Curves: cost against the size of the policy.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::paint::{GREY, GRID, INK, Painted, SERIES, Side, letters};
use crate::results::Run;

/// Size and nanoseconds.
type Points = Vec<(f64, f64)>;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 380;

/// Three panels: ports, prefixes, flows.
pub(super) fn growth(run: &Run, path: &Path) -> Result<()> {
    draw(run, path).map_err(|error| anyhow!("{error}"))
}

fn draw(run: &Run, path: &Path) -> Painted {
    let mut families: BTreeMap<&str, BTreeMap<&str, Points>> = BTreeMap::new();
    for figure in &run.costs {
        let (Some(size), Some((family, name))) = (figure.size, figure.name.split_once('/')) else {
            continue;
        };
        let series = families.entry(family).or_default().entry(name).or_default();
        series.push((f64::from(size), figure.net));
    }
    let all = families.values().flat_map(BTreeMap::values).flatten();
    let highest = all.fold(20.0, |highest: f64, (_, cost)| highest.max(*cost));
    let area = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let title = "What a packet costs as the policy grows";
    area.draw(&Text::new(title, (24, 24), letters(20, INK, Side::Right)))?;
    let note =
        "nanoseconds a packet above a program that does nothing; sizes on a logarithmic axis";
    area.draw(&Text::new(note, (24, 46), letters(12, GREY, Side::Right)))?;
    let (_, below) = area.split_vertically(60);
    let panels = below.split_evenly((1, 3));
    let shown = [
        ("ports", "documented ports"),
        ("prefixes", "prefixes of peers"),
        ("flows", "flows of the host"),
    ];
    for (panel, (family, title)) in panels.iter().zip(shown) {
        if let Some(series) = families.get(family) {
            one(panel, title, series, highest * 1.15)?;
        }
    }
    area.present()?;
    Ok(())
}

fn one(
    panel: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    series: &BTreeMap<&str, Points>,
    highest: f64,
) -> Painted {
    let last = series.values().flatten().map(|(size, _)| *size);
    let last = last.fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .margin(12)
        .margin_right(20)
        .x_label_area_size(44)
        .y_label_area_size(34)
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
