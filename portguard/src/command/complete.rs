//! What may come next on a command line, from what this host has: roles of the catalogs, interfaces, hosts of the site,
//! deployments, options, choices and rows. Asked by the shell at each tab key; nothing here fails, it only knows less.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::{Arg, Command};
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{ArgValueCandidates, CompletionCandidate};
use portguard_common::reason::{Direction, Reason};
use portguard_kernel::host::interface;
use portguard_policy::catalog::{Catalog, System};
use portguard_policy::site::Site;

use super::selection::USUAL_SITE;

/// The variable that a shell's script asks by.
const ASKED: &str = "PORTGUARD_COMPLETE";
const NAME: &str = "portguard";

/// Answers a shell and ends, if it is one that asks; `command` is the whole command line.
pub fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(|| with_candidates(command()))
        .var(ASKED)
        .bin(NAME)
        .complete();
}

/// The script that makes a shell ask; nothing for one that is not known.
pub(super) fn script(shell: &str) -> Vec<u8> {
    let mut script = Vec::new();
    if let Some(shell) = Shells::builtins().completer(shell) {
        // Writing to memory does not fail.
        let _ = shell.write_registration(ASKED, NAME, NAME, NAME, &mut script);
    }
    script
}

/// Every argument of every verb that takes a name which can be looked up.
fn with_candidates(command: Command) -> Command {
    command
        .mut_args(candidates)
        .mut_subcommands(with_candidates)
}

fn candidates(arg: Arg) -> Arg {
    let value = arg.get_value_names().and_then(<[_]>::first);
    let known: Option<fn() -> Vec<CompletionCandidate>> = match (
        arg.get_long(),
        value.map(clap::builder::Str::as_str).unwrap_or_default(),
    ) {
        (_, "IF") => Some(interfaces),
        (_, "SYSTEM/ROLE" | "[SYSTEM/]ROLE") => Some(roles),
        (None, "SYSTEM[/ROLE|/ROW]") => Some(everything),
        (Some("host"), "NAME") | (None, "REMOTE-IP") => Some(hosts),
        (None, "PROTO") => Some(protocols),
        (None, "PORT") => Some(services),
        (Some("deployment"), _) => Some(deployments),
        (Some("option" | "without"), _) => Some(options),
        (Some("choose"), _) => Some(choices),
        (Some("peer"), "NAME=CIDR,...") => Some(peers),
        (Some("row"), _) => Some(rows),
        (Some("reason"), "REASON") => Some(reasons),
        _ => None,
    };
    match known {
        Some(known) => arg.add(ArgValueCandidates::new(known)),
        None => arg,
    }
}

/// What follows these flags on the line so far.
fn said(flags: &[&str]) -> Vec<String> {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        for flag in flags {
            match word.strip_prefix(flag) {
                Some("") => found.extend(words.get(index + 1).cloned()),
                Some(rest) => found.extend(rest.strip_prefix('=').map(str::to_owned)),
                None => {}
            }
        }
    }
    found
}

fn site() -> Option<Site> {
    let said = said(&["-c", "--config"]).pop();
    let variable = std::env::var("PORTGUARD_CONFIG").ok();
    let path = said.or(variable).unwrap_or_else(|| USUAL_SITE.to_owned());
    let text = std::fs::read(&path).ok()?;
    Site::parse(&path, &text).ok()
}

fn catalog() -> Option<Catalog> {
    let mut catalog = Catalog::embedded().ok()?;
    for directory in said(&["--catalog"]) {
        catalog = match catalog.clone().with_directory(&PathBuf::from(directory)) {
            Ok(more) => more,
            Err(_not_yet_right) => catalog,
        };
    }
    Some(catalog)
}

fn candidate(value: impl AsRef<OsStr>, help: &str) -> CompletionCandidate {
    let help = (!help.is_empty()).then(|| help.to_owned().into());
    CompletionCandidate::new(value.as_ref()).help(help)
}

fn interfaces() -> Vec<CompletionCandidate> {
    let names = interface::all().into_iter();
    names.map(|name| candidate(name, "")).collect()
}

fn roles() -> Vec<CompletionCandidate> {
    let catalog = catalog();
    let systems = catalog.iter().flat_map(|catalog| catalog.systems.values());
    systems
        .flat_map(|system| {
            let roles = system.host_roles();
            roles.map(|role| candidate(format!("{}/{}", system.id, role.id), &role.name))
        })
        .collect()
}

fn everything() -> Vec<CompletionCandidate> {
    let catalog = catalog();
    let systems = catalog.iter().flat_map(|catalog| catalog.systems.values());
    let mut all: Vec<CompletionCandidate> = systems
        .map(|system| candidate(&system.id, &system.name))
        .collect();
    all.extend(roles());
    all.extend(rows());
    all
}

fn hosts() -> Vec<CompletionCandidate> {
    let site = site();
    let hosts = site.iter().flat_map(|site| &site.hosts);
    hosts
        .map(|host| {
            let roles: Vec<&str> = host.roles.iter().map(|(role, _)| role.as_str()).collect();
            candidate(&host.name, &roles.join(", "))
        })
        .collect()
}

fn protocols() -> Vec<CompletionCandidate> {
    let names = ["tcp", "udp", "sctp", "icmp"].into_iter();
    names.map(|name| candidate(name, "")).collect()
}

fn services() -> Vec<CompletionCandidate> {
    let known = super::explain::SERVICES.into_iter();
    known
        .map(|(name, port)| candidate(name, &port.to_string()))
        .collect()
}

/// Something that systems name: of those that the line or the site speaks of, or else of all.
fn of_systems(
    each: impl Fn(&System) -> Vec<(String, String)>,
    between: char,
) -> Vec<CompletionCandidate> {
    let mut spoken = said(&["--role"]);
    let site = site().filter(|_| spoken.is_empty());
    spoken.extend(site.iter().flat_map(Site::roles).map(str::to_owned));
    let is_spoken = |system: &System| {
        spoken.is_empty()
            || spoken
                .iter()
                .any(|role| role.split_once('/').is_some_and(|(of, _)| of == system.id))
    };
    let catalog = catalog();
    let systems: Vec<&System> = catalog
        .iter()
        .flat_map(|catalog| catalog.systems.values())
        .filter(|system| is_spoken(system))
        .collect();
    let is_one = systems.len() == 1;
    systems
        .into_iter()
        .flat_map(|system| {
            each(system).into_iter().map(move |(name, help)| {
                if is_one {
                    candidate(name, &help)
                } else {
                    candidate(format!("{}{between}{name}", system.id), &help)
                }
            })
        })
        .collect()
}

fn pairs<'a>(all: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(String, String)> {
    all.map(|(id, title)| (id.clone(), title.clone())).collect()
}

fn deployments() -> Vec<CompletionCandidate> {
    of_systems(|system| pairs(system.deployments.iter()), '=')
}

fn options() -> Vec<CompletionCandidate> {
    of_systems(
        |system| pairs(system.options.iter().map(|(id, one)| (id, &one.title))),
        '/',
    )
}

fn choices() -> Vec<CompletionCandidate> {
    of_systems(
        |system| {
            let all = system.choices.iter().flat_map(|(id, choice)| {
                let values = choice.values.iter();
                values.map(move |(value, title)| (format!("{id}={value}"), title.clone()))
            });
            all.collect()
        },
        '/',
    )
}

/// Groups and roles that the documents name; the addresses follow the `=`.
fn peers() -> Vec<CompletionCandidate> {
    of_systems(
        |system| {
            let groups = system.groups.iter();
            let roles = system.roles.values().map(|role| (&role.id, &role.name));
            let all = groups.chain(roles);
            all.map(|(id, title)| (format!("{id}="), title.clone()))
                .collect()
        },
        '/',
    )
}

fn rows() -> Vec<CompletionCandidate> {
    let catalog = catalog();
    let systems = catalog.iter().flat_map(|catalog| catalog.systems.values());
    systems
        .flat_map(|system| &system.rows)
        .map(|row| candidate(&row.id, &row.purpose))
        .collect()
}

fn reasons() -> Vec<CompletionCandidate> {
    let violations = Reason::ALL.into_iter().filter(|one| one.is_violation());
    let mut names: Vec<&str> = violations
        .flat_map(|one| [Direction::Ingress, Direction::Egress].map(|way| one.name(way)))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| candidate(name, "")).collect()
}
