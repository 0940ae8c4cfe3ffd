//! The controller dies at its first request, at its second, and so on, in every step that a rollout has.

use super::*;

/// What a whole life of a rollout goes through, as its history tells it.
const STEPS: [&str; 9] = [
    "asked",
    "hosts may enforce",
    "is done",
    "begins",
    "in trouble",
    "all hosts are back",
    "running",
    "halted",
    "rolled-back",
];

/// A rollout whose controllers die, with all that must hold whenever they do.
struct Life<S> {
    fleet: Fleet<S>,
    /// Of the release that is rolled out.
    site: &'static str,
    /// What the next release goes back to, if not to the one before.
    way_back: Option<Target>,
    /// So many requests more each time.
    stride: usize,
    killed: usize,
}

impl<S: Store + Clone> Life<S> {
    /// The next step of the rollout, if one is due, by one controller after the other: each dies a little later than the one
    /// before, until one lives.
    async fn step(&mut self) -> Option<Position> {
        let first = self.position().await;
        for after in (0..100).step_by(self.stride) {
            let before = self.position().await;
            let store = Through::dying(self.fleet.store.clone(), after);
            let mut trust = self.fleet.trust.clone();
            let at = now() + self.fleet.later;
            let result = take_step(&store, &mut trust, "dying", at).await;
            let there = self.position().await;
            self.holds(&before, &there).await;
            if result.is_ok() {
                return (there != first).then_some(there);
            }
            self.killed += 1;
        }
        panic!("no controller ever gets through");
    }

    /// The same of somebody who asks for something, who asks again until it is so.
    async fn ask(&mut self, what: Request, wanted: Phase) {
        for after in (0..100).step_by(self.stride) {
            let store = Through::dying(self.fleet.store.clone(), after);
            let mut trust = self.fleet.trust.clone();
            let who = Who {
                by: "test",
                at: now(),
                why: "asked",
            };
            if ask(&store, &mut trust, what, None, &who).await.is_err() {
                self.killed += 1;
            }
            if self.position().await.phase == wanted {
                return;
            }
        }
        panic!("nobody ever gets through");
    }

    async fn position(&self) -> Position {
        let entry = self.fleet.store.get(layout::POSITION).await.unwrap();
        serde_json::from_slice(&entry.unwrap().value).unwrap()
    }

    /// One step or none was made; and nobody enforces whose turn has not come.
    async fn holds(&mut self, before: &Position, there: &Position) {
        let moved = u32::from(there.wave != before.wave) + u32::from(there.phase != before.phase);
        let opened = u32::from(there.wave == before.wave && there.open != before.open);
        assert!(moved + opened <= 1, "{before:?} -> {there:?}");
        self.fleet.tick().await;
        let is_over = there.phase == Phase::Done || there.phase.is_back();
        for (name, entry) in self.fleet.shard("") {
            let has_it = self
                .fleet
                .enforced(&name)
                .iter()
                .any(|site| site == self.site);
            let had_turn = is_over || (entry.wave, entry.turn) < (there.wave, there.open);
            assert!(had_turn || !has_it, "{name} is early: {there:?}");
        }
    }

    /// Until the rollout stands.
    async fn run(&mut self) -> Position {
        for _ in 0..200 {
            self.fleet.tick().await;
            if let Some(position) = self.step().await
                && position.phase != Phase::Running
            {
                return position;
            }
        }
        panic!("it never stands: {:?}", self.fleet.states());
    }
}

/// A good release; one that cuts the store, which halts, is resumed, and halts again; a third, and back from it.
/// `disturb` is called between them.
async fn live<S: Store + Clone>(
    store: S,
    stride: usize,
    mut disturb: impl AsyncFnMut(usize),
) -> usize {
    let mut fleet = Fleet::new(store, 4).await;
    fleet.later = FAILED_SECONDS;
    let mut life = Life {
        fleet,
        site: "",
        way_back: None,
        stride,
        killed: 0,
    };
    let begin = async |life: &mut Life<S>, site: &'static str| {
        life.site = site;
        let way_back = life.way_back.clone();
        life.fleet
            .publish_with(site, |manifest| {
                manifest.rollback_to = way_back.or(manifest.rollback_to.take());
            })
            .await;
        life.fleet.tick().await;
        life.ask(Request::Start, Phase::Running).await;
    };
    begin(&mut life, "good").await;
    let (manifest, release) = life.fleet.last.clone().unwrap();
    let good = Target {
        serial: manifest.serial,
        sha256: Hash::of(release.manifest.as_bytes()),
    };
    disturb(0).await;
    assert_eq!(life.run().await.phase, Phase::Done);
    assert!(
        life.fleet.all_are(State::Confirmed),
        "{:?}",
        life.fleet.states()
    );

    begin(&mut life, "cut").await;
    let opened = life.step().await.unwrap();
    assert_eq!(opened.open, 1, "{}", opened.why);
    life.fleet.tick().await;
    for kernel in life.fleet.kernels.values() {
        kernel.0.lock().unwrap().lapse();
    }
    disturb(1).await;
    assert_eq!(life.run().await.phase, Phase::Halted);
    life.ask(Request::Resume, Phase::Running).await;
    assert_eq!(life.run().await.phase, Phase::Halted, "it has not healed");
    let canary = life.fleet.hosts_of_wave(0).remove(0);
    for name in life.fleet.keys.keys() {
        let wanted: &[&str] = if *name == canary {
            &["good", "cut"]
        } else {
            &["good"]
        };
        assert_eq!(life.fleet.enforced(name), wanted);
    }

    // Nobody goes back to what cut the store: the publishers name the one before.
    life.way_back = Some(good);
    begin(&mut life, "third").await;
    disturb(2).await;
    assert_eq!(life.run().await.phase, Phase::Done);
    life.ask(Request::Rollback, Phase::RollingBack).await;
    disturb(3).await;
    life.fleet.tick().await;
    assert_eq!(life.step().await.unwrap().phase, Phase::RolledBack);
    assert!(
        life.fleet.all_are(State::Reverted),
        "{:?}",
        life.fleet.states()
    );

    let events = portguard_fleet::follow::history(&life.fleet.store)
        .await
        .unwrap();
    for step in STEPS {
        let is_it = |event: &Position| event.why.contains(step) || event.phase.name() == step;
        assert!(events.iter().any(is_it), "{step}: {events:#?}");
    }
    life.killed
}

#[tokio::test]
async fn the_controller_is_killed_at_every_request_of_every_step() {
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    let killed = live(directory(disk.path()), 1, async |_| {}).await;
    println!("killed {killed} times");
    assert!(killed > 100, "{killed}");
}

#[tokio::test]
async fn the_controller_is_killed_at_every_request_of_every_step_and_so_is_etcds_leader() {
    let mut cluster = Cluster::start(3).await;
    let store = cluster.store();
    let mut gone = None;
    let killed = live(store, 3, async |_| {
        // The one that led before comes back, and the one that leads now goes.
        if let Some(member) = gone {
            cluster.run(member);
            cluster.wait().await;
        }
        let leader = cluster.leader();
        cluster.kill(leader);
        gone = Some(leader);
        cluster.wait().await;
    })
    .await;
    assert!(killed > 30, "{killed}");
}
