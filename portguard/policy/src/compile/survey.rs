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

use super::{Inputs, compile};
use crate::diagnostic::{Diagnostic, Level};
use crate::policy::Compiled;

/// As [`compile`], with the lints that take the other hosts of the site.
pub fn review(inputs: &Inputs<'_>) -> Compiled {
    let mut compiled = compile(inputs);
    let is_readable = |d: &&Diagnostic| d.level == Level::Error && d.code.starts_with("unknown-");
    // A name that nobody knows leads to more findings than it is worth.
    if compiled.diagnostics.iter().any(|d| is_readable(&d)) {
        return compiled;
    }
    let mut found = ends::differing(inputs, &compiled);
    found.extend(site(inputs, &compiled.diagnostics));
    compiled.diagnostics.extend(found);
    super::sorted(&mut compiled.diagnostics);
    compiled
}

/// What is wrong with the site whichever host is asked for; `reported` is what is known already.
pub fn site(inputs: &Inputs<'_>, reported: &[Diagnostic]) -> Vec<Diagnostic> {
    let mut found = effect::missing(inputs, reported);
    found.extend(clusters::conflicts(inputs));
    found
}
