//! What `check`, `explain`, `load` and others compile: a site file, a host or roles, and flags in place of either.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use ipnet::IpNet;

use super::catalogs;
use crate::stderr::stderr;
pub(super) use machine::hostname;
use portguard_kernel::host::interface::all_names;
use portguard_kernel::host::resolve;
use portguard_policy::catalog::Catalog;
use portguard_policy::compile::{self, Inputs, Selection};
use portguard_policy::diagnostic::{Diagnostic, Level};
use portguard_policy::error::Fault;
use portguard_policy::human::plain;
use portguard_policy::policy::{Compiled, Outbound, Policy};
use portguard_policy::site::{self, Flags, Host, Mode, Site, Unresolved, UnresolvedPorts};

mod machine;
#[cfg(test)]
mod tests;

/// Where a site file is looked for.
pub(super) const USUAL_SITE: &str = "/etc/portguard/site.toml";
/// The note that an interface has a policy of its own.
pub(super) const INTERFACES_DIFFER: &str = "interfaces-differ";
/// Standard input, in place of a file.
pub(super) const STDIN: &str = "-";

/// Which host, of which site.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
#[command(next_help_heading = "Policy")]
pub struct SelectionArgs {
    /// Site file, `-` for standard input [default: /etc/portguard/site.toml, if it exists and no role is given]
    #[arg(short, long, value_name = "SITE", env = "PORTGUARD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Host of the inventory [default: the one with this machine's addresses]
    #[arg(long, value_name = "NAME", conflicts_with = "roles")]
    pub host: Option<String>,
    /// Role of this host, instead of an inventory
    #[arg(long = "role", value_name = "SYSTEM/ROLE")]
    pub roles: Vec<String>,
    /// Addresses of a group, role, `asn:N` or `domain:NAME` of the document
    #[arg(long = "peer", value_name = "NAME=CIDR,...")]
    pub peers: Vec<String>,
    /// Peers of rows for which the document prints none
    #[arg(long, value_name = "any|CIDR,...")]
    pub unprinted_peers: Option<String>,
    /// How to treat peers that the document names but the site does not define
    #[arg(long, value_name = "WHAT")]
    pub unresolved_peers: Option<UnresolvedArg>,
    /// How to treat rows whose port numbers neither the document nor the site gives
    #[arg(long, value_name = "WHAT")]
    pub unresolved_ports: Option<UnresolvedPortsArg>,
    /// Management access that stays open, or `none`
    #[arg(long, value_name = "PROTO/PORT[=CIDR,...]")]
    pub management: Vec<String>,
    /// Count violations, drop nothing
    #[arg(long)]
    pub audit: bool,
    /// Drop violations
    #[arg(long, conflicts_with = "audit")]
    pub enforce: bool,
    /// What to do with undocumented traffic that the host sends
    #[arg(long, value_name = "MODE")]
    pub outbound: Option<OutboundArg>,
    /// Deployment of the system
    #[arg(long = "deployment", value_name = "[SYSTEM=]NAME")]
    pub deployments: Vec<String>,
    /// Version of the system
    #[arg(long = "system-version", value_name = "[SYSTEM=]VERSION")]
    pub versions: Vec<String>,
    /// Option of the system to enable
    #[arg(long = "option", value_name = "[SYSTEM/]OPTION")]
    pub options: Vec<String>,
    /// Option of the system to disable
    #[arg(long = "without", value_name = "[SYSTEM/]OPTION")]
    pub without: Vec<String>,
    /// One of several alternatives
    #[arg(long = "choose", value_name = "[SYSTEM/]CHOICE=VALUE")]
    pub choices: Vec<String>,
    /// Port offset of a server; several for several servers
    #[arg(long = "offset", value_name = "SYSTEM/ROLE=N[,N]")]
    pub offsets: Vec<String>,
    /// Directory with your own catalog files
    #[arg(long = "catalog", value_name = "DIR")]
    pub catalogs: Vec<PathBuf>,
    /// Resolve domain names, even if the command is otherwise offline
    #[arg(long)]
    pub resolve: bool,
    /// Name server to ask [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = portguard_kernel::host::resolve::server, env = "PORTGUARD_RESOLVER")]
    pub resolver: Option<SocketAddr>,
    /// File with the date and the resolver's answers, so that a site compiles to the same policy everywhere
    #[arg(long, value_name = "FILE", hide = true, requires = "config", conflicts_with_all = ["resolve", "resolver"])]
    pub frozen: Option<PathBuf>,
}

/// What else a policy would take from the machine that compiles it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// A day, `YYYY-MM-DD`, or a moment by RFC 3339.
    pub today: Option<String>,
    /// What each domain name resolved to.
    pub resolved: BTreeMap<String, Vec<IpAddr>>,
}

/// `--unresolved-peers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnresolvedArg {
    /// An error.
    Refuse,
    /// Judged as anybody.
    Any,
    /// Nobody.
    None,
}

/// `--unresolved-ports`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnresolvedPortsArg {
    /// An error in enforce.
    Refuse,
    /// Such rows open nothing.
    None,
}

/// `--outbound`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutboundArg {
    /// Not judged.
    Off,
    /// Counted.
    Audit,
    /// Dropped.
    Enforce,
}

/// Whether domain names are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolving {
    /// Only with `--resolve`.
    WhenTold,
    /// By commands that are about to load a policy.
    Always,
}

/// Everything read; [`Self::inputs`] borrows it for the compiler.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Embedded and the user's own.
    pub catalog: Catalog,
    /// File and flags.
    pub site: Site,
    /// Which host.
    pub host: Selection,
    /// The site file, if there is one.
    pub config: Option<PathBuf>,
    /// Directories of the user's own catalogs, absolute.
    pub catalogs: Vec<PathBuf>,
    local_addresses: Vec<IpAddr>,
    hostname: Option<String>,
    resolved: BTreeMap<String, Vec<IpAddr>>,
    files: BTreeMap<String, Vec<IpNet>>,
    today: Option<String>,
}

/// Names that do not resolve, a line for each cause: the compiler says what follows for each of them.
fn unresolved(failures: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let mut causes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, why) in failures {
        causes.entry(plain(&why)).or_default().push(plain(&name));
    }
    let line = |(why, names): (String, Vec<String>)| match &names[..] {
        [name] => format!("domain {name} does not resolve: {why}"),
        [first, ..] => format!(
            "{} domains do not resolve, such as {first}: {why}",
            names.len()
        ),
        [] => String::new(),
    };
    causes.into_iter().map(line).collect()
}

impl Loaded {
    /// For the compiler; `interface`: only what that one serves.
    pub fn inputs<'a>(&'a self, interface: Option<&'a str>) -> Inputs<'a> {
        Inputs {
            catalog: &self.catalog,
            site: &self.site,
            host: self.host.clone(),
            interface: interface.map(|name| self.named(name)),
            local_addresses: &self.local_addresses,
            hostname: self.hostname.as_deref(),
            resolved: &self.resolved,
            files: &self.files,
            today: self.today.as_deref(),
        }
    }

    /// How the site names an interface: as it is called, or by another name that it has on this machine.
    pub fn named<'a>(&'a self, interface: &'a str) -> &'a str {
        let hosts = self.site.hosts.iter();
        let mut named = hosts.flat_map(|host| host.interfaces.keys());
        if named.clone().any(|name| name == interface) {
            return interface;
        }
        // The kernel is asked only where the site names any.
        let names = LazyCell::new(|| all_names(interface));
        let found = named.find(|name| names.contains(name));
        found.map_or(interface, String::as_str)
    }

    /// Compiles by this alone, not by what the machine says of itself.
    pub fn freeze(&mut self, frozen: Frozen) {
        self.local_addresses = Vec::new();
        self.hostname = None;
        self.resolved = frozen.resolved;
        self.today = frozen.today;
    }

    /// What [`Self::freeze`] would want, as of now on this machine.
    pub fn frozen(&self) -> Frozen {
        Frozen {
            // The day is enough: what ends on it ends by the clock of the kernel that enforces the policy.
            today: self
                .today
                .as_deref()
                .map(|now| now.split('T').next().unwrap_or(now).to_owned()),
            resolved: self.resolved.clone(),
        }
    }

    /// Compiles, and looks at the other hosts of the site for what takes more than one.
    pub fn compile(&self, interface: Option<&str>) -> Compiled {
        let mut compiled = compile::review(&self.inputs(interface));
        if interface.is_none() {
            let note = self.interfaces_differ(&compiled.policy);
            compiled.diagnostics.extend(note);
        }
        compiled
    }

    /// The host's interfaces that the site names, if one of them has another policy than they all together; else none.
    pub fn apart(&self) -> Vec<String> {
        let mut hosts = self.site.hosts.iter();
        if hosts.all(|host| host.interfaces.is_empty()) {
            return Vec::new();
        }
        let policy = self.compile_alone(None).policy;
        let host = policy.host.as_deref().and_then(|name| self.site.host(name));
        match host {
            Some(host) if self.differing(host, &policy).next().is_some() => {
                host.interfaces.keys().cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    fn differing<'a>(
        &'a self,
        host: &'a Host,
        policy: &Policy,
    ) -> impl Iterator<Item = &'a String> {
        let own = policy.digest();
        let interfaces = host.interfaces.keys();
        interfaces.filter(move |name| self.compile_alone(Some(name)).policy.digest() != own)
    }

    /// A note where interfaces of the host have policies of their own: what was compiled for none of them holds on none.
    fn interfaces_differ(&self, policy: &Policy) -> Option<Diagnostic> {
        let host = self.site.host(policy.host.as_deref()?)?;
        let others: Vec<String> = self
            .differing(host, policy)
            .map(|name| format!("`{}`", plain(name)))
            .collect();
        let first = host.interfaces.keys().next()?;
        if others.is_empty() {
            return None;
        }
        let verb = if others.len() == 1 {
            "has a policy"
        } else {
            "have policies"
        };
        let message = format!(
            "{} {verb} of {} own: this is what the host serves on all interfaces together",
            others.join(", "),
            if others.len() == 1 { "its" } else { "their" }
        );
        let note = Diagnostic::new(Level::Note, INTERFACES_DIFFER, message);
        Some(note.hint(format!("`--interface {}` shows one", plain(first))))
    }

    /// Compiles and no more: for who wants the policy alone.
    pub fn compile_alone(&self, interface: Option<&str>) -> Compiled {
        compile::compile(&self.inputs(interface))
    }
}

impl SelectionArgs {
    /// The site file that is read: the one that is given, or else the usual one.
    pub fn site(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| {
            let usual = PathBuf::from(USUAL_SITE);
            (self.roles.is_empty() && usual.exists()).then_some(usual)
        })
    }

    /// Whether anything at all is selected on the command line.
    pub fn is_given(&self) -> bool {
        // Whom to ask for names selects nothing.
        let nothing = Self {
            resolver: self.resolver,
            ..Self::default()
        };
        *self != nothing
    }

    /// Reads all that it takes, and asks for domain names.
    pub fn load(&self, resolving: Resolving) -> anyhow::Result<Loaded> {
        let mut loaded = self.read()?;
        if self.resolve || resolving == Resolving::Always {
            self.resolve(&mut loaded)?;
        }
        Ok(loaded)
    }

    /// Asks for the domain names of what was read, unless their addresses were given with it.
    pub(super) fn resolve(&self, loaded: &mut Loaded) -> anyhow::Result<()> {
        if self.frozen.is_some() {
            return Ok(());
        }
        let names = compile::domains(&loaded.inputs(None));
        let (resolved, failures) = resolve::once(names, self.resolver)?;
        // A name that does not resolve has no addresses; the compiler says what follows.
        loaded.resolved = resolved;
        for line in unresolved(failures) {
            let _ = writeln!(stderr(), "warning: {line}");
        }
        Ok(())
    }

    /// Reads the site, the catalogs and the prefix files, and asks the machine for its addresses; nothing that takes long.
    pub(super) fn read(&self) -> anyhow::Result<Loaded> {
        let config = self.site();
        let base = config
            .as_deref()
            .and_then(Path::parent)
            .unwrap_or(Path::new(""));
        let mut site = match &config {
            // Places in the site are part of the policy: they must not tell machines apart.
            Some(path) if self.frozen.is_some() => {
                let name = path.file_name().unwrap_or_default();
                Site::parse(&name.to_string_lossy(), &read(path)?)?
            }
            Some(path) if path == Path::new(STDIN) => Site::parse("standard input", &read(path)?)?,
            Some(path) => Site::parse(&path.display().to_string(), &read(path)?)?,
            None => Site::default(),
        };
        let roles = site.roles().chain(self.roles.iter().map(String::as_str));
        let own = site.catalogs.iter().map(|dir| base.join(dir));
        let directories: Vec<PathBuf> = own.chain(self.catalogs.iter().cloned()).collect();
        let catalog = catalogs::read(roles, &directories)?;
        site.apply(&self.flags(), &catalog)?;
        let mut files = BTreeMap::new();
        for path in site.files() {
            let full = beside(base, path)?;
            let nets = site::prefixes::parse(&full.display().to_string(), &read(&full)?)?;
            files.insert(path.to_owned(), nets);
        }
        let host = match (&self.host, self.roles.as_slice()) {
            (Some(name), _) => Selection::Name(name.clone()),
            (None, []) => Selection::Local,
            (None, roles) => Selection::Roles(roles.to_vec()),
        };
        let mut loaded = Loaded {
            catalog,
            site,
            host,
            catalogs: directories.iter().map(|dir| absolute(dir)).collect(),
            config,
            local_addresses: machine::addresses(),
            hostname: hostname(),
            resolved: BTreeMap::new(),
            files,
            today: machine::now(),
        };
        if let Some(path) = &self.frozen {
            let frozen: Frozen = serde_json::from_slice(&read(path)?)
                .with_context(|| format!("cannot read {}", path.display()))?;
            loaded.freeze(frozen);
        }
        Ok(loaded)
    }

    fn flags(&self) -> Flags {
        let mode = match (self.audit, self.enforce) {
            (_, true) => Some(Mode::Enforce),
            (true, false) => Some(Mode::Audit),
            (false, false) => None,
        };
        Flags {
            roles: self.roles.clone(),
            peers: self.peers.clone(),
            unprinted_peers: self.unprinted_peers.clone(),
            unresolved_peers: self.unresolved_peers.map(|word| match word {
                UnresolvedArg::Refuse => Unresolved::Refuse,
                UnresolvedArg::Any => Unresolved::Any,
                UnresolvedArg::None => Unresolved::None,
            }),
            unresolved_ports: self.unresolved_ports.map(|word| match word {
                UnresolvedPortsArg::Refuse => UnresolvedPorts::Refuse,
                UnresolvedPortsArg::None => UnresolvedPorts::None,
            }),
            management: self.management.clone(),
            mode,
            outbound: self.outbound.map(|word| match word {
                OutboundArg::Off => Outbound::Off,
                OutboundArg::Audit => Outbound::Audit,
                OutboundArg::Enforce => Outbound::Enforce,
            }),
            deployments: self.deployments.clone(),
            versions: self.versions.clone(),
            options: self.options.clone(),
            without: self.without.clone(),
            choices: self.choices.clone(),
            offsets: self.offsets.clone(),
        }
    }
}

/// Where a directory is, wherever somebody asks later; as it is given where that is unknown.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// A file beside the site file, or in a directory beside it: whoever writes a site gets no other file read by whoever loads it.
fn beside(base: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let base = if base.as_os_str().is_empty() {
        Path::new(".")
    } else {
        base
    };
    let full = base.join(path);
    let cannot =
        |error: io::Error| Fault::usage(format!("cannot open {}: {error}", full.display()));
    let real = full.canonicalize().map_err(cannot)?;
    if real.starts_with(base.canonicalize().map_err(cannot)?) {
        return Ok(full);
    }
    Err(Fault::usage(format!(
        "`file:{}` is outside the directory of the site file",
        plain(path)
    ))
    .hint("put the file beside the site file")
    .into())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt as _;
    // One byte more than is allowed is enough to refuse it.
    let limit = u64::try_from(site::MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    if path == Path::new(STDIN) {
        io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
        return Ok(bytes);
    }
    let shown = path.display();
    // A pipe that nobody writes to would be waited for at the opening, a device read without end.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| {
            let fault = Fault::usage(format!("cannot open {shown}: {error}"));
            if error.kind() == io::ErrorKind::NotFound {
                fault.hint(
                    "`portguard setup` writes a site file for this host, `portguard init` for any",
                )
            } else {
                fault.hint("site files and lists must be readable by the user who loads them")
            }
        })?;
    let kind = file
        .metadata()
        .with_context(|| format!("cannot look at {shown}"))?;
    if !kind.is_file() {
        return Err(Fault::usage(format!("{shown} is not a regular file"))
            .hint("pipes and devices cannot be read: save the content to a file")
            .into());
    }
    file.take(limit)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {shown}"))?;
    Ok(bytes)
}
