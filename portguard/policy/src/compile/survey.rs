//! Lints that take more than one host: settings that change nothing anywhere, and what is open at one end only.
//!
//! Nothing here knows what a setting is for. A setting has an effect if the hosts' policies differ without it, and two ends
//! agree if what the one may send is what the other accepts: both are found by compiling, not by a list of cases.

mod clusters;
mod effect;
pub(super) mod ends;
pub(super) mod outcome;
mod sample;
mod settings;

use std::collections::BTreeMap;

use super::peers::ALONE;
use super::{Inputs, compile};
use crate::diagnostic::{Diagnostic, Level};
use crate::human::count;
use crate::policy::{Compiled, Policy};

/// As [`compile`], with the lints that take the other hosts of the site.
pub fn review(inputs: &Inputs<'_>) -> Compiled {
    let mut compiled = compile(inputs);
    let is_readable = |d: &&Diagnostic| d.level == Level::Error && d.code.starts_with("unknown-");
    // A name that nobody knows leads to more findings than it is worth.
    if compiled.diagnostics.iter().any(|d| is_readable(&d)) {
        return compiled;
    }
    let mut found = ends::differing(inputs, &compiled);
    found.extend(alone(&compiled.policy));
    found.extend(site(inputs, &compiled.diagnostics));
    compiled.diagnostics.extend(found);
    super::sorted(&mut compiled.diagnostics);
    compiled
}

/// Notes that rows are closed because no other host has the role that they are for: a site that is not complete looks so, and so
/// does a product on a single host.
fn alone(policy: &Policy) -> Vec<Diagnostic> {
    let mut closed: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for omitted in policy.omitted.iter().filter(|one| one.reason == "no-peer") {
        let why = omitted.detail.split("; ");
        for why in why.filter(|why| why.starts_with(ALONE)) {
            let system = omitted.row.split('/').next().unwrap_or_default();
            *closed.entry((system, why)).or_default() += 1;
        }
    }
    let note = |((system, why), rows): ((&str, &str), usize)| {
        let rows = count(rows as u64, "row");
        let message = format!("{why}: {rows} for such hosts stay closed");
        let hint = format!(
            "if there are others, add a `[[host]]` for each, or their addresses under [systems.{system}.peers]"
        );
        Diagnostic::new(Level::Note, "no-other-host", message).hint(hint)
    };
    closed.into_iter().map(note).collect()
}

/// What is wrong with the site whichever host is asked for; `reported` is what is known already.
pub fn site(inputs: &Inputs<'_>, reported: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut found = effect::missing(inputs, reported);
    found.extend(clusters::conflicts(inputs));
    found
}
