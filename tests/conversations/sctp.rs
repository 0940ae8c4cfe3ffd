//! SCTP: an association is the host's if the host opened it, whatever else a service says.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Sctp, number, sctp_init};
use portguard_harness::traffic::{PacketSocket, raw_socket, receive_datagram};

use crate::guard::{Guarded, SOON};
use crate::living::town::Site;

const SERVICE: u16 = 36_412;
const PEER: u16 = 6_000;
/// How long a packet is waited for that must not come.
const PATIENCE: Duration = Duration::from_millis(200);
/// Chunks without a body.
const HEARTBEAT: [u8; 4] = [4, 0, 0, 4];
const DATA: [u8; 4] = [0, 3, 0, 4];

fn site(mode: &str, is_open: bool) -> Result<Site> {
    let row = format!(
        "[[row]]\nname = \"s1\"\ndirection = \"in\"\ntransport = \"sctp\"\nports = [{SERVICE}]\npeers = \"any\"\nreason = \"a test\"\n"
    );
    let row = if is_open { &row } else { "" };
    Site::of(&format!(
        "schema = 1\nmode = \"{mode}\"\noutbound = \"audit\"\nunprinted_peers = \"any\"\ncatalogs = [\"matrices\"]\n\
         [management]\nnone = true\n{row}[[host]]\nname = \"house\"\naddresses = [\"10.77.0.1\"]\nroles = [\"town/house\"]\n"
    ))
}

/// A service and a stranger, as raw sockets: not every kernel has the protocol.
struct Scene {
    guarded: Guarded,
    service: UdpSocket,
    stranger: PacketSocket,
}

impl Scene {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let (host, peer) = (&guarded.link.left, &guarded.link.right);
        let service = host.host.run(|| raw_socket(number::SCTP))?;
        let stranger = peer.host.run(|| PacketSocket::open(&peer.name))?;
        Ok(Self {
            guarded,
            service,
            stranger,
        })
    }

    fn load(&self, mode: &str, is_open: bool) -> Result<()> {
        let site = site(mode, is_open)?;
        let interface = self.guarded.interface();
        let file = site.file();
        let args = [
            "load",
            "-c",
            &file,
            "--host",
            "house",
            "--interface",
            interface,
            "--confirm-within",
            "0",
            "--allow-weaker",
        ];
        self.guarded
            .run(&args.map(str::to_owned), None)?
            .success()?;
        Ok(())
    }

    /// Whether a chunk of the stranger's is heard.
    fn is_heard(&self, chunk: &[u8], patience: Duration) -> Result<bool> {
        let (host, peer) = (&self.guarded.link.left, &self.guarded.link.right);
        let header = Sctp {
            tag: 7,
            ..Sctp::new(PEER, SERVICE)
        };
        let frame = Frame::between(peer, host)
            .ipv4(Ipv4::new(peer.v4(), host.v4()))
            .sctp(header)
            .payload(chunk);
        self.stranger.send(&frame.build())?;
        Ok(receive_datagram(&self.service, Instant::now() + patience)?.is_some())
    }

    /// The service says something to the stranger.
    fn says(&self, tag: u32, chunk: &[u8]) -> Result<()> {
        let ports = [SERVICE.to_be_bytes(), PEER.to_be_bytes()].concat();
        let packet = [&ports, &tag.to_be_bytes()[..], &[0; 4], chunk].concat();
        let peer = IpAddr::V4(self.guarded.link.right.v4());
        self.service.send_to(&packet, SocketAddr::new(peer, 0))?;
        Ok(())
    }
}

#[test]
fn what_a_service_says_unasked_lets_no_stranger_in() -> Result<()> {
    for (mode, is_open) in [("enforce", true), ("audit", false)] {
        let scene = Scene::new()?;
        scene.load(mode, is_open)?;
        ensure!(scene.is_heard(&DATA, SOON)?, "{mode}: an open port");
        scene.says(7, &DATA)?;
        scene.load("enforce", false)?;
        ensure!(!scene.is_heard(&DATA, PATIENCE)?, "{mode}, then enforce");
        for chunk in [HEARTBEAT, DATA] {
            scene.says(7, &chunk)?;
            ensure!(
                !scene.is_heard(&DATA, PATIENCE)?,
                "{mode}, then enforce: after {chunk:?}"
            );
        }
        // Whoever opens one hears the answers.
        scene.says(0, &sctp_init())?;
        ensure!(
            scene.is_heard(&DATA, SOON)?,
            "an association of the host's own"
        );
    }
    Ok(())
}
