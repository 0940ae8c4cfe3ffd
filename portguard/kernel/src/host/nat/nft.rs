//! What `nft -j list ruleset` tells, as chains of rules. The format is that of `libnftables-json(5)`.
//!
//! Read as the loose JSON that it is: a type for each statement would refuse a whole ruleset for one that is new, where here
//! that one rule is told to be unread.

mod targets;
mod terms;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Place;
use super::ports::Family;
use super::rules::{Rule, Step, Table, Truth, When};
use super::world::World;
use terms::Terms;

/// What tells of a rule that it is one of iptables' own, which only its own tools can read.
const FOREIGN: &str = "xt";

/// Statements that neither choose packets nor say what becomes of them.
const SILENT: [&str; 14] = [
    "counter",
    "log",
    "comment",
    "notrack",
    "set",
    "map",
    "meter",
    "ct helper",
    "ct timeout",
    "ct expectation",
    "secmark",
    "last",
    "flow",
    "continue",
];
/// Statements that let on what nobody knows before.
const COUNTING: [&str; 4] = ["limit", "quota", "ct count", "connlimit"];
/// Statements that end a chain.
const ENDING: [&str; 6] = ["accept", "drop", "reject", "synproxy", "snat", "masquerade"];

/// A ruleset, table by table.
#[derive(Debug, Default)]
pub(super) struct Ruleset<'v> {
    tables: BTreeMap<(&'v str, &'v str), Objects<'v>>,
}

/// What a table has.
#[derive(Debug, Default)]
struct Objects<'v> {
    chains: BTreeSet<&'v str>,
    /// At which packets from outside begin, before it is decided whom they are for.
    begin: Vec<&'v str>,
    rules: Vec<&'v Value>,
    /// Elements of sets and maps.
    sets: BTreeMap<&'v str, &'v [Value]>,
    /// Those that rules add to.
    filled: BTreeSet<&'v str>,
    is_foreign: bool,
}

fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a flag is among those of an object: a word, or a list of words.
fn has_flag(object: &Value, flag: &str) -> bool {
    let flags = object.get("flags");
    let mut all = flags.and_then(Value::as_array).into_iter().flatten();
    flags.is_some_and(|flags| flags == flag) || all.any(|one| one == flag)
}

impl<'v> Ruleset<'v> {
    /// Sorts by table; `None` if it is no ruleset.
    pub(super) fn of(ruleset: &'v Value) -> Option<Self> {
        let mut found = Self::default();
        for object in ruleset.get("nftables")?.as_array()? {
            for (kind, object) in object.as_object().into_iter().flatten() {
                let (family, name) = (text(object, "family"), text(object, "name"));
                if kind == "table" {
                    found.tables.entry((family, name)).or_default();
                    continue;
                }
                let table = found
                    .tables
                    .entry((family, text(object, "table")))
                    .or_default();
                match kind.as_str() {
                    "chain" => {
                        table.chains.insert(name);
                        let hook = (family, text(object, "hook"));
                        // What a bridge takes itself is routed thereafter.
                        if matches!(hook, (_, "prerouting" | "ingress") | ("bridge", "input")) {
                            table.begin.push(name);
                        }
                    }
                    "rule" => {
                        let steps = object.get("expr").and_then(Value::as_array);
                        let mut steps = steps.into_iter().flatten();
                        table.is_foreign |= steps.any(|step| step.get(FOREIGN).is_some());
                        table.rules.push(object);
                    }
                    "set" | "map" => {
                        let elements = object.get("elem").and_then(Value::as_array);
                        let elements = elements.map(Vec::as_slice).unwrap_or_default();
                        table.sets.insert(name, elements);
                        if has_flag(object, "dynamic") {
                            table.filled.insert(name);
                        }
                    }
                    _ => {}
                }
            }
        }
        Some(found)
    }

    /// Whether iptables' own tools have to read something, for a family.
    pub(super) fn is_foreign(&self, family: &str) -> bool {
        let mut tables = self.tables.iter();
        tables.any(|((known, _), table)| *known == family && table.is_foreign)
    }

    /// Takes a table away that was read elsewhere, if it has no chain but these.
    pub(super) fn leave(&mut self, family: &str, name: &str, chains: &BTreeSet<String>) {
        let is_theirs = |table: &Objects<'_>| {
            table.is_foreign && table.chains.iter().all(|chain| chains.contains(*chain))
        };
        let key = self
            .tables
            .keys()
            .copied()
            .find(|key| *key == (family, name));
        if let Some(key) = key.filter(|key| self.tables.get(key).is_some_and(is_theirs)) {
            self.tables.remove(&key);
        }
    }

    /// The tables that may send something elsewhere.
    pub(super) fn tables(&self, world: &World) -> Vec<Table> {
        let tables = self.tables.iter();
        tables
            .map(|((family, name), objects)| objects.read(family, name, world))
            .filter(|table| !table.begin.is_empty() && table.matters())
            .collect()
    }
}

impl Objects<'_> {
    fn read(&self, family: &str, name: &str, world: &World) -> Table {
        let terms = Terms {
            world,
            sets: &self.sets,
            filled: &self.filled,
        };
        let mut table = Table {
            family: match family {
                "ip" => Some(Family::V4),
                "ip6" => Some(Family::V6),
                _ => None,
            },
            begin: self.begin.iter().map(|chain| (*chain).to_owned()).collect(),
            ..Table::default()
        };
        for chain in &self.chains {
            table.chains.insert((*chain).to_owned(), Vec::new());
        }
        for rule in &self.rules {
            let chain = text(rule, "chain");
            let place = Place {
                tool: "nft",
                family: family.to_owned(),
                table: name.to_owned(),
                chain: chain.to_owned(),
                handle: rule.get("handle").and_then(Value::as_u64),
                rule: None,
            };
            let mut steps = Vec::new();
            for step in rule
                .get("expr")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                if let Err(why) = statement(&terms, step, &mut steps) {
                    steps.push(Step::Blind(why));
                    break;
                }
            }
            let rules = table.chains.entry(chain.to_owned()).or_default();
            rules.push(Rule { place, steps });
        }
        table
    }
}

/// One statement, which may be several steps.
fn statement(terms: &Terms<'_>, statement: &Value, steps: &mut Vec<Step>) -> Result<(), String> {
    // Those without parameters may be a word by themselves.
    let mut parts = statement.as_object().into_iter().flatten();
    let (kind, body) = match (statement.as_str(), parts.next()) {
        (Some(word), _) => (word, &Value::Null),
        (None, Some((kind, body))) => (kind.as_str(), body),
        (None, None) => return Err("an empty statement".to_owned()),
    };
    match kind {
        "match" => {
            let [left, right] =
                [body.get("left"), body.get("right")].map(|part| part.unwrap_or(&Value::Null));
            let op = body.get("op").and_then(Value::as_str).unwrap_or("==");
            steps.push(Step::Only(terms.test(left, op, right)?));
        }
        "vmap" => {
            for (when, verdict) in terms.lookup(body)? {
                steps.extend(going(when, &verdict)?);
            }
        }
        "dnat" | "redirect" | "tproxy" => {
            for (when, to) in targets::targets(terms, kind, body)? {
                steps.push(Step::Send { when, to });
            }
        }
        "mangle" if terms.is_destination(body.get("key").unwrap_or(&Value::Null)) => {
            return Err("rewrites where packets go, without translation".to_owned());
        }
        "mangle" => {}
        "fwd" => return Err("sends frames on to another interface".to_owned()),
        "dup" => return Err("sends packets to somebody else as well".to_owned()),
        FOREIGN => match (text(body, "type"), text(body, "name")) {
            ("match", _) => steps.push(Step::Only(When::only(Truth::Unknown))),
            ("target", name) if !super::iptables::is_handing_on(name) => {}
            (_, name) => {
                return Err(format!(
                    "a statement of iptables ({name}), which its tools did not read"
                )
                .replace(" ()", ""));
            }
        },
        kind if SILENT.contains(&kind) => {}
        kind if COUNTING.contains(&kind) => steps.push(Step::Only(When::only(Truth::Unknown))),
        _ => steps.extend(going(When::always(), statement)?),
    }
    Ok(())
}

/// A verdict, as a step for some packets.
fn going(when: When, verdict: &Value) -> Result<Option<Step>, String> {
    let kind = match (verdict.as_str(), verdict.as_object()) {
        (Some(word), _) => word,
        (None, Some(parts)) => parts.keys().next().map_or("", String::as_str),
        (None, None) => "",
    };
    let go = |comes_back| {
        let chain = verdict.get(kind).map_or("", |body| text(body, "target"));
        Some(Step::Go {
            when: when.clone(),
            chain: chain.to_owned(),
            comes_back,
        })
    };
    Ok(match kind {
        "continue" => None,
        "return" => Some(Step::Return(when)),
        "jump" => go(true),
        "goto" => go(false),
        "queue" => return Err(super::QUEUED.to_owned()),
        kind if ENDING.contains(&kind) => Some(Step::End(when)),
        kind => return Err(format!("`{kind}` is not known")),
    })
}

#[cfg(test)]
mod tests;
