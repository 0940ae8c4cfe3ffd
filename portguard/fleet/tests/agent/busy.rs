//! Many hosts on one rollout, and slow ones: nobody works for the others, and what takes long is no failure.

use std::sync::atomic::Ordering;

use portguard_fleet::agent::run;

use super::*;

/// As `portguard agent` has it.
const EVERY: Duration = Duration::from_secs(15);

/// One after the other, each by its own loop: what was asked of the guard that was asked most, by what it was.
async fn asked_most(count: usize) -> BTreeMap<&'static str, usize> {
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::create_dir(disk.path().join("store")).unwrap();
    let store = directory(&disk.path().join("store"));
    let mut fleet = Fleet::new_in(store, count, disk.path()).await;
    fleet.retry = EVERY;
    let names: Vec<String> = fleet.keys.keys().cloned().collect();
    for name in &names {
        fleet.start(name).await;
    }
    fleet.plan.wave = vec![Wave::new("all", "*").at_once(1)];
    let hosts = tokio::task::LocalSet::new();
    for (_, mut host) in std::mem::take(&mut fleet.hosts) {
        let watch = fleet.store.watch(&host.keys()).await.unwrap();
        hosts.spawn_local(async move {
            run(&mut host, watch, EVERY, &mut tokio::time::Instant::now()).await
        });
    }
    hosts
        .run_until(async {
            fleet.publish("one").await;
            fleet.request(Request::Start).await.unwrap();
            let end = Instant::now() + Duration::from_mins(2);
            loop {
                match fleet.control().await {
                    Ok(position) if position.phase == Phase::Done => break,
                    Ok(_) => {}
                    Err(why) => assert!(Instant::now() < end, "{why}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    let mut most = BTreeMap::new();
    for kernel in fleet.kernels.values() {
        let kernel = kernel.0.lock().unwrap();
        assert_eq!(kernel.enforced, ["one"]);
        for (what, times) in &kernel.asked {
            let there: &mut usize = most.entry(*what).or_default();
            *there = (*there).max(*times);
        }
    }
    most
}

#[tokio::test]
async fn what_a_host_does_for_a_release_does_not_grow_with_the_number_of_hosts() {
    for count in [4, 40] {
        let asked = asked_most(count).await;
        println!("{count} hosts: {asked:?}");
        for (what, most) in [
            ("compile", 2),
            ("audit", 1),
            ("judge", 4),
            ("enforce", 1),
            ("confirm", 1),
            // Two at a step, of which some are a second apart while it is under way.
            ("in force", 40),
        ] {
            assert!(asked[what] <= most, "{count} hosts: {asked:?}");
        }
    }
}

over_every_store!(a_host_that_is_slow_is_late_and_fails_nothing);

async fn a_host_that_is_slow_is_late_and_fails_nothing<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.later = FAILED_SECONDS + 1;
    for (number, (what, is_done)) in [
        ("in force", false),
        ("compile", false),
        ("audit", false),
        ("audit", true),
        ("judge", false),
        ("enforce", false),
        ("enforce", true),
        ("confirm", false),
        ("confirm", true),
    ]
    .into_iter()
    .enumerate()
    {
        let site = format!("site {number}");
        for kernel in fleet.kernels.values() {
            let mut kernel = kernel.0.lock().unwrap();
            // What enforces is not made to audit on the way: every release begins on a host that has no guard.
            kernel.boot();
            kernel.slow = Some((what, 4, is_done));
        }
        let names: Vec<String> = fleet.keys.keys().cloned().collect();
        for name in &names {
            std::fs::remove_dir_all(fleet.directory.path().join(name)).unwrap();
            fleet.start(name).await;
        }
        fleet.publish(&site).await;
        fleet.request(Request::Start).await.unwrap();
        let mut rounds = 0;
        loop {
            fleet.tick().await;
            for (host, (state, why)) in fleet.states() {
                assert!(!state.is_trouble(), "{what}: {host} {state:?} {why}");
            }
            match fleet.control().await {
                Ok(position) if position.phase == Phase::Done => break,
                Ok(position) => assert_eq!(position.phase, Phase::Running, "{what}"),
                Err(_) => {}
            }
            rounds += 1;
            assert!(rounds < 30, "{what}: {:?}", fleet.states());
        }
        for (name, kernel) in &fleet.kernels {
            let kernel = kernel.0.lock().unwrap();
            assert_eq!(kernel.effective(), Some(&(site.clone(), true)), "{name}");
            assert_eq!(kernel.deadline, None, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_judges_for_an_hour_gives_signs_of_life_meanwhile() {
    let disk = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(directory(disk.path()), 1).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.publish("one").await;
    fleet.tick().await;
    let beats = |fleet: &Fleet<_>| fleet.kernels["h0"].1.beats.load(Ordering::SeqCst);
    let before = beats(&fleet);
    fleet.kernels["h0"].0.lock().unwrap().judges_for = Duration::from_hours(1);
    fleet.tick().await;
    let given = beats(&fleet) - before;
    assert!((59..=62).contains(&given), "{given}");
}
