//! The exported ruleset is accepted by `nft`, and the kernel's own filter judges frames with it as the guard does.
#![cfg(test)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use fastrand::Rng;
use portguard_common::config::dhcp;
use portguard_common::reason::Direction;
use portguard_harness::frames::{Extension, Frame, Icmp, Ipv4, Ipv6, Sctp, Tcp, Udp};
use portguard_harness::net::{End, Host, Interface, Lab, Link, unique_name};
use portguard_harness::traffic::{
    Connection, PacketSocket, TcpEcho, UdpEcho, connect, exchange_tcp, exchange_udp,
};
use portguard_policy::catalog::{Catalog, Transport};
use portguard_policy::compile::{Inputs, Selection, compile, domains};
use portguard_policy::explain::{Answer, Explainer, capture};
use portguard_policy::export::ruleset;
use portguard_policy::image::spans;
use portguard_policy::policy::{Grant, GrantKind, Outbound, PeerSet, Peers, Policy, ProtocolGrant};
use portguard_policy::site::{Site, Unresolved};

const LIMIT: Duration = Duration::from_mins(1);

/// Every role of a system on one host, its peers on others.
fn policy(system: &str) -> Policy {
    let catalog = Catalog::embedded().unwrap();
    let roles: Vec<String> = catalog.systems[system]
        .host_roles()
        .map(|role| format!("\"{system}/{}\"", role.id))
        .collect();
    let text = format!(
        "schema = 1\nunprinted_peers = [\"desks\"]\n[management]\nallow = [\"tcp/22=desks\"]\n\
         [groups]\ndesks = [\"172.16.0.0/20\", \"2001:db8:de::/48\", \"198.51.100.7\"]\n\
         [[host]]\nname = \"here\"\naddresses = [\"10.77.0.2\", \"fd77::2\"]\nroles = [{0}]\n\
         [[host]]\nname = \"there\"\naddresses = [\"10.3.0.1\", \"fd03::1\"]\nroles = [{0}]\n",
        roles.join(", ")
    );
    let mut site = Site::parse("site.toml", text.as_bytes()).unwrap();
    site.unresolved_peers = Some(Unresolved::Any);
    let (none, files) = (BTreeMap::new(), BTreeMap::new());
    let mut inputs = Inputs {
        catalog: &catalog,
        site: &site,
        host: Selection::Name("here".to_owned()),
        interface: None,
        local_addresses: &[],
        hostname: None,
        resolved: &none,
        files: &files,
        today: None,
    };
    let resolved = domains(&inputs)
        .into_iter()
        .map(|name| (name, vec!["192.0.2.1".parse().unwrap()]))
        .collect();
    inputs.resolved = &resolved;
    compile(&inputs).policy
}

fn nft(host: &Host, arguments: &[&str]) -> String {
    host.output(Command::new("nft").args(arguments), LIMIT)
        .unwrap()
        .success()
        .unwrap()
        .stdout
}

fn feed(host: &Host, check: bool, text: &str) {
    let path = std::env::temp_dir().join(format!("{}.nft", unique_name("pgn")));
    std::fs::write(&path, text).unwrap();
    let file = path.display().to_string();
    let arguments: &[&str] = if check {
        &["-c", "-f", &file]
    } else {
        &["-f", &file]
    };
    let done = host.output(Command::new("nft").args(arguments), LIMIT);
    std::fs::remove_file(&path).unwrap();
    done.unwrap().success().unwrap();
}

/// Packets by the name of the counter, of those that are not zero.
fn counters(host: &Host) -> BTreeMap<String, u64> {
    let text = nft(
        host,
        &["-j", "list", "counters", "table", "inet", "portguard"],
    );
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item.get("counter"))
        .map(|counter| {
            let packets = counter["packets"].as_u64().unwrap();
            (counter["name"].as_str().unwrap().to_owned(), packets)
        })
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

#[test]
fn every_embedded_system_is_accepted_by_nft_and_loads_twice() {
    let host = Lab::new().unwrap().host("nft").unwrap();
    for system in Catalog::embedded().unwrap().systems.keys() {
        let mut policy = policy(system);
        for (enforce, outbound) in [
            (false, Outbound::Off),
            (false, Outbound::Audit),
            (true, Outbound::Enforce),
        ] {
            policy.settings.enforce = enforce;
            policy.settings.outbound = outbound;
            policy.settings.strict_fragments = enforce;
            policy.settings.host_addresses = enforce.then(|| vec!["10.77.0.2/32".parse().unwrap()]);
            policy.settings.audit_ports = vec![(Transport::Udp, 1, 9)];
            feed(&host, true, &ruleset(&policy, None));
            feed(&host, false, &ruleset(&policy, Some("eth0")));
            feed(&host, false, &ruleset(&policy, None));
        }
    }
    feed(&host, true, &ruleset(&Policy::default(), None));
}

#[test]
fn names_that_files_give_are_no_rules() {
    let host = Lab::new().unwrap().host("nft").unwrap();
    let mut policy = policy("thoughtspot");
    let evil = "x\n}\nadd table inet stolen\n#\"; }";
    policy.host = Some(evil.to_owned());
    for set in &mut policy.sets {
        set.name = evil.to_owned();
    }
    for facts in &mut policy.rows {
        facts.purpose = evil.to_owned();
        facts.citation = evil.to_owned();
    }
    for grant in &mut policy.inbound {
        grant.row = format!("{} \"{evil}", grant.row);
    }
    feed(&host, false, &ruleset(&policy, None));
    assert!(!nft(&host, &["list", "tables"]).contains("stolen"));
}

/// One of these.
fn one<T: Copy>(random: &mut Rng, list: &[T]) -> T {
    list[random.usize(..list.len())]
}

/// A frame that both judges see alike by contract: no fragments, nothing that the stack refuses by itself.
fn frame(random: &mut Rng, policy: &Policy, from: &Interface, to: &Interface) -> Vec<u8> {
    let grant = &policy.inbound[random.usize(..policy.inbound.len())];
    let edge = [grant.first, grant.last][random.usize(..2)];
    let any = u16::try_from(random.usize(..65_536)).unwrap();
    let port = [edge, edge, edge.wrapping_add(1), edge.wrapping_sub(1), any][random.usize(..5)];
    let nets: Vec<_> = policy.sets.iter().flat_map(|set| &set.prefixes).collect();
    let net = nets[random.usize(..nets.len())];
    let step = random.usize(..3);
    let v4 = match net.network() {
        IpAddr::V4(v4) if random.usize(..4) != 0 => {
            Ipv4Addr::from_bits(v4.to_bits().wrapping_add(u32::try_from(step).unwrap()))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ipv4Addr::new(11, random.u8(..), random.u8(..), 1),
    };
    let v6 = match net.network() {
        IpAddr::V6(v6) if random.usize(..4) != 0 => {
            Ipv6Addr::from_bits(v6.to_bits().wrapping_add(step as u128))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => {
            Ipv6Addr::from_bits(0x2001 << 112 | u128::from(random.u64(..)))
        }
    };
    // Every source port once, so that no frame belongs to the connection of another.
    let source = u16::try_from(1024 + random.usize(..60_000)).unwrap();
    let is_v6 = random.usize(..2) == 1;
    let plain = Frame::between(from, to);
    let mut frame = if is_v6 {
        let hops = one(random, &[255, 64]);
        plain.ipv6(Ipv6::new(v6, to.v6()).hop_limit(hops))
    } else {
        let header = Ipv4::new(v4, to.v4());
        plain.ipv4(match random.usize(..12) {
            0 => header.options(vec![131, 7, 4, 10, 0, 0, 1, 0]),
            1 => header.options(vec![137, 7, 4, 10, 0, 0, 1, 0]),
            2 => header.options(vec![148, 4, 0, 0]),
            _ => header,
        })
    };
    if is_v6 && random.usize(..8) == 0 {
        frame = frame.extension(match random.usize(..4) {
            0 => Extension::routing(0, 0),
            1 => Extension::routing(4, 1),
            2 => Extension::hop_by_hop(0),
            _ => Extension::destination(1),
        });
    }
    let frame = match random.usize(..10) {
        0..5 => match grant.transport {
            Transport::Tcp => frame.tcp(Tcp::syn(source, port)),
            Transport::Udp => frame.udp(Udp::new(source, port)),
            Transport::Sctp => frame.sctp(Sctp::new(source, port)),
        },
        5 => frame.udp(Udp::new(source, port)),
        6 => frame.sctp(Sctp::new(source, port)),
        7 if is_v6 => {
            let kind = one(
                random,
                &[
                    1, 2, 3, 4, 128, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139,
                    143, 151,
                ],
            );
            frame.icmpv6(Icmp::new(kind, 0))
        }
        7 => frame.icmpv4(Icmp::new(
            one(random, &[0, 3, 4, 5, 8, 8, 9, 11, 12, 13, 17]),
            0,
        )),
        _ => frame.protocol(one(random, &[47, 47, 50, 89, 103, 136])),
    };
    frame.payload(vec![0xaa; 24]).pad(60).build()
}

/// The counter that a frame should be under.
fn expected(policy: &Policy, answer: &Answer) -> String {
    let (Some(port), Some(source)) = (answer.packet.destination_port, answer.packet.source) else {
        return match answer.rows.first() {
            Some(row) => format!("in/{row}"),
            None => format!("in/{}", answer.reason),
        };
    };
    let spans = spans(&policy.inbound);
    let span = spans.iter().find(|span| {
        span.transport.to_string() == answer.packet.protocol
            && (span.first..=span.last).contains(&port)
    });
    let grants = span.map(|span| span.grants.as_slice()).unwrap_or_default();
    // A port that nothing but the baseline opens for DHCP hears DHCP servers only.
    let server = dhcp::PORTS
        .iter()
        .find(|(_, client, _)| *client == port && answer.packet.protocol == "udp")
        .map(|(.., server)| *server);
    if server.is_some()
        && answer.packet.source_port != server
        && grants.iter().all(|grant| grant.kind == GrantKind::Baseline)
    {
        return format!("in/{}", answer.reason);
    }
    let first = grants.iter().find(|grant| match grant.peers {
        Peers::Any => true,
        Peers::Set(set) => policy.sets[set as usize]
            .prefixes
            .iter()
            .any(|net| net.contains(&source)),
    });
    match first {
        Some(grant) => {
            assert!(answer.rows.contains(&grant.row), "{answer:?}");
            format!("in/{}", grant.row)
        }
        None => format!("in/{}", answer.reason),
    }
}

fn settle(host: &Host, wanted: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let found = counters(host);
        if found == *wanted || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends each frame, and compares the counters after every batch; a batch that differs is sent again frame by frame.
fn compare(link: &Link, policy: &Policy, frames: &[Vec<u8>]) -> BTreeMap<String, u64> {
    let catalog = Catalog::embedded().unwrap();
    let explainer = Explainer::new(policy, &catalog).unwrap();
    let host = &link.right.host;
    let socket = link
        .left
        .host
        .run(|| PacketSocket::open(&link.left.name))
        .unwrap();
    let mut classes = BTreeMap::new();
    for batch in frames.chunks(250) {
        nft(host, &["reset", "counters"]);
        let mut wanted = BTreeMap::new();
        for frame in batch {
            let answer = explainer.packet(&capture::packet(frame), Direction::Ingress);
            let counter = expected(policy, &answer);
            *classes.entry(answer.reason.clone()).or_default() += 1;
            *wanted.entry(counter).or_default() += 1;
            socket.send(frame).unwrap();
        }
        let found = settle(host, &wanted);
        if found == wanted {
            continue;
        }
        for frame in batch {
            nft(host, &["reset", "counters"]);
            let answer = explainer.packet(&capture::packet(frame), Direction::Ingress);
            let wanted = BTreeMap::from([(expected(policy, &answer), 1)]);
            socket.send(frame).unwrap();
            let found = settle(host, &wanted);
            assert_eq!(found, wanted, "{answer}\n{frame:02x?}");
        }
        panic!("together {found:?}, wanted {wanted:?}; one by one they agree");
    }
    classes
}

/// A link whose left end says nothing of its own accord: the counters are those of the frames.
fn silent(lab: &Lab) -> Link {
    let (left, right) = (lab.host("left").unwrap(), lab.host("right").unwrap());
    left.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
        .unwrap();
    let right_end = End::new(&unique_name("pgr"))
        .address("10.77.0.2/24")
        .address("fd77::2/64");
    lab.connect(&left, &End::new(&unique_name("pgl")), &right, &right_end)
        .unwrap()
}

#[test]
fn the_kernels_own_filter_agrees() {
    let lab = Lab::new().unwrap();
    let mut random = Rng::with_seed(0x9047);
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (system, enforce) in [("thoughtspot", true), ("nexthink", false), ("wso2", true)] {
        let mut policy = policy(system);
        policy.settings.enforce = enforce;
        policy.settings.outbound = Outbound::Off;
        policy.settings.audit_ports = vec![(Transport::Tcp, 0, 5_000)];
        policy.echo = Some(Peers::Set(0));
        policy.protocols.push(ProtocolGrant {
            protocol: 47,
            peers: Peers::Set(0),
            row: "site/protocol-47".to_owned(),
        });
        let link = silent(&lab);
        feed(
            &link.right.host,
            false,
            &ruleset(&policy, Some(&link.right.name)),
        );
        let frames: Vec<Vec<u8>> = (0..1_500)
            .map(|_| frame(&mut random, &policy, &link.left, &link.right))
            .collect();
        for (reason, count) in compare(&link, &policy, &frames) {
            *sums.entry(reason).or_default() += count;
        }
    }
    println!("{sums:#?}");
    for reason in [
        "documented",
        "management",
        "undocumented-port",
        "undocumented-peer",
        "undocumented-protocol",
        "protocol",
        "icmp",
        "icmp-echo",
        "icmp-echo-reply",
        "icmp-essential",
        "malformed",
    ] {
        assert!(
            sums.get(reason).copied().unwrap_or(0) > 0,
            "no {reason} in {sums:?}"
        );
    }
}

fn open(transport: Transport, port: u16, peers: Peers) -> Grant {
    Grant {
        kind: GrantKind::Documented,
        transport,
        first: port,
        last: port,
        peers,
        row: format!("test/{transport}-{port}"),
        until: None,
    }
}

/// What no single frame shows: replies in both directions, and datagrams in fragments.
#[test]
fn connections_live_and_undocumented_ones_do_not() {
    let link = Lab::new().unwrap().pair().unwrap();
    let (here, there) = (&link.right, &link.left);
    let mut policy = Policy {
        sets: vec![PeerSet {
            name: "link".to_owned(),
            prefixes: vec![
                "10.77.0.0/24".parse().unwrap(),
                "fd77::/64".parse().unwrap(),
            ],
        }],
        inbound: vec![
            open(Transport::Tcp, 8080, Peers::Set(0)),
            open(Transport::Udp, 5353, Peers::Any),
        ],
        outbound: vec![open(Transport::Tcp, 9000, Peers::Set(0))],
        ..Policy::default()
    };
    policy.settings.enforce = true;
    policy.settings.outbound = Outbound::Enforce;
    feed(&here.host, false, &ruleset(&policy, Some(&here.name)));
    let wait = Duration::from_millis(400);
    let talks = |from: &Host, to: SocketAddr| {
        from.run(|| match connect(to, wait) {
            Connection::Connected(mut stream) => exchange_tcp(&mut stream, &[7; 5_000], LIMIT),
            Connection::Refused | Connection::TimedOut | Connection::Failed(_) => Ok(false),
        })
        .unwrap()
    };
    for (local, remote) in here.both().into_iter().zip(there.both()) {
        let servers = [
            (here, local, 8080),
            (here, local, 8081),
            (there, remote, 9000),
            (there, remote, 9001),
        ]
        .map(|(end, address, port)| {
            TcpEcho::start(&end.host, SocketAddr::new(address, port)).unwrap()
        });
        let talked = servers.each_ref().map(|server| {
            let from = if server.address().ip() == local {
                there
            } else {
                here
            };
            talks(&from.host, server.address())
        });
        assert_eq!(talked, [true, false, true, false], "{local}");
        let echo = UdpEcho::start(&here.host, SocketAddr::new(local, 5353)).unwrap();
        let whole = there
            .host
            .run(|| exchange_udp(echo.address(), &[9; 4_000], LIMIT));
        assert!(whole.unwrap(), "{local}");
    }
    let found = counters(&here.host);
    for name in [
        "in/test/tcp-8080",
        "in/test/udp-5353",
        "in/reply",
        "in/fragment",
        "in/undocumented-port",
        "out/test/tcp-9000",
        "out/reply",
        "out/undocumented-destination-port",
    ] {
        assert!(found.contains_key(name), "no {name} in {found:?}");
    }
}
