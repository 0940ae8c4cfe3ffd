//! Command-line flags that stand in for a site file, or override one.

use std::collections::BTreeSet;

use super::term::{self, Fault};
use super::{
    Chosen, Management, Mode, Place, Site, SystemSite, Unresolved, UnresolvedPorts, Who, nearest,
};
use crate::catalog::{Catalog, Peer, System};
use crate::diagnostic::{Diagnostic, Rejected};
use crate::policy::Outbound;

/// The flags' words, not yet understood.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `SYSTEM/ROLE`, each.
    pub roles: Vec<String>,
    /// `NAME=CIDR,...`, `NAME=any` or `NAME=none`; a name may have `SYSTEM/` before it.
    pub peers: Vec<String>,
    /// `any`, `none` or prefixes.
    pub unprinted_peers: Option<String>,
    /// As in the site file.
    pub unresolved_peers: Option<Unresolved>,
    /// As in the site file.
    pub unresolved_ports: Option<UnresolvedPorts>,
    /// `PROTO/PORT[=CIDR,...]`, or `none` alone.
    pub management: Vec<String>,
    /// Ingress.
    pub mode: Option<Mode>,
    /// Egress.
    pub outbound: Option<Outbound>,
    /// `[SYSTEM=]DEPLOYMENT`.
    pub deployments: Vec<String>,
    /// `[SYSTEM=]VERSION`.
    pub versions: Vec<String>,
    /// `[SYSTEM/]OPTION`, turned on.
    pub options: Vec<String>,
    /// `[SYSTEM/]OPTION`, turned off.
    pub without: Vec<String>,
    /// `[SYSTEM/]CHOICE=VALUE`.
    pub choices: Vec<String>,
    /// `SYSTEM/ROLE=N`.
    pub offsets: Vec<String>,
}

impl Site {
    /// A site that has nothing but flags.
    pub fn from_flags(flags: &Flags, catalog: &Catalog) -> Result<Self, Rejected> {
        let mut site = Self::default();
        site.apply(flags, catalog)?;
        Ok(site)
    }

    /// Flags override what the file says.
    pub fn apply(&mut self, flags: &Flags, catalog: &Catalog) -> Result<(), Rejected> {
        let systems = spoken_of(self, flags);
        let mut apply = Apply {
            site: self,
            catalog,
            systems,
            messages: Vec::new(),
        };
        apply.all(flags);
        if apply.messages.is_empty() {
            Ok(())
        } else {
            Err(Rejected(apply.messages))
        }
    }
}

/// Ids of the systems that flags without a system may mean: those of `--role`, else those of the site.
fn spoken_of(site: &Site, flags: &Flags) -> Vec<String> {
    let roles = flags
        .roles
        .iter()
        .filter_map(|role| role.split_once('/'))
        .map(|(system, _)| system);
    let mut systems: BTreeSet<String> = roles.map(str::to_owned).collect();
    if systems.is_empty() {
        systems.extend(site.systems.keys().cloned());
        let hosts = site.hosts.iter().flat_map(|host| &host.roles);
        systems.extend(hosts.filter_map(|(role, _)| Some(role.split_once('/')?.0.to_owned())));
    }
    systems.into_iter().collect()
}

struct Apply<'a> {
    site: &'a mut Site,
    catalog: &'a Catalog,
    systems: Vec<String>,
    messages: Vec<Diagnostic>,
}

impl Apply<'_> {
    fn all(&mut self, flags: &Flags) {
        if let Some(mode) = flags.mode {
            self.site.mode = mode;
            // One word on the command line is for the whole host.
            for host in &mut self.site.hosts {
                host.mode = None;
                host.interfaces
                    .values_mut()
                    .for_each(|interface| interface.mode = None);
            }
            // Who asks for an audit wants nothing dropped, whichever way it goes.
            if mode == Mode::Audit && self.site.outbound == Outbound::Enforce {
                self.site.outbound = Outbound::Audit;
            }
        }
        if let Some(outbound) = flags.outbound {
            self.site.outbound = outbound;
        }
        if flags.unresolved_peers.is_some() {
            self.site.unresolved_peers = flags.unresolved_peers;
        }
        if flags.unresolved_ports.is_some() {
            self.site.unresolved_ports = flags.unresolved_ports;
        }
        if let Some(text) = &flags.unprinted_peers {
            self.site.unprinted_classes.clear();
            for system in self.layers() {
                system.unprinted_peers = None;
                system.unprinted_classes.clear();
                for cluster in system.clusters.values_mut() {
                    cluster.unprinted_peers = None;
                    cluster.unprinted_classes.clear();
                }
            }
            self.site.unprinted_peers = self.accepted("--unprinted-peers", Who::parse(text));
        }
        self.management(&flags.management);
        for text in &flags.peers {
            self.peer(text);
        }
        for text in &flags.deployments {
            self.setting("--deployment", text, |site, value| {
                site.deployment = Some((value.to_owned(), Place::default()));
                Ok(())
            });
        }
        for text in &flags.versions {
            self.setting("--system-version", text, |site, value| {
                site.version = Some((term::version(value)?, Place::default()));
                Ok(())
            });
        }
        for (flag, list, on) in [
            ("--option", &flags.options, true),
            ("--without", &flags.without, false),
        ] {
            for text in list {
                self.named(
                    flag,
                    text,
                    |system, name| system.options.contains_key(name),
                    |site, name| {
                        let (here, there) = if on {
                            (&mut site.options, &mut site.without)
                        } else {
                            (&mut site.without, &mut site.options)
                        };
                        here.insert(name.to_owned(), Place::default());
                        there.remove(name);
                    },
                );
            }
        }
        self.choices(&flags.choices);
        for text in &flags.offsets {
            self.offset(text);
        }
    }

    /// Every system's own words, and those of its clusters and hosts.
    fn layers(&mut self) -> impl Iterator<Item = &mut SystemSite> {
        let hosts = self.site.hosts.iter_mut();
        let hosts = hosts.flat_map(|host| host.systems.values_mut());
        // The system itself first: its clusters are within it.
        self.site.systems.values_mut().chain(hosts)
    }

    fn accepted<T>(&mut self, flag: &str, result: Result<T, Fault>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(fault) => {
                let diagnostic = Diagnostic::error(fault.code, fault.message).at(flag);
                let hinted = if fault.hint.is_empty() {
                    diagnostic
                } else {
                    diagnostic.hint(fault.hint)
                };
                self.messages.push(hinted);
                None
            }
        }
    }

    fn refuse(&mut self, flag: &str, code: &'static str, message: String, hint: impl Into<String>) {
        let fault = Fault::new(code, message, hint);
        let _: Option<()> = self.accepted(flag, Err(fault));
    }

    fn management(&mut self, words: &[String]) {
        if words.is_empty() {
            return;
        }
        let mut management = Management::default();
        if words.iter().any(|word| word == "none") {
            if words.len() > 1 {
                let message = "`none` cannot be combined with others".to_owned();
                self.refuse(
                    "--management",
                    "management",
                    message,
                    "write `--management none` alone",
                );
            }
        } else {
            for word in words {
                let access = self.accepted("--management", term::access(word, Place::default()));
                management.allow.extend(access);
            }
        }
        self.site.management = Some(management);
    }

    /// Settings of one system: `VALUE`, or `SYSTEM=VALUE` where there are several.
    fn setting(
        &mut self,
        flag: &str,
        text: &str,
        set: impl Fn(&mut SystemSite, &str) -> Result<(), Fault>,
    ) {
        let (system, value) = match (text.split_once('='), self.systems.as_slice()) {
            (Some((system, value)), _) => (system.to_owned(), value),
            (None, [system]) => (system.clone(), text),
            (None, []) => {
                let message = format!("no system is known for `{}`", text.escape_debug());
                self.refuse(
                    flag,
                    "which-system",
                    message,
                    "give the role with `--role SYSTEM/ROLE`",
                );
                return;
            }
            (None, systems) => {
                let message = format!("`{}` could be of several systems", text.escape_debug());
                let hint = format!(
                    "write `{flag} SYSTEM={text}` with one of: {}",
                    systems.join(", ")
                );
                self.refuse(flag, "which-system", message, hint);
                return;
            }
        };
        let result = set(self.site.systems.entry(system.clone()).or_default(), value);
        // A flag goes before what clusters and hosts say, too.
        let result = result
            .and_then(|()| layers_of(self.site, &system).try_for_each(|layer| set(layer, value)));
        self.accepted(flag, result);
    }

    /// Things that systems name: `NAME` is set in every system that has it, `SYSTEM/NAME` in that one.
    fn named(
        &mut self,
        flag: &str,
        text: &str,
        has: impl Fn(&System, &str) -> bool,
        mut set: impl FnMut(&mut SystemSite, &str),
    ) {
        let (systems, name) = match text.split_once('/') {
            Some((system, name)) if self.catalog.systems.contains_key(system) => {
                (vec![system.to_owned()], name)
            }
            _ => (self.systems.clone(), text),
        };
        let having: Vec<_> = systems
            .iter()
            .filter(|id| {
                self.catalog
                    .systems
                    .get(*id)
                    .is_some_and(|system| has(system, name))
            })
            .collect();
        for id in &having {
            set(self.site.systems.entry((*id).clone()).or_default(), name);
            layers_of(self.site, id).for_each(|layer| set(layer, name));
        }
        if having.is_empty() {
            let what = match flag {
                "--option" | "--without" => "option",
                "--choose" => "choice",
                "--offset" => "role",
                _ => "peer",
            };
            let known = systems.iter().filter_map(|id| self.catalog.systems.get(id));
            let known: Vec<_> = known
                .flat_map(names)
                .filter(|(system, name)| has(system, name))
                .collect();
            let hint = match nearest(name, known.iter().map(|(_, name)| name.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None if systems.is_empty() => {
                    "give the role with `--role SYSTEM/ROLE` first".to_owned()
                }
                // Its own message says what is wrong with the role.
                None if !systems
                    .iter()
                    .any(|id| self.catalog.systems.contains_key(id)) =>
                {
                    let all: Vec<&str> = self.catalog.systems.keys().map(String::as_str).collect();
                    format!("the systems are {}", all.join(", "))
                }
                None if known.is_empty() => {
                    format!("{} has no {what}: leave it out", systems.join(", "))
                }
                None => {
                    let names: BTreeSet<_> = known.iter().map(|(_, name)| name.as_str()).collect();
                    format!(
                        "known here: {}",
                        names.into_iter().collect::<Vec<_>>().join(", ")
                    )
                }
            };
            let name = name.escape_debug();
            let message = match systems.as_slice() {
                [] => format!("no system is known for `{name}`"),
                systems => format!("`{name}` is not a known {what} of {}", systems.join(", ")),
            };
            self.refuse(flag, "unknown-name", message, hint);
        }
    }

    fn peer(&mut self, text: &str) {
        let Some((name, who)) = text.split_once('=') else {
            let message = format!("`{}` is not in the form NAME=CIDR,...", text.escape_debug());
            self.refuse(
                "--peer",
                "bad-peer",
                message,
                "e.g. `--peer support=203.0.113.0/24`",
            );
            return;
        };
        let Some(who) = self.accepted("--peer", Who::parse(who)) else {
            return;
        };
        self.named("--peer", name, has_peer, |site, name| {
            site.peers
                .insert(name.to_owned(), (who.clone(), Place::default()));
        });
    }

    fn choices(&mut self, words: &[String]) {
        let mut seen = BTreeSet::new();
        for text in words {
            let Some((name, value)) = text.split_once('=') else {
                let message = format!("`{}` is not in the form CHOICE=VALUE", text.escape_debug());
                self.refuse(
                    "--choose",
                    "bad-choice",
                    message,
                    "e.g. `--choose mail-port=587`",
                );
                continue;
            };
            if !seen.insert(name) {
                let message =
                    format!("`{name}` is chosen twice, but its values exclude each other");
                self.refuse("--choose", "exclusive-alternatives", message, "choose one");
            }
            self.named(
                "--choose",
                name,
                |system, name| system.choices.contains_key(name),
                |site, name| {
                    let chosen = Chosen {
                        values: vec![value.to_owned()],
                        ..Chosen::default()
                    };
                    site.choices.insert(name.to_owned(), chosen);
                },
            );
        }
    }

    fn offset(&mut self, text: &str) {
        let parsed = text.split_once('=').and_then(|(role, numbers)| {
            let numbers = numbers.split(',').map(str::parse::<u16>);
            Some((role, numbers.collect::<Result<Vec<_>, _>>().ok()?))
        });
        let Some((role, offsets)) = parsed else {
            let number = text.split_once('=').map(|(_, numbers)| numbers);
            let is_number = |numbers: &str| {
                let mut each = numbers.split(',');
                each.all(|one| !one.is_empty() && one.bytes().all(|digit| digit.is_ascii_digit()))
            };
            let (message, hint) = match number.filter(|numbers| is_number(numbers)) {
                Some(numbers) => (
                    format!("`{numbers}` is not an offset: ports end at 65535"),
                    "an offset is what is added to each port of the server, like 1 or 10",
                ),
                None => (
                    format!("`{}` is not in the form SYSTEM/ROLE=N", text.escape_debug()),
                    "e.g. `--offset wso2/api-manager=1`",
                ),
            };
            self.refuse("--offset", "bad-offset", message, hint);
            return;
        };
        self.named(
            "--offset",
            role,
            |system, name| system.roles.contains_key(name),
            |site, name| {
                site.offsets
                    .insert(name.to_owned(), (offsets.clone(), Place::default()));
            },
        );
    }
}

/// What clusters and hosts say of a system.
fn layers_of<'s>(site: &'s mut Site, id: &'s str) -> impl Iterator<Item = &'s mut SystemSite> {
    let clusters = site
        .systems
        .get_mut(id)
        .into_iter()
        .flat_map(|system| system.clusters.values_mut());
    let hosts = site.hosts.iter_mut();
    clusters.chain(hosts.filter_map(move |host| host.systems.get_mut(id)))
}

/// Whether a system has a group or role of that name, or a row with that autonomous system or domain.
pub(crate) fn has_peer(system: &System, name: &str) -> bool {
    let printed = |wanted: &Peer| system.rows.iter().any(|row| row.peers.contains(wanted));
    if let Some(number) = name.strip_prefix("asn:") {
        return number
            .parse()
            .is_ok_and(|number| printed(&Peer::Asn(number)));
    }
    if let Some(domain) = name.strip_prefix("domain:") {
        return printed(&Peer::Domain(domain.to_owned()));
    }
    if name == "multicast" {
        return printed(&Peer::Multicast);
    }
    system.groups.contains_key(name) || system.roles.contains_key(name)
}

/// Everything that a system gives a name to.
fn names(system: &System) -> impl Iterator<Item = (&System, String)> {
    let named = system
        .groups
        .keys()
        .chain(system.roles.keys())
        .chain(system.options.keys())
        .chain(system.choices.keys())
        .cloned();
    let printed = system
        .rows
        .iter()
        .flat_map(|row| &row.peers)
        .filter_map(|peer| match peer {
            Peer::Asn(number) => Some(format!("asn:{number}")),
            Peer::Domain(name) => Some(format!("domain:{name}")),
            Peer::Role(_)
            | Peer::SameRole
            | Peer::Group(_)
            | Peer::Prefix(_)
            | Peer::Itself
            | Peer::Multicast
            | Peer::Unprinted => None,
        });
    named.chain(printed).map(move |name| (system, name))
}
