//! Cells mean one thing for ever, and the same thing keeps its cell.

use fastrand::Rng;
use portguard_common::reason::Reason;

use super::model::Model;
use super::{Image, build, random};
use crate::cells::Directory;
use crate::policy::Policy;

#[test]
fn the_same_policy_gives_the_same_tables() {
    for seed in 0..20 {
        let policy = random::policy(&mut Rng::with_seed(seed));
        let (one, other) = (build(&policy), build(&policy));
        expect_same(&one, &other);
        // And with what it left behind, the same again.
        let again = Image::build(&policy, one.directory.clone()).expect("the policy fits");
        expect_same(&one, &again);
    }
}

fn expect_same(one: &Image, other: &Image) {
    assert_eq!(one.facts, other.facts);
    assert!(one.inbound == other.inbound && one.outbound == other.outbound);
    assert!(one.rules == other.rules && one.admit == other.admit);
    assert!(one.root4 == other.root4 && one.root6 == other.root6);
    assert!(one.nets == other.nets && one.filter == other.filter);
    assert!(one.hosts == other.hosts && one.own == other.own);
    let leaves = |image: &Image| {
        image
            .blocks
            .iter()
            .map(|block| block.leaves)
            .collect::<Vec<_>>()
    };
    assert!(leaves(one) == leaves(other));
    assert_eq!(one.directory, other.directory);
}

/// Over a series of random edits, cells are only ever added, and what did not change is counted where it was.
#[test]
fn cells_outlive_edits() {
    let (mut kept, mut changed) = (0, 0);
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed + 500);
        let mut policy = random::policy(&mut rng);
        let mut image = build(&policy);
        for _ in 0..4 {
            let before = policy.clone();
            edit(&mut rng, &mut policy);
            let next = Image::build(&policy, image.directory.clone()).expect("the policy fits");
            let old = &image.directory.cells;
            assert_eq!(
                &next.directory.cells[..old.len()],
                old,
                "a cell has changed its meaning"
            );
            for _ in 0..1_000 {
                let question = random::question(&mut rng, &before);
                let (was, is) = (question.ask(&image), question.ask(&next));
                if was.reason != Reason::Granted || is.reason != Reason::Granted {
                    continue;
                }
                // The ports that an entry spans may change with those beside it.
                let meaning = |cell| next.directory.get(cell);
                let (old, new) = (Model(&before), Model(&policy));
                let is_untouched = old.grants(question.direction, question.key)
                    == new.grants(question.direction, question.key);
                if is_untouched && meaning(was.cell) == meaning(is.cell) {
                    assert_eq!(was.cell, is.cell, "{question:?}");
                    kept += 1;
                } else {
                    changed += 1;
                }
            }
            image = next;
        }
    }
    assert!(
        kept > 10_000 && changed > 100,
        "{kept} kept, {changed} changed"
    );
}

/// Takes a grant away, and adds one of another policy, with a set of its own. Peers of what stays are left alone.
fn edit(rng: &mut Rng, policy: &mut Policy) {
    if !policy.inbound.is_empty() {
        policy.inbound.remove(rng.usize(..policy.inbound.len()));
    }
    let mut other = random::policy(rng);
    let shift = u32::try_from(policy.sets.len()).expect("few sets");
    let taken = other.inbound.pop();
    policy.inbound.extend(taken.map(|mut grant| {
        grant.row = format!("edit/{shift}");
        if let crate::policy::Peers::Set(set) = &mut grant.peers {
            policy.sets.push(
                other
                    .sets
                    .swap_remove(usize::try_from(*set).expect("an index")),
            );
            *set = shift;
        }
        grant
    }));
}

/// No cell of an image has the number 0, and none is beyond the maps.
#[test]
fn a_full_directory_is_an_error_and_no_panic() {
    let policy = random::policy(&mut Rng::with_seed(7));
    let image = build(&policy);
    let cell = image.directory.cells.first().expect("a cell").clone();
    let mut full = Directory::default();
    let other = crate::cells::Cell {
        rows: vec!["gone".into()],
        ..cell
    };
    full.cells.resize(
        usize::try_from(portguard_common::abi::MAX_CELLS).expect("small") - 1,
        other,
    );
    assert!(matches!(
        Image::build(&policy, full),
        Err(super::super::TooLarge::Cells)
    ));
}
