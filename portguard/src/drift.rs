//! Drift: what is documented, what listens and what was seen, side by side. Pure: everything is handed in.

mod state;

use std::collections::BTreeSet;

use portguard_common::reason::Direction;
use serde::Serialize;

use crate::catalog::Transport;
use crate::counters::{PortCount, Report};
use crate::image::{Span, spans};
use crate::knock::{Caller, of_port};
use crate::listeners::{Listener, Published};
use crate::policy::{GrantKind, Policy};

pub use state::State;

/// Callers that are kept for a port.
const CALLERS: usize = 8;
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
    /// Whether somebody should do something about it.
    pub finding: bool,
    /// Rows that document it.
    pub rows: Vec<String>,
    /// What the rows are for.
    pub purposes: Vec<String>,
    /// Where the documents say so.
    pub citations: Vec<String>,
    /// What listens there.
    pub listeners: Vec<Listener>,
    /// Where it is handed on to.
    pub published: Vec<Published>,
    /// Who listens at the other end of that, in another network namespace.
    pub behind: Vec<Listener>,
    /// Packets that a grant let pass; absent where no guard counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<u64>,
    /// Packets that were, or would be, dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub violations: Option<u64>,
    /// Who caused the violations, heaviest first, as far as the kernel kept it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<Caller>,
}

/// What is known besides the policy.
#[derive(Debug, Default)]
pub struct Views<'a> {
    /// What listens in this network namespace.
    pub listeners: Vec<Listener>,
    /// What the packet filter hands on.
    pub published: Vec<Published>,
    /// What listens in other network namespaces.
    pub elsewhere: Vec<Listener>,
    /// What was counted, by interface; empty where no guard is loaded.
    pub seen: &'a [Report],
    /// Ports that the kernel gives to sockets that did not ask for one.
    pub ephemeral: (u16, u16),
    /// Who caused violations, heaviest first.
    pub callers: &'a [Caller],
}

/// Compares, findings first, then by direction, transport and port.
pub fn compare(policy: &Policy, views: &Views<'_>) -> Vec<Item> {
    let inbound = spans(&policy.inbound);
    let outbound = spans(&policy.outbound);
    let mut items: Vec<Item> = Vec::new();
    items.extend(
        inbound
            .iter()
            .filter_map(|span| inwards(policy, views, span)),
    );
    items.extend(undocumented_listeners(views, &inbound));
    items.extend(undocumented_published(views, &inbound));
    if !views.seen.is_empty() {
        items.extend(
            outbound
                .iter()
                .filter_map(|span| outwards(policy, views, span)),
        );
        items.extend(knocks(views, &items));
    }
    items.sort_by_key(|item| {
        (
            !item.finding,
            item.direction,
            item.transport,
            item.port_first,
        )
    });
    items
}

fn inwards(policy: &Policy, views: &Views<'_>, span: &Span<'_>) -> Option<Item> {
    // DHCP is heard on a packet socket, which is no listener.
    if span
        .grants
        .iter()
        .all(|grant| grant.kind == GrantKind::Baseline)
    {
        return None;
    }
    let mut item = blank(Direction::Ingress, span.transport, span.first, span.last);
    document(&mut item, policy, span);
    look(&mut item, views);
    item.state = if !item.published.is_empty() {
        State::DocumentedPublished
    } else if item.listeners.is_empty() {
        State::DocumentedNotListening
    } else if item.listeners.iter().all(Listener::is_loopback) {
        State::DocumentedLoopbackOnly
    } else {
        match item.passed {
            Some(0) => State::DocumentedListeningUnused,
            Some(_) => State::DocumentedUsed,
            None => State::DocumentedListening,
        }
    };
    Some(item.judged())
}

fn outwards(policy: &Policy, views: &Views<'_>, span: &Span<'_>) -> Option<Item> {
    if span
        .grants
        .iter()
        .all(|grant| grant.kind == GrantKind::Baseline)
    {
        return None;
    }
    let mut item = blank(Direction::Egress, span.transport, span.first, span.last);
    document(&mut item, policy, span);
    look(&mut item, views);
    item.state = if item.passed.unwrap_or(0) > 0 {
        State::DocumentedUsed
    } else {
        State::DocumentedNeverUsed
    };
    Some(item.judged())
}

fn undocumented_listeners(views: &Views<'_>, open: &[Span<'_>]) -> Vec<Item> {
    let ports: BTreeSet<(Transport, u16)> = views
        .listeners
        .iter()
        .map(|one| (one.transport, one.port))
        .filter(|place| !is_open(open, *place))
        .collect();
    ports
        .into_iter()
        .map(|(transport, port)| {
            let mut item = blank(Direction::Ingress, transport, port, port);
            look(&mut item, views);
            let (first, last) = views.ephemeral;
            item.state = if item.listeners.iter().all(Listener::is_loopback) {
                State::LoopbackOnly
            } else if transport == Transport::Udp && (first..=last).contains(&port) {
                State::EphemeralSocket
            } else {
                State::ListeningUndocumented
            };
            item.judged()
        })
        .collect()
}

fn undocumented_published(views: &Views<'_>, open: &[Span<'_>]) -> Vec<Item> {
    let listens = |place| {
        views
            .listeners
            .iter()
            .any(|one| (one.transport, one.port) == place)
    };
    let ports: BTreeSet<(Transport, u16)> = views
        .published
        .iter()
        .flat_map(|one| one.ports().map(|port| (one.transport, port)))
        .filter(|place| !is_open(open, *place) && !listens(*place))
        .collect();
    // What is handed on as a range is told as one, as far as no document and no listener comes between.
    let mut runs: Vec<(Transport, u16, u16)> = Vec::new();
    for (transport, port) in ports {
        let is_of =
            |one: &Published, port| one.transport == transport && one.ports().contains(&port);
        match runs.last_mut() {
            Some((same, _, last))
                if *same == transport
                    && last.checked_add(1) == Some(port)
                    && views
                        .published
                        .iter()
                        .any(|one| is_of(one, *last) && is_of(one, port)) =>
            {
                *last = port;
            }
            _ => runs.push((transport, port, port)),
        }
    }
    runs.into_iter()
        .map(|(transport, first, last)| {
            let mut item = blank(Direction::Ingress, transport, first, last);
            look(&mut item, views);
            item.state = State::PublishedUndocumented;
            item.judged()
        })
        .collect()
}

/// Undocumented traffic that no other item tells about.
fn knocks(views: &Views<'_>, told: &[Item]) -> Vec<Item> {
    let mut places = BTreeSet::new();
    for port in views.seen.iter().flat_map(|report| &report.ports) {
        let Some(transport) = transport_of(port) else {
            continue;
        };
        if port.violations.packets == 0 || port.documented {
            continue;
        }
        let is_told = told.iter().any(|item| {
            item.direction == port.direction
                && item.transport == transport
                && (item.port_first..=item.port_last).contains(&port.port)
        });
        if !is_told {
            places.insert((port.direction, transport, port.port));
        }
    }
    let served = served(told);
    places
        .into_iter()
        .map(|(direction, transport, port)| {
            let direction = if direction == Direction::Egress.name() {
                Direction::Egress
            } else {
                Direction::Ingress
            };
            let mut item = blank(direction, transport, port, port);
            look(&mut item, views);
            let is_answer = direction == Direction::Egress
                && port >= views.ephemeral.0
                && !item.callers.is_empty()
                && item
                    .callers
                    .iter()
                    .all(|caller| served.contains(&(transport, caller.who())));
            item.state = if is_answer {
                State::UndocumentedAnswers
            } else {
                State::UndocumentedTrafficSeen
            };
            item.judged()
        })
        .collect()
}

/// Who calls services that no document opens: those are findings, and what they answer in audit is none of its own.
fn served(told: &[Item]) -> BTreeSet<(Transport, &str)> {
    told.iter()
        .filter(|item| {
            matches!(
                item.state,
                State::ListeningUndocumented | State::PublishedUndocumented
            )
        })
        .flat_map(|item| {
            let callers = item.callers.iter();
            callers.map(|caller| (item.transport, caller.who()))
        })
        .collect()
}

fn is_open(open: &[Span<'_>], (transport, port): (Transport, u16)) -> bool {
    open.iter()
        .any(|span| span.transport == transport && (span.first..=span.last).contains(&port))
}

fn transport_of(port: &PortCount) -> Option<Transport> {
    match port.transport {
        "tcp" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        "sctp" => Some(Transport::Sctp),
        _ => None,
    }
}

fn blank(direction: Direction, transport: Transport, first: u16, last: u16) -> Item {
    Item {
        direction: direction.name(),
        transport,
        port_first: first,
        port_last: last,
        state: State::UndocumentedTrafficSeen,
        finding: false,
        rows: Vec::new(),
        purposes: Vec::new(),
        citations: Vec::new(),
        listeners: Vec::new(),
        published: Vec::new(),
        behind: Vec::new(),
        passed: None,
        violations: None,
        callers: Vec::new(),
    }
}

fn document(item: &mut Item, policy: &Policy, span: &Span<'_>) {
    let rows: BTreeSet<&str> = span.grants.iter().map(|grant| grant.row.as_str()).collect();
    for row in rows {
        item.rows.push(row.to_owned());
        let Some(facts) = policy.rows.iter().find(|facts| facts.id == row) else {
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
fn look(item: &mut Item, views: &Views<'_>) {
    let covers = |transport, port| {
        item.transport == transport && (item.port_first..=item.port_last).contains(&port)
    };
    if item.direction == Direction::Ingress.name() {
        let of = |all: &[Listener]| -> Vec<Listener> {
            let here = all.iter().filter(|one| covers(one.transport, one.port));
            here.cloned().collect()
        };
        let listeners = of(&views.listeners);
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
        let behind = views
            .elsewhere
            .iter()
            .filter(|one| {
                published.iter().any(|published| {
                    published.transport == one.transport
                        && published.inner_ports().contains(&one.port)
                })
            })
            .cloned()
            .collect();
        item.listeners = listeners;
        item.published = published;
        item.behind = behind;
    }
    if views.seen.is_empty() {
        return;
    }
    let (mut passed, mut violations) = (0, 0);
    for port in views.seen.iter().flat_map(|report| &report.ports) {
        let last = port.port_last.unwrap_or(port.port);
        if port.direction == item.direction
            && transport_of(port) == Some(item.transport)
            && port.port <= item.port_last
            && item.port_first <= last
        {
            passed += port.passed.packets;
            violations += port.violations.packets;
        }
    }
    item.passed = Some(passed);
    item.violations = Some(violations);
    let ports = item.port_first..=item.port_last;
    let transport = item.transport.to_string();
    item.callers = of_port(views.callers, item.direction, &transport, ports)
        .take(CALLERS)
        .cloned()
        .collect();
}

impl Item {
    fn judged(mut self) -> Self {
        self.finding = self.state.is_finding();
        self
    }

    /// `nginx (nginx.service)`, `-> 172.17.0.2:80`; for traffic that nobody listens for `from 192.0.2.7 (12)`.
    pub fn who(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        let mut add = |word: String| {
            if !words.contains(&word) {
                words.push(word);
            }
        };
        self.listeners.iter().flat_map(tell).for_each(&mut add);
        for published in &self.published {
            add(format!("-> {}", published.to));
        }
        self.behind.iter().flat_map(tell).for_each(&mut add);
        let is_traffic = matches!(
            self.state,
            State::UndocumentedTrafficSeen | State::UndocumentedAnswers
        );
        if words.is_empty() && is_traffic {
            let verb = if self.direction == Direction::Egress.name() {
                "to"
            } else {
                "from"
            };
            for caller in self.callers.iter().take(NAMED) {
                words.push(format!("{verb} {} ({})", caller.who(), caller.amount()));
            }
            if self.callers.len() > NAMED {
                words.push("...".to_owned());
            }
        }
        if words.is_empty() {
            "-".to_owned()
        } else {
            words.join(", ")
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

#[cfg(test)]
mod tests;
