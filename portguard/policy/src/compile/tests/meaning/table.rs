//! The tables' small language; see `portguard/catalog/expected/README.md`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds are alike here"
)]

use std::collections::{BTreeMap, BTreeSet};

use super::world::Facts;
use crate::catalog::System;

/// One table.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) sets: BTreeMap<String, BTreeSet<String>>,
    pub(super) lines: Vec<Line>,
    pub(super) closed: BTreeMap<String, String>,
    /// Rows of listeners that are told apart though their numbers are equal.
    pub(super) listeners: Vec<BTreeSet<String>>,
}

/// `ROW: FROM -> TO PORTS when FACTS`.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) row: String,
    pub(super) from: Vec<End>,
    pub(super) to: Vec<End>,
    pub(super) both: bool,
    pub(super) ports: Vec<Port>,
    facts: Vec<Fact>,
}

/// One end; `elsewhere`: it is printed by another row.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) name: String,
    pub(super) elsewhere: bool,
}

/// `tcp/9443+o`, `tcp/*`, `tcp/49152-65535`.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) transport: String,
    /// `None`: not printed.
    pub(super) range: Option<(u16, u16)>,
    pub(super) offset: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    Deployment(Vec<String>),
    AtLeast(Vec<u32>),
    Below(Vec<u32>),
    Option(String),
    Without(String),
    Choice(String, String),
}

impl Table {
    pub(super) fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(set) = line.strip_prefix("set ") {
                let (name, members) = set.split_once(" = ").unwrap();
                let members = members.split_whitespace();
                let members = members.flat_map(|member| match table.sets.get(member) {
                    // A set that contains its own name means the role.
                    Some(set) if member != name => set.clone(),
                    _ => BTreeSet::from([member.to_owned()]),
                });
                let members = members.collect();
                table.sets.insert(name.to_owned(), members);
            } else if let Some(rows) = line.strip_prefix("listener ") {
                let rows = rows.split_whitespace().map(str::to_owned);
                table.listeners.push(rows.collect());
            } else if let Some(closed) = line.strip_prefix("closed ") {
                let (row, reason) = closed.split_once(' ').unwrap();
                table.closed.insert(row.to_owned(), reason.to_owned());
            } else {
                table.lines.push(Line::parse(line));
            }
        }
        table
    }

    pub(super) fn rows(&self) -> BTreeSet<String> {
        let open = self.lines.iter().map(|line| line.row.clone());
        open.chain(self.closed.keys().cloned()).collect()
    }

    /// The listener by which a row is told apart from others with its number.
    pub(super) fn listener(&self, row: &str) -> Option<&BTreeSet<String>> {
        self.listeners.iter().find(|rows| rows.contains(row))
    }

    pub(super) fn holds(&self, row: &str, facts: &Facts) -> bool {
        let mut lines = self.lines.iter().filter(|line| line.row == row);
        lines.any(|line| line.holds(facts))
    }

    /// Sites to try: for each list of facts one that has them all, one for each that lacks it, with all else on and off.
    pub(super) fn facts(&self, system: &System) -> Vec<Facts> {
        let lists: BTreeSet<&Vec<Fact>> = self.lines.iter().map(|line| &line.facts).collect();
        let mut found = BTreeSet::new();
        for on in [true, false] {
            let base = Facts::base(system, on);
            found.insert(base.clone());
            for list in &lists {
                let meeting = list
                    .iter()
                    .fold(base.clone(), |facts, fact| fact.met(facts, list));
                for fact in *list {
                    found.extend(fact.missed(&meeting, system));
                }
                found.insert(meeting);
            }
        }
        found.into_iter().collect()
    }
}

impl Line {
    fn parse(text: &str) -> Self {
        let (row, rest) = text.split_once(": ").unwrap_or_else(|| panic!("{text}"));
        let (flow, facts) = rest.split_once(" when ").unwrap_or((rest, ""));
        let both = flow.contains("<->");
        let (from, to) = flow
            .split_once(if both { " <-> " } else { " -> " })
            .unwrap();
        let (to, ports) = to.rsplit_once(' ').unwrap();
        let ends = |text: &str| {
            let ends = text.split_whitespace().map(|name| End {
                name: name.trim_matches(['(', ')']).to_owned(),
                elsewhere: name.starts_with('('),
            });
            ends.collect()
        };
        Self {
            row: row.to_owned(),
            from: ends(from),
            to: ends(to),
            both,
            ports: ports.split(',').map(Port::parse).collect(),
            facts: facts.split_whitespace().map(Fact::parse).collect(),
        }
    }

    pub(super) fn holds(&self, facts: &Facts) -> bool {
        self.facts.iter().all(|fact| fact.holds(facts))
    }
}

impl Port {
    fn parse(text: &str) -> Self {
        let (transport, number) = text.split_once('/').unwrap();
        let plain = number.strip_suffix("+o");
        let digits = plain.unwrap_or(number);
        let range = (digits != "*").then(|| {
            let (first, last) = digits.split_once('-').unwrap_or((digits, digits));
            (first.parse().unwrap(), last.parse().unwrap())
        });
        Self {
            transport: transport.to_owned(),
            range,
            offset: plain.is_some(),
        }
    }
}

impl Fact {
    fn parse(text: &str) -> Self {
        let version = |text: &str| text.split('.').map(|part| part.parse().unwrap()).collect();
        if let Some(names) = text.strip_prefix("deployment=") {
            Self::Deployment(names.split(',').map(str::to_owned).collect())
        } else if let Some(bound) = text.strip_prefix("version>=") {
            Self::AtLeast(version(bound))
        } else if let Some(bound) = text.strip_prefix("version<") {
            Self::Below(version(bound))
        } else if let Some(option) = text.strip_prefix("option=") {
            Self::Option(option.to_owned())
        } else if let Some(option) = text.strip_prefix("without=") {
            Self::Without(option.to_owned())
        } else {
            let (choice, value) = text.split_once(':').unwrap();
            Self::Choice(choice.to_owned(), value.to_owned())
        }
    }

    fn holds(&self, facts: &Facts) -> bool {
        match self {
            Self::Deployment(names) => facts.deployment.iter().any(|name| names.contains(name)),
            Self::AtLeast(bound) => facts.version >= *bound,
            Self::Below(bound) => facts.version < *bound,
            Self::Option(option) => facts.options.contains(option),
            Self::Without(option) => !facts.options.contains(option),
            Self::Choice(choice, value) => facts.choices.get(choice) == Some(value),
        }
    }

    /// A version that meets all bounds of a list, beside the boundaries if it can be.
    fn version(list: &[Self]) -> Vec<u32> {
        let holds = |version: &[u32]| {
            list.iter().all(|fact| match fact {
                Self::AtLeast(bound) => version >= bound.as_slice(),
                Self::Below(bound) => version < bound.as_slice(),
                _ => true,
            })
        };
        let bounds = list.iter().filter_map(|fact| match fact {
            Self::AtLeast(bound) | Self::Below(bound) => Some(bound),
            _ => None,
        });
        let near = bounds.flat_map(|bound| [bound.clone(), below(bound)]);
        near.into_iter().find(|version| holds(version)).unwrap()
    }

    fn met(&self, mut facts: Facts, list: &[Self]) -> Facts {
        match self {
            Self::Deployment(names) => facts.deployment = names.first().cloned(),
            Self::AtLeast(_) | Self::Below(_) => facts.version = Self::version(list),
            Self::Option(option) => _ = facts.options.insert(option.clone()),
            Self::Without(option) => _ = facts.options.remove(option),
            Self::Choice(choice, value) => {
                facts.choices.insert(choice.clone(), value.clone());
            }
        }
        facts
    }

    /// The facts without this one: each other deployment or value.
    fn missed(&self, facts: &Facts, system: &System) -> Vec<Facts> {
        let with = |change: &dyn Fn(&mut Facts)| {
            let mut other = facts.clone();
            change(&mut other);
            other
        };
        match self {
            Self::Deployment(names) => {
                let others = system
                    .deployments
                    .keys()
                    .filter(|name| !names.contains(name));
                others
                    .map(|name| with(&|facts| facts.deployment = Some(name.clone())))
                    .collect()
            }
            Self::AtLeast(bound) => vec![with(&|facts| facts.version = below(bound))],
            Self::Below(bound) => vec![with(&|facts| facts.version.clone_from(bound))],
            Self::Option(option) => vec![with(&|facts| _ = facts.options.remove(option))],
            Self::Without(option) => {
                vec![with(&|facts| _ = facts.options.insert(option.clone()))]
            }
            Self::Choice(choice, value) => {
                let values = system.choices[choice].values.keys();
                let others = values.filter(|other| *other != value);
                others
                    .map(|other| {
                        with(&|facts| {
                            facts.choices.insert(choice.clone(), other.clone());
                        })
                    })
                    .collect()
            }
        }
    }
}

/// The last version before one.
fn below(bound: &[u32]) -> Vec<u32> {
    let mut version = bound.to_vec();
    while version.last() == Some(&0) {
        version.pop();
    }
    if let Some(last) = version.last_mut() {
        *last -= 1;
    }
    version.push(999);
    version
}
