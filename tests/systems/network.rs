//! Hosts around a router: each has one neighbour, whatever the number of hosts.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ipnet::{IpNet, Ipv4Net};
use portguard_harness::net::{End, Lab, Link, unique_name};
use portguard_harness::traffic::{Datagrams, udp_socket, wait_readable};

use super::Ask;
use super::site::Member;

/// Jobs that run at once: most of them wait.
const WORKERS: usize = 3;

pub(super) struct Network {
    /// A host is on the left, the router on the right.
    pub(super) links: Vec<Link>,
}

impl Network {
    pub(super) fn new(hosts: usize) -> Result<Self> {
        let lab = Lab::new()?;
        let router = lab.host("router")?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        let links = (0..hosts).map(|index| {
            let host = lab.host(&format!("host {index}"))?;
            let end = |last| {
                End::new(&unique_name("sy")).address(&format!("{}/30", address(index, last)))
            };
            let link = lab.connect(&host, &end(2), &router, &end(1))?;
            let all = IpNet::V4(Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0)?);
            link.left.add_route(all, Some(address(index, 1).into()))?;
            Ok(link)
        });
        Ok(Self {
            links: links.collect::<Result<_>>()?,
        })
    }
}

fn address(index: usize, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 80, u8::try_from(index).unwrap_or(u8::MAX), last)
}

/// Runs a job for every index, some of them at once; the first failure is everybody's.
pub(super) fn at_once<T: Send>(
    count: usize,
    job: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, T)>> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(done);
            }
            let result = job(index).inspect_err(|_| next.store(count, Ordering::Relaxed))?;
            done.push((index, result));
        }
    };
    let mut all = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(())
    })?;
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

/// A datagram to each, until all that are expected were answered; whether each was heard or answered.
pub(super) fn exchange(
    from: &Member,
    asks: &[Ask<'_>],
    servers: &[(IpAddr, &Datagrams)],
    soon: Duration,
) -> Result<Vec<bool>> {
    let socket = from
        .host
        .run(|| udp_socket(SocketAddr::new(from.address, 0)))?;
    let (mut heard, mut back) = (BTreeSet::new(), BTreeSet::new());
    let deadline = Instant::now() + soon;
    let own = socket.local_addr()?;
    let is_done = |back: &BTreeSet<SocketAddr>| {
        asks.iter()
            .all(|ask| !ask.is_open || back.contains(&ask.target()))
    };
    for round in 0.. {
        for ask in asks
            .iter()
            .filter(|ask| round == 0 || ask.is_open && !back.contains(&ask.target()))
        {
            // What the guard drops on its way out may come back as an error.
            let _ = socket.send_to(b"ask", ask.target());
        }
        for (address, server) in servers {
            let got = server.answer().with_context(|| address.to_string())?;
            let ours = got.into_iter().filter(|(_, sender)| *sender == own);
            heard.extend(ours.map(|(port, _)| SocketAddr::new(*address, port)));
        }
        let mut buffer = [0; 64];
        while wait_readable(&socket, Instant::now() + Duration::from_millis(5))? {
            if let Ok((_, sender)) = socket.recv_from(&mut buffer) {
                back.insert(sender);
            }
        }
        if is_done(&back) || Instant::now() > deadline {
            break;
        }
    }
    let answers = asks.iter().map(|ask| {
        let target = ask.target();
        if ask.is_open {
            back.contains(&target)
        } else {
            heard.contains(&target) || back.contains(&target)
        }
    });
    Ok(answers.collect())
}
