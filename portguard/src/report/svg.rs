//! Plots: inline SVG that takes its colours from the page, so that it follows light, dark and print.

use std::fmt::Write as _;

use super::escape::escape;
use portguard_policy::human::{grouped, short, time};

/// Horizontal bars: label, value, class of the bar.
pub(super) fn bars(title: &str, values: &[(String, u64, &str)]) -> String {
    const LABEL: usize = 240;
    const WIDTH: usize = 600;
    const STEP: usize = 26;
    let most = values
        .iter()
        .map(|(_, value, _)| *value)
        .max()
        .unwrap_or(0)
        .max(1);
    let height = values.len() * STEP + 4;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\" class=\"plot\">",
        escape(title)
    );
    for (index, (label, value, class)) in values.iter().enumerate() {
        let room = u64::try_from(WIDTH - LABEL - 90).unwrap_or(1);
        // At least a sliver: what occurred at all must be seen.
        let length = (value.saturating_mul(room) / most).max(u64::from(*value > 0) * 2);
        let y = index * STEP;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"label\">{}</text>\
             <rect x=\"{LABEL}\" y=\"{}\" width=\"{length}\" height=\"16\" rx=\"2\" class=\"{class}\"/>\
             <text x=\"{}\" y=\"{}\" class=\"value\">{}</text>",
            LABEL - 10,
            y + 17,
            escape(label),
            y + 5,
            u64::try_from(LABEL).unwrap_or(0) + length + 7,
            y + 17,
            grouped(*value),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Columns over time: start of each span in seconds since the Unix epoch, and count.
pub(super) fn columns(title: &str, values: &[(u64, u64)], end: u64) -> String {
    const WIDTH: u64 = 1120;
    const HEIGHT: u64 = 170;
    const LEFT: u64 = 48;
    const BOTTOM: u64 = 24;
    // Even, so that the line in the middle stands for a whole number.
    let most = values
        .iter()
        .map(|(_, value)| *value)
        .max()
        .unwrap_or(0)
        .max(2)
        .next_multiple_of(2);
    let count = u64::try_from(values.len()).unwrap_or(1).max(1);
    let floor = HEIGHT - BOTTOM;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" class=\"plot wide\">",
        escape(title)
    );
    for (part, value) in [(0, 0), (1, most / 2), (2, most)] {
        let y = floor - part * (floor - 14) / 2;
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\" class=\"grid\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"label\">{}</text>",
            LEFT - 8,
            y + 4,
            short(value)
        );
    }
    for (index, (at, value)) in values.iter().enumerate() {
        let index = u64::try_from(index).unwrap_or(0);
        let (from, to) = (
            LEFT + index * (WIDTH - LEFT) / count,
            LEFT + (index + 1) * (WIDTH - LEFT) / count,
        );
        let tall = (value.saturating_mul(floor - 14) / most).max(u64::from(*value > 0) * 2);
        let _ = write!(
            svg,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{tall}\" class=\"bad\"><title>{}: {}</title></rect>",
            from + 1,
            floor - tall,
            (to - from).saturating_sub(2).max(1),
            time(*at),
            grouped(*value),
        );
    }
    let begin = values.first().map_or(end, |(at, _)| *at);
    let _ = write!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" class=\"label\">{}</text>\
         <text x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\" class=\"label\">{}</text></svg>",
        HEIGHT - 6,
        time(begin),
        HEIGHT - 6,
        time(end)
    );
    svg
}
