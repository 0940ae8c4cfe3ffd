//! Large policies: exact, in bounded time and memory, or refused in words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portguard_common::reason::{Direction, Reason};
use portguard_common::tables::{Host6, Key, Net6, Step};

use super::super::TooLarge;
use super::{Image, Question, build, compare, random};
use crate::catalog::Transport;
use crate::cells::Directory;
use crate::policy::{Grant, GrantKind, PeerSet, Peers, Policy};
use portguard_harness::clock::thread_time;

fn grant(first: u16, last: u16, peers: Peers, row: String) -> Grant {
    Grant {
        kind: GrantKind::Documented,
        transport: Transport::Tcp,
        first,
        last,
        peers,
        row,
        until: None,
    }
}

#[test]
fn a_range_of_all_ports_is_one_cell() {
    for (sets, peers) in [(0, Peers::Any), (1, Peers::Set(0))] {
        let set = PeerSet {
            name: "all".into(),
            prefixes: vec!["10.0.0.0/8".parse().unwrap()],
        };
        let policy = Policy {
            sets: vec![set; sets],
            inbound: vec![grant(0, 65_535, peers, "v/all".into())],
            ..Policy::default()
        };
        let image = build(&policy);
        let cells = image.directory.cells.iter().filter(|cell| !cell.egress);
        assert_eq!(cells.count(), 1);
        for number in 0..=65_535 {
            let question = Question {
                direction: Direction::Ingress,
                key: Key::port(0, number),
                peer: [10, 0, 0, 1].into(),
                other: 1,
            };
            assert_eq!(question.ask(&image).reason, Reason::Granted, "{number}");
        }
    }
}

/// More restricted ports than an octet counts, each for peers of its own.
#[test]
fn three_hundred_restricted_ports() {
    let mut rng = Rng::with_seed(3);
    let sets: Vec<PeerSet> = (0..300u32)
        .map(|index| PeerSet {
            name: format!("set {index}"),
            prefixes: vec![
                v4(0x0a00_0000 | index << 8, 24),
                v4(0x0b00_0000 | index, 32),
                v6(0xfd00 << 112 | u128::from(index), 128),
                v6(0xfd01 << 112 | u128::from(index) << 48, 80),
            ],
        })
        .collect();
    let inbound = (0..300u16)
        .map(|index| {
            grant(
                1_000 + index,
                1_001 + index,
                Peers::Set(index.into()),
                format!("v/{index}"),
            )
        })
        .collect();
    let policy = Policy {
        sets,
        inbound,
        ..Policy::default()
    };
    let image = build(&policy);
    let mut granted = 0;
    for _ in 0..20_000 {
        // Ports beside the peers that they are for.
        let index = rng.u32(..300);
        let port = 999 + u16::try_from(index).unwrap() + rng.u16(..4);
        let peer = match rng.u8(..4) {
            0 => Ipv4Addr::from_bits(0x0a00_0000 | index << 8 | rng.u32(..256)).into(),
            1 => Ipv4Addr::from_bits(0x0b00_0000 | index).into(),
            2 => Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(index)).into(),
            _ => random::peer(&mut rng, &policy),
        };
        let key = Key::port(0, port);
        let question = Question {
            direction: Direction::Ingress,
            key,
            peer,
            other: 1,
        };
        granted += u32::from(compare(&policy, &image, &question) == Reason::Granted);
    }
    assert!(granted > 5_000, "{granted}");
}

fn v4(address: u32, length: u8) -> IpNet {
    Ipv4Net::new(Ipv4Addr::from_bits(address), length)
        .unwrap()
        .into()
}

fn v6(address: u128, length: u8) -> IpNet {
    Ipv6Net::new(Ipv6Addr::from_bits(address), length)
        .unwrap()
        .into()
}

/// Mixed lengths of both families, the worst kinds included: time, memory, and a sample of answers.
#[test]
fn a_hundred_thousand_prefixes() {
    let mut rng = Rng::with_seed(5);
    let prefixes: Vec<IpNet> = (0..100_000)
        .map(|index| match index % 4 {
            0 => v4(rng.u32(..), rng.u8(8..=32)),
            1 => v4(0x0a00_0000 | rng.u32(..1 << 24), 32),
            2 => v6(0x2001_0db8 << 96 | rng.u128(..1 << 40) << 56, 64),
            _ => v6(0xfd00 << 112 | rng.u128(..1 << 64), 128),
        })
        .collect();
    let sample: Vec<IpNet> = prefixes.iter().step_by(17).copied().collect();
    let policy = Policy {
        sets: vec![PeerSet {
            name: "all".into(),
            prefixes,
        }],
        inbound: vec![grant(443, 443, Peers::Set(0), "v/https".into())],
        ..Policy::default()
    };
    // Of this thread alone: what else the machine does at the time is not the compiler's.
    let start = thread_time().unwrap();
    let image = build(&policy);
    let took = thread_time().unwrap().saturating_sub(start);
    let blocks = image.blocks.len() * 1024;
    let steps = image.steps.len() * size_of::<Step>();
    let nets = image.nets.len() * size_of::<Net6>() + image.filter.len() * 8;
    let hosts = image.hosts.len() * size_of::<Host6>();
    println!(
        "{took:?}; {} KiB of blocks, {} KiB of steps, {} KiB of networks, {} KiB of hosts",
        blocks >> 10,
        steps >> 10,
        nets >> 10,
        hosts >> 10
    );
    assert!(
        took < Duration::from_secs(20),
        "{took:?} without optimisation"
    );
    // Beside these there are 10 MiB of tables that do not grow, a million flows included.
    let all = blocks + steps + nets + hosts;
    assert!(all < 20 << 20, "{} KiB", all >> 10);
    let ask = |peer: IpAddr| {
        let key = Key::port(0, 443);
        let question = Question {
            direction: Direction::Ingress,
            key,
            peer,
            other: 1,
        };
        question.ask(&image).reason
    };
    for net in sample {
        assert_eq!(ask(net.network()), Reason::Granted, "{net}");
        assert_eq!(ask(net.broadcast()), Reason::Granted, "{net}");
    }
    assert_eq!(
        ask(Ipv6Addr::from_bits(0xfd02 << 112).into()),
        Reason::UndocumentedPeer
    );
}

/// What cannot fit is refused, not cut.
#[test]
fn too_much_is_refused() {
    let inbound = (0..16_500u16)
        .map(|index| grant(index, index, Peers::Any, format!("v/{index}")))
        .collect();
    let policy = Policy {
        inbound,
        ..Policy::default()
    };
    assert!(matches!(
        Image::build(&policy, Directory::default()),
        Err(TooLarge::Cells)
    ));
}
