//! A directory.

use std::time::Duration;

use portguard_fleet::store::{Compare, Directory, Op, Store as _, StoreError};

use super::suite::{changed, suite};

fn open(path: &std::path::Path) -> Directory {
    Directory::new(path).every(Duration::from_millis(50))
}

#[tokio::test]
async fn a_directory_does_what_a_store_does() {
    let directory = tempfile::tempdir().unwrap();
    suite(&open(directory.path()), &open(directory.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_commit_at_once_each_builds_on_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let store = open(directory.path());
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while done < 10 {
                let seen = store.get("head").await.unwrap_or(None);
                let number: u64 = seen.as_ref().map_or(0, |entry| {
                    std::str::from_utf8(&entry.value).unwrap().parse().unwrap()
                });
                let next = (number + 1).to_string().into_bytes();
                let compare = Compare::unchanged("head", seen.as_ref());
                let put = Op::Put("head".to_owned(), next);
                done += u32::from(store.commit(&[compare], &[put]).await.unwrap());
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let last = open(directory.path()).get("head").await.unwrap().unwrap();
    assert_eq!(last.value, b"80");
}

#[tokio::test]
async fn a_lock_that_a_dead_process_left_holds_up_nobody_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join(".lock");
    std::fs::write(&lock, "somebody 1000\n").unwrap();
    let store = open(directory.path());
    let put = Op::Put("head".to_owned(), b"1".to_vec());
    assert!(
        store
            .commit(&[Compare::Absent("head".to_owned())], &[put])
            .await
            .unwrap()
    );
    assert!(!lock.exists());
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        1,
        "nothing is left beside the value"
    );
}

#[tokio::test]
async fn a_lock_that_says_nothing_or_a_time_that_is_yet_to_come_ends_too() {
    for text in ["", "somebody", "somebody 99999999999\n"] {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join(".lock");
        std::fs::write(&lock, text).unwrap();
        // Left an hour ago.
        let hour = std::time::SystemTime::now() - Duration::from_hours(1);
        let file = std::fs::File::options().write(true).open(&lock).unwrap();
        file.set_modified(hour).unwrap();
        let put = Op::Put("head".to_owned(), b"1".to_vec());
        let absent = Compare::Absent("head".to_owned());
        let done = open(directory.path()).commit(&[absent], &[put]).await;
        assert!(done.unwrap(), "{text:?}");
    }
}

#[tokio::test]
async fn a_directory_that_is_gone_is_not_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("mounted");
    let store = open(&root);
    assert!(store.get("head").await.is_err());
    assert!(store.list("status/").await.is_err());
    assert!(store.put("status/a", b"x".to_vec()).await.is_err());
    assert!(store.lease("alive/a", b"x", 10, false).await.is_err());
    assert!(store.lease("controller", b"x", 10, true).await.is_err());
    let compare = Compare::Absent("position".to_owned());
    let put = Op::Put("position".to_owned(), b"x".to_vec());
    assert!(store.commit(&[compare], &[put]).await.is_err());
    assert!(!root.exists(), "nobody makes it but who makes the fleet");
}

#[tokio::test]
async fn links_and_pipes_that_somebody_put_there_are_not_followed_and_not_waited_for() {
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let store = open(root);
    store.put("status/a", b"ours".to_vec()).await.unwrap();
    std::os::unix::fs::symlink(&secret, root.join("head")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), root.join("alive")).unwrap();
    std::os::unix::fs::symlink("/", root.join("status/all")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", root.join("status/zero")).unwrap();
    let pipe = root.join("position");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::unistd::mkfifo(&root.join("status/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(root.join("status/huge"), vec![0; 4 << 20]).unwrap();
    for key in [
        "head",
        "alive/secret",
        "status/all/etc/passwd",
        "status/zero",
        "position",
        "status/pipe",
        "status/huge",
    ] {
        let found = tokio::time::timeout(Duration::from_secs(20), store.get(key)).await;
        let refused = found.expect("an answer").unwrap_err();
        assert!(
            matches!(refused, StoreError::Invalid(_)),
            "{key}: {refused}"
        );
    }
    // They hide nothing.
    let all = store.list("status/").await.unwrap();
    let keys: Vec<&str> = all.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["status/a"]);
    assert!(store.list("alive/").await.unwrap().is_empty());
    // Nothing is written through them: a link to a directory is refused, one to a file is replaced.
    assert!(store.put("alive/b", b"x".to_vec()).await.is_err());
    assert!(!elsewhere.path().join("b").exists());
    store.put("head", b"1".to_vec()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(store.get("head").await.unwrap().unwrap().value, b"1");
    store.put("position", b"p".to_vec()).await.unwrap();
    // A pipe in place of the lock holds up nobody for ever, and what is behind a link there stays.
    let lock = root.join(".lock");
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let put = Op::Put("head".to_owned(), b"2".to_vec());
    let seen = store.get("head").await.unwrap();
    let compare = Compare::unchanged("head", seen.as_ref());
    let (compares, ops) = ([compare], [put]);
    let commit = store.commit(&compares, &ops);
    let done = tokio::time::timeout(Duration::from_mins(1), commit).await;
    assert!(done.expect("an answer").is_err());
}

#[tokio::test]
async fn what_is_no_value_of_ours_keeps_nobody_from_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    std::fs::create_dir_all(directory.path().join("hold/a")).unwrap();
    store.put("head", b"1".to_vec()).await.unwrap();
    let keys = ["head", "position", "hold/a"].map(str::to_owned);
    let mut watch = store.watch(&keys).await.unwrap();
    let seen = changed(&mut watch).await;
    assert_eq!(seen, [Some(b"1".to_vec()), None, None]);
}

#[tokio::test]
async fn what_somebody_put_beside_ours_is_not_even_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.put("status/a", b"ours".to_vec()).await.unwrap();
    for number in 0..3000 {
        let path = directory.path().join(format!("status/junk-{number}"));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let begun = std::time::Instant::now();
    let found = store.pick("status/", 1024, |key| key == "status/a").await;
    let took = begun.elapsed();
    assert_eq!(found.unwrap().len(), 1);
    let begun = std::time::Instant::now();
    store.list("status/").await.unwrap();
    assert!(took < begun.elapsed(), "{took:?}");
}
