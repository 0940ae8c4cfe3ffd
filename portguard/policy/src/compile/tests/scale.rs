//! A large site compiles in time and memory.

use std::time::Instant;

use super::fixture::inputs;
use crate::compile::generate::{Size, site};
use crate::compile::{Batch, Selection, compile};
use crate::site::Site;

/// Peak resident size of this process so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn measure(size: Size) -> (f64, f64) {
    let (catalog, text) = site(size);
    let start = Instant::now();
    let site = Site::parse("big.toml", text.as_bytes()).unwrap();
    let parsed = start.elapsed().as_secs_f64();
    let compiled = compile(&inputs(
        &catalog,
        &site,
        Selection::Name("host-0".to_owned()),
    ));
    let total = start.elapsed().as_secs_f64();
    assert_eq!(compiled.diagnostics, []);
    let prefixes: usize = compiled
        .policy
        .sets
        .iter()
        .map(|set| set.prefixes.len())
        .sum();
    assert!(prefixes >= size.prefixes as usize, "{prefixes}");
    println!(
        "{size:?}: parse {parsed:.3} s, all {total:.3} s, peak {} MiB",
        peak()
    );
    (parsed, total)
}

/// The bounds are for the release build; the debug build is some ten times slower and only has to come to an end.
#[test]
fn ten_thousand_hosts_and_a_hundred_thousand_prefixes() {
    let sizes = [
        (1_000, 20, 1_000),
        (10_000, 200, 10_000),
        (10_000, 200, 100_000),
    ];
    for (hosts, roles, prefixes) in sizes {
        let (_, total) = measure(Size {
            hosts,
            roles,
            prefixes,
            seed: 7,
        });
        if !cfg!(debug_assertions) {
            assert!(total < 1.0, "{total} s");
            assert!(peak() < 200, "{} MiB", peak());
        }
    }
}

/// Policies that a review of a host of a large site compiles.
fn compiled(hosts: u32) -> usize {
    use std::fmt::Write as _;
    let mut text = String::from(
        "schema = 1\nunprinted_peers = \"any\"\n[systems.wso2]\noptions = [\"clustering\"]\nchoices = { membership = \"wka\" }\n\
         ports = { api-manager-9099 = 9100 }\nrows = { jmx-11111 = { only = [\"host:h7\"] }, jmx-9999 = { off = true, reason = \"x\" } }\n\
         clusters.a.without = [\"jmx\"]\n",
    );
    for host in 0..hosts {
        let role = ["api-manager", "esb", "identity-server"][host as usize % 3];
        let cluster = ["a", "b"][host as usize % 2];
        let (high, low) = (host >> 8, host & 255);
        let _ = writeln!(
            text,
            "[[host]]\nname = \"h{host}\"\naddresses = [\"10.1.{high}.{low}\"]\ncluster = \"{cluster}\"\nroles = [\"wso2/{role}\"]\n\
             offsets = {{ \"wso2/{role}\" = {} }}",
            host % 5
        );
    }
    let site = Site::parse("big.toml", text.as_bytes()).unwrap();
    let catalog = crate::catalog::Catalog::embedded().unwrap();
    let counter = &crate::compile::survey::outcome::COMPILED;
    counter.set(0);
    crate::compile::review(&inputs(&catalog, &site, Selection::Name("h1".to_owned())));
    counter.get()
}

#[test]
fn a_review_compiles_no_more_for_many_hosts_than_for_some() {
    let (small, large) = (compiled(60), compiled(600));
    assert!(
        large <= small + small / 4,
        "{small} for 60 hosts, {large} for 600"
    );
    assert!(large < 600, "{large}");
}

/// Whoever compiles all hosts of a site gets what each of them compiles for itself.
#[test]
fn a_batch_compiles_what_each_host_does() {
    let (catalog, text) = site(Size {
        hosts: 60,
        roles: 6,
        prefixes: 100,
        seed: 7,
    });
    let site = Site::parse("big.toml", text.as_bytes()).unwrap();
    let inputs = |host: Selection| inputs(&catalog, &site, host);
    let batch = Batch::new(&inputs(Selection::Local));
    let unknown = "nobody".to_owned();
    let names = site.hosts.iter().map(|host| host.name.clone());
    for name in names.chain([unknown]) {
        let inputs = inputs(Selection::Name(name.clone()));
        let (one, all) = (compile(&inputs), batch.compile(&inputs));
        assert_eq!(one.policy, all.policy, "{name}");
        assert_eq!(one.diagnostics, all.diagnostics, "{name}");
    }
}
