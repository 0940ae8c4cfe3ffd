//! Every role of every vendor, in each of its deployments, enforces on a real link: what its matrix opens answers, what it
//! does not is dropped.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Lab, unique_name};
use portguard_harness::traffic::{TcpEcho, connect};
use portguard_policy::catalog::{Catalog, System};
use serde_json::Value;

use crate::guard::{Guarded, LONG, SHORT, SOON};

/// A port that no matrix names.
const ROGUE: u16 = 59_999;

#[test]
fn of_each_system_enforce_what_their_matrix_says() -> Result<()> {
    let catalog = Catalog::embedded()?;
    let guarded = Guarded::new()?;
    let rogue = SocketAddr::new(guarded.link.left.v4().into(), ROGUE);
    let _rogue = TcpEcho::start(&guarded.link.left.host, rogue)?;
    let mut tried = BTreeSet::new();
    for system in catalog.systems.values() {
        let deployments: Vec<Option<&str>> = if system.deployments.is_empty() {
            vec![None]
        } else {
            system
                .deployments
                .keys()
                .map(|name| Some(name.as_str()))
                .collect()
        };
        for deployment in deployments {
            for role in system.host_roles() {
                let name = format!("{}/{}", system.id, role.id);
                enforce(&guarded, system, &name, deployment)
                    .with_context(|| format!("{name} in {deployment:?}"))?;
                tried.insert(name);
            }
        }
    }
    let all: usize = catalog
        .systems
        .values()
        .map(|system| system.host_roles().count())
        .sum();
    assert_eq!(tried.len(), all);
    Ok(())
}

/// What a site would say, in flags: the first of all choices, and anybody for whoever is not printed.
fn flags(system: &System, role: &str, deployment: Option<&str>) -> Vec<String> {
    let mut flags: Vec<String> = ["--role", role, "--unprinted-peers", "any"]
        .into_iter()
        .chain(["--unresolved-peers", "any", "--unresolved-ports", "none"])
        .chain(["--system-version", "99"])
        .map(str::to_owned)
        .collect();
    flags.extend(deployment.map(|name| format!("--deployment={name}")));
    for (choice, what) in &system.choices {
        let first = what.values.keys().next().cloned().unwrap_or_default();
        flags.push(format!("--choose={choice}={first}"));
    }
    flags
}

fn run(guarded: &Guarded, verb: &[&str], flags: &[String]) -> Result<(i32, String, String)> {
    let mut command = Guarded::command(verb);
    command.args(flags);
    let output = guarded.link.left.host.output(&mut command, LONG)?;
    let code = output.code();
    Ok((code, output.stdout, output.stderr))
}

fn enforce(guarded: &Guarded, system: &System, role: &str, deployment: Option<&str>) -> Result<()> {
    let flags = flags(system, role, deployment);
    let (_, matrix, said) = run(guarded, &["check", "--json", "--enforce"], &flags)?;
    let matrix: Value = serde_json::from_str(&matrix).with_context(|| said)?;
    let documented = matrix["inbound"].as_array().and_then(|entries| {
        entries.iter().find_map(|entry| {
            let rows = entry["rows"].as_array()?;
            let is_documented = rows.iter().any(|row| {
                row.as_str()
                    .is_some_and(|row| row.starts_with(&format!("{}/", system.id)))
            });
            let port = u16::try_from(entry["port_first"].as_u64()?).ok()?;
            let is_open = entry["sources"] == serde_json::json!(["any"]);
            (entry["transport"] == "tcp" && is_documented && is_open).then_some(port)
        })
    });
    let interface = guarded.interface();
    let verb = [
        "load",
        "--enforce",
        "--confirm-within",
        "0",
        "--interface",
        interface,
    ];
    let (code, _, said) = run(guarded, &verb, &flags)?;
    ensure!(code == 0, "not loaded:\n{said}");
    let host = &guarded.link.left.host;
    let address = guarded.link.left.v4();
    let answers = |port, wait: Duration| {
        let to = SocketAddr::new(address.into(), port);
        guarded
            .link
            .right
            .host
            .run(|| Ok(connect(to, wait).is_connected()))
    };
    if let Some(port) = documented {
        let _echo = TcpEcho::start(host, SocketAddr::new(address.into(), port))?;
        ensure!(
            answers(port, SOON)?,
            "documented tcp/{port} does not answer"
        );
    }
    ensure!(!answers(ROGUE, SHORT)?, "undocumented tcp/{ROGUE} answers");
    let (code, _, said) = run(guarded, &["unload", "--interface", interface], &[])?;
    ensure!(code == 0, "not unloaded:\n{said}");
    Ok(())
}

/// One site file for three hosts of a clustered ASI; each finds its own part by name.
const SITE: &str = r#"
schema = 1
mode = "enforce"
unresolved_peers = "none"
unprinted_peers = "any"
[management]
allow = ["tcp/22"]
[systems.interlink-asi]
deployment = "clustered"
[[host]]
name = "grid"
addresses = ["10.77.1.1", "10.77.2.1"]
roles = ["interlink-asi/legacy", "interlink-asi/datagrid"]
[[host]]
name = "legacy"
addresses = ["10.77.1.2", "10.77.3.1"]
roles = ["interlink-asi/legacy"]
[[host]]
name = "core"
addresses = ["10.77.2.2", "10.77.3.2"]
roles = ["interlink-asi/core"]
"#;

#[test]
fn of_one_inventory_talk_to_each_other_by_role() -> Result<()> {
    let lab = Lab::new()?;
    let names = ["grid", "legacy", "core"];
    let hosts: Vec<Host> = names
        .iter()
        .map(|name| lab.host(name))
        .collect::<Result<_>>()?;
    let [grid, legacy, core] = hosts.as_slice() else {
        unreachable!("three hosts were made")
    };
    let mut interfaces = vec![Vec::new(); hosts.len()];
    let mut links = Vec::new();
    for (net, (left, right)) in [(1, (0, 1)), (2, (0, 2)), (3, (1, 2))] {
        let end =
            |last: u8| End::new(&unique_name("ri")).address(&format!("10.77.{net}.{last}/24"));
        let link = lab.connect(&hosts[left], &end(1), &hosts[right], &end(2))?;
        interfaces[left].push(link.left.name.clone());
        interfaces[right].push(link.right.name.clone());
        links.push(link);
    }
    let site = std::env::temp_dir().join(format!("{}.toml", unique_name("rs")));
    std::fs::write(&site, SITE)?;
    let path = site.display().to_string();
    let all = |verb: &[&str]| -> Result<()> {
        for ((host, name), interfaces) in hosts.iter().zip(names).zip(&interfaces) {
            let mut command = Guarded::command(verb);
            for interface in interfaces {
                command.args(["--interface", interface]);
            }
            if verb.first() == Some(&"load") {
                command.args(["-c", &path, "--host", name]);
            }
            host.output(&mut command, LONG)?.success()?;
        }
        Ok(())
    };
    all(&["load", "--confirm-within", "0"])?;
    let mut echoes = Vec::new();
    for (host, address) in [
        (grid, "10.77.1.1"),
        (grid, "10.77.2.1"),
        (core, "10.77.2.2"),
    ] {
        for port in [5701, 47_100] {
            echoes.push(TcpEcho::start(
                host,
                SocketAddr::new(address.parse()?, port),
            )?);
        }
    }
    let tried = (|| {
        for (from, to, port, wanted) in [
            // The legacy cache is between legacy modules; the data grid is for all modules.
            (legacy, "10.77.1.1", 5701, true),
            (legacy, "10.77.1.1", 47_100, true),
            (core, "10.77.2.1", 47_100, true),
            (core, "10.77.2.1", 5701, false),
            (grid, "10.77.2.2", 47_100, false),
            (grid, "10.77.2.2", 5701, false),
        ] {
            let target = SocketAddr::new(to.parse()?, port);
            let wait = if wanted { SOON } else { SHORT };
            let is_open = from.run(|| Ok(connect(target, wait).is_connected()))?;
            ensure!(is_open == wanted, "{} to {target}: {is_open}", from.name());
        }
        Ok(())
    })();
    let unloaded = all(&["unload"]);
    std::fs::remove_file(&site)?;
    tried.and(unloaded)
}

/// A listener and who connects to it: system, its facts, both roles, port.
const FLOWS: [(&str, &str, &str, &str, u16); 5] = [
    (
        "interlink-asi",
        "deployment = \"clustered\"",
        "vault",
        "vault",
        58_092,
    ),
    (
        "wso2",
        "choices = { throttling-publisher = \"binary\" }",
        "api-manager",
        "api-manager",
        10_397,
    ),
    (
        "thoughtspot",
        "version = \"4.5.1.p2\"\nchoices = { directory-port = \"636\", mail-port = \"587\" }",
        "node",
        "node",
        443,
    ),
    (
        "nexthink",
        "deployment = \"on-premises\"\nversion = \"V6.24\"\n\
         choices = { collector-channel = \"443\", directory-channel = \"secure\", portal-access = \"secure\" }",
        "engine",
        "portal",
        443,
    ),
    ("ibm-api-connect", "", "gateway", "management", 3000),
];

/// A site of two clusters with two hosts of each role; the second server is there for its role only.
fn two_clusters((system, facts, server, client, _): (&str, &str, &str, &str, u16)) -> String {
    let host = |name: &str, addresses: &str, cluster: &str, role: &str| {
        format!(
            "[[host]]\nname = \"{name}\"\naddresses = [{addresses}]\ncluster = \"{cluster}\"\nroles = [\"{system}/{role}\"]\n"
        )
    };
    [
        "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"\nunresolved_peers = \"none\"\nunresolved_ports = \"none\"\n\
         unprinted_peers = { public-service = \"none\", administration = \"none\", infrastructure = \"none\", monitoring = \"none\" }\n\
         [management]\nallow = [\"tcp/22\"]\n",
        &format!("[systems.{system}]\n{facts}\n"),
        &host("server", "\"10.77.1.1\", \"10.77.2.1\"", "a", server),
        &host("friend", "\"10.77.1.2\"", "a", client),
        &host("stranger", "\"10.77.2.2\"", "b", client),
        &host("other", "\"10.77.9.9\"", "b", server),
    ]
    .concat()
}

/// That the matrix of a host has the addresses of its own cluster, and no others.
fn admits_its_own(host: &Host, name: &str, path: &str) -> Result<()> {
    let mut check = Guarded::command(&["check", "--json", "-c", path, "--host", name]);
    let matrix = host.output(&mut check, LONG)?.stdout;
    let own = match name {
        "server" => "10.77.1.2/32",
        "friend" => "10.77.1.1/32",
        _ => "10.77.9.9/32",
    };
    ensure!(
        matrix.contains(own),
        "{name} does not admit {own}: {matrix}"
    );
    let strangers = if name == "stranger" {
        "10.77.1."
    } else {
        "10.77.2.2"
    };
    ensure!(!matrix.contains(strangers), "{name} admits {strangers}");
    ensure!(
        !matrix.contains("10.77.9.9") || name == "stranger",
        "{name}"
    );
    Ok(())
}

#[test]
fn of_one_cluster_are_strangers_to_another() -> Result<()> {
    let lab = Lab::new()?;
    let names = ["server", "friend", "stranger"];
    let hosts: Vec<Host> = names
        .iter()
        .map(|name| lab.host(name))
        .collect::<Result<_>>()?;
    let [server, friend, stranger] = hosts.as_slice() else {
        unreachable!("three hosts were made")
    };
    let mut interfaces = vec![Vec::new(); hosts.len()];
    let mut links = Vec::new();
    for (net, right) in [(1, 1), (2, 2)] {
        let end =
            |last: u8| End::new(&unique_name("rc")).address(&format!("10.77.{net}.{last}/24"));
        let link = lab.connect(server, &end(1), &hosts[right], &end(2))?;
        interfaces[0].push(link.left.name.clone());
        interfaces[right].push(link.right.name.clone());
        links.push(link);
    }
    for flow in FLOWS {
        let site = std::env::temp_dir().join(format!("{}.toml", unique_name("rs")));
        std::fs::write(&site, two_clusters(flow))?;
        let path = site.display().to_string();
        let (system, .., port) = flow;
        let tried = (|| {
            // Without guards both reach it: what is closed later is closed by them.
            for (client, to) in [(friend, "10.77.1.1"), (stranger, "10.77.2.1")] {
                let target = SocketAddr::new(to.parse()?, port);
                let _echo = TcpEcho::start(server, target)?;
                let is_open = client.run(|| Ok(connect(target, SOON).is_connected()))?;
                ensure!(is_open, "{system}: no link from {}", client.name());
            }
            for ((host, name), interfaces) in hosts.iter().zip(names).zip(&interfaces) {
                admits_its_own(host, name, &path).context(system)?;
                let mut load = Guarded::command(&[
                    "load",
                    "-c",
                    &path,
                    "--host",
                    name,
                    "--confirm-within",
                    "0",
                ]);
                for interface in interfaces {
                    load.args(["--interface", interface]);
                }
                host.output(&mut load, LONG)?
                    .success()
                    .with_context(|| format!("{name} of {system}"))?;
            }
            for (peer, verdict) in [("10.77.1.2", "pass"), ("10.77.2.2", "drop")] {
                let number = port.to_string();
                let ask = [
                    "explain", "--json", "-c", &path, "--host", "server", "--in", "tcp", peer,
                    &number,
                ];
                let told = server.output(&mut Guarded::command(&ask), LONG)?.stdout;
                let told: Value = serde_json::from_str(&told)?;
                ensure!(told["verdict"] == verdict, "{system}: {peer} {told}");
            }
            // The stranger's own guard would keep it from asking.
            for interface in &interfaces[2] {
                let mut unload = Guarded::command(&["unload", "--interface", interface]);
                stranger.output(&mut unload, LONG)?.success()?;
            }
            for (client, to, wanted) in
                [(friend, "10.77.1.1", true), (stranger, "10.77.2.1", false)]
            {
                let target = SocketAddr::new(to.parse()?, port);
                let _echo = TcpEcho::start(server, target)?;
                let wait = if wanted { SOON } else { SHORT };
                let is_open = client.run(|| Ok(connect(target, wait).is_connected()))?;
                ensure!(
                    is_open == wanted,
                    "{system}: {} to {target}: {is_open}",
                    client.name()
                );
            }
            Ok(())
        })();
        for (host, interfaces) in hosts.iter().zip(&interfaces) {
            for interface in interfaces {
                let mut unload = Guarded::command(&["unload", "--interface", interface]);
                host.output(&mut unload, LONG)?;
            }
        }
        std::fs::remove_file(&site)?;
        tried?;
    }
    Ok(())
}

/// A matrix of the site's own, of which one row is off.
const OWN: &str = r#"
schema = 1
system = "acme"
name = "Acme"
document = "Acme: ports"
source = "acme.txt"
read = "2026-11-28"
customisable = false
[options]
debug = { title = "debugging" }
[roles.server]
name = "Server"
[[row]]
id = "debug"
role = "server"
direction = "in"
transport = "tcp"
ports = [7777]
peers = ["unprinted"]
class = "administration"
when = { option = ["debug"] }
purpose = "debugging"
cite = { section = "ports", row = "7777" }
"#;

#[test]
fn of_the_sites_own_catalog_and_of_profiles_are_known_to_whoever_explains_what_is_in_force()
-> Result<()> {
    let guarded = Guarded::new()?;
    let directory = std::env::temp_dir().join(unique_name("pgown"));
    std::fs::create_dir_all(directory.join("matrices"))?;
    std::fs::write(directory.join("matrices/acme.toml"), OWN)?;
    let site = directory.join("site.toml");
    std::fs::write(
        &site,
        format!(
            "schema = 1\nunprinted_peers = \"any\"\nunresolved_peers = \"any\"\ncatalogs = [\"matrices\"]\n[systems.kubernetes-node]\nchoices = {{ cni = \"flannel\" }}\n\
             [[host]]\nname = \"a\"\naddresses = [\"{}\"]\nroles = [\"acme/server\", \"kubernetes-node/worker\"]\n",
            guarded.link.left.v4()
        ),
    )?;
    let interface = guarded.interface();
    let path = site.display().to_string();
    let load = [
        "load",
        "--audit",
        "-c",
        &path,
        "--host",
        "a",
        "--interface",
        interface,
    ];
    let (code, _, said) = run(&guarded, &load, &[])?;
    ensure!(code == 0, "not loaded:\n{said}");
    let nearest = |port: &str| -> Result<String> {
        let explain = [
            "explain",
            "--running",
            interface,
            "--in",
            "tcp",
            "192.0.2.1",
            port,
            "--json",
        ];
        let (_, answer, said) = run(&guarded, &explain, &[])?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| said)?;
        Ok(answer["nearest"].to_string())
    };
    let tried = (|| {
        for (port, row) in [
            ("7777", "acme/debug"),
            ("179", "kubernetes-node/calico-bgp"),
        ] {
            let nearest = nearest(port)?;
            ensure!(nearest.contains(row), "tcp/{port}: {nearest}");
        }
        // What is in force does not depend on the directory; what is gone is said.
        std::fs::remove_dir_all(directory.join("matrices"))?;
        for verb in [
            vec![
                "explain",
                "--running",
                interface,
                "--in",
                "tcp",
                "192.0.2.1",
                "7777",
            ],
            vec!["drift", "--interface", interface],
            vec!["counters", "--by", "peer", "--interface", interface],
        ] {
            let (code, _, said) = run(&guarded, &verb, &[])?;
            ensure!(
                code <= 1 && said.contains("cannot be read now"),
                "{verb:?}: {code}\n{said}"
            );
        }
        Ok(())
    })();
    run(&guarded, &["unload", "--interface", interface], &[])?;
    std::fs::remove_dir_all(&directory)?;
    tried
}
