//! What the kernel's own stack makes of hostile frames, on three hosts: one without a guard, one in audit, one in enforce.
//!
//! Real sockets listen on a documented and on an undocumented port of each. The laws, for every shape of frames:
//! in enforce nothing arrives at the undocumented port; in audit all arrives that does without a guard; and in enforce all
//! of that arrives at the documented port, but for what the specification calls malformed.

mod aim;
mod hosts;
mod random;
mod shapes;
mod shapes4;
mod shapes6;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use portguard_common::packet::{Malformed, Shape as Parsed};
use portguard_common::parse::parse;

use aim::Aim;
use hosts::{Arrived, Hosts, PORTS};
use shapes::{Cut, Shape};

/// Why the specification takes one of these frames for malformed; `None` if it takes none of them for it.
fn malformed(frames: &[Vec<u8>]) -> Option<Malformed> {
    frames.iter().find_map(|frame| {
        let packet = parse(&mut frame.as_slice()).ok()?;
        if let Parsed::Malformed(cause) = packet.shape {
            Some(cause)
        } else {
            None
        }
    })
}

/// What is seen of one shape at one port of the three hosts.
struct Seen {
    unguarded: Arrived,
    audit: Arrived,
    enforce: Arrived,
}

fn send(hosts: &mut Hosts, shape: &Shape, base: &Aim) -> Result<(Seen, Vec<Vec<u8>>)> {
    let mut seen = Vec::new();
    let mut last = Vec::new();
    for index in 0..hosts.all.len() {
        let aim = hosts.aim(index, base);
        let frames = (shape.frames)(&aim)?;
        seen.push(hosts.offer(index, &aim, &frames)?);
        last = frames;
    }
    let [unguarded, audit, enforce] = <[Arrived; 3]>::try_from(seen)
        .ok()
        .context("there are three hosts")?;
    let seen = Seen {
        unguarded,
        audit,
        enforce,
    };
    Ok((seen, last))
}

#[test]
fn no_shape_reaches_what_is_not_documented() -> Result<()> {
    let mut hosts = Hosts::new()?;
    let mut wrong = Vec::new();
    let mut delivered: BTreeMap<&str, usize> = BTreeMap::new();
    let mut tried = 0;
    let vlans = hosts.all.iter().all(|target| target.vlans);
    if !vlans {
        println!("this kernel has no VLAN devices: tags are tried with the id 0 only");
    }
    let shapes: Vec<Shape> = shapes::all()
        .into_iter()
        .filter(|shape| vlans || !shape.on_vlan)
        .collect();
    for shape in &shapes {
        for base in shape.aims() {
            tried += 1;
            for documented in [false, true] {
                let base = base.clone().at(documented);
                let (seen, frames) = send(&mut hosts, shape, &base)
                    .with_context(|| format!("`{}` {base}", shape.name))?;
                let mut complain = |law: &str| {
                    wrong.push(format!(
                        "`{}` {base}: {law}: unguarded {:?}, audit {:?}, enforce {:?}",
                        shape.name, seen.unguarded, seen.audit, seen.enforce
                    ));
                };
                *delivered.entry(shape.name).or_default() +=
                    seen.unguarded.open + seen.unguarded.closed;
                if seen.enforce.closed > 0 {
                    complain("it goes around the guard");
                }
                if seen.audit != seen.unguarded {
                    complain("audit changes what arrives");
                }
                let cause = malformed(&frames);
                match (shape.cut, cause) {
                    (Cut::Never, Some(cause)) => {
                        complain(&format!("malformed ({})", cause.name()));
                    }
                    (Cut::As(want) | Cut::InPart(want), found)
                        if found.map(Malformed::name) != Some(want) =>
                    {
                        complain(&format!("not malformed as `{want}`: {found:?}"));
                    }
                    _ => {}
                }
                let is_cut = matches!(shape.cut, Cut::As(_));
                // More may arrive than unguarded: what would have spoilt a reassembly was dropped.
                if !is_cut && seen.enforce.open < seen.unguarded.open {
                    complain("what is documented does not arrive");
                }
                if is_cut && seen.enforce.open > 0 {
                    complain("malformed, and yet it arrives");
                }
            }
        }
    }
    // A differential that delivers nothing would prove nothing.
    for shape in shapes.iter().filter(|shape| shape.delivers) {
        let arrived = delivered.get(shape.name).copied().unwrap_or(0);
        if arrived == 0 {
            wrong.push(format!("`{}` reaches no socket even unguarded", shape.name));
        }
    }
    println!("{tried} shapes by family and transport at {PORTS} ports of three hosts");
    ensure!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}
