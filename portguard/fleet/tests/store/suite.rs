//! What every store does alike.

use std::time::Duration;

use portguard_fleet::store::{Compare, Op, Store, StoreError, Watch};

/// Long enough for a loaded machine; what is waited for is an event.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn changed(watch: &mut Watch) -> Vec<Option<Vec<u8>>> {
    let snapshot = tokio::time::timeout(PATIENCE, watch.changed())
        .await
        .expect("a change in time")
        .unwrap();
    snapshot
        .into_iter()
        .map(|entry| entry.map(|entry| entry.value))
        .collect()
}

fn put(key: &str, value: &[u8]) -> Op {
    Op::Put(key.to_owned(), value.to_vec())
}

/// `one` and `two` are the same store, over two connections.
pub(super) async fn suite(one: &impl Store, two: &impl Store) {
    values(one, two).await;
    compares(one, two).await;
    pages(one).await;
    leases(one, two).await;
    watches(one, two).await;
    refusals(one).await;
    strangers(one).await;
}

/// What somebody else put beside what we look for is not in the way.
async fn strangers(one: &impl Store) {
    // More than one answer may hold, though no value alone is too large.
    for number in 0..10 {
        let key = format!("evidence/big/{number}");
        one.put(&key, vec![b'x'; 1 << 20]).await.unwrap();
    }
    one.put("evidence/host/eth0", b"ours".to_vec())
        .await
        .unwrap();
    let found = one.pick("evidence/", 1000, |_| true).await.unwrap();
    let keys: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["evidence/host/eth0"]);
    let is_wanted = |key: &str| key.ends_with("/7");
    let found = one.pick("evidence/", 1 << 20, is_wanted).await.unwrap();
    let keys: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["evidence/big/7"]);
}

async fn values(one: &impl Store, two: &impl Store) {
    assert_eq!(two.get("head").await.unwrap(), None);
    one.put("head", b"1".to_vec()).await.unwrap();
    let first = two.get("head").await.unwrap().unwrap();
    assert_eq!(first.value, b"1");
    one.put("head", b"2".to_vec()).await.unwrap();
    let second = two.get("head").await.unwrap().unwrap();
    assert_eq!(second.value, b"2");
    assert_ne!(first.version, second.version);
    // All byte values, and half a megabyte of them.
    let big: Vec<u8> = (0..=255).cycle().take(512 << 10).collect();
    one.put("object/big", big.clone()).await.unwrap();
    assert_eq!(two.get("object/big").await.unwrap().unwrap().value, big);
    one.commit(&[], &[Op::Delete("object/big".to_owned())])
        .await
        .unwrap();
    assert_eq!(two.get("object/big").await.unwrap(), None);
}

async fn compares(one: &impl Store, two: &impl Store) {
    let seen = one.get("head").await.unwrap();
    let next = Compare::unchanged("head", seen.as_ref());
    let ops = [put("release/3", b"r"), put("head", b"3")];
    assert!(one.commit(std::slice::from_ref(&next), &ops).await.unwrap());
    // The second who saw the old one is refused, and nothing of it is done.
    assert!(
        !two.commit(&[next], &[put("release/3x", b"x"), put("head", b"x")])
            .await
            .unwrap()
    );
    assert_eq!(two.get("head").await.unwrap().unwrap().value, b"3");
    assert_eq!(two.get("release/3x").await.unwrap(), None);
    assert!(
        !one.commit(&[Compare::Absent("head".to_owned())], &[put("head", b"y")])
            .await
            .unwrap()
    );
    assert!(
        one.commit(
            &[Compare::Absent("position".to_owned())],
            &[put("position", b"p")]
        )
        .await
        .unwrap()
    );
    // Of many who try at once, one succeeds.
    let seen = one.get("position").await.unwrap();
    let attempts = (0..8u8).map(|number| {
        let compare = Compare::unchanged("position", seen.as_ref());
        async move {
            one.commit(&[compare], &[put("position", &[number])])
                .await
                .unwrap()
        }
    });
    let mut won = 0;
    for attempt in attempts {
        won += usize::from(attempt.await);
    }
    assert_eq!(won, 1);
}

async fn pages(one: &impl Store) {
    for number in 0..2300 {
        one.put(&format!("status/h{number:05}"), vec![b'x'; 900])
            .await
            .unwrap();
    }
    one.put("statusx", b"another".to_vec()).await.unwrap();
    let all = one.list("status/").await.unwrap();
    let keys: Vec<String> = all.into_iter().map(|entry| entry.key).collect();
    let wanted: Vec<String> = (0..2300)
        .map(|number| format!("status/h{number:05}"))
        .collect();
    assert_eq!(keys, wanted);
    assert!(one.list("evidence/").await.unwrap().is_empty());
}

async fn leases(one: &impl Store, two: &impl Store) {
    assert!(one.lease("alive/a", b"1", 2, false).await.unwrap());
    assert!(one.lease("alive/a", b"2", 2, false).await.unwrap());
    assert_eq!(two.get("alive/a").await.unwrap().unwrap().value, b"2");
    assert_eq!(two.list("alive/").await.unwrap().len(), 1);
    assert!(one.lease("controller", b"one", 20, true).await.unwrap());
    assert!(
        !two.lease("controller", b"two", 20, true).await.unwrap(),
        "it is the other's"
    );
    assert!(
        one.lease("controller", b"one", 20, true).await.unwrap(),
        "it is ours"
    );
    one.release("controller").await.unwrap();
    assert!(
        two.lease("controller", b"two", 60, true).await.unwrap(),
        "it was given up"
    );
    // It ends by itself, and whoever watches is told.
    let mut watch = two.watch(&["alive/a".to_owned()]).await.unwrap();
    while changed(&mut watch).await != [None] {}
    assert!(two.list("alive/").await.unwrap().is_empty());
    two.release("controller").await.unwrap();
}

async fn watches(one: &impl Store, two: &impl Store) {
    let keys = [
        "head".to_owned(),
        "position".to_owned(),
        "hold/a".to_owned(),
    ];
    one.put("head", b"10".to_vec()).await.unwrap();
    one.put("position", b"p".to_vec()).await.unwrap();
    let mut watch = two.watch(&keys).await.unwrap();
    assert_eq!(
        changed(&mut watch).await,
        [Some(b"10".to_vec()), Some(b"p".to_vec()), None]
    );
    one.put("head", b"11".to_vec()).await.unwrap();
    assert_eq!(changed(&mut watch).await[0], Some(b"11".to_vec()));
    // What changes while nobody looks is there at the next look, also if it is several things.
    one.put("hold/a", b"h".to_vec()).await.unwrap();
    one.put("head", b"12".to_vec()).await.unwrap();
    let mut last = changed(&mut watch).await;
    while last
        != [
            Some(b"12".to_vec()),
            Some(b"p".to_vec()),
            Some(b"h".to_vec()),
        ]
    {
        last = changed(&mut watch).await;
    }
    one.commit(&[], &[Op::Delete("hold/a".to_owned())])
        .await
        .unwrap();
    assert_eq!(changed(&mut watch).await[2], None);
}

async fn refusals(one: &impl Store) {
    for key in ["../head", "/etc/passwd", "a b", ""] {
        let refused = one.put(key, b"x".to_vec()).await.unwrap_err();
        assert!(
            matches!(refused, StoreError::Invalid(_)),
            "{key}: {refused}"
        );
        assert!(matches!(one.get(key).await, Err(StoreError::Invalid(_))));
    }
    assert!(matches!(
        one.put("head", vec![0; 2 << 20]).await,
        Err(StoreError::Invalid(_))
    ));
}
