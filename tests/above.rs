//! A guard that passes what is for others, below interfaces for which the kernel has other routes: what those take for the
//! host itself is judged, at every moment.

mod link_addresses;
mod routes;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Lab};
use portguard_harness::traffic::{receive_datagram, udp_socket};
use serde_json::Value;

use crate::guard::{Guarded, LONG, SOON};
use crate::living::town::{SCOPED, Site};
use crate::topology::ip;

/// What no row opens.
const CLOSED: u16 = 9_999;
/// Addresses that only the table behind the rule has for the host's own.
const TAKEN: [&str; 2] = ["10.60.1.1", "fd60::1"];
/// Addresses that every table forwards.
const OTHERS: [&str; 2] = ["10.99.1.1", "fd99::1"];
/// How long a datagram is waited for that must not come.
const PATIENCE: Duration = Duration::from_millis(200);

/// Interfaces above the guarded one, of which the last gets its packets: each with the commands that make it.
const ABOVE: [(&str, &str); 4] = [
    (
        "a bridge",
        "link add up0 type bridge
         link set IF master up0",
    ),
    ("a macvlan", "link add up0 link IF type macvlan mode bridge"),
    (
        "a macvlan on a bridge",
        "link add br0 type bridge
         link set IF master br0
         link set br0 up
         link add up0 link br0 type macvlan mode bridge",
    ),
    (
        "a bridge of a macvlan",
        "link add mv0 link IF type macvlan mode passthru
         link set mv0 up
         link add up0 type bridge
         link set mv0 master up0",
    ),
];

/// The interface above has addresses, and the one below none.
const ADDRESSES: &str = "\
    addr flush dev IF
    link set up0 up
    addr add 10.77.0.7/24 dev up0
    -6 addr add fd77::7/64 dev up0 nodad";

const RULES: &str = "\
    rule add iif up0 lookup 100 pref 10
    -6 rule add iif up0 lookup 100 pref 10";

/// When an interface and its rule come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    First,
    RuleLater,
    Later,
}

struct World {
    guarded: Guarded,
    site: Site,
    above: &'static str,
}

impl World {
    fn new(above: &'static str) -> Result<Self> {
        let world = Self {
            guarded: Guarded::new()?,
            site: Site::of(&SCOPED.replace("MODE", "enforce"))?,
            above,
        };
        let host = world.host();
        host.sysctl("net/ipv4/ip_forward", "1")?;
        host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // The interface itself answers for its own addresses.
        host.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
        for key in ["all", "default"] {
            host.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "0")?;
        }
        ip(
            host,
            "",
            "link add out0 type veth peer name out1
             link set out0 up
             link set out1 up
             addr add 10.90.0.1/24 dev out0
             -6 addr add fd90::1/64 dev out0 nodad
             route add default via 10.90.0.9
             -6 route add default via fd90::9
             route add local 10.60.0.0/16 dev lo table 100
             -6 route add local fd60::/32 dev lo table 100",
        )?;
        ip(
            world.stranger(),
            "",
            "route add default via 10.77.0.7
             -6 route add default via fd77::7",
        )?;
        Ok(world)
    }

    fn host(&self) -> &Host {
        &self.guarded.link.left.host
    }

    fn stranger(&self) -> &Host {
        &self.guarded.link.right.host
    }

    fn comes(&self) -> Result<()> {
        let interface = self.guarded.interface();
        ip(self.host(), interface, self.above)?;
        ip(self.host(), interface, ADDRESSES)
    }

    fn rules(&self) -> Result<()> {
        ip(self.host(), "", RULES)
    }

    fn load(&self) -> Result<String> {
        let output = self.host().output(&mut self.load_command(), LONG)?;
        Ok(output.success()?.stderr)
    }

    fn load_command(&self) -> Command {
        let site = self.site.file();
        let interface = self.guarded.interface();
        let args = [
            "load",
            "-c",
            &site,
            "--host",
            "house",
            "--interface",
            interface,
            "--confirm-within",
            "0",
        ];
        Guarded::command(&args)
    }

    /// Which of the addresses that are the host's own by the rule a stranger reaches the host by.
    fn reached(&self, patience: Duration) -> Result<Vec<&'static str>> {
        let mut reached = Vec::new();
        for (address, any) in TAKEN.into_iter().zip(["0.0.0.0", "::"]) {
            let socket = self
                .host()
                .run(|| udp_socket(SocketAddr::new(any.parse()?, CLOSED)))?;
            self.send(address, any)?;
            if receive_datagram(&socket, Instant::now() + patience)?.is_some() {
                reached.push(address);
            }
        }
        Ok(reached)
    }

    fn send(&self, address: &str, any: &str) -> Result<()> {
        self.stranger().run(|| {
            let socket = udp_socket(SocketAddr::new(any.parse()?, 0))?;
            socket.send_to(b"let me in", SocketAddr::new(address.parse()?, CLOSED))?;
            Ok(())
        })
    }

    /// Packets that were passed since they are for others.
    fn transit(&self) -> Result<u64> {
        let output = self
            .guarded
            .run(&["counters".to_owned(), "--json".to_owned()], None)?;
        let counters: Value = serde_json::from_str(&output.success()?.stdout)?;
        let reasons = counters["interfaces"][0]["reasons"]
            .as_array()
            .context("reasons")?
            .iter();
        let passed = reasons.filter(|line| line["reason"] == "transit");
        Ok(passed.filter_map(|line| line["packets"].as_u64()).sum())
    }

    /// A stranger comes in nowhere, and what is for others goes on.
    fn is_held(&self) -> Result<()> {
        let reached = self.reached(PATIENCE)?;
        ensure!(reached.is_empty(), "{reached:?} are reached");
        let before = self.transit()?;
        for (address, any) in OTHERS.into_iter().zip(["0.0.0.0", "::"]) {
            self.send(address, any)?;
        }
        let passed = self.transit()? - before;
        ensure!(passed == 2, "{passed} of 2 packets for others passed");
        Ok(())
    }
}

fn held(comes: Comes, (what, above): (&str, &'static str)) -> Result<()> {
    let context = || format!("{what}, {comes:?}");
    let world = World::new(above)?;
    match comes {
        Comes::First => {
            world.comes()?;
            world.rules()?;
            let said = world.load()?;
            ensure!(said.contains("`up0` may have routes of its own"), "{said}");
        }
        Comes::RuleLater => {
            world.comes()?;
            world.load()?;
            world.rules()?;
        }
        Comes::Later => {
            world.load()?;
            world.comes()?;
            world.rules()?;
        }
    }
    world.is_held().with_context(context)?;
    let status = world.guarded.run(&["status".to_owned()], None)?.success()?;
    ensure!(
        status.stdout.contains("`up0` may have routes of its own"),
        "{status}"
    );
    // Without a guard they are reached: else nothing would be shown.
    world.guarded.unload()?.success()?;
    let reached = world.reached(SOON)?;
    ensure!(reached == TAKEN, "{}: only {reached:?}", context());
    Ok(())
}

#[test]
fn what_an_interface_above_takes_for_the_host_is_judged_from_the_load_on() -> Result<()> {
    ABOVE
        .into_iter()
        .try_for_each(|above| held(Comes::First, above))
}

#[test]
fn it_is_judged_where_the_rule_comes_later() -> Result<()> {
    ABOVE
        .into_iter()
        .try_for_each(|above| held(Comes::RuleLater, above))
}

#[test]
fn it_is_judged_where_the_interface_comes_later_and_no_process_sees_it() -> Result<()> {
    ABOVE
        .into_iter()
        .try_for_each(|above| held(Comes::Later, above))
}

#[test]
fn where_the_kernel_does_not_tell_programs_the_load_is_refused() -> Result<()> {
    let world = World::new(ABOVE[0].1)?;
    world.comes()?;
    let load = || {
        let mut command = world.load_command();
        command.env("PORTGUARD_PRETEND", "no-btf");
        world.host().output(&mut command, LONG)
    };
    load()?.success()?;
    world.rules()?;
    let refused = load()?;
    ensure!(refused.code() == 2, "{refused}");
    ensure!(refused.stderr.contains("`up0`"), "{refused}");
    Ok(())
}

/// A bridge to virtual machines on a host that routes nothing: only the port is said to forward, so that the guard can ask.
#[test]
fn below_a_bridge_that_forwards_nothing_its_own_is_judged_and_the_rest_goes_on() -> Result<()> {
    let world = World::new(ABOVE[0].1)?;
    world.comes()?;
    let machine = Lab::new()?.host("machine")?;
    let outer = End::new("vm0");
    let inner = End::new("eth0")
        .address("10.77.0.50/24")
        .address("fd77::50/64");
    Lab::new()?.connect(world.host(), &outer, &machine, &inner)?;
    ip(world.host(), "", "link set vm0 master up0")?;
    for family in ["ipv4", "ipv6"] {
        world
            .host()
            .sysctl(&format!("net/{family}/conf/up0/forwarding"), "0")?;
    }
    let goes_on = |when: &str| -> Result<()> {
        for (address, any) in [("10.77.0.50", "0.0.0.0"), ("fd77::50", "::")] {
            let socket = machine.run(|| udp_socket(SocketAddr::new(any.parse()?, CLOSED)))?;
            world.send(address, any)?;
            let heard = receive_datagram(&socket, Instant::now() + SOON)?;
            ensure!(heard.is_some(), "{when}: nothing reaches {address}");
        }
        Ok(())
    };
    world.load()?;
    goes_on("at first")?;
    for rules in [
        RULES,
        "rule add not iif IF lookup 100 pref 10
         -6 rule add not iif IF lookup 100 pref 10",
    ] {
        ip(world.host(), world.guarded.interface(), rules)?;
        let reached = world.reached(PATIENCE)?;
        ensure!(reached.is_empty(), "{rules}: {reached:?} are reached");
        goes_on(rules)?;
        world.load()?;
        let reached = world.reached(PATIENCE)?;
        ensure!(reached.is_empty(), "{rules}: {reached:?} are reached");
        goes_on(rules)?;
        ip(world.host(), "", "rule del pref 10\n-6 rule del pref 10")?;
    }
    Ok(())
}

/// Interfaces that say by themselves that they forward nothing, and that come to a host of which two cards forward.
#[test]
fn what_comes_above_and_forwards_nothing_cuts_nobody() -> Result<()> {
    let world = World::new("")?;
    let interface = world.guarded.interface();
    ip(
        world.host(),
        interface,
        "addr add 10.77.0.7/24 dev IF
         -6 addr add fd77::7/64 dev IF nodad",
    )?;
    for family in ["ipv4", "ipv6"] {
        for kind in ["all", "default"] {
            let key = format!("net/{family}/conf/{kind}/forwarding");
            world.host().sysctl(&key, "0")?;
        }
        for card in [interface, "out0"] {
            let key = format!("net/{family}/conf/{card}/forwarding");
            world.host().sysctl(&key, "1")?;
        }
    }
    // What of IPv6 is for others passes only where all of the host forwards.
    world.host().sysctl("net/ipv6/conf/all/forwarding", "1")?;
    world.load()?;
    world.is_held()?;
    for kind in [
        "link IF type macvlan mode bridge",
        "link IF type macvtap mode bridge",
        "type vxlan id 7 dstport 4789 dev IF",
    ] {
        let add = format!("link add new0 {kind}");
        // Not in every kernel.
        if ip(world.host(), interface, &add).is_err() {
            continue;
        }
        ip(world.host(), "", "link set new0 up")?;
        for family in ["ipv4", "ipv6"] {
            let key = format!("net/{family}/conf/new0/forwarding");
            world.host().sysctl(&key, "0")?;
        }
        world.is_held().with_context(|| kind.to_owned())?;
        world.load()?;
        world.is_held().with_context(|| format!("{kind}, loaded"))?;
        ip(world.host(), "", "link del new0")?;
    }
    Ok(())
}
