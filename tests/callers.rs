//! Who is knocking: told without an agent or a listener, with a bound that is kept, from memory that a flood cannot grow.

mod six;

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::traffic::PacketSocket;
use serde_json::Value;

use super::guard::Guarded;

/// Outside of what the documents and the kernel name.
pub(crate) const PORT: u16 = 61_000;
pub(crate) const HEAVY: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 1);
pub(crate) const LIGHT: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 2);

pub(crate) fn json(guarded: &Guarded, args: &[&str]) -> Result<Value> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let output = guarded.run(&args, None)?;
    ensure!(output.code() <= 1, "{output}");
    serde_json::from_str(&output.stdout).with_context(|| format!("{output}"))
}

/// Sends `count` datagrams, the source of each by its number, and waits until all were counted.
pub(crate) fn flood(
    guarded: &Guarded,
    port: u16,
    count: u64,
    mut source: impl FnMut(u64) -> Ipv4Addr + Send,
) -> Result<()> {
    /// Frames that a queue holds.
    const BURST: u64 = 128;
    let (from, to) = (&guarded.link.right, &guarded.link.left);
    // Cheaper to ask than the counters, and in audit all that arrives goes on.
    let arrived = || -> Result<u64> {
        let text = to
            .host
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
        let (_, numbers) = lines
            .find(|(name, _)| *name == to.name)
            .context("the interface")?;
        Ok(numbers
            .split_whitespace()
            .nth(1)
            .context("packets")?
            .parse()?)
    };
    let before = arrived()?;
    let socket = from.host.run(|| PacketSocket::open(&from.name))?;
    for number in 0..count {
        let frame = Frame::between(from, to)
            .ipv4(Ipv4::new(source(number), to.v4()))
            .udp(Udp::new(40_000, port))
            .payload(vec![0; 20])
            .build();
        socket.send(&frame)?;
        if (number + 1) % BURST == 0 || number + 1 == count {
            let deadline = Instant::now() + Duration::from_secs(10);
            while arrived()? < before + number + 1 {
                ensure!(
                    Instant::now() < deadline,
                    "{} of {number}",
                    arrived()? - before
                );
                std::thread::yield_now();
            }
        }
    }
    Ok(())
}

fn caller<'v>(interface: &'v Value, peer: &str) -> Option<&'v Value> {
    let callers = interface["knocking"]["callers"].as_array()?;
    callers.iter().find(|caller| caller["peer"] == peer)
}

#[test]
fn few_violations_are_put_down_to_their_callers_exactly() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    flood(&guarded, PORT, 30, |_| HEAVY)?;
    flood(&guarded, PORT, 7, |_| LIGHT)?;
    let counters = json(&guarded, &["counters", "--by", "peer", "--json"])?;
    let interface = &counters["interfaces"][0];
    assert_eq!(interface["knocking"]["bound"], 0);
    assert_eq!(interface["knocking"]["exact"], true, "{interface}");
    for (peer, packets) in [(HEAVY, 30), (LIGHT, 7)] {
        let caller = caller(interface, &peer.to_string()).context("a caller")?;
        assert_eq!(
            [&caller["at_least"], &caller["packets"], &caller["at_most"]],
            [packets; 3]
        );
        assert_eq!(caller["estimated"], false);
        assert_eq!(
            (&caller["dropped"], &caller["reason"]),
            (&0.into(), &"undocumented-port".into())
        );
        assert_eq!(
            (&caller["transport"], &caller["port"]),
            (&"udp".into(), &PORT.into())
        );
        assert!(caller["first"].as_str() <= caller["last"].as_str());
    }

    // In words, in drift, and when it is dropped.
    let text = guarded
        .run(&["counters", "--by", "peer"].map(str::to_owned), None)?
        .success()?;
    let line = text
        .stdout
        .lines()
        .find(|line| line.contains(&HEAVY.to_string()));
    let line = line.with_context(|| text.stdout.clone())?;
    assert!(line.contains("udp/61000") && line.contains("30"), "{line}");
    assert!(
        text.stdout.contains("all talkers are known"),
        "{}",
        text.stdout
    );
    let drift = json(&guarded, &["drift", "--json"])?;
    let items = drift["items"].as_array().context("items")?;
    let item = items
        .iter()
        .find(|item| item["port_first"] == PORT && item["transport"] == "udp");
    let item = item.context("an item")?;
    assert_eq!(item["state"], "undocumented-traffic-seen");
    assert_eq!(item["callers"][0]["peer"], HEAVY.to_string());
    guarded.load("--enforce", &[], &["--force"])?;
    flood(&guarded, PORT, 5, |_| LIGHT)?;
    let counters = json(&guarded, &["counters", "--by", "peer", "--json"])?;
    let caller = caller(&counters["interfaces"][0], &LIGHT.to_string()).context("a caller")?;
    assert_eq!(
        (&caller["packets"], &caller["dropped"]),
        (&12.into(), &5.into())
    );
    Ok(())
}

#[test]
fn a_spoofed_flood_hides_nobody_heavy_and_the_bound_is_kept() -> Result<()> {
    const FLOOD: u64 = 60_000;
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[], &[])?;
    let name = guarded.interface();
    let pins = guarded.pins()?;
    let maps = || -> Result<Vec<(String, u64)>> {
        // What the kernel holds for the guard, by its own account.
        let mut sizes = Vec::new();
        for entry in std::fs::read_dir(pins.join("shared"))? {
            let path = entry?.path();
            let Ok(info) = aya::maps::MapInfo::from_pin(&path) else {
                continue;
            };
            let fd = info.fd()?;
            let number = fd.as_fd().as_raw_fd();
            let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
            let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
            sizes.push((
                path.display().to_string(),
                bytes.context("memlock")?.trim().parse()?,
            ));
        }
        sizes.sort();
        Ok(sizes)
    };
    let before = maps()?;
    ensure!(
        before
            .iter()
            .any(|(path, bytes)| path.ends_with("TALKERS") && *bytes > 0)
    );
    let mut truth = std::collections::BTreeMap::<Ipv4Addr, u64>::new();
    // One in four of one source, all others spoofed, none twice.
    let mut random = fastrand::Rng::with_seed(7);
    flood(&guarded, PORT, FLOOD, |number| {
        let [_, a, b, c] = u32::try_from(number).unwrap_or(0).to_be_bytes();
        let spoofed = Ipv4Addr::new(100, a, b, c);
        let source = if random.u8(..4) == 0 { HEAVY } else { spoofed };
        *truth.entry(source).or_default() += 1;
        source
    })?;
    assert_eq!(maps()?, before, "the flood bought memory");

    let counters = json(&guarded, &["counters", "--by", "peer", "--json"])?;
    let interface = &counters["interfaces"][0];
    let bound = interface["knocking"]["bound"].as_u64().context("a bound")?;
    let first = &interface["knocking"]["callers"][0];
    assert_eq!(first["peer"], HEAVY.to_string(), "{name}: {first}");
    let number = |caller: &Value, key: &str| caller[key].as_u64().context("a number");
    let packets = number(first, "packets")?;
    let sent = truth[&HEAVY];
    println!("{sent} of {FLOOD} sent by the heavy one: {first}; bound {bound}");
    // Beyond the first 64 a second one in 256 stands for all: 15,000 packets are some 59 samples, whose deviation is
    // about an eighth, and the last of each second stand for nobody: three deviations and these.
    ensure!(packets.abs_diff(sent) < sent / 2, "{packets} for {sent}");
    ensure!(interface["knocking"]["exact"] == false);
    assert_eq!(first["estimated"], true);
    // The bounds of each hold, however few of the packets were looked at.
    let callers = &interface["knocking"]["callers"];
    for caller in callers.as_array().context("callers")? {
        let peer: Ipv4Addr = caller["peer"].as_str().context("a peer")?.parse()?;
        let sent = truth[&peer];
        ensure!(
            number(caller, "at_least")? <= sent && sent <= number(caller, "at_most")?,
            "{sent}: {caller}"
        );
    }
    // Whoever sent more than the bound is named; so nobody unnamed may have.
    ensure!(bound < sent, "{bound}");
    let known = interface["knocking"]["callers"]
        .as_array()
        .context("callers")?
        .len();
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(known <= 1_024 * cpus, "{known}");
    // The counters themselves are exact.
    let ports = interface["ports"].as_array().context("ports")?;
    let port = ports
        .iter()
        .find(|port| port["port"] == PORT)
        .context("the port")?;
    assert_eq!(port["violations"]["packets"], FLOOD);
    Ok(())
}
