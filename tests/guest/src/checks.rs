//! What must hold on every supported kernel, in this order. To add one, write a function and name it in [`ALL`].

use anyhow::{Result, ensure};
use portguard_harness::frames::{Extension, Ipv4, Ipv6, Udp};
use serde_json::Value;

use crate::program;
use crate::world::{OPEN, RESTRICTED, UNDOCUMENTED, World};

/// A check: what it learns goes to [`World::facts`].
type Check = fn(&mut World) -> Result<()>;

/// Names are what the judge expects to read.
pub(crate) const ALL: &[(&str, Check)] = &[
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
    ("unload", unload),
];

/// Frames of each kind.
const FRAMES: usize = 10;

fn many(world: &World, port: u16, marker: &str) -> Vec<Vec<u8>> {
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
