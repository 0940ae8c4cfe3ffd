//! Every host's policy, and what it must not keep a host from.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};

use portguard_fleet::layout;
use portguard_fleet::release::{HostEntry, Shard};
use portguard_fleet::store::Address;
use portguard_policy::catalog::Transport;
use portguard_policy::compile::{self, Batch, Inputs, Selection};
use portguard_policy::diagnostic::Rejected;
use portguard_policy::error::Fault;
use portguard_policy::policy::{Compiled, GrantKind, Policy};
use portguard_policy::site::Host;

use super::super::project::Project;
use crate::command::selection::Loaded;
use crate::stderr::say;

/// All hosts of the site, on all processors; the documents are parsed once, and what hosts have in common is made once for
/// each processor.
pub(super) fn compile_all(
    project: &Project,
    loaded: &Loaded,
    endpoints: &[SocketAddr],
    force: bool,
) -> anyhow::Result<Shard> {
    let hosts = &loaded.site.hosts;
    if hosts.is_empty() {
        return Err(Fault::usage("the site has no `[[host]]`").into());
    }
    Rejected::unless_fine(compile::review_site(&loaded.inputs(None), &[]))?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let each = hosts.len().div_ceil(workers);
    let compiled: anyhow::Result<Vec<Shard>> = std::thread::scope(|scope| {
        let workers: Vec<_> = hosts
            .chunks(each)
            .map(|hosts| {
                scope.spawn(move || {
                    let inputs = loaded.inputs(None);
                    let batch = Batch::new(&inputs);
                    let mut shard = Shard::new();
                    for host in hosts {
                        let compile = |interface: &str| {
                            batch.compile(&Inputs {
                                host: Selection::Name(host.name.clone()),
                                ..loaded.inputs(Some(interface))
                            })
                        };
                        let entry = entry(project, host, compile, endpoints, force)?;
                        shard.insert(host.name.clone(), entry);
                    }
                    Ok(shard)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    Ok(compiled?.into_iter().flatten().collect())
}

fn entry(
    project: &Project,
    host: &Host,
    compile: impl Fn(&str) -> Compiled,
    endpoints: &[SocketAddr],
    force: bool,
) -> anyhow::Result<HostEntry> {
    let name = &host.name;
    if !layout::is_name(name) {
        return Err(
            Fault::usage(format!("host `{name}` cannot be part of a fleet"))
                .hint("letters, digits, `.`, `-` and `_`")
                .into(),
        );
    }
    let named: Vec<String> = host.interfaces.keys().cloned().collect();
    let interfaces = match (&project.config.interface, named.is_empty()) {
        (_, false) => named,
        (Some(interface), true) => vec![interface.clone()],
        (None, true) => {
            return Err(Fault::usage(format!("host `{name}`: which interface?"))
                .hint("name some in the site, or one for all in fleet.toml: `interface = \"eth0\"`")
                .into());
        }
    };
    let mut entry = HostEntry {
        roles: Vec::new(),
        zone: String::new(),
        labels: BTreeMap::new(),
        key: project.host_key(name),
        digests: BTreeMap::new(),
        enforce: false,
        wave: 0,
        turn: 0,
    };
    if let Some(host) = project.config.hosts.get(name) {
        entry.zone.clone_from(&host.zone);
        entry.labels.clone_from(&host.labels);
    }
    for interface in interfaces {
        let compiled = compile(&interface);
        if let Err(rejected) = Rejected::unless_fine(compiled.diagnostics) {
            say(&format!("host `{name}`, interface `{interface}`:"));
            return Err(rejected.into());
        }
        let policy = compiled.policy;
        for cut in cuts(&policy, endpoints) {
            if !force {
                return Err(
                    Fault::usage(format!("host `{name}`, interface `{interface}`: {cut}"))
                        .hint(
                            "add a row to the site that admits it; `--force` plans it all the same",
                        )
                        .into(),
                );
            }
            say(&format!(
                "warning: host `{name}`, interface `{interface}`: {cut}"
            ));
        }
        entry.enforce |= policy.settings.drops_any();
        entry.roles.extend(policy.roles.iter().cloned());
        entry.digests.insert(interface, policy.digest());
    }
    entry.roles.sort_unstable();
    entry.roles.dedup();
    Ok(entry)
}

/// What a policy would keep a host from that it cannot do without.
fn cuts(policy: &Policy, endpoints: &[SocketAddr]) -> Vec<String> {
    let mut cuts = Vec::new();
    let settings = &policy.settings;
    if settings.drops_any()
        && !policy
            .inbound
            .iter()
            .any(|rule| rule.kind == GrantKind::Management)
    {
        cuts.push("enforces without any management access".to_owned());
    }
    let admits = |endpoint: &SocketAddr| {
        policy.outbound.iter().any(|rule| {
            rule.transport == Transport::Tcp
                && rule.covers(endpoint.port())
                && policy.admits(rule.peers, endpoint.ip())
        })
    };
    if settings.drops(portguard_common::reason::Direction::Egress) {
        let closed = endpoints.iter().filter(|endpoint| !admits(endpoint));
        cuts.extend(closed.map(|endpoint| format!("cuts the way to the store at tcp {endpoint}")));
    }
    cuts
}

/// Where hosts reach the store.
pub(super) fn endpoints(address: &Address) -> anyhow::Result<Vec<SocketAddr>> {
    let hosts = match address {
        Address::Directory(_) => Vec::new(),
        Address::Etcd(hosts) => hosts.clone(),
        Address::Https(url) => {
            let host = url
                .trim_start_matches("https://")
                .split('/')
                .next()
                .unwrap_or_default();
            let has_port = host.rsplit(']').next().unwrap_or(host).contains(':');
            vec![if has_port {
                host.to_owned()
            } else {
                format!("{host}:443")
            }]
        }
    };
    let mut found = Vec::new();
    for host in hosts {
        let addresses = host
            .to_socket_addrs()
            .map_err(|error| Fault::system(format!("the store's `{host}`: {error}")))?;
        found.extend(addresses);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::selection::{Resolving, SelectionArgs};

    /// What a policy with this text above its host cuts of a store at `192.0.2.7` and `2001:db8::7`.
    fn cut(text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        let site =
            format!("schema = 1\n{text}\n[[host]]\nname = \"a\"\naddresses = [\"192.0.2.1\"]\n");
        std::fs::write(&path, site).unwrap();
        let args = SelectionArgs {
            config: Some(path),
            host: Some("a".to_owned()),
            ..SelectionArgs::default()
        };
        let policy = args.load(Resolving::WhenTold).unwrap().compile(None).policy;
        let endpoints = ["192.0.2.7:2379", "[2001:db8::7]:2379"].map(|one| one.parse().unwrap());
        cuts(&policy, &endpoints)
    }

    fn row(ports: &str, peers: &str) -> String {
        format!(
            "mode = \"enforce\"\noutbound = \"enforce\"\n[management]\nallow = [\"tcp/22\"]\n[[row]]\nname = \"r\"\n\
             direction = \"out\"\ntransport = \"tcp\"\nports = [{ports}]\npeers = {peers}\nreason = \"r\"\n"
        )
    }

    #[test]
    fn what_closes_the_way_to_the_store_or_management_is_a_cut() {
        let whole = ["192.0.2.7", "2001:db8::7"];
        let peers = format!("{whole:?}");
        for open in [
            row("2379", &peers),
            row("2379", "\"any\""),
            row("\"2300-2400\"", "[\"192.0.2.0/24\", \"2001:db8::/32\"]"),
            "mode = \"enforce\"\noutbound = \"audit\"\n[management]\nallow = [\"tcp/22\"]"
                .to_owned(),
            "mode = \"audit\"\noutbound = \"audit\"\n[management]\nnone = true".to_owned(),
        ] {
            assert_eq!(cut(&open), Vec::<String>::new(), "{open}");
        }
        for (closed, count) in [
            (row("2380", "\"any\""), 2),
            (row("2379", "[\"192.0.2.7\"]"), 1),
            (row("2379", "[\"192.0.2.8\"]"), 2),
            (
                row("2379", "\"any\"").replace("tcp\"\nports", "udp\"\nports"),
                2,
            ),
            (
                "mode = \"enforce\"\noutbound = \"enforce\"\n[management]\nnone = true".to_owned(),
                3,
            ),
        ] {
            let found = cut(&closed);
            assert_eq!(found.len(), count, "{closed}: {found:?}");
        }
    }
}
