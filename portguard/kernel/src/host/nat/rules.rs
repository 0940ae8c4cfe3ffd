//! Chains of rules in the few words that matter here, whatever tool told them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Place;
use super::ports::{Family, Ports};

/// Whether a condition holds for packets that come from outside for this host, or for others ([`World`](super::World)). What is said of a whole rule is the least of
/// what is said of its conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    /// For none of them.
    Never,
    /// Nobody looked: it depends on what is not known here.
    Unknown,
    /// For some of them that there are for certain, such as those for one of the host's addresses.
    Some,
    /// For all of them.
    Always,
}

/// Which packets a step is for.
#[derive(Debug, Clone)]
pub(super) struct When {
    /// Those to these ports; absent = all.
    pub(super) ports: Option<Ports>,
    /// And of those, these.
    pub(super) truth: Truth,
}

/// One thing that a rule does, in its order.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// What follows in this rule is only for such packets.
    Only(When),
    /// It has its way, and the chain ends.
    End(When),
    /// Back to the chain that led here.
    Return(When),
    /// On to another chain, from which it comes back or not.
    Go {
        when: When,
        chain: String,
        comes_back: bool,
    },
    /// It is sent elsewhere, and the chain ends.
    Send { when: When, to: Target },
    /// Something that is not understood: why. What follows in this rule is not looked at.
    Blind(String),
}

/// Where packets are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    /// Both ends of a range of addresses; absent = this host.
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    /// First and last port; absent = as outside.
    pub(super) ports: Option<(u16, u16)>,
    /// Where the rule's own words say more than the two.
    pub(super) words: Option<String>,
}

/// One rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) place: Place,
    pub(super) steps: Vec<Step>,
}

/// The chains of one table, and those at which packets from outside begin.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Whose packets come here; absent = both.
    pub(super) family: Option<Family>,
    pub(super) chains: BTreeMap<String, Vec<Rule>>,
    pub(super) begin: Vec<String>,
}

impl When {
    /// All packets.
    pub(super) fn always() -> Self {
        Self::only(Truth::Always)
    }

    /// Whatever the port.
    pub(super) fn only(truth: Truth) -> Self {
        Self { ports: None, truth }
    }

    /// Of one family, as far as something holds.
    pub(super) fn of(family: Family, truth: Truth) -> Self {
        Self {
            ports: Some(Ports::of_family(family)),
            truth,
        }
    }

    /// Those to certain ports, and no others.
    pub(super) fn to(ports: Ports) -> Self {
        Self {
            ports: Some(ports),
            truth: Truth::Always,
        }
    }

    /// Where both hold.
    #[must_use]
    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            ports: match (&self.ports, &other.ports) {
                (Some(one), Some(other)) => Some(one.and(other)),
                (one, other) => one.as_ref().or(other.as_ref()).cloned(),
            },
            truth: self.truth.min(other.truth),
        }
    }

    /// Where one of them holds, as far as that can be said of all at once.
    pub(super) fn any(all: Vec<Self>) -> Self {
        let mut all = all.into_iter().filter(|when| when.truth > Truth::Never);
        let Some(mut union) = all.next() else {
            return Self::only(Truth::Never);
        };
        for when in all {
            union.truth = union.truth.min(when.truth);
            union.ports = match (union.ports, &when.ports) {
                (Some(mut ports), Some(more)) => {
                    ports.add(more);
                    Some(ports)
                }
                _ => None,
            };
        }
        union
    }

    /// Those of some ports that it is for.
    pub(super) fn cut(&self, ports: &Ports) -> Ports {
        match &self.ports {
            Some(own) => own.and(ports),
            None => ports.clone(),
        }
    }
}

impl Target {
    /// `172.17.0.2:80`, `[fd00::2]:80-90`, `port 5353`, `this host`.
    pub(super) fn told(&self) -> String {
        if let Some(words) = &self.words {
            return words.clone();
        }
        let ports = self.ports.map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        });
        let Some((first, last)) = self.addresses else {
            return ports.map_or("this host".to_owned(), |ports| format!("port {ports}"));
        };
        let address = if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        };
        match ports {
            Some(ports) if first.is_ipv6() => format!("[{address}]:{ports}"),
            Some(ports) => format!("{address}:{ports}"),
            None => address,
        }
    }
}
