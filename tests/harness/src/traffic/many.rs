//! Many conversations at once: one wait for all of them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::{raise_file_limit, udp_socket};
use crate::net::Host;

/// Tries to connect to all targets at once; whether each answered, with a connection or a reset. Those that are `wanted` have
/// until `soon`; the rest is silent if nothing came for `quiet` after all were asked.
pub fn connect_each(
    targets: &[SocketAddr],
    wanted: &[bool],
    soon: Duration,
    quiet: Duration,
) -> Result<Vec<bool>> {
    raise_file_limit()?;
    let mut waiting = Vec::with_capacity(targets.len());
    for (index, target) in targets.iter().enumerate() {
        let domain = Domain::for_address(*target);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Nobody needs to see the connection end, nor its port kept.
        socket.set_linger(Some(Duration::ZERO))?;
        let begun = socket.connect(&(*target).into());
        let is_under_way = |error: &std::io::Error| {
            error.raw_os_error() == Some(Errno::EINPROGRESS as i32)
                || error.kind() == ErrorKind::PermissionDenied
        };
        match begun {
            Err(error) if !is_under_way(&error) => {
                return Err(error).with_context(|| format!("connecting to {target}"));
            }
            Ok(()) | Err(_) => waiting.push((index, socket)),
        }
    }
    let asked = Instant::now();
    let mut answered = vec![false; targets.len()];
    let is_wanted = |index: usize| wanted.get(index).copied().unwrap_or_default();
    loop {
        let is_all = !waiting.iter().any(|(index, _)| is_wanted(*index));
        let deadline = asked + if is_all { quiet } else { soon };
        let left = deadline.saturating_duration_since(Instant::now());
        if waiting.is_empty() || left.is_zero() {
            return Ok(answered);
        }
        let mut ends: Vec<PollFd<'_>> = waiting
            .iter()
            .map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT))
            .collect();
        let timeout = PollTimeout::try_from(left.min(quiet)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut ends, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = ends
            .iter()
            .map(|end| end.revents().is_some_and(|events| !events.is_empty()))
            .collect();
        let mut ready = ready.into_iter();
        waiting.retain(|(index, _)| {
            let is_ready = ready.next().unwrap_or_default();
            if is_ready && let Some(answer) = answered.get_mut(*index) {
                *answer = true;
            }
            !is_ready
        });
    }
}

/// UDP ports of a host that answer when they are told to. They close when this is dropped.
#[derive(Debug)]
pub struct Datagrams(Vec<UdpSocket>);

impl Datagrams {
    /// Binds these ports of an address of the host.
    pub fn start(
        host: &Host,
        address: IpAddr,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<Self> {
        raise_file_limit()?;
        let ports: Vec<u16> = ports.into_iter().collect();
        host.run(|| {
            let sockets = ports.into_iter();
            let bound: Result<_> = sockets
                .map(|port| udp_socket(SocketAddr::new(address, port)))
                .collect();
            Ok(Self(bound?))
        })
    }

    /// Sends every datagram that has come back to its sender; from whom each port got one.
    pub fn answer(&self) -> Result<Vec<(u16, SocketAddr)>> {
        let mut heard = Vec::new();
        let mut buffer = [0; 64];
        for socket in &self.0 {
            let port = socket.local_addr()?.port();
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                heard.push((port, from));
                // An answer that cannot be sent does not arrive: the asker notices.
                let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
            }
        }
        Ok(heard)
    }
}
