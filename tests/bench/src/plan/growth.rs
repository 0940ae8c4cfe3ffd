//! The same packets against policies that grow.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use fastrand::Rng;
use ipnet::IpNet;

use super::cases::{DROP, PASS, WAYS, flows, hot, turns};
use super::frames::{ACK, PORTS4_AT, SOURCE4_AT, SYN, ends, tcp};
use super::policies::{GROUP_PORT, SHARED_PORT, hosts, load, ports, rows, sources};
use super::{Case, Extent, Group, Hook, Plan};
use crate::programs::{Places, Program, Variation};

/// Documented ports.
const PORTS: [u32; 6] = [1, 16, 256, 4096, 32_768, 65_536];
/// Prefixes of peers.
const PREFIXES: [u32; 5] = [10, 100, 1000, 10_000, 100_000];
/// Rows for sixteen ports, each for a network of its own.
pub(crate) const ROWS: [u32; 4] = [16, 256, 4096, 65_536];
/// Flows of the host.
const FLOWS: [u32; 5] = [1, 1000, 65_000, 250_000, 1_000_000];
/// The largest with `--quick`.
const QUICK: u32 = 70_000;

pub(super) fn add(plan: &mut Plan, extent: &Extent) -> Result<()> {
    let sizes = |all: &[u32]| -> Vec<u32> {
        let wanted = |size: &&u32| !extent.quick || **size <= QUICK;
        all.iter().filter(wanted).copied().collect()
    };
    if extent.wants(&["ports/"]) {
        for count in sizes(&PORTS) {
            grow_ports(plan, count)?;
        }
    }
    if extent.wants(&["prefixes/"]) {
        for count in sizes(&PREFIXES) {
            grow_prefixes(plan, count)?;
        }
    }
    if extent.wants(&["rows/"]) {
        for count in sizes(&ROWS) {
            grow_rows(plan, count)?;
        }
    }
    if extent.wants(&["flows/"]) {
        for count in sizes(&FLOWS) {
            let (program, ways) = flows(plan, count)?;
            let frame = tcp(ends(false), (443, 40_000), ACK).build();
            let case = hot(Group::Growth, program, "flows/random", frame, PASS);
            let places = Places {
                address: SOURCE4_AT,
                ports: PORTS4_AT,
                ..Places::default()
            };
            plan.push(sized(turns(case, ways, places), count));
        }
    }
    Ok(())
}

fn sized(case: Case, size: u32) -> Case {
    Case {
        size: Some(size),
        ..case
    }
}

fn grow_ports(plan: &mut Plan, count: u32) -> Result<()> {
    let guard = load(&ports(count))?;
    let program = plan.program(Program::Guard(Box::new(guard), Hook::Ingress));
    let last = u16::try_from(count - 1)?;
    let frame = tcp(ends(false), (40_000, last), SYN).build();
    let case = hot(Group::Growth, program, "ports/hot", frame.clone(), PASS);
    plan.push(sized(case, count));
    let mut rng = Rng::with_seed(6);
    let (peer, _) = ends(false);
    let ways = (0..WAYS)
        .map(|_| Variation::new(peer, 40_000, rng.u16(..=last)))
        .collect();
    let places = Places {
        ports: PORTS4_AT,
        ..Places::default()
    };
    let case = hot(Group::Growth, program, "ports/random", frame, PASS);
    plan.push(sized(turns(case, ways, places), count));
    Ok(())
}

fn grow_rows(plan: &mut Plan, count: u32) -> Result<()> {
    let policy = rows(count);
    let guard = load(&policy)?;
    let program = plan.program(Program::Guard(Box::new(guard), Hook::Ingress));
    let (_, host) = ends(false);
    let networks = policy.sets.iter().flat_map(|set| &set.prefixes);
    let first = networks.map(IpNet::addr).next().unwrap_or(host);
    let frame = tcp((first, host), (40_000, GROUP_PORT), SYN).build();
    let case = hot(Group::Growth, program, "rows/hot", frame, PASS);
    plan.push(sized(case, count));
    Ok(())
}

fn grow_prefixes(plan: &mut Plan, count: u32) -> Result<()> {
    let (policy, members) = sources(count);
    let guard = load(&policy)?;
    let program = plan.program(Program::Guard(Box::new(guard), Hook::Ingress));
    let mut rng = Rng::with_seed(8);
    let (peer, host) = ends(false);
    let addresses = hosts(&members, &mut rng);
    let first = addresses.first().copied().unwrap_or(peer);
    let places = Places {
        address: SOURCE4_AT,
        ..Places::default()
    };
    let case = |name: &str, from: IpAddr, answer| {
        let frame = tcp((from, host), (40_000, SHARED_PORT), SYN).build();
        sized(
            hot(
                Group::Growth,
                program,
                format!("prefixes/{name}"),
                frame,
                answer,
            ),
            count,
        )
    };
    plan.push(case("hot", first, PASS));
    let ways = (0..WAYS)
        .zip(addresses.iter().cycle())
        .map(|(_, address)| Variation::new(*address, 40_000, SHARED_PORT))
        .collect();
    plan.push(turns(case("random-members", first, PASS), ways, places));
    let ways = (0..WAYS)
        .map(|_| {
            let stranger = Ipv4Addr::from(11 << 24 | rng.u32(..1 << 24));
            Variation::new(stranger.into(), 40_000, SHARED_PORT)
        })
        .collect();
    plan.push(turns(case("spoofed", peer, DROP), ways, places));
    Ok(())
}
