//! Who is connected when a guard starts to enforce stays connected, or the guard says whom it would cut.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Tcp};
use portguard_harness::net::{End, Lab};
use portguard_harness::traffic::{
    PacketSocket, TcpEcho, UdpEcho, connect, exchange_tcp, receive_datagram, udp_socket,
};

use crate::guard::{Guarded, SHORT, SOON};

/// The port that the policy documents.
const OPEN: u16 = 7000;

#[test]
fn sessions_of_the_host_survive_and_sessions_of_peers_are_not_cut_unasked() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    for (ours, theirs) in left.both().into_iter().zip(right.both()) {
        let outside = TcpEcho::start(&right.host, SocketAddr::new(theirs, 0))?;
        let mut own = left
            .host
            .run(|| connect(outside.address(), SOON).stream())?;
        // What the round before cut off ends by its own retransmissions: until then it counts as open.
        let mut output = None;
        crate::guard::eventually("nothing is left of the round before", || {
            let loaded = guarded.run(&guarded.load_args("--enforce", &[OPEN], &[]), None)?;
            let is_loaded = loaded.status.success();
            output = Some(loaded);
            Ok(is_loaded)
        })?;
        let output = output.context("a load")?;
        ensure!(
            output.stderr.contains("of the host's own seeded")
                // A session that was closed a moment ago may still count; this one must.
                && !output.stderr.contains(" 0 of the host's own seeded"),
            "{output:?}"
        );
        ensure!(
            exchange_tcp(&mut own, b"still here", SOON)?,
            "{ours}: the host's own session was cut"
        );
        let refused = right
            .host
            .run(|| Ok(connect(SocketAddr::new(ours, 7009), SOON)))?;
        ensure!(refused.is_timed_out(), "{refused:?}");
        guarded.unload()?.success()?;
        drop(own);

        let server = TcpEcho::start(&left.host, SocketAddr::new(ours, 7008))?;
        let mut peer = right
            .host
            .run(|| connect(server.address(), SOON).stream())?;
        ensure!(exchange_tcp(&mut peer, b"hello", SOON)?);
        let output = guarded.run(&guarded.load_args("--enforce", &[OPEN], &[]), None)?;
        ensure!(output.code() == 2, "{output:?}");
        ensure!(output.stderr.contains("tcp port 7008"), "{output:?}");
        ensure!(guarded.status()?.is_none());
        ensure!(exchange_tcp(&mut peer, b"hello", SOON)?);
        guarded.load("--enforce", &[OPEN], &["--force"])?;
        ensure!(
            !exchange_tcp(&mut peer, b"hello", SOON)?,
            "forced, and yet it lives"
        );
        guarded.unload()?.success()?;
    }
    Ok(())
}

#[test]
fn the_operators_own_connection_is_not_cut_unasked() -> Result<()> {
    let guarded = Guarded::new()?;
    let own = IpAddr::V4(guarded.link.left.v4());
    let ssh = format!("10.77.0.2 50000 {own} 22");
    let load = |more: &[&str]| -> Result<_> {
        let args = guarded.load_args("--enforce", &[OPEN], more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        command.env("SSH_CONNECTION", &ssh);
        guarded
            .link
            .left
            .host
            .output(&mut command, crate::guard::LONG)
    };
    let output = load(&[])?;
    ensure!(output.code() == 2, "{output:?}");
    ensure!(
        output.stderr.contains("--management tcp/22=10.77.0.2"),
        "{output:?}"
    );
    let output = load(&["--management", "tcp/22=10.77.0.0/24"])?.success()?;
    ensure!(output.stderr.contains("stays open"), "{output:?}");
    let status = guarded.status()?.unwrap();
    let left = status["confirm_seconds_left"].as_u64();
    ensure!(
        left.is_some_and(|left| (100..=120).contains(&left)),
        "{status}"
    );
    load(&["--force", "--confirm-within", "0"])?.success()?;
    let status = guarded.status()?.unwrap();
    ensure!(status.get("confirm_deadline").is_none(), "{status}");
    Ok(())
}

/// Where the host's address is, when it is not on the guarded interface: commands for `ip`, after which packets for it come
/// by the guarded interface all the same.
const ELSEWHERE: [(&str, &str); 3] = [
    (
        "a bridge",
        "link add br0 type bridge; link set IF master br0; link set br0 up; addr flush dev IF; addr add 10.77.0.1/24 dev br0",
    ),
    (
        "a macvlan",
        "link add mv0 link IF type macvlan mode bridge; link set mv0 up; addr flush dev IF; addr add 10.77.0.1/24 dev mv0",
    ),
    ("the loopback interface", "addr add 10.77.9.1/32 dev lo"),
];

#[test]
fn sessions_are_seen_wherever_the_host_has_its_address() -> Result<()> {
    for (place, commands) in ELSEWHERE {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        for command in commands.split("; ") {
            let mut ip = std::process::Command::new("ip");
            let command = command.replace("IF", guarded.interface());
            ip.args(command.split(' '));
            left.host.output(&mut ip, crate::guard::LONG)?.success()?;
        }
        let own: IpAddr = if place.starts_with("the loopback") {
            let mut ip = std::process::Command::new("ip");
            ip.args(["route", "add", "10.77.9.1/32", "via", "10.77.0.1"]);
            right.host.output(&mut ip, crate::guard::LONG)?.success()?;
            "10.77.9.1".parse()?
        } else {
            "10.77.0.1".parse()?
        };
        let server = TcpEcho::start(&left.host, SocketAddr::new(own, 7008))?;
        let mut peer = right
            .host
            .run(|| connect(server.address(), 4 * SOON).stream())?;
        let refused = guarded.run(&guarded.load_args("--enforce", &[OPEN], &[]), None)?;
        ensure!(
            refused.code() == 2 && refused.stderr.contains("tcp port 7008"),
            "{place}: {refused:?}"
        );
        ensure!(exchange_tcp(&mut peer, b"hello", SOON)?, "{place}");
        // The operator's own, too.
        let args = guarded.load_args("--enforce", &[OPEN], &["--force"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        command.env("SSH_CONNECTION", format!("10.77.0.2 50000 {own} 22"));
        let forced = left
            .host
            .output(&mut command, crate::guard::LONG)?
            .success()?;
        ensure!(
            forced.stderr.contains("would cut your own SSH connection"),
            "{place}: {forced:?}"
        );
    }
    Ok(())
}

#[test]
fn a_session_by_another_interface_is_no_matter_of_this_one() -> Result<()> {
    let guarded = Guarded::new()?;
    let left = &guarded.link.left;
    let lab = Lab::new()?;
    let other = lab.host("other")?;
    let second = End::new("second").address("10.79.0.1/24");
    let end = End::new("r0").address("10.79.0.2/24");
    let link = lab.connect(&left.host, &second, &other, &end)?;
    let server = TcpEcho::start(&left.host, "10.79.0.1:7008".parse()?)?;
    let mut peer = link
        .right
        .host
        .run(|| connect(server.address(), SOON).stream())?;
    guarded.load("--enforce", &[OPEN], &[])?;
    ensure!(exchange_tcp(&mut peer, b"hello", SOON)?);
    Ok(())
}

#[test]
fn half_open_connections_hinder_nobody() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let _server = TcpEcho::start(&left.host, SocketAddr::new(left.v4().into(), 7008))?;
    let socket = right.host.run(|| PacketSocket::open(&right.name))?;
    for port in 1..=100 {
        // Nobody has the address, so that nobody takes back what was begun.
        let syn = Frame::between(right, left)
            .ipv4(Ipv4::new("10.77.0.99".parse()?, left.v4()))
            .tcp(Tcp::syn(port, 7008))
            .build();
        socket.send(&syn)?;
    }
    let half_open = || -> Result<usize> {
        let table = left
            .host
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/tcp")?))?;
        // The fourth column is the state: 03 is SYN_RECV.
        Ok(table
            .lines()
            .filter(|line| line.split_whitespace().nth(3) == Some("03"))
            .count())
    };
    crate::guard::eventually("half-open connections", || Ok(half_open()? > 50))?;
    guarded.load("--enforce", &[OPEN], &[])?;
    Ok(())
}

#[test]
fn behind_a_redirect_it_is_the_port_outside_that_counts() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let rules = "table ip redirected {\n chain before {\n  type nat hook prerouting priority -100;\n  tcp dport 2222 redirect to :22\n }\n}\n";
    let path = std::env::temp_dir().join(format!("{}.nft", guarded.interface()));
    std::fs::write(&path, rules)?;
    let mut nft = std::process::Command::new("nft");
    nft.arg("-f").arg(&path);
    left.host.output(&mut nft, crate::guard::LONG)?.success()?;
    std::fs::remove_file(&path)?;
    let own = IpAddr::V4(left.v4());
    let _server = TcpEcho::start(&left.host, SocketAddr::new(own, 22))?;
    let peer = |port: u16| {
        let to = SocketAddr::new(own, port);
        right.host.run(|| connect(to, SOON).stream())
    };
    let load = |session: &std::net::TcpStream, more: &[&str]| -> Result<_> {
        let args = guarded.load_args("--enforce", &[OPEN], more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        // What sshd says: its own socket's end, which is behind the redirect.
        let remote = session.local_addr()?;
        let ssh = format!("{} {} {own} 22", remote.ip(), remote.port());
        command.env("SSH_CONNECTION", ssh);
        left.host.output(&mut command, crate::guard::LONG)
    };
    let inner = ["--management", "tcp/22"];
    let outer = ["--management", "tcp/2222"];
    let redirected = peer(2222)?;
    let refused = load(&redirected, &inner)?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains("--management tcp/2222="),
        "{refused:?}"
    );
    ensure!(!refused.stderr.contains("stays open"), "{refused:?}");
    let output = load(&redirected, &outer)?.success()?;
    ensure!(output.stderr.contains("stays open"), "{output:?}");
    guarded.unload()?.success()?;
    drop(redirected);
    let direct = peer(22)?;
    let output = load(&direct, &inner)?.success()?;
    ensure!(output.stderr.contains("stays open"), "{output:?}");
    Ok(())
}

/// Where a guard is in force, its table decides what becomes of a session, and so `load` asks it.
#[test]
fn what_load_says_of_sessions_is_what_becomes_of_them() -> Result<()> {
    const PICKED: u16 = 40_500;
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let load = |more: &[&str]| {
        let args = guarded.load_args("--enforce", &[OPEN], more);
        guarded.run(&args, None)
    };
    guarded.load("--audit", &[OPEN], &[])?;
    let address = SocketAddr::new(left.v4().into(), PICKED);
    let outside = UdpEcho::start(&right.host, SocketAddr::new(right.v4().into(), 8001))?;
    // Two sockets that look alike: each on a port that clients have, connected, and nobody else listens there.
    let service = left.host.run(|| udp_socket(address))?;
    let stranger = right
        .host
        .run(|| udp_socket(SocketAddr::new(right.v4().into(), 0)))?;
    stranger.send_to(b"hello", address)?;
    ensure!(receive_datagram(&service, Instant::now() + SOON)?.is_some());
    service.connect(stranger.local_addr()?)?;
    let own = left
        .host
        .run(|| udp_socket(SocketAddr::new(left.v4().into(), 0)))?;
    own.connect(outside.address())?;
    own.send(b"mine")?;
    ensure!(receive_datagram(&own, Instant::now() + SOON)?.is_some());

    let refused = load(&[])?;
    ensure!(refused.code() == 2, "{refused:?}");
    ensure!(
        refused.stderr.contains("would cut 1 open session")
            && refused.stderr.contains(&format!("udp port {PICKED}")),
        "{refused:?}"
    );
    let forced = load(&["--force"])?.success()?;
    ensure!(
        forced
            .stderr
            .contains("1 of the host's own seeded, 0 documented, 1 cut"),
        "{forced:?}"
    );
    stranger.send_to(b"still?", address)?;
    own.send(b"mine")?;
    ensure!(receive_datagram(&own, Instant::now() + SOON)?.is_some());
    ensure!(receive_datagram(&service, Instant::now())?.is_none());
    drop((service, own));

    // A narrower outbound policy cuts what the host began, which `load` and `flows` say.
    let outbound = |more: &[&'static str]| -> Vec<&'static str> {
        let words = "--outbound enforce --system-version 10 --choose directory-port=636 --choose mail-port=587";
        words.split(' ').chain(more.iter().copied()).collect()
    };
    let server = TcpEcho::start(&right.host, SocketAddr::new(right.v4().into(), 5000))?;
    let mut own = left.host.run(|| connect(server.address(), SOON).stream())?;
    ensure!(exchange_tcp(&mut own, b"before", SOON)?);
    let live = || {
        let [ours, theirs] = [own.local_addr()?, own.peer_addr()?].map(|end| end.to_string());
        let args = ["flows", "--live", "tcp", &ours, &theirs].map(str::to_owned);
        Ok::<_, anyhow::Error>(guarded.run(&args, None)?.code() == 0)
    };
    ensure!(live()?);
    let refused = load(&outbound(&[]))?;
    ensure!(refused.code() == 2, "{refused:?}");
    ensure!(
        refused.stderr.contains("would cut 1 open session"),
        "{refused:?}"
    );
    load(&outbound(&["--force"]))?.success()?;
    ensure!(!live()?);
    ensure!(!exchange_tcp(&mut own.try_clone()?, b"after", SHORT)?);
    Ok(())
}

/// Nobody answers from the address of a group: who sends to one has no session that could be cut.
#[test]
fn who_sends_to_a_group_is_no_obstacle() -> Result<()> {
    let guarded = Guarded::new()?;
    let left = &guarded.link.left;
    let _senders = left.host.run(|| {
        let v4 = udp_socket(SocketAddr::new(IpAddr::V4(left.v4()), 16_002))?;
        v4.connect("239.1.1.1:7777")?;
        Ok(v4)
    })?;
    guarded.load("--enforce", &[OPEN], &[])?;
    Ok(())
}

/// What the guard in force cuts already keeps nobody from another policy, nor from going back.
#[test]
fn what_is_cut_already_is_no_obstacle() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let server = TcpEcho::start(&left.host, SocketAddr::new(IpAddr::V4(left.v4()), 7008))?;
    let mut peer = right
        .host
        .run(|| connect(server.address(), SOON).stream())?;
    ensure!(exchange_tcp(&mut peer, b"hello", SOON)?);
    let load = |ports: &[u16], more: &[&str]| {
        guarded.run(&guarded.load_args("--enforce", ports, more), None)
    };
    ensure!(load(&[OPEN], &[])?.code() == 2);
    load(&[OPEN], &["--cut-sessions"])?.success()?;
    load(&[OPEN], &[])?.success()?;
    guarded.run(&["rollback".to_owned()], None)?.success()?;
    // Where it lives, going back asks as loading does, and takes the same word.
    load(
        &[OPEN, 7008],
        &["--allow-weaker", "--management", "tcp/7008"],
    )?
    .success()?;
    ensure!(exchange_tcp(&mut peer, b"hello", SOON * 4)?);
    let refused = guarded.run(&["rollback".to_owned()], None)?;
    ensure!(refused.code() == 2, "{refused}");
    ensure!(refused.stderr.contains("`--cut-sessions`"), "{refused}");
    guarded
        .run(&["rollback", "--cut-sessions"].map(str::to_owned), None)?
        .success()?;
    Ok(())
}

/// A socket that is connected to nobody, on a port that the kernel picked and that its program told the other end, as media
/// streams have it: who speaks first there is cut by enforcing, however the host answers, and `load` says so.
#[test]
fn a_stream_to_a_picked_port_is_not_cut_unasked() -> Result<()> {
    const TURN: Duration = Duration::from_millis(100);
    // With a port of its own from which much comes, one of the range that clients have, and one that has two ways to be answered.
    for (index, (theirs, answers)) in [(20_000, true), (40_000, true), (20_002, false)]
        .into_iter()
        .enumerate()
    {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        let own = left.both()[index % 2];
        let from = right.both()[index % 2];
        guarded.load("--audit", &[OPEN], &[])?;
        let any: IpAddr = if index == 0 {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        } else {
            own
        };
        let (here, asks) = left.host.run(|| {
            Ok((
                udp_socket(SocketAddr::new(any, 0))?,
                udp_socket(SocketAddr::new(own, 0))?,
            ))
        })?;
        let port = here.local_addr()?.port();
        let outside = UdpEcho::start(&right.host, SocketAddr::new(from, 8001))?;
        let there = right
            .host
            .run(|| udp_socket(SocketAddr::new(from, theirs)))?;
        let goes_on = |what: &[u8]| -> Result<bool> {
            there.send_to(what, SocketAddr::new(own, port))?;
            let heard = receive_datagram(&here, Instant::now() + TURN)?;
            if let (Some((_, back)), true) = (&heard, answers) {
                here.send_to(b"back", *back)?;
            }
            Ok(heard.is_some())
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            ensure!(goes_on(b"media")?, "in audit");
            // What the host asks by such a port is no session of another's.
            asks.send_to(b"mine", outside.address())?;
            ensure!(receive_datagram(&asks, Instant::now() + SOON)?.is_some());
            std::thread::sleep(TURN);
        }
        let load = |more: &[&str]| {
            let args = guarded.load_args("--enforce", &[OPEN], more);
            guarded.run(&args, None)
        };
        let refused = load(&[])?;
        ensure!(refused.code() == 2, "{refused:?}");
        ensure!(
            refused.stderr.contains("would cut 1 open session")
                && refused
                    .stderr
                    .contains(&format!("udp port {port} from {from}"))
                && refused
                    .stderr
                    .contains(&SocketAddr::new(from, theirs).to_string()),
            "{refused:?}"
        );
        ensure!(goes_on(b"media")?, "after the refusal");
        load(&["--cut-sessions"])?.success()?;
        ensure!(!goes_on(b"media")?, "enforced, and yet it is heard");
        asks.send_to(b"mine", outside.address())?;
        ensure!(receive_datagram(&asks, Instant::now() + SOON)?.is_some());
        // It is cut: that is no reason to refuse the next policy.
        load(&[])?.success()?;
    }
    Ok(())
}
