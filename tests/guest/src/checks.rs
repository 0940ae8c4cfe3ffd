//! What must hold on every supported kernel, in this order. To add one, write a function and name it in [`ALL`].

use anyhow::{Result, ensure};
use nix::errno::Errno;
use portguard_harness::frames::{Extension, Ipv4, Ipv6, Udp};
use portguard_harness::net::{End, Interface, Lab, Link, unique_name};
use serde_json::Value;

use crate::living::converses;
use crate::program;
use crate::soak;
use crate::world::{OPEN, RESTRICTED, UNDOCUMENTED, World};

/// A check: what it learns goes to [`World::facts`].
type Check = fn(&mut World) -> Result<()>;

/// Names are what the judge expects to read.
const ALL: &[(&str, Check)] = &[
    ("verifier-refuses", |_| program::verifier_refuses()),
    ("egress-hook", egress_hook),
    ("load-audit", load_audit),
    ("audit-passes", audit_passes),
    ("audit-counts", audit_counts),
    ("swap-to-enforce", swap_to_enforce),
    ("enforce-passes-documented", enforce_passes_documented),
    ("enforce-drops-the-rest", enforce_drops_the_rest),
    ("enforce-drops-disguises", enforce_drops_disguises),
    ("enforce-counts", enforce_counts),
    ("swap-under-policy", swap_under_policy),
    ("own-conversations", own_conversations),
    ("vlan", vlan),
    ("unload", unload),
    ("bond", bond),
];

/// Those, and the long one where it is wanted.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Check)> {
    let soak: Option<(&str, Check)> = soak::seconds().map(|_| ("soak", soak::soak as Check));
    ALL.iter().copied().chain(soak)
}

/// Frames of each kind.
pub(crate) const FRAMES: usize = 10;

pub(crate) fn many(world: &World, port: u16, marker: &str) -> Vec<Vec<u8>> {
    vec![world.datagram(port, marker).build(); FRAMES]
}

fn egress_hook(world: &mut World) -> Result<()> {
    let left = &world.link.left;
    let hook = left.host.run(|| program::egress_hook(&left.name))?;
    world.facts.push(("egress-hook", hook.to_owned()));
    Ok(())
}

fn load_audit(world: &mut World) -> Result<()> {
    world.load("--audit", "192.0.2.0/24")?;
    let status = world.interface("status")?;
    ensure!(status["xdp_mode"] == "native", "not native: {status}");
    ensure!(status["mode"] == "audit", "not in audit: {status}");
    Ok(())
}

fn audit_passes(world: &mut World) -> Result<()> {
    for (port, marker) in [
        (OPEN, "audit-open"),
        (RESTRICTED, "audit-peer"),
        (UNDOCUMENTED, "audit-none"),
    ] {
        world.expect(&many(world, port, marker), marker, FRAMES)?;
    }
    Ok(())
}

fn audit_counts(world: &mut World) -> Result<()> {
    counts(world, 1)
}

fn swap_to_enforce(world: &mut World) -> Result<()> {
    let before = world.interface("status")?["generation"].clone();
    world.load("--enforce", "192.0.2.0/24")?;
    let status = world.interface("status")?;
    ensure!(status["mode"] == "enforce", "not enforcing: {status}");
    ensure!(
        status["generation"] != before,
        "the same generation: {status}"
    );
    counts(world, 1)
}

fn enforce_passes_documented(world: &mut World) -> Result<()> {
    world.expect(&many(world, OPEN, "enforce-open"), "enforce-open", FRAMES)
}

fn enforce_drops_the_rest(world: &mut World) -> Result<()> {
    for (port, marker) in [(RESTRICTED, "enforce-peer"), (UNDOCUMENTED, "enforce-none")] {
        world.expect(&many(world, port, marker), marker, 0)?;
    }
    Ok(())
}

/// The same undocumented port behind a tag, options and an extension header; and the documented one, which must pass.
fn enforce_drops_disguises(world: &mut World) -> Result<()> {
    let (left, right) = (&world.link.left, &world.link.right);
    let disguised = |port: u16, marker: &str| {
        let plain = || portguard_harness::frames::Frame::between(right, left);
        let udp = || Udp::new(40_000, port);
        let v4 = || Ipv4::new(right.v4(), left.v4());
        let v6 = || Ipv6::new(right.v6(), left.v6());
        [
            plain().tag(0x8100, 5).ipv4(v4()).udp(udp()),
            plain().tag(0x88a8, 5).tag(0x8100, 6).ipv4(v4()).udp(udp()),
            plain().ipv4(v4().options([1, 1, 1, 0])).udp(udp()),
            plain().ipv6(v6()).udp(udp()),
            plain()
                .ipv6(v6())
                .extension(Extension::destination(1))
                .udp(udp()),
        ]
        .map(|frame| frame.payload(marker.as_bytes()).build())
        .to_vec()
    };
    let open = disguised(OPEN, "disguised-open");
    world.expect(&open, "disguised-open", open.len())?;
    world.expect(
        &disguised(UNDOCUMENTED, "disguised-none"),
        "disguised-none",
        0,
    )
}

fn enforce_counts(world: &mut World) -> Result<()> {
    let counters = world.interface("counters")?;
    let disguises = 5;
    let expected = 2 * FRAMES as u64 + disguises;
    for (port, what) in [(OPEN, "passed"), (UNDOCUMENTED, "violations")] {
        let counted = packets(&counters, port, what);
        ensure!(
            counted == expected,
            "port {port}: {counted} {what}, not {expected}"
        );
    }
    Ok(())
}

/// A new policy in force, at once and for the next frame: the peer is a client now.
fn swap_under_policy(world: &mut World) -> Result<()> {
    let network = "10.77.0.0/24";
    world.load("--enforce", network)?;
    world.expect(&many(world, RESTRICTED, "client"), "client", FRAMES)?;
    world.expect(&many(world, UNDOCUMENTED, "client-none"), "client-none", 0)
}

fn unload(world: &mut World) -> Result<()> {
    let name = world.link.left.name.clone();
    world.portguard(&["unload", "--interface", &name])?;
    ensure!(world.interface("status").is_err(), "still guarded");
    world.expect(&many(world, UNDOCUMENTED, "unguarded"), "unguarded", FRAMES)
}

/// What the guarded host begins goes on, and a stranger comes in nowhere; how conversations are followed is learnt.
fn own_conversations(world: &mut World) -> Result<()> {
    let link = world.link.clone();
    let talk = converses(&link)?;
    let flows = world.interface("flows")?;
    let by_sockets = flows["occupancy"]["sockets"].as_u64().unwrap_or(0) > 0;
    drop(talk);
    let doctor: Value = serde_json::from_str(&world.portguard(&["doctor", "--json"])?)?;
    let said = doctor["host"].as_array().map_or(&[][..], Vec::as_slice);
    let sockets = said.iter().find(|check| check["name"] == "sockets");
    ensure!(
        sockets.is_some_and(|check| (check["grade"] == "ok") == by_sockets),
        "`doctor` says of sockets: {sockets:?}"
    );
    world.facts.push((
        "conversations-of",
        if by_sockets { "sockets" } else { "packets" }.to_owned(),
    ));
    Ok(())
}

/// The same with a tag on every frame, between VLAN interfaces above the guarded one.
fn vlan(world: &mut World) -> Result<()> {
    let (left, right) = (&world.link.left, &world.link.right);
    let tagged = |below: &Interface, host: u8| {
        let addresses = [
            format!("10.77.5.{host}/24").parse()?,
            format!("fd77:5::{host}/64").parse()?,
        ];
        below.add_vlan(&unique_name("pgv"), 0x8100, 5, &addresses)
    };
    let tagged = match (tagged(left, 1), tagged(right, 2)) {
        (Ok(left), Ok(right)) => Link { left, right },
        (Err(error), _) | (_, Err(error)) if is_unsupported(&error) => {
            world.facts.push(("vlan", "not in this kernel".to_owned()));
            return Ok(());
        }
        (left, right) => Link {
            left: left?,
            right: right?,
        },
    };
    drop(converses(&tagged)?);
    world.facts.push(("vlan", "guarded".to_owned()));
    Ok(())
}

/// A guarded bond: what was open stays open when the member that carries it fails, and nobody comes in meanwhile.
fn bond(world: &mut World) -> Result<()> {
    let lab = Lab::new()?;
    let pairs = [(); 2].map(|()| {
        let (left, right) = (&world.link.left.host, &world.link.right.host);
        let end = || End::new(&unique_name("pgm"));
        lab.connect(left, &end(), right, &end())
    });
    let [first, second] = pairs;
    let (first, second) = (first?, second?);
    let bonded = |members: [&Interface; 2], host: u8| {
        let addresses = [
            format!("10.77.6.{host}/24").parse()?,
            format!("fd77:6::{host}/64").parse()?,
        ];
        Interface::bond(&unique_name("pgb"), &members, &addresses)
    };
    let left = match bonded([&first.left, &second.left], 1) {
        Err(error) if is_unsupported(&error) => {
            world.facts.push(("bond", "not in this kernel".to_owned()));
            return Ok(());
        }
        left => left?,
    };
    let right = bonded([&first.right, &second.right], 2)?;
    left.wait_up()?;
    right.wait_up()?;
    let link = Link { left, right };
    let (name, clients) = (&link.left.name, "192.0.2.0/24");
    // Bonds have native XDP since Linux 5.15 (`ndo_bpf` of drivers/net/bonding).
    if let Err(error) = world.load_on(name, clients, &["--enforce"]) {
        ensure!(
            format!("{error:#}").contains("has no native XDP"),
            "{error:#}"
        );
        world.load_on(name, clients, &["--enforce", "--xdp-mode", "generic"])?;
    }
    let mode = world.of(name, "status")?["xdp_mode"].clone();
    let mut talk = converses(&link)?;
    // The carrier of both ends goes with it.
    first.left.set_up(false)?;
    talk.go_on()?;
    drop(talk);
    drop(converses(&link)?);
    world.portguard(&["unload", "--interface", name])?;
    world
        .facts
        .push(("bond", mode.as_str().unwrap_or("unguarded").to_owned()));
    Ok(())
}

/// Whether the kernel has no such kind of interface.
fn is_unsupported(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Errno>() == Some(&Errno::EOPNOTSUPP)
}

/// Whether each port has been counted for this many rounds of frames.
fn counts(world: &World, rounds: u64) -> Result<()> {
    let counters = world.interface("counters")?;
    let expected = rounds * FRAMES as u64;
    for (port, what) in [
        (OPEN, "passed"),
        (RESTRICTED, "violations"),
        (UNDOCUMENTED, "violations"),
    ] {
        let counted = packets(&counters, port, what);
        ensure!(
            counted == expected,
            "port {port}: {counted} {what}, not {expected}"
        );
    }
    Ok(())
}

/// Packets of a UDP port, summed over the lines that name it.
fn packets(counters: &Value, port: u16, what: &str) -> u64 {
    let lines = counters["ports"].as_array().map_or(&[][..], Vec::as_slice);
    lines
        .iter()
        .filter(|line| {
            line["transport"] == "udp" && line["port"] == port && line["direction"] == "in"
        })
        .filter_map(|line| line[what]["packets"].as_u64())
        .sum()
}
