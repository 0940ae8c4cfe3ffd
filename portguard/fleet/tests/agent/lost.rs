//! Without the store, and without what was on the disk.

use super::*;

over_every_store!(
    a_host_that_is_cut_off_keeps_what_it_has_and_catches_up,
    a_store_that_lost_its_head_is_not_a_new_one,
    a_store_that_lost_the_change_of_keys_is_followed_by_who_saw_it,
    a_release_whose_time_is_over_is_kept_by_who_has_it_and_taken_by_nobody_else,
);

#[tokio::test]
async fn without_the_store_what_is_enforced_stays_and_an_agent_that_begins_anew_knows_it() {
    let disk = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(directory(disk.path()), 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    std::fs::rename(disk.path().join("release"), disk.path().join("away")).unwrap();
    fleet.start("h0").await;
    assert_eq!(fleet.states()["h0"].0, State::Verified, "from its own disk");
    fleet.tick().await;
    assert_eq!(fleet.states()["h0"].0, State::Confirmed);
    // What is on its disk is checked: changed there, it is fetched again.
    let path = fleet.directory.path().join("h0/release-1/site.toml");
    std::fs::write(&path, "weaker").unwrap();
    fleet.start("h0").await;
    fleet.tick().await;
    assert_ne!(fleet.states()["h0"].0, State::Confirmed);
    std::fs::rename(disk.path().join("away"), disk.path().join("release")).unwrap();
    fleet.tick().await;
    fleet.tick().await;
    assert_eq!(
        fleet.states()["h0"].0,
        State::Confirmed,
        "{:?}",
        fleet.states()
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    assert_eq!(fleet.enforced("h0"), ["one"]);
}

async fn a_host_that_is_cut_off_keeps_what_it_has_and_catches_up<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 4).await;
    fleet.roll_out("one").await;
    let apart = |fleet: &Fleet<S>, is_apart: bool| {
        fleet.kernels["h0"].0.lock().unwrap().is_apart = is_apart;
    };
    apart(&fleet, true);
    fleet.publish("two").await;
    for _ in 0..3 {
        fleet.tick().await;
    }
    assert_eq!(fleet.enforced("h0"), ["one"]);
    assert!(fleet.states()["h0"].1.contains("does not answer"));
    // Also if its agent begins anew meanwhile.
    fleet.start("h0").await;
    fleet.tick().await;
    assert_eq!(fleet.states()["h0"].0, State::Verified);
    apart(&fleet, false);
    fleet.tick().await;
    fleet.tick().await;
    fleet.request(Request::Start).await.unwrap();
    assert_eq!(fleet.run().await.phase, Phase::Done);
    assert_eq!(fleet.enforced("h0"), ["one", "two"]);
}

async fn a_release_whose_time_is_over_is_kept_by_who_has_it_and_taken_by_nobody_else<
    S: Store + Clone,
>(
    store: S,
) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.publish("one").await;
    for _ in 0..2 {
        fleet.tick_one("h0").await;
    }
    assert_eq!(fleet.states()["h0"].0, State::Ready);
    fleet
        .publish_with("over", |manifest| manifest.valid_until = now())
        .await;
    fleet.tick().await;
    let (state, why) = fleet.states()["h1"];
    assert_eq!(state, State::Failed, "{why}");
    assert!(why.contains("no longer valid"), "{why}");
    // Whoever publishes the next, or controls, sees it all the same.
    let mut fresh = fleet.trust.clone();
    published(&fleet.store, &mut fresh).await.unwrap();
    fleet.publish("three").await;
    fleet.tick().await;
    fleet.tick().await;
    assert!(fleet.all_are(State::Ready), "{:?}", fleet.states());
}

#[tokio::test]
async fn what_a_host_keeps_is_its_own_to_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let disk = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(directory(disk.path()), 1).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    let mut left = vec![fleet.directory.path().join("h0")];
    let mut files = 0;
    while let Some(path) = left.pop() {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        } else {
            files += 1;
        }
    }
    assert!(files >= 5, "{files} files");
}

/// As the directory under what is not mounted any more.
async fn a_store_that_lost_its_head_is_not_a_new_one<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    let whole = fleet.store.list("").await.unwrap();
    empty(&fleet.store).await;
    // Who knew the release says so, an agent that begins anew among them; nobody writes anything.
    fleet.start("h1").await;
    for _ in 0..2 {
        for name in ["h0", "h1"] {
            let snapshot = fleet.snapshot(name).await;
            let host = fleet.hosts.get_mut(name).unwrap();
            let why = host.step(&snapshot).await.unwrap_err().to_string();
            assert!(why.contains("release 1 was published"), "{why}");
        }
    }
    let mut trust = fleet.controller.clone();
    let lost = take_step(&fleet.store, &mut trust, "test", now()).await;
    assert!(matches!(lost, Err(FollowError::Lost(1))), "{lost:?}");
    let left = fleet.store.list("").await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let kernel = fleet.kernels["h1"].0.lock().unwrap().policy.clone();
    assert_eq!(kernel, Some(("one".to_owned(), true)));
    for entry in whole {
        fleet.store.put(&entry.key, entry.value).await.unwrap();
    }
    fleet.tick().await;
    assert!(fleet.all_are(State::Confirmed), "{:?}", fleet.states());
}

/// Restored or repaired, it has what was published since, and not every release in which keys changed.
async fn a_store_that_lost_the_change_of_keys_is_followed_by_who_saw_it<S: Store + Clone>(
    store: S,
) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.publish("one").await;
    fleet.tick().await;
    let next = Signers::new(2);
    let keys = next.keys(2, 2);
    fleet
        .publish_with("two", |manifest| {
            manifest.keys = keys.clone();
            manifest.key_changes = vec![2];
        })
        .await;
    fleet.tick_one("h0").await;
    // Whoever controls has seen it, too; h1 was away.
    published(&fleet.store, &mut fleet.controller)
        .await
        .unwrap();
    let seen = fleet.controller.clone();
    fleet.signers = next;
    fleet.trust.keys = keys;
    fleet
        .publish_with("three", |manifest| manifest.key_changes = vec![2])
        .await;
    let gone = [Op::Delete(layout::release(2))];
    fleet.store.commit(&[], &gone).await.unwrap();
    fleet.tick().await;
    fleet.tick().await;
    assert_eq!(fleet.states()["h0"].0, State::Ready, "{:?}", fleet.states());
    let (state, why) = fleet.states()["h1"];
    assert_eq!(state, State::Failed, "{why}");
    assert!(why.contains("release 2 is not in the store"), "{why}");
    take_step(&fleet.store, &mut seen.clone(), "test", now())
        .await
        .unwrap()
        .unwrap_err();
}
