//! What must hold on any link whose left end is guarded and enforces the matrix.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, ensure};
use portguard_harness::net::Link;
use portguard_harness::traffic::{TcpEcho, UdpEcho, connect, exchange_tcp, exchange_udp};

use crate::world::{OPEN, PATIENCE, SILENCE, UNDOCUMENTED};

/// Where the peer offers something.
const OFFERED: u16 = 7000;

/// Conversations of the guarded host's own that are open; they end with this.
pub(crate) struct Talk {
    streams: Vec<TcpStream>,
    /// Stop when they are dropped.
    servers: Vec<TcpEcho>,
}

impl Talk {
    /// Fails if one of them has come to an end.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        for stream in &mut self.streams {
            ensure!(
                exchange_tcp(stream, b"still there", PATIENCE)?,
                "the host's own connection was cut"
            );
        }
        Ok(())
    }
}

/// The guarded host connects and asks, in both families; the peer reaches what is documented and nothing else.
pub(crate) fn converses(link: &Link) -> Result<Talk> {
    let mut talk = Talk {
        streams: Vec::new(),
        servers: Vec::new(),
    };
    for address in link.right.both() {
        let offered = SocketAddr::new(address, OFFERED);
        let server = TcpEcho::start(&link.right.host, offered)?;
        let _answers = UdpEcho::start(&link.right.host, offered)?;
        let stream = link.left.host.run(|| {
            ensure!(
                is_answered(offered, b"a question")?,
                "no answer to a question of the host's own to {offered}"
            );
            connect(offered, PATIENCE).stream()
        })?;
        talk.streams.push(stream);
        talk.servers.push(server);
    }
    talk.go_on()?;
    for address in link.left.both() {
        let documented = SocketAddr::new(address, OPEN);
        let _service = UdpEcho::start(&link.left.host, documented)?;
        let reached = || is_answered(documented, b"a request");
        ensure!(
            link.right.host.run(reached)?,
            "{documented} is documented, and not reached"
        );
    }
    quiet(link)?;
    talk.go_on()?;
    Ok(talk)
}

/// Whether a datagram is answered, of which one may be lost: links that came up a moment ago lose some.
fn is_answered(target: SocketAddr, bytes: &[u8]) -> Result<bool> {
    const TRIES: u32 = 8;
    for _ in 0..TRIES {
        if exchange_udp(target, bytes, PATIENCE / TRIES)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nobody reaches what is not documented.
fn quiet(link: &Link) -> Result<()> {
    for address in link.left.both() {
        let undocumented = SocketAddr::new(address, UNDOCUMENTED);
        let _server = TcpEcho::start(&link.left.host, undocumented)?;
        let service = UdpEcho::start(&link.left.host, undocumented)?;
        link.right.host.run(|| {
            let stranger = connect(undocumented, SILENCE);
            ensure!(
                stranger.is_timed_out(),
                "{undocumented} is not documented, and answers over TCP"
            );
            exchange_udp(undocumented, b"let me in", SILENCE)
        })?;
        ensure!(
            service.received() == 0,
            "{undocumented} is not documented, and was reached over UDP"
        );
    }
    Ok(())
}
