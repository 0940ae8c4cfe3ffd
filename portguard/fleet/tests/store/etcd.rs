//! etcd, the real one.

use std::time::{Duration, Instant};

use portguard_fleet::store::etcd::{AGENT, CONTROLLER, PUBLISHER, READER, set_up};
use portguard_fleet::store::{Etcd, Files, Store as _, StoreError, Watch};

use super::suite::{changed, suite};
use crate::support::etcd::Cluster;

#[tokio::test]
async fn etcd_does_what_a_store_does() {
    let cluster = Cluster::start(1).await;
    suite(&cluster.store(), &cluster.store()).await;
}

#[tokio::test]
async fn a_strangers_certificate_and_none_at_all_are_refused() {
    let cluster = Cluster::start(1).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let strangers = crate::support::certs::Authority::new(elsewhere.path());
    let mut files = strangers.issue("root", 3600);
    // We trust the server, it does not trust us.
    files.ca = cluster.root.ca.clone();
    assert!(cluster.store_as(&files).get("head").await.is_err());
    let nothing = Files {
        ca: cluster.root.ca.clone(),
        ..Files::default()
    };
    assert!(cluster.store_as(&nothing).get("head").await.is_err());
    // The server is not who we trust.
    let mut files = cluster.root.clone();
    files.ca = Some(strangers.ca());
    let refused = cluster.store_as(&files).get("head").await.unwrap_err();
    assert!(
        refused.to_string().contains("certificate"),
        "the reason is said: {refused}"
    );
}

#[tokio::test]
async fn classes_of_certificates_may_do_what_they_must_and_no_more() {
    let cluster = Cluster::start(1).await;
    set_up(&cluster.store()).await.unwrap();
    let class = |name: &str| cluster.store_as(&cluster.authority.issue(name, 3600));
    let (agent, reader) = (class(AGENT), class(READER));
    let (controller, publisher) = (class(CONTROLLER), class(PUBLISHER));
    let may = [
        (&publisher, "head"),
        (&publisher, "release/1"),
        (&publisher, "object/a"),
        (&publisher, "hold/a"),
        (&controller, "position"),
        (&controller, "history/1"),
        (&agent, "status/a"),
        (&agent, "evidence/a/eth0"),
    ];
    for (store, key) in may {
        store.put(key, b"x".to_vec()).await.unwrap();
        assert!(reader.get(key).await.unwrap().is_some(), "{key}");
        assert!(agent.get(key).await.unwrap().is_some(), "{key}");
    }
    assert!(agent.lease("alive/a", b"x", 60, false).await.unwrap());
    assert!(
        controller
            .lease("controller", b"x", 60, true)
            .await
            .unwrap()
    );
    let may_not = [
        (&agent, "head"),
        (&agent, "position"),
        (&agent, "release/1"),
        (&agent, "object/a"),
        (&agent, "hold/a"),
        (&agent, "controller"),
        (&reader, "status/a"),
        (&reader, "head"),
        (&controller, "head"),
        (&controller, "release/1"),
        (&controller, "status/a"),
    ];
    for (store, key) in may_not {
        let refused = store.put(key, b"y".to_vec()).await.unwrap_err();
        assert!(
            matches!(refused, StoreError::Refused(_)),
            "{key}: {refused}"
        );
    }
    // Once more: what is there already is no error.
    set_up(&cluster.store()).await.unwrap();
}

#[tokio::test]
async fn with_the_leader_killed_reads_writes_and_watches_go_on() {
    let mut cluster = Cluster::start(3).await;
    let (one, two) = (cluster.store(), cluster.store());
    one.put("head", b"1".to_vec()).await.unwrap();
    let mut watch = two.watch(&["head".to_owned()]).await.unwrap();
    assert_eq!(changed(&mut watch).await, [Some(b"1".to_vec())]);
    let leader = cluster.leader();
    cluster.kill(leader);
    eventually(async || one.put("head", b"2".to_vec()).await).await;
    until(&two, watch, b"2").await;
}

#[tokio::test]
async fn a_frozen_member_is_left_and_what_was_published_meanwhile_arrives() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader();
    let frozen = (leader + 1) % 3;
    let others: Vec<usize> = (0..3).filter(|member| *member != frozen).collect();
    let writer = cluster.store_at(&others, &cluster.root);
    writer.put("head", b"1".to_vec()).await.unwrap();
    // It begins at the member that will freeze.
    let agent = loop {
        let agent = cluster.store_at(&[frozen, others[0]], &cluster.root);
        let mut watch = agent.watch(&["head".to_owned()]).await.unwrap();
        changed(&mut watch).await;
        cluster.freeze(frozen, true);
        let probe = tokio::time::timeout(Duration::from_millis(300), agent.get("head")).await;
        if probe.is_err() {
            writer.put("head", b"2".to_vec()).await.unwrap();
            let begun = Instant::now();
            until(&agent, watch, b"2").await;
            assert!(
                begun.elapsed() < Duration::from_secs(25),
                "it took {:?}",
                begun.elapsed()
            );
            break agent;
        }
        cluster.freeze(frozen, false);
    };
    agent.get("head").await.unwrap();
    cluster.freeze(frozen, false);
}

#[tokio::test]
async fn without_a_quorum_nothing_is_read_that_may_be_old_and_it_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let store = cluster.store();
    store.put("head", b"1".to_vec()).await.unwrap();
    cluster.kill(0);
    cluster.kill(1);
    let begun = Instant::now();
    let lost = store.get("head").await.unwrap_err();
    assert!(matches!(lost, StoreError::Unreachable(_)), "{lost}");
    assert!(begun.elapsed() < Duration::from_secs(40));
    cluster.run(0);
    eventually(async || store.put("head", b"2".to_vec()).await).await;
}

#[tokio::test]
async fn a_member_that_was_wiped_and_all_of_them_do_not_end_a_watch_for_good() {
    let mut cluster = Cluster::start(1).await;
    let (one, two) = (cluster.store(), cluster.store());
    for number in 0..20 {
        one.put("head", vec![number]).await.unwrap();
    }
    let mut watch = two.watch(&["head".to_owned()]).await.unwrap();
    changed(&mut watch).await;
    cluster.wipe(0);
    cluster.run(0);
    // Its revisions begin anew, far below what the watch has seen.
    eventually(async || one.put("head", b"after".to_vec()).await).await;
    until(&two, watch, b"after").await;
}

#[tokio::test]
async fn what_was_compacted_is_looked_at_again() {
    let cluster = Cluster::start(1).await;
    let (one, two) = (cluster.store(), cluster.store());
    one.put("head", b"0".to_vec()).await.unwrap();
    let mut watch = two.watch(&["head".to_owned()]).await.unwrap();
    changed(&mut watch).await;
    for number in 1..50u32 {
        one.put("head", number.to_string().into_bytes())
            .await
            .unwrap();
    }
    cluster.compact();
    until(&two, watch, b"49").await;
}

#[tokio::test]
async fn a_connection_is_made_anew_before_its_certificate_ends() {
    let cluster = Cluster::start(1).await;
    // It ends in less than the time before its end in which it is not used: reconnect as often as is allowed.
    let short = cluster.authority.issue("short", 40);
    let store = cluster.store_as(&short);
    let mut watch = store.watch(&["head".to_owned()]).await.unwrap();
    changed(&mut watch).await;
    // Renewed on disk; the watch looks again by itself, which is a change, and does so with the new one.
    cluster.authority.issue("short", 3600);
    let begun = Instant::now();
    changed(&mut watch).await;
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        begun.elapsed()
    );
    assert!(short.seconds_left().unwrap() > 3000);
}

/// A cluster that elects a leader needs a while; what is waited for is that it answers.
async fn eventually<T>(attempt: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < Duration::from_mins(1), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As an agent does it: a watch that fails is begun anew.
async fn until(store: &Etcd, mut watch: Watch, wanted: &[u8]) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_mins(1), "it never arrived");
        let change = tokio::time::timeout(Duration::from_mins(1), watch.changed());
        if let Ok(snapshot) = change.await.expect("a word in time") {
            let value = snapshot[0].as_ref().map(|entry| entry.value.as_slice());
            if value == Some(wanted) {
                return;
            }
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            watch = store.watch(&["head".to_owned()]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_revoked_or_expires_under_an_open_watch_ends_it() {
    let cluster = Cluster::start(1).await;
    let watching = async |seconds: i64, name: &str| {
        let store = cluster.store_as(&cluster.authority.issue(name, seconds));
        let mut watch = store.watch(&["head".to_owned()]).await.unwrap();
        changed(&mut watch).await;
        (cluster.authority.issued(), watch)
    };
    // Both live so short that a connection is made anew as often as is allowed.
    let (number, mut revoked) = watching(200, "withdrawn").await;
    let (_, mut expiring) = watching(20, "expiring").await;
    cluster.authority.revoke(&[number]);
    // The server goes on with what is open, whatever it would say to a new connection: the watch does not rely on it.
    let begun = Instant::now();
    let end = async |watch: &mut Watch| while watch.changed().await.is_ok() {};
    let both = async { tokio::join!(end(&mut revoked), end(&mut expiring)) };
    tokio::time::timeout(Duration::from_mins(1), both)
        .await
        .expect("both end");
    println!("ended within {:?}", begun.elapsed());
    // Others are not concerned.
    cluster.store().get("head").await.unwrap();
}

#[tokio::test]
async fn one_value_that_is_too_large_hides_no_other() {
    let cluster = Cluster::start(1).await;
    let store = cluster.store();
    store.put("status/a", b"ours".to_vec()).await.unwrap();
    cluster.put_raw("status/b", &vec![b'x'; 1_400_000]);
    store.put("status/c", b"ours".to_vec()).await.unwrap();
    assert!(store.get("status/b").await.is_err());
    let all = store.list("status/").await.unwrap();
    let lengths: Vec<usize> = all.iter().map(|entry| entry.value.len()).collect();
    assert_eq!(lengths, [4, 0, 4]);
}

#[tokio::test]
async fn who_gives_up_waiting_at_any_moment_still_learns_of_every_change() {
    let cluster = Cluster::start(1).await;
    let (one, two) = (cluster.store(), cluster.store());
    let mut watch = two.watch(&["head".to_owned()]).await.unwrap();
    changed(&mut watch).await;
    for number in 0..200u32 {
        let wanted = number.to_string().into_bytes();
        let (put, given_up) = tokio::join!(
            one.put("head", wanted.clone()),
            // Between the event and the end of what comes together with it.
            tokio::time::timeout(
                Duration::from_micros(u64::from(number) * 25),
                watch.changed()
            )
        );
        put.unwrap();
        if given_up.is_err() {
            assert_eq!(changed(&mut watch).await, [Some(wanted)]);
        }
    }
}
