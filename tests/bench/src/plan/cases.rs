//! Every class of packets, against policies as hosts have them.

use std::iter;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use fastrand::Rng;
use ipnet::Ipv6Net;
use portguard_common::abi::Set;
use portguard_common::conntrack::{self as flow, Class, Tuple};
use portguard_common::packet::space;
use portguard_harness::frames::{Extension, Ipv4, Tcp, number};
use portguard_kernel::flows;
use portguard_kernel::object::Loaded;
use portguard_policy::policy::Outbound;

use super::frames::{
    ACK, DESTINATION4_AT, HOST4, HOST6, PEER4, PEER6, PORTS4_AT, PORTS6_AT, SOURCE4_AT, SOURCE6_AT,
    SYN, ends, open4, open6, ping, tagged, tcp, udp,
};
use super::policies::{GROUP_PORT, Members, SHARED_PORT, host6, hosts, load, plain, sources};
use super::{Case, Extent, Group, Hook, Plan};
use crate::programs::{Places, Program, Variation, reference, trie};

/// `XDP_DROP`.
pub(super) const DROP: u32 = 1;
/// `XDP_PASS`.
pub(super) const PASS: u32 = 2;
/// `TC_ACT_UNSPEC`.
const NEXT: u32 = u32::MAX;
/// A port that nobody is granted.
pub(super) const CLOSED: u16 = 9999;
/// Different frames of a case that varies them; more than the caches remember.
pub(super) const WAYS: usize = 1 << 16;

pub(super) fn add(plan: &mut Plan, extent: &Extent) -> Result<()> {
    references(plan, extent)?;
    if extent.wants(&["port/"]) {
        port(plan)?;
    }
    if extent.wants(&["flow/"]) {
        flow(plan)?;
    }
    if extent.wants(&["source/"]) {
        source(plan, "source", 1000)?;
    }
    if extent.wants(&["source100k/"]) && (!extent.quick || !extent.only.is_empty()) {
        source(plan, "source100k", 100_000)?;
    }
    if extent.wants(&["egress/"]) {
        egress(plan)?;
    }
    Ok(())
}

/// One frame, always the same.
pub(super) fn hot(
    group: Group,
    program: usize,
    name: impl Into<String>,
    frame: Vec<u8>,
    answer: u32,
) -> Case {
    Case {
        group,
        name: name.into(),
        size: None,
        program,
        frame,
        ways: Vec::new(),
        places: Places::default(),
        answer,
    }
}

/// Many frames in turns.
pub(super) fn turns(case: Case, ways: Vec<Variation>, places: Places) -> Case {
    Case {
        ways,
        places,
        ..case
    }
}

const PORTS4: Places = Places {
    address: 0,
    v6: false,
    ports: PORTS4_AT,
    cold: false,
};
pub(super) const BOTH4: Places = Places {
    address: SOURCE4_AT,
    ports: PORTS4_AT,
    ..PORTS4
};
pub(super) const BOTH6: Places = Places {
    address: SOURCE6_AT,
    v6: true,
    ports: PORTS6_AT,
    cold: false,
};

/// Frames to all ports but the open ones, from one peer.
fn random_ports(rng: &mut Rng) -> Vec<Variation> {
    (0..WAYS)
        .map(|_| {
            let port = rng.u16(8192..);
            Variation::new(PEER4.into(), rng.u16(1024..), port)
        })
        .collect()
}

/// An address of 11.0.0.0/8, which no policy here names.
pub(super) fn stranger(rng: &mut Rng) -> IpAddr {
    Ipv4Addr::from(11 << 24 | rng.u32(..1 << 24)).into()
}

fn references(plan: &mut Plan, extent: &Extent) -> Result<()> {
    let compared = ["reference/", "port/", "flow/", "source", "flood/"];
    if !extent.wants(&compared) {
        return Ok(());
    }
    let syn = tcp(ends(false), (40_000, CLOSED), SYN).build();
    let count = plan.program(reference("bare_count")?);
    plan.push(hot(
        Group::Reference,
        count,
        "reference/count",
        syn.clone(),
        DROP,
    ));
    for name in ["naive", "lean"] {
        let program = plan.program(reference(name)?);
        let title = format!("reference/{name}");
        let own = |title: String| hot(Group::Reference, program, title, syn.clone(), DROP);
        plan.push(own(title.clone()));
        let random = own(format!("{title}-random-ports"));
        plan.push(turns(random, random_ports(&mut Rng::with_seed(1)), PORTS4));
    }
    let lean = plan.program(reference("lean")?);
    for (kind, frame, answer) in [
        ("allow", tcp(ends(false), (40_000, 443), SYN), PASS),
        ("v6", tcp(ends(true), (40_000, CLOSED), SYN), DROP),
        ("vlan", tagged(&[number::VLAN], false, CLOSED), DROP),
    ] {
        plan.push(hot(
            Group::Reference,
            lean,
            format!("reference/lean-{kind}"),
            frame.build(),
            answer,
        ));
    }
    let frame = tcp(ends(true), (40_000, CLOSED), SYN).build();
    let title = "reference/lean-v6-random";
    let random = hot(Group::Reference, lean, title, frame, DROP);
    let ways = random_hosts(&mut Rng::with_seed(1));
    plan.push(turns(random, ways, BOTH6));
    Ok(())
}

/// IPv6 sources and ports at random.
fn random_hosts(rng: &mut Rng) -> Vec<Variation> {
    (0..WAYS)
        .map(|_| Variation::new(host6(rng).into(), rng.u16(1024..), rng.u16(8192..)))
        .collect()
}

/// Ports alone decide.
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn port(plan: &mut Plan) -> Result<()> {
    let guard = load(&plain(Outbound::Off))?;
    let program = plan.program(Program::Guard(Box::new(guard), Hook::Ingress));
    let mut add = |name: &str, frame: Vec<u8>, answer| {
        plan.push(hot(
            Group::Class,
            program,
            format!("port/{name}"),
            frame,
            answer,
        ));
    };
    for (family, v6) in [("v4", false), ("v6", true)] {
        let ends = ends(v6);
        let syn = |port| tcp(ends, (40_000, port), SYN).build();
        add(&format!("{family}-tcp-deny"), syn(CLOSED), DROP);
        add(&format!("{family}-tcp-allow"), syn(443), PASS);
        add(
            &format!("{family}-udp-deny"),
            udp(ends, (40_000, CLOSED)).build(),
            DROP,
        );
        add(
            &format!("{family}-udp-allow"),
            udp(ends, (40_000, 53)).build(),
            PASS,
        );
        for (name, tags) in [
            ("vlan", &[number::VLAN][..]),
            ("qinq", &[number::QINQ, number::VLAN][..]),
        ] {
            add(
                &format!("{family}-{name}-deny"),
                tagged(tags, v6, CLOSED).build(),
                DROP,
            );
        }
        add(
            &format!("{family}-{}-allow", "vlan"),
            tagged(&[number::VLAN], v6, 443).build(),
            PASS,
        );
        add(&format!("{family}-ping"), ping(v6).build(), PASS);
    }
    let syn = || Tcp::syn(40_000, CLOSED);
    let header = Ipv4::new(PEER4, HOST4);
    let options = header.clone().options([7, 7, 4, 0, 0, 0, 0, 0]);
    add("v4-options-deny", open4(options).tcp(syn()).build(), DROP);
    let first = header.clone().fragment(1, 0, true);
    add(
        "v4-first-fragment-deny",
        open4(first).tcp(syn()).build(),
        DROP,
    );
    let later = header.fragment(1, 185, false).protocol(number::UDP);
    add(
        "v4-later-fragment",
        open4(later).payload([0; 32]).build(),
        PASS,
    );
    let hop_by_hop = open6().extension(Extension::hop_by_hop(0));
    add("v6-hop-by-hop-deny", hop_by_hop.tcp(syn()).build(), DROP);
    let three = open6()
        .extension(Extension::hop_by_hop(0))
        .extension(Extension::destination(0))
        .extension(Extension::fragment(0, false, 7));
    add("v6-three-headers-deny", three.tcp(syn()).build(), DROP);
    let later = open6().extension(Extension::fragment(185, false, 7));
    add("v6-later-fragment", later.payload([0; 32]).build(), PASS);
    let arp = portguard_harness::frames::arp_request([2, 0, 0, 0, 0, 7], PEER4, HOST4);
    add("arp", arp.pad(60).build(), PASS);
    let syn = tcp(ends(false), (40_000, CLOSED), SYN);
    add("malformed", syn.truncate(40).build(), DROP);

    let deny = tcp(ends(false), (40_000, CLOSED), SYN).build();
    let allow = tcp(ends(false), (40_000, 443), SYN).build();
    let mut rng = Rng::with_seed(2);
    let case = |name: &str, frame: &[u8], answer| {
        hot(
            Group::Class,
            program,
            format!("port/{name}"),
            frame.to_vec(),
            answer,
        )
    };
    let ways = random_ports(&mut rng);
    plan.push(turns(case("v4-random-ports", &deny, DROP), ways, PORTS4));
    let ways = (0..WAYS)
        .map(|_| Variation::new(stranger(&mut rng), rng.u16(1024..), rng.u16(8192..)))
        .collect();
    let name = "v4-random-ports-and-sources";
    plan.push(turns(case(name, &deny, DROP), ways, BOTH4));
    let frame = tcp(ends(true), (40_000, CLOSED), SYN).build();
    let name = "v6-random-ports-and-sources";
    let ways = random_hosts(&mut rng);
    plan.push(turns(case(name, &frame, DROP), ways, BOTH6));
    let cold = Places {
        cold: true,
        ..Places::default()
    };
    let same = vec![Variation::default()];
    let name = "v4-cold-cache-deny";
    plan.push(turns(case(name, &deny, DROP), same.clone(), cold));
    plan.push(turns(case("v4-cold-cache-allow", &allow, PASS), same, cold));
    Ok(())
}

/// Conversations of the host's own.
fn flow(plan: &mut Plan) -> Result<()> {
    let mut guard = load(&plain(Outbound::Audit))?;
    let own = |v6: bool, protocol| {
        let (remote, local) = ends(v6);
        Tuple {
            space: space(protocol),
            local: local.into(),
            remote: remote.into(),
            local_port: 40_000,
            remote_port: 443,
        }
    };
    let mut tuples: Vec<Tuple> = Vec::new();
    for v6 in [false, true] {
        tuples.extend([own(v6, 6), own(v6, 17)]);
    }
    seed(&mut guard, &tuples)?;
    let program = plan.program(Program::Guard(Box::new(guard), Hook::Ingress));
    let mut add = |name: &str, frame: Vec<u8>, answer| {
        plan.push(hot(
            Group::Class,
            program,
            format!("flow/{name}"),
            frame,
            answer,
        ));
    };
    for (family, v6) in [("v4", false), ("v6", true)] {
        let ends = ends(v6);
        let ack = tcp(ends, (443, 40_000), ACK).build();
        add(&format!("{family}-tcp-reply"), ack, PASS);
        add(
            &format!("{family}-udp-reply"),
            udp(ends, (443, 40_000)).build(),
            PASS,
        );
        let ack = tcp(ends, (443, CLOSED), ACK).build();
        add(
            &format!("{family}-tcp-no-flow-syn"),
            tcp(ends, (443, CLOSED), SYN).build(),
            DROP,
        );
        add(&format!("{family}-tcp-no-flow"), ack, DROP);
        add(
            &format!("{family}-udp-no-flow"),
            udp(ends, (443, CLOSED)).build(),
            DROP,
        );
        add(
            &format!("{family}-tcp-allow"),
            tcp(ends, (443, 443), SYN).build(),
            PASS,
        );
    }
    let (program, ways) = flows(plan, 65_000)?;
    let frame = tcp(ends(false), (443, 40_000), ACK).build();
    let case = hot(
        Group::Class,
        program,
        "flow/v4-tcp-reply-65000",
        frame,
        PASS,
    );
    plan.push(turns(case, ways, BOTH4));
    Ok(())
}

/// A guard with so many flows, and the frames that belong to them in random order.
pub(super) fn flows(plan: &mut Plan, count: u32) -> Result<(usize, Vec<Variation>)> {
    let mut rng = Rng::with_seed(3);
    let mut policy = plain(Outbound::Audit);
    policy.settings.flows = (count * 2).max(65_536);
    let mut guard = load(&policy)?;
    let tuples: Vec<Tuple> = (0..count)
        .map(|_| Tuple {
            space: space(6),
            local: IpAddr::from(HOST4).into(),
            remote: stranger(&mut rng).into(),
            local_port: rng.u16(32_768..),
            remote_port: 443,
        })
        .collect();
    let mut kept = seed(&mut guard, &tuples)?;
    rng.shuffle(&mut kept);
    let ways = (0..WAYS.max(usize::try_from(count)?.next_power_of_two()))
        .zip(kept.iter().cycle())
        .map(|(_, tuple)| {
            let [.., a, b, c, d] = tuple.remote.low.to_be_bytes();
            let remote = Ipv4Addr::from([a, b, c, d]);
            Variation::new(remote.into(), tuple.remote_port, tuple.local_port)
        })
        .collect();
    let program = plan.program(Program::Guard(Box::new(guard), Hook::Ingress));
    Ok((program, ways))
}

/// Puts flows into the table; those that their set has no room for are not among the answer.
fn seed(guard: &mut Loaded, tuples: &[Tuple]) -> Result<Vec<Tuple>> {
    let facts = guard.facts;
    let map = guard.map_mut("FLOWS")?;
    let mut flows: Array<&mut MapData, Set> = map.try_into()?;
    let now = flows::now(facts.tick_shift)?;
    let mut kept = Vec::new();
    for tuple in tuples {
        let hashed = tuple.hash(facts.flow_key);
        let index = hashed.set & facts.flow_mask;
        let mut set = flows.get(&index, 0)?;
        let home = flow::home(hashed.tag);
        let free = |way: &usize| set.cells.get(*way) == Some(&0);
        let Some(way) = iter::once(home).chain(0..flow::TCP_WAYS).find(free) else {
            continue;
        };
        if let Some(cell) = set.cells.get_mut(way) {
            *cell = flow::cell(hashed.tag, Class::Socket, now);
        }
        flows.set(index, set, 0)?;
        kept.push(*tuple);
    }
    Ok(kept)
}

/// Sources decide.
fn source(plan: &mut Plan, family: &str, count: u32) -> Result<()> {
    let (policy, members) = sources(count);
    let guard = load(&policy)?;
    let program = plan.program(Program::Guard(Box::new(guard), Hook::Ingress));
    let case = |name: &str, peer: IpAddr, port, answer| {
        let host = if peer.is_ipv4() {
            HOST4.into()
        } else {
            HOST6.into()
        };
        let frame = tcp((peer, host), (40_000, port), SYN).build();
        hot(
            Group::Class,
            program,
            format!("{family}/{name}"),
            frame,
            answer,
        )
    };
    let first = First::of(&members)?;
    plan.push(case("v4-allow", first.v4, SHARED_PORT, PASS));
    plan.push(case("v6-prefix-allow", first.v6, SHARED_PORT, PASS));
    plan.push(case("v6-host-allow", first.host, SHARED_PORT, PASS));
    plan.push(case("v4-deny", PEER4.into(), SHARED_PORT, DROP));
    plan.push(case("v6-deny", PEER6.into(), SHARED_PORT, DROP));
    plan.push(case("v4-deny-port", first.v4, CLOSED, DROP));
    let mut rng = Rng::with_seed(4);
    let mut addresses = hosts(&members, &mut rng);
    addresses.truncate(WAYS);
    let ways = |addresses: &mut dyn Iterator<Item = IpAddr>| -> Vec<Variation> {
        (0..WAYS)
            .zip(addresses)
            .map(|(_, address)| Variation::new(address, 40_000, SHARED_PORT))
            .collect()
    };
    let varied = |case, ways, places: Places| {
        let places = Places { ports: 0, ..places };
        turns(case, ways, places)
    };
    let of = case("v4-random-members", first.v4, SHARED_PORT, PASS);
    let all = ways(&mut addresses.iter().copied().cycle());
    plan.push(varied(of, all, BOTH4));
    let of = case("v4-spoofed", PEER4.into(), SHARED_PORT, DROP);
    let all = ways(&mut iter::repeat_with(|| stranger(&mut rng)));
    plan.push(varied(of, all, BOTH4));
    let of = case("v6-random-hosts", first.host, SHARED_PORT, PASS);
    let mut hosts: Vec<IpAddr> = members.hosts.iter().copied().map(IpAddr::from).collect();
    rng.shuffle(&mut hosts);
    plan.push(varied(of, ways(&mut hosts.iter().copied().cycle()), BOTH6));
    // Within the networks of the peers, so that the tables are walked as deep as they go.
    let of = case("v6-spoofed", PEER6.into(), GROUP_PORT, DROP);
    let all = ways(&mut iter::repeat_with(|| host6(&mut rng).into()));
    let mut of = varied(of, all, BOTH6);
    // Some of these may be peers; a deep walk is what is measured, whatever comes of it.
    of.answer = super::ANY;
    let all = of.ways.clone();
    plan.push(of);
    let hosts = members.hosts.iter().copied().map(Ipv6Net::from);
    let trie = plan.program(trie(members.v6.iter().copied().chain(hosts))?);
    let reference = |name: &str, peer: IpAddr, answer| {
        let frame = tcp((peer, HOST6.into()), (40_000, SHARED_PORT), SYN).build();
        let name = format!("reference/trie-{family}-{name}");
        hot(Group::Reference, trie, name, frame, answer)
    };
    plan.push(reference("v6-prefix", first.v6, PASS));
    plan.push(reference("v6-host", first.host, PASS));
    let spoofed = reference("v6-spoofed", PEER6.into(), super::ANY);
    plan.push(turns(spoofed, all, BOTH6));
    Ok(())
}

/// One peer of each kind.
struct First {
    v4: IpAddr,
    v6: IpAddr,
    host: IpAddr,
}

impl First {
    fn of(members: &Members) -> Result<Self> {
        let none = "the policy has no peer of a kind";
        Ok(Self {
            v4: members.v4.first().context(none)?.broadcast().into(),
            v6: members.v6.first().context(none)?.broadcast().into(),
            host: (*members.hosts.first().context(none)?).into(),
        })
    }
}

/// What the host sends.
fn egress(plan: &mut Plan) -> Result<()> {
    for (mode, outbound) in [("audit", Outbound::Audit), ("enforce", Outbound::Enforce)] {
        let guard = load(&plain(outbound))?;
        let program = plan.program(Program::Guard(Box::new(guard), Hook::Egress));
        let dropped = if mode == "enforce" { 2 } else { NEXT };
        for (family, v6) in [("v4", false), ("v6", true)] {
            let (peer, host) = ends(v6);
            let out = (host, peer);
            let mut add = |name: &str, frame: Vec<u8>, answer| {
                let name = format!("egress/{mode}-{family}-{name}");
                plan.push(hot(Group::Egress, program, name, frame, answer));
            };
            add("reply", tcp(out, (443, 40_000), ACK).build(), NEXT);
            add("documented", tcp(out, (40_000, 443), ACK).build(), NEXT);
            add("documented-udp", udp(out, (40_000, 53)).build(), NEXT);
            add(
                "undocumented",
                tcp(out, (40_000, CLOSED), ACK).build(),
                dropped,
            );
        }
        let mut rng = Rng::with_seed(5);
        let ways = (0..WAYS)
            .map(|_| Variation::new(stranger(&mut rng), rng.u16(32_768..), 443))
            .collect();
        let frame = tcp((HOST4.into(), PEER4.into()), (40_000, 443), ACK).build();
        let name = format!("egress/{mode}-v4-documented-65536-flows");
        let case = hot(Group::Egress, program, name, frame, NEXT);
        let places = Places {
            address: DESTINATION4_AT,
            ..BOTH4
        };
        plan.push(turns(case, ways, places));
    }
    Ok(())
}
