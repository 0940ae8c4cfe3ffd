//! Sockets that serve and ask, both from one port: of each peer, whoever spoke first asks. Where nobody knows who that was, a
//! question is what its protocol calls so.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::traffic::{UdpEcho, receive_datagram, udp_socket};
use serde_json::Value;

use super::counted;
use super::services::{IDLE, PICKING, Scene};
use crate::guard::{SHORT, SOON, eventually};

/// Ports that are a server's at both ends, in one protocol or another.
const PORTS: [u16; 10] = [53, 67, 123, 137, 161, 500, 547, 4500, 5060, 5353];
/// Where others serve alike.
const SERVERS: [&str; 2] = ["10.77.0.3", "fd77::3"];

/// Rows by which anybody may be asked at those ports; and, if so, may ask.
fn rows(is_open: bool) -> String {
    let row = |direction: &str| {
        format!(
            "[[row]]\nname = \"{direction}\"\ndirection = \"{direction}\"\ntransport = \"udp\"\nports = {PORTS:?}\n\
             peers = \"any\"\nreason = \"a test\"\n"
        )
    };
    let inbound = if is_open { row("in") } else { String::new() };
    row("out") + &inbound
}

/// How a question, and an answer, begin in the protocol of a port, and how long they are.
fn words(port: u16) -> Option<([Vec<u8>; 2], usize)> {
    let [question, answer]: [&[u8]; 2] = match port {
        53 => [&[7, 7, 1, 0, 0, 1, 0, 0], &[7, 7, 0x81, 0x80, 0, 1, 0, 1]],
        123 => [&[0x23, 0, 6, 0xe9], &[0x24, 2, 6, 0xe9]],
        _ => return None,
    };
    Some(([question.to_vec(), answer.to_vec()], 300))
}

/// A socket of the host, a stranger that has talked to it, and a server that it asks.
struct Equal {
    socket: UdpSocket,
    stranger: UdpSocket,
    server: UdpSocket,
    address: SocketAddr,
}

fn scene() -> Result<Scene> {
    let scene = Scene::new(PICKING[0])?;
    for server in SERVERS {
        let prefix = if server.contains(':') { 64 } else { 24 };
        let right = &scene.guarded.link.right;
        right.add_address(format!("{server}/{prefix}").parse()?)?;
    }
    Ok(scene)
}

fn all(scene: &Scene) -> Result<Vec<Equal>> {
    let (left, right) = (&scene.guarded.link.left, &scene.guarded.link.right);
    let ends = left.both().into_iter().zip(right.both()).zip(SERVERS);
    let mut found = Vec::new();
    for ((ours, theirs), server) in ends {
        let server: IpAddr = server.parse()?;
        for port in PORTS {
            let address = SocketAddr::new(ours, port);
            let peer = |peer| right.host.run(|| udp_socket(SocketAddr::new(peer, port)));
            found.push(Equal {
                socket: left.host.run(|| udp_socket(address))?,
                stranger: peer(theirs)?,
                server: peer(server)?,
                address,
            });
        }
    }
    Ok(found)
}

impl Equal {
    /// The stranger asks, and is answered if the service does that.
    fn is_asked(&self, is_answered: bool) -> Result<()> {
        self.stranger.send_to(b"is anybody there?", self.address)?;
        let heard = receive_datagram(&self.socket, Instant::now() + SOON)?;
        ensure!(heard.is_some(), "{} before", self.address);
        if is_answered {
            self.says(b"here", &self.stranger)?;
        }
        Ok(())
    }

    fn says(&self, what: &[u8], to: &UdpSocket) -> Result<()> {
        self.socket.send_to(what, to.local_addr()?)?;
        Ok(())
    }

    /// It says this to the server, and hears the answer.
    fn asks(&self, what: &[u8]) -> Result<()> {
        self.says(what, &self.server)?;
        let heard = receive_datagram(&self.server, Instant::now() + SOON)?;
        let (_, from) = heard.with_context(|| format!("{} asks", self.address))?;
        self.server.send_to(b"an answer", from)?;
        let deadline = Instant::now() + SOON;
        let heard = receive_datagram(&self.socket, deadline)?;
        let (said, _) = heard.with_context(|| format!("{} hears the answer", self.address))?;
        ensure!(said == b"an answer", "{} hears another", self.address);
        Ok(())
    }
}

/// No stranger is heard that speaks.
fn are_out(equals: &[Equal]) -> Result<()> {
    for equal in equals {
        equal.stranger.send_to(b"let me in", equal.address)?;
    }
    std::thread::sleep(SHORT);
    let mut heard = Vec::new();
    for equal in equals {
        while let Some((said, _)) = receive_datagram(&equal.socket, Instant::now())? {
            heard.push((equal.address, String::from_utf8_lossy(&said).into_owned()));
        }
    }
    ensure!(heard.is_empty(), "heard {heard:?}");
    Ok(())
}

/// No stranger is heard, whatever the services say to it; and they ask on, as their protocol has it.
fn strangers_are_out(equals: &[Equal]) -> Result<()> {
    for round in 0..4 {
        are_out(equals).with_context(|| format!("round {round}"))?;
        for equal in equals {
            let spoken = words(equal.address.port());
            let question = spoken.map(|([mut question, mut answer], length)| {
                question.resize(length, 0);
                answer.resize(length, 0);
                (question, answer)
            });
            match (round, question) {
                (1, Some((_, answer))) => equal.says(&answer, &equal.stranger)?,
                (2, _) => equal.says(&[b'a'; 300], &equal.stranger)?,
                (3, Some((question, _))) => equal.asks(&question)?,
                _ => equal.says(b"news", &equal.stranger)?,
            }
        }
    }
    Ok(())
}

#[test]
fn who_talked_to_one_before_the_first_load_is_a_stranger_to_it() -> Result<()> {
    let scene = scene()?;
    let equals = all(&scene)?;
    for equal in &equals {
        equal.is_asked(true)?;
    }
    scene
        .load_rows("--enforce", &rows(false), "0", &["--force"])?
        .success()?;
    strangers_are_out(&equals)
}

#[test]
fn who_was_answered_in_audit_is_a_stranger_however_late() -> Result<()> {
    let scene = scene()?;
    let load = |mode| scene.load_rows(mode, &rows(false), "0", &["--force"]);
    load("--audit")?.success()?;
    let equals = all(&scene)?;
    for equal in &equals {
        equal.is_asked(true)?;
    }
    load("--enforce")?.success()?;
    // Longer than a conversation of datagrams is known, and a unit of time more.
    std::thread::sleep(IDLE * 3);
    strangers_are_out(&equals)
}

/// By a policy that lapsed, whether or not it was answered.
#[test]
fn who_was_heard_by_a_policy_that_lapsed_is_a_stranger_however_late() -> Result<()> {
    for is_answered in [false, true] {
        let scene = scene()?;
        let load = |is_open, within: &str| {
            scene.load_rows("--enforce", &rows(is_open), within, &["--force"])
        };
        let start = Instant::now();
        load(false, "0")?.success()?;
        // Long enough for everybody to begin, on a machine as busy as this one.
        let within = Duration::from_secs(2) + 6 * start.elapsed();
        load(true, &format!("{}ms", within.as_millis()))?.success()?;
        let equals = all(&scene)?;
        for equal in &equals {
            equal.is_asked(is_answered)?;
        }
        eventually("the deadline passed", || {
            let status = scene.guarded.status()?.context("a guard")?;
            Ok(status.get("confirm_seconds_left").and_then(Value::as_u64) == Some(0))
        })?;
        std::thread::sleep(IDLE * 3);
        strangers_are_out(&equals).with_context(|| format!("answered: {is_answered}"))?;
    }
    Ok(())
}

/// Who speaks first with a peer that nothing was heard of is a client, whatever it says and from whatever port.
#[test]
fn who_speaks_first_is_heard() -> Result<()> {
    let scene = scene()?;
    for mode in ["--audit", "--enforce"] {
        scene
            .load_rows(mode, &rows(false), "0", &["--force"])?
            .success()?;
        let equals = all(&scene)?;
        for round in 0..2 {
            for equal in &equals {
                equal.asks(b"whatever").context(mode)?;
            }
            if round == 0 {
                std::thread::sleep(IDLE * 3);
            }
        }
        if mode == "--enforce" {
            are_out(&equals).context("who did not hear of the host")?;
        }
    }
    Ok(())
}

/// A socket there before the first load, on a port of its own choice, of which nothing but what it asks says that it is a client.
struct Asker {
    socket: UdpSocket,
    server: UdpSocket,
    is_connected: bool,
}

impl Asker {
    fn all(scene: &Scene) -> Result<Vec<Self>> {
        let (left, right) = (&scene.guarded.link.left, &scene.guarded.link.right);
        let mut found = Vec::new();
        for (ours, theirs) in left.both().into_iter().zip(right.both()) {
            for port in [53, 123] {
                let at = SocketAddr::new(theirs, port);
                let server = right.host.run(|| udp_socket(at))?;
                for (own, is_connected) in
                    [(port, false), (5300 + port, false), (6300 + port, true)]
                {
                    let socket = left.host.run(|| udp_socket(SocketAddr::new(ours, own)))?;
                    if is_connected {
                        socket.connect(server.local_addr()?)?;
                    }
                    found.push(Self {
                        socket,
                        server: server.try_clone()?,
                        is_connected,
                    });
                }
            }
        }
        Ok(found)
    }

    fn asks(&self) -> Result<()> {
        let own = self.socket.local_addr()?;
        let ([mut question, mut answer], length) =
            words(self.server.local_addr()?.port()).context("words")?;
        question.resize(length, 0);
        answer.resize(length, 0);
        if self.is_connected {
            self.socket.send(&question)?;
        } else {
            self.socket.send_to(&question, self.server.local_addr()?)?;
        }
        // Others ask the same server.
        let asked = loop {
            let asked = receive_datagram(&self.server, Instant::now() + SOON)?;
            let (_, from) = asked.with_context(|| format!("{own} asks"))?;
            if from.port() == own.port() {
                break from;
            }
        };
        self.server.send_to(&answer, asked)?;
        let heard = receive_datagram(&self.socket, Instant::now() + SOON)?;
        ensure!(heard.is_some(), "{own} hears no answer");
        Ok(())
    }
}

/// It is not cut, and nobody has to allow that it is.
#[test]
fn who_asked_from_a_port_of_its_own_before_the_first_load_asks_on() -> Result<()> {
    for modes in [&["--enforce"][..], &["--audit", "--enforce"]] {
        let scene = Scene::new(PICKING[0])?;
        let askers = Asker::all(&scene)?;
        for asker in &askers {
            asker.asks().context("before")?;
        }
        for mode in modes {
            scene.load_rows(mode, "", "0", &[])?.success()?;
            // What it heard before may still wait for an answer for as long.
            std::thread::sleep(IDLE * 4);
            for _ in 0..2 {
                for asker in &askers {
                    asker.asks().with_context(|| format!("{modes:?}: {mode}"))?;
                }
            }
        }
    }
    Ok(())
}

/// One datagram by the server's address and port, which anybody can forge, keeps no client from it for longer than an echo takes;
/// and not at all where both ends have the port of the protocol.
#[test]
fn what_a_server_says_unasked_in_audit_keeps_nobody_from_asking_it() -> Result<()> {
    let scene = Scene::new(PICKING[0])?;
    let guarded = &scene.guarded;
    // By default, who spoke first is known for minutes.
    guarded.load("--audit", &[], &[])?;
    let askers = Asker::all(&scene)?;
    let alike = |asker: &&Asker| -> bool {
        let ports =
            [&asker.socket, &asker.server].map(|one| one.local_addr().map(|at| at.port()).ok());
        ports[0] == ports[1]
    };
    for asker in &askers {
        let own = asker.socket.local_addr()?;
        asker.server.send_to(b"forged", own)?;
        let heard = receive_datagram(&asker.socket, Instant::now() + SOON)?;
        ensure!(heard.is_some(), "{own} in audit");
    }
    for asker in askers.iter().filter(alike) {
        asker.asks().context("at once")?;
    }
    std::thread::sleep(IDLE * 4);
    for asker in &askers {
        asker.asks().context("in audit")?;
    }
    let counted = counted(guarded, "undocumented-port")?;
    ensure!(counted == askers.len() as u64, "{counted} violations");
    guarded.load("--enforce", &[], &[])?;
    for asker in &askers {
        asker.asks().context("in enforce")?;
    }
    Ok(())
}

/// A service that says what it hears, and strangers that say questions all the time, from the ports of servers.
#[test]
fn the_echo_of_a_question_lets_nobody_in() -> Result<()> {
    for modes in [&["--enforce"][..], &["--audit", "--enforce"]] {
        let scene = Scene::new(PICKING[0])?;
        let (left, right) = (&scene.guarded.link.left, &scene.guarded.link.right);
        let mut strangers = Vec::new();
        let mut services = Vec::new();
        for (ours, theirs) in left.both().into_iter().zip(right.both()) {
            let service = UdpEcho::start(&left.host, SocketAddr::new(ours, 9999))?;
            for port in [53, 123] {
                let stranger = right
                    .host
                    .run(|| udp_socket(SocketAddr::new(theirs, port)))?;
                let ([mut question, _], length) = words(port).context("words")?;
                question.resize(length, 0);
                strangers.push((stranger, question, service.address()));
            }
            services.push(service);
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (stranger, question, service) in &strangers {
                        let _ = stranger.send_to(question, service);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let done = modes.iter().try_for_each(|mode| -> Result<()> {
                scene.load_rows(mode, "", "0", &["--force"])?.success()?;
                // Longer than a service is looked at with suspicion.
                std::thread::sleep(IDLE * 4);
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            done
        })?;
        for (stranger, question, service) in &strangers {
            while receive_datagram(stranger, Instant::now() + SHORT)?.is_some() {}
            stranger.send_to(question, service)?;
            let heard = receive_datagram(stranger, Instant::now() + SHORT)?;
            ensure!(heard.is_none(), "{modes:?}: {:?}", stranger.local_addr());
        }
    }
    Ok(())
}
