//! The tables that people read.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

/// Width of tables where standard output is no terminal.
const WIDTH_WITHOUT_TERMINAL: u16 = 160;

/// Columns whose words a reader searches for, so that they stay in one piece.
const WHOLE: [&str; 6] = ["", "port", "row", "reason", "state", "passed"];

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
        if WHOLE.contains(title) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}
