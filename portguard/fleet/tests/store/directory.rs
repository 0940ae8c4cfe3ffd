//! A directory.

use std::time::Duration;

use portguard_fleet::store::{Compare, Directory, Op, Store as _};

use super::suite::suite;

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
async fn a_directory_that_is_gone_is_not_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("mounted"));
    assert!(store.get("head").await.is_err());
}
