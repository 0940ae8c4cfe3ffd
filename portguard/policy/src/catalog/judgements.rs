//! Notes that every row of a kind has: what its document does not print, what was taken, and why. Said once, at the head of the file.

use super::fields::Fields;
use super::report::{Report, quoted};
use super::{PeerClass, PortSpec, Row, cells};
use crate::diagnostic::Diagnostic;

/// Kinds of rows whose reading is a judgement, beside the classes of unprinted peers.
const KINDS: [&str; 4] = [
    "inferred-direction",
    "inferred-transport",
    "no-number",
    "offset",
];

/// A kind, its note, and where the file says it.
pub(super) struct Judgement {
    kind: String,
    note: String,
    at: usize,
}

/// Reads `[judgements]`.
pub(super) fn read(report: &mut Report<'_>, file: &mut Fields<'_>) -> Vec<Judgement> {
    let table = file.table(report, "judgements");
    let entries = table.map(Fields::entries).unwrap_or_default();
    let mut all = Vec::new();
    for (kind, value) in entries {
        let is_kind = KINDS.contains(&kind.value.as_str());
        if !is_kind && cells::class(&kind.value).is_err() {
            let classes = PeerClass::ALL.iter().map(|class| class.as_str());
            let known = KINDS.into_iter().chain(classes);
            report.add(kind.at, cells::unknown("kind of rows", &kind.value, known));
        } else if let Some(note) = super::fields::text(report, value) {
            all.push(Judgement {
                kind: kind.value,
                note: note.value,
                at: kind.at,
            });
        }
    }
    all
}

/// Adds the notes behind those that the rows have themselves.
pub(super) fn note(report: &mut Report<'_>, judgements: &[Judgement], rows: &mut [Row]) {
    for Judgement { kind, note, at } in judgements {
        let mut of_kind = rows.iter_mut().filter(|row| is_of(row, kind)).peekable();
        if of_kind.peek().is_none() {
            let message = format!("no row has the kind {}", quoted(kind));
            let finding = Diagnostic::error("no-effect", message).hint("remove the judgement");
            report.add(*at, finding);
        }
        for row in of_kind {
            row.notes.push(note.clone());
        }
    }
}

fn is_of(row: &Row, kind: &str) -> bool {
    match kind {
        "inferred-direction" => !row.direction_printed,
        "inferred-transport" => !row.transport_printed,
        "no-number" => row.inert.is_none() && row.ports.iter().any(PortSpec::is_open),
        "offset" => row.offset,
        class => row.class.is_some_and(|own| own.as_str() == class),
    }
}
