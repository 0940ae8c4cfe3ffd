//! What was refused is looked at again: it may have been read while it was written, or by a wrong clock.

use super::*;

over_every_store!(
    a_release_that_was_read_half_is_taken_once_it_is_whole,
    what_is_refused_for_good_is_not_fetched_on_every_step,
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
