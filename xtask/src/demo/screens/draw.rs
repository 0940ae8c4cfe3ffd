//! What a terminal shows, as SVG: each run of cells of one look is a text of the width that the grid gives it.

use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 18.0;
const MARGIN: f32 = 14.0;
const BAR: f32 = 30.0;
const INK: &str = "#d7dde5";
const PAPER: &str = "#11161d";

/// The first sixteen colours of a terminal, dark theme.
const PALETTE: [&str; 16] = [
    "#3b4552", "#e2765f", "#4fb990", "#d9a441", "#7aaae0", "#b491d6", "#5fb7c4", "#d7dde5",
    "#7c8794", "#f0917d", "#6fd3ab", "#eec06a", "#9cc3f0", "#cdb0ea", "#83d3df", "#ffffff",
];

/// How a run of cells looks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    ink: Color,
    paper: Color,
    is_bold: bool,
    is_dim: bool,
}

impl Look {
    fn of(cell: &Cell) -> Self {
        let (ink, paper) = (cell.fgcolor(), cell.bgcolor());
        let (ink, paper) = if cell.inverse() {
            (swap(paper, 0), swap(ink, 7))
        } else {
            (ink, paper)
        };
        Self {
            ink,
            paper,
            is_bold: cell.bold(),
            is_dim: cell.dim(),
        }
    }
}

/// A colour that is not said, as the one that it has on this theme.
fn swap(color: Color, usual: u8) -> Color {
    if color == Color::Default {
        Color::Idx(usual)
    } else {
        color
    }
}

/// The first `most` lines of a screen.
pub(super) fn svg(screen: &Screen, most: u16, title: &str) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let used = (0..rows).rev().find(|row| !is_empty(screen, *row, columns));
    let rows = used.map_or(1, |row| row + 1).min(most);
    let (width, height) = (
        f32::from(columns) * WIDTH + 2.0 * MARGIN,
        f32::from(rows) * HEIGHT + BAR + 2.0 * MARGIN,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" font-size=\"14\" role=\"img\" aria-label=\"{title}\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{PAPER}\"/>\n\
         <text x=\"{MARGIN}\" y=\"21\" fill=\"#7c8794\">$ {}</text>\n",
        escaped(title)
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let Some(look) = screen.cell(row, column).map(Look::of) else {
                break;
            };
            let first = column;
            let mut text = String::new();
            while let Some(cell) = screen
                .cell(row, column)
                .filter(|cell| Look::of(cell) == look)
            {
                let contents = cell.contents();
                text.push_str(if contents.is_empty() { " " } else { contents });
                column += 1;
            }
            run(&mut out, (row, first, column - first), look, &text);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn is_empty(screen: &Screen, row: u16, columns: u16) -> bool {
    (0..columns).all(|column| {
        let cell = screen.cell(row, column);
        cell.is_none_or(|cell| cell.contents().trim().is_empty() && !cell.inverse())
    })
}

/// Cells of one look, from a column on.
fn run(out: &mut String, (row, column, count): (u16, u16, u16), look: Look, text: &str) {
    let (x, y) = (
        MARGIN + f32::from(column) * WIDTH,
        BAR + MARGIN + f32::from(row) * HEIGHT,
    );
    let width = f32::from(count) * WIDTH;
    if let Some(paper) = colour(look.paper) {
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"{paper}\"/>"
        );
    }
    let kept = text.trim_end();
    if kept.is_empty() {
        return;
    }
    // Blanks at the start move the text rather than being drawn.
    let blanks = kept.chars().take_while(|one| *one == ' ').count();
    let kept = kept.trim_start();
    let cells = |count: usize| u16::try_from(count).map_or(0.0, f32::from) * WIDTH;
    let ink = colour(look.ink).unwrap_or_else(|| INK.to_owned());
    let bold = if look.is_bold {
        " font-weight=\"700\""
    } else {
        ""
    };
    let dim = if look.is_dim { " opacity=\"0.65\"" } else { "" };
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" textLength=\"{:.1}\" xml:space=\"preserve\" fill=\"{ink}\"{bold}{dim}>{}</text>",
        x + cells(blanks),
        y + 13.5,
        cells(kept.chars().count()),
        escaped(kept)
    );
}

/// As SVG names it; `None` = what the terminal has by itself.
fn colour(color: Color) -> Option<String> {
    match color {
        Color::Default => None,
        Color::Idx(index) => Some(palette(index)),
        Color::Rgb(red, green, blue) => Some(format!("#{red:02x}{green:02x}{blue:02x}")),
    }
}

fn palette(index: u8) -> String {
    if let Some(known) = PALETTE.get(usize::from(index)) {
        return (*known).to_owned();
    }
    if index >= 232 {
        let grey = 8 + 10 * (index - 232);
        return format!("#{grey:02x}{grey:02x}{grey:02x}");
    }
    let part = |step: u8| match step {
        0 => 0,
        step => 55 + 40 * step,
    };
    let index = index - 16;
    let (red, green, blue) = (index / 36, index / 6 % 6, index % 6);
    format!("#{:02x}{:02x}{:02x}", part(red), part(green), part(blue))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::svg;

    fn nonzero(number: u16) -> NonZero<u16> {
        NonZero::new(number).unwrap()
    }

    #[test]
    fn cells_keep_their_place_and_look() {
        let mut terminal = vt100::Parser::new(nonzero(4), nonzero(20), 0);
        terminal.process(b"a < b\x1b[3;5H\x1b[1;31mred\x1b[0m \x1b[7mbar\x1b[0m");
        let drawn = svg(terminal.screen(), 9, "portguard x");
        for wanted in [
            "$ portguard x",
            ">a &lt; b</text>",
            "x=\"47.6\" y=\"93.5\" textLength=\"25.2\" xml:space=\"preserve\" fill=\"#e2765f\" font-weight=\"700\">red<",
            "<rect x=\"81.2\" y=\"80.0\" width=\"25.2\"",
        ] {
            assert!(drawn.contains(wanted), "{wanted}\n{drawn}");
        }
        // Three lines are used, of four.
        assert!(drawn.contains("viewBox=\"0 0 196 112\""), "{drawn}");
    }
}
