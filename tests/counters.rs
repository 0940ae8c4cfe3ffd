//! What is counted is what was sent, exactly: over several CPUs, over reloads, and with no tool running.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::{TestRun as _, TestRunOptions};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use portguard_common::tables::Key;
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::net::{Lab, Link};
use portguard_harness::traffic::PacketSocket;
use portguard_kernel::object::{HostFacts, load};
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::{self, Layout};
use portguard_observe::counters::Snapshot;
use portguard_policy::catalog::Transport;
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::{Grant, GrantKind, Peers, Policy};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// Keeps the calling thread, and those that it starts, on one CPU.
pub(crate) fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn frame(link: Option<&Link>, destination_port: u16) -> Vec<u8> {
    let (frame, from, to) = match link {
        Some(link) => (
            Frame::between(&link.left, &link.right),
            link.left.v4(),
            link.right.v4(),
        ),
        None => (
            Frame::new([2; 6], [4; 6]),
            [10, 0, 0, 1].into(),
            [10, 0, 0, 2].into(),
        ),
    };
    frame
        .ipv4(Ipv4::new(from, to))
        .udp(Udp::new(40_000, destination_port))
        .payload(vec![1; 58])
        .build()
}

#[test]
fn sums_are_exact_when_all_cpus_count() -> Result<()> {
    const EACH: u32 = 20_000;
    let policy = Policy {
        inbound: vec![Grant {
            kind: GrantKind::Documented,
            transport: Transport::Udp,
            first: 53,
            last: 53,
            peers: Peers::Any,
            row: "t/dns".into(),
            until: None,
        }],
        ..Policy::default()
    };
    let image = Image::build(&policy, Directory::default())?;
    let _mounted = pins::lock()?;
    let shared = bpffs::root().join(format!("exact-{}", std::process::id()));
    std::fs::create_dir_all(&shared)?;
    let result = (|| {
        let mut loaded = load(&image, &HostFacts::default(), Some(&shared))?;
        let program = &*loaded.ingress()?;
        // Each CPU by itself, all at once, and twice as many threads as CPUs so that they also take turns.
        thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * cpus())
                .map(|index| {
                    scope.spawn(move || -> Result<()> {
                        pin_to(index % cpus())?;
                        for port in [53, 54, 54_321] {
                            program.test_run(TestRunOptions {
                                data_in: Some(&frame(None, port)),
                                repeat: EACH,
                                ..TestRunOptions::default()
                            })?;
                        }
                        Ok(())
                    })
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        let snapshot = Snapshot::read(&shared, image.directory.cells.len())?;
        let all = u64::from(EACH) * 2 * cpus() as u64;
        let granted = snapshot.cells.first().copied().unwrap_or_default();
        assert_eq!((granted.packets, granted.bytes), (all, all * 100));
        for port in [54, 54_321] {
            let place = (false, Key::port(1, port));
            assert_eq!(snapshot.violations.get(&place), Some(&all), "{port}");
        }
        assert_eq!(snapshot.violations.len(), 2);
        let total: u64 = snapshot.totals.values().map(|sum| sum.packets).sum();
        assert_eq!(total, 2 * all);
        Ok(())
    })();
    std::fs::remove_dir_all(&shared)?;
    result
}

/// Runs portguard on the right host of a link.
fn portguard(link: &Link, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
    command.args(arguments);
    let output = link.right.host.output(&mut command, SOON)?;
    Ok(output
        .success()
        .with_context(|| format!("portguard {}", arguments.join(" ")))?
        .stdout)
}

fn load_role(link: &Link, more: &[&str]) -> Result<()> {
    let mut arguments = vec![
        "load",
        "--role=wso2/identity-server",
        "--unprinted-peers=any",
        "--unresolved-peers=any",
        "--unresolved-ports=none",
        "--interface",
        &link.right.name,
    ];
    arguments.extend(more);
    portguard(link, &arguments).map(drop)
}

fn counters(link: &Link, more: &[&str]) -> Result<Value> {
    let mut arguments = vec!["counters", "--json"];
    arguments.extend(more);
    let answer: Value = serde_json::from_str(&portguard(link, &arguments)?)?;
    assert_eq!(answer["schema"], 1);
    Ok(answer["interfaces"][0].clone())
}

fn violations(report: &Value, port: u16) -> u64 {
    let ports = report["ports"].as_array().expect("ports");
    let line = ports.iter().find(|line| {
        line["direction"] == "in" && line["transport"] == "udp" && line["port"] == port
    });
    line.map_or(0, |line| {
        line["violations"]["packets"].as_u64().expect("a number")
    })
}

/// Sends from all CPUs at once, in bursts that a queue holds, and sees each burst counted before the next.
fn send(link: &Link, layout: &Layout, port: u16, bursts: u64) -> Result<u64> {
    const BURST: u64 = 32;
    let bytes = frame(Some(link), port);
    let key = (false, Key::port(1, port));
    let count = || -> Result<u64> {
        let snapshot = Snapshot::read(&layout.shared(), 0)?;
        Ok(snapshot.violations.get(&key).copied().unwrap_or(0))
    };
    let before = count()?;
    let senders = cpus() as u64;
    for burst in 1..=bursts {
        thread::scope(|scope| {
            let bytes = &bytes;
            let threads: Vec<_> = (0..cpus())
                .map(|cpu| {
                    scope.spawn(move || {
                        pin_to(cpu)?;
                        link.left.host.enter()?;
                        let socket = PacketSocket::open(&link.left.name)?;
                        (0..BURST).try_for_each(|_| socket.send(bytes))
                    })
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        let wanted = before + burst * BURST * senders;
        let deadline = Instant::now() + Duration::from_secs(5);
        while count()? < wanted {
            ensure!(
                Instant::now() < deadline,
                "{} of {wanted} counted",
                count()?
            );
            thread::yield_now();
        }
    }
    Ok(bursts * BURST * senders)
}

#[test]
fn counts_go_on_over_reloads_resets_and_dead_tools() -> Result<()> {
    let link = Lab::new()?.pair()?;
    load_role(&link, &["--audit"])?;
    let layout = link.right.host.run(|| Ok(Layout::of(&link.right.name)))?;

    // No process of ours runs while these are counted.
    let mut sent = send(&link, &layout, 61_001, 4)?;
    let first = counters(&link, &[])?;
    assert_eq!(violations(&first, 61_001), sent);
    assert_eq!(first["mode"], "audit");
    assert_eq!(first["generation"], 1);

    // Another generation, which drops.
    load_role(&link, &["--enforce"])?;
    sent += send(&link, &layout, 61_001, 4)?;
    let second = counters(&link, &[])?;
    assert_eq!(violations(&second, 61_001), sent);
    assert_eq!(
        (&second["mode"], &second["generation"]),
        (&"enforce".into(), &2.into())
    );
    assert_ne!(first["digest"], second["digest"]);
    let reasons = second["reasons"].as_array().context("reasons")?;
    let reason = reasons
        .iter()
        .find(|line| line["reason"] == "undocumented-port")
        .context("undocumented-port")?;
    assert_eq!(reason["packets"], sent);
    assert_eq!(reason["bytes"], sent * 100);

    // A reset counts from now, survives a reload, and loses nothing.
    portguard(&link, &["counters", "reset", "--note", "acceptance"])?;
    load_role(&link, &["--audit"])?;
    let more = send(&link, &layout, 61_001, 2)?;
    let since = counters(&link, &[])?;
    assert_eq!(violations(&since, 61_001), more);
    assert_eq!(since["reset"]["note"], "acceptance");
    assert_eq!(
        violations(&counters(&link, &["--raw"])?, 61_001),
        sent + more
    );
    let record = portguard(&link, &["counters", "reset", "--list"])?;
    assert!(record.contains("acceptance"), "{record}");

    // In words: what is not documented, and how much of it.
    let text = portguard(&link, &["counters", "--violations", "--raw"])?;
    let line = text.lines().find(|line| line.contains("udp/61001"));
    let line = line.context("a line for the port")?;
    assert!(line.contains("not documented"), "{line}");
    portguard(&link, &["unload"])?;
    Ok(())
}

#[test]
fn watch_shows_rates_and_ends_well_when_interrupted() -> Result<()> {
    let link = Lab::new()?.pair()?;
    load_role(&link, &["--audit"])?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
    command.args(["counters", "--watch", "--by", "reason"]);
    let watch = link.right.host.start(&mut command)?;
    watch.wait_for("packets/s", SOON)?;
    let target: SocketAddr = (link.right.v4(), 61_002).into();
    link.left.host.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        Ok(socket.send_to(b"knock", target)?)
    })?;
    let seen = watch.wait_for("undocumented-port", SOON)?;
    assert!(!seen.contains('\x1b'), "no terminal, no escapes: {seen}");
    watch.interrupt()?;
    assert_eq!(watch.output(SOON)?.code(), 0);
    portguard(&link, &["unload"])?;
    Ok(())
}
