//! UDP: datagrams, an echo server, and counting what arrives.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::wait_readable;
use crate::net::Host;

/// How soon a server notices that it was dropped.
const TICK: Duration = Duration::from_millis(50);
/// What a burst of datagrams needs until the reader comes by.
const BUFFER: usize = 8 << 20;

/// A bound UDP socket with a large receive buffer, not blocking.
pub fn udp_socket(address: SocketAddr) -> Result<UdpSocket> {
    let socket = bind(address).with_context(|| format!("binding UDP {address}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).context("sizing the receive buffer")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds, and waits for a socket of before: a child that another test starts has it, too, until it runs its program.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match UdpSocket::bind(address) {
            // No event tells that it is gone.
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// The same, bound to a device, too. One that is bound to the unspecified IPv6 address serves both families.
pub fn udp_socket_on(device: &str, address: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket
        .bind_device(Some(device.as_bytes()))
        .with_context(|| format!("binding a socket to {device}"))?;
    socket
        .bind(&address.into())
        .with_context(|| format!("binding UDP {address} on {device}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// One that sends and receives packets of an IPv4 protocol: what it receives has the IP header.
pub fn raw_socket(protocol: u8) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(i32::from(protocol).into()))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The next datagram and its sender, `None` at the deadline. An ICMP error that came back is passed over.
pub fn receive_datagram(
    socket: &UdpSocket,
    deadline: Instant,
) -> Result<Option<(Vec<u8>, SocketAddr)>> {
    let mut buffer = vec![0; 65_536];
    while wait_readable(socket, deadline)? {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            buffer.truncate(length);
            return Ok(Some((buffer, from)));
        }
    }
    Ok(None)
}

/// Counts datagrams until there are `enough` or the deadline passes.
pub fn count_datagrams(socket: &UdpSocket, enough: usize, deadline: Instant) -> Result<usize> {
    let mut count = 0;
    while count < enough && receive_datagram(socket, deadline)?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Sends one datagram from a fresh port, and waits for the same bytes to come back; whether they did.
pub fn exchange_udp(target: SocketAddr, bytes: &[u8], timeout: Duration) -> Result<bool> {
    let any: SocketAddr = if target.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = udp_socket(any)?;
    socket.connect(target)?;
    let deadline = Instant::now() + timeout;
    socket.send(bytes).context("sending a datagram")?;
    let mut buffer = vec![0; bytes.len() + 1];
    while wait_readable(&socket, deadline)? {
        match socket.recv(&mut buffer) {
            Ok(length) if buffer.get(..length) == Some(bytes) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // An ICMP error: nobody is there.
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

/// A server that sends back what it is sent, and counts. Stops when dropped, and its port is free then.
#[derive(Debug)]
pub struct UdpEcho {
    address: SocketAddr,
    received: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

impl UdpEcho {
    /// Starts on an address of the host; port 0 picks a free one.
    pub fn start(host: &Host, address: SocketAddr) -> Result<Self> {
        let socket = host.run(|| udp_socket(address))?;
        let mut server = Self {
            address: socket.local_addr()?,
            received: Arc::default(),
            stop: Arc::default(),
            serving: None,
        };
        let (received, stop) = (Arc::clone(&server.received), Arc::clone(&server.stop));
        server.serving = Some(thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                if !wait_readable(&socket, Instant::now() + TICK).unwrap_or(false) {
                    continue;
                }
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    received.fetch_add(1, Ordering::Relaxed);
                    // A reply that cannot be sent is one that does not arrive: the asker notices.
                    let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
                }
            }
        }));
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many datagrams it received.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(serving) = self.serving.take() {
            // Its panic, if any, was printed; the port is free again either way.
            let _ = serving.join();
        }
    }
}
