//! The control path: how long it takes to make a policy, to load it and to put it in force, and the memory it takes.

mod growing;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Lab;
use portguard_kernel::conversations;
use portguard_kernel::generation::publish::{publish, unload};
use portguard_kernel::generation::refresh::{provide, refresh};
use portguard_kernel::generation::standby::Standby;
use portguard_kernel::generation::{Occasion, Options, Prepared, prepare};
use portguard_kernel::host::interface::Interface;
use portguard_kernel::host::sockets::{Began, Session};
use portguard_kernel::object::memory;
use portguard_kernel::object::{self, HostFacts};
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::pins::meta::{Sources, XdpModeName};
use portguard_policy::catalog::Transport;
use portguard_policy::cells::Directory;
use portguard_policy::compile::generate::{Size, site};
use portguard_policy::compile::{Inputs, Selection, compile};
use portguard_policy::domains::{Answers, DomainSet, Part};
use portguard_policy::image::Image;
use portguard_policy::policy::{Grant, GrantKind, Outbound, PeerSet, Peers, Policy};
use portguard_policy::site::Site;

use crate::cli::say;
use crate::plan::{plain, ports, sources};
use crate::results::Quantity;

/// Sessions that are seeded.
const SESSIONS: u32 = 100_000;
/// How often everything that takes time is done; the shortest counts, since nothing but other work makes it longer.
const TRIES: usize = 3;

/// How long a job takes at best, and what it returns.
fn best<T>(mut job: impl FnMut() -> Result<T>) -> Result<(T, Duration)> {
    let mut shortest = Duration::MAX;
    let mut last = None;
    for _ in 0..TRIES {
        // What the last try made is gone before the next begins.
        drop(last.take());
        let begun = Instant::now();
        last = Some(job()?);
        shortest = shortest.min(begun.elapsed());
    }
    Ok((last.context("nothing was tried")?, shortest))
}

/// Milliseconds and mebibytes, by name.
pub(crate) fn run(quick: bool) -> Result<Vec<Quantity>> {
    let mut found = Vec::new();
    let (prefixes, count) = if quick {
        (1000, 65_536)
    } else {
        (100_000, 65_536)
    };
    growing::hosts(&mut found, quick)?;
    compiling(&mut found, prefixes)?;
    growing::of_rows(&mut found, quick)?;
    let small = small();
    let largest = largest(count, prefixes);
    for (name, policy) in [("small", &small), ("largest", &largest)] {
        if name == "largest" && quick {
            continue;
        }
        tables(&mut found, name, policy)?;
    }
    say("control path: loading and swapping on an interface");
    in_force(&mut found, &small, (!quick).then_some(&largest))?;
    growing::interfaces(&mut found, &small, quick)?;
    say("control path: newer addresses of a domain name");
    edits(&mut found, "edit", &named(small))?;
    if !quick {
        edits(&mut found, "largest-edit", &named(largest))?;
    }
    Ok(found)
}

/// A role with a hundred rows, a quarter of them for a few peers only.
fn small() -> Policy {
    let mut policy = ports(75);
    let (with_peers, _) = sources(64);
    policy.sets = with_peers.sets;
    policy
        .inbound
        .extend(with_peers.inbound.into_iter().take(25));
    policy.settings = plain(Outbound::Audit).settings;
    policy
}

fn largest(ports_count: u32, prefixes: u32) -> Policy {
    let (mut policy, _) = sources(prefixes);
    policy.inbound.extend(ports(ports_count).inbound);
    policy.settings = plain(Outbound::Audit).settings;
    policy.settings.flows = 1 << 20;
    policy
}

/// The domain name whose addresses change.
const NAME: &str = "peer.example";

/// The same policy with one port more, open to a domain name.
fn named(mut policy: Policy) -> Policy {
    let set = u32::try_from(policy.sets.len()).unwrap_or(u32::MAX);
    policy.sets.push(PeerSet {
        name: NAME.to_owned(),
        prefixes: Vec::new(),
    });
    policy.domains.names.insert(NAME.to_owned(), Vec::new());
    policy.domains.sets.push(DomainSet {
        set,
        parts: vec![Part {
            prefixes: Vec::new(),
            names: vec![NAME.to_owned()],
        }],
    });
    policy.inbound.push(Grant {
        kind: GrantKind::Documented,
        transport: Transport::Udp,
        first: 9_443,
        last: 9_443,
        peers: Peers::Set(set),
        row: "bench/named".to_owned(),
        until: None,
    });
    let first = answers(0);
    policy.with_answers(&first).unwrap_or(policy)
}

/// Other addresses each time, in networks of their own.
fn answers(turn: u8) -> Answers {
    let addresses = [1, 2].map(|host| IpAddr::from([11, turn, 7, host]));
    Answers::from([(NAME.to_owned(), addresses.to_vec())])
}

/// Addresses of a domain name change, as the agent has it.
fn edits(found: &mut Vec<Quantity>, what: &str, policy: &Policy) -> Result<()> {
    let link = Lab::new()?.pair()?;
    let interface = Interface {
        name: link.left.name.clone(),
        index: link.left.index,
    };
    let took = link.left.host.run(|| {
        let layout = Layout::of(&interface.name);
        let outcome = (|| -> Result<Duration> {
            let lock = pins::lock()?;
            publish(vec![prepare(&lock, &interface, policy, &options())?])?;
            drop(lock);
            let mut standby = Standby::default();
            let mut shortest = Duration::MAX;
            for turn in 1..=5 {
                provide(&mut standby)?;
                let begun = Instant::now();
                let refreshed = refresh(&answers(turn), &mut standby)?;
                shortest = shortest.min(begun.elapsed());
                ensure!(refreshed.len() == 1, "the addresses were not swapped in");
                if !refreshed.iter().all(|one| one.from_standby) {
                    say("programs were verified again");
                }
            }
            Ok(shortest)
        })();
        unload(&pins::lock()?, &layout)?;
        outcome
    })?;
    found.push(Quantity::time(&format!("control/{what}"), took));
    Ok(())
}

/// From the text of a site file to a policy.
fn compiling(found: &mut Vec<Quantity>, prefixes: u32) -> Result<()> {
    let (catalog, text) = site(Size {
        hosts: 10_000,
        roles: 200,
        prefixes,
        seed: 7,
    });
    let (resolved, files) = (BTreeMap::new(), BTreeMap::new());
    let (_, took) = best(|| {
        let site = Site::parse("large.toml", text.as_bytes())
            .ok()
            .context("the generated site is not sound")?;
        Ok(compile(&Inputs {
            catalog: &catalog,
            site: &site,
            host: Selection::Name("host-0".to_owned()),
            interface: None,
            local_addresses: &[],
            hostname: None,
            resolved: &resolved,
            files: &files,
            today: None,
        }))
    })?;
    found.push(Quantity::time("control/largest-compile", took));
    Ok(())
}

/// Tables on the host, and in the kernel.
fn tables(found: &mut Vec<Quantity>, name: &str, policy: &Policy) -> Result<()> {
    let (image, took) = best(|| Ok(Image::build(policy, Directory::default())?))?;
    found.push(Quantity::time(&format!("control/{name}-tables"), took));
    let host = HostFacts {
        ..HostFacts::default()
    };
    let (loaded, took) = best(|| Ok(object::load(&image, &host, None)?))?;
    found.push(Quantity::time(&format!("control/{name}-programs"), took));
    let taken = memory::of(&loaded)?;
    let mut memory = |what: &str, bytes| {
        found.push(Quantity::memory(&format!("memory/{name}-{what}"), bytes));
    };
    memory("shared", taken.generation + taken.shared);
    memory("cpu", taken.per_cpu);
    Ok(())
}

/// On an interface of a namespace of our own.
fn in_force(found: &mut Vec<Quantity>, small: &Policy, largest: Option<&Policy>) -> Result<()> {
    let link = Lab::new()?.pair()?;
    let interface = Interface {
        name: link.left.name.clone(),
        index: link.left.index,
    };
    let compiled = found
        .iter()
        .find(|one| one.name == "control/largest-compile")
        .map_or(0.0, |one| one.value);
    let more = link.left.host.run(|| {
        let mut more = Vec::new();
        let lock = pins::lock()?;
        let layout = Layout::of(&interface.name);
        // Prepared but for the last time in vain: withdrawn, nothing of it is left.
        let load = |policy: &Policy| -> Result<(Prepared, Duration)> {
            let mut shortest = Duration::MAX;
            for _ in 1..TRIES {
                let begun = Instant::now();
                let prepared = prepare(&lock, &interface, policy, &options())?;
                shortest = shortest.min(begun.elapsed());
                prepared.withdraw();
            }
            let begun = Instant::now();
            let prepared = prepare(&lock, &interface, policy, &options())?;
            Ok((prepared, shortest.min(begun.elapsed())))
        };
        let swap = |prepared| -> Result<Duration> {
            let begun = Instant::now();
            publish(vec![prepared])?;
            Ok(begun.elapsed())
        };
        let outcome = (|| -> Result<()> {
            swap(prepare(&lock, &interface, small, &options())?)?;
            let (next, took) = load(small)?;
            more.push(Quantity::time("control/small-load", took));
            let sessions = sessions();
            let begun = Instant::now();
            let conversations = conversations::find().context("no table of conversations")?;
            conversations.adopt(small, &sessions)?;
            more.push(Quantity::time("control/seed-100000", begun.elapsed()));
            let mut swapped = swap(next)?;
            for _ in 1..TRIES {
                swapped = swapped.min(swap(prepare(&lock, &interface, small, &options())?)?);
            }
            more.push(Quantity::time("control/swap", swapped));
            if let Some(policy) = largest {
                let (next, took) = load(policy)?;
                more.push(Quantity::time("control/largest-load", took));
                let swapped = swap(next)?;
                more.push(Quantity::time("control/largest-swap", swapped));
                let total = took + swapped + Duration::from_secs_f64(compiled / 1e3);
                more.push(Quantity::time("control/largest-total", total));
            }
            Ok(())
        })();
        unload(&lock, &layout)?;
        outcome.map(|()| more)
    })?;
    found.extend(more);
    Ok(())
}

pub(crate) fn options() -> Options {
    Options {
        migrate: false,
        occasion: Occasion::Load,
        over_unknown: false,
        together: Vec::new(),
        xdp_mode: XdpModeName::Native,
        sources: Sources::default(),
        confirm_within: Duration::ZERO,
    }
}

fn sessions() -> Vec<Session> {
    let local = Ipv4Addr::new(10, 77, 0, 1);
    (0..SESSIONS)
        .filter_map(|number| {
            let remote = Ipv4Addr::from(11 << 24 | number >> 14);
            let port = 32_768 + u16::try_from(number & 0x3fff).ok()?;
            Some(Session {
                local: SocketAddr::new(IpAddr::V4(local), port),
                remote: SocketAddr::new(IpAddr::V4(remote), 443),
                is_tcp: true,
                began: Began::Host,
                cookie: 0,
                interface: 0,
            })
        })
        .collect()
}
