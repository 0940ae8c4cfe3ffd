//! The tables that people read.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

/// Width of tables where standard output is no terminal.
const WIDTH_WITHOUT_TERMINAL: u16 = 160;

/// Below so many columns a table leaves out what it can spare.
const WIDE: u16 = 110;

/// Columns whose words a reader searches for, so that they stay in one piece.
const WHOLE: [&str; 10] = [
    "", "  ", "port", "row", "reason", "state", "peer", "to", "first", "last",
];

/// Columns of numbers: in one piece, and one below the other.
const NUMBERS: [&str; 11] = [
    "passed",
    "bytes",
    "packets",
    "violations",
    "dropped",
    "would drop",
    "packets/s",
    "passed/s",
    "violations/s",
    "ns",
    "±",
];

/// A table without frame.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(WIDTH_WITHOUT_TERMINAL);
    }
    table.set_header(header.iter().copied());
    for (column, title) in table.column_iter_mut().zip(header) {
        let is_number = NUMBERS.contains(title);
        if is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if is_number || WHOLE.contains(title) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

/// A table that on a narrow terminal goes without some of its columns; whether it does.
pub(crate) fn sparing(header: &[&str], spared: &[&str]) -> (Table, bool) {
    let mut table = table(header);
    let is_narrow = table.width().is_some_and(|width| width < WIDE);
    if is_narrow {
        for (column, title) in table.column_iter_mut().zip(header) {
            if spared.contains(title) {
                column.set_constraint(ColumnConstraint::Hidden);
            }
        }
    }
    (table, is_narrow)
}
