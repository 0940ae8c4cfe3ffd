//! Which host the policy is for.

use std::collections::BTreeMap;

use super::{Inputs, inventory};
use crate::catalog::{Role, System};
use crate::diagnostic::{Diagnostic, Level};
use crate::site::{Host, Mode, Place, nearest};

/// How the host is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// By its name in the inventory.
    Name(String),
    /// A host that is in no inventory, with these roles (`SYSTEM/ROLE`).
    Roles(Vec<String>),
    /// The host of the inventory that has this machine's addresses or name.
    Local,
}

/// The host, found.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) host: Option<&'a Host>,
    /// Its index in the inventory.
    pub(super) index: Option<usize>,
    pub(super) mode: Mode,
    roles: Vec<(&'a System, &'a Role)>,
}

impl<'a> Subject<'a> {
    /// Finds the host and its roles; what is wrong with the choice goes to `messages`.
    pub(super) fn select(inputs: &Inputs<'a>, messages: &mut Vec<Diagnostic>) -> Option<Self> {
        let site = inputs.site;
        let index = match &inputs.host {
            Selection::Roles(_) => None,
            Selection::Name(name) => Some(by_name(inputs, name, messages)?),
            Selection::Local => Some(local(inputs, messages)?),
        };
        let host = index.and_then(|index| site.hosts.get(index));
        let interface = inputs.interface.and_then(|name| host?.interfaces.get(name));
        if let (Some(name), Some(host), None) = (inputs.interface, host, interface)
            && !host.interfaces.is_empty()
        {
            let known: Vec<_> = host.interfaces.keys().map(String::as_str).collect();
            let message = format!(
                "host `{}` has no interface `{name}`: it serves the host's own roles",
                host.name
            );
            let diagnostic = Diagnostic::warning("unknown-interface", message).hint(format!(
                "write it among the host's `interfaces`; {}",
                suggest(name, &known)
            ));
            messages.push(
                site.at(host.place)
                    .map_or(diagnostic.clone(), |place| diagnostic.at(place)),
            );
        }
        let mode = interface
            .and_then(|i| i.mode)
            .or(host.and_then(|host| host.mode))
            .unwrap_or(site.mode);
        let named: Vec<(String, Place)> = match (&inputs.host, host, interface) {
            (Selection::Roles(roles), ..) => roles
                .iter()
                .map(|role| (role.clone(), Place::default()))
                .collect(),
            (_, Some(host), Some(interface)) => {
                host.roles.iter().chain(&interface.roles).cloned().collect()
            }
            // Of an interface that the site does not speak of, the host's own roles are all there is to know.
            (_, Some(host), None) if inputs.interface.is_some() => host.roles.clone(),
            (_, Some(host), None) => inventory::roles_of(host).cloned().collect(),
            (_, None, _) => Vec::new(),
        };
        let mut subject = Self {
            host,
            index,
            mode,
            roles: Vec::new(),
        };
        let any_named = !named.is_empty();
        for (id, place) in named {
            match inputs.catalog.role(&id) {
                Ok(role) => subject.roles.push(role),
                Err(diagnostic) => {
                    let place = site.at(place).unwrap_or_else(|| "--role".to_owned());
                    messages.push(diagnostic.at(place));
                }
            }
        }
        subject
            .roles
            .sort_by_key(|(system, role)| (&system.id, &role.id));
        subject
            .roles
            .dedup_by_key(|(system, role)| (&system.id, &role.id));
        if subject.roles.is_empty() && !any_named {
            let who = host.map_or("the host".to_owned(), |host| {
                format!("host `{}`", host.name)
            });
            // With rows of its own a host needs no vendor's.
            let (level, only) = if site.rows.is_empty() {
                (Level::Warning, "management and baseline only")
            } else {
                (Level::Note, "management, baseline and rows of your own")
            };
            let message = format!("{who} has no role: its matrix is {only}");
            let diagnostic = Diagnostic::new(level, "no-role", message)
                .hint("give it `roles`, or `--role SYSTEM/ROLE`");
            let place = host.and_then(|host| site.at(host.place));
            messages.push(place.map_or(diagnostic.clone(), |place| diagnostic.at(place)));
        }
        Some(subject)
    }

    /// Its roles by system, both sorted.
    pub(super) fn systems(&self) -> Vec<(&'a System, Vec<&'a Role>)> {
        let mut systems: BTreeMap<&str, (&'a System, Vec<&'a Role>)> = BTreeMap::new();
        for (system, role) in &self.roles {
            systems
                .entry(&system.id)
                .or_insert((system, Vec::new()))
                .1
                .push(role);
        }
        systems.into_values().collect()
    }

    /// `SYSTEM/ROLE`, sorted.
    pub(super) fn role_ids(&self) -> Vec<String> {
        self.roles
            .iter()
            .map(|(system, role)| format!("{}/{}", system.id, role.id))
            .collect()
    }
}

/// A hint: the nearest, or all.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "none is defined".to_owned(),
        None => {
            let more = if known.len() > 20 { ", ..." } else { "" };
            let shown: Vec<_> = known.iter().take(20).copied().collect();
            format!("known: {}{more}", shown.join(", "))
        }
    }
}

fn by_name(inputs: &Inputs<'_>, name: &str, messages: &mut Vec<Diagnostic>) -> Option<usize> {
    let found = inputs.site.hosts.iter().position(|host| host.name == name);
    if found.is_none() {
        let known: Vec<_> = inputs
            .site
            .hosts
            .iter()
            .map(|host| host.name.as_str())
            .collect();
        let message = format!("there is no host `{}`", name.escape_debug());
        messages.push(Diagnostic::error("unknown-host", message).hint(suggest(name, &known)));
    }
    found
}

/// Addresses are surer than names: a name decides only where addresses do not.
fn local(inputs: &Inputs<'_>, messages: &mut Vec<Diagnostic>) -> Option<usize> {
    let hosts = &inputs.site.hosts;
    if hosts.is_empty() {
        let message = "no host and no role is given";
        let hint = "give `--role SYSTEM/ROLE`, or a site file with `[[host]]` (`portguard init` writes one)";
        messages.push(Diagnostic::error("no-host", message).hint(hint));
        return None;
    }
    let named = |host: &Host| {
        inputs
            .hostname
            .is_some_and(|name| same_name(&host.name, name))
    };
    let by_address: Vec<usize> = (0..hosts.len())
        .filter(|index| {
            let addresses = hosts
                .get(*index)
                .into_iter()
                .flat_map(|host| &host.addresses);
            addresses
                .into_iter()
                .any(|(address, _)| inputs.local_addresses.contains(address))
        })
        .collect();
    let by_name: Vec<usize> = (0..hosts.len())
        .filter(|index| hosts.get(*index).is_some_and(named))
        .collect();
    let both: Vec<usize> = by_address
        .iter()
        .copied()
        .filter(|index| by_name.contains(index))
        .collect();
    let candidates = match (by_address.as_slice(), both.as_slice(), by_name.as_slice()) {
        ([one], ..) | (_, [one], _) | ([], _, [one]) => return Some(*one),
        ([], _, []) => match sharing(inputs).as_slice() {
            [one] => return Some(*one),
            [] => (0..hosts.len()).collect(),
            several => several.to_vec(),
        },
        ([], _, several) | (several, ..) => several.to_vec(),
    };
    let message = if by_address.is_empty() && by_name.is_empty() {
        "no host of the inventory has this machine's addresses or name"
    } else {
        "several hosts of the inventory could be this machine"
    };
    let names = candidates
        .iter()
        .filter_map(|index| hosts.get(*index))
        .map(|host| host.name.as_str());
    let more = if candidates.len() > 10 { ", ..." } else { "" };
    let names: Vec<_> = names.take(10).collect();
    let hint = format!("choose one with `--host NAME`: {}{more}", names.join(", "));
    messages.push(Diagnostic::error("which-host", message).hint(hint));
    None
}

/// Hosts that own one of this machine's addresses together with others: what is left where it has no other.
fn sharing(inputs: &Inputs<'_>) -> Vec<usize> {
    let hosts = inputs.site.hosts.iter().enumerate();
    let is_ours = |host: &Host| {
        let mut shared = host.shared_addresses.iter();
        shared.any(|(address, _)| inputs.local_addresses.contains(address))
    };
    hosts
        .filter(|(_, host)| is_ours(host))
        .map(|(index, _)| index)
        .collect()
}

/// `node1` is `node1.example.com`.
fn same_name(ours: &str, machine: &str) -> bool {
    let short = |name: &str| {
        name.split('.')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    ours.eq_ignore_ascii_case(machine)
        || (!(ours.contains('.') && machine.contains('.')) && short(ours) == short(machine))
}
