//! Ports that the host hands on before any socket of its own sees them: to containers mostly, or to another port of its own.
//! XDP judges before that, so that these ports are open or closed by the number outside.
//!
//! The packet filter's own tools tell its rules. They are walked through with all ports at once: as packets from
//! outside for this host would be, or as those for others ([`World`]), through sets, maps and chains, in the order of the rules.
//! A base chain is looked at by itself; what filters drop before or behind is not looked at. What was not understood is told
//! beside what was found, and so is what the kernel has and no tool tells.

mod iptables;
mod kernel;
mod nft;
mod ports;
mod rules;
mod walk;
mod world;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::Value;

use iptables::Saved;
use nft::Ruleset;
use portguard_policy::catalog::Transport;
use rules::{Step, Table};

pub use world::World;
pub(crate) use world::above;

/// Why a rule that gives packets to a program by a queue is not followed.
const QUEUED: &str = "gives packets to a program by a queue, which may rewrite them";

/// One port, or range of ports, that is handed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Published {
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// The port outside, or the first of a range.
    pub port: u16,
    /// The last of a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_last: Option<u16>,
    /// Where it goes, as the rule says.
    pub to: String,
    /// Whether it stays on this host, at another port.
    #[serde(rename = "host")]
    pub is_host: bool,
    /// Whether some packets are handed on for certain; if not, that depends on conditions that nobody looked at, such as
    /// who sends them, or on rules before this one.
    #[serde(rename = "certain")]
    pub is_certain: bool,
    /// The rule.
    pub rule: Place,
    /// The address inside, the first of a range; absent = this host.
    #[serde(skip)]
    pub address: Option<IpAddr>,
    /// First and last port inside; absent = as outside.
    #[serde(skip)]
    pub inside: Option<(u16, u16)>,
}

/// Where a rule stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// `nft` or `iptables`.
    pub tool: &'static str,
    /// `ip`, `ip6`, `inet`, `netdev`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub family: String,
    /// Table.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// Chain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chain: String,
    /// Number of the rule, as `nft -a` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
    /// The rule itself, where it has no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// A rule, or all rules of a tool, that may hand something on and could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unread {
    /// Which.
    #[serde(flatten)]
    pub rule: Place,
    /// Why.
    pub why: String,
}

/// What the packet filter hands on, and what is not known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// By transport and port.
    pub published: Vec<Published>,
    /// What was not understood.
    pub unread: Vec<Unread>,
}

impl Published {
    /// The ports outside.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.port..=self.port_last.unwrap_or(self.port)
    }

    /// The ports inside.
    pub fn inner_ports(&self) -> RangeInclusive<u16> {
        self.inside
            .map_or_else(|| self.ports(), |(first, last)| first..=last)
    }

    /// `-> 172.17.0.2:80`, `maybe -> port 5353`.
    pub fn told(&self) -> String {
        let maybe = if self.is_certain { "" } else { "maybe " };
        format!("{maybe}-> {}", self.to)
    }
}

impl Unread {
    /// Whether there are rules for certain, which may hand anything on; else nobody knows.
    pub fn is_rule(&self) -> bool {
        !self.rule.table.is_empty()
    }

    /// Whether it is a whole chain, a table, or all of a tool: no rule of it was read.
    pub fn is_whole(&self) -> bool {
        self.rule.handle.is_none() && self.rule.rule.is_none()
    }
}

impl fmt::Display for Place {
    /// `inet nat prerouting handle 12`, `iptables -A DOCKER ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tool)?;
        for part in [&self.family, &self.table, &self.chain] {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        if let Some(handle) = self.handle {
            write!(f, " handle {handle}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " `{rule}`")?;
        }
        Ok(())
    }
}

impl Table {
    /// Whether any rule sends something elsewhere, or may.
    fn matters(&self) -> bool {
        let mut steps = self.chains.values().flatten().flat_map(|rule| &rule.steps);
        steps.any(|step| matches!(step, Step::Send { .. } | Step::Blind(_)))
    }
}

/// What a ruleset hands on, as `nft -j list ruleset` prints it; `None` if it is not one.
pub fn read_nft(text: &str, world: &World) -> Option<Reading> {
    let ruleset = serde_json::from_str(text).ok()?;
    Some(walked(&Ruleset::of(&ruleset)?.tables(world), world))
}

/// What rules of `family` (`ip`, `ip6`) hand on, as `iptables-save` prints them.
pub fn read_iptables(family: &'static str, text: &str, world: &World) -> Reading {
    walked(&Saved::of(family, text).tables(world), world)
}

fn walked(tables: &[Table], world: &World) -> Reading {
    let mut reading = Reading::default();
    for table in tables {
        walk::walk(table, world, &mut reading);
    }
    reading.join();
    reading
}

/// Asks the packet filter's tools what is handed on in the network namespace of the calling thread.
pub fn read(world: &World) -> Reading {
    let mut reading = Reading::default();
    let (ruleset, untold) = match ask("nft", &["-j", "list", "ruleset"]) {
        Answer::Said(text) => (
            serde_json::from_str::<Value>(&text).unwrap_or_default(),
            None,
        ),
        Answer::Missing => (Value::Null, Some("`nft` is not installed".to_owned())),
        Answer::Failed(why) => (Value::Null, Some(format!("`nft` failed: {why}"))),
    };
    let told = Ruleset::of(&ruleset);
    let untold = untold.or_else(|| {
        told.is_none()
            .then(|| "the output of `nft` is not a ruleset".to_owned())
    });
    let mut ruleset = told.unwrap_or_default();
    let mut tables = Vec::new();
    // Chains that iptables' own tools told.
    let mut seen: Vec<(&str, String, BTreeSet<String>)> = Vec::new();
    for (family, prefix) in [("ip", "iptables"), ("ip6", "ip6tables")] {
        if ruleset.is_foreign(family) || untold.is_some() {
            let tools = [format!("{prefix}-nft-save"), format!("{prefix}-save")];
            if let Some(text) = first(&tools) {
                let saved = Saved::of(family, &text);
                for (table, chains) in saved.chains() {
                    ruleset.leave(family, table, chains);
                    seen.push((family, table.to_owned(), chains.clone()));
                }
                tables.extend(saved.tables(world));
            }
        }
        tables.extend(legacy(family, prefix, world, &mut reading));
    }
    if let Some(why) = untold {
        untold_chains(&why, &seen, &mut reading);
    }
    tables.extend(ruleset.tables(world));
    for table in &tables {
        walk::walk(table, world, &mut reading);
    }
    reading.join();
    reading
}

/// What iptables has that is not built on `nf_tables`. Listed only if there is any, so that to look makes none.
fn legacy(family: &'static str, prefix: &str, world: &World, reading: &mut Reading) -> Vec<Table> {
    let names = format!(
        "/proc/thread-self/net/{}_tables_names",
        prefix.trim_end_matches("tables")
    );
    let names = std::fs::read_to_string(names).unwrap_or_default();
    let mut wanted: BTreeSet<&str> = names.split_whitespace().collect();
    wanted.retain(|name| iptables::TABLES.contains(name));
    if wanted.is_empty() {
        return Vec::new();
    }
    let tools = [format!("{prefix}-legacy-save"), format!("{prefix}-save")];
    let saved = first(&tools).map(|text| Saved::of(family, &text));
    for (name, _) in saved.iter().flat_map(Saved::chains) {
        // A tool that is built on `nf_tables` does not tell these.
        wanted.remove(name);
    }
    for name in wanted {
        reading.unread.push(Unread {
            rule: Place {
                tool: "iptables",
                family: family.to_owned(),
                table: name.to_owned(),
                ..Place::default()
            },
            why: format!(
                "the kernel has this table, and no tool told its rules (`{prefix}-legacy-save`)"
            ),
        });
    }
    saved.map_or_else(Vec::new, |saved| saved.tables(world))
}

/// Chains of `nf_tables` that the kernel has and no tool told: each, and why.
fn untold_chains(why: &str, seen: &[(&str, String, BTreeSet<String>)], reading: &mut Reading) {
    let chains = match kernel::chains() {
        Ok(chains) => chains,
        Err(error) => {
            return reading.tool(
                "nft",
                &format!("{why}, and the kernel does not say what it has: {error}"),
            );
        }
    };
    let is_seen = |place: &Place| {
        seen.iter().any(|(family, table, chains)| {
            (*family, table) == (place.family.as_str(), &place.table)
                && chains.contains(&place.chain)
        })
    };
    for rule in chains.into_iter().filter(|place| !is_seen(place)) {
        let why = format!("the kernel has rules there that nobody read: {why}");
        reading.unread.push(Unread { rule, why });
    }
}

impl Reading {
    /// Sorts, and makes one range of what one rule hands on in parts.
    fn join(&mut self) {
        self.published.sort_by(|one, other| {
            let key = |one: &Published| (one.rule.clone(), one.to.clone(), one.is_certain);
            (key(one), one).cmp(&(key(other), other))
        });
        self.published.dedup_by(|next, before| {
            let is_same = (&next.rule, &next.to, next.transport, next.is_certain)
                == (
                    &before.rule,
                    &before.to,
                    before.transport,
                    before.is_certain,
                );
            let (_, last) = before.ports().into_inner();
            let is_next = is_same && next.port <= last.saturating_add(1);
            if is_next {
                let last = last.max(*next.ports().end());
                before.port_last = (last != before.port).then_some(last);
            }
            is_next
        });
        self.published.sort();
    }

    fn tool(&mut self, tool: &'static str, why: &str) {
        let rule = Place {
            tool,
            ..Place::default()
        };
        let why = why.to_owned();
        self.unread.push(Unread { rule, why });
    }
}

/// What came of asking a tool.
enum Answer {
    Missing,
    Failed(String),
    Said(String),
}

fn ask(tool: &str, arguments: &[&str]) -> Answer {
    let asked = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    match asked {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Answer::Missing,
        Err(error) => Answer::Failed(error.to_string()),
        Ok(output) if output.status.success() => {
            Answer::Said(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            let words = words.lines().next().unwrap_or_default();
            Answer::Failed(format!("{}: {words}", output.status))
        }
    }
}

/// What the first of some tools says that is there.
fn first(tools: &[String]) -> Option<String> {
    tools.iter().find_map(|tool| match ask(tool, &[]) {
        Answer::Said(text) => Some(text),
        Answer::Missing | Answer::Failed(_) => None,
    })
}

/// What was found, in order, as tests of both tools compare it.
#[cfg(test)]
fn told(reading: &Reading) -> Vec<String> {
    let mut published: Vec<&Published> = reading.published.iter().collect();
    published.sort();
    let tell = |one: &&Published| {
        let (first, last) = one.ports().into_inner();
        format!("{} {first}-{last} {}", one.transport, one.told())
    };
    published.iter().map(tell).collect()
}
