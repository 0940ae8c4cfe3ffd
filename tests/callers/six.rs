//! Callers by IPv6: addresses while they are few, their network of 64 bits where they are many; times are those of their
//! packets, and the error bound that is stated is kept by each.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use anyhow::{Context as _, Result, ensure};
use portguard_fleet::now;
use portguard_harness::frames::{Frame, Ipv6, Udp};
use portguard_harness::traffic::PacketSocket;
use portguard_policy::human::rfc3339;
use serde_json::Value;

use super::{PORT, caller, json};
use crate::counters::pin_to;
use crate::guard::Guarded;

/// Ports of sixteen parts of the table, each with a pace of its own: so many violations of each are all looked at.
const PORTS: u16 = 16;
const EACH: u16 = 62;
/// Of these, the packets of one caller that is heavier than all others.
const HEAVY: u16 = 12;

fn network(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 7, number, 0, 0, 0, 0)
}

fn address(network: Ipv6Addr, host: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(network.to_bits() | u128::from(host))
}

struct Sender<'g> {
    guarded: &'g Guarded,
    socket: PacketSocket,
}

impl<'g> Sender<'g> {
    fn new(guarded: &'g Guarded) -> Result<Self> {
        let right = &guarded.link.right;
        Ok(Self {
            guarded,
            socket: right.host.run(|| PacketSocket::open(&right.name))?,
        })
    }

    fn frame(&self, source: Ipv6Addr, port: u16) -> Vec<u8> {
        let (from, to) = (&self.guarded.link.right, &self.guarded.link.left);
        Frame::between(from, to)
            .ipv6(Ipv6::new(source, to.v6()))
            .udp(Udp::new(40_000, port))
            .payload(vec![0; 20])
            .build()
    }

    fn send(&self, source: Ipv6Addr, port: u16, count: u64) -> Result<()> {
        let frame = self.frame(source, port);
        self.guarded.receive(&self.socket, &frame, count)
    }
}

fn knocking(guarded: &Guarded) -> Result<Value> {
    let name = guarded.interface();
    let args = ["counters", "--by", "peer", "--json", "--interface", name];
    let counters = json(guarded, &args)?;
    Ok(counters["interfaces"][0].clone())
}

/// How many callers are the test's: the stack at the other end has things to say of its own.
fn ours(interface: &Value) -> usize {
    let callers = interface["knocking"]["callers"].as_array();
    let is_ours = |caller: &&Value| {
        let peer = caller["peer"].as_str();
        peer.is_some_and(|peer| peer.starts_with("2001:db8:7:"))
    };
    callers.into_iter().flatten().filter(is_ours).count()
}

/// A time as the tool writes it, seconds since the epoch.
fn at(seconds: u64) -> String {
    rfc3339(seconds * 1_000_000_000)
}

#[test]
fn addresses_are_callers_while_they_are_few_and_one_where_they_are_many() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let sender = Sender::new(&guarded)?;
    let before = now();
    // Few enough altogether to be looked at each, should all fall into one second.
    for host in 1..=5 {
        sender.send(address(network(1), host), PORT, 4)?;
    }
    sender.send(address(network(2), 9), PORT, 7)?;
    let interface = knocking(&guarded)?;
    assert_eq!(ours(&interface), 6, "{interface:#}");
    for host in 1..=5 {
        let one = caller(&interface, &address(network(1), host).to_string()).context("one")?;
        assert_eq!(
            (&one["packets"], &one["last_address"]),
            (&4.into(), &Value::Null)
        );
    }
    let middle = now();
    // Another second, so that times tell the bursts apart.
    crate::guard::eventually("a second", || Ok(now() > middle))?;
    // Whoever has a network has as many addresses as there are packets.
    for host in 0xa0..=0xb3 {
        sender.send(address(network(1), host), PORT, 1)?;
    }
    let after = now();

    let interface = knocking(&guarded)?;
    assert_eq!(interface["knocking"]["exact"], true);
    assert_eq!(ours(&interface), 2, "{interface:#}");
    let one = caller(&interface, "2001:db8:7:1::/64").context("a caller")?;
    assert_eq!((&one["packets"], &one["dropped"]), (&40.into(), &0.into()));
    assert_eq!(one["last_address"], "2001:db8:7:1::b3");
    let (first, last) = (&one["first"], &one["last"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert!(
        at(before) <= text(first) && text(first) < at(middle + 1),
        "{first}: {before} to {middle}"
    );
    assert!(
        at(middle + 1) <= text(last) && text(last) < at(after + 1),
        "{last}: {middle} to {after}"
    );
    let other = caller(&interface, "2001:db8:7:2::9").context("another")?;
    assert_eq!(other["packets"], 7);
    assert!(text(&other["last"]) < at(middle + 1));
    Ok(())
}

#[test]
fn more_callers_than_there_are_places_for_keep_the_bound() -> Result<()> {
    // One CPU takes them all: each has places of its own.
    pin_to(0)?;
    let guarded = Guarded::new()?;
    guarded.load("--enforce", &[], &["--force", "--confirm-within", "0"])?;
    let sender = Sender::new(&guarded)?;
    let mut truth: BTreeMap<(String, u16), u64> = BTreeMap::new();
    let mut frames = Vec::new();
    for step in 0..EACH {
        for index in 0..PORTS {
            let port = 3_000 + 4_096 * index;
            // A heavy one comes every other time, and between them nobody twice.
            let number = if step % 2 == 0 && step / 2 < HEAVY {
                index
            } else {
                1_000 + step * PORTS + index
            };
            let peer = address(network(number), 1);
            frames.push(sender.frame(peer, port));
            *truth.entry((peer.to_string(), port)).or_default() += 1;
        }
    }
    guarded.receive_all(&sender.socket, &frames)?;
    let sent = u64::from(EACH * PORTS);
    let interface = knocking(&guarded)?;
    let knocking = &interface["knocking"];
    assert_eq!(
        (&knocking["exact"], &knocking["violations"]),
        (&true.into(), &sent.into())
    );
    let bound = knocking["bound"].as_u64().context("a bound")?;
    println!("{} callers, bound {bound}", truth.len());
    // There were more callers than places, and yet the bound says something.
    ensure!((1..u64::from(HEAVY)).contains(&bound), "{bound}");
    let mut known: BTreeMap<(String, u16), (u64, u64)> = BTreeMap::new();
    for caller in knocking["callers"].as_array().context("callers")? {
        let number = |key: &str| caller[key].as_u64().context("a number");
        let peer = caller["peer"].as_str().context("a peer")?.to_owned();
        known.insert(
            (peer, u16::try_from(number("port")?)?),
            (number("at_least")?, number("at_most")?),
        );
    }
    ensure!(
        known.len() < truth.len(),
        "{} of {}",
        known.len(),
        truth.len()
    );
    for (who, (at_least, at_most)) in &known {
        let sent = truth
            .get(who)
            .with_context(|| format!("{who:?} never knocked"))?;
        ensure!(
            (at_least..=at_most).contains(&sent),
            "{who:?}: {sent}, told {at_least} to {at_most}"
        );
    }
    for (who, sent) in &truth {
        ensure!(
            *sent <= bound || known.contains_key(who),
            "{who:?} sent {sent} and is missing"
        );
    }
    Ok(())
}
