//! Whole rollouts.

use super::*;

over_every_store!(
    what_is_guarded_by_hand_is_said_and_left_alone,
    a_release_is_watched_everywhere_and_enforced_wave_by_wave,
    a_host_that_is_held_stays_as_it_is_until_it_is_let_go,
    the_controller_may_be_killed_at_every_step,
    own_evidence_holds_a_host_back_whatever_the_position_says,
    a_host_that_cannot_load_has_failed_and_has_not_gone_back,
    a_policy_that_cuts_the_store_heals_itself_on_the_canary_and_halts,
    a_policy_that_cuts_the_store_halts_with_the_controller_killed_at_every_step,
);

async fn a_release_is_watched_everywhere_and_enforced_wave_by_wave<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 4).await;
    fleet.publish("one").await;
    fleet.tick().await;
    fleet.tick().await;
    assert!(fleet.all_are(State::Ready), "{:?}", fleet.states());
    for name in ["h0", "h1", "h2", "h3"] {
        assert!(
            fleet.enforced(name).is_empty(),
            "nobody enforces before the rollout begins"
        );
    }
    fleet.request(Request::Start).await.unwrap();
    fleet.control().await.unwrap();
    fleet.tick().await;
    let canary = fleet.hosts_of_wave(0);
    for (name, (state, why)) in fleet.states() {
        let wanted = if canary.iter().any(|one| one == name) {
            State::Confirmed
        } else {
            State::Ready
        };
        assert_eq!(state, wanted, "{name}: {why}");
    }
    assert_eq!(fleet.run().await.phase, Phase::Done);
    assert!(fleet.all_are(State::Confirmed));
}

async fn a_policy_that_cuts_the_store_heals_itself_on_the_canary_and_halts<S: Store + Clone>(
    store: S,
) {
    let mut fleet = begin_cut(store).await;
    end_cut(&mut fleet).await;
}

/// The controller dies at its first request, then at its second, and so on; and begins anew each time.
async fn a_policy_that_cuts_the_store_halts_with_the_controller_killed_at_every_step<
    S: Store + Clone,
>(
    store: S,
) {
    let mut fleet = begin_cut(store).await;
    let mut after = 0;
    while !fleet.control_dying(after).await {
        after += 1;
        fleet.tick().await;
        assert!(after < 100, "it never gets through");
    }
    assert!(
        after > 5,
        "a step is {after} requests: it was not killed at any"
    );
    end_cut(&mut fleet).await;
}

#[tokio::test]
async fn a_policy_that_cuts_the_store_heals_itself_with_the_leader_killed_in_the_middle() {
    let mut cluster = Cluster::start(3).await;
    let mut fleet = begin_cut(cluster.store()).await;
    let leader = cluster.leader();
    cluster.kill(leader);
    cluster.wait().await;
    end_cut(&mut fleet).await;
}

async fn begin_cut<S: Store + Clone>(store: S) -> Fleet<S> {
    let mut fleet = Fleet::new(store, 8).await;
    fleet.roll_out("good").await;
    fleet.publish("cut").await;
    fleet.tick().await;
    fleet.tick().await;
    fleet.request(Request::Start).await.unwrap();
    fleet.control().await.unwrap();
    fleet.tick().await;
    for name in fleet.hosts_of_wave(0) {
        assert_eq!(fleet.states()[name.as_str()].0, State::Enforcing);
        assert!(fleet.kernels[&name].0.lock().unwrap().cuts());
    }
    fleet
}

async fn end_cut<S: Store + Clone>(fleet: &mut Fleet<S>) {
    // The deadline is the kernel's: nobody does anything.
    for kernel in fleet.kernels.values() {
        kernel.0.lock().unwrap().lapse();
    }
    let canary = fleet.hosts_of_wave(0);
    assert_eq!(canary.len(), 2);
    let position = fleet.run().await;
    assert_eq!(position.phase, Phase::Halted, "{}", position.why);
    for name in &canary {
        assert_eq!(fleet.states()[name.as_str()].0, State::Reverted);
        let kernel = fleet.kernels[name].0.lock().unwrap();
        assert_eq!(
            kernel.effective().unwrap(),
            &("good".to_owned(), true),
            "what was enforced before is again"
        );
    }
    for name in fleet.hosts_of_wave(1) {
        assert_eq!(
            fleet.enforced(&name),
            ["good"],
            "the next wave is not touched"
        );
    }
    // It is not tried again, also not by an agent that was started anew.
    let first = canary[0].clone();
    fleet.start(&first).await;
    fleet.tick().await;
    assert_eq!(fleet.enforced(&first), ["good", "cut"]);
}

async fn a_host_that_is_held_stays_as_it_is_until_it_is_let_go<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 4).await;
    portguard_fleet::publish::hold(&fleet.store, "h2", Some(&hold("migration")))
        .await
        .unwrap();
    fleet.publish("one").await;
    fleet.tick().await;
    fleet.tick().await;
    fleet.request(Request::Start).await.unwrap();
    assert_eq!(
        fleet.run().await.phase,
        Phase::Done,
        "a held host holds up nobody"
    );
    assert_eq!(fleet.states()["h2"], (State::Held, "test: migration"));
    assert!(fleet.enforced("h2").is_empty());
    portguard_fleet::publish::hold(&fleet.store, "h2", None)
        .await
        .unwrap();
    // Until it speaks anew it is on its way: nobody who waits for it is told that it is held.
    let mut trust = fleet.trust.clone();
    let found = published(&fleet.store, &mut trust).await.unwrap();
    let seen = view(&fleet.store, &found, now()).await.unwrap();
    assert_eq!(seen["h2"].state, State::Pending);
    fleet.tick().await;
    fleet.tick().await;
    assert_eq!(fleet.states()["h2"].0, State::Confirmed);
    // A hold that is over holds nobody.
    let mut over = hold("old");
    over.until = Some(now());
    portguard_fleet::publish::hold(&fleet.store, "h2", Some(&over))
        .await
        .unwrap();
    fleet.tick().await;
    assert_eq!(fleet.states()["h2"].0, State::Confirmed);
}

async fn the_controller_may_be_killed_at_every_step<S: Store + Clone>(store: S) {
    // `control` begins each time with nothing but the store; here two of them and an operator are at it at once.
    let mut fleet = Fleet::new(store, 8).await;
    fleet.publish("one").await;
    fleet.tick().await;
    fleet.tick().await;
    fleet.request(Request::Start).await.unwrap();
    for after in 0..50 {
        fleet.control_dying(after % 25).await;
        let (mut one, mut two) = (fleet.trust.clone(), fleet.trust.clone());
        let _ = tokio::join!(
            take_step(&fleet.store, &mut one, "one", now()),
            take_step(&fleet.store, &mut two, "two", now()),
        );
        fleet.tick().await;
        if fleet.all_are(State::Confirmed) {
            break;
        }
    }
    assert!(fleet.all_are(State::Confirmed), "{:?}", fleet.states());
    let history = portguard_fleet::follow::history(&fleet.store)
        .await
        .unwrap();
    let steps: Vec<(u32, u32)> = history
        .iter()
        .map(|position| (position.wave, position.open))
        .collect();
    assert!(steps.is_sorted(), "nobody undid another's step: {steps:?}");
}

async fn own_evidence_holds_a_host_back_whatever_the_position_says<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    let spoil = |fleet: &Fleet<S>, change: &dyn Fn(&mut Judgement)| {
        change(&mut fleet.kernels["h0"].0.lock().unwrap().evidence);
    };
    spoil(&fleet, &|judged| judged.would_drop = 3);
    fleet.publish("one").await;
    let mut done = Position::new(1, "forged", now(), "");
    done.phase = Phase::Done;
    fleet
        .store
        .put(layout::POSITION, serde_json::to_vec(&done).unwrap())
        .await
        .unwrap();
    fleet.tick().await;
    fleet.tick().await;
    assert_eq!(fleet.states()["h1"].0, State::Confirmed);
    let (state, why) = fleet.states()["h0"];
    assert_eq!(state, State::Audit);
    assert!(why.contains("would drop 3 flows"), "{why}");
    spoil(&fleet, &|judged| {
        *judged = Judgement {
            closes: vec!["in tcp/443".to_owned()],
            ..Judgement::default()
        }
    });
    fleet.tick().await;
    assert!(fleet.states()["h0"].1.contains("tcp/443"));
    spoil(&fleet, &|judged| *judged = Judgement::default());
    fleet.tick().await;
    assert_eq!(fleet.states()["h0"].0, State::Confirmed);
}

async fn a_host_that_cannot_load_has_failed_and_has_not_gone_back<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 4).await;
    fleet.publish("one").await;
    fleet.tick().await;
    fleet.tick().await;
    for kernel in fleet.kernels.values() {
        kernel.0.lock().unwrap().refuses = true;
    }
    fleet.request(Request::Start).await.unwrap();
    fleet.later = FAILED_SECONDS;
    let position = fleet.run().await;
    assert_eq!(position.phase, Phase::Halted, "{}", position.why);
    assert!(
        position.why.contains("failed (open sessions would be cut)"),
        "{}",
        position.why
    );
    let canary = fleet.hosts_of_wave(0).remove(0);
    assert_eq!(fleet.states()[canary.as_str()].0, State::Ready);
    // Once it can, it does, when somebody lets the rollout go on.
    for kernel in fleet.kernels.values() {
        kernel.0.lock().unwrap().refuses = false;
    }
    fleet.tick().await;
    fleet.request(Request::Resume).await.unwrap();
    assert_eq!(fleet.run().await.phase, Phase::Done);
}

async fn what_is_guarded_by_hand_is_said_and_left_alone<S: Store + Clone>(store: S) {
    let mut fleet = Fleet::new(store, 2).await;
    fleet.plan.wave = vec![Wave::new("all", "*")];
    fleet.kernels["h0"].0.lock().unwrap().by_hand = Some("eth9".to_owned());
    fleet.roll_out("one").await;
    for _ in 0..3 {
        fleet.tick().await;
    }
    assert_eq!(
        fleet.enforced("h0"),
        ["one"],
        "it is swapped once, not on every step"
    );
    let (state, why) = fleet.states()["h0"];
    assert_eq!(state, State::Confirmed);
    assert!(why.contains("eth9"), "{why}");
}
