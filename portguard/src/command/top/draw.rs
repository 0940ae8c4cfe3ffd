//! How the dashboard looks. Meaning never hangs on colour: every number has its word.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};

use super::state::{Guard, Top, VIEWS};
use crate::command::table::wrapped;
use portguard_kernel::generation::effective::Strictness;
use portguard_observe::counters::{Report, RowCount};
use portguard_observe::events::stream::boot_time;
use portguard_policy::human::{bytes, count, duration, grouped, plain, short};

/// From so many columns on, numbers are shown in full, and more of them.
const WIDE: u16 = 110;

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
        _ if top.is_help => help(frame, body),
        0 => ports(frame, body, top, guard),
        1 => findings(frame, body, top, guard),
        2 => talkers(frame, body, top, name),
        _ => unused(frame, body, top, guard),
    }
    footer(frame, foot, top);
}

fn summary(frame: &mut Frame<'_>, area: Rect, name: &str, guard: &Guard) {
    let report = &guard.report;
    let now = report.effective.inbound;
    let mode = Span::from(now.name()).bold().fg(match now {
        Strictness::Enforce => Color::Green,
        Strictness::Audit => Color::Yellow,
        Strictness::Off => Color::Red,
    });
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
        "{}, {}  {}",
        count(report.totals.packets, "packet"),
        bytes(report.totals.bytes),
        violations(report),
    );
    let third = guard.warnings.first().map_or(String::new(), |warning| {
        format!("warning: {}", plain(warning))
    });
    let lines = vec![Line::from(first), second.into(), Line::from(third).bold()];
    frame.render_widget(Paragraph::new(lines), area);
}

/// How many violations there were, and what becomes of them: each direction has a mode of its own.
fn violations(report: &Report) -> String {
    let (inwards, outwards) = report.violations_by_direction();
    let total = count(report.violations.packets, "violation");
    let now = &report.effective;
    if now.inbound == Strictness::Off && now.outbound == Strictness::Off {
        return format!("{total}; now, nothing is judged");
    }
    let is_dropped = |strictness| strictness == Strictness::Enforce;
    match (is_dropped(now.inbound), is_dropped(now.outbound)) {
        (true, false) if outwards > 0 => format!(
            "{total}: {} in, dropped; {} out, counted only",
            grouped(inwards),
            grouped(outwards)
        ),
        (false, true) if inwards > 0 => format!(
            "{total}: {} in, counted only; {} out, dropped",
            grouped(inwards),
            grouped(outwards)
        ),
        (true, _) | (_, true) if report.violations.packets == 0 => format!("{total} to drop"),
        (true, _) | (_, true) => format!("{total}; now, they are dropped"),
        (false, false) if outwards > 0 => format!(
            "{total}: {} in, {} out; counted only",
            grouped(inwards),
            grouped(outwards)
        ),
        (false, false) => format!("{total} that enforcing would drop"),
    }
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

/// What the keys do.
const HELP: [(&str, &str); 9] = [
    ("tab, left, right", "another view"),
    ("up, down, page up, page down", "scroll"),
    ("s", "sort by rate, total or name"),
    (
        "/",
        "show only lines with these letters; enter keeps, esc clears",
    ),
    ("n", "the next interface"),
    ("space", "pause"),
    ("?", "this help"),
    ("q, esc", "quit"),
    (
        "",
        "findings: one problem is one entry, whatever ports and peers it has",
    ),
];

fn help(frame: &mut Frame<'_>, area: Rect) {
    const KEYS: usize = 30;
    let room = usize::from(area.width.saturating_sub(2)).saturating_sub(KEYS);
    let lines = HELP.iter().flat_map(|(keys, does)| {
        let does = wrapped(does, room).into_iter().enumerate();
        does.map(move |(index, line)| {
            let keys = if index == 0 { *keys } else { "" };
            Line::from(vec![
                Span::from(format!("{keys:<KEYS$}")).bold(),
                line.into(),
            ])
        })
    });
    let block = Block::bordered().title(" keys ");
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), area);
}

fn findings(frame: &mut Frame<'_>, area: Rect, top: &Top, guard: &Guard) {
    let all = top.findings(guard);
    let is_wide = area.width >= WIDE;
    let (what, peers) = if is_wide { (26, 34) } else { (18, 20) };
    let columns = [3, what, 12, peers];
    let room = rest(area, &columns);
    let rows = shown(&all, top).map(|finding| {
        let cause = wrapped(&finding.cause(), room);
        let height = u16::try_from(cause.len()).unwrap_or(1);
        let cause: Vec<Line<'_>> = cause.into_iter().map(Line::from).collect();
        Row::new([
            Cell::from(finding.direction),
            Cell::from(fit(&plain(&finding.what), what.into())).bold(),
            Cell::from(Line::from(finding.amount()).right_aligned())
                .style(Style::new().fg(Color::Red)),
            Cell::from(fit(&finding.who(if is_wide { 2 } else { 1 }), peers.into())),
            Cell::from(cause),
        ])
        .height(height)
    });
    let header = ["", "finding", ">violations", "peers", "cause"];
    table(frame, area, top, rows.collect(), &columns, &header);
}

fn ports(frame: &mut Frame<'_>, area: Rect, top: &Top, guard: &Guard) {
    let lines = top.ports(guard);
    let is_wide = area.width >= WIDE;
    // In full where there is room.
    let number = if is_wide { grouped } else { short };
    let columns = if is_wide {
        [3, 15, 13, 9, 13, 9]
    } else {
        [3, 15, 8, 8, 10, 8]
    };
    let room = rest(area, &columns);
    let rows = shown(&lines, top).map(|(port, (passed, violations))| {
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
        let right = |text: String| Cell::from(Line::from(text).right_aligned());
        Row::new([
            Cell::from(port.direction),
            Cell::from(port.name()).bold(),
            right(number(port.passed.packets)),
            right(format!("{}/s", short(*passed))),
            right(number(port.violations.packets)).style(alarm),
            right(format!("{}/s", short(*violations))).style(alarm),
            Cell::from(fit(&documented, room)),
        ])
    });
    let others = guard.report.passed_without_port();
    let others = others.filter(|(one, what)| top.matches(&[&one.reason, what, one.direction]));
    let rows = rows.chain(others.map(|(one, what)| {
        let rate = guard.rate(guard.delta.packets_like(one));
        let right = |text: String| Cell::from(Line::from(text).right_aligned());
        Row::new([
            Cell::from(one.direction),
            Cell::from(one.reason.clone()),
            right(number(one.packets)),
            right(format!("{}/s", short(rate))),
            Cell::default(),
            Cell::default(),
            Cell::from(fit(what, room)),
        ])
    }));
    let header = [
        "",
        "port",
        ">passed",
        ">rate",
        ">violations",
        ">rate",
        "rows",
    ];
    table(frame, area, top, rows.collect(), &columns, &header);
}

/// Characters of the longest IPv6 address.
const ADDRESS: u16 = 39;
/// Columns that other things than addresses need on a narrow screen.
const REST: u16 = 41;

fn talkers(frame: &mut Frame<'_>, area: Rect, top: &Top, name: &str) {
    let known = top.talkers(name);
    let is_wide = area.width >= WIDE;
    // Addresses and numbers before all else; what is left out on a narrow screen is in `counters --by peer`.
    let (peer, to) = if is_wide { (24, 18) } else { (23, 16) };
    // An IPv6 address takes of the reason first.
    let most = ADDRESS.min(area.width.saturating_sub(REST)).max(peer);
    let longest = known.iter().map(|talker| talker.who().len()).max();
    let peer =
        u16::try_from(longest.unwrap_or(0)).map_or(most, |longest| longest.clamp(peer, most));
    let (columns, header): (&[u16], &[&str]) = if is_wide {
        (
            &[3, peer, to, 16, 8, 24],
            &[
                "",
                "peer",
                "to",
                ">packets",
                "last",
                "reason",
                "nearest row",
            ],
        )
    } else {
        (
            &[3, peer, to, 10],
            &["", "peer", "to", ">packets", "reason"],
        )
    };
    let room = rest(area, columns);
    let rows = shown(&known, top).map(|talker| {
        // The reason says that it is malformed: why fits beside it.
        let what = talker
            .cause
            .map_or_else(|| talker.what(), ToOwned::to_owned);
        let amount = if is_wide {
            talker.amount()
        } else {
            let about = if talker.estimated { "~" } else { "" };
            format!("{about}{}", short(talker.packets))
        };
        let mut cells = vec![
            Cell::from(talker.direction),
            Cell::from(fit(talker.who(), peer.into())).bold(),
            Cell::from(fit(&what, to.into())),
            Cell::from(Line::from(amount).right_aligned()).style(Style::new().fg(Color::Red)),
        ];
        if is_wide {
            let time = talker.last.get(11..19).unwrap_or_default().to_owned();
            cells.push(Cell::from(time));
            cells.push(Cell::from(talker.reason));
            cells.push(Cell::from(fit(&plain(&talker.near()), room)));
        } else {
            cells.push(Cell::from(fit(talker.reason, room)));
        }
        Row::new(cells)
    });
    table(frame, area, top, rows.collect(), columns, header);
}

fn unused(frame: &mut Frame<'_>, area: Rect, top: &Top, guard: &Guard) {
    let never: Vec<&RowCount> = guard
        .report
        .rows
        .iter()
        .filter(|row| row.packets == 0 && top.matches(&[&row.row, &row.purpose]))
        .collect();
    // Names of rows in full: they are what one looks for.
    let longest = never.iter().map(|row| row.row.chars().count()).max();
    let name = longest.unwrap_or(0).min(usize::from(area.width) / 2).max(3);
    let name = u16::try_from(name).unwrap_or(u16::MAX);
    let purpose = area.width.saturating_sub(name + 4) / 2;
    let columns = [name, purpose];
    let room = rest(area, &columns);
    let rows = shown(&never, top).map(|row| {
        Row::new([
            fit(&plain(&row.row), name.into()),
            fit(&plain(&row.purpose), purpose.into()),
            fit(&plain(&row.citation), room),
        ])
    });
    let header = ["row", "purpose", "document"];
    table(frame, area, top, rows.collect(), &columns, &header);
}

/// The lines from the one that was scrolled to; the last stays on the screen.
fn shown<'l, T>(lines: &'l [T], top: &Top) -> impl Iterator<Item = &'l T> {
    let last = lines.len().saturating_sub(1);
    lines.iter().skip(top.offset.min(last))
}

/// What columns of these widths leave for the last one: a space between each two, and the frame around.
fn rest(area: Rect, columns: &[u16]) -> usize {
    let taken: u16 = columns.iter().map(|width| width + 1).sum();
    usize::from(area.width.saturating_sub(taken + 2))
}

/// A text that shows where it was cut.
fn fit(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(1)).collect();
    kept + "…"
}

/// Draws rows below a header; a `>` before its word stands over numbers. The last column takes what the others leave.
fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    top: &Top,
    rows: Vec<Row<'_>>,
    columns: &[u16],
    header: &[&str],
) {
    let titles = VIEWS.iter().enumerate().flat_map(|(index, view)| {
        let number = top.guard().map_or(0, |(_, guard)| guard.findings.len());
        let word = match *view {
            "findings" if number > 0 => format!(" findings: {number} "),
            view => format!(" {view} "),
        };
        let word = if index == top.view {
            Span::from(word).bold().reversed()
        } else {
            Span::from(word)
        };
        [word, " ".into()]
    });
    let block = Block::bordered().title(titles.collect::<Line<'_>>());
    let words = header.iter().map(|word| match word.strip_prefix('>') {
        Some(word) => Line::from(word.to_owned()).right_aligned(),
        None => Line::from((*word).to_owned()),
    });
    let header = Row::new(words.map(Cell::from)).underlined();
    let widths = columns.iter().map(|width| Constraint::Length(*width));
    let table = Table::new(rows, widths.chain([Constraint::Fill(1)]))
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
    if top.is_typing || !top.filter.is_empty() {
        let cursor = if top.is_typing { "_" } else { "" };
        words.push(Span::from(format!(" /{}{cursor} ", top.filter)).reversed());
        words.push("  ".into());
    }
    words.push(
        format!(
            "tab view  s sort: {}  / filter  n interface  space pause  ? help  q quit",
            top.sort.name()
        )
        .into(),
    );
    frame.render_widget(Line::from(words), area);
}
