//! Every system as sites have it: two hosts of each role in each of two clusters, all with guards that enforce both directions. Over real
//! sockets, what opens between them is what `check --json` says of both ends, and no host of another cluster is among it.
//! The systems of many roles take minutes: `cargo xtask test --ignored opens_what_it_prints`.

mod network;
mod site;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{Datagrams, Listeners, connect_each};
use portguard_policy::catalog::{Catalog, System};
use serde_json::Value;

use self::network::{Network, at_once};
use self::site::{Matrix, Member, Site, Transport};
use crate::guard::{Guarded, LONG};

/// A connection that is to open has this long, on a busy machine.
const OPEN: Duration = Duration::from_secs(20);
/// What has not opened by then is closed: the kernel asks again after a second.
const QUIET: Duration = Duration::from_millis(250);
/// Ports that no document names.
const ROGUE: u16 = 59_999;
/// Connections that one host begins at once.
const BATCH: usize = 1_500;

/// One conversation, and whether both matrices have it.
struct Ask<'s> {
    to: &'s Member,
    address: IpAddr,
    port: u16,
    is_open: bool,
}

impl Ask<'_> {
    fn target(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

fn try_system(id: &str) -> Result<()> {
    let begun = Instant::now();
    let catalog = Catalog::embedded()?;
    let system = catalog.systems.get(id).context("no such system")?;
    let network = Network::new(Site::size(system))?;
    let deployments: Vec<Option<&str>> = match system.deployments.len() {
        0 => vec![None],
        _ => system
            .deployments
            .keys()
            .map(|name| Some(name.as_str()))
            .collect(),
    };
    for deployment in deployments {
        try_site(system, deployment, &network)
            .with_context(|| format!("{id} in {deployment:?}"))?;
    }
    println!("{id}: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn try_site(system: &System, deployment: Option<&str>, network: &Network) -> Result<()> {
    let mut site = Site::new(system, deployment, network)?;
    let path = site.path();
    let members = &site.members;
    let read = at_once(members.len(), |index| {
        let member = &members[index];
        if member.is_outside() {
            return Ok(Matrix::default());
        }
        let mut check = Guarded::command(&["check", "--json", "-c", &path, "--host", &member.name]);
        let output = member.host.output(&mut check, LONG)?;
        Matrix::read(&output.stdout).with_context(|| format!("{}: {output}", member.name))
    })?;
    site.settle(read);
    agree(&site)?;
    let members = &site.members;
    at_once(members.len(), |index| load(&members[index], &path))?;
    let tried = converse(&site).and_then(|()| explained(&site));
    let unloaded = at_once(members.len(), |index| unload(&members[index]));
    tried.and(unloaded.map(drop))
}

fn load(member: &Member, path: &str) -> Result<()> {
    if member.is_outside() {
        return Ok(());
    }
    let load = [
        "load",
        "-c",
        path,
        "--host",
        &member.name,
        "--interface",
        &member.interface,
        "--confirm-within",
        "0",
    ];
    let output = member.host.output(&mut Guarded::command(&load), LONG)?;
    output
        .success()
        .map(drop)
        .with_context(|| member.name.clone())
}

fn unload(member: &Member) -> Result<()> {
    let unload = ["unload", "--interface", &member.interface];
    member.host.output(&mut Guarded::command(&unload), LONG)?;
    Ok(())
}

/// What one host may send another may receive, and nothing of it crosses clusters.
fn agree(site: &Site) -> Result<()> {
    for (from, to) in site.pairs() {
        for &(transport, port) in &to.ports {
            let sent = from.matrix.sends(transport, port, to.address);
            let received = to.matrix.accepts(transport, port, from.address);
            let what = || format!("{} to {} {transport:?}/{port}", from.name, to.name);
            if from.cluster == to.cluster && !from.is_outside() && !to.is_outside() {
                ensure!(
                    sent == received,
                    "{}: sent {sent}, received {received}",
                    what()
                );
            } else if !from.is_outside() && !to.is_outside() {
                ensure!(
                    !sent && !received,
                    "{} is of another cluster: {sent}, {received}",
                    what()
                );
            }
        }
    }
    Ok(())
}

fn converse(site: &Site) -> Result<()> {
    let mut listening = Vec::new();
    for member in &site.members {
        let ports = |wanted| {
            let all = member.ports.iter();
            all.filter_map(move |(transport, port)| (*transport == wanted).then_some(*port))
        };
        for address in &member.addresses {
            let tcp = Listeners::start(&member.host, *address, ports(Transport::Tcp))?;
            let udp = Datagrams::start(&member.host, *address, ports(Transport::Udp))?;
            listening.push((*address, tcp, udp));
        }
    }
    let opened = Mutex::new(BTreeSet::new());
    let counts = [const { AtomicUsize::new(0) }; 2];
    at_once(site.members.len(), |index| {
        let from = &site.members[index];
        let asks = site.asks(from, Transport::Tcp);
        for batch in asks.chunks(BATCH) {
            let targets: Vec<_> = batch.iter().map(Ask::target).collect();
            let wanted: Vec<_> = batch.iter().map(|ask| ask.is_open).collect();
            let answered = from
                .host
                .run(|| connect_each(&targets, &wanted, OPEN, QUIET))?;
            for (ask, is_open) in batch.iter().zip(answered) {
                Site::judge(from, ask, Transport::Tcp, is_open, &opened)?;
                counts[usize::from(is_open)].fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })?;
    let mut datagrams = [0, 0];
    let udp: Vec<_> = listening
        .iter()
        .map(|(address, _, udp)| (*address, udp))
        .collect();
    for from in &site.members {
        let asks = site.asks(from, Transport::Udp);
        for (ask, is_open) in asks.iter().zip(network::exchange(from, &asks, &udp, OPEN)?) {
            Site::judge(from, ask, Transport::Udp, is_open, &opened)?;
            datagrams[usize::from(is_open)] += 1;
        }
    }
    let opened = opened.into_inner().unwrap_or_default();
    let listed: BTreeSet<_> = site
        .members
        .iter()
        .flat_map(|member| member.matrix.rows())
        .collect();
    let silent: Vec<_> = listed.difference(&opened).collect();
    ensure!(silent.is_empty(), "rows that opened nothing: {silent:?}");
    println!(
        "{} hosts, {} rows: {} of {} connections opened, {} of {} datagrams answered",
        site.members.len(),
        opened.len(),
        counts[1].load(Ordering::Relaxed),
        counts[0].load(Ordering::Relaxed) + counts[1].load(Ordering::Relaxed),
        datagrams[1],
        datagrams[0] + datagrams[1],
    );
    Ok(())
}

/// `explain` says of some conversations what the sockets found.
fn explained(site: &Site) -> Result<()> {
    let path = site.path();
    let guarded = site.members.iter().filter(|member| !member.is_outside());
    let some: Vec<&Member> = guarded.step_by(site.members.len() / 6 + 1).collect();
    at_once(some.len(), |index| {
        let to = some[index];
        let from = site.members.iter().filter(|from| from.name != to.name);
        let asked = from.flat_map(|from| {
            site.asks(from, Transport::Tcp)
                .into_iter()
                .map(move |ask| (from, ask))
        });
        let asked: Vec<_> = asked.filter(|(_, ask)| ask.to.name == to.name).collect();
        let open = asked.iter().find(|(_, ask)| ask.is_open);
        let closed = asked
            .iter()
            .find(|(from, ask)| !to.matrix.accepts(Transport::Tcp, ask.port, from.address));
        for (from, ask) in open.into_iter().chain(closed) {
            let (peer, port) = (from.address.to_string(), ask.port.to_string());
            let explain = [
                "explain", "--json", "-c", &path, "--host", &to.name, "--in", "tcp", &peer, &port,
            ];
            let output = to.host.output(&mut Guarded::command(&explain), LONG)?;
            let told: Value =
                serde_json::from_str(&output.stdout).with_context(|| output.stderr.clone())?;
            let wanted = if ask.is_open { "pass" } else { "drop" };
            ensure!(told["verdict"] == wanted, "{} from {peer}: {told}", to.name);
        }
        Ok(())
    })
    .map(drop)
}

#[test]
fn thoughtspot_opens_what_it_prints() -> Result<()> {
    try_system("thoughtspot")
}

#[test]
fn ibm_api_connect_opens_what_it_prints() -> Result<()> {
    try_system("ibm-api-connect")
}

#[test]
#[ignore = "a minute or more: `cargo xtask test --ignored opens_what_it_prints`"]
fn nexthink_opens_what_it_prints() -> Result<()> {
    try_system("nexthink")
}

#[test]
#[ignore = "a minute or more: `cargo xtask test --ignored opens_what_it_prints`"]
fn interlink_asi_opens_what_it_prints() -> Result<()> {
    try_system("interlink-asi")
}

#[test]
#[ignore = "a minute or more: `cargo xtask test --ignored opens_what_it_prints`"]
fn wso2_opens_what_it_prints() -> Result<()> {
    try_system("wso2")
}
