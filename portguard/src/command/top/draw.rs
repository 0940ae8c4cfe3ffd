//! How the dashboard looks. Meaning never hangs on colour: every number has its word.

use std::cmp::Reverse;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};

use super::state::{Guard, Top, VIEWS};
use crate::counters::PortCount;
use crate::events::stream::boot_time;
use crate::human::{bytes, duration, grouped, plain, short};

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, top: &Top) {
    let [head, plots, body, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(5),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let Some((name, guard)) = top.guard() else {
        frame.render_widget(Paragraph::new("no interface is guarded"), frame.area());
        return;
    };
    summary(frame, head, name, guard);
    sparklines(frame, plots, guard);
    match top.view {
        0 => ports(frame, body, top, guard, |_| true),
        1 => ports(frame, body, top, guard, |port| port.violations.packets > 0),
        2 => callers(frame, body, top, name),
        _ => unused(frame, body, top, guard),
    }
    footer(frame, foot, top);
}

fn summary(frame: &mut Frame<'_>, area: Rect, name: &str, guard: &Guard) {
    let report = &guard.report;
    let mode = if report.mode == "enforce" {
        Span::from("enforce").bold().fg(Color::Green)
    } else {
        Span::from("audit").bold().fg(Color::Yellow)
    };
    let mut first = vec![
        Span::from(plain(name)).bold(),
        "  ".into(),
        mode,
        format!(
            "  generation {}  policy {}",
            report.generation,
            report.digest.get(..12).unwrap_or_default()
        )
        .into(),
    ];
    if guard.deadline != 0 {
        let left = guard.deadline.saturating_sub(boot_time()) / 1_000_000_000;
        let words = if left == 0 {
            "  unconfirmed: has given way".to_owned()
        } else {
            format!("  unconfirmed: gives way in {}", duration(left))
        };
        first.push(Span::from(words).bold().reversed());
    }
    let second = format!(
        "{} packets, {}  {} violations {}",
        grouped(report.totals.packets),
        bytes(report.totals.bytes),
        grouped(report.violations.packets),
        if report.mode == "enforce" {
            "dropped"
        } else {
            "that enforcing would drop"
        },
    );
    let third = guard.warnings.first().map_or(String::new(), |warning| {
        format!("warning: {}", plain(warning))
    });
    let lines = vec![Line::from(first), second.into(), Line::from(third).bold()];
    frame.render_widget(Paragraph::new(lines), area);
}

fn sparklines(frame: &mut Frame<'_>, area: Rect, guard: &Guard) {
    let sides: [Rect; 2] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    let both = [
        ("passed", &guard.passed, Color::Green),
        ("violations", &guard.violations, Color::Red),
    ];
    for (area, (title, rates, colour)) in sides.into_iter().zip(both) {
        let now = rates.back().copied().unwrap_or(0);
        let block = Block::bordered().title(format!(" {title} {}/s ", short(now)));
        let room = usize::from(area.width.saturating_sub(2));
        let skip = rates.len().saturating_sub(room);
        let data: Vec<u64> = rates.iter().skip(skip).copied().collect();
        let plot = Sparkline::default()
            .block(block)
            .data(&data)
            .style(Style::new().fg(colour));
        frame.render_widget(plot, area);
    }
}

fn ports(
    frame: &mut Frame<'_>,
    area: Rect,
    top: &Top,
    guard: &Guard,
    is_shown: fn(&PortCount) -> bool,
) {
    let rate = |port: &PortCount| {
        let delta = guard.delta.ports.iter().find(|other| other.is_same(port));
        delta.map_or((0, 0), |delta| {
            (
                guard.rate(delta.passed.packets),
                guard.rate(delta.violations.packets),
            )
        })
    };
    let mut lines: Vec<(&PortCount, (u64, u64))> = guard
        .report
        .ports
        .iter()
        .filter(|port| is_shown(port))
        .map(|port| (port, rate(port)))
        .collect();
    lines.sort_by_key(|(port, (passed, violations))| {
        let total = port.passed.packets + port.violations.packets;
        Reverse((passed + violations, total))
    });
    let rows = lines
        .iter()
        .skip(top.offset)
        .map(|(port, (passed, violations))| {
            let documented = if port.rows.is_empty() {
                "not documented".to_owned()
            } else {
                plain(&port.rows.join(", "))
            };
            let alarm = if port.violations.packets > 0 {
                Style::new().fg(Color::Red)
            } else {
                Style::new()
            };
            Row::new([
                Cell::from(port.direction),
                Cell::from(port.name()).bold(),
                Cell::from(grouped(port.passed.packets)),
                Cell::from(format!("{}/s", short(*passed))),
                Cell::from(grouped(port.violations.packets)).style(alarm),
                Cell::from(format!("{}/s", short(*violations))).style(alarm),
                Cell::from(documented),
            ])
        });
    let widths = [
        Constraint::Length(3),
        Constraint::Length(15),
        Constraint::Length(13),
        Constraint::Length(9),
        Constraint::Length(13),
        Constraint::Length(9),
        Constraint::Fill(1),
    ];
    let header = ["", "port", "passed", "rate", "violations", "rate", "rows"];
    table(frame, area, top, rows.collect(), &widths, &header);
}

fn callers(frame: &mut Frame<'_>, area: Rect, top: &Top, name: &str) {
    let known = top.callers.get(name).into_iter();
    let rows = known
        .flat_map(|knocking| &knocking.callers)
        .skip(top.offset)
        .map(|caller| {
            let time = caller.last.get(11..19).unwrap_or_default().to_owned();
            Row::new([
                Cell::from(caller.direction),
                Cell::from(caller.who().to_owned()).bold(),
                Cell::from(caller.what()),
                Cell::from(caller.amount()).style(Style::new().fg(Color::Red)),
                Cell::from(time),
                Cell::from(caller.reason),
                Cell::from(plain(&caller.near())),
            ])
        });
    let widths = [
        Constraint::Length(3),
        Constraint::Max(26),
        Constraint::Length(14),
        Constraint::Length(16),
        Constraint::Length(8),
        Constraint::Length(24),
        Constraint::Fill(1),
    ];
    let header = ["", "peer", "to", "packets", "last", "reason", "nearest row"];
    table(frame, area, top, rows.collect(), &widths, &header);
}

fn unused(frame: &mut Frame<'_>, area: Rect, top: &Top, guard: &Guard) {
    let never = guard.report.rows.iter().filter(|row| row.packets == 0);
    let rows = never
        .skip(top.offset)
        .map(|row| Row::new([plain(&row.row), plain(&row.purpose), plain(&row.citation)]));
    let widths = [
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Fill(2),
    ];
    let header = ["row", "purpose", "document"];
    table(frame, area, top, rows.collect(), &widths, &header);
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    top: &Top,
    rows: Vec<Row<'_>>,
    widths: &[Constraint],
    header: &[&str],
) {
    let titles = VIEWS.iter().enumerate().flat_map(|(index, view)| {
        let word = format!(" {view} ");
        let word = if index == top.view {
            Span::from(word).bold().reversed()
        } else {
            Span::from(word)
        };
        [word, " ".into()]
    });
    let block = Block::bordered().title(titles.collect::<Line<'_>>());
    let header = Row::new(header.iter().map(|word| Cell::from((*word).to_owned()))).underlined();
    let table = Table::new(rows, widths.iter().copied())
        .header(header)
        .block(block);
    frame.render_widget(table, area);
}

fn footer(frame: &mut Frame<'_>, area: Rect, top: &Top) {
    let mut words = Vec::new();
    if top.is_paused {
        words.push(Span::from(" paused ").reversed());
        words.push("  ".into());
    }
    words.push("tab view  up/down scroll  n interface  space pause  q quit".into());
    frame.render_widget(Line::from(words), area);
}
