//! One line of the comparison: a port, or a range of ports, and what is known of it.

use std::collections::BTreeSet;

use portguard_common::reason::Direction;
use serde::Serialize;

use super::seen::Seen;
use super::{State, Views};
use crate::findings::{Finding, Kind};
use crate::talkers::TopTalker;
use portguard_kernel::host::listeners::Listener;
use portguard_kernel::host::nat::Published;
use portguard_policy::catalog::Transport;
use portguard_policy::explain::Near;
use portguard_policy::image::Span;
use portguard_policy::policy::Policy;

/// Callers that are kept for a port.
const TALKERS: usize = 8;
/// Callers that a line for people names.
const NAMED: usize = 2;

/// One port, or range of ports, and how the three views of it agree.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// `in` or `out`.
    pub direction: &'static str,
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// First port.
    pub port_first: u16,
    /// Last port, inclusive.
    pub port_last: u16,
    /// How the views agree.
    pub state: State,
    /// The interface whose finding it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether it is a finding: there were violations.
    pub finding: bool,
    /// Whether document and host do not agree, though there were none.
    pub mismatch: bool,
    /// Whether that depends on conditions of the packet filter that nobody looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub may: bool,
    /// Rows that document it.
    pub rows: Vec<String>,
    /// What the rows are for.
    pub purposes: Vec<String>,
    /// Where the documents say so.
    pub citations: Vec<String>,
    /// Rows of this host's roles that document it and open nothing here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Near>,
    /// What listens there.
    pub listeners: Vec<Listener>,
    /// Where it is handed on to, by which rules.
    pub published: Vec<Published>,
    /// Who listens at the other end of that: in the network namespace that has the address, or on this host.
    pub behind: Vec<Listener>,
    /// Packets that a grant let pass; absent where no guard counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<u64>,
    /// Packets that were, or would be, dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub violations: Option<u64>,
    /// Who caused the violations, heaviest first, as far as the kernel kept it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "callers")]
    pub talkers: Vec<TopTalker>,
    /// What was seen, as every view shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Finding>,
}

pub(super) fn blank(direction: Direction, transport: Transport, first: u16, last: u16) -> Item {
    Item {
        direction: direction.name(),
        transport,
        port_first: first,
        port_last: last,
        state: State::UndocumentedTrafficSeen,
        interface: None,
        finding: false,
        mismatch: false,
        may: false,
        rows: Vec::new(),
        purposes: Vec::new(),
        citations: Vec::new(),
        left_out: Vec::new(),
        listeners: Vec::new(),
        published: Vec::new(),
        behind: Vec::new(),
        passed: None,
        violations: None,
        talkers: Vec::new(),
        traffic: None,
    }
}

pub(super) fn document(item: &mut Item, policy: &Policy, span: &Span<'_>) {
    let rows: BTreeSet<&str> = span.grants.iter().map(|grant| grant.row.as_str()).collect();
    for row in rows {
        item.rows.push(row.to_owned());
        let Some(facts) = policy.facts(row) else {
            continue;
        };
        for (list, text) in [
            (&mut item.purposes, &facts.purpose),
            (&mut item.citations, &facts.citation),
        ] {
            if !text.is_empty() && !list.contains(text) {
                list.push(text.clone());
            }
        }
    }
}

/// Fills in what listens there and what was seen.
pub(super) fn look(item: &mut Item, views: &Views<'_>, seen: &Seen<'_>) {
    let ports = (item.port_first, item.port_last);
    if item.direction == Direction::Ingress.name() {
        let listeners = seen.listeners(item.transport, ports).cloned().collect();
        let published: Vec<Published> = views
            .published
            .iter()
            .filter(|one| {
                let ports = one.ports();
                one.transport == item.transport
                    && *ports.start() <= item.port_last
                    && item.port_first <= *ports.end()
            })
            .cloned()
            .collect();
        let mut behind: Vec<Listener> = Vec::new();
        for one in &published {
            let at_end: Vec<&Listener> = match one.address {
                _ if one.is_host => views.listeners.iter().collect(),
                Some(address) => views
                    .elsewhere
                    .iter()
                    .filter(|namespace| namespace.addresses.contains(&address))
                    .flat_map(|namespace| &namespace.listeners)
                    .collect(),
                None => Vec::new(),
            };
            for listener in at_end {
                let is_it = listener.transport == one.transport
                    && one.inner_ports().contains(&listener.port);
                if is_it && !behind.contains(listener) {
                    behind.push(listener.clone());
                }
            }
        }
        item.listeners = listeners;
        item.published = published;
        item.behind = behind;
    }
    if views.seen.is_empty() {
        return;
    }
    let (mut passed, mut violations) = (0, 0);
    for line in seen.lines(item.direction, item.transport, ports) {
        passed += line.passed.packets;
        violations += line.violations.packets;
    }
    item.passed = Some(passed);
    item.violations = Some(violations);
    let talkers = seen.talkers(item.direction, item.transport, ports);
    item.talkers = talkers.into_iter().take(TALKERS).cloned().collect();
}

impl Item {
    /// What was seen, where that is all that there is to say.
    pub(super) fn of_traffic(finding: &Finding, views: &Views<'_>, seen: &Seen<'_>) -> Self {
        let direction = if finding.direction == Direction::Egress.name() {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        let transport = finding.transport.unwrap_or(Transport::Tcp);
        let first = finding.port_first.unwrap_or(views.ephemeral.0);
        let last = finding.port_last.unwrap_or(match direction {
            Direction::Ingress => views.ephemeral.1,
            Direction::Egress => u16::MAX,
        });
        let mut item = blank(direction, transport, first, last);
        item.state = match finding.kind {
            Kind::UndocumentedPeer | Kind::UndocumentedDestination => State::UndocumentedPeerSeen,
            Kind::Scan => State::Scan,
            Kind::AnswersFromElsewhere => State::AnswersFromElsewhere,
            Kind::UndocumentedAnswers => State::UndocumentedAnswers,
            Kind::UndocumentedPort | Kind::UndocumentedDestinationPort | Kind::WithoutPort => {
                State::UndocumentedTrafficSeen
            }
        };
        if finding.ports == 1 {
            look(&mut item, views, seen);
        }
        // Of the baseline and of documented ports, which are for certain peers only.
        item.rows.clone_from(&finding.rows);
        item
    }

    /// With whether it is a finding, or a mismatch.
    pub(super) fn judged(mut self) -> Self {
        self.finding = self.traffic.is_some();
        self.mismatch = self.state.is_to_act_on() && !self.finding;
        let mut published = self.published.iter();
        self.may = self.state.is_handed_on() && !published.any(|one| one.is_certain);
        self
    }

    /// Whether somebody should do something about it.
    pub fn is_to_act_on(&self) -> bool {
        self.finding || self.mismatch
    }

    /// `nginx (nginx.service)`, `-> 172.17.0.2:80`, `maybe -> port 80`; for traffic that nobody listens for `from 192.0.2.7 (12)`.
    pub fn who(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut add = |word: String| {
            if !words.contains(&word) {
                words.push(word);
            }
        };
        self.listeners.iter().flat_map(tell).for_each(&mut add);
        for published in &self.published {
            add(published.told());
        }
        self.behind.iter().flat_map(tell).for_each(&mut add);
        if let Some(traffic) = self.traffic.as_ref().filter(|_| self.state.is_traffic()) {
            let verb = if self.direction == "out" {
                "to"
            } else {
                "from"
            };
            return match traffic.peers_known {
                0 => "-".to_owned(),
                _ => format!("{verb} {}", traffic.who(NAMED)),
            };
        }
        if words.is_empty() {
            "-".to_owned()
        } else {
            words.join(", ")
        }
    }

    /// `tcp/443`, `tcp/5000-5010`, `scan of 948 ports`.
    pub fn what(&self) -> String {
        match &self.traffic {
            Some(traffic) if self.state.is_traffic() => traffic.what.clone(),
            _ => format!("{}/{}", self.transport, self.ports()),
        }
    }

    /// `443` or `5000-5010`.
    pub fn ports(&self) -> String {
        if self.port_first == self.port_last {
            self.port_first.to_string()
        } else {
            format!("{}-{}", self.port_first, self.port_last)
        }
    }
}

/// `from 192.0.2.7 (12), ...`; `to` for what is sent. `None` where nobody is known.
pub(super) fn who(direction: &str, talkers: &[TopTalker]) -> Option<String> {
    let verb = if direction == Direction::Egress.name() {
        "to"
    } else {
        "from"
    };
    let named = talkers.iter().take(NAMED);
    let mut words: Vec<String> = named
        .map(|talker| format!("{verb} {} ({})", talker.who(), talker.amount()))
        .collect();
    if talkers.len() > NAMED {
        words.push("...".to_owned());
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn tell(listener: &Listener) -> Vec<String> {
    if listener.processes.is_empty() {
        return vec!["a process that is not visible".to_owned()];
    }
    let each = listener.processes.iter();
    each.map(|process| match &process.unit {
        Some(unit) => format!("{} ({unit})", process.name),
        None => process.name.clone(),
    })
    .collect()
}
