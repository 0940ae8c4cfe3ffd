//! A thousand hosts.

use super::*;

#[tokio::test]
async fn a_thousand_hosts_are_rolled_out_over_a_directory() {
    // In memory: a thousand hosts have a thousand disks, not one.
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::create_dir(disk.path().join("store")).unwrap();
    let mut fleet = Fleet::new_in(directory(&disk.path().join("store")), 1000, disk.path()).await;
    fleet.plan.wave = vec![
        Wave::new("canary", "*").percent(1),
        Wave::new("rest", "*").at_once(50),
    ];
    fleet.roll_out("one").await;
    assert_eq!(fleet.hosts_of_wave(0).len(), 10);
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
