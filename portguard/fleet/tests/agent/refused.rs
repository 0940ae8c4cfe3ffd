//! What was refused is looked at again: it may have been read while it was written, or by a wrong clock.

use portguard_fleet::status::{MAX_STATUS, Status, open};

use super::*;

over_every_store!(
    a_release_that_was_read_half_is_taken_once_it_is_whole,
    what_is_refused_for_good_is_not_fetched_on_every_step,
    one_bad_read_halts_no_rollout,
);

async fn a_release_that_was_read_half_is_taken_once_it_is_whole<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    fleet.publish("two").await;
    let key = layout::release(2);
    let good = fleet.store.get(&key).await.unwrap().unwrap().value;
    let other = fleet.signers.sign(&fleet.last.clone().unwrap().0, &[0]);
    let mut garbled = good.clone();
    garbled[40] ^= 1;
    for (what, bad) in [
        ("half", good[..good.len() / 2].to_vec()),
        ("nothing", Vec::new()),
        ("a bit flipped", garbled),
        ("not signed by all yet", other.to_bytes()),
    ] {
        fleet.store.put(&key, bad).await.unwrap();
        fleet.tick().await;
        assert!(fleet.all_are(State::Failed), "{what}: {:?}", fleet.states());
        assert_eq!(fleet.enforced("h0"), ["one"], "{what}");
    }
    // The compiler fails for a moment, as where a machine is too busy.
    for kernel in fleet.kernels.values() {
        kernel.0.lock().unwrap().is_other = true;
    }
    fleet.store.put(&key, good).await.unwrap();
    fleet.tick().await;
    assert!(fleet.all_are(State::Failed), "{:?}", fleet.states());
    for kernel in fleet.kernels.values() {
        kernel.0.lock().unwrap().is_other = false;
    }
    fleet.tick().await;
    fleet.tick().await;
    assert!(fleet.all_are(State::Ready), "{:?}", fleet.states());
}

async fn what_is_refused_for_good_is_not_fetched_on_every_step<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 1).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.retry = Duration::from_mins(10);
    fleet.start("h0").await;
    fleet.publish("one").await;
    let key = layout::release(1);
    let good = fleet.store.get(&key).await.unwrap().unwrap().value;
    fleet.store.put(&key, b"{".to_vec()).await.unwrap();
    fleet.tick().await;
    fleet.store.put(&key, good).await.unwrap();
    for _ in 0..3 {
        fleet.tick().await;
        assert_eq!(fleet.states()["h0"].0, State::Failed, "it waits");
    }
    // Another release is looked at at once.
    fleet.publish("two").await;
    fleet.tick().await;
    fleet.tick().await;
    assert_eq!(fleet.states()["h0"].0, State::Ready, "{:?}", fleet.states());
}

/// A release that is being copied for a moment, as by git or rsync, while a rollout runs.
async fn one_bad_read_halts_no_rollout<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 4).await;
    fleet.roll_out("one").await;
    fleet.publish("two").await;
    fleet.request(Request::Start).await.unwrap();
    let key = layout::release(2);
    let good = fleet.store.get(&key).await.unwrap().unwrap().value;
    fleet.store.put(&key, b"{".to_vec()).await.unwrap();
    fleet.tick().await;
    assert!(fleet.all_are(State::Failed), "{:?}", fleet.states());
    fleet.store.put(&key, good.clone()).await.unwrap();
    let why = fleet.control().await.unwrap_err();
    assert!(
        why.contains("in trouble") && why.contains("if that lasts"),
        "{why}"
    );
    assert_eq!(fleet.run().await.phase, Phase::Done);
    // Looked at again and again, it has failed since the first time.
    fleet.publish("three").await;
    fleet.request(Request::Start).await.unwrap();
    fleet
        .store
        .put(&layout::release(3), b"{".to_vec())
        .await
        .unwrap();
    fleet.tick().await;
    let first = now();
    while now() <= first {
        fleet.tick().await;
    }
    fleet.tick().await;
    let said = fleet
        .store
        .get(&layout::status("h0"))
        .await
        .unwrap()
        .unwrap();
    let key = fleet.key("h0").public();
    let said = open("test", "status", Some(&key), &said.value, MAX_STATUS).unwrap();
    let said: Status = serde_json::from_str(said).unwrap();
    assert_eq!(said.state, State::Failed);
    assert!(said.since <= first, "{} {first}", said.since);
}
