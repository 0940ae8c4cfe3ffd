//! The exposition text of Prometheus and of OpenMetrics. Labels are bounded by the policy, never by what the network
//! sends: undocumented ports are counted by transport, and how many there were. Only the few heaviest talkers are named.

mod names;
mod talkers;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use portguard_common::abi::slot;
use portguard_common::packet::Malformed;
use portguard_common::reason::Direction;

use portguard_kernel::conversations::{Bound, Counts};
use portguard_kernel::generation::effective::Strictness;
use portguard_observe::drift::State;
use portguard_observe::findings::Kind;
use portguard_observe::observe::{self, Observed};

pub use names::{Name, Names};

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for.
    pub fn accepted(header: &str) -> Self {
        if header.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Text that grows family by family.
#[derive(Debug)]
struct Text {
    format: Format,
    out: String,
}

impl Text {
    /// Begins a counter; its samples have the suffix `_total`.
    fn counter(&mut self, name: &str, help: &str) {
        let suffix = match self.format {
            Format::Prometheus => "_total",
            Format::OpenMetrics => "",
        };
        let _ = writeln!(
            self.out,
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} counter"
        );
    }

    fn gauge(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.out.push_str(name);
        for (index, (key, value)) in labels.iter().enumerate() {
            self.out.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{key}=\"{}\"", escape(value));
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// What the agent itself knows.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What drift found, if somebody looked.
    pub drift: Option<Found>,
    /// Domain names.
    pub names: Names,
    /// What became of the connections of the host's sockets, which all interfaces share.
    pub sockets: Option<Counts>,
    /// How full the tables beside that of the conversations are.
    pub tables: Vec<Bound>,
}

/// What a comparison of documents, listeners and traffic found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Number of ports by state.
    pub ports: BTreeMap<State, u64>,
    /// Kinds of undocumented traffic that have no port.
    pub portless: u64,
    /// Rules of the packet filter that were not understood.
    pub unread: u64,
}

/// All metrics of the guarded interfaces.
pub fn text(observed: &[Observed], seen: &Seen, format: Format) -> String {
    let mut text = Text {
        format,
        out: String::with_capacity(16 * 1024),
    };
    text.gauge("portguard_build_info", "Version of the agent.");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    text.sample("portguard_build_info", &version, 1);
    guards(&mut text, observed);
    traffic(&mut text, observed);
    rows(&mut text, observed);
    undocumented(&mut text, observed);
    findings(&mut text, observed);
    troubles(&mut text, observed);
    talkers::write(&mut text, observed);
    names::write(&mut text, &seen.names);
    if let Some(counts) = &seen.sockets {
        sockets(&mut text, counts);
    }
    tables(&mut text, &seen.tables);
    if let Some(drift) = &seen.drift {
        let name = "portguard_drift_ports";
        text.gauge(name, "Ports by how document, listeners and traffic agree.");
        for &state in State::ALL {
            let is_to_act_on = if state.is_to_act_on() {
                "true"
            } else {
                "false"
            };
            let labels = [("state", state.name()), ("to_act_on", is_to_act_on)];
            let count = drift.ports.get(&state).copied().unwrap_or(0);
            text.sample(name, &labels, count);
        }
        let name = "portguard_drift_without_port";
        text.gauge(name, "Kinds of undocumented traffic that have no port.");
        text.sample(name, &[], drift.portless);
        let name = "portguard_drift_unread_rules";
        text.gauge(
            name,
            "Rules of the packet filter that may hand ports on and were not understood.",
        );
        text.sample(name, &[], drift.unread);
    }
    if format == Format::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

/// Problems, each counted once, whatever ports and peers it has.
fn findings(text: &mut Text, observed: &[Observed]) {
    let mut all = Vec::new();
    // Without the sockets that listen nothing is said rather than something else.
    let sockets = observe::sockets().ok();
    for (one, sockets) in observed
        .iter()
        .filter_map(|one| Some((one, sockets.as_ref()?)))
    {
        let findings = one.findings(sockets, true);
        for &kind in Kind::ALL {
            let of = findings.iter().filter(|finding| finding.kind == kind);
            let (number, packets) = of.fold((0_u64, 0), |(number, packets), finding| {
                (number + 1, packets + finding.violations)
            });
            all.push((one.name.as_str(), kind.name(), number, packets));
        }
    }
    let name = "portguard_findings";
    text.gauge(name, "Problems seen since the first load, by kind; one is one, however many ports and peers it has.");
    for (interface, kind, number, _) in &all {
        text.sample(name, &[("interface", interface), ("kind", kind)], number);
    }
    let name = "portguard_finding_packets";
    text.gauge(
        name,
        "Violations of these problems since the first load; the kinds add up to all violations.",
    );
    for (interface, kind, _, packets) in &all {
        text.sample(name, &[("interface", interface), ("kind", kind)], packets);
    }
}

/// Name, help and value of one gauge an interface.
type Gauge = (&'static str, &'static str, fn(&Observed) -> u64);

fn guards(text: &mut Text, observed: &[Observed]) {
    text.gauge(
        "portguard_guard_info",
        "What is in force on a guarded interface.",
    );
    for one in observed {
        let meta = &one.live.meta;
        let labels = [
            ("interface", one.name.as_str()),
            ("digest", meta.digest.as_str()),
            ("xdp_mode", meta.xdp_mode.name()),
            ("loaded_by", meta.version.as_str()),
        ];
        text.sample("portguard_guard_info", &labels, 1);
    }
    let gauges: [Gauge; 7] = [
        (
            "portguard_enforcing",
            "Whether undocumented inbound traffic is dropped now (1) or not (0).",
            |one| u64::from(one.live.effective.inbound == Strictness::Enforce),
        ),
        (
            "portguard_enforcing_outbound",
            "Whether undocumented outbound traffic is dropped now (1) or not (0).",
            |one| u64::from(one.live.effective.outbound == Strictness::Enforce),
        ),
        (
            "portguard_as_meant",
            "Whether what happens to packets is what the policy says (1) or weaker (0).",
            |one| u64::from(one.live.effective.is_as_meant()),
        ),
        (
            "portguard_generation",
            "Number of the generation in force.",
            |one| one.live.meta.number,
        ),
        (
            "portguard_loaded_timestamp_seconds",
            "When the generation in force was loaded.",
            |one| one.live.meta.loaded_at,
        ),
        (
            "portguard_unconfirmed",
            "Whether the generation gives way at a deadline unless somebody confirms it.",
            |one| u64::from(!one.live.is_confirmed),
        ),
        (
            "portguard_warnings",
            "Warnings about the guard, as `status` shows them.",
            |one| u64::try_from(one.live.warnings.len()).unwrap_or(u64::MAX),
        ),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, help);
        for one in observed {
            text.sample(name, &[("interface", &one.name)], value(one));
        }
    }
}

fn traffic(text: &mut Text, observed: &[Observed]) {
    // Counters never go back: resets of the views do not touch them.
    let reports: Vec<_> = observed.iter().map(|one| one.report(true)).collect();
    for (name, help, is_bytes) in [
        ("portguard_packets", "Packets judged, by reason.", false),
        ("portguard_bytes", "Bytes judged, by reason.", true),
    ] {
        text.counter(name, help);
        let sample = format!("{name}_total");
        for report in &reports {
            for reason in &report.reasons {
                let labels = [
                    ("interface", report.name.as_str()),
                    ("direction", reason.direction),
                    ("reason", reason.reason.as_str()),
                    ("violation", if reason.violation { "true" } else { "false" }),
                ];
                let value = if is_bytes {
                    reason.bytes
                } else {
                    reason.packets
                };
                text.sample(&sample, &labels, value);
            }
        }
    }
}

fn rows(text: &mut Text, observed: &[Observed]) {
    text.counter(
        "portguard_row_packets",
        "Packets that a row of a document or of the site let pass.",
    );
    for one in observed {
        for row in one.report(true).rows {
            let labels = [
                ("interface", one.name.as_str()),
                ("row", row.row.as_str()),
                ("role", row.role.as_deref().unwrap_or("")),
            ];
            text.sample("portguard_row_packets_total", &labels, row.packets);
        }
    }
}

fn undocumented(text: &mut Text, observed: &[Observed]) {
    let name = "portguard_undocumented_ports";
    text.gauge(
        name,
        "Distinct undocumented ports that had traffic since the first load.",
    );
    for one in observed {
        let mut distinct: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let report = one.report(true);
        for port in &report.ports {
            if !port.documented && port.violations.packets > 0 {
                *distinct
                    .entry((port.direction, port.transport))
                    .or_default() += 1;
            }
        }
        for ((direction, transport), count) in distinct {
            let labels = [
                ("interface", one.name.as_str()),
                ("direction", direction),
                ("transport", transport),
            ];
            text.sample(name, &labels, count);
        }
    }
}

fn troubles(text: &mut Text, observed: &[Observed]) {
    text.counter(
        "portguard_malformed_packets",
        "Malformed packets, by cause.",
    );
    for one in observed {
        for side in [Direction::Ingress, Direction::Egress] {
            for cause in Malformed::ALL {
                let packets = one.raw.slot(slot::malformed(side, cause)).packets;
                if packets > 0 {
                    let labels = [
                        ("interface", one.name.as_str()),
                        ("direction", side.name()),
                        ("cause", cause.name()),
                    ];
                    text.sample("portguard_malformed_packets_total", &labels, packets);
                }
            }
        }
    }
    for (name, help, index) in [
        (
            "portguard_events_lost",
            "Events that were sampled and had no room.",
            slot::EVENTS_LOST,
        ),
        (
            "portguard_flows_created",
            "Conversations that the host opened.",
            slot::FLOWS_CREATED,
        ),
        (
            "portguard_flows_evicted",
            "Flows that took the place of another live one.",
            slot::FLOWS_EVICTED,
        ),
        (
            "portguard_flows_lost",
            "Flows that there was no room for: their answers are violations.",
            slot::FLOWS_LOST,
        ),
        (
            "portguard_overdue_packets",
            "Packets judged by the generation before, or dropped by none, since the deadline of an unconfirmed one was over.",
            slot::OVERDUE,
        ),
    ] {
        text.counter(name, help);
        let sample = format!("{name}_total");
        for one in observed {
            let value = one.raw.slot(index).packets;
            text.sample(&sample, &[("interface", &one.name)], value);
        }
    }
}

/// Connections that the host's sockets began: one table for all interfaces.
fn sockets(text: &mut Text, counts: &Counts) {
    for (name, help, value) in [
        (
            "portguard_connections_created",
            "Connections that sockets of this host began.",
            counts.created,
        ),
        (
            "portguard_connections_evicted",
            "Connections that took the place of another live conversation.",
            counts.evicted,
        ),
        (
            "portguard_connections_lost",
            "Connections that there was no room for: their answers are violations.",
            counts.lost,
        ),
    ] {
        text.counter(name, help);
        text.sample(&format!("{name}_total"), &[], value);
    }
}

/// Tables beside that of the conversations, of all interfaces.
fn tables(text: &mut Text, tables: &[Bound]) {
    for (name, help, value) in [
        (
            "portguard_conversation_table_entries",
            "Entries of the tables beside that of the conversations.",
            (|one| one.held) as fn(&Bound) -> u64,
        ),
        (
            "portguard_conversation_table_room",
            "How many entries they have room for.",
            |one| one.room,
        ),
    ] {
        text.gauge(name, help);
        for one in tables {
            text.sample(name, &[("table", one.name)], value(one));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_formats_differ() {
        for (format, wanted) in [
            (
                Format::OpenMetrics,
                "# HELP a Help.\n# TYPE a counter\na_total{k=\"x\\\"\\\\\\n\",l=\"\"} 5\n",
            ),
            (
                Format::Prometheus,
                "# HELP a_total Help.\n# TYPE a_total counter\na_total{k=\"x\\\"\\\\\\n\",l=\"\"} 5\n",
            ),
        ] {
            let mut text = Text {
                format,
                out: String::new(),
            };
            text.counter("a", "Help.");
            text.sample("a_total", &[("k", "x\"\\\n"), ("l", "")], 5);
            assert_eq!(text.out, wanted);
        }
        assert!(text(&[], &Seen::default(), Format::OpenMetrics).ends_with("# EOF\n"));
        assert_eq!(
            Format::accepted("application/openmetrics-text;version=1.0.0,*/*;q=0.1"),
            Format::OpenMetrics
        );
        assert_eq!(Format::accepted("*/*"), Format::Prometheus);
    }
}
