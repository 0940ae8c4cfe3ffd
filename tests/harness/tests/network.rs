//! The harness proves itself on private networks. Needs root, and says so.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use portguard_harness::frames::{self, Extension, Frame, Ipv4, Ipv6, Tcp, Udp, fragments, split};
use portguard_harness::net::{End, Lab, Link, unique_name};
use portguard_harness::traffic::{
    Listeners, PacketSocket, TcpEcho, UdpEcho, connect, contains, count_datagrams, exchange_tcp,
    exchange_udp, ping, receive_datagram, scan_tcp, udp_socket,
};

const SOON: Duration = Duration::from_secs(2);

fn soon() -> Instant {
    Instant::now() + SOON
}

#[test]
fn hosts_ping_each_other() -> Result<()> {
    let link = Lab::new()?.pair()?;
    for target in link.right.both() {
        assert!(
            link.left.host.run(|| ping(target, SOON))?.is_some(),
            "{target}"
        );
    }
    let nobody: IpAddr = "10.77.0.99".parse()?;
    let short = Duration::from_millis(100);
    assert!(link.left.host.run(|| ping(nobody, short))?.is_none());
    Ok(())
}

#[test]
fn tcp_connects_is_refused_or_times_out() -> Result<()> {
    let link = Lab::new()?.pair()?;
    for target in link.right.both() {
        let server = TcpEcho::start(&link.right.host, (target, 0).into())?;
        let echoed = link.left.host.run(|| {
            let mut stream = connect(server.address(), SOON).stream()?;
            exchange_tcp(&mut stream, &vec![7; 3_000_000], SOON)
        })?;
        assert!(echoed);
        assert_eq!(server.accepted(), 1);
        let closed: SocketAddr = (target, 9).into();
        assert!(
            link.left
                .host
                .run(|| Ok(connect(closed, SOON)))?
                .is_refused()
        );
    }
    // Somebody who takes frames and never answers.
    let silent: IpAddr = "10.77.0.99".parse()?;
    link.left.add_neighbour(silent, [2, 9, 9, 9, 9, 9])?;
    let outcome = link
        .left
        .host
        .run(|| Ok(connect((silent, 9).into(), Duration::from_millis(200))))?;
    assert!(outcome.is_timed_out(), "{outcome:?}");
    Ok(())
}

#[test]
fn a_router_joins_two_links() -> Result<()> {
    let lab = Lab::new()?;
    let (left, router, right) = (lab.host("left")?, lab.host("router")?, lab.host("right")?);
    let first = lab.connect(
        &left,
        &End::new("eth0")
            .address("10.1.0.1/24")
            .address("fd01::1/64"),
        &router,
        &End::new("eth0")
            .address("10.1.0.254/24")
            .address("fd01::fe/64"),
    )?;
    let second = lab.connect(
        &router,
        &End::new("eth1")
            .address("10.2.0.254/24")
            .address("fd02::fe/64"),
        &right,
        &End::new("eth0")
            .address("10.2.0.1/24")
            .address("fd02::1/64"),
    )?;
    router.sysctl("net/ipv4/ip_forward", "1")?;
    router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    for (default, near, far) in ["0.0.0.0/0", "::/0"]
        .into_iter()
        .zip(first.right.both())
        .zip(second.left.both())
        .map(|((default, near), far)| (default, near, far))
    {
        first.left.add_route(default.parse()?, Some(near))?;
        second.right.add_route(default.parse()?, Some(far))?;
    }
    for target in second.right.both() {
        assert!(left.run(|| ping(target, SOON))?.is_some(), "{target}");
    }
    first.right.add_route("192.0.2.0/24".parse()?, None)
}

#[test]
fn udp_flows_and_is_counted() -> Result<()> {
    let link = Lab::new()?.pair()?;
    for target in link.right.both() {
        let server = UdpEcho::start(&link.right.host, (target, 0).into())?;
        assert!(
            link.left
                .host
                .run(|| exchange_udp(server.address(), b"there and back", SOON))?
        );
        assert_eq!(server.received(), 1);
        let nobody: SocketAddr = (target, 9).into();
        assert!(!link.left.host.run(|| exchange_udp(nobody, b"?", SOON))?);

        let sink = link.right.host.run(|| udp_socket((target, 0).into()))?;
        let to = sink.local_addr()?;
        link.left.host.run(|| {
            let any: IpAddr = if target.is_ipv4() {
                [0; 4].into()
            } else {
                [0_u16; 8].into()
            };
            let socket = udp_socket((any, 0).into())?;
            for _ in 0..500 {
                socket.send_to(b"x", to)?;
            }
            Ok(())
        })?;
        assert_eq!(count_datagrams(&sink, 500, soon())?, 500);
    }
    Ok(())
}

/// A UDP packet in one raw frame from left to right.
fn datagram(link: &Link, v6: bool, port: u16, payload: &[u8]) -> Frame {
    let frame = Frame::between(&link.left, &link.right);
    let frame = if v6 {
        frame.ipv6(Ipv6::new(link.left.v6(), link.right.v6()))
    } else {
        frame.ipv4(Ipv4::new(link.left.v4(), link.right.v4()))
    };
    frame.udp(Udp::new(4000, port)).payload(payload)
}

#[test]
fn fragments_reassemble_in_any_order() -> Result<()> {
    let link = Lab::new()?.pair()?;
    let payload: Vec<u8> = (0..3000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for (v6, target) in [false, true].into_iter().zip(link.right.both()) {
        let sink = link.right.host.run(|| udp_socket((target, 5000).into()))?;
        let whole = datagram(&link, v6, 5000, &payload).build();
        let mut ranges = split(3008, 1000);
        ranges.reverse();
        link.left.host.run(|| {
            let socket = PacketSocket::open(&link.left.name)?;
            for piece in fragments(&whole, 77, &ranges)? {
                socket.send(&piece)?;
            }
            Ok(())
        })?;
        let received = receive_datagram(&sink, soon())?.map(|(bytes, _)| bytes);
        assert_eq!(received.as_ref(), Some(&payload), "v6: {v6}");
    }
    Ok(())
}

#[test]
fn the_stack_takes_built_frames() -> Result<()> {
    let link = Lab::new()?.pair()?;
    let sink = link
        .right
        .host
        .run(|| udp_socket((link.right.v6(), 5000).into()))?;
    let sink4 = link
        .right
        .host
        .run(|| udp_socket((link.right.v4(), 5000).into()))?;
    let options = Frame::between(&link.left, &link.right)
        .ipv4(Ipv4::new(link.left.v4(), link.right.v4()).options([1, 1, 1]))
        .udp(Udp::new(1, 5000))
        .payload(*b"options");
    let chain = Frame::between(&link.left, &link.right)
        .ipv6(Ipv6::new(link.left.v6(), link.right.v6()))
        .extension(Extension::hop_by_hop(1))
        .extension(Extension::destination(0))
        .extension(Extension::fragment(0, false, 5))
        .udp(Udp::new(1, 5000))
        .payload(*b"chain");
    let tagged = datagram(&link, false, 5000, b"tagged").tag(0x8100, 0);
    link.left.host.run(|| {
        let socket = PacketSocket::open(&link.left.name)?;
        for frame in [options, chain, tagged] {
            socket.send(&frame.build())?;
        }
        Ok(())
    })?;
    for wanted in [b"options".as_slice(), b"tagged"] {
        assert_eq!(
            receive_datagram(&sink4, soon())?
                .map(|got| got.0)
                .as_deref(),
            Some(wanted)
        );
    }
    let got = receive_datagram(&sink, soon())?.map(|got| got.0);
    assert_eq!(got.as_deref(), Some(b"chain".as_slice()));
    Ok(())
}

#[test]
fn capture_sees_what_arrives_and_not_what_leaves() -> Result<()> {
    let link = Lab::new()?.pair()?;
    let mut far = link
        .right
        .host
        .run(|| PacketSocket::open(&link.right.name))?;
    let mut near = link.left.host.run(|| PacketSocket::open(&link.left.name))?;
    let frame = Frame::between(&link.left, &link.right)
        .payload(*b"marked")
        .pad(60)
        .build();
    for _ in 0..3 {
        near.send(&frame)?;
    }
    assert_eq!(far.count(soon(), 3, |frame| contains(frame, b"marked"))?, 3);
    let mut leaked = 0;
    near.drain(|frame| leaked += usize::from(contains(frame, b"marked")))?;
    assert_eq!(leaked, 0);
    Ok(())
}

#[test]
fn a_scan_tells_all_ports_apart() -> Result<()> {
    let link = Lab::new()?.pair()?;
    let ports = [1, 22, 443, 40_000, 65_535];
    for (any, target) in ["0.0.0.0", "::"].into_iter().zip(link.right.both()) {
        let listeners = Listeners::start(&link.right.host, any.parse()?, ports)?;
        assert_eq!(listeners.count(), ports.len());
        let started = Instant::now();
        let scan = scan_tcp(
            &link.left,
            &link.right,
            target,
            0..=u16::MAX,
            Duration::from_mins(1),
        )?;
        println!("65536 ports of {target} in {:?}", started.elapsed());
        assert_eq!(scan.open(), ports);
        assert_eq!(scan.silent(), [] as [u16; 0]);
        assert_eq!(scan.closed().len(), 65_536 - ports.len());
    }
    let nobody = scan_tcp(&link.left, &link.right, "10.77.0.9".parse()?, 1..=100, SOON)?;
    assert_eq!(nobody.silent().len(), 100);
    assert_eq!(nobody.answer(101), None);
    Ok(())
}

#[test]
fn a_dropped_host_is_gone() -> Result<()> {
    let lab = Lab::new()?;
    let (left, right) = (lab.host("left")?, lab.host("right")?);
    lab.connect(&left, &End::new("near0"), &right, &End::new("far0"))?;
    assert!(left.index("near0")? > 1);
    drop(right);
    // The kernel takes the veth pair down with the namespace of either end.
    left.wait_gone("near0", Duration::from_secs(10))
}

#[test]
fn a_panic_leaves_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let left = lab.host("left")?;
    let near = left.clone();
    let outcome = std::panic::catch_unwind(move || {
        let right = lab.host("right").unwrap();
        lab.connect(&near, &End::new("near0"), &right, &End::new("far0"))
            .unwrap();
        right.run(|| -> Result<()> { panic!("on purpose") })
    });
    assert!(outcome.is_err());
    left.wait_gone("near0", Duration::from_secs(10))
}

#[test]
fn links_have_what_was_asked_for() -> Result<()> {
    let lab = Lab::new()?;
    let (left, right) = (lab.host("left")?, lab.host("right")?);
    let mac = [2, 0xaa, 0xbb, 0xcc, 0xdd, 1];
    let first = lab.connect(
        &left,
        &End::new("eth0")
            .mac(mac)
            .mtu(9000)
            .queues(2)
            .index(77)
            .address("192.0.2.1/24"),
        &right,
        &End::new("eth0")
            .mtu(9000)
            .queues(2)
            .index(78)
            .address("192.0.2.2/24"),
    )?;
    let second = lab.connect(
        &left,
        &End::new("eth1").address("198.51.100.1/24"),
        &right,
        &End::new("eth1").address("198.51.100.2/24"),
    )?;
    assert_eq!(
        (first.left.index, first.right.index, first.left.mac),
        (77, 78, mac)
    );
    for link in [&first, &second] {
        assert!(left.run(|| ping(link.right.v4().into(), SOON))?.is_some());
    }
    let mut far = right.run(|| PacketSocket::open("eth0"))?;
    let large = Frame::between(&first.left, &first.right)
        .payload(vec![9; 9000])
        .build();
    left.run(|| PacketSocket::open("eth0")?.send(&large))?;
    assert_eq!(
        far.find(soon(), |frame| frame.len() > 2000)?
            .map(|frame| frame.len()),
        Some(9014)
    );
    let seen = left
        .output(
            Command::new("ip").args(["-d", "link", "show", "eth0"]),
            SOON,
        )?
        .success()?;
    assert!(seen.stdout.contains("02:aa:bb:cc:dd:01") && seen.stdout.contains("numrxqueues 2"));
    assert!(
        lab.connect(
            &left,
            &End::new("x").address("nonsense"),
            &right,
            &End::new("y")
        )
        .is_err()
    );
    Ok(())
}

#[test]
fn commands_run_inside_and_end() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("host")?;
    let seen = host
        .output(
            Command::new("readlink").args(["/proc/self/ns/net", "/proc/self/ns/mnt"]),
            SOON,
        )?
        .success()?;
    let mounts = std::fs::read_link("/proc/self/ns/mnt")?;
    assert_eq!(
        seen.stdout,
        format!("net:[{}]\n{}\n", host.inode()?, mounts.display())
    );

    let failed = host.output(Command::new("sh").args(["-c", "echo no >&2; exit 3"]), SOON)?;
    assert_eq!((failed.code(), failed.stderr.as_str()), (3, "no\n"));
    assert!(failed.success().is_err());

    let short = Duration::from_millis(100);
    let error = host
        .output(Command::new("sleep").arg("60"), short)
        .unwrap_err();
    assert!(error.to_string().contains("did not end"), "{error}");

    let mut talker = host.start(Command::new("sh").args(["-c", "echo ready; exec sleep 60"]))?;
    assert_eq!(talker.wait_for("ready", SOON)?, "ready\n");
    assert!(talker.wait_for("never", short).is_err());
    assert!(talker.wait(short)?.is_none());
    talker.terminate()?;
    assert!(talker.wait(SOON)?.is_some());
    Ok(())
}

#[test]
fn hosts_keep_to_themselves() -> Result<()> {
    let lab = Lab::new()?;
    let outside = std::fs::read_link("/proc/self/ns/net")?;
    let (left, right) = (lab.host("left")?, lab.host("right")?);
    let inodes = BTreeSet::from([left.inode()?, right.inode()?]);
    assert_eq!(inodes.len(), 2);
    assert!(
        !inodes
            .iter()
            .any(|inode| outside == *format!("net:[{inode}]"))
    );
    left.sysctl("net/ipv4/ip_default_ttl", "33")?;
    let ttl = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned());
    assert_eq!(
        left.run(|| Ok(ttl("/proc/sys/net/ipv4/ip_default_ttl")?))?,
        "33"
    );
    assert_eq!(
        right.run(|| Ok(ttl("/proc/sys/net/ipv4/ip_default_ttl")?))?,
        "64"
    );
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net")?, outside);
    assert!(left.run(|| ping([127, 0, 0, 1].into(), SOON))?.is_some());
    Ok(())
}

#[test]
fn interface_names_are_unique_and_short() {
    let names: BTreeSet<String> = (0..1000).map(|_| unique_name("pgl")).collect();
    assert_eq!(names.len(), 1000);
    assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
}

#[test]
fn a_dropped_server_frees_its_port() -> Result<()> {
    let host = Lab::new()?.host("host")?;
    for _ in 0..3 {
        drop(TcpEcho::start(&host, "127.0.0.1:7000".parse()?)?);
        drop(UdpEcho::start(&host, "127.0.0.1:7000".parse()?)?);
    }
    Ok(())
}

#[test]
fn a_raw_syn_is_answered() -> Result<()> {
    let link = Lab::new()?.pair()?;
    let _listener = Listeners::start(&link.right.host, link.right.v4().into(), [80])?;
    let mut near = link.left.host.run(|| PacketSocket::open(&link.left.name))?;
    let syn = Frame::between(&link.left, &link.right)
        .ipv4(Ipv4::new(link.left.v4(), link.right.v4()))
        .tcp(Tcp::syn(1234, 80))
        .build();
    near.send(&syn)?;
    let answer = near.find(soon(), |frame| frame.get(23) == Some(&frames::number::TCP))?;
    assert_eq!(answer.map(|frame| frame[47]), Some(Tcp::SYN | Tcp::ACK));
    Ok(())
}
