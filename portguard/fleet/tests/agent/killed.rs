//! A host whose agent is killed, or that goes down, at any moment.

use super::*;

/// The directory of a store, and of hosts, in memory: these are whole rollouts for each moment.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

async fn one_host(disk: &Path) -> Fleet<Directory> {
    std::fs::create_dir(disk.join("store")).unwrap();
    let mut fleet = Fleet::new_in(directory(&disk.join("store")), 1, disk).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.roll_out("good").await;
    fleet
}

/// What is in force for good, and what the host says of it.
async fn said(fleet: &mut Fleet<Directory>) -> (Option<(String, bool)>, State, Option<u64>) {
    let policy = {
        let kernel = fleet.kernels["h0"].0.lock().unwrap();
        kernel.effective().cloned()
    };
    let published = published(&fleet.store, &mut fleet.controller)
        .await
        .unwrap();
    let seen = view(&fleet.store, &published, now()).await.unwrap()["h0"].clone();
    (
        policy,
        seen.state,
        seen.status.and_then(|said| said.in_force),
    )
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// A good release is enforced.
    Forward,
    /// It is gone back from.
    Back,
    /// It cuts the store, and lapses.
    Cut,
}

/// Dies at its first act, then at its second, and so on until it lives to the end.
async fn killed_at_every_step(what: What, with_the_machine: bool) -> usize {
    for after in 0..500 {
        let disk = memory();
        let mut fleet = one_host(disk.path()).await;
        let begin = async |fleet: &mut Fleet<Directory>, site| {
            fleet.publish(site).await;
            fleet.request(Request::Start).await.unwrap();
            let _ = fleet.control().await;
        };
        match what {
            What::Forward => begin(&mut fleet, "next").await,
            What::Cut => begin(&mut fleet, "cut").await,
            What::Back => {
                fleet.roll_out("next").await;
                fleet.request(Request::Rollback).await.unwrap();
            }
        }
        let mut died = false;
        let fuse = fleet.kernels["h0"].1.clone();
        fuse.set(after);
        for round in 0..14 {
            if round == 7 {
                fuse.set(usize::MAX);
            }
            died |= fleet.tick_mortal("h0", with_the_machine).await;
            let _ = fleet.control().await;
            let mut kernel = fleet.kernels["h0"].0.lock().unwrap();
            if kernel.cuts() {
                kernel.lapse();
            }
        }
        let good = Some(("good".to_owned(), true));
        let next = Some(("next".to_owned(), true));
        let wanted = match what {
            What::Forward => (next, State::Confirmed, Some(2)),
            What::Back | What::Cut => (good, State::Reverted, Some(1)),
        };
        let found = said(&mut fleet).await;
        assert_eq!(found, wanted, "{what:?} {after}: {:?}", fleet.states());
        let cuts = fleet.enforced("h0");
        let cuts = cuts.iter().filter(|site| *site == "cut").count();
        assert!(cuts <= 2, "it is tried again for ever");
        if !died {
            return after;
        }
    }
    panic!("it never lives to the end");
}

#[tokio::test]
async fn a_host_that_is_killed_at_any_step_takes_the_release_all_the_same() {
    let steps = killed_at_every_step(What::Forward, false).await;
    assert!(steps > 10, "{steps}");
    assert!(killed_at_every_step(What::Forward, true).await > 10);
}

#[tokio::test]
async fn a_host_that_is_killed_at_any_step_goes_back_all_the_same() {
    assert!(killed_at_every_step(What::Back, false).await > 5);
    assert!(killed_at_every_step(What::Back, true).await > 5);
}

#[tokio::test]
async fn a_host_that_is_killed_at_any_step_heals_from_a_policy_that_cuts_the_store() {
    assert!(killed_at_every_step(What::Cut, false).await > 10);
    assert!(killed_at_every_step(What::Cut, true).await > 10);
}

#[tokio::test]
async fn a_host_that_goes_down_each_time_stops_trying() {
    let disk = memory();
    let mut fleet = one_host(disk.path()).await;
    fleet.publish("panic").await;
    fleet.request(Request::Start).await.unwrap();
    for _ in 0..16 {
        fleet.tick_mortal("h0", true).await;
        let _ = fleet.control().await;
    }
    let tried = fleet.enforced("h0");
    let tried = tried.iter().filter(|site| *site == "panic").count();
    assert_eq!(tried, 3, "{:?}", fleet.states());
    let (state, why) = fleet.states()["h0"];
    assert_eq!(state, State::Reverted);
    assert!(
        why.contains("went down 3 times") && why.contains("release 1 is in force"),
        "{why}"
    );
}

/// Killed while it puts back what was confirmed, and away for longer than the kernel waits.
#[tokio::test]
async fn what_is_put_back_is_not_given_up_because_the_agent_was_killed() {
    for is_apart in [false, true] {
        for after in 0..8 {
            let disk = memory();
            let mut fleet = one_host(disk.path()).await;
            let kernel = fleet.kernels["h0"].clone();
            kernel.0.lock().unwrap().boot();
            kernel.0.lock().unwrap().is_apart = is_apart;
            fleet.start("h0").await;
            kernel.1.set(after);
            for _ in 0..3 {
                fleet.tick_mortal("h0", false).await;
                kernel.0.lock().unwrap().lapse();
            }
            kernel.1.set(usize::MAX);
            for _ in 0..3 {
                fleet.tick().await;
            }
            let now = kernel.0.lock().unwrap();
            assert_eq!(now.policy, Some(("good".to_owned(), true)), "{after}");
            assert!(now.deadline.is_none(), "{after}: nothing can lapse");
        }
    }
}

#[tokio::test]
async fn what_was_confirmed_is_enforced_again_at_once_after_a_boot_also_without_the_store() {
    for is_apart in [false, true] {
        let disk = memory();
        let mut fleet = one_host(disk.path()).await;
        // The next release is watched: that must not make the host weaker meanwhile.
        fleet.publish("next").await;
        fleet.tick().await;
        {
            let mut kernel = fleet.kernels["h0"].0.lock().unwrap();
            kernel.boot();
            kernel.is_apart = is_apart;
            kernel.evidence.would_drop = 1;
        }
        fleet.start("h0").await;
        fleet.tick().await;
        let kernel = fleet.kernels["h0"].0.lock().unwrap();
        assert_eq!(kernel.policy, Some(("good".to_owned(), true)));
        assert!(
            kernel.deadline.is_none(),
            "it was proven: nothing can lapse"
        );
    }
}
