//! What is open when a guard is loaded, or when the table of conversations is made anew: who began it, and what becomes of it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Lab, Output, unique_name};
use portguard_harness::traffic::{connect_from, receive_datagram, udp_socket, wait_readable};

use crate::guard::{Guarded, LONG, SHORT, SOON};
use crate::topology::{container, ip};

/// What the policy opens.
const OPEN: u16 = 7000;
/// A port that nothing opens, where services of the host accept.
const CLOSED: u16 = 41_000;
/// The port of servers outside.
const SERVER: u16 = 8001;
/// A port that is handed on to a container, undocumented.
const PUBLISHED: u16 = 18_080;
/// The container's address.
const INSIDE: [u8; 4] = [10, 99, 0, 2];

fn load(guarded: &Guarded, more: &[&str]) -> Result<Output> {
    guarded.run(&guarded.load_args("--enforce", &[OPEN], more), None)
}

fn nft(host: &Host, commands: &str) -> Result<()> {
    let mut nft = Command::new("nft");
    host.output(nft.arg(commands), LONG)?.success()?;
    Ok(())
}

/// A connection; who listened has stopped, as servers have that serve one.
fn connected(from: (&Host, IpAddr), to: (&Host, SocketAddr)) -> Result<(TcpStream, TcpStream)> {
    let listener = to.0.run(|| Ok(TcpListener::bind(to.1)?))?;
    let opener = from.0.run(|| connect_from(from.1, to.1, SOON).stream())?;
    Ok((opener, listener.accept()?.0))
}

/// Whether what one end says is heard at the other.
fn says(mut from: &TcpStream, mut to: &TcpStream, wait: Duration) -> Result<bool> {
    from.write_all(b"news")?;
    let deadline = Instant::now() + wait;
    while wait_readable(to, deadline)? {
        let mut heard = [0; 512];
        let count = to.read(&mut heard)?;
        ensure!(count > 0, "it has ended");
        if heard[..count].ends_with(b"news") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    Host,
    Stranger,
}

/// The host's end and the other of a session of which so many octets were refused by the host's own packet filter, and then
/// sent again.
fn with_refused(guarded: &Guarded, begins: Begins, octets: usize) -> Result<[TcpStream; 2]> {
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let (ours, theirs) = (IpAddr::from(left.v4()), IpAddr::from(right.v4()));
    let (server, service) = (
        SocketAddr::new(theirs, SERVER),
        SocketAddr::new(ours, CLOSED),
    );
    let (mut own, mut other) = match begins {
        Begins::Host => connected((&left.host, ours), (&right.host, server))?,
        Begins::Stranger => {
            let (other, own) = connected((&right.host, theirs), (&left.host, service))?;
            (own, other)
        }
    };
    nft(
        &left.host,
        "add table inet refuse\n\
         add chain inet refuse out { type filter hook output priority 0; }\n\
         add rule inet refuse out tcp flags psh drop",
    )?;
    own.write_all(&vec![b'k'; octets])?;
    nft(&left.host, "delete table inet refuse")?;
    ensure!(wait_readable(&other, Instant::now() + LONG)?, "sent again");
    other.read_exact(&mut vec![0; octets])?;
    // What answers acknowledges it.
    other.write_all(b"news")?;
    ensure!(wait_readable(&own, Instant::now() + SOON)?, "answered");
    own.read_exact(&mut [0; 4])?;
    Ok([own, other])
}

/// What was refused counts as sent, and so the counts do not fit: connection tracking is asked who began, and where that does
/// not know, nobody is taken for the host's own.
#[test]
fn segments_that_were_refused_make_nobody_the_hosts_own() -> Result<()> {
    let cases = [1, 100].into_iter().flat_map(|octets| {
        let both = [Begins::Host, Begins::Stranger].into_iter();
        both.flat_map(move |begins| [false, true].map(|is_tracked| (octets, begins, is_tracked)))
    });
    for (octets, begins, is_tracked) in cases {
        let case = format!("{begins:?}, {octets} octets, tracked: {is_tracked}");
        let guarded = Guarded::new()?;
        if is_tracked {
            nft(
                &guarded.link.left.host,
                "add table inet see\n\
                 add chain inet see in { type filter hook input priority 0; }\n\
                 add rule inet see in ct state established accept",
            )?;
        }
        let [own, other] = with_refused(&guarded, begins, octets)?;
        let said = load(&guarded, &[])?;
        if begins == Begins::Host && is_tracked {
            ensure!(
                said.code() == 0 && said.stderr.contains("1 of the host's own seeded"),
                "{case}: {said:?}"
            );
            ensure!(says(&other, &own, SOON)?, "{case}: cut off");
            continue;
        }
        ensure!(
            said.code() == 2
                && said.stderr.contains("would cut 1 open session")
                && said.stderr.contains("who began it is not known") != is_tracked,
            "{case}: {said:?}"
        );
        load(&guarded, &["--force"])?.success()?;
        ensure!(!says(&other, &own, SHORT)?, "{case}: heard");
    }
    Ok(())
}

/// A guarded host, and a container behind it that it masquerades and of which it publishes a port.
struct Containers {
    guarded: Guarded,
    container: Host,
}

impl Containers {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let host = &guarded.link.left.host;
        let lab = Lab::new()?;
        let container = lab.host("container")?;
        let outer = End::new(&unique_name("tc")).address("10.99.0.1/24");
        let inner = End::new("eth0").address("10.99.0.2/24");
        lab.connect(host, &outer, &container, &inner)?;
        let mut ip = Command::new("ip");
        ip.args(["route", "add", "default", "via", "10.99.0.1"]);
        container.output(&mut ip, LONG)?.success()?;
        host.sysctl("net/ipv4/ip_forward", "1")?;
        let card = guarded.interface();
        nft(
            host,
            &format!(
                "add table ip containers\n\
                 add chain ip containers after {{ type nat hook postrouting priority 100; }}\n\
                 add rule ip containers after ip saddr 10.99.0.0/24 masquerade\n\
                 add chain ip containers before {{ type nat hook prerouting priority -100; }}\n\
                 add rule ip containers before iifname {card} tcp dport {PUBLISHED} dnat to 10.99.0.2:80"
            ),
        )?;
        Ok(Self { guarded, container })
    }

    /// A connection of the container to a server outside.
    fn begins(&self) -> Result<(TcpStream, TcpStream)> {
        let right = &self.guarded.link.right;
        let to = SocketAddr::new(right.v4().into(), SERVER + 1);
        connected((&self.container, INSIDE.into()), (&right.host, to))
    }

    /// A connection of a stranger to the container's published port.
    fn is_called(&self) -> Result<(TcpStream, TcpStream)> {
        let (left, right) = (&self.guarded.link.left, &self.guarded.link.right);
        let address = SocketAddr::new(INSIDE.into(), 80);
        let listener = self.container.run(|| Ok(TcpListener::bind(address)?))?;
        let to = SocketAddr::new(left.v4().into(), PUBLISHED);
        let from = right.v4().into();
        let stranger = right.host.run(|| connect_from(from, to, SOON).stream())?;
        Ok((stranger, listener.accept()?.0))
    }
}

/// What the host, and a container behind it, have with a server; and a stranger who talks to a service.
struct Living {
    own: (TcpStream, TcpStream),
    passing: (TcpStream, TcpStream),
    client: UdpSocket,
    server: UdpSocket,
    service: UdpSocket,
    stranger: UdpSocket,
}

impl Living {
    fn begin(containers: &Containers) -> Result<Self> {
        let link = &containers.guarded.link;
        let (left, right) = (&link.left, &link.right);
        let (ours, theirs) = (IpAddr::from(left.v4()), IpAddr::from(right.v4()));
        let server = SocketAddr::new(theirs, SERVER);
        let at = |host: &Host, to, port| host.run(|| udp_socket(SocketAddr::new(to, port)));
        let living = Self {
            own: connected((&left.host, ours), (&right.host, server))?,
            passing: containers.begins()?,
            client: at(&left.host, ours, 0)?,
            server: at(&right.host, theirs, SERVER)?,
            service: at(&left.host, ours, 9999)?,
            stranger: at(&right.host, theirs, 0)?,
        };
        living.client.connect(server)?;
        living.asks()?;
        Ok(living)
    }

    /// The client asks, and is answered.
    fn asks(&self) -> Result<()> {
        self.client.send(b"ask")?;
        let heard = receive_datagram(&self.server, Instant::now() + SOON)?;
        let (_, from) = heard.context("a question")?;
        self.server.send_to(b"answer", from)?;
        let heard = receive_datagram(&self.client, Instant::now() + SOON)?;
        ensure!(heard.is_some(), "no answer");
        Ok(())
    }

    fn holds(&self, is_known: bool) -> Result<()> {
        if is_known {
            self.server.send_to(b"late", self.client.local_addr()?)?;
            let heard = receive_datagram(&self.client, Instant::now() + SOON)?;
            ensure!(heard.is_some(), "the host's own UDP");
        }
        self.asks()?;
        ensure!(says(&self.own.1, &self.own.0, SOON)?, "own TCP");
        let (container, server) = &self.passing;
        ensure!(says(server, container, SOON)?, "the container's TCP");
        let service = self.service.local_addr()?;
        self.stranger.send_to(b"stranger", service)?;
        self.asks()?;
        let heard = receive_datagram(&self.service, Instant::now())?;
        ensure!(heard.is_none(), "a stranger is heard");
        Ok(())
    }
}

/// Ways in which the state of conversations is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anew {
    /// By the first guard.
    First,
    /// Where an audit did not look at what is sent.
    AfterOff,
    /// After everything was unloaded.
    Unloaded,
    /// These pins were removed from below the guard in force.
    Without(&'static [&'static str]),
    /// All of its directory.
    WithoutAny,
}

impl Anew {
    fn make(self, guarded: &Guarded) -> Result<()> {
        let directory = || {
            guarded.link.left.host.run(|| {
                let found = portguard_kernel::conversations::find().context("a state")?;
                Ok(found.directory().to_owned())
            })
        };
        match self {
            Self::First => {}
            Self::AfterOff => {
                guarded.load("--audit", &[OPEN], &["--outbound", "off"])?;
            }
            Self::Unloaded => {
                load(guarded, &[])?.success()?;
                guarded.unload()?.success()?;
            }
            Self::Without(names) => {
                load(guarded, &[])?.success()?;
                let directory = directory()?;
                for name in names {
                    std::fs::remove_file(directory.join(name))?;
                }
            }
            Self::WithoutAny => {
                load(guarded, &[])?.success()?;
                std::fs::remove_dir_all(directory()?)?;
            }
        }
        Ok(())
    }
}

#[test]
fn what_is_open_lives_on_however_the_state_is_made_anew() -> Result<()> {
    for anew in [
        Anew::First,
        Anew::AfterOff,
        Anew::Unloaded,
        Anew::Without(&["NAMESPACE", "sockets"]),
        Anew::Without(&["NAMESPACE", "COUNTS", "adopt", "program", "sockets"]),
        Anew::Without(&["FLOWS", "THEIRS", "NAMESPACE", "sockets"]),
        Anew::WithoutAny,
    ] {
        let containers = Containers::new()?;
        let guarded = &containers.guarded;
        let living = Living::begin(&containers)?;
        // The tables of a guard in force are kept.
        let is_kept = matches!(anew, Anew::Without(_) | Anew::WithoutAny);
        anew.make(guarded)?;
        if is_kept {
            living.asks()?;
        }
        let said = load(guarded, &[])?.success()?;
        let case = format!("{anew:?}: {}", said.stderr);
        living.holds(is_kept).with_context(|| case.clone())?;
        ensure!(
            is_kept
                || said
                    .stderr
                    .contains("1 of the host's own seeded, 0 documented, 0 cut")
                    && said
                        .stderr
                        .contains("1 UDP clients answered once they ask again")
                    && said.stderr.contains("1 open connections of hosts behind"),
            "{case}"
        );
        let warnings = guarded.status()?.context("a guard")?["warnings"].to_string();
        ensure!(warnings == "null" || warnings == "[]", "{case}{warnings}");
    }
    Ok(())
}

/// Who called a container by a port that nothing documents is cut off, and `load` says so before.
#[test]
fn sessions_to_published_ports_are_not_cut_unasked() -> Result<()> {
    let containers = Containers::new()?;
    let guarded = &containers.guarded;
    let (stranger, served) = containers.is_called()?;
    ensure!(says(&stranger, &served, SOON)?);
    let refused = load(guarded, &[])?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains(&format!("tcp port {PUBLISHED}")),
        "{refused:?}"
    );
    ensure!(guarded.status()?.is_none());
    let row = format!("tcp/{PUBLISHED}");
    let documented = load(guarded, &["--management", &row])?.success()?;
    ensure!(
        documented.stderr.contains("1 documented, 0 cut"),
        "{documented:?}"
    );
    ensure!(says(&stranger, &served, SOON)?);
    let forced = load(guarded, &["--force", "--allow-weaker"])?.success()?;
    ensure!(forced.stderr.contains("1 cut"), "{forced:?}");
    ensure!(!says(&stranger, &served, SHORT)?);
    Ok(())
}

/// Connection tracking that sees a container's connection only from its middle on, as after its table was flushed, tells nobody
/// who began it: `load` names it, and does not cut it unasked.
#[test]
fn sessions_that_were_taken_up_midway_are_not_cut_unasked() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let inside = container(&left.host, "")?;
    let routes = "route add 10.99.0.0/24 via 10.77.0.1\n-6 route add fd99::/64 via fd77::1";
    ip(&right.host, "", routes)?;
    let mut open = Vec::new();
    for (own, theirs) in ["10.99.0.2", "fd99::2"].into_iter().zip(right.both()) {
        let server = SocketAddr::new(theirs, SERVER);
        let pair = connected((&inside, own.parse()?), (&right.host, server))?;
        open.push((server, pair));
    }
    nft(
        &left.host,
        "add table inet see\n\
         add chain inet see on { type filter hook forward priority 0; }\n\
         add rule inet see on ct state established accept",
    )?;
    for (_, (opener, accepter)) in &open {
        ensure!(says(opener, accepter, SOON)? && says(accepter, opener, SOON)?);
    }
    let refused = load(&guarded, &[])?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains("would cut 2 open sessions"),
        "{refused:?}"
    );
    for (server, (opener, accepter)) in &open {
        let line = format!("(session of {server}; who began it is not known)");
        ensure!(refused.stderr.contains(&line), "{line}: {refused:?}");
        ensure!(says(accepter, opener, SOON)?, "{server}: cut unasked");
    }
    ensure!(guarded.status()?.is_none());
    let forced = load(&guarded, &["--cut-sessions"])?.success()?;
    ensure!(forced.stderr.contains("2 cut"), "{forced:?}");
    for (server, (opener, accepter)) in &open {
        ensure!(!says(accepter, opener, SHORT)?, "{server}: not cut");
    }
    Ok(())
}

/// Where what is sent is enforced, what passes is cut as well if the policy does not let anybody ask there.
#[test]
fn what_may_not_be_asked_does_not_go_on_in_words_only() -> Result<()> {
    let containers = Containers::new()?;
    let guarded = &containers.guarded;
    let (opener, server) = containers.begins()?;
    let settings =
        "--outbound enforce --system-version 10 --choose directory-port=636 --choose mail-port=587";
    let mut words: Vec<&str> = settings.split(' ').collect();
    let refused = load(guarded, &words)?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains("would cut 1 open session"),
        "{refused:?}"
    );
    words.push("--force");
    let forced = load(guarded, &words)?.success()?;
    ensure!(
        forced.stderr.contains("1 cut") && !forced.stderr.contains("go on"),
        "{forced:?}"
    );
    ensure!(!says(&server, &opener, SHORT)?);
    Ok(())
}
