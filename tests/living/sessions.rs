//! Connections that are long, quiet, or only half there.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portguard_harness::net::Host;
use portguard_harness::traffic::{TcpEcho, connect, exchange_tcp, wait_readable};

use super::OUTBOUND;
use super::town::{self, TCP_IDLE, Town};
use crate::guard::SOON;

/// Both ends of a connection.
pub(crate) struct Pair {
    pub(crate) opener: TcpStream,
    pub(crate) accepter: TcpStream,
}

/// Connects `from` to a listener of `to`, and keeps both ends.
pub(crate) fn pair(from: &Host, to: &Host, address: SocketAddr) -> Result<Pair> {
    let listener = to.run(|| Ok(TcpListener::bind(address)?))?;
    let opener = from.run(|| connect(address, SOON).stream())?;
    let (accepter, _) = listener.accept()?;
    Ok(Pair { opener, accepter })
}

/// Whether these bytes, written at one end, come out at the other in time.
pub(crate) fn says(
    from: &mut TcpStream,
    to: &TcpStream,
    bytes: &[u8],
    wait: Duration,
) -> Result<bool> {
    from.write_all(bytes)?;
    hears(to, bytes, wait)
}

fn hears(to: &TcpStream, bytes: &[u8], wait: Duration) -> Result<bool> {
    use std::io::Read as _;
    let deadline = Instant::now() + wait;
    let mut heard = vec![0; bytes.len()];
    let mut filled = 0;
    while filled < heard.len() {
        if !wait_readable(to, deadline)? {
            return Ok(false);
        }
        match (&*to).read(&mut heard[filled..])? {
            0 => return Ok(false),
            count => filled += count,
        }
    }
    Ok(heard == bytes)
}

#[test]
fn connections_go_both_ways_and_outlive_the_load() -> Result<()> {
    for outbound in OUTBOUND {
        let town = Town::new()?;
        let _services = town.services()?;
        let mut open = Vec::new();
        let mut doors = Vec::new();
        let meet = |doors: &mut Vec<TcpEcho>, open: &mut Vec<TcpStream>| -> Result<()> {
            for theirs in town.server.both() {
                let door = SocketAddr::new(town.own(theirs), town::TCP);
                if !doors.iter().any(|echo: &TcpEcho| echo.address() == door) {
                    doors.push(TcpEcho::start(town.host(), door)?);
                }
                let outside = SocketAddr::new(theirs, 8001);
                open.push(town.host().run(|| connect(outside, SOON).stream())?);
                open.push(town.server.host.run(|| connect(door, SOON).stream())?);
            }
            Ok(())
        };
        meet(&mut doors, &mut open)?;
        town.load(outbound)?;
        meet(&mut doors, &mut open)?;
        // The policy may change under them, too.
        for (index, stream) in open.iter_mut().enumerate() {
            ensure!(
                exchange_tcp(stream, b"still here", SOON)?,
                "{outbound}: connection {index}"
            );
        }
        town.load(outbound)?;
        for (index, stream) in open.iter_mut().enumerate() {
            ensure!(
                exchange_tcp(stream, b"and here", SOON)?,
                "{outbound}: connection {index} after a second load"
            );
        }
    }
    Ok(())
}

#[test]
fn half_closed_connections_go_on() -> Result<()> {
    let town = Town::new()?;
    town.load("enforce")?;
    for theirs in town.server.both() {
        let door = SocketAddr::new(town.own(theirs), town::TCP);
        let outside = SocketAddr::new(theirs, 8001);
        let pairs = [
            (pair(town.host(), &town.server.host, outside)?, "own"),
            (pair(&town.server.host, town.host(), door)?, "documented"),
        ];
        for (
            Pair {
                mut opener,
                mut accepter,
            },
            whose,
        ) in pairs
        {
            opener.write_all(b"all that I have to say")?;
            opener.shutdown(Shutdown::Write)?;
            ensure!(hears(&accepter, b"all that I have to say", SOON)?);
            // Longer than any window, so that it takes acknowledgements of who has closed.
            let long = vec![7; 1 << 20];
            let writing = std::thread::spawn(move || {
                accepter.write_all(&long)?;
                accepter.shutdown(Shutdown::Write)?;
                Ok::<_, std::io::Error>(accepter)
            });
            ensure!(
                hears(&opener, &vec![7; 1 << 20], SOON * 4)?,
                "{theirs}: {whose}: half closed, and cut"
            );
            let ended = writing.join();
            ensure!(matches!(ended, Ok(Ok(_))), "{whose}: {ended:?}");
        }
    }
    Ok(())
}

/// A connection of the host is known for as long as its socket is open, however quiet it is; a connection to a documented
/// port is not known at all, and needs not be.
#[test]
fn quiet_connections_are_kept_for_their_whole_life() -> Result<()> {
    let town = Town::new()?;
    town.load("audit")?;
    let mut quiet = Vec::new();
    for theirs in town.server.both() {
        let door = SocketAddr::new(town.own(theirs), town::TCP);
        let outside = SocketAddr::new(theirs, 8001);
        quiet.push((
            pair(town.host(), &town.server.host, outside)?,
            pair(&town.server.host, town.host(), door)?,
        ));
    }
    // This is the one thing that only time brings about.
    std::thread::sleep(Duration::from_secs(TCP_IDLE / 2));
    for (own, documented) in &mut quiet {
        ensure!(
            says(&mut own.accepter, &own.opener, b"within", SOON)?,
            "cut before its time"
        );
        ensure!(says(
            &mut documented.opener,
            &documented.accepter,
            b"within",
            SOON
        )?);
    }
    std::thread::sleep(Duration::from_secs(TCP_IDLE + 2));
    for (own, documented) in &mut quiet {
        ensure!(
            says(&mut own.accepter, &own.opener, b"beyond", SOON)?,
            "a connection of the host was cut while its socket was open"
        );
        ensure!(
            says(
                &mut documented.opener,
                &documented.accepter,
                b"beyond",
                SOON
            )?,
            "a documented connection was cut"
        );
    }
    Ok(())
}
