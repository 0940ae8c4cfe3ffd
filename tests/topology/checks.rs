//! What must live, and who must not be heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Host;
use portguard_harness::traffic::{
    TcpEcho, UdpEcho, connect, connect_from, exchange_tcp, exchange_udp, ping, receive_datagram,
    udp_socket,
};

use super::world::{ASKED, QUIET, World};
use crate::guard::{LONG, SOON, eventually};
use crate::living::clients::ask_name;
use crate::living::sessions::{Pair, says};
use crate::living::town::{TCP, UDP};

/// Ports that no row opens: low, beside the open ones, in the range of clients, and the last.
pub(super) const CLOSED: [u16; 6] = [22, 7003, PUBLISHED, 8001, 40_000, 65_535];
/// One of them, which is published from a container where there are any.
pub(super) const PUBLISHED: u16 = 7009;
/// Where somebody knocks without a pause.
const KNOCKED: u16 = 7011;

/// How long a stranger waits for an answer: a link without a guard takes a millisecond.
const PATIENCE: Duration = Duration::from_millis(250);
/// More than windows hold at first.
const STREAM: usize = 128 << 10;

/// What a stranger tried.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pub(super) reached: BTreeSet<String>,
    pub(super) missed: BTreeSet<String>,
}

/// Two strangers try all closed ports, all at once.
pub(super) fn reach(world: &World) -> Result<Reach> {
    let mut all = Reach::default();
    for who in [&world.near, &world.server.host] {
        let found = who.run(|| tried(&world.own))?;
        for (what, is_reached) in found {
            let list = if is_reached {
                &mut all.reached
            } else {
                &mut all.missed
            };
            list.insert(format!("{what} from {}", who.name()));
        }
    }
    Ok(all)
}

fn tried(own: &[IpAddr; 2]) -> Result<Vec<(String, bool)>> {
    std::thread::scope(|scope| {
        let mut trying = Vec::new();
        for address in own {
            for port in CLOSED {
                let to = SocketAddr::new(*address, port);
                trying.push((
                    format!("tcp {to}"),
                    scope.spawn(move || Ok(connect(to, PATIENCE).is_connected())),
                ));
                trying.push((
                    format!("udp {to}"),
                    scope.spawn(move || exchange_udp(to, b"let me in", PATIENCE)),
                ));
            }
        }
        let mut found = Vec::new();
        for (what, trying) in trying {
            let is_reached = trying.join().unwrap_or(Ok(false)).unwrap_or(false);
            found.push((what, is_reached));
        }
        Ok(found)
    })
}

/// Violations of what arrived, by port.
pub(super) type Counted = BTreeMap<String, u64>;

pub(super) fn counted(world: &World) -> Result<Counted> {
    let mut counted = Counted::new();
    for interface in world.interfaces("counters")? {
        for line in interface["ports"].as_array().context("ports")? {
            let packets = line["violations"]["packets"].as_u64();
            if let (true, Some(packets)) = (line["direction"] == "in", packets) {
                let transport = line["transport"].as_str().unwrap_or_default();
                *counted
                    .entry(format!("{transport}/{}", line["port"]))
                    .or_default() += packets;
            }
        }
    }
    Ok(counted)
}

/// What strangers tried since then is counted by port, in audit as in enforce: each datagram once, and each connection.
pub(super) fn counts(world: &World, before: &Counted) -> Result<()> {
    // Two of them tried, at two addresses.
    let each = 4;
    let now = counted(world)?;
    for port in CLOSED {
        for transport in ["tcp", "udp"] {
            let key = format!("{transport}/{port}");
            let of = |counted: &Counted| counted.get(&key).copied().unwrap_or_default();
            let more = of(&now) - of(before);
            ensure!(
                if transport == "udp" {
                    more == each
                } else {
                    more >= each
                },
                "{key}: {more} of {each} are counted: {before:?}, {now:?}"
            );
        }
    }
    Ok(())
}

/// Who connects out: the host by its own address, and whoever is behind it.
fn askers(world: &World) -> Vec<(&Host, [IpAddr; 2])> {
    let mut askers = vec![(&world.host, world.own)];
    askers.extend(world.behind.as_ref().map(|(host, own)| (host, *own)));
    askers
}

/// Everything that a host does all day.
pub(super) fn lives(world: &World) -> Result<()> {
    let bytes: Vec<u8> = (0..=252_u8).cycle().take(STREAM).collect();
    for theirs in world.server.both() {
        let asked = SocketAddr::new(theirs, ASKED);
        for (who, own) in askers(world) {
            let own = own[usize::from(theirs.is_ipv6())];
            let context = || format!("{} at {own} asks {theirs}", who.name());
            who.run(|| {
                let mut stream = connect_from(own, asked, SOON).stream()?;
                ensure!(exchange_tcp(&mut stream, &bytes, LONG)?, "a stream stalls");
                ensure!(ping(theirs, SOON)?.is_some(), "no echo");
                if world.leaves_unguarded {
                    return Ok(());
                }
                let socket = udp_socket(SocketAddr::new(own, 0))?;
                let mut answer = None;
                for _ in 0..3 {
                    socket.send_to(b"anybody there?", asked)?;
                    answer = receive_datagram(&socket, Instant::now() + SOON)?;
                    if answer.is_some() {
                        break;
                    }
                }
                ensure!(answer.is_some(), "no datagram comes back");
                ask_name(SocketAddr::new(theirs, 53), "small.town")?;
                Ok(())
            })
            .with_context(context)?;
        }
        let own = world.own(theirs);
        for who in [&world.near, &world.server.host] {
            who.run(|| {
                let door = SocketAddr::new(own, TCP);
                let mut stream = connect(door, SOON).stream().context("the open TCP port")?;
                ensure!(exchange_tcp(&mut stream, &bytes, LONG)?, "a stream stalls");
                let bell = SocketAddr::new(own, UDP);
                ensure!(exchange_udp(bell, b"ring", SOON)?, "the open UDP port");
                ensure!(ping(own, SOON)?.is_some(), "no echo");
                Ok(())
            })
            .with_context(|| format!("{} asks {own}", who.name()))?;
        }
    }
    Ok(())
}

/// Conversations in which nobody says anything but when asked.
pub(super) struct Quiet {
    /// Those in which the far end speaks first again.
    heard: Vec<(String, Pair)>,
    /// Those in which the near end asks again, from the same socket.
    asked: Vec<(String, Asker)>,
}

/// Who asks an echo server now and then.
enum Asker {
    Stream(TcpStream),
    Datagrams(UdpSocket, SocketAddr),
}

impl Asker {
    fn is_answered(&mut self) -> Result<bool> {
        match self {
            Self::Stream(stream) => exchange_tcp(stream, b"and now?", SOON),
            Self::Datagrams(socket, to) => {
                // The first one may wait for a neighbour, and be lost for it.
                for _ in 0..3 {
                    socket.send_to(b"and now?", *to)?;
                    if receive_datagram(socket, Instant::now() + SOON)?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

impl Quiet {
    /// The host's own, those of who is behind it, and documented ones, in both families.
    pub(super) fn open(world: &World) -> Result<Self> {
        let (mut all, mut asked_again) = (Vec::new(), Vec::new());
        let server = &world.server.host;
        for theirs in world.server.both() {
            let own = world.own(theirs);
            let listener = server.run(|| Ok(TcpListener::bind(SocketAddr::new(theirs, QUIET))?))?;
            let asked = listener.local_addr()?;
            let opener = world.host.run(|| connect_from(own, asked, SOON).stream())?;
            let (accepter, _) = listener.accept()?;
            // Who was asked speaks, so that it is a reply.
            let pair = Pair {
                opener: accepter,
                accepter: opener,
            };
            all.push((format!("{own} to {theirs}"), pair));
            let opener = server.run(|| connect(SocketAddr::new(own, TCP), SOON).stream())?;
            let accepter = opener.try_clone()?;
            all.push((format!("{theirs} to {own}"), Pair { opener, accepter }));
            let to = SocketAddr::new(theirs, ASKED);
            for (who, own) in askers(world) {
                let own = own[usize::from(theirs.is_ipv6())];
                let name = who.name();
                let stream = who.run(|| connect_from(own, to, SOON).stream())?;
                asked_again.push((format!("TCP of {name} to {to}"), Asker::Stream(stream)));
                if !world.leaves_unguarded {
                    let socket = who.run(|| udp_socket(SocketAddr::new(own, 0)))?;
                    asked_again.push((
                        format!("UDP of {name} to {to}"),
                        Asker::Datagrams(socket, to),
                    ));
                }
            }
        }
        let mut quiet = Self {
            heard: all,
            asked: asked_again,
        };
        quiet.speaks().context("before anything is loaded")?;
        Ok(quiet)
    }

    /// A word on each comes through.
    pub(super) fn speaks(&mut self) -> Result<()> {
        for (what, asker) in &mut self.asked {
            ensure!(asker.is_answered()?, "{what} is not answered any more");
        }
        for (what, pair) in &mut self.heard {
            ensure!(
                says(&mut pair.opener, &pair.accepter, b"still there?", SOON)?,
                "the quiet connection {what} is cut"
            );
        }
        Ok(())
    }
}

/// Somebody who never stops trying, with datagrams from one port and with connections.
pub(super) struct Knocking {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
    tcp: Vec<TcpEcho>,
    udp: Vec<UdpEcho>,
    /// What had been heard when nothing should be any more.
    before: std::cell::Cell<usize>,
}

impl Knocking {
    pub(super) fn start(world: &World) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let (mut tcp, mut udp, mut knocking) = (Vec::new(), Vec::new(), Vec::new());
        for own in world.own {
            let at = SocketAddr::new(own, KNOCKED);
            tcp.push(TcpEcho::start(&world.host, at)?);
            udp.push(UdpEcho::start(&world.host, at)?);
            let stop = Arc::clone(&stop);
            knocking.push(world.near.background(move || knock(at, &stop)));
        }
        Ok(Self {
            stop,
            threads: knocking,
            tcp,
            udp,
            before: std::cell::Cell::default(),
        })
    }

    fn heard(&self) -> usize {
        self.each().sum()
    }

    /// From now on.
    pub(super) fn is_heard(&self) -> Result<()> {
        let before: Vec<usize> = self.each().collect();
        eventually("who knocks is heard", || {
            Ok(self.each().zip(&before).all(|(now, before)| now > *before))
        })
    }

    /// By each service.
    fn each(&self) -> impl Iterator<Item = usize> {
        let datagrams = self.udp.iter().map(UdpEcho::received);
        datagrams.chain(self.tcp.iter().map(TcpEcho::accepted))
    }

    /// From now on nothing may be heard. What was on its way into a socket when the policy changed has its time.
    pub(super) fn was_shut(&self) {
        let mut last = usize::MAX;
        while last != self.heard() {
            last = self.heard();
            std::thread::sleep(Duration::from_millis(100));
        }
        self.before.set(last);
    }

    /// Since [`Self::was_shut`].
    pub(super) fn is_not_heard(&self) -> Result<()> {
        let heard = self.heard() - self.before.get();
        ensure!(heard == 0, "who knocks was heard {heard} times");
        Ok(())
    }

    /// Whoever knocks has been able to.
    pub(super) fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for one in self.threads.drain(..) {
            one.join()
                .map_err(|panic| anyhow::anyhow!("a panic: {panic:?}"))??;
        }
        Ok(())
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn knock(at: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let any: SocketAddr = if at.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = udp_socket(any)?;
    while !stop.load(Ordering::Relaxed) {
        let _ = socket.send_to(b"knock", at);
        let _ = connect(at, Duration::from_millis(20));
        // A guest, not a flood: what it sends is to be heard while others talk, too.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
