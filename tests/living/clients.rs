//! DNS and NTP, both ends: the least that is a real exchange.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Host;
use portguard_harness::traffic::{receive_datagram, udp_socket, wait_readable};

use crate::guard::SOON;

/// How soon a server notices that it was dropped.
const TICK: Duration = Duration::from_millis(50);

/// The time that the time server tells: seconds since 1900.
pub(crate) const TIME: u32 = 3_950_000_000;

/// Tries of a resolver: the first large answer may teach a sender the path's MTU, and be lost for it.
const TRIES: usize = 3;

/// Threads that end when this is dropped.
struct Serving {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Serving {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// Runs a step again and again.
    fn spawn(&mut self, mut step: impl FnMut() -> Result<()> + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // A client that goes away is no failure of the server; the client's own test notices.
                let _ = step();
            }
        }));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Knows `small.town`, `large.town` (an answer of some thousand bytes), and `huge.town`, which it tells over TCP only.
pub(crate) struct NameServer {
    _serving: Serving,
}

impl NameServer {
    pub(crate) fn start(host: &Host, address: SocketAddr) -> Result<Self> {
        let socket = host.run(|| udp_socket(address))?;
        let listener = host.run(|| Ok(TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let mut serving = Serving::new();
        serving.spawn(move || {
            if let Some((query, from)) = receive_datagram(&socket, Instant::now() + TICK)? {
                socket.send_to(&answer(&query, false), from)?;
            }
            Ok(())
        });
        serving.spawn(move || {
            if wait_readable(&listener, Instant::now() + TICK)? {
                let (mut stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(SOON))?;
                let query = read_message(&mut stream)?;
                write_message(&mut stream, &answer(&query, true))?;
            }
            Ok(())
        });
        Ok(Self { _serving: serving })
    }
}

/// Messages over TCP come after their length (RFC 1035 section 4.2.2).
fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    let mut framed = u16::try_from(message.len())?.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    Ok(stream.write_all(&framed)?)
}

/// The answer to a query of one question: that question, and a record.
fn answer(query: &[u8], over_tcp: bool) -> Vec<u8> {
    let end = query.iter().skip(12).position(|byte| *byte == 0);
    let question = query.get(12..12 + end.unwrap_or(0) + 5).unwrap_or_default();
    let is = |name: &[u8]| question.get(1..=name.len()) == Some(name);
    let texts = match (is(b"large"), is(b"huge"), over_tcp) {
        (true, _, _) => 16,
        (_, true, true) => 40,
        (_, true, false) => 0,
        _ => 1,
    };
    // Response, authoritative, recursion as asked; truncated where all of it is told over TCP only.
    let truncated = if texts == 0 { 2 } else { 0 };
    let mut out = query.get(..2).unwrap_or_default().to_vec();
    out.extend([
        0x84 | truncated | query.get(2).copied().unwrap_or(0) & 1,
        0x80,
    ]);
    out.extend([0, 1, 0, u8::from(texts > 0), 0, 0, 0, 0]);
    out.extend_from_slice(question);
    if texts == 1 {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99]);
    } else if texts > 1 {
        let length = u16::try_from(texts * 256).unwrap_or(0).to_be_bytes();
        out.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        out.extend(length);
        for _ in 0..texts {
            out.push(255);
            out.extend([b't'; 255]);
        }
    }
    out
}

/// What a resolver was told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) over_tcp: bool,
    pub(crate) length: usize,
}

/// Asks as resolvers do: over UDP with room for large answers (RFC 6891), and over TCP if the answer was cut.
pub(crate) fn ask_name(server: SocketAddr, name: &str) -> Result<Told> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend([0, 0, 16, 0, 1]);
    query.extend([0, 0, 41, 0x20, 0, 0, 0, 0, 0, 0, 0]);
    let socket = client(server)?;
    let mut found = None;
    for _ in 0..TRIES {
        socket.send(&query)?;
        found = receive_datagram(&socket, Instant::now() + SOON)?;
        if found.is_some() {
            break;
        }
    }
    let (answer, _) = found.with_context(|| format!("{server} tells nothing about {name}"))?;
    ensure!(answer.get(..2) == query.get(..2), "another's answer");
    if answer.get(2).copied().unwrap_or(0) & 2 == 0 {
        return Ok(Told {
            over_tcp: false,
            length: answer.len(),
        });
    }
    let mut stream = TcpStream::connect_timeout(&server, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    write_message(&mut stream, &query)?;
    Ok(Told {
        over_tcp: true,
        length: read_message(&mut stream)?.len(),
    })
}

/// A connected socket on a fresh port.
fn client(server: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = udp_socket(any)?;
    socket.connect(server)?;
    Ok(socket)
}

/// Tells [`TIME`] (RFC 5905, server mode, stratum 1).
pub(crate) struct TimeServer {
    _serving: Serving,
}

impl TimeServer {
    pub(crate) fn start(host: &Host, address: SocketAddr) -> Result<Self> {
        let socket = host.run(|| udp_socket(address))?;
        let mut serving = Serving::new();
        serving.spawn(move || {
            if let Some((query, from)) = receive_datagram(&socket, Instant::now() + TICK)? {
                let mut answer = [0; 48];
                answer[0] = 0x24;
                answer[1] = 1;
                let sent = query.get(40..48).unwrap_or_default();
                answer[24..24 + sent.len()].copy_from_slice(sent);
                answer[40..44].copy_from_slice(&TIME.to_be_bytes());
                socket.send_to(&answer, from)?;
            }
            Ok(())
        });
        Ok(Self { _serving: serving })
    }
}

/// Seconds since 1900 as a time server has them; asked from port 123 as daemons do.
pub(crate) fn ask_time(server: SocketAddr) -> Result<u32> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0; 4], 123).into()
    } else {
        ([0_u16; 8], 123).into()
    };
    let socket = udp_socket(any)?;
    let mut query = [0; 48];
    query[0] = 0x23;
    query[40] = 7;
    socket.send_to(&query, server)?;
    let (answer, _) = receive_datagram(&socket, Instant::now() + SOON)?.context("no time")?;
    ensure!(answer.len() == 48 && answer[24] == 7, "{answer:?}");
    Ok(u32::from_be_bytes([
        answer[40], answer[41], answer[42], answer[43],
    ]))
}

/// The page `/page` of a server, by HTTP.
pub(crate) fn ask_page(server: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    let (head, page) = told.split_once("\r\n\r\n").context("no head")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(page.to_owned())
}
