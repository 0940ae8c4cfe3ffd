//! Colours and letters that the pictures share.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Anything that plotters refuses.
pub(super) type Painted = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Letters and axes.
pub(super) const INK: RGBColor = RGBColor(31, 41, 51);
/// Letters of less weight.
pub(super) const GREY: RGBColor = RGBColor(107, 119, 133);
/// Lines behind everything.
pub(super) const GRID: RGBColor = RGBColor(229, 232, 236);
/// What keeps its budget.
pub(super) const GOOD: RGBColor = RGBColor(37, 99, 168);
/// What does not.
pub(super) const BAD: RGBColor = RGBColor(200, 80, 32);
/// What has no budget.
pub(super) const PLAIN: RGBColor = RGBColor(150, 170, 190);

/// Lines of a series, by their order.
pub(super) const SERIES: [RGBColor; 6] = [
    RGBColor(37, 99, 168),
    RGBColor(0, 140, 120),
    RGBColor(200, 80, 32),
    RGBColor(130, 90, 170),
    RGBColor(190, 140, 20),
    RGBColor(90, 100, 110),
];

/// Which side of the given point letters stand on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Right,
    Left,
    Middle,
}

/// A style of letters.
pub(super) fn letters(size: u32, colour: RGBColor, side: Side) -> TextStyle<'static> {
    let across = match side {
        Side::Right => HPos::Left,
        Side::Left => HPos::Right,
        Side::Middle => HPos::Center,
    };
    ("sans-serif", size)
        .into_font()
        .color(&colour)
        .pos(Pos::new(across, VPos::Center))
}
