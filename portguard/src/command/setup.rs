//! `portguard setup`: from nothing to audit. Looks at this host and at the catalogs, proposes, asks, writes and loads.

mod guess;
pub(super) mod look;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use clap::{Args, FromArgMatches as _};
use serde::Serialize;

use super::catalogs;
use super::draft::{Draft, deployment, site_file};
use super::load::{self, LoadArgs};
use crate::stderr::stderr;
use guess::Proposal;
use portguard_kernel::host::listeners::listeners;
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
    /// Write JSON; does not ask
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    schema: u32,
    host: String,
    addresses: Vec<String>,
    interfaces: Vec<String>,
    /// Roles that were chosen.
    roles: Vec<String>,
    /// Deployment by system, where it could be told.
    deployments: BTreeMap<String, String>,
    /// All that were thought of, likeliest first.
    proposals: Vec<Proposal>,
    management: Vec<u16>,
    admins: Vec<String>,
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
    let roles_named = args.roles.iter().map(String::as_str);
    let catalog = catalogs::read(roles_named, &args.catalogs)?;
    let listeners = listeners().context("cannot read what listens")?;
    let mut host = look::this_host();
    let proposals = guess::proposals(&catalog, &listeners, &look::packages());
    host.roles = roles(args, &proposals)?;
    let mut deployments = guess::deployments(&catalog, &host.roles, &listeners);
    deployments.extend(args.deployments.iter().cloned());
    let management = look::management(&listeners);
    let admins = look::admins(&management);
    let interfaces = interfaces(args)?;
    host.interfaces.clone_from(&interfaces);
    let draft = Draft {
        hosts: vec![host.clone()],
        admins: admins.clone(),
        management: management.clone(),
        deployments: deployments.clone(),
    };
    let site = site_file(&catalog, &draft)?;
    let mut answer = Answer {
        schema: 1,
        host: host.name.clone(),
        addresses: host.addresses.iter().map(ToString::to_string).collect(),
        interfaces,
        roles: host.roles,
        deployments,
        proposals,
        management,
        admins,
        written: None,
        loaded: false,
        units: Vec::new(),
        site,
    };
    if !args.json {
        show(&answer, &args.output)?;
    }
    if !args.dry_run && is_wanted(args)? {
        write(args, &answer.site)?;
        answer.written = Some(args.output.display().to_string());
        load(args, &answer)?;
        answer.loaded = true;
        answer.units = enable(&answer.interfaces);
    }
    if args.json {
        super::print_json(&answer)?;
    } else {
        last_words(&answer, &args.output)?;
    }
    Ok(Exit::Ok)
}

fn roles(args: &SetupArgs, proposals: &[Proposal]) -> anyhow::Result<Vec<String>> {
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
        let fault =
            Fault::usage("what listens here is not what any role of the catalogs listens on");
        return Err(if near.is_empty() {
            fault.hint("name the role by `--role SYSTEM/ROLE`; `portguard catalog list` has them")
        } else {
            fault.hint(format!(
                "name the role by `--role`; nearest are {}",
                near.join(", ")
            ))
        }
        .into());
    }
    Ok(likely)
}

fn interfaces(args: &SetupArgs) -> anyhow::Result<Vec<String>> {
    if !args.interfaces.is_empty() {
        return Ok(args.interfaces.clone());
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

fn show(answer: &Answer, output: &Path) -> anyhow::Result<()> {
    super::print(|out| {
        writeln!(
            out,
            "host        {} ({})",
            plain(&answer.host),
            answer.addresses.join(", ")
        )?;
        writeln!(out, "interface   {}", plain(&answer.interfaces.join(", ")))?;
        for role in &answer.roles {
            let why = answer.proposals.iter().find(|one| one.role == *role);
            let why = why.map_or("named".to_owned(), Proposal::why);
            writeln!(out, "role        {role}: {}", plain(&why))?;
        }
        for (system, name) in &answer.deployments {
            writeln!(out, "deployment  {system}: {name}")?;
        }
        for other in &answer.proposals {
            if let Some(main) = other
                .beside
                .as_ref()
                .filter(|_| !answer.roles.contains(&other.role))
            {
                writeln!(
                    out,
                    "            {} often stands beside {main}: `--role` adds it if it runs here",
                    other.role
                )?;
            }
        }
        let ports: Vec<String> = answer
            .management
            .iter()
            .map(|port| format!("tcp/{port}"))
            .collect();
        let admins = if answer.admins.is_empty() {
            "192.0.2.0/28, an example: write your own".to_owned()
        } else {
            answer.admins.join(", ")
        };
        writeln!(out, "management  {} for {admins}", ports.join(", "))?;
        writeln!(out, "site file   {}", output.display())
    })
}

/// Asks, where there is somebody to ask.
fn is_wanted(args: &SetupArgs) -> anyhow::Result<bool> {
    if args.yes {
        return Ok(true);
    }
    if args.json || !io::stdin().is_terminal() {
        return Err(Fault::usage("not on a terminal: cannot ask")
            .hint("`--yes` accepts the proposal, `--dry-run` only shows it")
            .into());
    }
    let mut err = stderr();
    write!(
        err,
        "\nWrite it and load it in audit, which drops nothing? [Y/n] "
    )?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("cannot read an answer")?;
    Ok(matches!(
        answer.trim().to_lowercase().as_str(),
        "" | "y" | "yes"
    ))
}

fn write(args: &SetupArgs, site: &str) -> anyhow::Result<()> {
    let path = &args.output;
    if path.exists() && !args.replace && !is_blank(&fs::read_to_string(path)?) {
        return Err(Fault::usage(format!("`{}` is there already", path.display()))
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
    for directory in &args.catalogs {
        words.extend(["--catalog".to_owned(), directory.display().to_string()]);
    }
    let command = LoadArgs::augment_args(clap::Command::new("load"));
    let matches = command
        .try_get_matches_from(&words)
        .context("cannot load what was written")?;
    let args = LoadArgs::from_arg_matches(&matches).context("cannot load what was written")?;
    if let Some(done) = load::execute(&args, |_, _, _| Ok(true))? {
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

fn last_words(answer: &Answer, output: &Path) -> io::Result<()> {
    let mut err = stderr();
    if !answer.loaded {
        return writeln!(err, "nothing was written, nothing was loaded");
    }
    let file = output.display();
    for unit in &answer.units {
        writeln!(err, "enabled {unit}")?;
    }
    writeln!(
        err,
        "wrote {file} and loaded it in audit: nothing is dropped\n\
         next: look at `portguard counters --violations` for some days, write what is missing into {file},\n\
         and let `portguard promote -c {file}` say when it can enforce"
    )
}
