//! What takes longer where there is more of it: rows, guarded interfaces, hosts of a site.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Lab};
use portguard_kernel::generation::prepare;
use portguard_kernel::generation::publish::{publish, unload};
use portguard_kernel::host::interface::Interface;
use portguard_kernel::object::{self, HostFacts, memory};
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::Layout;
use portguard_policy::catalog::Catalog;
use portguard_policy::cells::Directory;
use portguard_policy::compile::generate::{Size, site};
use portguard_policy::compile::{Batch, Inputs, Selection, compile};
use portguard_policy::image::Image;
use portguard_policy::policy::Policy;
use portguard_policy::site::Site;

use super::{best, options};
use crate::plan::{ROWS, rows};
use crate::results::Quantity;

/// Interfaces of one host.
const INTERFACES: [u32; 4] = [1, 4, 16, 64];
/// Hosts of a site.
const HOSTS: [u32; 4] = [10, 100, 1_000, 10_000];
/// The most of them with `--quick`.
const QUICK: u32 = 1_000;
/// The same, of interfaces.
const QUICK_INTERFACES: u32 = 4;

/// From the text of a site to the policy of one host, and of each. It comes first: `hosts/peak` is the most memory that this
/// process ever had.
pub(super) fn hosts(found: &mut Vec<Quantity>, quick: bool) -> Result<()> {
    for count in HOSTS.into_iter().filter(|count| !quick || *count <= QUICK) {
        let (catalog, text) = site(Size {
            hosts: count,
            roles: 200,
            prefixes: 1_000,
            seed: 7,
        });
        let (_, one) = best(|| Ok(compile(&inputs(&catalog, &read(&text)?, "host-0"))))?;
        let begun = Instant::now();
        let site = read(&text)?;
        let batch = Batch::new(&inputs(&catalog, &site, ""));
        let mut grants = 0;
        for host in &site.hosts {
            let compiled = batch.compile(&inputs(&catalog, &site, &host.name));
            grants += compiled.policy.inbound.len();
        }
        ensure!(grants > site.hosts.len(), "hosts without rows");
        found.push(Quantity::time("hosts/one", one).at(count));
        found.push(Quantity::time("hosts/all", begun.elapsed()).at(count));
    }
    found.push(Quantity::memory("hosts/peak", peak()?));
    Ok(())
}

/// The most octets that this process ever had resident.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no `VmHWM`")?.parse::<u64>()? * 1024)
}

fn read(text: &str) -> Result<Site> {
    Site::parse("large.toml", text.as_bytes())
        .ok()
        .context("the generated site is not sound")
}

fn inputs<'a>(catalog: &'a Catalog, site: &'a Site, host: &str) -> Inputs<'a> {
    Inputs {
        catalog,
        site,
        host: Selection::Name(host.to_owned()),
        interface: None,
        local_addresses: &[],
        hostname: None,
        resolved: const { &BTreeMap::new() },
        files: const { &BTreeMap::new() },
        today: None,
    }
}

/// Tables, and tables with programs, of so many rows for sixteen ports, each for a network of its own.
pub(super) fn of_rows(found: &mut Vec<Quantity>, quick: bool) -> Result<()> {
    let host = HostFacts::default();
    for count in ROWS.into_iter().filter(|count| !quick || *count <= QUICK) {
        let policy = rows(count);
        let (image, tables) = best(|| Ok(Image::build(&policy, Directory::default())?))?;
        let (loaded, programs) = best(|| Ok(object::load(&image, &host, None)?))?;
        let shared = memory::of(&loaded)?;
        found.push(Quantity::time("rows/tables", tables).at(count));
        found.push(Quantity::time("rows/programs", programs).at(count));
        found.push(Quantity::memory("rows/shared", shared.generation + shared.shared).at(count));
    }
    Ok(())
}

/// One load for all interfaces of a host, and the swap of all at once.
pub(super) fn interfaces(found: &mut Vec<Quantity>, policy: &Policy, quick: bool) -> Result<()> {
    let lab = Lab::new()?;
    let (left, right) = (lab.host("left")?, lab.host("right")?);
    let wanted = |count: &u32| !quick || *count <= QUICK_INTERFACES;
    let mut links = Vec::new();
    for count in INTERFACES.into_iter().filter(wanted) {
        while links.len() < count as usize {
            let number = u8::try_from(links.len())?;
            let end = |side: &str, host: u8| {
                let address = Ipv4Addr::new(10, 78, number, host);
                End::new(&format!("pgb{side}{number}")).address(&format!("{address}/24"))
            };
            links.push(lab.connect(&left, &end("l", 1), &right, &end("r", 2))?);
        }
        let guarded = links.iter().map(|link| Interface {
            name: link.left.name.clone(),
            index: link.left.index,
        });
        let guarded: Vec<Interface> = guarded.collect();
        let (loaded, swapped) = left.run(|| together(&guarded, policy))?;
        found.push(Quantity::time("interfaces/load", loaded).at(count));
        found.push(Quantity::time("interfaces/swap", swapped).at(count));
    }
    Ok(())
}

/// How long it takes to prepare all, and to swap all in.
fn together(guarded: &[Interface], policy: &Policy) -> Result<(Duration, Duration)> {
    let lock = pins::lock()?;
    let outcome = (|| -> Result<_> {
        let begun = Instant::now();
        let all = guarded.iter();
        let prepared = all.map(|interface| prepare(&lock, interface, policy, &options()));
        let prepared = prepared.collect::<portguard_kernel::Result<Vec<_>>>()?;
        let (loaded, begun) = (begun.elapsed(), Instant::now());
        publish(prepared)?;
        Ok((loaded, begun.elapsed()))
    })();
    for interface in guarded {
        unload(&lock, &Layout::of(&interface.name))?;
    }
    outcome
}
