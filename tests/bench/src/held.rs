//! Conversations that are held while others begin, at several rates, and the memory that takes.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use portguard_common::abi::{Config, Set};
use portguard_common::conntrack::WAYS;
use portguard_harness::net::{Lab, Link};
use portguard_harness::traffic::{begin_connecting, raise_file_limit};
use portguard_kernel::conversations;
use portguard_kernel::flows::{Flows, Occupancy, units};
use portguard_kernel::generation::prepare;
use portguard_kernel::generation::publish::{publish, unload};
use portguard_kernel::host::interface::Interface;
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::Layout;
use portguard_policy::policy::{Outbound, Policy};

use crate::cli::say;
use crate::control::options;
use crate::plan::plain;
use crate::results::Quantity;

/// New conversations a second: nine in ten are questions, one in ten is a TCP connection.
const RATES: [u32; 4] = [10, 100, 1_000, 10_000];
/// TCP connections on which nothing is said meanwhile.
const QUIET: usize = 1_000;
/// Where the host connects to, and where it asks.
const PORTS: [u16; 2] = [443, 53];
/// How often new ones are begun.
const STEP: Duration = Duration::from_millis(100);

/// What is held at each rate after so long, in a table of the default size.
pub(crate) fn run(long: Duration) -> Result<Vec<Quantity>> {
    let mut policy = plain(Outbound::Audit);
    policy.settings.enforce = true;
    let mut found = Vec::new();
    for rate in RATES {
        say(&format!(
            "{rate} new conversations a second, for {} s",
            long.as_secs()
        ));
        let link = Lab::new()?.pair()?;
        let held = at(&link, &policy, rate, long)?;
        let mut add = |what: &str, number: u64| {
            let name = format!("conversations/{rate}-{what}");
            found.push(Quantity::count(&name, number));
        };
        add("begun", held.begun);
        add("known", held.occupancy.live + held.spilled);
        add("quiet-tcp-heard", held.heard);
        add("evicted", held.evicted);
        add("without-room", held.lost);
        found.push(Quantity::memory(
            &format!("conversations/{rate}-memory"),
            held.memory,
        ));
    }
    Ok(found)
}

/// What is found in the end.
struct Held {
    begun: u64,
    /// Of the quiet ones.
    heard: u64,
    occupancy: Occupancy,
    spilled: u64,
    evicted: u64,
    lost: u64,
    memory: u64,
}

fn at(link: &Link, policy: &Policy, rate: u32, long: Duration) -> Result<Held> {
    raise_file_limit()?;
    let [server, _] = link.right.both();
    let to = SocketAddr::new(server, PORTS[0]);
    let listener = link.right.host.run(|| Ok(TcpListener::bind(to)?))?;
    let interface = Interface {
        name: link.left.name.clone(),
        index: link.left.index,
    };
    link.left.host.run(|| {
        let layout = Layout::of(&interface.name);
        let outcome = (|| {
            let lock = pins::lock()?;
            publish(vec![prepare(&lock, &interface, policy, &options())?])?;
            drop(lock);
            let mut quiet = Vec::new();
            for _ in 0..QUIET {
                let opener = TcpStream::connect(to)?;
                quiet.push((opener, listener.accept()?.0));
            }
            drop(listener);
            let begun = begin(server, rate, long)?;
            look(policy, begun, &mut quiet)
        })();
        unload(&pins::lock()?, &layout)?;
        outcome
    })
}

/// Begins conversations at a rate, as evenly as a busy machine lets it. Says how many.
fn begin(server: IpAddr, rate: u32, long: Duration) -> Result<u64> {
    let ask = SocketAddr::new(server, PORTS[1]);
    let connect = SocketAddr::new(server, PORTS[0]);
    let start = Instant::now();
    let mut begun = 0;
    loop {
        let passed = start.elapsed().min(long);
        let due = u64::try_from(u128::from(rate) * passed.as_millis() / 1000)?;
        while begun < due {
            begun += 1;
            if begun % 10 == 0 {
                begin_connecting(connect)?;
            } else {
                // Nobody serves there: that it is refused later is as good.
                let _ = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(b"?", ask);
            }
        }
        if passed == long {
            return Ok(begun);
        }
        std::thread::sleep(STEP);
    }
}

fn look(policy: &Policy, begun: u64, quiet: &mut [(TcpStream, TcpStream)]) -> Result<Held> {
    let mut heard = 0;
    for (opener, accepter) in quiet {
        accepter.write_all(b"x")?;
        opener.set_read_timeout(Some(Duration::from_secs(1)))?;
        heard += u64::from(opener.read(&mut [0; 1]).is_ok_and(|count| count == 1));
    }
    let namespace = conversations::find().context("no table of conversations")?;
    let facts = Config {
        tick_shift: namespace.tick_shift(),
        tcp_idle: units(policy.settings.tcp_idle, namespace.tick_shift()),
        udp_idle: units(policy.settings.udp_idle, namespace.tick_shift()),
        ..Config::default()
    };
    let counts = namespace.counts()?;
    let spilled = u64::try_from(namespace.spilled()?.keys().count())?;
    let occupancy = Flows::new(namespace.flows()?, facts).occupancy()?;
    // The tables of both sides, and what went to the overflow table.
    let sets = occupancy.capacity / WAYS as u64;
    let memory = 2 * sets * size_of::<Set>() as u64 + spilled * 2 * size_of::<u64>() as u64;
    Ok(Held {
        begun,
        heard,
        occupancy,
        spilled,
        evicted: counts.evicted,
        lost: counts.lost,
        memory,
    })
}
