//! Peers that the site does not define, gathered over all rows, so that each is reported once with the rows that need it.

use std::collections::BTreeMap;

use super::some_of;
use crate::diagnostic::{Diagnostic, Level};
use crate::site::{Site, Unresolved, UnresolvedPorts};

/// What is missing.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// (code, `SYSTEM/PEER`) to what is said of it.
    wanted: BTreeMap<(&'static str, String), Want>,
    /// Judged as any because the site says so.
    everybody: BTreeMap<String, Vec<String>>,
    /// (row, why it does not hold at the other end) to the hosts there.
    differing: BTreeMap<(String, String), Vec<String>>,
    /// Domain names that were not looked up.
    unasked: BTreeMap<String, Vec<String>>,
    /// Set by whatever is added: the row at hand must be asked anew next time.
    pub(super) touched: bool,
}

/// A peer, and the rows that want it.
#[derive(Debug, Default)]
struct Want {
    message: String,
    hint: String,
    rows: Vec<String>,
}

impl Missing {
    /// A peer that is refused, or judged as any in audit.
    pub(super) fn want(
        &mut self,
        code: &'static str,
        what: String,
        row: &str,
        words: impl FnOnce() -> (String, String),
    ) {
        self.touched = true;
        let want = self.wanted.entry((code, what)).or_insert_with(|| {
            let (message, hint) = words();
            Want {
                message,
                hint,
                rows: Vec::new(),
            }
        });
        push(&mut want.rows, row);
    }

    /// A peer that the site's `unresolved_peers` makes everybody.
    pub(super) fn everybody(&mut self, what: String, row: &str) {
        self.touched = true;
        push(self.everybody.entry(what).or_default(), row);
    }

    /// A row that holds here and not at a host of its other end.
    pub(super) fn differs(&mut self, row: &str, host: &str, why: String) {
        let hosts = self.differing.entry((row.to_owned(), why)).or_default();
        if !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    }

    /// A domain name that nobody looked up.
    pub(super) fn unasked(&mut self, name: &str, row: &str) {
        self.touched = true;
        push(self.unasked.entry(name.to_owned()).or_default(), row);
    }

    /// Tells all; `is_enforced` says whether any of some rows is of a direction that enforces.
    pub(super) fn report(
        &self,
        site: &Site,
        is_enforced: impl Fn(&[String]) -> bool,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        for ((code, what), want) in &self.wanted {
            // The site's own `refuse` binds in audit, too; it is about named peers only.
            let bound = match *code {
                "unprinted-peers" => false,
                "unresolved-ports" => site.unresolved_ports == Some(UnresolvedPorts::Refuse),
                _ => site.unresolved_peers == Some(Unresolved::Refuse),
            };
            let (level, judged) = match *code {
                _ if is_enforced(&want.rows) || bound => (Level::Error, ""),
                "unresolved-ports" => {
                    (Level::Warning, "; closed, which audit counts as violations")
                }
                _ => (Level::Warning, "; in audit they match any"),
            };
            let message = format!("{}: rows {}{judged}", want.message, some_of(&want.rows));
            let system = what.split('/').next().unwrap_or_default();
            let place = site
                .systems
                .get(system)
                .and_then(|said| site.at(said.place));
            let place = place.unwrap_or_else(|| first(&want.rows));
            diagnostics.push(
                Diagnostic::new(level, code, message)
                    .at(place)
                    .hint(want.hint.clone()),
            );
        }
        for (name, rows) in &self.unasked {
            let message = format!(
                "domain {name} was not resolved for this preview and matches nobody: rows {}",
                some_of(rows)
            );
            let hint = "`load` resolves it; `--resolve` does so now";
            let diagnostic = Diagnostic::new(Level::Note, "domain-not-asked", message);
            diagnostics.push(diagnostic.at(first(rows)).hint(hint));
        }
        for ((row, why), hosts) in &self.differing {
            let message = format!(
                "row `{row}` applies here but not at its other end, so it is closed towards {}: there it {why}",
                some_of(hosts)
            );
            let hint = if why.starts_with("is served on no") {
                "let one of its interfaces there serve the row, or switch it `off` for both"
            } else if why.starts_with("is switched off") {
                "switch it `off` at both ends, or at neither"
            } else {
                "give both ends the same deployment, version, options and choices"
            };
            let diagnostic = Diagnostic::warning("ends-differ", message);
            diagnostics.push(diagnostic.at(row.clone()).hint(hint));
        }
        self.report_everybody(diagnostics);
    }
}

impl Missing {
    /// The site has decided about these: one word a system is enough to be reminded.
    fn report_everybody(&self, diagnostics: &mut Vec<Diagnostic>) {
        let mut systems: BTreeMap<&str, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for (what, wanted) in &self.everybody {
            let (system, peer) = what.split_once('/').unwrap_or(("", what));
            let (peers, rows) = systems.entry(system).or_default();
            peers.push(peer.to_owned());
            for row in wanted
                .iter()
                .filter(|row| !rows.contains(row))
                .collect::<Vec<_>>()
            {
                rows.push(row.clone());
            }
        }
        for (system, (peers, mut rows)) in systems {
            rows.sort();
            let count = peers.len();
            let noun = if count == 1 { "peer" } else { "peers" };
            let message = format!(
                "the site does not define {count} {noun} of {system} ({}); treated as any, as the site asks: rows {}",
                some_of(&peers),
                some_of(&rows)
            );
            let hint = format!(
                "write them under [systems.{system}.peers], or give each by `--peer {system}/NAME=CIDR,...`"
            );
            let diagnostic = Diagnostic::warning("unresolved-any", message).at(first(&rows));
            diagnostics.push(diagnostic.hint(hint));
        }
    }
}

/// Rows come one after the other, some of them twice.
fn push(rows: &mut Vec<String>, row: &str) {
    if rows.last().is_none_or(|last| last != row) {
        rows.push(row.to_owned());
    }
}

fn first(rows: &[String]) -> String {
    rows.first().cloned().unwrap_or_default()
}
