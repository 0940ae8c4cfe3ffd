//! `portguard setup`: from nothing to audit. Looks at this host and at the catalogs, proposes, asks, writes and loads.

mod guess;
pub(super) mod look;
mod peers;
mod show;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use clap::{Args, FromArgMatches as _};
use serde::Serialize;

use super::catalogs;
use super::draft::{Admins, Draft, absolute, deployment, site_file};
use super::load::{self, LoadArgs};
use crate::stderr::{say, stderr};
use crate::stdout::print_json;
use guess::Proposal;
use peers::Seen;
use portguard_kernel::generation::effective::Strictness;
use portguard_kernel::host::interface::{self, Interface};
use portguard_kernel::host::listeners::{Listener, listeners};
use portguard_kernel::host::privileges;
use portguard_kernel::host::sockets::sessions;
use portguard_kernel::preflight;
use portguard_observe::observe;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::plain;

/// Where the site file is written to.
const SITE: &str = "/etc/portguard/site.toml";

/// Propose roles for this host, write a site file, and load it in audit
///
/// Compares the addresses, name, listeners and sessions of this host with the vendors' matrices. On a terminal it shows the
/// proposal and asks; `--yes` accepts it. Nothing is dropped: the site file says audit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard setup  ask, write /etc/portguard/site.toml, load it in audit
  portguard setup --yes --role thoughtspot/node
      the role is known; take the rest as proposed
  portguard setup --dry-run --json  only say what would be written")]
#[expect(clippy::struct_excessive_bools, reason = "one a flag")]
pub struct SetupArgs {
    /// Role of this host; may be repeated [default: proposed from what listens]
    #[arg(long = "role", value_name = "SYSTEM/ROLE")]
    roles: Vec<String>,
    /// Interface to guard; may be repeated [default: the one with the default route]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Who administers this host [default: who is connected to its SSH port now; else you are asked]
    #[arg(long, value_name = "CIDR,...", value_parser = Admins::parse)]
    admins: Option<Admins>,
    /// Deployment of a system, as its document names it [default: told by what listens, or left open]
    #[arg(long = "deployment", value_name = "SYSTEM=NAME", value_parser = deployment)]
    deployments: Vec<(String, String)>,
    /// Directory of catalog files of your own
    #[arg(long = "catalog", value_name = "DIR")]
    catalogs: Vec<PathBuf>,
    /// Where to write the site file
    #[arg(short, long, value_name = "FILE", default_value = SITE)]
    output: PathBuf,
    /// Replace an existing site file
    #[arg(long)]
    replace: bool,
    /// Accept the proposal without asking
    #[arg(long)]
    yes: bool,
    /// Show the proposal; write and load nothing
    #[arg(long)]
    dry_run: bool,
    /// Write JSON; needs `--yes` or `--dry-run`
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    host: String,
    addresses: Vec<String>,
    interfaces: Vec<String>,
    /// Other interfaces, which stay as they are.
    left: Vec<String>,
    /// Roles that were chosen.
    roles: Vec<String>,
    /// Deployment by system, where it could be told.
    deployments: BTreeMap<String, String>,
    /// All that were thought of, likeliest first.
    proposals: Vec<Proposal>,
    management: Vec<u16>,
    admins: Vec<String>,
    /// Peers that the documents leave to the site, and who is connected as such.
    peers: Vec<Seen>,
    /// Where the site file is, if it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<String>,
    loaded: bool,
    /// Units that begin with the next boot; the agent's begins at once.
    units: Vec<String>,
    site: String,
}

/// Sets up.
///
/// # Errors
/// If nothing here is in a catalog and no role is named, nobody is there to ask, and what the system refuses.
pub fn run(args: &SetupArgs) -> anyhow::Result<Exit> {
    if !args.dry_run {
        privileges::check()?;
        preflight::check_kernel()?;
        if !args.yes && (args.json || !io::stdin().is_terminal()) {
            return Err(Fault::usage("no terminal to ask at")
                .hint(
                    "`--yes` accepts the proposal, `--role` says which role it is, `--dry-run` only shows it",
                )
                .into());
        }
    }
    let interfaces = interfaces(args)?;
    if !args.dry_run {
        refuse_enforcing(&interfaces)?;
    }
    let roles_named = args.roles.iter().map(String::as_str);
    let catalog = catalogs::read(roles_named, &args.catalogs)?;
    let listeners = listeners().context("cannot read what listens")?;
    let mut host = look::this_host();
    let proposals = guess::proposals(&catalog, &listeners, &look::packages());
    host.roles = roles(args, &proposals, &listeners)?;
    let mut deployments = guess::deployments(&catalog, &host.roles, &listeners);
    deployments.extend(args.deployments.iter().cloned());
    let management = look::management(&listeners);
    let admins = admins(args, &management)?;
    host.interfaces.clone_from(&interfaces);
    let sessions = sessions().context("cannot read who is connected")?;
    let peers = peers::seen(
        &catalog,
        &host.roles,
        &host.addresses,
        &management,
        &sessions,
    );
    let draft = Draft {
        hosts: vec![host.clone()],
        admins: admins.clone(),
        management: management.clone(),
        deployments: deployments.clone(),
        catalogs: absolute(&args.catalogs)?,
        peers: peers
            .iter()
            .map(|seen| (seen.peer.clone(), seen.addresses.clone()))
            .collect(),
    };
    let site = site_file(&catalog, &draft)?;
    let mut answer = Answer {
        host: host.name.clone(),
        addresses: host.addresses.iter().map(ToString::to_string).collect(),
        left: interface::all()
            .into_iter()
            .filter(|name| !interfaces.contains(name))
            .collect(),
        interfaces,
        roles: host.roles,
        deployments,
        proposals,
        management,
        admins,
        peers,
        written: None,
        loaded: false,
        units: Vec::new(),
        site,
    };
    if !args.json {
        show::proposal(&answer, &args.output)?;
    }
    if !args.dry_run && is_wanted(args)? {
        write_and_load(args, &answer)?;
        answer.written = Some(args.output.display().to_string());
        answer.loaded = true;
        answer.units = enable(&answer.interfaces);
    }
    if args.json {
        print_json(&answer)?;
    } else {
        show::last_words(&answer, &args.output)?;
    }
    Ok(Exit::Ok)
}

/// What is enforced stays so: going back to audit is for `load`, which asks for a word.
fn refuse_enforcing(interfaces: &[String]) -> anyhow::Result<()> {
    let enforcing = observe::guards(None)?.into_iter().find(|guard| {
        let now = &guard.live.effective;
        interfaces.contains(&guard.name)
            && [now.inbound, now.outbound].contains(&Strictness::Enforce)
    });
    let Some(guard) = enforcing else {
        return Ok(());
    };
    let name = plain(&guard.name);
    Err(Fault::usage(format!("`{name}` enforces, and a new site file begins in audit"))
        .hint(format!(
            "change the site file and `portguard load` it, or `portguard unload --interface {name}` first"
        ))
        .into())
}

/// Who is named, who is connected, or whoever somebody at the terminal says; nobody named is anybody.
fn admins(args: &SetupArgs, management: &[u16]) -> anyhow::Result<Vec<String>> {
    if let Some(Admins(named)) = &args.admins {
        return Ok(named.clone());
    }
    let found = look::admins(management);
    if !found.is_empty() || args.yes || args.dry_run {
        return Ok(found);
    }
    let question =
        "Who administers this host? Addresses or prefixes, separated by commas (empty: anybody):";
    loop {
        match Admins::parse(&ask(question)?) {
            Ok(Admins(said)) => return Ok(said),
            Err(why) => say(&why),
        }
    }
}

/// Asks at the terminal.
fn ask(question: &str) -> anyhow::Result<String> {
    let mut err = stderr();
    write!(err, "{question} ")?;
    err.flush()?;
    let mut answer = String::new();
    let read = io::stdin()
        .read_line(&mut answer)
        .context("cannot read an answer")?;
    if read == 0 {
        return Err(Fault::usage("no answer: nothing was written").into());
    }
    Ok(answer.trim().to_owned())
}

fn roles(
    args: &SetupArgs,
    proposals: &[Proposal],
    listeners: &[Listener],
) -> anyhow::Result<Vec<String>> {
    if !args.roles.is_empty() {
        return Ok(args.roles.clone());
    }
    let likely: Vec<String> = proposals
        .iter()
        .filter(|one| one.likely)
        .map(|one| one.role.clone())
        .collect();
    if likely.is_empty() {
        let near: Vec<&str> = proposals
            .iter()
            .take(3)
            .map(|one| one.role.as_str())
            .collect();
        let is_silent = listeners.iter().all(Listener::is_loopback);
        let fault = Fault::usage(if is_silent {
            "nothing listens here, so there is no role to propose"
        } else {
            "what listens here is not enough to tell the role of this host"
        });
        return Err(if near.is_empty() {
            fault.hint("name the role with `--role SYSTEM/ROLE`; `portguard catalog list` shows systems and roles")
        } else {
            fault.hint(format!(
                "name the role with `--role`; nearest are {}",
                near.join(", ")
            ))
        }
        .into());
    }
    if let Some((one, other)) = guess::tie(proposals).filter(|_| args.yes) {
        return Err(Fault::usage(format!(
            "what listens here fits {} and {} equally well",
            one.role, other.role
        ))
        .hint(format!(
            "`--role {}` or `--role {}` says which it is",
            one.role, other.role
        ))
        .into());
    }
    if args.yes || args.dry_run {
        return Ok(likely);
    }
    let each = likely.into_iter();
    let each = each.map(|role| which(proposals, role));
    each.collect()
}

/// One of the roles that the same would listen for, as somebody at the terminal says; the likeliest is proposed.
fn which(proposals: &[Proposal], role: String) -> anyhow::Result<String> {
    let rivals = proposals.iter().find(|one| one.role == role);
    let rivals = rivals.map_or(&[][..], |one| one.rivals.as_slice());
    let is_one = |one: &&Proposal| one.role == role || rivals.contains(&one.role);
    let choices: Vec<&Proposal> = proposals.iter().filter(is_one).collect();
    if choices.len() < 2 {
        return Ok(role);
    }
    show::choices(&choices)?;
    let question = format!("Which of them is this host? A number, or a role [1: {role}]:");
    loop {
        let answer = ask(&question)?;
        if let Some(chosen) = guess::chosen(&answer, &choices) {
            return Ok(chosen.role.clone());
        }
        say(&format!("`{}` is none of them", plain(&answer)));
    }
}

fn interfaces(args: &SetupArgs) -> anyhow::Result<Vec<String>> {
    if !args.interfaces.is_empty() {
        let found = args.interfaces.iter().map(|name| Interface::find(name));
        let names: Result<Vec<String>, _> = found.map(|one| one.map(|one| one.name)).collect();
        return Ok(names?);
    }
    let found = look::uplinks();
    if found.is_empty() {
        return Err(
            Fault::usage("no interface of this host has a route to others")
                .hint("name it by `--interface IF`")
                .into(),
        );
    }
    Ok(found)
}

fn is_wanted(args: &SetupArgs) -> anyhow::Result<bool> {
    if args.yes {
        return Ok(true);
    }
    let answer = ask("\nWrite it and load it in audit, which drops nothing? [Y/n]")?;
    Ok(matches!(answer.to_lowercase().as_str(), "" | "y" | "yes"))
}

/// Both, or neither: what cannot be loaded is not left behind.
fn write_and_load(args: &SetupArgs, answer: &Answer) -> anyhow::Result<()> {
    let before = fs::read(&args.output).ok();
    write(args, &answer.site)?;
    load(args, answer).inspect_err(|_| {
        let path = &args.output;
        let restored = match &before {
            Some(text) => fs::write(path, text),
            None => fs::remove_file(path),
        };
        if let Err(error) = restored {
            say(&format!(
                "warning: `{}` has the new site file, which was not loaded: {error}",
                path.display()
            ));
        }
    })
}

fn write(args: &SetupArgs, site: &str) -> anyhow::Result<()> {
    let path = &args.output;
    if path.exists() && !args.replace && !is_blank(&fs::read_to_string(path)?) {
        return Err(Fault::usage(format!("`{}` already exists", path.display()))
            .hint("`--replace` writes it anew, `--output FILE` writes another; `portguard load -c FILE` loads it as it is")
            .into());
    }
    if let Some(directory) = path.parent().filter(|one| !one.as_os_str().is_empty()) {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
    }
    fs::write(path, site).with_context(|| format!("cannot write `{}`", path.display()))
}

/// Whether a site file says nothing of a site: all of it is comments but for the format and the mode, as in the one that comes
/// with the package.
fn is_blank(site: &str) -> bool {
    site.lines().all(|line| {
        let said = line.split('#').next().unwrap_or_default();
        let key = said.split('=').next().unwrap_or_default();
        ["", "schema", "mode"].contains(&key.trim())
    })
}

/// What `load` does, by its own options.
fn load(args: &SetupArgs, answer: &Answer) -> anyhow::Result<()> {
    let mut words = vec![
        "load".to_owned(),
        "--config".to_owned(),
        args.output.display().to_string(),
        "--host".to_owned(),
        answer.host.clone(),
        "--audit".to_owned(),
    ];
    for interface in &answer.interfaces {
        words.extend(["--interface".to_owned(), interface.clone()]);
    }
    let command = LoadArgs::augment_args(clap::Command::new("load"));
    let matches = command
        .try_get_matches_from(&words)
        .context("cannot load what was written")?;
    let args = LoadArgs::from_arg_matches(&matches).context("cannot load what was written")?;
    if let Some(done) = load::execute(&args, &mut Vec::new())? {
        load::tell(&done);
    }
    Ok(())
}

/// Units for the next boots, where systemd runs and knows them.
fn enable(interfaces: &[String]) -> Vec<String> {
    if !Path::new("/run/systemd/system").is_dir() {
        return Vec::new();
    }
    let units = interfaces
        .iter()
        .map(|name| format!("portguard@{name}.service"));
    let systemctl = |verb: &str, unit: &str| {
        Command::new("systemctl")
            .args([verb, unit])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let mut enabled: Vec<String> = units
        .chain(["portguard-agent.service".to_owned()])
        .filter(|unit| systemctl("cat", unit) && systemctl("enable", unit))
        .collect();
    // The guard is loaded; the agent's history begins now, not with the next boot.
    if let Some(agent) = enabled.pop_if(|unit| unit.starts_with("portguard-agent")) {
        systemctl("start", &agent);
        enabled.push(agent);
    }
    enabled
}
