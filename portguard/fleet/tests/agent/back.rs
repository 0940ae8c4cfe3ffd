//! Rolling back: only the publishers decide what a host admits.

use portguard_fleet::release::{Closing, Signatures};
use portguard_fleet::rollout::rollback_order;

use super::*;
use crate::support::sign::signature;

over_every_store!(
    rolling_back_goes_to_what_was_signed_and_in_force_before,
    nobody_goes_back_because_the_store_says_so,
    who_died_between_confirming_and_noting_it_knows_it_afterwards,
    who_was_sent_back_and_forth_goes_back_again,
    what_is_said_to_be_in_force_is_what_the_kernel_has,
    a_rollback_that_cannot_be_confirmed_is_no_rollback,
    a_rollback_to_the_same_policy_swaps_nothing,
    a_rollback_ends_when_everybody_is_back,
    nobody_keeps_a_host_as_it_is_by_a_session_that_stays_open,
);

async fn rolling_back_goes_to_what_was_signed_and_in_force_before<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 4).await;
    fleet.roll_out("one").await;
    fleet.roll_out("two").await;
    fleet.request(Request::Rollback).await.unwrap();
    fleet.tick().await;
    fleet.tick().await;
    for name in ["h0", "h1", "h2", "h3"] {
        let kernel = fleet.kernels[name].0.lock().unwrap();
        assert_eq!(kernel.policy, Some(("one".to_owned(), true)), "{name}");
        assert!(kernel.deadline.is_none(), "confirmed");
    }
    assert!(fleet.all_are(State::Reverted), "{:?}", fleet.states());
}

/// `two` in force after `one`; the publishers let nobody go back without their signature.
async fn second<S: Store + Clone>(store: S) -> Fleet<S> {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    fleet
        .publish_with("two", |manifest| manifest.rollback_within = 0)
        .await;
    fleet.tick().await;
    fleet.tick().await;
    fleet.request(Request::Start).await.unwrap();
    assert_eq!(fleet.run().await.phase, Phase::Done);
    fleet
}

async fn say<S: Store + Clone>(fleet: &mut Fleet<S>, order: Option<Signatures>) {
    let mut position = Position::new(2, "somebody", now(), "");
    position.phase = Phase::RollingBack;
    position.order = order;
    let value = serde_json::to_vec(&position).unwrap();
    fleet.store.put(layout::POSITION, value).await.unwrap();
    for _ in 0..3 {
        fleet.tick().await;
    }
}

async fn nobody_goes_back_because_the_store_says_so<S: Store + Clone>(store: S) {
    let mut fleet = second(store).await;
    let (manifest, _) = fleet.last.clone().unwrap();
    let target = manifest.rollback_to.clone().unwrap();
    let sign = |text: &str, by: &[&minisign::KeyPair]| {
        let mut signatures = Signatures::default();
        for pair in by {
            signatures.add(&signature(pair, text)).unwrap();
        }
        Some(signatures)
    };
    let right = rollback_order("test", 2, &target);
    let thief = Signers::new(2);
    let ours: Vec<minisign::KeyPair> = std::mem::take(&mut fleet.signers.0);
    let both = [&ours[0], &ours[1]];
    let elsewhere = Target {
        serial: 1,
        sha256: Hash::of(b"weaker"),
    };
    let other_fleet = rollback_order("other", 2, &target);
    let other_day = rollback_order("test", 1, &target);
    let other_target = rollback_order("test", 2, &elsewhere);
    for (what, order) in [
        ("nobody's word", None),
        ("no signature", Some(Signatures::default())),
        ("one of two", sign(&right, &both[..1])),
        ("a thief's", sign(&right, &[&thief.0[0], &thief.0[1]])),
        ("an order for another fleet", sign(&other_fleet, &both)),
        ("an order of another day", sign(&other_day, &both)),
        ("an order to elsewhere", sign(&other_target, &both)),
    ] {
        say(&mut fleet, order).await;
        for name in ["h0", "h1"] {
            assert_eq!(fleet.enforced(name), ["one", "two"], "{what}");
            let kernel = fleet.kernels[name].0.lock().unwrap();
            assert_eq!(kernel.policy, Some(("two".to_owned(), true)), "{what}");
        }
        let why = fleet.states()["h0"].1;
        assert!(why.contains("did not sign"), "{what}: {why}");
    }
    say(&mut fleet, sign(&right, &both)).await;
    assert!(fleet.all_are(State::Reverted), "{:?}", fleet.states());
    assert_eq!(fleet.enforced("h0"), ["one", "two", "one"]);
}

/// The kernel has it for good, and the disk says that it was being tried.
async fn who_died_between_confirming_and_noting_it_knows_it_afterwards<S: Store + Clone>(store: S) {
    let mut fleet = second(store).await;
    let path = fleet.directory.path().join("h0/kept.json");
    let read =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
    let mut kept = read();
    kept["attempt"] = serde_json::json!({
        "serial": 2, "leaves": null, "known": kept["known"]["2"], "before": {"eth0": 2}
    });
    kept["in_force"] = 1.into();
    kept["enforced_at"] = serde_json::Value::Null;
    std::fs::write(&path, kept.to_string()).unwrap();
    fleet.start("h0").await;
    fleet.tick().await;
    let states = fleet.states();
    assert_eq!(states["h0"].0, State::Confirmed, "{states:?}");
    let kept = read();
    assert_eq!(kept["in_force"], 2);
    assert!(kept["attempt"].is_null());
    assert!(
        kept["enforced_at"].is_u64(),
        "a rollback is obeyed for a while from then on, not for ever: {kept}"
    );
}

/// What a host says of itself: where it is, and which release is in force.
async fn word<S: Store + Clone>(fleet: &mut Fleet<S>, name: &str) -> (State, Option<u64>, String) {
    let published = published(&fleet.store, &mut fleet.controller)
        .await
        .unwrap();
    let seen = view(&fleet.store, &published, now()).await.unwrap()[name].clone();
    let said = seen.status.unwrap();
    (seen.state, said.in_force, said.why)
}

async fn who_was_sent_back_and_forth_goes_back_again<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    fleet.roll_out("two").await;
    for _ in 0..2 {
        say(&mut fleet, None).await;
        for name in ["h0", "h1"] {
            let (state, in_force, why) = word(&mut fleet, name).await;
            assert_eq!((state, in_force), (State::Reverted, Some(1)), "{why}");
            let kernel = fleet.kernels[name].0.lock().unwrap();
            assert_eq!(kernel.policy, Some(("one".to_owned(), true)), "{name}");
        }
        let mut done = Position::new(2, "somebody", now(), "");
        done.phase = Phase::Done;
        let value = serde_json::to_vec(&done).unwrap();
        fleet.store.put(layout::POSITION, value).await.unwrap();
        fleet.tick().await;
        fleet.tick().await;
        let (state, in_force, why) = word(&mut fleet, "h0").await;
        assert_eq!((state, in_force), (State::Confirmed, Some(2)), "{why}");
    }
}

async fn what_is_said_to_be_in_force_is_what_the_kernel_has<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.publish("one").await;
    fleet.tick().await;
    fleet.tick().await;
    assert_eq!(word(&mut fleet, "h0").await.1, Some(1), "it is watched");
    fleet.request(Request::Start).await.unwrap();
    fleet.run().await;
    // A host that is held keeps the first; it never has the second, and is not said to come back from it.
    portguard_fleet::publish::hold(&fleet.store, "h1", Some(&hold("kept")))
        .await
        .unwrap();
    fleet.publish("two").await;
    fleet.tick().await;
    assert_eq!(word(&mut fleet, "h0").await.1, Some(1));
    fleet.request(Request::Start).await.unwrap();
    fleet.run().await;
    assert_eq!(word(&mut fleet, "h0").await.1, Some(2));
    assert_eq!(word(&mut fleet, "h1").await.1, Some(1));
    fleet.publish("three").await;
    fleet.request(Request::Start).await.unwrap();
    fleet.run().await;
    portguard_fleet::publish::hold(&fleet.store, "h1", None)
        .await
        .unwrap();
    let mut position = Position::new(3, "somebody", now(), "");
    position.phase = Phase::RollingBack;
    let value = serde_json::to_vec(&position).unwrap();
    fleet.store.put(layout::POSITION, value).await.unwrap();
    fleet.tick().await;
    fleet.tick().await;
    let (state, in_force, why) = word(&mut fleet, "h1").await;
    assert_eq!((state, in_force), (State::Reverted, Some(1)), "{why}");
    assert!(why.contains("release 1 is in force"), "{why}");
    let (state, in_force, why) = word(&mut fleet, "h0").await;
    assert_eq!((state, in_force), (State::Reverted, Some(2)), "{why}");
    // Somebody loads something by hand.
    fleet.kernels["h0"].0.lock().unwrap().policy = Some(("by hand".to_owned(), true));
    fleet.tick().await;
    let (_, in_force, why) = word(&mut fleet, "h0").await;
    assert_eq!(in_force, None, "{why}");
    assert!(why.contains("belongs to no release"), "{why}");
}

/// What is gone back to cuts the store: the kernel comes back from it, and nobody says that it went.
async fn a_rollback_that_cannot_be_confirmed_is_no_rollback<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 1).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    fleet.roll_out("two").await;
    fleet.kernels["h0"].0.lock().unwrap().cutting = Some("one".to_owned());
    say(&mut fleet, None).await;
    assert_eq!(
        fleet.states()["h0"].0,
        State::Enforcing,
        "{:?}",
        fleet.states()
    );
    fleet.kernels["h0"].0.lock().unwrap().lapse();
    for _ in 0..3 {
        fleet.tick().await;
    }
    let (state, in_force, why) = word(&mut fleet, "h0").await;
    assert_eq!((state, in_force), (State::Failed, Some(2)), "{why}");
    assert!(why.contains("release 2 is in force again"), "{why}");
    assert_eq!(
        fleet.enforced("h0"),
        ["one", "two", "one"],
        "it is not tried again"
    );
}

/// Releases may differ in their waves alone, or in what audits everywhere in both.
async fn a_rollback_to_the_same_policy_swaps_nothing<S: Store + Clone>(store: S) {
    for (audits, is_rolled_out) in [
        ([false, false], true),
        ([true, true], true),
        ([true, false], false),
        ([false, false], false),
    ] {
        empty(&store).await;
        let mut fleet = Fleet::new(store.clone(), 2).await;
        fleet.plan.wave = vec![Wave::new("all", "*")];
        for is_audit in audits {
            fleet.audits = is_audit;
            if is_rolled_out {
                fleet.roll_out("one").await;
                continue;
            }
            fleet.publish("one").await;
            fleet.tick().await;
            fleet.tick().await;
        }
        let generation = |fleet: &Fleet<S>| fleet.kernels["h0"].0.lock().unwrap().generation;
        let before = generation(&fleet);
        for _ in 0..4 {
            say(&mut fleet, None).await;
            let (state, in_force, why) = word(&mut fleet, "h0").await;
            assert_eq!((state, in_force), (State::Reverted, Some(1)), "{why}");
        }
        assert_eq!(generation(&fleet), before, "{audits:?}");
    }
}

/// The controller says so, and who comes late goes back all the same.
async fn a_rollback_ends_when_everybody_is_back<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 4).await;
    fleet.roll_out("one").await;
    fleet.roll_out("two").await;
    fleet.kernels["h3"].0.lock().unwrap().is_apart = true;
    fleet.request(Request::Rollback).await.unwrap();
    fleet.tick().await;
    let why = fleet.control().await.unwrap_err();
    assert_eq!(why, "1 host is not back yet, among them h3");
    fleet.kernels["h3"].0.lock().unwrap().is_apart = false;
    fleet.tick().await;
    let position = fleet.control().await.unwrap();
    assert_eq!(position.phase, Phase::RolledBack, "{}", position.why);
    assert!(fleet.all_are(State::Reverted), "{:?}", fleet.states());
    fleet.start("h0").await;
    fleet.tick().await;
    fleet.tick().await;
    assert!(fleet.all_are(State::Reverted), "{:?}", fleet.states());
}

/// Whoever has a session through what a release admits by mistake must not keep it in force by that.
async fn nobody_keeps_a_host_as_it_is_by_a_session_that_stays_open<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    fleet.roll_out("two").await;
    let kernel = fleet.kernels["h0"].clone();
    kernel.0.lock().unwrap().refuses = true;
    // Booted, or its guard unloaded: what was confirmed is put back.
    kernel.0.lock().unwrap().boot();
    fleet.start("h0").await;
    fleet.tick().await;
    let policy = || kernel.0.lock().unwrap().policy.clone();
    assert_eq!(policy(), Some(("two".to_owned(), true)));
    // Rolled back.
    say(&mut fleet, None).await;
    assert_eq!(policy(), Some(("one".to_owned(), true)));
    assert!(fleet.all_are(State::Reverted), "{:?}", fleet.states());
    // Closed by the next release, if the publishers want just that; else the host says what is in the way.
    for (closing, state) in [
        (Closing::Refuse, State::Failed),
        (Closing::Allow, State::Confirmed),
    ] {
        fleet.plan.gate.closing = closing;
        fleet.publish("three").await;
        fleet.tick().await;
        fleet.tick().await;
        fleet.request(Request::Start).await.unwrap();
        let _ = fleet.control().await;
        fleet.tick().await;
        assert_eq!(fleet.states()["h0"].0, state, "{:?}", fleet.states());
    }
}
