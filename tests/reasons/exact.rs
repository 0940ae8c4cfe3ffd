//! What is counted is what was sent, packet by packet and byte by byte, for every reason there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_common::packet::Malformed;
use portguard_common::reason::{Direction, Reason};
use portguard_harness::net::{Host, Interface, Link, unique_name};
use portguard_harness::traffic::PacketSocket;
use portguard_observe::observe::{self, Observed};
use portguard_policy::policy::GrantKind;
use serde_json::Value;

use super::shapes::{Shape, Why, shapes};
use crate::guard::{Guarded, LONG};

const MATRIX: &str = r#"
schema = 1
system = "reasons"
name = "Reasons"
document = "Reasons: network ports"
source = "reasons.html"
read = "2026-11-22"
[roles.host]
name = "Host"
[[row]]
id = "one-in"
role = "host"
direction = "in"
transport = "udp"
ports = [7001]
peers = ["unprinted"]
purpose = "one"
cite = { section = "Host", row = "in" }
[[row]]
id = "one-out"
role = "host"
direction = "out"
transport = "udp"
ports = [7001]
peers = ["unprinted"]
purpose = "one"
cite = { section = "Host", row = "out" }
"#;

/// Ports as in [`super::shapes`].
const SITE: &str = r#"
schema = 1
unprinted_peers = "any"
catalogs = ["matrices"]
STRICT
[management]
allow = ["udp/7004=any"]
[baseline]
echo = "any"
dhcp = "any"
dns = "any"
protocols = [{ number = 50, peers = "any", reason = "a test" }]
[[row]]
name = "site-in"
direction = "in"
transport = "udp"
ports = [7003]
peers = "any"
reason = "a test"
[[row]]
name = "others-in"
direction = "in"
transport = "udp"
ports = [7002]
peers = ["192.0.2.0/24"]
reason = "a test"
[[row]]
name = "site-out"
direction = "out"
transport = "udp"
ports = [7003]
peers = "any"
reason = "a test"
[[row]]
name = "others-out"
direction = "out"
transport = "udp"
ports = [7002]
peers = ["192.0.2.0/24"]
reason = "a test"
[[host]]
name = "host"
addresses = ["10.77.0.1", "fd77::1"]
roles = ["reasons/host"]
"#;

const STRICT: &str = r#"
strict_fragments = true
strict_ethertypes = true
allowed_ethertypes = []
scope = "host-addresses"
"#;

/// Packets and bytes.
type Sum = (u64, u64);
/// By direction and name.
type Sums = BTreeMap<(&'static str, String), Sum>;

/// A site file and its matrix, in a folder that goes with it.
struct Site(PathBuf);

impl Site {
    fn new(is_strict: bool) -> Result<Self> {
        let site = Self(std::env::temp_dir().join(unique_name("rea")));
        fs::create_dir_all(site.0.join("matrices"))?;
        fs::write(site.0.join("matrices/reasons.toml"), MATRIX)?;
        let text = SITE.replace("STRICT", if is_strict { STRICT } else { "" });
        fs::write(site.0.join("site.toml"), text)?;
        Ok(site)
    }

    fn load(&self, guarded: &Guarded, mode: &str) -> Result<()> {
        let site = self.0.join("site.toml").display().to_string();
        let outbound = mode.trim_start_matches("--");
        let args = [
            "load",
            "-c",
            &site,
            "--host",
            "host",
            "--interface",
            guarded.interface(),
            mode,
            "--outbound",
            outbound,
            "--confirm-within",
            "0",
            // From all to the host's own addresses, and back.
            "--allow-weaker",
        ];
        guarded.run(&args.map(str::to_owned), None)?.success()?;
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn observe(guarded: &Guarded) -> Result<Observed> {
    let found = guarded
        .link
        .left
        .host
        .run(|| Ok(observe::interfaces(Some(guarded.interface()))?))?;
    found.into_iter().next().context("no guard")
}

/// What was counted, by reason, and of malformed frames by cause.
fn counted(guarded: &Guarded) -> Result<Sums> {
    let seen = observe(guarded)?;
    let report = seen.report(true);
    let mut sums: Sums = report
        .reasons
        .into_iter()
        .map(|line| ((line.direction, line.reason), (line.packets, line.bytes)))
        .collect();
    let causes = report.causes.iter();
    sums.extend(
        causes
            .filter(|cause| cause.kind == "malformed")
            .map(|cause| {
                (
                    (cause.direction, cause.name()),
                    (cause.packets, cause.bytes),
                )
            }),
    );
    Ok(sums)
}

/// Sends what the host is told that it may, or (`is_drop`) may not, and what it receives.
fn send(
    guarded: &Guarded,
    socket: &PacketSocket,
    shape: &Shape,
    count: u64,
    is_drop: bool,
) -> Result<()> {
    if shape.direction == Direction::Egress {
        for _ in 0..count {
            ensure!(socket.offer(&shape.frame)? != is_drop, "{shape:?}");
        }
        return Ok(());
    }
    guarded.receive(socket, &shape.frame, count)
}

/// Notes what was sent under the names that it has in counters.
fn note(sent: &mut Sums, shape: &Shape, why: Why, count: u64) {
    let mut names = vec![why.name(shape.direction).to_owned()];
    if let Why::Bad(cause) = why {
        names.push(format!("malformed: {}", cause.name()));
    }
    for name in names {
        let sum = sent.entry((shape.direction.name(), name)).or_default();
        *sum = (sum.0 + count, sum.1 + count * shape.frame.len() as u64);
    }
}

fn differences(sent: &Sums, counted: &Sums) -> Vec<String> {
    let places: BTreeSet<_> = sent.keys().chain(counted.keys()).collect();
    places
        .into_iter()
        .filter(|place| sent.get(place) != counted.get(place))
        .map(|place| {
            let (sent, counted) = (sent.get(place), counted.get(place));
            format!("{place:?}: sent {sent:?}, counted {counted:?}")
        })
        .collect()
}

/// Nobody on the link says a word of its own.
fn silence(link: &Link) -> Result<()> {
    for end in [&link.left, &link.right] {
        let key = format!("net/ipv6/conf/{}/disable_ipv6", end.name);
        end.host.sysctl(&key, "1")?;
    }
    Ok(())
}

/// The host's own stack hears nothing of what arrives by IP, and so answers nothing; packet sockets do.
fn deafen(host: &Host) -> Result<()> {
    let chain = "add chain inet deaf c { type filter hook prerouting priority -400; policy drop; }";
    for line in ["add table inet deaf", chain] {
        let mut nft = Command::new("nft");
        host.output(nft.args(line.split_whitespace()), LONG)?
            .success()?;
    }
    Ok(())
}

/// Every reason, every cause and every kind of grant is among what is sent: whoever adds one adds a frame for it.
fn check_coverage(all: &[Shape]) {
    for direction in [Direction::Ingress, Direction::Egress] {
        let of: Vec<Why> = all
            .iter()
            .filter(|shape| shape.direction == direction)
            .flat_map(|shape| [shape.plain, shape.strict])
            .collect();
        for reason in Reason::ALL {
            // No frame that this host sends itself is on its way through it, or another's.
            if matches!(reason, Reason::Transit | Reason::OtherHost)
                && direction == Direction::Egress
            {
                continue;
            }
            assert!(
                of.iter().any(|why| why.reason() == reason),
                "no frame for {direction:?} {reason:?}"
            );
        }
        for cause in Malformed::ALL {
            assert!(
                of.contains(&Why::Bad(cause)),
                "no frame for {direction:?} {cause:?}"
            );
        }
        for kind in [
            GrantKind::Management,
            GrantKind::Baseline,
            GrantKind::Documented,
            GrantKind::Site,
        ] {
            let name = match (kind, direction) {
                // What the host may send to whom is never a matter of management.
                (GrantKind::Management, Direction::Egress) => continue,
                (GrantKind::Management, Direction::Ingress) => "management",
                (GrantKind::Baseline, Direction::Ingress) => "dhcp",
                (GrantKind::Baseline, Direction::Egress) => "baseline",
                (GrantKind::Documented, _) => "documented",
                (GrantKind::Site, _) => "site",
            };
            assert!(
                of.contains(&Why::Granted(name)),
                "no frame for {direction:?} {name}"
            );
        }
        for name in ["icmp-echo", "protocol"] {
            assert!(
                of.contains(&Why::Granted(name)),
                "no frame for {direction:?} {name}"
            );
        }
    }
}

#[test]
fn every_reason_is_counted_exactly_both_ways_in_audit_and_in_enforce_and_over_reloads() -> Result<()>
{
    let guarded = Guarded::new()?;
    silence(&guarded.link)?;
    deafen(&guarded.link.left.host)?;
    let left = &guarded.link.left;
    left.host
        .sysctl(&format!("net/ipv4/conf/{}/forwarding", left.name), "1")?;
    let gateway = guarded.link.right.both()[0];
    left.add_route("0.0.0.0/0".parse()?, Some(gateway))?;
    let all = shapes(&guarded.link);
    check_coverage(&all);
    let sites = [Site::new(false)?, Site::new(true)?];
    let open = |end: &Interface| end.host.run(|| PacketSocket::open(&end.name));
    let (mut left, mut right) = (open(&guarded.link.left)?, open(&guarded.link.right)?);
    let mut sent = Sums::new();
    for (round, (mode, is_strict)) in [
        ("--audit", false),
        ("--enforce", false),
        ("--enforce", true),
        ("--audit", true),
        ("--enforce", false),
    ]
    .into_iter()
    .enumerate()
    {
        let [plain, strict] = &sites;
        let site = if is_strict { strict } else { plain };
        site.load(&guarded, mode)?;
        assert_eq!(
            counted(&guarded)?,
            sent,
            "loading counts nothing and loses nothing"
        );
        for (index, shape) in all.iter().enumerate() {
            let why = if is_strict { shape.strict } else { shape.plain };
            let (from, to) = match shape.direction {
                Direction::Ingress => (&right, &mut left),
                Direction::Egress => (&left, &mut right),
            };
            // A number of its own for each, so that no two can be taken for each other.
            let count = 1 + (index + round) as u64;
            let is_drop = mode == "--enforce" && why.reason().is_violation();
            send(&guarded, from, shape, count, is_drop)?;
            note(&mut sent, shape, why, count);
            let wanted = if is_drop { 0 } else { usize::try_from(count)? };
            // What was dropped was dropped when it was taken: there is nothing to wait for.
            let until = Instant::now() + if is_drop { Duration::ZERO } else { LONG };
            let arrival = shape.arrival();
            let arrived = to.count(until, wanted.max(1), |frame| frame == arrival)?;
            assert_eq!(arrived, wanted, "{mode} {:?} {why:?}", shape.direction);
        }
        let now = counted(&guarded)?;
        assert!(now == sent, "{mode}: {:#?}", differences(&sent, &now));
    }
    // What is told is what is kept.
    let args = [
        "counters",
        "--json",
        "--raw",
        "--interface",
        guarded.interface(),
    ];
    let output = guarded.run(&args.map(str::to_owned), None)?.success()?;
    let answer: Value = serde_json::from_str(&output.stdout)?;
    let interface = &answer["interfaces"][0];
    let told = interface["reasons"].as_array().context("reasons")?;
    let mut totals = (0, 0);
    for line in told {
        let text = |key: &str| line[key].as_str().context("a word");
        let number = |key: &str| line[key].as_u64().context("a number");
        let sum = (number("packets")?, number("bytes")?);
        totals = (totals.0 + sum.0, totals.1 + sum.1);
        let place = if text("direction")? == "in" {
            "in"
        } else {
            "out"
        };
        assert_eq!(
            sent.get(&(place, text("reason")?.to_owned())),
            Some(&sum),
            "{line}"
        );
    }
    let reasons = sent
        .keys()
        .filter(|(_, name)| !name.starts_with("malformed: "));
    assert_eq!(told.len(), reasons.count());
    let told = &interface["totals"];
    assert_eq!(
        (told["packets"].as_u64(), told["bytes"].as_u64()),
        (Some(totals.0), Some(totals.1))
    );
    Ok(())
}
