//! A guarded host on which everything has happened that a view can show: each kind of finding, a reset, an earlier generation.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Icmp, Ipv4, Ipv6, Tcp, Udp};
use portguard_harness::net::Output;
use portguard_harness::traffic::{PacketSocket, TcpEcho, connect};

use crate::guard::{Guarded, LONG, SOON, eventually};
use crate::names::server::NameServer;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Listens without a document.
pub(crate) const SERVICE: u16 = 9_100;
/// Documented for others.
pub(crate) const RESTRICTED: u16 = 9_443;
/// Another address of the peer.
const SCANNER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// The port that the host asks a name server from.
pub(crate) const ASKING: u16 = 40_053;
const SERVER: &str = "127.0.0.1:5353";

pub(crate) struct Scene {
    pub(crate) guarded: Guarded,
    directory: tempfile::TempDir,
    is_redirected: std::cell::Cell<bool>,
    _services: Vec<TcpEcho>,
    _names: NameServer,
}

impl Scene {
    /// Guarded in audit, before any traffic.
    pub(crate) fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let host = &guarded.link.left.host;
        let scanner = ipnet::Ipv4Net::new(SCANNER, 24)?;
        guarded.link.right.add_address(scanner.into())?;
        let names = NameServer::start(host, SERVER.parse()?)?;
        names.answer(Ok(vec![[192, 0, 2, 99].into()]));
        let services = [SERVICE, RESTRICTED, 443]
            .map(|port| TcpEcho::start(host, (ANY, port).into()))
            .into_iter()
            .collect::<Result<_>>()?;
        let scene = Self {
            directory: tempfile::tempdir()?,
            is_redirected: false.into(),
            _services: services,
            _names: names,
            guarded,
        };
        std::fs::write(scene.path("site.toml"), scene.site("audit"))?;
        std::fs::write(
            scene.path("wrong.toml"),
            scene.site("audit").replace("mode", "moed"),
        )?;
        std::fs::write(
            scene.path("wrong-matrix.toml"),
            "schema = 1\nsystem = \"acme\"\n",
        )?;
        Ok(scene)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn site(&self, mode: &str) -> String {
        let (link, interface) = (&self.guarded.link, self.guarded.interface());
        format!(
            r#"schema = 1
mode = "{mode}"
unprinted_peers = ["admins"]
unresolved_ports = "none"
[groups]
admins = ["{there}", "192.0.2.0/28"]
[management]
allow = ["tcp/22=admins", "tcp/{RESTRICTED}=192.0.2.0/28"]
[baseline]
protocols = [{{ number = 112, peers = ["admins"], reason = "VRRP" }}]
[systems.thoughtspot.peers]
admin-addresses = ["admins"]
ldap-server = ["192.0.2.9"]
smtp-relay = "any"
support = ["192.0.2.40"]
[[row]]
name = "backup"
direction = "in"
transport = "tcp"
ports = [9102]
peers = ["192.0.2.17"]
reason = "asked for by the backup team"
expires = 2099-12-31
[[row]]
name = "upload"
direction = "out"
transport = "tcp"
ports = [9103]
peers = ["192.0.2.17"]
reason = "asked for by the backup team"
expires = 2099-12-31
[[host]]
name = "left"
addresses = ["{here}"]
roles = ["thoughtspot/node"]
[host.interfaces.{interface}]
[[host]]
name = "right"
addresses = ["{there}"]
roles = ["thoughtspot/node"]
"#,
            here = link.left.v4(),
            there = link.right.v4(),
        )
    }

    /// `portguard` on the guarded host, in the directory of the site file, at so many columns.
    pub(crate) fn run(&self, args: &[&str], columns: Option<u16>) -> Result<Output> {
        let mut command = Guarded::command(args);
        command
            .current_dir(self.directory.path())
            .env("STATE_DIRECTORY", self.path("state"))
            .env("PORTGUARD_RESOLVER", SERVER)
            .env_remove("COLUMNS");
        if let Some(columns) = columns {
            command.env("COLUMNS", columns.to_string());
        }
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    /// The same, by a shell: `$P` is the program.
    pub(crate) fn shell(&self, line: &str) -> Result<Output> {
        let mut command = Command::new("bash");
        command
            .args(["-c", line])
            .current_dir(self.directory.path())
            .env("P", env!("CARGO_BIN_EXE_portguard"))
            .env("STATE_DIRECTORY", self.path("state"))
            .env("PORTGUARD_RESOLVER", SERVER)
            .env_remove("PORTGUARD_CONFIG");
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    /// Every kind of finding, and of packet that is none.
    pub(crate) fn traffic(&self) -> Result<()> {
        let link = &self.guarded.link;
        let (host, there) = (&link.left.host, &link.right.host);
        let (here, peer) = (link.left.v4(), link.right.v4());
        there.run(|| {
            for port in [SERVICE, RESTRICTED, 443] {
                for _ in 0..3 {
                    ensure!(connect((here, port).into(), SOON).is_connected());
                }
            }
            let socket = UdpSocket::bind((SCANNER, 0))?;
            for port in 20_000..20_200_u16 {
                let _ = socket.send_to(b"?", (here, port));
            }
            Ok(())
        })?;
        // What comes a second time is not news.
        if !self.is_redirected.replace(true) {
            self.redirect()?;
        }
        // The host asks one port of a peer, and another of its ports answers.
        for _ in 0..40 {
            let own = host.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
            let port = own.local_addr()?.port();
            there.run(|| {
                let answers = UdpSocket::bind(("0.0.0.0", 161))?;
                answers.send_to(b"answer", (here, port))?;
                Ok(())
            })?;
        }
        // What the host sends: to a port of no document, and to a peer that is not meant.
        host.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"!", (peer, 7_777))?;
            // A question to a name server: a conversation of the host.
            UdpSocket::bind(("0.0.0.0", ASKING))?.send_to(b"?", (peer, 53))?;
            let _ = connect((peer, 389).into(), SOON);
            Ok(())
        })?;
        // Without a port: another protocol, nonsense, and what is no IP.
        let (from, to) = (&link.right, &link.left);
        let socket = there.run(|| PacketSocket::open(&from.name))?;
        let whole = Frame::between(from, to)
            .ipv4(Ipv4::new(peer, here))
            .udp(Udp::new(40_000, 61_000))
            .payload(vec![0; 20])
            .build();
        let other = Frame::between(from, to)
            .ipv4(Ipv4::new(peer, here))
            .protocol(47)
            .payload(vec![0; 20])
            .build();
        let lldp = Frame::between(from, to)
            .ethertype(0x88cc)
            .payload(vec![0; 46])
            .build();
        let short = whole.get(..24).context("a frame")?.to_vec();
        let tagged = Frame::between(from, to)
            .tag(0x8100, 7)
            .ipv4(Ipv4::new(peer, here))
            .udp(Udp::new(40_000, 61_000))
            .payload(vec![0; 20])
            .build();
        let six = Frame::between(from, to)
            .ipv6(Ipv6::new(from.v6(), to.v6()))
            .udp(Udp::new(40_000, 61_001))
            .payload(vec![0; 20])
            .build();
        let odd = Frame::between(from, to)
            .ipv4(Ipv4::new(peer, here))
            .icmpv4(Icmp::new(13, 0))
            .payload(vec![0; 20])
            .build();
        // A protocol that the site lists, from somebody else.
        let stranger = Frame::between(from, to)
            .ipv4(Ipv4::new([198, 51, 100, 1].into(), here))
            .protocol(112)
            .payload(vec![0; 20])
            .build();
        let frames = [
            other.clone(),
            other,
            short,
            lldp,
            tagged,
            six,
            odd,
            stranger,
        ];
        self.guarded.receive_all(&socket, frames)
    }

    /// Rules of the packet filter: one that hands a port on, and one that nobody can follow.
    fn redirect(&self) -> Result<()> {
        let rules = "table ip nat { chain first { type nat hook prerouting priority dstnat; \
                     tcp dport 8081-8082 redirect to :9100\n meta mark 7 tcp dport 8090 redirect to :9100\n }\n }\n\
                     table inet raw { chain rewriting { type filter hook prerouting priority raw; \
                     tcp dport 2200 tcp dport set 2201\n }\n }\n";
        let host = &self.guarded.link.left.host;
        host.output(Command::new("nft").arg(rules), LONG)?
            .success()
            .map(drop)
    }

    /// Events of what happens, as JSON, until some of each kind were sampled.
    pub(crate) fn events(&self) -> Result<Output> {
        let args = ["events", "--json", "--follow"].map(str::to_owned);
        let listener = self.guarded.start(&args, None)?;
        eventually("events have rows, and rows that come near", || {
            self.traffic()?;
            let seen = listener.stdout();
            let wanted = [
                "\"rows\":[\"",
                "\"nearest\":[{",
                "\"icmp_type\"",
                "\"vlan\"",
                "\"detail\"",
            ];
            Ok(wanted.iter().all(|field| seen.contains(field)))
        })?;
        listener.interrupt()?;
        listener.output(LONG)
    }

    /// A capture: a frame that is undocumented, one that is documented, one that comes near, and too little of one.
    pub(crate) fn capture(&self) -> Result<()> {
        let link = &self.guarded.link;
        let frame = || {
            Frame::between(&link.right, &link.left).ipv4(Ipv4::new(link.right.v4(), link.left.v4()))
        };
        let udp = |port| {
            let datagram = frame().udp(Udp::new(40_000, port));
            datagram.payload(vec![0; 20]).build()
        };
        let frames = [
            (udp(61_000), usize::MAX),
            (frame().tcp(Tcp::new(40_000, 443, 2)).build(), usize::MAX),
            (udp(443), usize::MAX),
            (udp(443), 10),
        ];
        let mut file = std::fs::File::create(self.path("two.pcap"))?;
        // The classic header: microseconds, Ethernet.
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.write_all(&word.to_le_bytes())?;
        }
        for (frame, kept) in frames {
            let kept = kept.min(frame.len());
            let (kept, length) = (u32::try_from(kept)?, u32::try_from(frame.len())?);
            for word in [0, 0, kept, length] {
                file.write_all(&word.to_le_bytes())?;
            }
            file.write_all(frame.get(..kept as usize).context("a frame")?)?;
        }
        Ok(())
    }

    /// Waits until the violations stand still.
    pub(crate) fn settled(&self) -> Result<()> {
        let mut before = String::new();
        eventually("the numbers stand still", || {
            let output = self.run(&["counters", "--violations", "--by", "reason"], None)?;
            let is_still = output.stdout == before && !before.is_empty();
            before = output.stdout;
            Ok(is_still)
        })
    }
}
