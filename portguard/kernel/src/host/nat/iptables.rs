//! What `iptables-save` tells, as chains of rules: the tables that may send something elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Place;
use super::ports::{Family, Others, Ports};
use super::rules::{Rule, Step, Table, Target, Truth, When};
use super::world::World;
use portguard_policy::catalog::Transport;

/// Where packets from outside begin.
const BEGIN: &str = "PREROUTING";

/// The tables that may send something elsewhere.
pub(super) const TABLES: [&str; 3] = ["nat", "mangle", "raw"];
/// Targets that end a chain.
const ENDING: [&str; 5] = ["ACCEPT", "DROP", "REJECT", "MASQUERADE", "SNAT"];
/// Targets that give packets to a program, and take what it makes of them.
const QUEUING: [&str; 2] = ["QUEUE", "NFQUEUE"];
/// Targets after which a chain goes on.
const SILENT: [&str; 18] = [
    "LOG",
    "NFLOG",
    "ULOG",
    "MARK",
    "CONNMARK",
    "SECMARK",
    "CONNSECMARK",
    "SET",
    "TRACE",
    "AUDIT",
    "CLASSIFY",
    "NOTRACK",
    "CT",
    "TCPMSS",
    "DSCP",
    "TOS",
    "TTL",
    "HL",
];

/// Whether a target sends packets elsewhere.
pub(super) fn is_handing_on(target: &str) -> bool {
    matches!(
        target,
        "DNAT" | "REDIRECT" | "NETMAP" | "TPROXY" | "TEE" | ""
    )
}

/// The tables of one family, with their names and chains.
pub(super) struct Saved {
    /// `ip` or `ip6`.
    pub(super) family: &'static str,
    tables: BTreeMap<String, Lines>,
}

#[derive(Default)]
struct Lines {
    chains: BTreeSet<String>,
    rules: Vec<String>,
}

impl Saved {
    /// Sorts what the tool printed.
    pub(super) fn of(family: &'static str, text: &str) -> Self {
        let mut tables: BTreeMap<String, Lines> = BTreeMap::new();
        let mut table = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.trim().clone_into(&mut table);
            } else if let Some(chain) = line.strip_prefix(':') {
                let lines = tables.entry(table.clone()).or_default();
                let name = chain.split_whitespace().next().unwrap_or_default();
                lines.chains.insert(name.to_owned());
            } else if line.starts_with("-A ") {
                let lines = tables.entry(table.clone()).or_default();
                lines.rules.push(line.to_owned());
            }
        }
        Self { family, tables }
    }

    /// Tables by their names, and their chains.
    pub(super) fn chains(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.tables
            .iter()
            .map(|(name, lines)| (name.as_str(), &lines.chains))
    }

    /// The tables that may send something elsewhere.
    pub(super) fn tables(&self, world: &World) -> Vec<Table> {
        let tables = self.tables.iter();
        tables
            .filter(|(name, _)| TABLES.contains(&name.as_str()))
            .map(|(name, lines)| self.read(name, lines, world))
            .filter(Table::matters)
            .collect()
    }

    fn read(&self, name: &str, lines: &Lines, world: &World) -> Table {
        let mut table = Table {
            begin: vec![BEGIN.to_owned()],
            family: Some(if self.family == "ip6" {
                Family::V6
            } else {
                Family::V4
            }),
            ..Table::default()
        };
        for chain in &lines.chains {
            table.chains.insert(chain.clone(), Vec::new());
        }
        for line in &lines.rules {
            let words = words(line);
            let Some(chain) = words.get(1) else { continue };
            let mut reader = Reader {
                world,
                is_v6: self.family == "ip6",
                chains: &lines.chains,
                words: words.get(2..).unwrap_or_default(),
                steps: Vec::new(),
            };
            if let Err(why) = reader.read() {
                reader.steps.push(Step::Blind(why));
            }
            let steps = reader.steps;
            let place = Place {
                tool: "iptables",
                family: self.family.to_owned(),
                table: name.to_owned(),
                chain: chain.clone(),
                handle: None,
                rule: Some(line.clone()),
            };
            let rules = table.chains.entry(chain.clone()).or_default();
            rules.push(Rule { place, steps });
        }
        table
    }
}

/// Words as a shell would have them: comments stand in quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut is_quoted, mut is_word) = (false, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                is_quoted = !is_quoted;
                is_word = true;
            }
            '\\' => word.extend(letters.next()),
            space if space.is_whitespace() && !is_quoted => {
                if is_word || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            letter => word.push(letter),
        }
    }
    if is_word || !word.is_empty() {
        words.push(word);
    }
    words
}

struct Reader<'r> {
    world: &'r World,
    is_v6: bool,
    chains: &'r BTreeSet<String>,
    words: &'r [String],
    steps: Vec<Step>,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    /// The parameter of an option.
    fn parameter(&mut self, option: &str) -> Result<String, String> {
        let word = self.next().map(str::to_owned);
        word.ok_or_else(|| format!("`{option}` without a parameter"))
    }

    fn only(&mut self, when: When) {
        self.steps.push(Step::Only(when));
    }

    fn read(&mut self) -> Result<(), String> {
        let mut is_not = false;
        while let Some(option) = self.next().map(str::to_owned) {
            if option == "!" {
                is_not = true;
                continue;
            }
            let negated = std::mem::take(&mut is_not);
            match option.as_str() {
                // Its options follow.
                "-m" | "--comment" => {
                    self.next();
                }
                "-j" | "-g" => return self.target(option == "-g"),
                "-p" => {
                    let name = self.parameter(&option)?;
                    self.only(transports(&name, negated));
                }
                "--dport" | "--dports" => {
                    let list = self.parameter(&option)?;
                    self.only(ports(&list, negated)?);
                }
                "-i" => {
                    let name = self.parameter(&option)?;
                    let truth = self.world.comes_by(|one| is_named(&name, one) != negated);
                    self.only(When::only(truth));
                }
                "-d" => {
                    let list = self.parameter(&option)?;
                    self.only(When::only(self.destination(&list, negated)));
                }
                "--dst-type" => {
                    let kind = self.parameter(&option)?;
                    let kinds = kind.split(',').map(str::to_ascii_lowercase);
                    self.only(When::only(self.world.is_kind(kinds, negated)));
                }
                "--ctstate" | "--state" => {
                    let states = self.parameter(&option)?;
                    let is_new = states.split(',').any(|state| state == "NEW");
                    let truth = if is_new && !negated {
                        // What is translated is the first of its connection.
                        Truth::Always
                    } else {
                        Truth::Unknown
                    };
                    self.only(When::only(truth));
                }
                // Of any other, its parameters stand alone and are passed over.
                option if option.starts_with('-') => self.only(When::only(Truth::Unknown)),
                _ => {}
            }
        }
        Ok(())
    }

    fn destination(&self, list: &str, is_not: bool) -> Truth {
        let net = |word: &str| {
            let address = word.parse::<IpAddr>().map(IpNet::from);
            word.parse::<IpNet>().ok().or(address.ok())
        };
        let Some(nets) = list.split(',').map(net).collect::<Option<Vec<IpNet>>>() else {
            return Truth::Unknown;
        };
        let spans = nets.iter().map(|net| (net.network(), net.broadcast()));
        self.world
            .is_for(self.is_v6, &spans.collect::<Vec<_>>(), is_not)
    }

    /// What the rule does, whose own options are all that is left.
    fn target(&mut self, is_goto: bool) -> Result<(), String> {
        let target = self.parameter("-j")?;
        let when = When::always();
        let step = match target.as_str() {
            "DNAT" => Step::Send {
                when,
                to: destination(&self.option("--to-destination")?)?,
            },
            "REDIRECT" | "TPROXY" => {
                let option = self
                    .option("--to-ports")
                    .or_else(|_| self.option("--on-port"));
                let ports = option.ok().and_then(|ports| range(&ports, '-'));
                Step::Send {
                    when,
                    to: Target {
                        // Port 0: the one that it came for.
                        ports: ports.filter(|(first, _)| *first > 0),
                        ..Target::default()
                    },
                }
            }
            "NETMAP" => Step::Send {
                when,
                to: destination(&self.option("--to")?)?,
            },
            "RETURN" => Step::Return(when),
            name if ENDING.contains(&name) => Step::End(when),
            name if QUEUING.contains(&name) => return Err(super::QUEUED.to_owned()),
            name if SILENT.contains(&name) => return Ok(()),
            name if self.chains.contains(name) => Step::Go {
                when,
                chain: target,
                comes_back: !is_goto,
            },
            name => return Err(format!("the target `{name}` is not known")),
        };
        self.steps.push(step);
        Ok(())
    }

    fn option(&self, name: &str) -> Result<String, String> {
        let mut words = self.words.iter().skip_while(|word| *word != name).skip(1);
        words.next().cloned().ok_or_else(|| format!("no `{name}`"))
    }
}

fn transports(name: &str, is_not: bool) -> When {
    let wanted = match name {
        "tcp" | "6" => Some(Transport::Tcp),
        "udp" | "17" => Some(Transport::Udp),
        "sctp" | "132" => Some(Transport::Sctp),
        "all" | "0" => return When::always(),
        _ => None,
    };
    let others = match (wanted, is_not) {
        (Some(_), false) => Others::None,
        (Some(_), true) => Others::All,
        (None, _) => Others::Some,
    };
    When::to(Ports::such(|which, _| (wanted == Some(which)) != is_not).with(others))
}

fn ports(list: &str, is_not: bool) -> Result<When, String> {
    let spans = list
        .split(',')
        .map(|part| range(part, ':').ok_or_else(|| format!("ports as `{part}`")))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(When::to(Ports::such(|_, port| {
        spans
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
            != is_not
    })))
}

/// `443`, or both ends of a range.
fn range(text: &str, between: char) -> Option<(u16, u16)> {
    let (first, last) = text.split_once(between).unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// `eth0`, or `eth+` for all that begin so.
fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// `172.17.0.2:80`, `[fd00::2]:80-90/1000`, `10.0.0.1-10.0.0.9`, `:8080`, `10.0.0.0/24`.
fn destination(text: &str) -> Result<Target, String> {
    let (address, ports) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, ports)) => (address, ports.strip_prefix(':')),
        None if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
        None => match text.rsplit_once(':') {
            // Both ends of a range of IPv6 addresses have colons of their own.
            Some((address, ports)) if !address.contains(':') => (address, Some(ports)),
            _ => (text, None),
        },
    };
    let strange = || format!("sends to `{text}`");
    let mut target = Target {
        words: Some(text.to_owned()),
        ..Target::default()
    };
    if let Some(ports) = ports {
        // Of `8000-8010/8000` the last is where it begins to count.
        let ports = ports.split('/').next().unwrap_or_default();
        target.ports = Some(range(ports, '-').ok_or_else(strange)?);
    }
    if let Ok(net) = address.parse::<IpNet>() {
        target.addresses = Some((net.network(), net.broadcast()));
    } else if !address.is_empty() {
        let (first, last) = address.split_once('-').unwrap_or((address, address));
        let parse = |one: &str| one.parse::<IpAddr>().map_err(|_not| strange());
        target.addresses = Some((parse(first)?, parse(last)?));
    }
    Ok(target)
}

#[cfg(test)]
mod tests;
