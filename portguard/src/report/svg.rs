//! Plots: inline SVG that takes its colours from the page, so that it follows light, dark and print. Each is drawn twice, and the
//! page's style shows the one whose text can be read at its width.

use std::fmt::Write as _;

use super::escape::escape;
use portguard_policy::human::{grouped, short, time};

/// The screen that a plot is for; its class in the style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Screen {
    Wide,
    /// A telephone.
    Narrow,
}

impl Screen {
    const ALL: [Self; 2] = [Self::Wide, Self::Narrow];

    /// Begins a plot of this many units; on its screen a unit is about a pixel.
    fn plot(self, title: &str, width: u64, height: u64) -> String {
        let class = match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        };
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\" class=\"plot {class}\">",
            escape(title)
        )
    }
}

/// Horizontal bars: label, value, class of the bar.
pub(super) fn bars(title: &str, values: &[(String, u64, &str)]) -> String {
    let each = Screen::ALL.map(|screen| bars_on(screen, title, values));
    each.concat()
}

fn bars_on(screen: Screen, title: &str, values: &[(String, u64, &str)]) -> String {
    /// For the number behind a bar.
    const NUMBER: u64 = 90;
    // Labels stand before the bars, or above them.
    let (width, left, step) = match screen {
        Screen::Wide => (600, 240, 26),
        Screen::Narrow => (360, 0, 44),
    };
    let most = values.iter().map(|(_, value, _)| *value).max();
    let most = most.unwrap_or(0).max(1);
    let mut svg = screen.plot(title, width, values.len() as u64 * step + 4);
    for (index, (label, value, class)) in (0_u64..).zip(values) {
        // At least a sliver: what occurred at all must be seen.
        let room = width - left - NUMBER;
        let length = (value.saturating_mul(room) / most).max(u64::from(*value > 0) * 2);
        let y = index * step;
        let (label_x, anchor, bar_y) = match screen {
            Screen::Wide => (left - 10, "end", y + 5),
            Screen::Narrow => (0, "start", y + 23),
        };
        let _ = write!(
            svg,
            "<text x=\"{label_x}\" y=\"{}\" text-anchor=\"{anchor}\" class=\"label\">{}</text>\
             <rect x=\"{left}\" y=\"{bar_y}\" width=\"{length}\" height=\"16\" rx=\"2\" class=\"{class}\"/>\
             <text x=\"{}\" y=\"{}\" class=\"value\">{}</text>",
            y + 17,
            escape(label),
            left + length + 7,
            bar_y + 12,
            grouped(*value),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Columns over time, of so many parts at most: `values` gives the start of each in seconds since the Unix epoch, and its count.
pub(super) fn columns(
    title: &str,
    most: usize,
    end: u64,
    values: impl Fn(usize) -> Vec<(u64, u64)>,
) -> String {
    let each = Screen::ALL.map(|screen| {
        // A column is a few pixels wide.
        let most = match screen {
            Screen::Wide => most,
            Screen::Narrow => most.min(32),
        };
        columns_on(screen, title, &values(most), end)
    });
    each.concat()
}

fn columns_on(screen: Screen, title: &str, values: &[(u64, u64)], end: u64) -> String {
    const HEIGHT: u64 = 170;
    const LEFT: u64 = 48;
    const BOTTOM: u64 = 24;
    let width = match screen {
        Screen::Wide => 1120,
        Screen::Narrow => 360,
    };
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
    let mut svg = screen.plot(title, width, HEIGHT);
    for (part, value) in [(0, 0), (1, most / 2), (2, most)] {
        let y = floor - part * (floor - 14) / 2;
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\" class=\"grid\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\" class=\"label\">{}</text>",
            LEFT - 8,
            y + 4,
            short(value)
        );
    }
    for (index, (at, value)) in (0_u64..).zip(values) {
        let (from, to) = (
            LEFT + index * (width - LEFT) / count,
            LEFT + (index + 1) * (width - LEFT) / count,
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
    // Without the year where both would not stand side by side.
    let moment = |at: u64| {
        let text = time(at);
        match screen {
            Screen::Wide => text,
            Screen::Narrow => text.get(5..).unwrap_or(&text).to_owned(),
        }
    };
    let _ = write!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" class=\"label\">{}</text>\
         <text x=\"{width}\" y=\"{}\" text-anchor=\"end\" class=\"label\">{}</text></svg>",
        HEIGHT - 6,
        moment(begin),
        HEIGHT - 6,
        moment(end)
    );
    svg
}
