//! What the tables of a generation have no room for: said here, where rows and their places are known, and not by a load.

use std::collections::{BTreeMap, BTreeSet};

use portguard_common::abi::MAX_CELLS;
use portguard_common::tables::MAX_ENDINGS;

use crate::cells::Directory;
use crate::diagnostic::Diagnostic;
use crate::image::{Image, MAX_ADMISSION, SINGLE_PORTS, Span, TooLarge, spans};
use crate::policy::{Grant, Peers, Policy};

pub(super) fn policy(policy: &Policy, diagnostics: &mut Vec<Diagnostic>) {
    let spans = [spans(&policy.inbound), spans(&policy.outbound)].concat();
    let prefixes: usize = policy.sets.iter().map(|set| set.prefixes.len()).sum();
    if fits(policy, &spans, prefixes) {
        return;
    }
    let Err(error) = Image::build(policy, Directory::default()) else {
        return;
    };
    let (row, hint) = match error {
        TooLarge::Cells | TooLarge::Rules => (
            largest(spans.iter().flat_map(|span| {
                let ports = usize::from(span.last - span.first) + 1;
                let counted = if ports > SINGLE_PORTS { 1 } else { ports };
                span.grants.iter().map(move |grant| (*grant, counted))
            })),
            format!(
                "this row needs most of them: a range of more than {SINGLE_PORTS} ports is counted as one, and so are peers that are treated alike"
            ),
        ),
        TooLarge::Endings => (
            spans.iter().find(|span| ends(&span.grants) > MAX_ENDINGS).and_then(|span| span.grants.first().copied()),
            "let rows for the same port and peers end on the same day".to_owned(),
        ),
        TooLarge::Admission(..) | TooLarge::Networks => (
            largest(spans.iter().flat_map(|span| {
                span.grants.iter().map(|grant| (*grant, names(policy, grant)))
            })),
            "this row has the longest list of peers: put peers that are treated alike into one group, or name them by shorter prefixes".to_owned(),
        ),
    };
    let diagnostic = Diagnostic::error("policy-too-large", error.to_string()).hint(hint);
    diagnostics.push(diagnostic.at_known(row.map(|grant| policy.place_of(&grant.row))));
}

/// Whether a policy surely has room, by sums that cost nothing: most do, and an image takes a thousand times as long.
fn fits(policy: &Policy, spans: &[Span<'_>], prefixes: usize) -> bool {
    let all = || policy.inbound.iter().chain(&policy.outbound);
    let endings = all()
        .filter_map(|grant| grant.until)
        .collect::<BTreeSet<_>>();
    let mut cells = policy.protocols.len() * 2 + 4;
    let mut lists = policy.protocols.len() + 1;
    for span in spans {
        // Who is admitted by which of these grants: no more ways than there are subsets of them, or kinds of addresses.
        let restricted = span
            .grants
            .iter()
            .filter(|grant| grant.peers != Peers::Any)
            .count();
        let ways = 1usize << restricted.min(20);
        let ways = ways.min(prefixes + 1);
        let ports = usize::from(span.last - span.first) + 1;
        cells += (ports * ways).min(SINGLE_PORTS).max(ways);
        lists += usize::from(restricted > 0);
    }
    let protocols = policy
        .protocols
        .iter()
        .filter(|grant| grant.peers != Peers::Any);
    cells += protocols.count() * prefixes;
    cells * (endings.len() + 1) < MAX_CELLS as usize
        && (prefixes + 1) * lists <= MAX_ADMISSION
        && endings.len() <= MAX_ENDINGS
}

fn ends(grants: &[&Grant]) -> usize {
    let ends = grants.iter().filter_map(|grant| grant.until);
    ends.collect::<BTreeSet<_>>().len()
}

/// Prefixes of a grant's peers.
fn names(policy: &Policy, grant: &Grant) -> usize {
    let Peers::Set(set) = grant.peers else {
        return 0;
    };
    let set = policy.set(set);
    set.map_or(0, |set| set.prefixes.len())
}

/// A grant of the row that has most.
fn largest<'a>(parts: impl Iterator<Item = (&'a Grant, usize)>) -> Option<&'a Grant> {
    let mut rows: BTreeMap<&str, (usize, &Grant)> = BTreeMap::new();
    for (grant, count) in parts {
        rows.entry(&grant.row).or_insert((0, grant)).0 += count;
    }
    let most = rows.into_values().max_by_key(|(count, _)| *count);
    most.map(|(_, grant)| grant)
}
