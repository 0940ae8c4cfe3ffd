//! A guard that passes what is for others, on a host where some of that comes to its own sockets all the same.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use portguard_harness::net::Output;

use crate::guard::{Guarded, LONG};
use crate::living::town::{SCOPED, Site};

/// Commands that make a packet for somebody else one for this host.
const DIVERTED: [(&str, &str); 34] = [
    (
        "a transparent proxy",
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr 10.50.0.0/16 tcp dport 80 redirect to :9999",
    ),
    (
        "a redirect of all",
        "nft add table inet t; nft add chain inet t c {type nat hook prerouting priority -100;}; nft add rule inet t c udp dport 5353 redirect to :9999",
    ),
    (
        "an address that is rewritten",
        "nft add table ip t; nft add chain ip t c {type filter hook prerouting priority -300;}; nft add rule ip t c ip daddr 10.50.0.1 ip daddr set 10.77.0.1",
    ),
    (
        "an address that is rewritten, IPv6",
        "nft add table ip6 t; nft add chain ip6 t c {type filter hook prerouting priority -300;}; nft add rule ip6 t c ip6 daddr fd50::1 ip6 daddr set fd77::1",
    ),
    (
        "an address that is rewritten behind a jump",
        "nft add table ip t; nft add chain ip t d; nft add chain ip t c {type filter hook prerouting priority -300;}; nft add rule ip t d ip daddr set 10.77.0.1; nft add rule ip t c udp dport 53 jump d",
    ),
    (
        "an address that is rewritten on ingress",
        "nft add table netdev t; nft add chain netdev t c {type filter hook ingress device IF priority 0;}; nft add rule netdev t c ip daddr 10.50.0.1 ip daddr set 10.77.0.1",
    ),
    (
        "raw octets that are rewritten",
        "nft add table ip t; nft add chain ip t c {type filter hook prerouting priority -300;}; nft add rule ip t c @nh,128,32 set 0x0a4d0001",
    ),
    (
        "what is not for this host, the rest goes back",
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c fib daddr type local return; nft add rule ip t c meta l4proto udp redirect to :9999",
    ),
    (
        "what is not for this host, by its kind",
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c fib daddr type != local udp dport 9999 redirect",
    ),
    (
        "what is not for this host, by a map",
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add chain ip t d; nft add rule ip t d meta l4proto udp redirect to :9999; nft add rule ip t c fib daddr type vmap { local : accept, unicast : jump d }",
    ),
    (
        "what is not for its addresses",
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr { 10.77.0.1, 127.0.0.0/8 } return; nft add rule ip t c meta l4proto udp redirect to :9999",
    ),
    (
        "an address that is rewritten unless it is this host's",
        "nft add table ip t; nft add chain ip t c {type filter hook prerouting priority -300;}; nft add rule ip t c fib daddr type != local ip daddr set 10.77.0.1",
    ),
    (
        "what is not for this host, iptables",
        "iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j RETURN; iptables-nft -t nat -A PREROUTING -p udp -j REDIRECT --to-ports 9999",
    ),
    (
        "what is not for this host, iptables of old",
        "iptables-legacy -t nat -A PREROUTING -p udp -m addrtype ! --dst-type LOCAL -j REDIRECT --to-ports 9999",
    ),
    (
        "a range that has an address of this host",
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr 10.50.0.0/16 dnat to 10.77.0.1-10.77.0.3",
    ),
    (
        "an address that a route keeps",
        "ip route add local 10.97.0.0/24 dev lo; nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr 10.50.0.0/16 dnat to 10.97.0.7",
    ),
    (
        "a broadcast",
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr 10.50.0.0/16 dnat to 10.77.0.255",
    ),
    (
        "a group",
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr 10.50.0.0/16 dnat to 224.0.0.1",
    ),
    (
        "an address that a bridge rewrites in what it takes",
        "nft add table bridge t; nft add chain bridge t c {type filter hook input priority -200;}; nft add rule bridge t c ip daddr 10.50.0.1 ip daddr set 10.77.0.1",
    ),
    (
        "a program behind a queue",
        "iptables-nft -t mangle -A PREROUTING -p udp -j NFQUEUE --queue-num 5",
    ),
    (
        "frames that are sent on",
        "ip link add d0 type veth peer name d1; nft add table netdev t; nft add chain netdev t c {type filter hook ingress device IF priority 0;}; nft add rule netdev t c fwd to d0",
    ),
    (
        "frames that are sent twice",
        "ip link add d0 type veth peer name d1; nft add table netdev t; nft add chain netdev t c {type filter hook ingress device IF priority 0;}; nft add rule netdev t c dup to d0",
    ),
    (
        "packets that are sent twice",
        "nft add table ip t; nft add chain ip t c {type filter hook prerouting priority -300;}; nft add rule ip t c dup to 10.77.0.1",
    ),
    (
        "a filter that sends on, behind another",
        "ip link add d0 type veth peer name d1; tc qdisc add dev IF clsact; tc filter add dev IF ingress protocol ip prio 1 u32 match ip dst 10.50.0.2/32 flowid 1:1; tc filter add dev IF ingress protocol ip prio 2 u32 match ip dst 10.50.0.1/32 action mirred ingress redirect dev d0",
    ),
    (
        "a filter that sends on, in a chain of its own",
        "ip link add d0 type veth peer name d1; tc qdisc add dev IF ingress; tc filter add dev IF parent ffff: chain 7 protocol all u32 match u32 0 0 action mirred egress mirror dev d0",
    ),
    (
        "a filter that sends on, above",
        "ip link add v0 link IF type macvlan; tc qdisc add dev v0 clsact; tc filter add dev v0 ingress protocol ip u32 match ip dst 10.50.0.1/32 action mirred ingress redirect dev IF",
    ),
    (
        "a mark",
        "ip route add local default dev lo table 100; ip rule add fwmark 1 lookup 100",
    ),
    (
        "a port",
        "ip route add local 10.50.0.0/16 dev lo table 100; ip rule add ipproto udp dport 9999 lookup 100",
    ),
    (
        "a mark that leads away from it",
        "ip route add local 10.50.0.0/16 dev lo table 100; ip route add default via 10.77.0.2 table 200; ip rule add not fwmark 5 lookup 200 pref 10; ip rule add lookup 100 pref 20",
    ),
    (
        "a protocol that leads away from it",
        "ip route add local 10.50.0.0/16 dev lo table 100; ip rule add not ipproto udp lookup main pref 10; ip rule add lookup 100 pref 20",
    ),
    (
        "a suppressor, IPv6",
        "ip -6 route add local fd60::/32 dev lo table 100; ip -6 rule add lookup main suppress_prefixlength 0 pref 10; ip -6 rule add lookup 100 pref 20",
    ),
    (
        "a jump",
        "ip route add local 10.50.0.0/16 dev lo table 100; ip rule add lookup 100 pref 50; ip rule add lookup main pref 20; ip rule add ipproto udp dport 9990-9999 goto 50 pref 10",
    ),
    (
        "a class",
        "ip route add local 10.50.0.0/16 dev lo table 100; ip rule add tos 0x10 lookup 100",
    ),
    (
        "a mark, IPv6",
        "ip -6 route add local default dev lo table 100; ip -6 rule add fwmark 1 lookup 100",
    ),
];

/// Commands that do not.
const STRAIGHT: [&str; 7] = [
    "nft add table ip t; nft add chain ip t c {type filter hook prerouting priority -300;}; nft add rule ip t c ip dscp set cs1 meta mark set 7 counter accept",
    "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c fib daddr type local udp dport 5353 redirect to :9999; nft add rule ip t c ip daddr 10.77.0.1 tcp dport 80 redirect to :9999",
    "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr 10.50.0.0/16 dnat to 10.60.0.1-10.60.0.9",
    "iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; iptables-nft -t nat -A DOCKER -p udp --dport 5353 -j REDIRECT --to-ports 9999",
    "ip route add default via 10.77.0.2 table 99; ip rule add not fwmark 51820 lookup 99",
    "ip route add local 10.50.0.0/16 dev lo table 100; ip rule add from 10.60.0.0/16 lookup 100",
    "ip link add d0 type veth peer name d1; tc qdisc add dev IF clsact; tc filter add dev IF ingress protocol ip u32 match ip dst 10.50.0.1/32 flowid 1:1; tc filter add dev IF egress protocol ip prio 3 u32 match ip dst 10.50.0.1/32 action mirred egress redirect dev d0",
];

struct Host {
    guarded: Guarded,
    site: Site,
}

impl Host {
    fn new(commands: &str) -> Result<Self> {
        let host = Self {
            guarded: Guarded::new()?,
            site: Site::of(&SCOPED.replace("MODE", "audit"))?,
        };
        host.divert(commands)?;
        Ok(host)
    }

    fn divert(&self, commands: &str) -> Result<()> {
        let commands = commands.replace("IF", self.guarded.interface());
        for line in commands.split("; ").filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            let output = self.guarded.link.left.host.output(&mut command, LONG)?;
            output.success()?;
        }
        Ok(())
    }

    fn load(&self, more: &[&str]) -> Result<Output> {
        self.load_by(None, more)
    }

    /// By the tools in a folder alone.
    fn load_by(&self, tools: Option<&Path>, more: &[&str]) -> Result<Output> {
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
        ];
        let args: Vec<&str> = args.iter().chain(more).copied().collect();
        self.run(tools, &args)
    }

    fn run(&self, tools: Option<&Path>, args: &[&str]) -> Result<Output> {
        let mut command = Guarded::command(args);
        if let Some(tools) = tools {
            command.env("PATH", tools);
        }
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    fn status(&self) -> Result<String> {
        let output = self.guarded.run(&["status".to_owned()], None)?;
        Ok(output.success()?.stdout)
    }
}

#[test]
fn what_diverts_packets_for_others_is_refused_in_enforce_and_said_in_audit() -> Result<()> {
    for (what, commands) in DIVERTED {
        let host = Host::new(commands)?;
        let output = host.load(&["--enforce"])?;
        ensure!(output.code() == 2, "{what}: {output}");
        ensure!(
            output.stderr.contains("scope = \"all\""),
            "{what}: {output}"
        );
        let output = host.load(&["--audit"])?.success()?;
        ensure!(
            output.stderr.contains("scope = \"all\""),
            "{what}: {output}"
        );
        let status = host.status()?;
        ensure!(status.contains("are not judged"), "{what}: {status}");
        ensure!(
            status.contains("scope       host-addresses"),
            "{what}: {status}"
        );
        // All views have it, so the agent's metrics and `/healthz` as well.
        let counters = ["counters", "--json"].map(str::to_owned);
        let counters = host.guarded.run(&counters, None)?.success()?.stdout;
        ensure!(counters.contains("are not judged"), "{what}: {counters}");
    }
    Ok(())
}

/// What diverts may come while another policy is in force: going back asks, too.
#[test]
fn going_back_to_a_scope_that_is_escaped_is_refused() -> Result<()> {
    let host = Host::new("")?;
    host.load(&["--enforce", "--confirm-within", "0"])?
        .success()?;
    let other = [
        "--enforce",
        "--confirm-within",
        "0",
        "--management",
        "udp/7000",
    ];
    host.load(&other)?.success()?;
    let (_, rule) = DIVERTED[1];
    host.divert(rule)?;
    let back = |more: &[&str]| {
        let mut args = vec!["rollback", "--interface", host.guarded.interface()];
        args.extend(more);
        let host = &host.guarded.link.left.host;
        host.output(&mut Guarded::command(&args), LONG)
    };
    let refused = back(&[])?;
    ensure!(refused.code() == 2, "{refused}");
    ensure!(refused.stderr.contains("scope = \"all\""), "{refused}");
    back(&["--force"])?.success()?;
    Ok(())
}

#[test]
fn what_diverts_nothing_is_no_obstacle() -> Result<()> {
    for commands in STRAIGHT {
        let host = Host::new(commands)?;
        host.load(&["--enforce"])?.success()?;
        let status = host.status()?;
        ensure!(!status.contains("are not judged"), "{commands}: {status}");
    }
    Ok(())
}

/// Connection tracking goes on with what a rule began that is gone.
#[test]
fn a_conversation_that_is_still_translated_is_named() -> Result<()> {
    let host = Host::new(
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr 10.50.0.0/16 udp dport 9999 redirect",
    )?;
    let mut route = Command::new("ip");
    route.args(["route", "add", "10.50.0.0/16", "via", "10.77.0.1"]);
    let peer = &host.guarded.link.right.host;
    peer.output(&mut route, LONG)?.success()?;
    let heard = host.guarded.link.left.host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:9999")?;
        socket.set_read_timeout(Some(LONG))?;
        Ok(socket)
    })?;
    peer.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        Ok(socket.send_to(b"x", "10.50.0.1:9999")?)
    })?;
    heard.recv(&mut [0; 8])?;
    host.divert("nft flush chain ip t c")?;
    let output = host.load(&["--enforce"])?;
    ensure!(output.code() == 2, "{output}");
    ensure!(
        output.stderr.contains("conntrack -D -d 10.50.0.1"),
        "{output}"
    );
    Ok(())
}

/// Where no tool tells the rules, the kernel says that there are some: nobody knows then what they do.
#[test]
fn rules_that_no_tool_tells_are_no_missing_rules() -> Result<()> {
    let none = tempfile::tempdir()?;
    let broken = tempfile::tempdir()?;
    let nft = broken.path().join("nft");
    fs::write(&nft, "#!/bin/sh\necho 'Error: no JSON here' >&2\nexit 1\n")?;
    fs::set_permissions(&nft, Permissions::from_mode(0o755))?;
    let redirects = [
        (
            "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add rule ip t c ip daddr 10.96.0.1 udp dport 443 dnat to 10.77.0.1:9999",
            "nft ip t c",
        ),
        (
            "iptables-legacy -t nat -A PREROUTING -d 10.96.0.1 -p udp -j DNAT --to-destination 10.77.0.1:9999",
            "iptables ip nat",
        ),
    ];
    for (commands, place) in redirects {
        for tools in [none.path(), broken.path()] {
            let host = Host::new(commands)?;
            let output = host.load_by(Some(tools), &["--enforce"])?;
            ensure!(
                output.code() == 2 && output.stderr.contains(place),
                "{output}"
            );
            let output = host.load_by(Some(tools), &["--audit"])?.success()?;
            ensure!(output.stderr.contains(place), "{output}");
            let status = host.run(Some(tools), &["status"])?.success()?;
            ensure!(status.stdout.contains(place), "{status}");
        }
    }
    // Chains that nobody could be sent on by are no rules.
    let host = Host::new(
        "nft add table ip t; nft add chain ip t c {type nat hook prerouting priority -100;}; nft add chain ip t i {type filter hook input priority 0;}; nft add rule ip t i accept",
    )?;
    host.load_by(Some(none.path()), &["--enforce"])?.success()?;
    Ok(())
}

/// Commands after which packets pass through that no route tells of, and what tells of them.
const THROUGH: [(&str, &[&str]); 2] = [
    (
        "ip link add br0 type bridge; ip link set IF master br0; ip link add v0 type veth peer name v1; ip link set v0 master br0",
        &[
            "net.ipv4.conf.IF.forwarding=1",
            "net.ipv6.conf.IF.forwarding=1",
        ],
    ),
    (
        "sysctl -qw net.ipv6.conf.all.forwarding=1; sysctl -qw net.ipv6.conf.IF.forwarding=0",
        &["net.ipv6.conf.IF.forwarding=1"],
    ),
];

#[test]
fn what_passes_through_is_not_dropped_unasked() -> Result<()> {
    for (commands, settings) in THROUGH {
        let host = Host::new(commands)?;
        let interface = host.guarded.interface().to_owned();
        let output = host.load(&["--enforce"])?;
        ensure!(output.code() == 2, "{commands}: {output}");
        host.load(&["--audit"])?.success()?;
        for setting in settings {
            let setting = setting.replace("IF", &interface);
            ensure!(output.stderr.contains(&setting), "{setting}: {output}");
            ensure!(host.status()?.contains(&setting), "{setting}");
            let mut sysctl = Command::new("sysctl");
            let guarded = &host.guarded.link.left.host;
            guarded
                .output(sysctl.args(["-qw", &setting]), LONG)?
                .success()?;
        }
        host.load(&["--enforce"])?.success()?;
    }
    Ok(())
}
