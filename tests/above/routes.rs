//! What routes of any table keep for the host is judged, whatever leads there: rules go by more than a guard can ask for.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{PATIENCE, TAKEN, World};
use crate::guard::{LONG, SOON};
use crate::topology::ip;

/// Rules that lead a stranger's datagram to such a route, and which of the two families they do it for.
const LED: [(&str, &str, &[&str]); 7] = [
    (
        "by protocol",
        "rule add ipproto udp lookup 100 pref 10
         -6 rule add ipproto udp lookup 100 pref 10",
        &TAKEN,
    ),
    (
        "away by protocol",
        "rule add not ipproto udp lookup main pref 10
         rule add lookup 100 pref 20
         -6 rule add not ipproto udp lookup main pref 10
         -6 rule add lookup 100 pref 20",
        &TAKEN,
    ),
    (
        "by a mark that the packet filter sets",
        "rule add not fwmark 0/0xff lookup 100 pref 10
         -6 rule add not fwmark 0/0xff lookup 100 pref 10",
        &TAKEN,
    ),
    (
        "by a suppressor",
        "-6 rule add lookup main suppress_prefixlength 0 pref 10
         -6 rule add lookup 100 pref 20",
        &[TAKEN[1]],
    ),
    (
        "to other kinds of routes",
        "route add broadcast 10.60.1.1 dev lo table 101
         rule add ipproto udp lookup 101 pref 10",
        &[TAKEN[0]],
    ),
    (
        "before the kernel's own table",
        "route add local 10.60.0.0/16 dev lo table local
         -6 route add local fd60::/32 dev lo table local
         route add default via 10.90.0.9 table 200
         -6 route add default via fd90::9 table 200
         rule add lookup local pref 100
         rule del pref 0
         rule add not ipproto udp lookup 200 pref 10
         -6 rule add lookup local pref 100
         -6 rule del pref 0
         -6 rule add not ipproto udp lookup 200 pref 10",
        &TAKEN,
    ),
    (
        "by a port, past other rules",
        "rule add ipproto udp dport 9990-9999 goto 30 pref 10
         rule add lookup main pref 20
         rule add lookup 100 pref 30
         -6 rule add ipproto udp dport 9990-9999 goto 30 pref 10
         -6 rule add lookup main pref 20
         -6 rule add lookup 100 pref 30",
        &TAKEN,
    ),
];

const MARK: [&str; 3] = [
    "add table inet t",
    "add chain inet t p { type filter hook prerouting priority -150; }",
    "add rule inet t p meta mark set 5",
];

#[test]
fn what_any_route_keeps_for_the_host_is_judged_whatever_leads_there() -> Result<()> {
    for (how, rules, least) in LED {
        let world = World::new("")?;
        let host = world.host();
        ip(
            host,
            world.guarded.interface(),
            "link set IF address 02:00:00:00:00:aa
             addr add 10.77.0.7/24 dev IF
             -6 addr add fd77::7/64 dev IF nodad",
        )?;
        // Whoever leads all but some packets away leads away what neighbours ask, too.
        ip(
            world.stranger(),
            &world.guarded.link.right.name,
            "neigh replace 10.77.0.7 lladdr 02:00:00:00:00:aa dev IF nud permanent
             neigh replace fd77::7 lladdr 02:00:00:00:00:aa dev IF nud permanent",
        )?;
        if how.contains("mark") {
            for line in MARK {
                host.output(Command::new("nft").arg(line), LONG)?
                    .success()?;
            }
        }
        ip(host, "", rules)?;
        // What is refused is asked for all the same.
        let mut load = world.load_command();
        load.arg("--force");
        let said = host.output(&mut load, LONG)?.success()?;
        let kept = "routes that the kernel does not ask first";
        ensure!(said.stderr.contains(kept), "{how}: {said}");
        world.is_held().with_context(|| how.to_owned())?;
        world.guarded.unload()?.success()?;
        let reached = world.reached(SOON)?;
        ensure!(
            least.iter().all(|address| reached.contains(address)),
            "{how}: without a guard only {reached:?}"
        );
    }
    Ok(())
}

/// A route may put packets into a tunnel of its own: of such, the kernel tells no neighbour.
#[test]
fn what_a_route_encloses_goes_on() -> Result<()> {
    let world = World::new("")?;
    ip(
        world.host(),
        world.guarded.interface(),
        "addr add 10.77.0.7/24 dev IF
         -6 addr add fd77::7/64 dev IF nodad
         route replace default encap ip id 7 dst 10.90.0.9 dev out0
         -6 route replace default encap seg6 mode encap segs fd90::9 dev out0",
    )?;
    world.load()?;
    world.is_held()
}

/// Or take out of one what is for the host after all.
#[test]
fn what_a_route_unpacks_is_judged() -> Result<()> {
    for action in ["End.DT6 table 254", "End.DX6 nh6 ::", "End"] {
        let world = World::new("")?;
        let route = format!(
            "addr add 10.77.0.7/24 dev IF
             -6 addr add fd77::7/64 dev IF nodad
             -6 route add fd60::/32 encap seg6local action {action} dev IF table 255"
        );
        ip(world.host(), world.guarded.interface(), &route)?;
        let said = world.load()?;
        ensure!(said.contains("fd60::/32"), "{action}: {said}");
        world.is_held()?;
        let before = world.transit()?;
        world.send(TAKEN[1], "::")?;
        ensure!(world.transit()? == before, "{action} is passed as transit");
    }
    Ok(())
}

/// What comes later is said, and judged from the next load on.
#[test]
fn a_route_that_comes_later_is_said() -> Result<()> {
    let world = World::new("")?;
    let host = world.host();
    world.load()?;
    ip(
        host,
        "",
        "-6 route add local fd70::/32 dev lo table 102
         route add local 10.70.0.0/16 dev lo table 102",
    )?;
    let status = || -> Result<String> {
        let status = world.guarded.run(&["status".to_owned()], None)?;
        let words: Vec<_> = status
            .success()?
            .stdout
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        Ok(words.join(" "))
    };
    let said = status()?;
    for prefix in ["10.70.0.0/16", "fd70::/32"] {
        let words = format!("a route keeps {prefix} for this host since the load");
        ensure!(said.contains(&words), "{said}");
    }
    world.load()?;
    let said = status()?;
    ensure!(!said.contains("since the load"), "{said}");
    ensure!(world.reached(PATIENCE)?.is_empty());
    Ok(())
}
