//! Whoever has the store, one host's key, or yesterday's release: no host admits more for it.

use portguard_fleet::publish::Revocation;

use super::*;

over_every_store!(
    a_hold_hides_no_host_that_is_silent,
    planted_releases_push_out_none_of_ours,
    who_has_another_release_of_the_same_number_is_not_done,
    a_document_whose_name_leaves_the_release_is_refused,
    yesterdays_release_as_head_or_under_todays_number_moves_nobody,
    a_release_that_the_publishers_did_not_sign_moves_nobody,
    documents_that_are_swapped_truncated_or_gone_move_nobody,
    what_compiles_to_another_policy_than_was_signed_is_not_loaded,
    a_position_or_a_hold_that_cannot_be_read_moves_nobody,
    one_hosts_key_speaks_for_that_host_only_and_only_now,
    a_forged_position_enforces_nothing_early,
);

/// Everything that a host has, to compare.
fn kernel<S>(fleet: &Fleet<S>, name: &str) -> (Option<(String, bool)>, Vec<String>) {
    let kernel = fleet.kernels[name].0.lock().unwrap();
    (kernel.policy.clone(), kernel.enforced.clone())
}

/// A fleet that enforces `two`, after `one`, whose store an attacker can write.
async fn owned<S: Store + Clone>(store: S) -> Fleet<S> {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("one").await;
    fleet.roll_out("two").await;
    fleet
}

async fn unmoved<S: Store + Clone>(fleet: &mut Fleet<S>, what: &str) {
    let before = kernel(fleet, "h0");
    for _ in 0..3 {
        fleet.tick().await;
    }
    assert_eq!(kernel(fleet, "h0"), before, "{what}");
}

async fn yesterdays_release_as_head_or_under_todays_number_moves_nobody<S: Store + Clone>(
    store: S,
) {
    let mut fleet = owned(store).await;
    let store = fleet.store.clone();
    let old = store.get(&layout::release(1)).await.unwrap().unwrap().value;
    store.put(layout::HEAD, b"1".to_vec()).await.unwrap();
    unmoved(&mut fleet, "an older head").await;
    store.put(layout::HEAD, b"3".to_vec()).await.unwrap();
    store.put(&layout::release(3), old.clone()).await.unwrap();
    unmoved(&mut fleet, "the old one under a new number").await;
    store.put(&layout::release(2), old).await.unwrap();
    store.put(layout::HEAD, b"2".to_vec()).await.unwrap();
    fleet.start("h0").await;
    unmoved(&mut fleet, "the old one in place of the new one").await;
}

async fn a_release_that_the_publishers_did_not_sign_moves_nobody<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    let thief = Signers::new(2);
    let (mut manifest, _, chunks) = fleet.sign("weaker", |_| {});
    let mut forged = vec![("signed by others", thief.sign(&manifest, &[0, 1]))];
    forged.push(("signed by one of two", fleet.signers.sign(&manifest, &[0])));
    let mut resigned = fleet.last.as_ref().unwrap().1.clone();
    resigned.manifest = manifest.canonical();
    forged.push(("with the signatures of another", resigned));
    manifest.keys = thief.keys(2, 1);
    manifest.key_changes = vec![manifest.serial];
    forged.push((
        "with keys of the thief's own",
        thief.sign(&manifest, &[0, 1]),
    ));
    for (hash, chunk) in chunks {
        fleet
            .store
            .put(&layout::object(&hash), chunk)
            .await
            .unwrap();
    }
    for (what, release) in forged {
        fleet
            .store
            .put(&layout::release(3), release.to_bytes())
            .await
            .unwrap();
        fleet.store.put(layout::HEAD, b"3".to_vec()).await.unwrap();
        fleet.start("h0").await;
        unmoved(&mut fleet, what).await;
        assert_eq!(
            fleet.states()["h0"].0,
            State::Failed,
            "{what}: and it says so"
        );
    }
}

async fn documents_that_are_swapped_truncated_or_gone_move_nobody<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    fleet.publish("three").await;
    let (manifest, _) = fleet.last.clone().unwrap();
    let site = layout::object(&manifest.objects[document::SITE].chunks[0]);
    let good = fleet.store.get(&site).await.unwrap().unwrap().value;
    let other = pack(b"weaker").unwrap().chunks[0].1.clone();
    for (what, value) in [
        ("another", other),
        ("half", good[..good.len() / 2].to_vec()),
        ("nothing", Vec::new()),
    ] {
        fleet.store.put(&site, value).await.unwrap();
        unmoved(&mut fleet, what).await;
        let (state, why) = fleet.states()["h0"];
        assert_eq!(state, State::Failed, "{what}: and it says so: {why}");
    }
    fleet
        .store
        .commit(&[], &[Op::Delete(site.clone())])
        .await
        .unwrap();
    unmoved(&mut fleet, "gone").await;
    // The right one, when it comes, is taken.
    fleet.store.put(&site, good).await.unwrap();
    fleet.tick().await;
    fleet.tick().await;
    assert_eq!(fleet.states()["h0"].0, State::Ready, "{:?}", fleet.states());
}

async fn a_forged_position_enforces_nothing_early<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    // Not before its wave can have begun.
    fleet.plan.wave = vec![Wave::new("all", "*").after(3600)];
    let issued = now();
    fleet
        .publish_with("three", |manifest| manifest.issued = issued)
        .await;
    let mut forged = Position::new(3, "thief", now(), "");
    forged.phase = Phase::Done;
    fleet
        .store
        .put(layout::POSITION, serde_json::to_vec(&forged).unwrap())
        .await
        .unwrap();
    unmoved(&mut fleet, "all waves at once").await;
    assert!(
        fleet.states()["h0"].1.contains("at the earliest"),
        "{:?}",
        fleet.states()
    );
}

async fn what_compiles_to_another_policy_than_was_signed_is_not_loaded<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    fleet.kernels["h0"].0.lock().unwrap().is_other = true;
    fleet.publish("three").await;
    fleet.request(Request::Start).await.unwrap();
    unmoved(&mut fleet, "another policy").await;
    let (state, why) = fleet.states()["h0"];
    assert_eq!(state, State::Failed);
    assert!(why.contains("a different policy"), "{why}");
}

async fn a_position_or_a_hold_that_cannot_be_read_moves_nobody<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    for garbage in [
        &b""[..],
        b"{}",
        b"\xff\xfe",
        b"{\"serial\":2,\"phase\":\"open\"}",
        &vec![b'['; 100_000],
    ] {
        fleet
            .store
            .put(layout::POSITION, garbage.to_vec())
            .await
            .unwrap();
        fleet
            .store
            .put(&layout::hold("h0"), garbage.to_vec())
            .await
            .unwrap();
        fleet
            .store
            .put(layout::HEAD, garbage.to_vec())
            .await
            .unwrap();
        unmoved(&mut fleet, "garbage").await;
    }
}

async fn one_hosts_key_speaks_for_that_host_only_and_only_now<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.publish("one").await;
    fleet.tick().await;
    fleet.tick().await;
    let published = published(&fleet.store, &mut fleet.controller)
        .await
        .unwrap();
    let look = async |store: &S, at: u64| view(store, &published, at).await.unwrap()["h1"].clone();
    assert_eq!(look(&fleet.store, now()).await.state, State::Ready);
    let store = fleet.store.clone();
    let (status, alive) = (layout::status("h1"), layout::alive("h1"));
    let get = async |key: &str| store.get(key).await.unwrap().unwrap().value;
    let (good, beat) = (get(&status).await, get(&alive).await);
    let restore = async || {
        store.put(&status, good.clone()).await.unwrap();
        store.lease(&alive, &beat, 180, false).await.unwrap();
    };
    // Another host's status, and one that another host signed in our name.
    store
        .put(&status, get(&layout::status("h0")).await)
        .await
        .unwrap();
    assert_eq!(look(&store, now()).await.state, State::Silent);
    let text = String::from_utf8(good.clone()).unwrap();
    let body = text.split_once('\n').unwrap().1;
    let mut said: portguard_fleet::status::Status = serde_json::from_str(body).unwrap();
    said.state = State::Confirmed;
    store
        .put(&status, fleet.key("h0").status(&said))
        .await
        .unwrap();
    assert_eq!(look(&store, now()).await.state, State::Silent);
    // Our own of another moment, with the sign of life of this one; and ours, long after.
    store
        .put(&status, fleet.key("h1").status(&said))
        .await
        .unwrap();
    assert_eq!(look(&store, now()).await.state, State::Silent);
    restore().await;
    assert_eq!(look(&store, now()).await.state, State::Ready);
    assert_eq!(look(&store, now() + 600).await.state, State::Silent);
    // A sign of life is no status, nor the other way round.
    store.put(&status, beat.clone()).await.unwrap();
    assert_eq!(look(&store, now()).await.state, State::Silent);
    restore().await;
    // Revoked, at once; but it is the key that is, not the host.
    let revoke = async |key: String| {
        let revocation = Revocation {
            key,
            because: "stolen".to_owned(),
        };
        portguard_fleet::publish::revoke(&store, "h1", &revocation).await
    };
    revoke(fleet.key("h0").public()).await.unwrap();
    assert_eq!(look(&store, now()).await.state, State::Ready);
    revoke(fleet.key("h1").public()).await.unwrap();
    let seen = look(&store, now()).await;
    assert_eq!(seen.state, State::Silent);
    assert_eq!(seen.doubt.unwrap(), "its key is revoked: stolen");
    store
        .put(&layout::revoked("h1"), b"garbage".to_vec())
        .await
        .unwrap();
    assert_eq!(look(&store, now()).await.state, State::Silent);
}

#[tokio::test]
async fn a_bit_flipped_in_a_status_or_sign_of_life_is_no_word_of_the_host() {
    let fleet = HostKey::parse(&HostKey::generate().unwrap(), "test").unwrap();
    let key = fleet.public();
    let status = fleet.status(&portguard_fleet::status::Status {
        host: "a".to_owned(),
        serial: 1,
        release: None,
        state: State::Ready,
        since: 1,
        at: 100,
        in_force: None,
        enforces: false,
        watched: 1,
        packets: 1,
        would_drop: 0,
        violations: 0,
        drift: 0,
        tool: "0.1.0".to_owned(),
        why: "ä".repeat(2000),
    });
    assert!(
        status.len() <= portguard_fleet::status::MAX_STATUS,
        "{} bytes",
        status.len()
    );
    let alive = fleet.alive(&portguard_fleet::status::Alive {
        host: "a".to_owned(),
        at: 100,
        status: Hash::of(&status),
        before: None,
    });
    let read = |status: &[u8], alive: &[u8]| {
        portguard_fleet::status::read("test", "a", Some(&key), status, Some(alive), 100)
    };
    read(&status, &alive).unwrap();
    for bit in 0..status.len() * 8 {
        let mut other = status.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&other, &alive).is_err(), "bit {bit}");
    }
    for bit in 0..alive.len() * 8 {
        let mut other = alive.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&status, &other).is_err(), "bit {bit}");
    }
}

/// Signed by the publishers, whose tool may have been made to.
async fn a_document_whose_name_leaves_the_release_is_refused<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    let outside = fleet.directory.path().join("h0/outside");
    for name in [
        "../outside",
        "a/../../outside",
        "release",
        "shard",
        "a\0b",
        "ä",
    ] {
        fleet
            .publish_with("three", |manifest| {
                let site = manifest.objects[document::SITE].clone();
                manifest.objects.insert(name.to_owned(), site);
            })
            .await;
        unmoved(&mut fleet, name).await;
        let (state, why) = fleet.states()["h0"];
        assert_eq!(state, State::Failed, "{name}: {why}");
        assert!(!outside.exists(), "{name}");
    }
}

async fn a_hold_hides_no_host_that_is_silent<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    let by = hold("forged");
    portguard_fleet::publish::hold(&fleet.store, "h1", Some(&by))
        .await
        .unwrap();
    let published = published(&fleet.store, &mut fleet.controller)
        .await
        .unwrap();
    let seen = view(&fleet.store, &published, now()).await.unwrap();
    assert_eq!(seen["h1"].state, State::Held);
    let later = view(&fleet.store, &published, now() + 600).await.unwrap();
    assert_eq!(later["h1"].state, State::Silent);
}

async fn planted_releases_push_out_none_of_ours<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    let thief = Signers::new(2);
    for serial in 900..906 {
        let (mut manifest, _, _) = fleet.sign("weaker", |_| {});
        manifest.serial = serial;
        let bytes = thief.sign(&manifest, &[0, 1]).to_bytes();
        let key = layout::release(serial);
        fleet.store.put(&key, bytes).await.unwrap();
    }
    // The same beside the place of the next, and of those before, and with numbers of theirs.
    for (number, serial) in [3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1]
        .into_iter()
        .enumerate()
    {
        let (mut manifest, _, _) = fleet.sign("weaker", |_| {});
        manifest.serial = serial;
        manifest.key_changes = Vec::new();
        let bytes = thief.sign(&manifest, &[0, 1]).to_bytes();
        let key = format!("{}000-{number}", layout::RELEASES);
        fleet.store.put(&key, bytes).await.unwrap();
    }
    fleet.publish("three").await;
    for (serial, wanted) in [(2, "two"), (3, "three")] {
        let there = fleet.store.get(&layout::release(serial)).await.unwrap();
        assert!(there.is_some(), "release {serial}");
        let site = layout::object(&pack(wanted.as_bytes()).unwrap().chunks[0].0);
        let there = fleet.store.get(&site).await.unwrap();
        assert!(there.is_some(), "the site of release {serial}");
    }
    fleet.tick().await;
    fleet.tick().await;
    assert!(fleet.all_are(State::Ready), "{:?}", fleet.states());
}

/// Publishers who were made to sign one number twice.
async fn who_has_another_release_of_the_same_number_is_not_done<S: Store + Clone>(store: S) {
    let mut fleet = owned(store).await;
    let before = fleet.last.clone();
    fleet.publish("wide").await;
    fleet.tick_one("h0").await;
    fleet.tick_one("h0").await;
    fleet.last = before;
    fleet.store.put(layout::HEAD, b"2".to_vec()).await.unwrap();
    fleet.publish("narrow").await;
    fleet.request(Request::Start).await.unwrap();
    for _ in 0..4 {
        fleet.tick().await;
        let _ = fleet.control().await;
    }
    let published = published(&fleet.store, &mut fleet.controller)
        .await
        .unwrap();
    let seen = view(&fleet.store, &published, now()).await.unwrap()["h0"].clone();
    assert_eq!(seen.state, State::Pending, "{seen:?}");
    assert!(seen.doubt.unwrap().contains("another release 3"));
    assert!(!fleet.enforced("h0").contains(&"narrow".to_owned()));
}
