//! Drift: what is documented, what listens and what was seen, side by side. Pure: everything is handed in.

mod item;
mod portless;
mod seen;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use portguard_common::reason::Direction;

use crate::counters::Report;
use crate::findings::{Finding, Kind};
use crate::talkers::TopTalker;
use portguard_kernel::host::listeners::{Listener, Namespace};
use portguard_kernel::host::nat::{Published, Unread};
use portguard_policy::catalog::Transport;
use portguard_policy::explain::Near;
use portguard_policy::image::{Span, covering, spans};
use portguard_policy::policy::{GrantKind, Policy};

use item::{blank, document, look};
use seen::Seen;

pub use item::Item;
pub use portless::Portless;
pub use state::State;

/// What one guarded interface saw, of one moment and since one moment.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Its counters.
    pub report: Report,
    /// Who caused violations, heaviest first.
    pub talkers: Vec<TopTalker>,
    /// Its findings, which every view of it has.
    pub findings: Vec<Finding>,
}

/// What is known besides the policy.
#[derive(Debug, Default)]
pub struct Views<'a> {
    /// What listens in this network namespace.
    pub listeners: Vec<Listener>,
    /// What the packet filter hands on.
    pub published: Vec<Published>,
    /// Other network namespaces.
    pub elsewhere: Vec<Namespace>,
    /// What was seen, by interface; empty where no guard is loaded.
    pub seen: &'a [Sight],
    /// Rows of the host's roles that print the port of a listener and open nothing here.
    pub left_out: BTreeMap<(Transport, u16), Vec<Near>>,
    /// Ports that the kernel gives to sockets that did not ask for one.
    pub ephemeral: (u16, u16),
    /// UDP ports that it gave to all sockets that have them.
    pub clients: BTreeSet<u16>,
}

/// Everything that was compared.
#[derive(Debug, Clone, Default)]
pub struct Drift {
    /// By port.
    pub items: Vec<Item>,
    /// Undocumented traffic that no port is behind; each is a finding.
    pub portless: Vec<Portless>,
    /// Rules of the packet filter that were not understood: what they hand on is not among the items.
    pub unread: Vec<Unread>,
}

impl Drift {
    /// How many findings the guarded interfaces have together.
    pub fn findings(&self) -> usize {
        self.items.iter().filter(|item| item.finding).count() + self.portless.len()
    }

    /// How many documented, published or listening ports do not agree with each other, and have no finding.
    pub fn mismatches(&self) -> usize {
        self.items.iter().filter(|item| item.mismatch).count()
    }

    /// Compares; what was not `unread` is among the views.
    pub fn new(policy: &Policy, views: &Views<'_>, unread: Vec<Unread>) -> Self {
        Self {
            items: compare(policy, views),
            portless: views.seen.iter().flat_map(portless::portless).collect(),
            unread,
        }
    }
}

/// Compares by port, what to act on first, then by direction, transport and port.
pub fn compare(policy: &Policy, views: &Views<'_>) -> Vec<Item> {
    let inbound = spans(&policy.inbound);
    let outbound = spans(&policy.outbound);
    let seen = &Seen::new(views.seen, &views.listeners);
    let mut items: Vec<Item> = Vec::new();
    items.extend(
        inbound
            .iter()
            .filter_map(|span| inwards(policy, views, seen, span)),
    );
    items.extend(undocumented_listeners(views, seen, &inbound));
    items.extend(undocumented_published(views, seen, &inbound));
    if !views.seen.is_empty() {
        items.extend(
            outbound
                .iter()
                .filter_map(|span| outwards(policy, views, seen, span)),
        );
        traffic(policy, views, seen, (&inbound, &outbound), &mut items);
    }
    items.sort_by_key(|item| {
        (
            !item.is_to_act_on(),
            item.direction,
            item.transport,
            item.port_first,
        )
    });
    items
}

fn inwards(policy: &Policy, views: &Views<'_>, seen: &Seen<'_>, span: &Span<'_>) -> Option<Item> {
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
    look(&mut item, views, seen);
    item.state = if let Some(state) = handed_on(&item, true) {
        state
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

/// The state of what the packet filter hands on: away from this host, if some of it goes there. What may be handed on
/// counts only where nothing else answers.
fn handed_on(item: &Item, is_documented: bool) -> Option<State> {
    let answers = item.listeners.iter().any(|one| !one.is_loopback());
    let mut all = item
        .published
        .iter()
        .filter(|one| one.is_certain || !answers)
        .peekable();
    all.peek()?;
    let is_host = all.all(|one| one.is_host);
    Some(match (is_documented, is_host) {
        (true, true) => State::DocumentedRedirected,
        (true, false) => State::DocumentedPublished,
        (false, true) => State::RedirectedUndocumented,
        (false, false) => State::PublishedUndocumented,
    })
}

fn outwards(policy: &Policy, views: &Views<'_>, seen: &Seen<'_>, span: &Span<'_>) -> Option<Item> {
    if span
        .grants
        .iter()
        .all(|grant| grant.kind == GrantKind::Baseline)
    {
        return None;
    }
    let mut item = blank(Direction::Egress, span.transport, span.first, span.last);
    document(&mut item, policy, span);
    look(&mut item, views, seen);
    item.state = if item.passed.unwrap_or(0) > 0 {
        State::DocumentedUsed
    } else {
        State::DocumentedNeverUsed
    };
    Some(item.judged())
}

fn undocumented_listeners(views: &Views<'_>, seen: &Seen<'_>, open: &[Span<'_>]) -> Vec<Item> {
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
            look(&mut item, views, seen);
            let is_picked = transport == Transport::Udp && views.clients.contains(&port);
            item.state = if item.listeners.iter().all(Listener::is_loopback) {
                handed_on(&item, false).unwrap_or(State::LoopbackOnly)
            } else if is_picked {
                handed_on(&item, false).unwrap_or(State::EphemeralSocket)
            } else if let Some(rows) = views.left_out.get(&(transport, port)) {
                item.left_out.clone_from(rows);
                State::ListeningLeftOut
            } else {
                State::ListeningUndocumented
            };
            item.judged()
        })
        .collect()
}

fn undocumented_published(views: &Views<'_>, seen: &Seen<'_>, open: &[Span<'_>]) -> Vec<Item> {
    let listens = |(transport, port): (Transport, u16)| {
        seen.listeners(transport, (port, port)).next().is_some()
    };
    let ports: BTreeSet<(Transport, u16)> = views
        .published
        .iter()
        .flat_map(|one| one.ports().map(|port| (one.transport, port)))
        .filter(|place| !is_open(open, *place) && !listens(*place))
        .collect();
    // What the same rules hand on is told as one range, as far as no document and no listener comes between.
    let mut runs: Vec<(Transport, u16, u16, Vec<&Published>)> = Vec::new();
    for (transport, port) in ports {
        let all = views.published.iter();
        let of: Vec<&Published> = all
            .filter(|one| one.transport == transport && one.ports().contains(&port))
            .collect();
        match runs.last_mut() {
            Some((same, _, last, by))
                if *same == transport && last.checked_add(1) == Some(port) && *by == of =>
            {
                *last = port;
            }
            _ => runs.push((transport, port, port, of)),
        }
    }
    runs.into_iter()
        .map(|(transport, first, last, _)| {
            let mut item = blank(Direction::Ingress, transport, first, last);
            look(&mut item, views, seen);
            item.state = handed_on(&item, false).unwrap_or(State::PublishedUndocumented);
            item.judged()
        })
        .collect()
}

/// What was seen and should not have been, each finding of each interface once: beside the port that somebody listens on,
/// where there is one, or by itself.
fn traffic(
    policy: &Policy,
    views: &Views<'_>,
    all: &Seen<'_>,
    (inbound, outbound): (&[Span<'_>], &[Span<'_>]),
    items: &mut Vec<Item>,
) {
    for item in items.iter_mut() {
        item.violations = Some(0);
    }
    let mut served = Served::default();
    for (at, item) in items.iter().enumerate() {
        served.add(item, at);
    }
    for sight in views.seen {
        // There are as many counts as ports: of one interface alone they are there already.
        let own = (views.seen.len() > 1)
            .then(|| Seen::new(std::slice::from_ref(sight), &views.listeners));
        let seen = own.as_ref().unwrap_or(all);
        let name = &sight.report.name;
        for finding in &sight.findings {
            if finding.kind == Kind::WithoutPort {
                continue;
            }
            let at = served.at(finding);
            let known = at.and_then(|at| items.get(at)).cloned();
            // The first takes the place of what is told without traffic, those of other interfaces follow.
            let replaced = at.filter(|_| known.as_ref().is_some_and(|item| item.traffic.is_none()));
            let is_known = known.is_some();
            let mut item = known.unwrap_or_else(|| Item::of_traffic(finding, views, seen));
            if is_known {
                look(&mut item, views, seen);
            } else if item.state == State::UndocumentedPeerSeen {
                let open = if item.direction == Direction::Egress.name() {
                    outbound
                } else {
                    inbound
                };
                let port = (item.port_first, item.port_first);
                if let Some(span) = covering(open, item.transport, port) {
                    item.rows.clear();
                    document(&mut item, policy, span);
                }
            }
            // Documented on another interface of the host, and not here.
            let is_served = |listener: &Listener| !listener.is_loopback();
            if item.state == State::UndocumentedTrafficSeen && item.listeners.iter().any(is_served)
            {
                item.state = State::ListeningUndocumented;
                if !finding.left_out.is_empty() {
                    item.left_out.clone_from(&finding.left_out);
                    item.state = State::ListeningLeftOut;
                }
            }
            item.interface = Some(name.clone());
            item.violations = Some(finding.violations);
            item.traffic = Some(finding.clone());
            let item = item.judged();
            let at = replaced.unwrap_or(items.len());
            served.add(&item, at);
            match items.get_mut(at) {
                Some(place) => *place = item,
                None => items.push(item),
            }
        }
    }
}

/// Items of ports that somebody serves without a document, by port: of each the first.
#[derive(Default)]
struct Served(BTreeMap<(Transport, u16), usize>);

impl Served {
    fn add(&mut self, item: &Item, at: usize) {
        let is_served = matches!(
            item.state,
            State::ListeningLeftOut
                | State::ListeningUndocumented
                | State::PublishedUndocumented
                | State::RedirectedUndocumented
        );
        if is_served {
            for port in item.port_first..=item.port_last {
                self.0.entry((item.transport, port)).or_insert(at);
            }
        }
    }

    /// The item that a finding is about.
    fn at(&self, finding: &Finding) -> Option<usize> {
        if finding.kind != Kind::UndocumentedPort || finding.ports != 1 {
            return None;
        }
        let place = (finding.transport?, finding.port_first?);
        self.0.get(&place).copied()
    }
}

fn is_open(open: &[Span<'_>], (transport, port): (Transport, u16)) -> bool {
    covering(open, transport, (port, port)).is_some()
}

#[cfg(test)]
mod tests;
