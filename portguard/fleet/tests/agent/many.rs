//! A thousand hosts.

use super::*;

/// Ten thousand in `nightly`; a tenth of that in every run.
fn hosts() -> usize {
    std::env::var("PORTGUARD_FLEET_HOSTS").map_or(1000, |count| count.parse().unwrap())
}

/// The longest that all of them may take.
const LONGEST: Duration = Duration::from_mins(20);

#[tokio::test]
async fn a_thousand_hosts_are_rolled_out_over_a_directory() {
    let count = hosts();
    // In memory: a thousand hosts have a thousand disks, not one.
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::create_dir(disk.path().join("store")).unwrap();
    let mut fleet = Fleet::new_in(directory(&disk.path().join("store")), count, disk.path()).await;
    fleet.plan.wave = vec![
        Wave::new("canary", "*").percent(1),
        Wave::new("rest", "*").at_once(50),
    ];
    let begun = Instant::now();
    fleet.publish("one").await;
    fleet.tick().await;
    fleet.tick().await;
    fleet.request(Request::Start).await.unwrap();
    // Ten thousand take a while: what they are at is seen, and it has an end.
    let mut said = Instant::now();
    let position = loop {
        fleet.tick().await;
        let mut next = fleet.control().await;
        while next.as_ref().is_ok_and(|one| one.phase == Phase::Running) {
            next = fleet.control().await;
        }
        if let Ok(position) = next {
            break position;
        }
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            println!("{:?}: {}", begun.elapsed(), next.unwrap_err());
        }
        assert!(begun.elapsed() < LONGEST, "{:?}", fleet.control().await);
    };
    assert_eq!(position.phase, Phase::Done, "{position:?}");
    fleet.tick().await;
    assert!(fleet.all_are(State::Confirmed));
    println!("{count} hosts: publish to confirmed {:?}", begun.elapsed());
    assert_eq!(fleet.hosts_of_wave(0).len(), count / 100);
}

#[tokio::test]
async fn a_host_fetches_less_than_twenty_kilobytes_of_a_fleet_of_ten_thousand() {
    let keys = Signers::new(2);
    let mut shard = Shard::new();
    for number in 0..10_000 {
        let mut entry = entry(Hash::of(&u32::to_be_bytes(number)).as_str());
        entry.key = Some(
            HostKey::parse(&HostKey::generate().unwrap(), "test")
                .unwrap()
                .public(),
        );
        entry.zone = format!("zone-{}", number % 7);
        entry.turn = number;
        shard.insert(format!("node-{number}.example.com"), entry);
    }
    let made = made(1, keys.keys(1, 2), shard);
    let release = keys.sign(&made.manifest, &[0, 1]).to_bytes().len();
    let piece = made.manifest.hosts
        [Manifest::shard_of(made.manifest.hosts.len(), "node-7.example.com")]
    .clone();
    let piece = made
        .chunks
        .iter()
        .find(|(hash, _)| *hash == piece)
        .unwrap()
        .1
        .len();
    println!("release {release} bytes, piece of the inventory {piece} bytes");
    assert!(release + piece < 20 << 10, "{release} + {piece}");
}

#[tokio::test]
async fn what_is_published_reaches_a_thousand_watches_of_etcd_over_connections_of_their_own() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let count = hosts();
    // A connection each, here and in etcd.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let cluster = Cluster::start(1).await;
    let writer = cluster.store();
    writer.put(layout::HEAD, b"1".to_vec()).await.unwrap();
    let before = cluster.memory(0);
    let (ready, mut all) = tokio::sync::mpsc::channel(count);
    let (times, mut arrived) = tokio::sync::mpsc::channel(count);
    for number in 0..count {
        let (store, ready, times) = (cluster.store(), ready.clone(), times.clone());
        tokio::spawn(async move {
            let keys = [
                layout::HEAD.to_owned(),
                layout::POSITION.to_owned(),
                layout::hold(&format!("h{number}")),
            ];
            let mut watch = store.watch(&keys).await.unwrap();
            watch.changed().await.unwrap();
            ready.send(()).await.unwrap();
            watch.changed().await.unwrap();
            times.send(Instant::now()).await.unwrap();
        });
        // A handshake at a time is enough for one core.
        if number % 50 == 49 {
            for _ in 0..50 {
                all.recv().await.unwrap();
            }
        }
    }
    let memory = cluster.memory(0);
    let begun = Instant::now();
    writer.put(layout::HEAD, b"2".to_vec()).await.unwrap();
    let mut took = Vec::new();
    while took.len() < count {
        let at = tokio::time::timeout(Duration::from_secs(30), arrived.recv())
            .await
            .unwrap()
            .unwrap();
        took.push(at.duration_since(begun));
    }
    took.sort_unstable();
    println!(
        "{count} watches: p50 {:?}, p99 {:?}; the server has {} KiB for each",
        took[count / 2],
        took[count * 99 / 100],
        (memory - before) / u64::try_from(count).unwrap()
    );
    assert!(took[count - 1] < Duration::from_secs(10));
}

#[tokio::test]
async fn statuses_of_hosts_go_to_etcd_by_the_hundred_a_second() {
    const CONNECTIONS: usize = 20;
    let count = hosts();
    let cluster = Cluster::start(1).await;
    let key = HostKey::parse(&HostKey::generate().unwrap(), "test").unwrap();
    let begun = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..CONNECTIONS {
        let store = cluster.store();
        // As large as one can be, and so no worse than any.
        let status = key.evidence(&"x".repeat(900));
        writers.spawn(async move {
            for number in (writer..count).step_by(CONNECTIONS) {
                let host = format!("h{number}");
                let alive = layout::alive(&host);
                assert!(store.lease(&alive, &status, 180, false).await.unwrap());
                store
                    .put(&layout::status(&host), status.clone())
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    let took = begun.elapsed();
    let written = cluster.store().list(layout::STATUSES).await.unwrap().len();
    assert_eq!(written, count);
    let each = took / u32::try_from(count).unwrap();
    println!(
        "{count} statuses, each with its sign of life and that one's lease: {took:?}, {} a second",
        Duration::from_secs(1).as_nanos() / each.as_nanos()
    );
    // A host says something once a minute: a hundred a second are six thousand hosts on the slowest machine.
    assert!(each < Duration::from_millis(10), "{each:?}");
}
