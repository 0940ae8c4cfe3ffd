//! The matrix with live numbers: one line a range of ports that the same rows open.

use portguard_observe::counters::PortCount;
use portguard_policy::image::Span;
use portguard_policy::matrix::sweep;
use portguard_policy::policy::{GrantKind, RowFacts};

use super::Guard;

/// One line.
pub(super) struct Line<'a> {
    /// `in` or `out`.
    pub(super) direction: &'static str,
    /// `tcp/443`.
    pub(super) port: String,
    /// Who.
    pub(super) peers: Vec<String>,
    /// Rows, with what is known of them.
    pub(super) rows: Vec<(&'a str, Option<&'a RowFacts>)>,
    /// Not from a document: management, baseline, the site's own.
    pub(super) kind: GrantKind,
    /// Packets that passed.
    pub(super) packets: u64,
    /// Bytes that passed.
    pub(super) bytes: u64,
    /// Packets of others than the peers.
    pub(super) violations: u64,
}

/// Both directions.
pub(super) fn lines(guard: &Guard) -> Vec<Line<'_>> {
    let policy = &guard.policy;
    let sides = [("in", &policy.inbound), ("out", &policy.outbound)];
    sides
        .into_iter()
        .flat_map(|(direction, grants)| {
            sweep(grants)
                .into_iter()
                .map(move |entry| line(guard, direction, &entry))
        })
        .collect()
}

fn line<'a>(guard: &'a Guard, direction: &'static str, entry: &Span<'a>) -> Line<'a> {
    let policy = &guard.policy;
    let mut peers = Vec::new();
    let mut rows: Vec<(&str, Option<&RowFacts>)> = Vec::new();
    for grant in &entry.grants {
        let words = policy.row_peers_words(&grant.row, grant.peers);
        if !peers.contains(&words) {
            peers.push(words);
        }
        let row = grant.row.as_str();
        if !rows.iter().any(|(known, _)| *known == row) {
            rows.push((row, policy.facts(row)));
        }
    }
    let transport = entry.transport.to_string();
    let (mut packets, mut bytes, mut violations) = (0, 0, 0);
    let is_within = |port: &&PortCount| {
        port.direction == direction
            && port.transport == transport
            && port.port <= entry.last
            && entry.first <= port.port_last.unwrap_or(port.port)
    };
    for port in guard.report.ports.iter().filter(is_within) {
        packets += port.passed.packets;
        bytes += port.passed.bytes;
        violations += port.violations.packets;
    }
    Line {
        direction,
        port: entry.ports(),
        peers,
        rows,
        kind: entry
            .grants
            .iter()
            .map(|grant| grant.kind)
            .find(|kind| *kind == GrantKind::Documented)
            .or_else(|| entry.grants.first().map(|grant| grant.kind))
            .unwrap_or(GrantKind::Documented),
        packets,
        bytes,
        violations,
    }
}
