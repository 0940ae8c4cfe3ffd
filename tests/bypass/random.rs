//! Shapes damaged at random, with the same laws.

use anyhow::{Result, ensure};
use fastrand::Rng;
use portguard_harness::frames::{MUTATIONS, mutate};

use super::aim::Aim;
use super::hosts::Hosts;
use super::{malformed, shapes};

/// Another number repeats another run.
const SEED: u64 = 20_261_122;

/// Groups of frames, each sent to three hosts.
const GROUPS: usize = 2500;

/// The longest frame that a link carries, with room for a tag.
const LONGEST: usize = 9000 + 14;

#[test]
fn damaged_frames_reach_no_more_and_no_less() -> Result<()> {
    let mut hosts = Hosts::new()?;
    let mut rng = Rng::with_seed(SEED);
    let shapes = shapes::all();
    let mut other = Vec::new();
    let (mut sent, mut met) = (0, [0_usize; 2]);
    for group in 0..GROUPS {
        let shape = rng.choice(&shapes).copied();
        let Some(shape) = shape else { continue };
        let aims: Vec<Aim> = shape.aims().filter(|aim| !aim.tcp).collect();
        let Some(base) = rng.choice(aims) else {
            continue;
        };
        let mut base = base.at(rng.bool());
        // Without a checksum more of the damage gets as far as a socket.
        base.unsummed = rng.u8(..4) > 0;
        // The same damage to the same frames for all three, but for the link addresses.
        let choice = rng.clone();
        let mut arrived = Vec::new();
        let (id, mut damage) = (hosts.aim(0, &base).id, Vec::new());
        for index in 0..hosts.all.len() {
            rng = choice.clone();
            let mut aim = hosts.aim(index, &base);
            aim.id = id;
            aim.source_port = 9999;
            let mut frames = (shape.frames)(&aim)?;
            for frame in &mut frames {
                let at = rng.usize(..MUTATIONS.len());
                if rng.u8(..3) > 0 {
                    damage.push((at, mutate(&mut rng, frame, &other)));
                }
            }
            frames.retain(|frame| (14..LONGEST).contains(&frame.len()));
            sent += frames.len();
            hosts.all[index].send(&frames)?;
            let last = Aim::new(false, false).at(true);
            let last = hosts.aim(index, &last);
            hosts.all[index].send(&[last.whole()])?;
            arrived.push((hosts.all[index].datagrams(&last)?, malformed(&frames)));
            if index + 1 == hosts.all.len() {
                other = frames.concat();
                other.truncate(200);
            }
        }
        let what = format!("group {group}: `{}` {base}, {damage:?}", shape.name);
        let [(plain, _), (audit, _), (enforce, cause)] = arrived.as_slice() else {
            unreachable!("there are three hosts")
        };
        ensure!(
            enforce[1].is_empty(),
            "{what}: it goes around the guard: {enforce:02x?}"
        );
        ensure!(
            audit == plain,
            "{what}: audit changes what arrives: {audit:02x?} for {plain:02x?}"
        );
        // More may arrive than unguarded: what would have spoilt a reassembly was dropped.
        let lost = plain[0].iter().find(|data| !enforce[0].contains(data));
        ensure!(
            lost.is_none() || cause.is_some(),
            "{what}: what is documented does not arrive: {lost:02x?}"
        );
        met[0] += plain[0].len();
        met[1] += plain[1].len();
    }
    println!("{sent} frames in {GROUPS} groups; unguarded, {met:?} datagrams at the two ports");
    ensure!(
        met.iter().all(|met| *met > GROUPS / 20),
        "few arrive: {met:?}"
    );
    Ok(())
}
