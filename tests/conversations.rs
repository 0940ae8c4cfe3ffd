//! Which conversations are the host's: begun by it, known for as long as they last, and nobody else's.

mod audited;
mod bounds;
mod containers;
mod edges;
mod equals;
mod forwarded;
mod gateway;
mod held;
mod modes;
mod sctp;
mod services;
mod through;
mod translated;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{
    TcpEcho, UdpEcho, begin_connecting, connect, receive_datagram, udp_socket, wait_readable,
};
use serde_json::Value;

use crate::guard::{Guarded, SHORT, SOON, eventually};

/// A port that no row has.
const CLOSED: u16 = 9999;
/// Another, among those that the kernel picks.
const ASKED_FOR: u16 = 41_000;
/// A port that one has.
const OPEN: u16 = 7000;

fn flows(guarded: &Guarded) -> Result<Value> {
    let output = guarded.run(&["flows", "--json"].map(str::to_owned), None)?;
    let answer: Value = serde_json::from_str(&output.success()?.stdout)?;
    Ok(answer["interfaces"][0].clone())
}

/// Packets of a reason, inbound.
fn counted(guarded: &Guarded, reason: &str) -> Result<u64> {
    let args = ["counters", "--by", "reason", "--json"].map(str::to_owned);
    let output = guarded.run(&args, None)?.success()?;
    let answer: Value = serde_json::from_str(&output.stdout)?;
    let reasons = answer["interfaces"][0]["reasons"]
        .as_array()
        .cloned()
        .context("reasons")?;
    Ok(reasons
        .iter()
        .filter(|one| one["direction"] == "in" && one["reason"] == reason)
        .filter_map(|one| one["packets"].as_u64())
        .sum())
}

/// Whether a datagram of this socket is answered.
fn is_answered(socket: &UdpSocket, to: SocketAddr, wait: Duration) -> Result<bool> {
    socket.send_to(b"are you there?", to)?;
    Ok(receive_datagram(socket, Instant::now() + wait)?.is_some())
}

#[test]
fn audit_counts_each_datagram_to_an_undocumented_service() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    guarded.load("--audit", &[OPEN], &[])?;
    let families = left.both().into_iter().zip(right.both());
    for ((ours, theirs), own) in families.flat_map(|ends| [(ends, CLOSED), (ends, ASKED_FOR)]) {
        let service = UdpEcho::start(&left.host, SocketAddr::new(ours, own))?;
        // A port that clients pick, and two that servers have.
        for port in [0, 53, 123] {
            let caller = right
                .host
                .run(|| udp_socket(SocketAddr::new(theirs, port)))?;
            let before = counted(&guarded, "undocumented-port")?;
            for _ in 0..20 {
                ensure!(is_answered(&caller, service.address(), SOON)?);
            }
            let after = counted(&guarded, "undocumented-port")?;
            ensure!(
                after - before == 20,
                "{ours} from port {port}: {before} {after}"
            );
        }
    }
    ensure!(counted(&guarded, "reply")? == 0);
    Ok(())
}

#[test]
fn who_was_answered_in_audit_is_a_stranger_when_it_enforces() -> Result<()> {
    for steps in [
        &["--enforce"][..],
        &["--enforce", "--audit", "rollback"],
        &["--enforce", "--audit", "--enforce"],
    ] {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        let service = UdpEcho::start(&left.host, SocketAddr::new(left.v4().into(), CLOSED))?;
        let own = UdpEcho::start(&right.host, SocketAddr::new(right.v4().into(), 8001))?;
        let stranger = right
            .host
            .run(|| udp_socket(SocketAddr::new(right.v4().into(), 0)))?;
        let client = left
            .host
            .run(|| udp_socket(SocketAddr::new(left.v4().into(), 0)))?;
        guarded.load("--audit", &[OPEN], &[])?;
        ensure!(is_answered(&stranger, service.address(), SOON)?);
        ensure!(is_answered(&client, own.address(), SOON)?);
        for step in steps {
            match *step {
                "rollback" => drop(guarded.run(&["rollback".to_owned()], None)?.success()?),
                mode => drop(guarded.load(mode, &[OPEN], &["--force"])?),
            }
            let is_open = *step == "--audit";
            let wait = if is_open { SOON } else { SHORT };
            for _ in 0..3 {
                let answered = is_answered(&stranger, service.address(), wait)?;
                ensure!(answered == is_open, "{steps:?}: {step}");
                ensure!(
                    is_answered(&client, own.address(), SOON)?,
                    "{steps:?}: {step}: its own"
                );
            }
        }
    }
    Ok(())
}

/// Both ends of a connection that the host opened.
fn pair(guarded: &Guarded, theirs: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let listener = right
        .host
        .run(|| Ok(TcpListener::bind(SocketAddr::new(theirs, 0))?))?;
    let opener = left
        .host
        .run(|| connect(listener.local_addr()?, SOON).stream())?;
    Ok((opener, listener.accept()?.0))
}

/// Whether the far end is heard.
fn hears(opener: &TcpStream, accepter: &mut TcpStream) -> Result<bool> {
    accepter.write_all(b"x")?;
    Ok(wait_readable(opener, Instant::now() + SOON)? && { opener }.read(&mut [0; 8])? == 1)
}

#[test]
fn quiet_connections_outlive_a_flood_of_questions() -> Result<()> {
    const QUIET: usize = 40;
    const QUESTIONS: u32 = 64_000;
    const CONNECTIONS: u32 = 10_000;
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    // Half are there at load, and half come after.
    let mut quiet = Vec::new();
    for _ in 0..QUIET / 2 {
        quiet.push(pair(&guarded, right.v4().into())?);
    }
    guarded.load("--enforce", &[OPEN], &[])?;
    for _ in 0..QUIET / 2 {
        quiet.push(pair(&guarded, right.v6().into())?);
    }
    left.host.run(|| {
        let to = SocketAddr::new(right.v4().into(), 53);
        for _ in 0..QUESTIONS {
            // Refused is as good.
            let _ = UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", to);
        }
        for _ in 0..CONNECTIONS {
            ensure!(connect(SocketAddr::new(right.v4().into(), 81), SOON).is_refused());
        }
        Ok(())
    })?;
    for (index, (opener, accepter)) in quiet.iter_mut().enumerate() {
        ensure!(hears(opener, accepter)?, "connection {index} is lost");
    }
    let known = flows(&guarded)?["occupancy"]["sockets"].as_u64();
    ensure!(known == Some(QUIET as u64), "{known:?}");
    drop(quiet);
    eventually("closed connections are forgotten", || {
        Ok(flows(&guarded)?["occupancy"]["sockets"] == 0)
    })?;
    Ok(())
}

/// Pins of the table that are gone are made again by the next load, and nothing that it knew is lost.
#[test]
fn pins_that_are_gone_come_back_with_what_they_held() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let asked = SocketAddr::new(right.v4().into(), 8001);
    let (_tcp, _udp) = (
        TcpEcho::start(&right.host, asked)?,
        UdpEcho::start(&right.host, asked)?,
    );
    guarded.load("--enforce", &[OPEN], &[])?;
    let directory = left.host.run(|| {
        let found = portguard_kernel::conversations::find().context("a state")?;
        Ok(found.directory().to_owned())
    })?;
    let (opener, mut accepter) = pair(&guarded, right.v4().into())?;
    let client = left
        .host
        .run(|| udp_socket(SocketAddr::new(left.v4().into(), 0)))?;
    ensure!(is_answered(&client, asked, SOON)?);
    let warnings = || -> Result<String> {
        let status = guarded.status()?.context("a guard")?;
        Ok(status["warnings"].to_string())
    };
    let is_said = |what: &str| -> Result<()> {
        let warnings = warnings()?;
        ensure!(warnings.contains("pins of the table"), "{what}: {warnings}");
        Ok(())
    };
    for gone in [
        &["FLOWS"][..],
        &["adopt"],
        &["THEIRS", "SPILLED", "OUTSIDE", "SERVICES"],
        &["NAMESPACE", "COUNTS"],
        &["FLOWS", "adopt", "program", "sockets"],
        &["BOUND"],
        &["HELD", "BOUND", "close", "bind4", "bind6"],
    ] {
        let created = flows(&guarded)?["created"].clone();
        for name in gone {
            std::fs::remove_file(directory.join(name))?;
        }
        if !gone.contains(&"NAMESPACE") {
            is_said(&gone.join(" "))?;
        }
        ensure!(hears(&opener, &mut accepter)?, "without {gone:?}");
        guarded.load("--enforce", &[OPEN], &[])?;
        ensure!(
            warnings()? == "null" || warnings()? == "[]",
            "{}",
            warnings()?
        );
        ensure!(hears(&opener, &mut accepter)?, "{gone:?} are back");
        let service = UdpEcho::start(&left.host, SocketAddr::new(left.v4().into(), CLOSED))?;
        ensure!(!guarded.reaches(CLOSED, SHORT)?);
        drop(service);
        // It is the same table, not a new one.
        let after = flows(&guarded)?["created"].clone();
        ensure!(after == created, "{gone:?}: {created} {after}");
    }
    // The whole of it.
    std::fs::remove_dir_all(&directory)?;
    guarded.load("--enforce", &[OPEN], &[])?;
    ensure!(hears(&opener, &mut accepter)?, "made anew");
    ensure!(is_answered(&client, asked, SOON)?);
    Ok(())
}

/// Who sends one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Host,
    Peer,
}

/// What arrived of the peer's datagrams, over all kinds of conversations, and what was counted.
fn all_kinds(mode: &str) -> Result<(usize, u64, u64)> {
    use Says::{Host, Peer};
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    guarded.load(mode, &[OPEN], &[])?;
    let mut heard = 0;
    for (ours, theirs) in left.both().into_iter().zip(right.both()) {
        for own in [0, CLOSED, ASKED_FOR, OPEN, 53] {
            for other in [0, 53, 123, 8001] {
                // What a client says to a name server is a question, whoever spoke first.
                if own == 0 && [53, 123].contains(&other) {
                    continue;
                }
                for turns in [
                    [Host, Peer, Peer, Host, Peer],
                    [Peer, Host, Peer, Host, Peer],
                    [Peer, Peer, Peer, Host, Host],
                    [Host, Host, Peer, Peer, Peer],
                ] {
                    let a = left.host.run(|| udp_socket(SocketAddr::new(ours, own)))?;
                    let b = right
                        .host
                        .run(|| udp_socket(SocketAddr::new(theirs, other)))?;
                    let mut answers = 0;
                    for turn in turns {
                        while receive_datagram(&a, Instant::now())?.is_some() {
                            answers += 1;
                        }
                        match turn {
                            // Who did not ask answers what it hears.
                            Host if turns[0] == Peer && answers == 0 => continue,
                            Host => a.send_to(b"a", b.local_addr()?)?,
                            Peer => b.send_to(b"b", a.local_addr()?)?,
                        };
                    }
                    while receive_datagram(&a, Instant::now())?.is_some() {
                        answers += 1;
                    }
                    heard += answers;
                }
            }
        }
    }
    let violations =
        counted(&guarded, "undocumented-port")? + counted(&guarded, "undocumented-peer")?;
    Ok((heard, violations, counted(&guarded, "reply")?))
}

/// Whoever speaks first, and from and to whatever port: what audit counts as a violation is what enforce drops.
#[test]
fn audit_counts_what_enforce_drops_in_every_kind_of_conversation() -> Result<()> {
    let (all, violations, replies) = all_kinds("--audit")?;
    let (heard, dropped, same) = all_kinds("--enforce")?;
    ensure!(violations > 0 && replies > 0);
    ensure!(
        violations == dropped && replies == same,
        "{violations} {dropped}, {replies} {same}"
    );
    ensure!(
        all as u64 - dropped == heard as u64,
        "{all} {dropped} {heard}"
    );
    Ok(())
}

/// Loads a policy with a table of conversations as small as it may be.
fn load_small(guarded: &Guarded, mode: &[&str]) -> Result<()> {
    let site = std::env::temp_dir().join(format!("{}-small.toml", guarded.interface()));
    std::fs::write(
        &site,
        "schema = 1\nunprinted_peers = \"none\"\nunresolved_peers = \"none\"\n[timeouts]\nflows = 1024\n\
         [management]\nnone = true\n[systems.thoughtspot]\nversion = \"10\"\n\
         choices = { directory-port = \"636\", mail-port = \"587\" }\n\
         [[host]]\nname = \"here\"\naddresses = [\"10.77.0.1\"]\nroles = [\"thoughtspot/node\"]\n",
    )?;
    let file = site.display().to_string();
    let args = ["load", "-c", &file, "--interface", guarded.interface()];
    let args: Vec<String> = args
        .iter()
        .chain(mode)
        .map(|word| (*word).to_owned())
        .collect();
    let loaded = guarded.run(&args, None);
    std::fs::remove_file(&site)?;
    loaded?.success()?;
    Ok(())
}

/// Who opens more than there is room for hears of it.
#[test]
fn a_table_that_is_full_says_so() -> Result<()> {
    const CONNECTIONS: usize = 1_200;
    let guarded = Guarded::new()?;
    let left = &guarded.link.left;
    load_small(&guarded, &["--audit"])?;
    let warnings = || -> Result<String> {
        let status = guarded.status()?.context("a guard")?;
        Ok(status["warnings"].to_string())
    };
    ensure!(!warnings()?.contains("no room"), "{}", warnings()?);
    // Nobody answers: each is open for as long as its socket is.
    let mut neighbour = std::process::Command::new("ip");
    neighbour.args([
        "neigh",
        "add",
        "10.77.0.99",
        "lladdr",
        "02:00:00:00:00:63",
        "dev",
    ]);
    let output = left.host.output(neighbour.arg(guarded.interface()), SOON)?;
    output.success()?;
    let to = SocketAddr::from(([10, 77, 0, 99], 8001));
    let open = left.host.run(|| {
        (0..CONNECTIONS)
            .map(|_| begin_connecting(to))
            .collect::<Result<Vec<_>>>()
    })?;
    let table = flows(&guarded)?;
    let lost = table["lost"].as_u64().context("lost")?;
    ensure!(lost > 0 && lost < CONNECTIONS as u64 / 2, "{table}");
    ensure!(
        warnings()?.contains("there was no room for"),
        "{}",
        warnings()?
    );
    let text = guarded.run(&["flows".to_owned()], None)?.success()?.stdout;
    ensure!(text.contains("no room"), "{text}");
    // As they close, there is room again.
    drop(open);
    eventually("closed connections make room", || {
        Ok(flows(&guarded)?["occupancy"]["sockets"] == 0)
    })?;
    Ok(())
}

/// Where the root of cgroup v2 cannot be had: what hides it, and whether mounting it would help.
const HIDDEN_ROOTS: [(&str, bool); 2] = [
    ("umount --all --types cgroup2 --lazy", true),
    // As in a container: what is mounted is a part of the tree.
    (
        "at=$(awk '/ - cgroup2 / {print $5; exit}' /proc/self/mountinfo) && mkdir -p $at/portguard-part && mount --bind $at/portguard-part $at",
        false,
    ),
];

/// Without the root of cgroup v2, TCP is known by its packets. Every view says so in a line, and `doctor` what to do.
#[test]
fn without_the_root_of_cgroup_v2_packets_tell_and_status_says_so() -> Result<()> {
    let each = HIDDEN_ROOTS.into_iter().map(|(hide, is_to_mount)| {
        without_root(hide, is_to_mount).with_context(|| hide.to_owned())
    });
    let done = each.collect();
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let _ = std::fs::remove_dir(format!("{root}/portguard-part"));
    }
    done
}

fn without_root(hide: &str, is_to_mount: bool) -> Result<()> {
    let guarded = Guarded::new()?;
    let right = &guarded.link.right;
    let hidden = |args: &[String]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{hide}; exec \"$0\" \"$@\""));
        command.arg(env!("CARGO_BIN_EXE_portguard")).args(args);
        guarded.link.left.host.output(&mut command, SOON * 10)
    };
    hidden(&guarded.load_args("--enforce", &[OPEN], &[]))?.success()?;
    let short = hidden(&["counters".to_owned()])?.success()?.stdout;
    let said = short.lines().filter(|line| line.contains("  warning: "));
    let said: Vec<&str> = said.filter(|line| line.contains("not followed")).collect();
    // Two lines of 80 columns.
    ensure!(matches!(said[..], [one] if one.len() < 149), "{short}");
    let doctor = hidden(&["doctor".to_owned()])?.stdout;
    assert_eq!(doctor.contains("mount -t cgroup2"), is_to_mount, "{doctor}");
    assert_eq!(doctor.contains("--cgroupns=host"), !is_to_mount, "{doctor}");
    let status = guarded.status()?.context("a guard")?["warnings"].to_string();
    ensure!(status.contains("sockets are not followed"), "{status}");
    let (opener, mut accepter) = pair(&guarded, right.v4().into())?;
    ensure!(hears(&opener, &mut accepter)?);
    ensure!(flows(&guarded)?["occupancy"]["sockets"] == 0);
    // The next load finds it again, and what was known by its packets stays known.
    guarded.load("--enforce", &[OPEN], &[])?;
    let status = guarded.status()?.context("a guard")?["warnings"].to_string();
    ensure!(!status.contains("sockets are not followed"), "{status}");
    ensure!(hears(&opener, &mut accepter)?);
    Ok(())
}
