//! The host lives in enforce: with one TCP and one UDP port documented, everything else that a host does all day goes on.
//!
//! Real stacks on both sides, and real programs where Debian has small ones. What the host may send is said in a site file.

mod bulk;
pub(crate) mod clients;
mod dhcp;
mod neighbours;
mod scan;
pub(crate) mod sessions;
pub(crate) mod town;

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use portguard_harness::traffic::ping;

use crate::guard::SOON;
use clients::{ask_name, ask_page, ask_time};
use town::Town;

/// What becomes of what the host sends.
const OUTBOUND: [&str; 2] = ["audit", "enforce"];

#[test]
fn names_times_and_pages_are_fetched() -> Result<()> {
    for outbound in OUTBOUND {
        let town = Town::new()?;
        let _services = town.services()?;
        town.load(outbound)?;
        for server in town.server.both() {
            let answer = town
                .host()
                .run(|| ask_name(SocketAddr::new(server, 53), "small.town"))?;
            ensure!(
                !answer.over_tcp && answer.length < 512,
                "{server}: {answer:?}"
            );
            // Larger than a packet, in one datagram.
            let answer = town
                .host()
                .run(|| ask_name(SocketAddr::new(server, 53), "large.town"))?;
            ensure!(
                !answer.over_tcp && answer.length > 4000,
                "{server}: {answer:?}"
            );
            let answer = town
                .host()
                .run(|| ask_name(SocketAddr::new(server, 53), "huge.town"))?;
            ensure!(
                answer.over_tcp && answer.length > 8000,
                "{server}: {answer:?}"
            );
            let time = town.host().run(|| ask_time(SocketAddr::new(server, 123)))?;
            ensure!(time == clients::TIME, "{server}: the time is {time}");
            let page = town.host().run(|| ask_page(SocketAddr::new(server, 80)))?;
            ensure!(page == town::PAGE, "{server} has another page: {page}");
        }
    }
    Ok(())
}

#[test]
fn echo_works_both_ways() -> Result<()> {
    for outbound in OUTBOUND {
        let town = Town::new()?;
        town.load(outbound)?;
        let host = &town.guarded.link.left;
        for (ours, theirs) in host.both().into_iter().zip(town.server.both()) {
            let out = town.host().run(|| ping(theirs, SOON))?;
            ensure!(out.is_some(), "{theirs} does not answer the host");
            let back = town.server.host.run(|| ping(ours, SOON))?;
            ensure!(back.is_some(), "{ours} does not answer");
        }
    }
    Ok(())
}
