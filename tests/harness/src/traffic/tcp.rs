//! TCP: connections, an echo server, and ports that merely listen.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use super::wait_readable;
use crate::net::Host;

/// How soon a server notices that it was dropped, or a peer that went silent.
const TICK: Duration = Duration::from_millis(50);

/// What became of an attempt to connect.
#[derive(Debug)]
pub enum Connection {
    /// The handshake was completed.
    Connected(TcpStream),
    /// A reset came back: nobody listens, and nothing dropped the attempt.
    Refused,
    /// Nothing came back in time.
    TimedOut,
    /// The host or the network is unreachable, or the stack refused.
    Failed(std::io::Error),
}

impl Connection {
    /// Whether the handshake was completed.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected(_))
    }

    /// Whether a reset came back.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused)
    }

    /// Whether nothing came back.
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// The stream, or an error that says what happened instead.
    pub fn stream(self) -> Result<TcpStream> {
        match self {
            Self::Connected(stream) => Ok(stream),
            Self::Refused => bail!("connection refused"),
            Self::TimedOut => bail!("connection timed out"),
            Self::Failed(error) => Err(error).context("connection failed"),
        }
    }
}

/// Tries to connect. A timeout of 300 ms tells "dropped" reliably on a veth; the kernel repeats the SYN after one second.
pub fn connect(target: SocketAddr, timeout: Duration) -> Connection {
    match TcpStream::connect_timeout(&target, timeout) {
        Ok(stream) => Connection::Connected(stream),
        Err(error) => failed(error),
    }
}

/// As [`connect`], from one of the host's own addresses.
pub fn connect_from(source: IpAddr, target: SocketAddr, timeout: Duration) -> Connection {
    connect_between(SocketAddr::new(source, 0), target, timeout)
}

/// As [`connect`], from an address and port, which may still be those of a connection that is over.
pub fn connect_between(source: SocketAddr, target: SocketAddr, timeout: Duration) -> Connection {
    let attempt = || {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
        socket.connect_timeout(&target.into(), timeout)?;
        Ok(socket.into())
    };
    match attempt() {
        Ok(stream) => Connection::Connected(stream),
        Err(error) => failed(error),
    }
}

fn failed(error: std::io::Error) -> Connection {
    if error.kind() == ErrorKind::ConnectionRefused {
        Connection::Refused
    } else if error.kind() == ErrorKind::TimedOut {
        Connection::TimedOut
    } else {
        Connection::Failed(error)
    }
}

/// Sends bytes over a stream to an echo server and reads them back; whether all came back in time.
pub fn exchange_tcp(stream: &mut TcpStream, bytes: &[u8], timeout: Duration) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    stream.set_write_timeout(Some(timeout.max(TICK)))?;
    let mut writer = stream.try_clone()?;
    let mut back = vec![0; bytes.len()];
    thread::scope(|scope| {
        // Beside the reading: more may be under way than the buffers hold.
        let writing = scope.spawn(move || writer.write_all(bytes));
        let all = read_all(stream, &mut back, deadline);
        if !matches!(all, Ok(true)) {
            // Sets the writer free.
            let _ = stream.shutdown(Shutdown::Both);
        }
        Ok(all? && matches!(writing.join(), Ok(Ok(()))) && back == bytes)
    })
}

/// Fills the buffer; `false` if the stream ends or fails before, or the deadline passes.
fn read_all(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        if !wait_readable(stream, deadline)? {
            return Ok(false);
        }
        match stream.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(0) | Err(_) => return Ok(false),
            Ok(count) => filled += count,
        }
    }
    Ok(true)
}

/// A server that sends back what it is sent. Stops when dropped, and its port is free then.
#[derive(Debug)]
pub struct TcpEcho {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

impl TcpEcho {
    /// Starts on an address of the host; port 0 picks a free one.
    pub fn start(host: &Host, address: SocketAddr) -> Result<Self> {
        let listener = host.run(|| {
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))
        })?;
        listener.set_nonblocking(true)?;
        let mut server = Self {
            address: listener.local_addr()?,
            accepted: Arc::default(),
            stop: Arc::default(),
            serving: None,
        };
        let (accepted, stop) = (Arc::clone(&server.accepted), Arc::clone(&server.stop));
        // Sockets keep their namespace: the threads need not enter it.
        server.serving = Some(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if !wait_readable(&listener, Instant::now() + TICK).unwrap_or(false) {
                    continue;
                }
                if let Ok((stream, _)) = listener.accept() {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    let stop = Arc::clone(&stop);
                    thread::spawn(move || echo(stream, &stop));
                }
            }
        }));
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(serving) = self.serving.take() {
            // Its panic, if any, was printed; the port is free again either way.
            let _ = serving.join();
        }
    }
}

fn echo(mut stream: TcpStream, stop: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match wait_readable(&stream, Instant::now() + TICK) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => return,
        }
        let Ok(count) = stream.read(&mut buffer) else {
            return;
        };
        if count == 0
            || stream
                .write_all(buffer.get(..count).unwrap_or_default())
                .is_err()
        {
            return;
        }
    }
}

/// Ports that listen and complete handshakes, without anybody accepting. They close when this is dropped.
#[derive(Debug)]
pub struct Listeners(Vec<Socket>);

impl Listeners {
    /// Listens on all these ports of an address of the host (`0.0.0.0` for all IPv4, `::` for all IPv6).
    pub fn start(
        host: &Host,
        address: IpAddr,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<Self> {
        Self::listen(host, address, ports, true)
    }

    /// As [`Self::start`], and an IPv6 address listens for IPv4 as well.
    pub fn start_dual(
        host: &Host,
        address: IpAddr,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<Self> {
        Self::listen(host, address, ports, false)
    }

    fn listen(
        host: &Host,
        address: IpAddr,
        ports: impl IntoIterator<Item = u16>,
        only_v6: bool,
    ) -> Result<Self> {
        raise_file_limit()?;
        let ports: Vec<u16> = ports.into_iter().collect();
        host.run(|| {
            let domain = if address.is_ipv4() {
                Domain::IPV4
            } else {
                Domain::IPV6
            };
            let mut sockets = Vec::with_capacity(ports.len());
            for port in ports {
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                if address.is_ipv6() {
                    socket.set_only_v6(only_v6)?;
                }
                socket
                    .bind(&SocketAddr::new(address, port).into())
                    .and_then(|()| socket.listen(4096))
                    .with_context(|| format!("listening on TCP port {port} of {address}"))?;
                sockets.push(socket);
            }
            Ok(Self(sockets))
        })
    }

    /// How many ports listen.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Raises this process's limit of open files to the most it may have.
pub fn raise_file_limit() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// A socket that asks for a connection and does not wait for the answer.
pub fn begin_connecting(to: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        // Under way.
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => {
            Err(error).with_context(|| format!("connecting to {to}"))
        }
        _ => Ok(socket),
    }
}
