//! Which events are shown.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use portguard_common::reason::{Direction, Reason};
use portguard_observe::events::Line;

/// Options that narrow events; all of them must hold, and one of those that are repeated.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filter {
    /// Only to these ports: `443`, `tcp/443`, `udp/5000-5010`; may be repeated
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<Ports>,
    /// Only of this address or prefix, at the other end; may be repeated
    #[arg(long = "peer", value_name = "CIDR", value_parser = net)]
    peers: Vec<IpNet>,
    /// Only for this reason, as `counters --by reason` names it; may be repeated
    #[arg(long = "reason", value_name = "REASON", value_parser = reason)]
    reasons: Vec<String>,
    /// Only of this row: it opens the port to others, or comes nearest; may be repeated
    #[arg(long = "row", value_name = "ROW")]
    rows: Vec<String>,
    /// Only what arrives, or what is sent
    #[arg(long, value_enum, value_name = "WAY")]
    direction: Option<Way>,
}

/// `--direction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// What arrives.
    In,
    /// What is sent.
    Out,
}

/// `--port`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ports {
    transport: Option<String>,
    ports: RangeInclusive<u16>,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (transport, numbers) = match text.split_once('/') {
            Some((transport, numbers)) => (Some(transport), numbers),
            None => (None, text),
        };
        if transport.is_some_and(|one| !matches!(one, "tcp" | "udp" | "sctp")) {
            return Err("expected tcp, udp or sctp before the `/`".to_owned());
        }
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let number = |text: &str| text.parse::<u16>().ok();
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self {
                transport: transport.map(str::to_owned),
                ports: first..=last,
            }),
            _ => Err(
                "expected a port or a range, like `443`, `tcp/443` or `udp/5000-5010`".to_owned(),
            ),
        }
    }
}

fn net(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_no_address| text.parse())
        .map_err(|_error| "expected an address or a prefix, like `10.0.0.0/8`".to_owned())
}

fn reason(text: &str) -> Result<String, String> {
    let mut names: Vec<&str> = Reason::ALL
        .into_iter()
        .filter(|reason| reason.is_violation())
        .flat_map(|reason| [Direction::Ingress, Direction::Egress].map(|way| reason.name(way)))
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("expected one of {}", names.join(", ")))
}

impl Filter {
    /// Whether an event is shown.
    pub(super) fn admits(&self, line: &Line) -> bool {
        let way = if line.direction == "in" {
            Way::In
        } else {
            Way::Out
        };
        let peer = match way {
            Way::In => line.source,
            Way::Out => line.destination,
        };
        let is_port = |wanted: &Ports| {
            line.destination_port
                .is_some_and(|port| wanted.ports.contains(&port))
                && (wanted.transport.is_none() || wanted.transport == line.transport)
        };
        let is_peer = |net: &IpNet| peer.is_some_and(|peer| net.contains(&peer));
        let is_row = |row: &String| {
            line.rows.contains(row) || line.nearest.iter().any(|near| near.row == *row)
        };
        (self.ports.is_empty() || self.ports.iter().any(is_port))
            && (self.peers.is_empty() || self.peers.iter().any(is_peer))
            && (self.reasons.is_empty() || self.reasons.iter().any(|one| one == line.reason))
            && (self.rows.is_empty() || self.rows.iter().any(is_row))
            && self.direction.is_none_or(|wanted| wanted == way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(direction: &'static str, port: u16) -> Line {
        Line {
            time: String::new(),
            interface: "eth0".to_owned(),
            direction,
            verdict: "drop",
            effective: "pass",
            reason: "undocumented-port",
            detail: None,
            source: Some([10, 0, 0, 7].into()),
            destination: Some([192, 0, 2, 1].into()),
            transport: Some("tcp".to_owned()),
            source_port: Some(40_000),
            destination_port: Some(port),
            icmp_type: None,
            ethertype: None,
            vlan: None,
            length: 60,
            weight: 1,
            rows: Vec::new(),
            nearest: Vec::new(),
        }
    }

    #[test]
    fn all_options_must_hold_and_one_of_each() {
        let filter = Filter {
            ports: vec!["udp/443".parse().unwrap(), "tcp/400-500".parse().unwrap()],
            peers: vec![net("10.0.0.0/8").unwrap()],
            reasons: vec![reason("undocumented-port").unwrap()],
            direction: Some(Way::In),
            ..Filter::default()
        };
        assert!(filter.admits(&line("in", 443)));
        assert!(!filter.admits(&line("in", 501)) && !filter.admits(&line("out", 443)));
        assert!(Filter::default().admits(&line("out", 1)));
        let there = Filter {
            peers: vec![net("192.0.2.1").unwrap()],
            ..Filter::default()
        };
        assert!(there.admits(&line("out", 1)) && !there.admits(&line("in", 1)));
        let of_row = Filter {
            rows: vec!["acme/web".to_owned(), "acme/backup".to_owned()],
            ..Filter::default()
        };
        let mut known = line("in", 443);
        assert!(!of_row.admits(&known));
        known.rows.push("acme/web".to_owned());
        assert!(of_row.admits(&known));
        for wrong in ["x/1", "tcp/", "9-8", "70000"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
        assert!(
            reason("undocumented")
                .unwrap_err()
                .contains("undocumented-port")
        );
    }
}
