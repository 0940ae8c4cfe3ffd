//! The interface's part of the preflight: what kind it is, its driver, and who is on its hooks.

mod throughput;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use portguard_common::reason::Direction;

use super::{Check, Grade};
use crate::host::diversions::diversions;
use crate::host::holder::{self, Holder};
use crate::host::interface::Interface;
use crate::host::link::{self, Start};
use crate::host::links::Link;
use crate::host::netlink;
use crate::pins::hidden;
use crate::tunnels::{advice, unguarded};
use portguard_policy::human::plain;

/// Drivers whose native XDP the kernel's sources have (6.12).
const NATIVE: [&str; 41] = [
    "am65-cpsw-nuss",
    "aquantia",
    "atlantic",
    "bnxt_en",
    "bond",
    "cpsw",
    "ena",
    "enetc",
    "fec",
    "fsl_dpa",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "gve",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "idpf",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_core",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "nicvf",
    "octeontx2-nicpf",
    "qede",
    "sfc",
    "stmmac",
    "tsnep",
    "tun",
    "veth",
    "virtio_net",
    "vmxnet3",
];

/// Largest MTU that fits into one page with what XDP needs around it, on most drivers.
const ONE_PAGE: u32 = 3_498;

/// Looks at an interface. `own`: ids of programs of the guard that is in force there.
pub fn check_interface(interface: &Interface, own: &[u32]) -> Vec<Check> {
    let link = match netlink::link(interface.index) {
        Ok(link) => link,
        Err(error) => {
            let why = "the kernel must know the interface";
            return vec![Check::new(
                "interface",
                why,
                Grade::Error,
                format!("{error:#}"),
            )];
        }
    };
    let facts = Facts::of(interface, &link);
    let mut checks = vec![
        state(&link),
        kind(&facts),
        driver(&facts),
        mtu(&facts),
        merged(&facts),
        throughput::queues(interface, facts.queues),
        xdp(interface, own),
        tcx(interface, own),
    ];
    checks.extend(tunnels(interface));
    checks.extend(diverted(interface));
    checks.extend(throughput::ring(interface));
    checks.extend(features(interface));
    checks
}

struct Facts {
    kind: Option<String>,
    driver: Option<String>,
    master: Option<u32>,
    mtu: u32,
    queues: u32,
    /// Bytes of the largest packet that the stack merges or has yet to segment.
    largest: u32,
    start: Result<Start, String>,
}

impl Facts {
    fn of(interface: &Interface, link: &LinkMessage) -> Self {
        let mut facts = Self {
            kind: link::kind(link),
            driver: sysfs(interface).and_then(|directory| driver_in(&directory)),
            master: None,
            mtu: 0,
            queues: 1,
            largest: Link::of(link).largest,
            start: link::of(link),
        };
        for attribute in &link.attributes {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "an interface has many attributes, of which these matter"
            )]
            match attribute {
                LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
                LinkAttribute::NumRxQueues(queues) => facts.queues = *queues,
                LinkAttribute::Controller(master) => facts.master = Some(*master),
                _ => {}
            }
        }
        facts
    }
}

/// The interface in sysfs, which may be that of another network namespace.
fn sysfs(interface: &Interface) -> Option<PathBuf> {
    let directory = Path::new("/sys/class/net").join(&interface.name);
    let index = fs::read_to_string(directory.join("ifindex")).ok()?;
    (index.trim().parse() == Ok(interface.index)).then_some(directory)
}

fn driver_in(directory: &Path) -> Option<String> {
    let link = fs::read_link(directory.join("device/driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

fn state(link: &LinkMessage) -> Check {
    let why =
        "a guard can be loaded before the interface is up, and is in force from its first packet";
    let is_up = link.header.flags.contains(LinkFlags::Up);
    let found = if is_up { "up" } else { "down" };
    let grade = if is_up { Grade::Ok } else { Grade::Note };
    Check::new("state", why, grade, found)
}

fn kind(facts: &Facts) -> Check {
    let why = "the guard sees what its own interface receives, before the stack hands it on";
    let check = |grade, found: &str| Check::new("kind", why, grade, found);
    match &facts.start {
        Ok(Start::Ethernet) => {}
        Ok(Start::Ip) => {
            return check(
                Grade::Note,
                "no link header: generic XDP only, packets are judged from their IP header on",
            );
        }
        Err(kind) => {
            return check(Grade::Error, &format!("no Ethernet header ({kind})"))
                .todo("guard the interface below, which carries the traffic");
        }
    }
    match facts.kind.as_deref() {
        Some("vlan" | "macvlan" | "ipvlan") => check(
            Grade::Warning,
            "an interface on top of another: generic XDP only",
        )
        .todo("guard the interface below: tagged packets are judged there"),
        Some("bridge") => check(
            Grade::Warning,
            "a bridge: generic XDP only, and bridged packets do not pass it",
        )
        .todo("guard the bridge's ports, with `scope = \"host-addresses\"`"),
        Some("bond" | "team") => check(
            Grade::Note,
            "a bond: native XDP if all its members' drivers have it (Linux 5.15)",
        ),
        _ if facts.master.is_some() => check(
            Grade::Note,
            "a port of a bridge or bond: what is only handed on is judged, too",
        )
        .todo("where the host forwards for others, set `scope = \"host-addresses\"`"),
        Some(kind) => check(Grade::Ok, kind),
        None => check(Grade::Ok, "a network card"),
    }
}

fn driver(facts: &Facts) -> Check {
    let why = "in the driver a dropped packet costs next to nothing; generic XDP runs after the kernel has allocated it";
    let name = facts.driver.as_deref().or(facts.kind.as_deref());
    match name {
        Some(name) if NATIVE.contains(&name) => {
            Check::new("driver", why, Grade::Ok, format!("{name}: has native XDP"))
        }
        Some(name) => Check::new("driver", why, Grade::Warning, format!("{name}: not known to have native XDP"))
            .todo("`load` says whether it has; if not, `--xdp-mode generic` is fit for audit and for slow links"),
        None => Check::new("driver", why, Grade::Note, "unknown"),
    }
}

fn mtu(facts: &Facts) -> Check {
    let why = "packets beyond a page arrive in parts, which not every driver's XDP takes";
    let found = format!("MTU {}", facts.mtu);
    if facts.mtu > ONE_PAGE {
        Check::new("mtu", why, Grade::Warning, found)
            .todo("the guard takes packets in parts; if the driver does not, `load` is refused: lower the MTU then")
    } else {
        Check::new("mtu", why, Grade::Ok, found)
    }
}

/// What IPv4 and IPv6 can say of their length: above it, a packet is merged by "BIG TCP".
const LONGEST: u32 = 65_536;

fn merged(facts: &Facts) -> Check {
    let why = "generic XDP gets packets as the stack has merged them, and one beyond 64 KiB is copied for it, or lost";
    let found = format!("packets of up to {} bytes", facts.largest);
    let name = facts.driver.as_deref().or(facts.kind.as_deref());
    let is_generic =
        facts.start == Ok(Start::Ip) || !name.is_some_and(|name| NATIVE.contains(&name));
    if facts.largest <= LONGEST {
        Check::new("big-tcp", why, Grade::Ok, found)
    } else if is_generic {
        Check::new("big-tcp", why, Grade::Warning, found).todo(
            "`ip link set dev {} gro_max_size 65536 gro_ipv4_max_size 65536`, on the other end of a pair `gso_max_size` and \
             `gso_ipv4_max_size`",
        )
    } else {
        Check::new(
            "big-tcp",
            why,
            Grade::Note,
            format!("{found}: fit for native XDP only"),
        )
        .todo("keep to `--xdp-mode native`")
    }
}

/// Tunnels that end on this host without a guard of their own.
fn tunnels(interface: &Interface) -> Vec<Check> {
    let why = "a tunnel is judged by its outer header: what is inside is judged where the tunnel ends, or nowhere";
    let tunnels = unguarded().into_iter();
    tunnels
        .filter(|tunnel| tunnel.index != interface.index)
        .map(|tunnel| {
            let kind = tunnel.kind.as_deref().unwrap_or("a tunnel");
            let found = format!(
                "`{}` ({kind}) ends here and has no guard",
                plain(&tunnel.name)
            );
            Check::new("tunnel", why, Grade::Warning, found).todo(advice(&tunnel))
        })
        .collect()
}

/// What brings packets for others to this host's own sockets all the same.
fn diverted(interface: &Interface) -> Vec<Check> {
    let why = "with `scope = \"host-addresses\"`, what is for others passes unjudged";
    let todo = "with `scope = \"all\"`, it is judged; it matters with `host-addresses` only";
    let found = diversions(&interface.name).into_iter();
    found
        .map(|one| Check::new("diversion", why, Grade::Note, one).todo(todo))
        .collect()
}

fn xdp(interface: &Interface, own: &[u32]) -> Check {
    let why = "an interface has room for one XDP program, and portguard replaces none that it did not load";
    let holders = holder::xdp(interface.index).unwrap_or_default();
    let foreign: Vec<&Holder> = holders
        .iter()
        .filter(|one| !own.contains(&one.id))
        .collect();
    match foreign.first() {
        Some(holder) if hidden::is_ours(holder) => {
            let fault = hidden::of(&interface.name, holder);
            let check = Check::new("xdp-hook", why, Grade::Error, fault.to_string());
            match fault.todo() {
                Some(hint) => check.todo(hint),
                None => check,
            }
        }
        Some(holder) => Check::new("xdp-hook", why, Grade::Error, holder.to_string())
            .todo(format!("detach it if you can do without: `ip link set dev {} xdp off`, or by what loaded it", interface.name)),
        None if holders.is_empty() => match holder::in_the_way(interface.index) {
            None => Check::new("xdp-hook", why, Grade::Ok, "free"),
            Some((other, holder)) => {
                let found = format!(
                    "free, but `{}`, which stands on it or is part of it, has {holder}: the kernel may attach no other here",
                    plain(&other)
                );
                Check::new("xdp-hook", why, Grade::Warning, found).todo(format!(
                    "load both together, which takes them in the right order, once `{}` has none",
                    plain(&other)
                ))
            }
        },
        None => Check::new("xdp-hook", why, Grade::Ok, "portguard's own"),
    }
}

fn tcx(interface: &Interface, own: &[u32]) -> Check {
    let why =
        "several programs share this hook; the guard goes last, and judges what the others leave";
    let foreign: Vec<String> = [Direction::Ingress, Direction::Egress]
        .into_iter()
        .flat_map(|direction| holder::tcx(&interface.name, direction))
        .filter(|one| !own.contains(&one.id))
        .map(|one| one.to_string())
        .collect();
    if foreign.is_empty() {
        Check::new("tc-hook", why, Grade::Ok, "no other program")
    } else {
        Check::new("tc-hook", why, Grade::Note, foreign.join(", "))
    }
}

/// Offloads, as `ethtool -k` tells them.
fn features(interface: &Interface) -> Vec<Check> {
    let output = Command::new("ethtool")
        .args(["-k", &interface.name])
        .output();
    let Some(text) = output.ok().filter(|output| output.status.success()) else {
        let why = "drivers hand merged packets or stripped tags to XDP differently";
        return vec![
            Check::new("offloads", why, Grade::Note, "unknown: no `ethtool` here")
                .todo("install `ethtool`, or make sure that large-receive-offload is off"),
        ];
    };
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let is_on = |feature: &str| {
        text.lines().any(|line| {
            line.trim()
                .strip_prefix(feature)
                .and_then(|rest| rest.strip_prefix(':'))
                .is_some_and(|rest| rest.trim().starts_with("on"))
        })
    };
    let offload = |name, feature: &str, short: &str, why| {
        if is_on(feature) {
            Check::new(name, why, Grade::Warning, "on")
                .todo(format!("`ethtool -K {} {short} off`", interface.name))
        } else {
            Check::new(name, why, Grade::Ok, "off")
        }
    };
    vec![
        offload(
            "lro",
            "large-receive-offload",
            "lro",
            "packets that the card merged are beyond what XDP takes: drivers refuse XDP, or switch it off",
        ),
        offload(
            "gro-hw",
            "rx-gro-hw",
            "rx-gro-hw",
            "packets that the card merged are beyond what XDP takes: drivers refuse XDP, or switch it off",
        ),
        if is_on("rx-vlan-offload") {
            Check::new(
                "rx-vlan",
                "a tag that the card takes off is not in the packet that is judged",
                Grade::Note,
                "on: tagged packets are judged without their outer tag",
            )
        } else {
            Check::new(
                "rx-vlan",
                "a tag that the card takes off is not in the packet that is judged",
                Grade::Ok,
                "off",
            )
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets that are merged beyond 64 KiB are said of what runs in the stack, and of a driver only as a note.
    #[test]
    fn packets_beyond_64_kib_are_said_where_generic_xdp_gets_them() {
        let grade = |driver: Option<&str>, start, largest| {
            let facts = Facts {
                kind: None,
                driver: driver.map(str::to_owned),
                master: None,
                mtu: 1500,
                queues: 1,
                largest,
                start: Ok(start),
            };
            merged(&facts).grade
        };
        for driver in [Some("veth"), Some("e1000"), None] {
            for start in [Start::Ethernet, Start::Ip] {
                assert_eq!(grade(driver, start, 0), Grade::Ok);
                assert_eq!(grade(driver, start, 65_536), Grade::Ok);
            }
        }
        assert_eq!(grade(Some("veth"), Start::Ethernet, 185_000), Grade::Note);
        for (driver, start) in [
            (Some("e1000"), Start::Ethernet),
            (None, Start::Ethernet),
            (Some("tun"), Start::Ip),
        ] {
            assert_eq!(grade(driver, start, 65_537), Grade::Warning, "{driver:?}");
            assert_eq!(grade(driver, start, 185_000), Grade::Warning, "{driver:?}");
        }
    }
}
