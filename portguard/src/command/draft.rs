//! A commented site file for the chosen roles, so that nobody starts from an empty page.

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use portguard_policy::catalog::{Catalog, System};
use portguard_policy::site;

use portguard_policy::diagnostic::{Diagnostic, Rejected};
use system::{about, add};

/// A host as it is written into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostSpec {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    /// Empty = those of all.
    pub(super) roles: Vec<String>,
    /// Those to guard; empty = not said.
    pub(super) interfaces: Vec<String>,
}

impl HostSpec {
    /// `NAME=ADDRESS,...[@SYSTEM/ROLE,...]`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (rest, roles) = text.split_once('@').unwrap_or((text, ""));
        let Some((name, addresses)) = rest.split_once('=') else {
            return Err("expected NAME=ADDRESS, like `db1=10.0.0.1`".to_owned());
        };
        if name.is_empty() || name.contains(['"', '\\']) {
            return Err("expected a name before the `=`".to_owned());
        }
        let addresses: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
        let words = roles.split(',').filter(|role| !role.is_empty());
        Ok(Self {
            name: name.to_owned(),
            addresses: addresses.map_err(|_error| "expected addresses after the `=`".to_owned())?,
            roles: words.map(str::to_owned).collect(),
            interfaces: Vec::new(),
        })
    }
}

/// `SYSTEM=NAME`.
pub(super) fn deployment(text: &str) -> Result<(String, String), String> {
    let (system, name) = text
        .split_once('=')
        .ok_or("expected SYSTEM=NAME, like `ibm-api-connect=kubernetes`")?;
    Ok((system.to_owned(), name.to_owned()))
}

/// What the file is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) hosts: Vec<HostSpec>,
    /// Deployment by system.
    pub(super) deployments: BTreeMap<String, String>,
    /// Who administers the hosts; empty = not known, and anybody may try.
    pub(super) admins: Vec<String>,
    /// Ports that this is done by.
    pub(super) management: Vec<u16>,
    /// Directories of matrices of the user's own, absolute.
    pub(super) catalogs: Vec<PathBuf>,
    /// Addresses by `SYSTEM/KEY`, of peers that were seen.
    pub(super) peers: BTreeMap<String, Vec<IpAddr>>,
}

/// Directories as a file may name them that is read from anywhere.
pub(super) fn absolute(directories: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let each = directories.iter().map(|directory| {
        std::path::absolute(directory)
            .with_context(|| format!("cannot find `{}`", directory.display()))
    });
    each.collect()
}

/// Who administers: addresses and prefixes, as they were written.
#[derive(Debug, Clone, Default)]
pub(super) struct Admins(pub(super) Vec<String>);

impl Admins {
    /// `ADDRESS,PREFIX,...`
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(str::to_owned).collect();
        for word in &words {
            if let Err(Rejected(faults)) = site::prefixes::parse("", word.as_bytes()) {
                let told = |fault: &Diagnostic| match &fault.hint {
                    Some(hint) => format!("{}: {hint}", fault.message),
                    None => fault.message.clone(),
                };
                return Err(faults.first().map_or_else(String::new, told));
            }
        }
        Ok(Self(words))
    }
}

/// The site file's text.
pub(super) fn site_file(catalog: &Catalog, draft: &Draft) -> Result<String, Rejected> {
    let mut systems: BTreeMap<&str, (&System, BTreeSet<&str>)> = BTreeMap::new();
    let mut faults = Vec::new();
    for name in draft.hosts.iter().flat_map(|host| &host.roles) {
        match catalog.role(name) {
            Ok((system, role)) => {
                systems
                    .entry(&system.id)
                    .or_insert((system, BTreeSet::new()))
                    .1
                    .insert(&role.id);
            }
            Err(diagnostic) => faults.push(diagnostic.at("--role")),
        }
    }
    for (system, name) in &draft.deployments {
        let known = systems.get(system.as_str());
        if known.is_none_or(|(system, _)| !system.deployments.contains_key(name)) {
            let names = known.map_or(String::new(), |(system, _)| {
                let all: Vec<&str> = system.deployments.keys().map(String::as_str).collect();
                all.join(", ")
            });
            let message = format!("`{name}` is not a deployment of `{system}`");
            let fault = Diagnostic::error("unknown-deployment", message).at("--deployment");
            faults.push(if names.is_empty() {
                fault.hint("it has none, or no host has a role of it")
            } else {
                fault.hint(format!("one of {names}"))
            });
        }
    }
    faults.extend(twice(&draft.hosts));
    if !faults.is_empty() {
        return Err(Rejected(faults));
    }
    let mut text = head(draft);
    for (system, roles) in systems.values() {
        // `roles` are those of all hosts of the file.
        about(&mut text, system, roles, draft);
    }
    text.push_str(
        "\n# Every host of the site: a role named as a peer is the hosts that have it.\n",
    );
    for host in &draft.hosts {
        let listed: BTreeSet<_> = host
            .roles
            .iter()
            .map(|role| format!("\"{role}\""))
            .collect();
        let listed: Vec<_> = listed.into_iter().collect();
        let addresses: Vec<_> = host
            .addresses
            .iter()
            .map(|one| format!("\"{one}\""))
            .collect();
        let _ = writeln!(text, "[[host]]\nname = \"{}\"", host.name);
        let _ = writeln!(
            text,
            "addresses = [{}]    # as its peers see it",
            addresses.join(", ")
        );
        add(&mut text, &format!("roles = [{}]", listed.join(", ")));
        if !host.interfaces.is_empty() {
            let all = host
                .interfaces
                .iter()
                .map(|name| format!("{name:?} = {{}}"));
            let all: Vec<String> = all.collect();
            let line = format!("interfaces = {{ {} }}    # to be guarded", all.join(", "));
            add(&mut text, &line);
        }
        text.push('\n');
    }
    Ok(text.trim_end().to_owned() + "\n")
}

/// Names and addresses that two hosts have.
fn twice(hosts: &[HostSpec]) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    let (mut names, mut owners) = (BTreeSet::new(), BTreeMap::new());
    for host in hosts {
        if !names.insert(&host.name) {
            let message = format!("host `{}` is listed twice", host.name);
            let hint = "name all of its addresses at once: `NAME=ADDRESS,ADDRESS`";
            faults.push(
                Diagnostic::error("duplicate-host", message)
                    .at("--host")
                    .hint(hint),
            );
        }
        for address in &host.addresses {
            if let Some(owner) = owners.insert(address, &host.name) {
                let message = format!(
                    "address `{address}` belongs to `{owner}` and to `{}`",
                    host.name
                );
                let hint = "one that moves between hosts goes into `shared_addresses` of each, in the file";
                faults.push(
                    Diagnostic::error("duplicate-address", message)
                        .at("--host")
                        .hint(hint),
                );
            }
        }
    }
    faults
}

fn head(draft: &Draft) -> String {
    let quoted = |words: &[String]| {
        let all: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        all.join(", ")
    };
    let (admins, peers, note) = if draft.admins.is_empty() {
        (
            "# who administers the hosts; write your own\n# admins = [\"192.0.2.0/24\"]".to_owned(),
            "",
            "             # from anybody: with `admins` above, write \"tcp/22=admins\"",
        )
    } else {
        (
            format!(
                "admins = [{}]    # who administers the hosts",
                quoted(&draft.admins)
            ),
            "=admins",
            "",
        )
    };
    let catalogs: Vec<String> = draft
        .catalogs
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    let catalogs = if catalogs.is_empty() {
        String::new()
    } else {
        format!(
            "catalogs = [{}]    # matrices of your own\n",
            quoted(&catalogs)
        )
    };
    let ports = if draft.management.is_empty() {
        vec![22]
    } else {
        draft.management.clone()
    };
    let allow: Vec<String> = ports
        .iter()
        .map(|port| format!("tcp/{port}{peers}"))
        .collect();
    format!(
        "\
#:schema file://{}
# portguard site file. Read it from the top; everything after `#` is optional.
schema = 1
mode = \"audit\"                 # audit: count violations; enforce: drop them
outbound = \"audit\"             # what the host sends: off, audit or enforce
# unresolved_peers = \"refuse\"  # peers that a document names and this file does not define: refuse, any or none
# unresolved_ports = \"refuse\"  # rows without a number that this file does not give: refuse or none (closed)
{catalogs}
[groups]
{admins}
# who uses the products; write your own
# users = [\"192.0.2.0/24\"]

[management]                   # stays open whatever the documents say
allow = [{}]{note}

[baseline]                     # \"any\", \"none\" or a list of peers
echo = \"any\"                   # who may ping
dhcp = \"any\"
dns = \"any\"                    # name servers that the host asks
ntp = \"any\"
",
        site::SCHEMA_FILE,
        quoted(&allow)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use portguard_policy::compile::{Inputs, Selection, compile};
    use portguard_policy::diagnostic::Level;
    use portguard_policy::site::Site;

    fn codes(catalog: &Catalog, text: &str) -> Vec<(Level, &'static str, String)> {
        let site =
            Site::parse("init.toml", text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
        let compiled = compile(&Inputs {
            catalog,
            site: &site,
            host: Selection::Name("host-1".to_owned()),
            interface: None,
            local_addresses: &[],
            hostname: None,
            resolved: &resolved,
            files: &files,
            today: None,
        });
        compiled
            .diagnostics
            .into_iter()
            .map(|d| (d.level, d.code, d.message))
            .collect()
    }

    /// The file loads as it is; with its example peers uncommented nothing is unresolved.
    #[test]
    fn the_file_of_every_role_is_a_site_and_lists_every_peer() {
        let catalog = Catalog::embedded().unwrap();
        for system in catalog.systems.values() {
            for role in system.host_roles() {
                let draft = Draft {
                    hosts: vec![HostSpec {
                        name: "host-1".to_owned(),
                        addresses: vec!["192.0.2.1".parse().unwrap()],
                        roles: vec![format!("{}/{}", system.id, role.id)],
                        interfaces: vec!["eth0".to_owned(), "eth1.7".to_owned()],
                    }],
                    ..Draft::default()
                };
                let text = site_file(&catalog, &draft).unwrap();
                keys_collide_nowhere(&text);
                let errors: Vec<_> = codes(&catalog, &text)
                    .into_iter()
                    .filter(|(level, ..)| *level == Level::Error)
                    .collect();
                assert!(errors.is_empty(), "{errors:?}\n{text}");
                let uncomment = |line: &str| match line.strip_prefix("# ") {
                    Some(rest)
                        if rest.ends_with("= [\"192.0.2.0/24\"]")
                            || rest.starts_with("unprinted_peers.") =>
                    {
                        rest.to_owned()
                    }
                    _ => line.to_owned(),
                };
                let full: Vec<String> = text.lines().map(uncomment).collect();
                let left: Vec<_> = codes(&catalog, &full.join("\n"))
                    .into_iter()
                    .filter(|(_, code, _)| {
                        ["unresolved-peer", "unprinted-peers", "domain-not-asked"].contains(code)
                    })
                    .collect();
                assert!(left.is_empty(), "{left:?}\n{text}");
            }
        }
    }

    /// Whatever is uncommented, it is a document still.
    fn keys_collide_nowhere(text: &str) {
        let is_key = |line: &str| {
            let mut parts = line.splitn(2, " = ");
            let key = parts.next().unwrap_or_default();
            parts
                .next()
                .is_some_and(|value| value.starts_with(['"', '[', '{']))
                && !key.contains(' ')
        };
        let lines = text.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) => rest,
            _ => line,
        });
        let all: Vec<&str> = lines.collect();
        // Comments that go on behind a value stay comments: `#   `.
        let parsed = all.join("\n").parse::<toml::Table>();
        assert!(parsed.is_ok(), "{parsed:?}\n{}", all.join("\n"));
    }

    #[test]
    fn an_option_about_hosts_of_the_site_is_on() {
        let catalog = Catalog::embedded().unwrap();
        let draft = |hosts: &[&str]| Draft {
            hosts: hosts
                .iter()
                .map(|text| HostSpec::parse(text).unwrap())
                .collect(),
            ..Draft::default()
        };
        let both = ["a=10.0.0.1@wso2/api-manager", "b=10.0.0.2@wso2/analytics"];
        let text = site_file(&catalog, &draft(&both)).unwrap();
        assert!(
            text.contains("\noptions = [\"publish-analytics\"]"),
            "{text}"
        );
        let text = site_file(&catalog, &draft(&both[..1])).unwrap();
        assert!(!text.contains("\noptions ="), "{text}");
    }

    #[test]
    fn several_hosts_have_roles_of_their_own() {
        let catalog = Catalog::embedded().unwrap();
        let hosts = [
            "a1=10.0.0.1,10.0.0.2@thoughtspot/node",
            "a2=fd00::2@nexthink/engine",
        ];
        let draft = Draft {
            hosts: hosts.map(|text| HostSpec::parse(text).unwrap()).to_vec(),
            ..Draft::default()
        };
        let text = site_file(&catalog, &draft).unwrap();
        assert_eq!(text.matches("[[host]]").count(), 2);
        assert!(
            text.contains("addresses = [\"10.0.0.1\", \"10.0.0.2\"]"),
            "{text}"
        );
        assert!(text.contains("roles = [\"nexthink/engine\"]"), "{text}");
        for wrong in ["a1", "=10.0.0.1", "a1=x"] {
            assert!(HostSpec::parse(wrong).is_err(), "{wrong}");
        }
        let wrong = Draft {
            deployments: [("thoughtspot".to_owned(), "nowhere".to_owned())].into(),
            ..draft
        };
        assert!(site_file(&catalog, &wrong).is_err());
    }
}
