//! The kernel's verdict and the host's are one.
use aya::TestRun as _;
use aya::TestRunOptions;
use portguard::catalog::Transport;
use portguard::cells::Directory;
use portguard::image::Image;
use portguard::object::{HostFacts, load};
use portguard::policy::{Grant, GrantKind, PeerSet, Peers, Policy};

fn sample() -> Policy {
    let grant = |transport, first, last, peers, row: &str| Grant {
        kind: GrantKind::Documented,
        transport,
        first,
        last,
        peers,
        row: row.into(),
    };
    Policy {
        sets: vec![
            PeerSet {
                name: "a".into(),
                prefixes: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()],
            },
            PeerSet {
                name: "b".into(),
                prefixes: vec![
                    "192.0.2.7/32".parse().unwrap(),
                    "2001:db8::7/128".parse().unwrap(),
                    "10.1.2.3/32".parse().unwrap(),
                ],
            },
        ],
        inbound: vec![
            grant(Transport::Tcp, 22, 22, Peers::Any, "t/ssh"),
            grant(Transport::Tcp, 443, 443, Peers::Set(0), "t/https"),
            grant(Transport::Tcp, 443, 443, Peers::Set(1), "t/https-b"),
            grant(Transport::Udp, 53, 53, Peers::Any, "t/dns"),
        ],
        settings: portguard::policy::Settings {
            enforce: true,
            ..Default::default()
        },
        ..Policy::default()
    }
}

#[test]
fn smoke() {
    let image = Image::build(&sample(), Directory::default()).unwrap();
    for (mb, sources) in [(false, false), (false, true), (true, false)] {
        let mut i = image.clone();
        if !sources {
            i.facts.sources = 0;
            i.facts.hosts = 0;
            for e in &mut i.inbound {
                *e &= 0x7fff;
            }
        }
        let mut l = load(
            &i,
            &HostFacts {
                multi_buffer: mb,
                ..Default::default()
            },
            None,
        )
        .unwrap();
        println!(
            "mb {mb} sources {sources} {} verified",
            l.ingress()
                .unwrap()
                .info()
                .unwrap()
                .verified_instruction_count()
                .unwrap()
        );
    }
    let mut loaded = load(&image, &HostFacts::default(), None).unwrap();
    let program = loaded.ingress().unwrap();
    println!(
        "{} verified",
        program
            .info()
            .unwrap()
            .verified_instruction_count()
            .unwrap()
    );
    let mut frame = vec![0u8; 64];
    frame[12] = 8;
    frame[14] = 0x45;
    frame[17] = 50;
    frame[23] = 6;
    frame[26..30].copy_from_slice(&[10, 1, 2, 3]);
    frame[37] = 22;
    for (port, want) in [(22u16, 2), (23, 1), (443, 2)] {
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: 1_000_000,
                ..TestRunOptions::default()
            })
            .unwrap();
        println!("{port} {} {:?}", result.return_value, result.duration);
        assert_eq!(result.return_value, want);
    }
}
