//! From wider to narrower nothing lingers: who was let in by the wider policy is a stranger to the narrower one, and the host's
//! own conversations go on. Every pair of the table in SPECIFICATION.md is tried.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use portguard_harness::net::{Host as Harness, Output};
use portguard_harness::traffic::{
    TcpEcho, UdpEcho, connect, connect_from, exchange_tcp, receive_datagram, udp_socket,
    wait_readable,
};
use portguard_policy::human::rfc3339;
use serde_json::Value;

use crate::agent::listening;
use crate::guard::{Guarded, LONG, SOON, eventually};
use crate::names::server::NameServer;

/// The port of the service that strangers use: UDP and TCP.
const SERVICE: u16 = 9999;
/// Those whose socket is connected to its client, as DTLS has it.
const CONNECTED: [u16; 2] = [9996, 9998];
/// One that hears what is for many.
const MANY: u16 = 9997;
/// What the host asks outside.
const OUTSIDE: u16 = 8001;
/// A group.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

/// What is added to the ports of services where that many are open ([`LONG_RANGE`]): they are among those that the kernel gives to clients.
const AMONG_CLIENTS: u16 = 32_000;
/// A state with more ports open than count as those of services.
const LONG_RANGE: &str = "long range open";

/// Ways in which strangers are let in.
const WIDE: [&str; 9] = [
    "not guarded",
    "audit",
    "ports in audit",
    "row in audit",
    "open to all",
    "open to the peer",
    LONG_RANGE,
    "open to a name",
    "enforce, lapsed",
];
/// Ways in which they are not.
const NARROW: [&str; 11] = [
    "enforce",
    "enforce, unconfirmed",
    "enforce, confirmed",
    "lapse to enforce",
    "unload, enforce",
    "open to others",
    "name elsewhere",
    "name followed",
    "row ends",
    "outbound enforce",
    "rollback to enforce",
];

/// Rows for the service, for these peers.
fn rows(peers: &str, more: &str) -> String {
    format!(
        "[[row]]\nname = \"service\"\ndirection = \"in\"\ntransport = [\"tcp\", \"udp\"]\nports = [\"9996-{SERVICE}\"]\n\
         peers = {peers}\nreason = \"a test\"\n{more}\n"
    )
}

/// What the site says: the lines before its tables, its rows, and lines of the host.
fn site(state: &str) -> (&'static str, String, &'static str) {
    let enforce = "mode = \"enforce\"\noutbound = \"audit\"";
    let others = "[\"192.0.2.1\"]";
    match state {
        "audit" => ("mode = \"audit\"\noutbound = \"audit\"", String::new(), ""),
        "ports in audit" => (
            enforce,
            String::new(),
            "audit_ports = [\"tcp/9996-9999\", \"udp/9996-9999\"]",
        ),
        "row in audit" => (enforce, rows(others, "audit = true"), ""),
        "open to all" => (enforce, rows("\"any\"", ""), ""),
        LONG_RANGE => {
            let long = rows("[\"10.77.0.2\", \"fd77::2\"]", "").replace("9996-9999", "40000-42000");
            (enforce, long, "")
        }
        "open to the peer" => (enforce, rows("[\"10.77.0.2\", \"fd77::2\"]", ""), ""),
        "open to a name" | "name elsewhere" => (enforce, rows("[\"domain:peer.example\"]", ""), ""),
        "open to others" => (enforce, rows(others, ""), ""),
        "outbound enforce" => (
            "mode = \"enforce\"\noutbound = \"enforce\"",
            String::new(),
            "",
        ),
        _ => (enforce, String::new(), ""),
    }
}

struct Host {
    guarded: Guarded,
    directory: PathBuf,
    /// Says where the name is.
    names: NameServer,
    /// When the service's rows end, in seconds since 1970.
    end: Cell<Option<u64>>,
}

/// Where the host asks for names.
const RESOLVER: &str = "127.0.0.1:5353";

impl Host {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let directory = std::env::temp_dir().join(format!("{}-narrow", guarded.interface()));
        std::fs::create_dir_all(&directory)?;
        let names = NameServer::start(&guarded.link.left.host, RESOLVER.parse()?)?;
        Ok(Self {
            guarded,
            directory,
            names,
            end: Cell::default(),
        })
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Guarded::command(args);
        command.env("STATE_DIRECTORY", &self.directory);
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    fn load(&self, state: &str) -> Result<()> {
        self.load_for(
            state,
            match state {
                "enforce, lapsed" => "1ns",
                "enforce, unconfirmed" | "enforce, confirmed" => "1m",
                _ => "0",
            },
        )
    }

    /// Loads it for so long, unless it is confirmed.
    fn load_for(&self, state: &str, within: &str) -> Result<()> {
        let (head, mut rows, host) = site(state);
        if let Some(end) = self.end.get() {
            let end = rfc3339(end * 1_000_000_000);
            rows = rows.replace("reason", &format!("expires = {end}\nreason"));
        }
        let text = format!(
            "schema = 1\n{head}\nunprinted_peers = \"none\"\nunresolved_peers = \"none\"\n[management]\nnone = true\n\
             [systems.thoughtspot]\nversion = \"10\"\nchoices = {{ directory-port = \"636\", mail-port = \"587\" }}\n{rows}\
             [[row]]\nname = \"outside\"\ndirection = \"out\"\ntransport = [\"tcp\", \"udp\"]\nports = [{OUTSIDE}]\n\
             peers = [\"10.77.0.2\", \"fd77::2\"]\nreason = \"a test\"\n\
             [[host]]\nname = \"here\"\naddresses = [\"10.77.0.1\", \"fd77::1\"]\nroles = [\"thoughtspot/node\"]\n{host}\n"
        );
        let file = self.directory.join("site.toml");
        std::fs::write(&file, text)?;
        let file = file.display().to_string();
        let right = &self.guarded.link.right;
        self.names.answer(Ok(match state {
            "name elsewhere" => vec!["192.0.2.1".parse()?, "2001:db8::1".parse()?],
            _ => right.both().to_vec(),
        }));
        self.run(&[
            "load",
            "--resolver",
            RESOLVER,
            "-c",
            &file,
            "--interface",
            self.guarded.interface(),
            "--confirm-within",
            within,
            "--force",
            "--allow-weaker",
        ])?
        .success()?;
        if state == "enforce, confirmed" {
            self.run(&["confirm"])?.success()?;
        }
        Ok(())
    }

    /// Loads a state whose rows end soon, but not before everybody has begun, on a machine as busy as this one.
    fn load_to_end(&self, state: &str, busy: Duration) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let end = (now + Duration::from_secs(2) + 6 * busy).as_secs() + 1;
        self.end.set(Some(end));
        let loaded = self.load(state);
        self.end.set(None);
        loaded
    }

    fn has_ended(&self) -> Result<bool> {
        let status = self.guarded.status()?.context("a guard")?;
        let endings = status
            .pointer("/effective/endings")
            .and_then(Value::as_array);
        let endings = endings.context("endings")?;
        let mut endings = endings.iter();
        Ok(endings.all(|one| one.get("is_over") == Some(&Value::Bool(true))))
    }

    /// Has the agent follow the name to where it is now.
    fn follow(&self) -> Result<()> {
        let elsewhere: Vec<IpAddr> = vec!["192.0.2.1".parse()?, "2001:db8::1".parse()?];
        let named = elsewhere.iter().map(ToString::to_string);
        let wanted: BTreeSet<String> = named.collect();
        let history = self.directory.join("history");
        let history = format!("--history={}", history.display());
        let mut args = vec!["agent", "--every=1", "--min-ttl=1", "--hold=0"];
        args.extend(["--resolver", RESOLVER, &history]);
        let agent = self
            .guarded
            .link
            .left
            .host
            .start(&mut Guarded::command(&args))?;
        listening(&agent)?;
        self.names.answer(Ok(elsewhere));
        eventually("the name is followed", || {
            let status = self.guarded.status()?.context("a guard")?;
            let now = status
                .pointer("/domains/peer.example")
                .and_then(Value::as_array);
            let now = now.into_iter().flatten();
            let now = now.filter_map(|one| Some(one.as_str()?.to_owned()));
            Ok(now.collect::<BTreeSet<_>>() == wanted)
        })?;
        agent.terminate()?;
        agent.output(LONG)?.success()?;
        Ok(())
    }

    /// Datagrams that arrived and are violations, by port.
    fn violations(&self) -> Result<BTreeMap<u16, u64>> {
        let answer = self.run(&["counters", "--json"])?.success()?.stdout;
        let answer: Value = serde_json::from_str(&answer)?;
        let ports = answer.pointer("/interfaces/0/ports");
        let lines = ports.and_then(Value::as_array).context("ports")?;
        let mut counts = BTreeMap::new();
        for line in lines {
            let of = |key| line.pointer(key);
            let is_of = |key, wanted: &str| of(key).is_some_and(|value| value == wanted);
            if is_of("/direction", "in") && is_of("/transport", "udp") {
                let port = of("/port").and_then(Value::as_u64).context("a port")?;
                let packets = of("/violations/packets").and_then(Value::as_u64);
                *counts.entry(port.try_into()?).or_default() += packets.unwrap_or_default();
            }
        }
        Ok(counts)
    }

    fn unload(&self) -> Result<()> {
        self.run(&["unload", "--interface", self.guarded.interface()])?
            .success()?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Both ends of what a stranger has with a service.
struct Stranger {
    what: &'static str,
    client: UdpSocket,
    service: UdpSocket,
    /// Where it speaks to.
    address: SocketAddr,
    /// Whether the service talks to many.
    is_for_many: bool,
}

impl Stranger {
    fn speak(&self) -> Result<()> {
        self.client.send_to(self.what.as_bytes(), self.address)?;
        Ok(())
    }

    /// The service says something unasked.
    fn push(&self) -> Result<()> {
        let mut to = self.client.local_addr()?;
        if self.is_for_many {
            to.set_ip(Ipv4Addr::new(10, 77, 0, 255).into());
        }
        // One that is connected takes no other address.
        self.service
            .send(b"news")
            .or_else(|_| self.service.send_to(b"news", to))?;
        Ok(())
    }
}

/// All that goes on at one of the host's addresses.
struct Talk {
    strangers: Vec<Stranger>,
    accepted: (TcpStream, TcpStream),
    own: (TcpStream, UdpSocket, SocketAddr),
    _echoes: (TcpEcho, UdpEcho),
}

impl Talk {
    /// With what is added to the ports of services.
    fn begin(guarded: &Guarded, ours: IpAddr, theirs: IpAddr, base: u16) -> Result<Self> {
        let (left, right) = (&guarded.link.left.host, &guarded.link.right.host);
        let socket =
            |host: &Harness, address, port| host.run(|| udp_socket(SocketAddr::new(address, port)));
        let mut strangers = Vec::new();
        let mut add = |what, port, service: &UdpSocket, to: SocketAddr| -> Result<()> {
            let client = socket(right, theirs, port)?;
            client.set_broadcast(true)?;
            strangers.push(Stranger {
                what,
                client,
                service: service.try_clone()?,
                address: to,
                is_for_many: to.port() == base + MANY,
            });
            Ok(())
        };
        let service = socket(left, ours, base + SERVICE)?;
        // A port of its own choice, and those of name and time servers, whom the baseline lets the host ask.
        for (what, port) in [("a picked port", 0), ("port 53", 53)] {
            add(what, port, &service, service.local_addr()?)?;
        }
        let ports = [("a connected service", 0), ("one, from port 123", 123)];
        for ((what, port), own) in ports.into_iter().zip(CONNECTED) {
            let service = socket(left, ours, base + own)?;
            add(what, port, &service, service.local_addr()?)?;
        }
        if let IpAddr::V4(ours) = ours {
            let service = socket(left, Ipv4Addr::UNSPECIFIED.into(), base + MANY)?;
            service.set_broadcast(true)?;
            service.join_multicast_v4(&GROUP, &ours)?;
            let all = [
                ("to all", Ipv4Addr::new(10, 77, 0, 255)),
                ("to a group", GROUP),
                ("to who heard all", ours),
            ];
            for (what, to) in all {
                add(what, 0, &service, SocketAddr::new(to.into(), base + MANY))?;
            }
        }
        for stranger in &strangers {
            stranger.speak()?;
            let heard = receive_datagram(&stranger.service, Instant::now() + SOON)?;
            ensure!(heard.is_some(), "{} before", stranger.what);
            // From here on it hears nobody else.
            if CONNECTED.contains(&(stranger.address.port() - base)) {
                stranger.service.connect(stranger.client.local_addr()?)?;
            }
            stranger.push()?;
        }
        let listener =
            left.run(|| Ok(TcpListener::bind(SocketAddr::new(ours, base + SERVICE))?))?;
        let client = right.run(|| {
            let to = listener.local_addr()?;
            connect_from(theirs, to, SOON).stream()
        })?;
        // Who listened is gone, as servers are that serve one.
        let accepted = (client, listener.accept()?.0);
        drop(listener);
        let outside = SocketAddr::new(theirs, OUTSIDE);
        let echoes = (
            TcpEcho::start(right, outside)?,
            UdpEcho::start(right, outside)?,
        );
        let own = left.run(|| {
            let stream = connect(outside, SOON).stream()?;
            let socket = udp_socket(SocketAddr::new(ours, 0))?;
            Ok((stream, socket, outside))
        })?;
        let mut talk = Self {
            strangers,
            accepted,
            own,
            _echoes: echoes,
        };
        talk.own_lives().context("before")?;
        Ok(talk)
    }

    fn own_lives(&mut self) -> Result<()> {
        let (stream, socket, outside) = &mut self.own;
        ensure!(exchange_tcp(stream, b"mine", SOON)?, "the host's own TCP");
        socket.send_to(b"mine", *outside)?;
        let answer = receive_datagram(socket, Instant::now() + SOON)?;
        ensure!(answer.is_some(), "the host's own UDP");
        Ok(())
    }

    fn strangers_speak(&mut self) -> Result<()> {
        for stranger in &self.strangers {
            stranger.speak()?;
        }
        self.accepted.0.write_all(b"hello")?;
        Ok(())
    }

    /// Each service says something unasked.
    fn push(&mut self) -> Result<()> {
        for stranger in &self.strangers {
            stranger.push()?;
        }
        self.accepted.1.write_all(b"news")?;
        Ok(())
    }

    /// What reached a service by now.
    fn nothing_arrived(&mut self) -> Result<()> {
        for stranger in &self.strangers {
            // Several may share a socket: what they say is who they are.
            if let Some((said, _)) = receive_datagram(&stranger.service, Instant::now())? {
                bail!("{} is heard", String::from_utf8_lossy(&said));
            }
        }
        let server = &mut self.accepted.1;
        let is_heard = wait_readable(server, Instant::now())?
            && server.read(&mut [0; 16]).is_ok_and(|count| count > 0);
        ensure!(!is_heard, "who was accepted is heard");
        Ok(())
    }
}

/// All speak, none is heard, and each datagram is a violation.
fn strangers_are_out(host: &Host, talks: &mut [Talk]) -> Result<()> {
    let mut wanted = host.violations()?;
    for talk in talks.iter_mut() {
        talk.strangers_speak()?;
        for stranger in &talk.strangers {
            *wanted.entry(stranger.address.port()).or_default() += 1;
        }
    }
    for talk in talks {
        // What was sent before by the same link has been judged when this is answered.
        talk.own_lives()?;
        talk.nothing_arrived()?;
    }
    let counted = host.violations()?;
    ensure!(counted == wanted, "counted {counted:?}, not {wanted:?}");
    Ok(())
}

/// One pair.
fn narrows(host: &Host, from: &str, to: &str) -> Result<()> {
    let (is_rollback, is_lapse) = (to.starts_with("rollback"), to.starts_with("lapse"));
    let start = Instant::now();
    if is_rollback || is_lapse {
        host.load("enforce")?;
    }
    if is_lapse {
        // Long enough for everybody to begin, on a machine as busy as this one.
        let within = (Duration::from_secs(2) + 6 * start.elapsed()).min(LONG * 3 / 4);
        host.load_for(from, &format!("{}ms", within.as_millis()))?;
    } else if to == "row ends" {
        // How long a load takes tells how busy the machine is.
        host.load("enforce")?;
        host.load_to_end(from, start.elapsed())?;
    } else if from != "not guarded" {
        host.load(from)?;
    }
    let (left, right) = (&host.guarded.link.left, &host.guarded.link.right);
    let mut talks = Vec::new();
    let base = if from == LONG_RANGE { AMONG_CLIENTS } else { 0 };
    for (ours, theirs) in left.both().into_iter().zip(right.both()) {
        talks.push(Talk::begin(&host.guarded, ours, theirs, base)?);
    }
    if is_rollback {
        host.run(&[
            "rollback",
            "--interface",
            host.guarded.interface(),
            "--force",
        ])?
        .success()?;
    } else if is_lapse {
        eventually("the deadline passed", || {
            let status = host.guarded.status()?.context("a guard")?;
            Ok(status.get("confirm_seconds_left").and_then(Value::as_u64) == Some(0))
        })?;
    } else if to == "row ends" {
        ensure!(!host.has_ended()?, "the machine was too slow for this test");
        eventually("the rows ended", || host.has_ended())?;
    } else if to == "name followed" {
        host.follow()?;
    } else if to.starts_with("unload") {
        host.unload()?;
        host.load("enforce")?;
    } else {
        host.load(to)?;
    }
    for talk in &mut talks {
        talk.own_lives()?;
    }
    strangers_are_out(host, &mut talks)?;
    for talk in &mut talks {
        talk.push()?;
    }
    strangers_are_out(host, &mut talks).context("after the service spoke")?;
    for talk in &mut talks {
        talk.own_lives().context("later")?;
    }
    drop(talks);
    host.unload()
}

/// The pairs that the specification names: the lines of its table, and its columns.
fn specified() -> Result<BTreeSet<(String, String)>> {
    let text = include_str!("../SPECIFICATION.md");
    let (_, section) = text.split_once("\n## Narrowing\n").context("the section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut lines = section.lines().filter(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let head = cells(lines.next().context("a table")?);
    let mut pairs = BTreeSet::new();
    for line in lines.skip(1) {
        let line = cells(line);
        let from = line.first().context("a line")?;
        for (to, cell) in head.iter().zip(&line).skip(1) {
            ensure!(cell == "tried" || cell == "none", "{from} to {to}: {cell}");
            if cell == "tried" {
                pairs.insert((from.clone(), to.clone()));
            }
        }
    }
    Ok(pairs)
}

/// Only a name that was somewhere can be elsewhere, and only rows end. There is nothing to go back to, or to unload, where nothing was loaded; and
/// what has lapsed over an enforcing policy went back by itself.
fn exists(from: &str, to: &str) -> bool {
    let goes_back = to.starts_with("rollback") || to.starts_with("lapse");
    match from {
        _ if to.starts_with("name") => from == "open to a name",
        _ if to == "row ends" => from.contains("open") || from == "row in audit",
        "not guarded" => !goes_back && !to.starts_with("unload"),
        "enforce, lapsed" => !goes_back,
        _ => true,
    }
}

#[test]
fn every_pair_is_in_the_specification() -> Result<()> {
    let pairs: BTreeSet<(String, String)> = WIDE
        .iter()
        .flat_map(|from| NARROW.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| exists(from, to))
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect();
    ensure!(specified()? == pairs, "{:#?}", specified()?);
    Ok(())
}

fn all_from(from: &[&str]) -> Result<()> {
    let host = Host::new()?;
    let mut wrong = Vec::new();
    for from in from {
        for to in NARROW.iter().filter(|to| exists(from, to)) {
            if let Err(error) = narrows(&host, from, to) {
                wrong.push(format!("{from} -> {to}: {error:#}"));
                host.run(&["unload", "--interface", host.guarded.interface()])?;
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn nothing_lingers_after_audit() -> Result<()> {
    let (audit, _) = WIDE.split_at(4);
    all_from(audit)
}

#[test]
fn nothing_lingers_after_a_long_range() -> Result<()> {
    all_from(&[LONG_RANGE])
}

#[test]
fn nothing_lingers_after_enforcing_more_widely() -> Result<()> {
    let (_, enforce) = WIDE.split_at(4);
    let others: Vec<&str> = enforce
        .iter()
        .copied()
        .filter(|from| *from != LONG_RANGE)
        .collect();
    all_from(&others)
}
