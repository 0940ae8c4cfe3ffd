//! The matrix as JSON: the contract of `check --json`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::sweep;
use crate::catalog::Transport;
use crate::diagnostic::Diagnostic;
use crate::human;
use crate::image::Span;
use crate::policy::{Compiled, GrantKind, Omitted, Outbound, Policy};

/// `check --json`.
#[derive(Debug, Serialize)]
pub struct Matrix<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    roles: &'a [String],
    systems: &'a [String],
    mode: &'static str,
    outbound_mode: Outbound,
    inbound: Vec<Inbound<'a>>,
    outbound: Vec<OutboundEntry<'a>>,
    protocols: Vec<ProtocolEntry<'a>>,
    baseline: Vec<Service>,
    omitted: Vec<OmittedRow<'a>>,
    diagnostics: &'a [Diagnostic],
    digest: String,
}

#[derive(Debug, Serialize)]
struct Inbound<'a> {
    #[serde(flatten)]
    ports: PortRange<'a>,
    sources: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OutboundEntry<'a> {
    #[serde(flatten)]
    ports: PortRange<'a>,
    destinations: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PortRange<'a> {
    transport: Transport,
    port_first: u16,
    port_last: u16,
    rows: BTreeSet<&'a str>,
    /// Rows that end, and when.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ends: BTreeMap<&'a str, String>,
}

#[derive(Debug, Serialize)]
struct ProtocolEntry<'a> {
    protocol: u8,
    sources: Vec<String>,
    row: &'a str,
}

#[derive(Debug, Serialize)]
struct OmittedRow<'a> {
    row: &'a str,
    reason: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<Vec<String>>,
}

impl<'a> OmittedRow<'a> {
    fn of(policy: &Policy, omitted: &'a Omitted) -> Self {
        Self {
            row: &omitted.row,
            reason: &omitted.reason,
            detail: &omitted.detail,
            peers: omitted.peers.map(|peers| policy.peers_text(peers)),
        }
    }
}

#[derive(Debug, Serialize)]
struct Service {
    name: String,
    direction: &'static str,
    peers: Vec<String>,
}

impl<'a> Matrix<'a> {
    /// Of a compiled policy.
    pub fn new(compiled: &'a Compiled) -> Self {
        let Compiled {
            policy,
            diagnostics,
        } = compiled;
        let peers = |entry: &Span<'_>| match entry.prefixes(policy) {
            None => vec!["any".to_owned()],
            Some(nets) => nets.iter().map(ToString::to_string).collect(),
        };
        Self {
            host: policy.host.as_deref(),
            roles: &policy.roles,
            systems: &policy.systems,
            mode: policy.settings.mode(),
            outbound_mode: policy.settings.outbound,
            inbound: sweep(&policy.inbound)
                .iter()
                .map(|entry| Inbound {
                    sources: peers(entry),
                    ports: PortRange::of(entry),
                })
                .collect(),
            outbound: sweep(&policy.outbound)
                .iter()
                .map(|entry| OutboundEntry {
                    destinations: peers(entry),
                    ports: PortRange::of(entry),
                })
                .collect(),
            protocols: policy
                .protocols
                .iter()
                .map(|protocol| ProtocolEntry {
                    protocol: protocol.protocol,
                    sources: policy.peers_text(protocol.peers),
                    row: &protocol.row,
                })
                .collect(),
            baseline: services(policy),
            omitted: policy
                .omitted
                .iter()
                .map(|row| OmittedRow::of(policy, row))
                .collect(),
            diagnostics,
            digest: policy.digest(),
        }
    }
}

impl<'a> PortRange<'a> {
    fn of(entry: &Span<'a>) -> Self {
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for grant in &entry.grants {
            let end = last.entry(&grant.row).or_default();
            *end = grant.until.map_or(u64::MAX, |until| until.max(*end));
        }
        last.retain(|_, end| *end != u64::MAX);
        let ends = last
            .into_iter()
            .map(|(row, end)| (row, human::rfc3339_seconds(end)))
            .collect();
        Self {
            ends,
            transport: entry.transport,
            port_first: entry.first,
            port_last: entry.last,
            rows: entry
                .grants
                .iter()
                .map(|grant| grant.row.as_str())
                .collect(),
        }
    }
}

/// Ping and the baseline's grants, each service and direction once.
fn services(policy: &Policy) -> Vec<Service> {
    let mut services: Vec<Service> = policy
        .echo
        .iter()
        .map(|peers| Service {
            name: "echo".to_owned(),
            direction: "in",
            peers: policy.peers_text(*peers),
        })
        .collect();
    for (direction, grants) in [("in", &policy.inbound), ("out", &policy.outbound)] {
        for grant in grants
            .iter()
            .filter(|grant| grant.kind == GrantKind::Baseline)
        {
            let name = grant.row.trim_start_matches("baseline/");
            if !services
                .iter()
                .any(|service| service.name == name && service.direction == direction)
            {
                let peers = policy.peers_text(grant.peers);
                services.push(Service {
                    name: name.to_owned(),
                    direction,
                    peers,
                });
            }
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Grant, Peers};

    fn grant(first: u16, last: u16, row: &str) -> Grant {
        let kind = GrantKind::Documented;
        Grant {
            kind,
            transport: Transport::Tcp,
            first,
            last,
            peers: Peers::Any,
            row: row.to_owned(),
            until: None,
        }
    }

    #[test]
    fn json_has_the_fields_that_scripts_rely_on() {
        let mut policy = Policy {
            systems: vec!["acme".to_owned()],
            ..Policy::default()
        };
        let set = |net: &str| crate::policy::PeerSet {
            name: net.to_owned(),
            prefixes: vec![net.parse().unwrap()],
        };
        policy.sets = vec![set("10.0.0.0/25"), set("10.0.0.128/25")];
        for (index, row) in ["acme/a", "acme/b"].into_iter().enumerate() {
            let peers = Peers::Set(u32::try_from(index).unwrap());
            policy.inbound.push(Grant {
                peers,
                ..grant(80, 80, row)
            });
        }
        policy.inbound.push(Grant {
            until: Some(1_801_440_000),
            ..grant(81, 81, "acme/a")
        });
        policy.outbound = vec![Grant {
            kind: GrantKind::Baseline,
            ..grant(53, 53, "baseline/dns")
        }];
        policy.echo = Some(Peers::Any);
        let diagnostics = vec![Diagnostic::warning("c", "m").at("s.toml:1:1").hint("h")];
        let digest = policy.digest();
        let compiled = Compiled {
            policy,
            diagnostics,
        };
        let found = serde_json::to_value(Matrix::new(&compiled)).unwrap();
        let wanted = serde_json::json!({
            "roles": [], "systems": ["acme"], "mode": "audit", "outbound_mode": "audit",
            "inbound": [{"transport": "tcp", "port_first": 80, "port_last": 80, "rows": ["acme/a", "acme/b"], "sources": ["10.0.0.0/24"]},
                {"transport": "tcp", "port_first": 81, "port_last": 81, "rows": ["acme/a"], "ends": {"acme/a": "2027-02-01T00:00:00Z"}, "sources": ["any"]}],
            "outbound": [{"transport": "tcp", "port_first": 53, "port_last": 53, "rows": ["baseline/dns"], "destinations": ["any"]}],
            "protocols": [],
            "baseline": [{"name": "echo", "direction": "in", "peers": ["any"]}, {"name": "dns", "direction": "out", "peers": ["any"]}],
            "omitted": [],
            "diagnostics": [{"level": "warning", "code": "c", "message": "m", "where": "s.toml:1:1", "hint": "h"}],
            "digest": digest,
        });
        assert_eq!(found, wanted);
    }

    #[test]
    fn neighbours_that_end_at_different_times_are_told_apart() {
        let until = |port: u16, until| Grant {
            until,
            ..grant(port, port, "acme/a")
        };
        let grants = [until(80, Some(10)), until(81, Some(20)), until(82, None)];
        let swept: Vec<u16> = sweep(&grants).iter().map(|entry| entry.first).collect();
        assert_eq!(swept, [80, 81, 82]);
    }
}
