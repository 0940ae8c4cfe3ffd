//! What the programs may cost the verifier, the instruction cache and the memory: `tests/budget.toml`.

use aya::programs::ProgramInfo;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portguard_common::reason::Direction;
use portguard_kernel::object::memory;
use portguard_kernel::object::{HostFacts, Loaded};
use portguard_policy::policy::{PeerSet, Policy};
use serde::Deserialize;

use super::{image, loaded, policies};

#[derive(Debug, Deserialize)]
struct Budget {
    ingress: Vec<Limit>,
    egress: Vec<Limit>,
    memory: Vec<Room>,
}

/// How much memory a policy may take, KiB.
#[derive(Debug, Deserialize)]
struct Room {
    policy: String,
    prefixes: u32,
    flows: u32,
    shared: u64,
    per_cpu: u64,
}

/// One way to load a program.
#[derive(Debug, Deserialize)]
struct Limit {
    policy: String,
    multi_buffer: bool,
    /// Whether frames for other hosts are told apart.
    #[serde(default)]
    others: bool,
    verified: u32,
    instructions: u32,
}

fn budget() -> Budget {
    toml::from_str(include_str!("../budget.toml")).expect("the budget file is sound")
}

#[test]
fn ingress_keeps_its_budget() {
    programs_keep(&budget().ingress, Direction::Ingress);
}

#[test]
fn egress_keeps_its_budget() {
    programs_keep(&budget().egress, Direction::Egress);
}

fn programs_keep(limits: &[Limit], direction: Direction) {
    let mut over = Vec::new();
    for limit in limits {
        let policy = policy(&limit.policy);
        let host = HostFacts {
            multi_buffer: limit.multi_buffer,
            card: (limit.others.into(), 1),
            ..HostFacts::default()
        };
        let mut loaded = loaded(&image(&policy), &host);
        let info = info(&mut loaded, direction).expect("facts of the program");
        let verified = info
            .verified_instruction_count()
            .expect("Linux 5.16 or later");
        let instructions = info.size_translated().expect("root may know") / 8;
        println!("{limit:?}: {verified} verified, {instructions} instructions");
        if verified > limit.verified || instructions > limit.instructions {
            over.push(format!(
                "{limit:?}: {verified} verified, {instructions} instructions"
            ));
        }
    }
    assert!(over.is_empty(), "over budget:\n{}", over.join("\n"));
}

fn info(loaded: &mut Loaded, direction: Direction) -> anyhow::Result<ProgramInfo> {
    Ok(match direction {
        Direction::Ingress => loaded.ingress()?.info()?,
        Direction::Egress => loaded.egress()?.info()?,
    })
}

/// The kernel accounts for memory itself since Linux 6.4; before, it says much the same by other sums.
#[test]
fn memory_keeps_its_budget() {
    for room in &budget().memory {
        let mut policy = policy(&room.policy);
        policy.settings.flows = room.flows;
        if let Some(set) = policy.sets.first_mut() {
            set.prefixes = prefixes(room.prefixes);
        } else {
            policy.sets.push(PeerSet {
                name: "many".into(),
                prefixes: prefixes(room.prefixes),
            });
        }
        let loaded = loaded(&image(&policy), &HostFacts::default());
        let taken = memory::of(&loaded).expect("the kernel says");
        let (shared, per_cpu) = ((taken.generation + taken.shared) >> 10, taken.per_cpu >> 10);
        println!("{room:?}: {shared} KiB shared, {per_cpu} KiB a CPU");
        assert!(
            shared <= room.shared && per_cpu <= room.per_cpu,
            "{room:?}: {shared} KiB shared, {per_cpu} KiB a CPU"
        );
    }
}

/// Different ones, the same each time: IPv4 networks and hosts spread over the whole space; IPv6 networks of sites with 256
/// each, sixteen sites to a provider; and IPv6 hosts.
fn prefixes(count: u32) -> Vec<IpNet> {
    let mut prefixes: Vec<IpNet> = (0..count)
        .map(|index| {
            // An odd factor visits every number once.
            let spread = index.wrapping_mul(0x9e37_79b1);
            let provider = u128::from(spread >> 21) << 96;
            let site = u128::from(spread >> 10 & 15) << 80 | u128::from(spread >> 13 & 0xff) << 64;
            match index % 4 {
                0 => Ipv4Net::new_assert((spread & !0xff).into(), 24).into(),
                1 => Ipv4Net::new_assert(spread.into(), 32).into(),
                2 => Ipv6Net::new_assert((0x2001 << 112 | provider | site).into(), 64).into(),
                _ => Ipv6Net::new_assert((0xfd00 << 112 | u128::from(spread)).into(), 128).into(),
            }
        })
        .collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

fn policy(name: &str) -> Policy {
    let all = policies::all();
    let mut found = all
        .into_iter()
        .filter(|policy| policy.host.as_deref() == Some(name));
    found.next().unwrap_or_else(|| panic!("no policy `{name}`"))
}
