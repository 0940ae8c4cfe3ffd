//! A fleet of simulated hosts over a store.

use super::*;

type Host<S> = Agent<Through<S>, Simulated>;

/// A fleet over a store.
pub(super) struct Fleet<S> {
    pub(super) store: S,
    pub(super) signers: Signers,
    pub(super) trust: Trust,
    pub(super) keys: BTreeMap<String, String>,
    pub(super) hosts: BTreeMap<String, Host<S>>,
    pub(super) kernels: BTreeMap<String, Simulated>,
    pub(super) controller: Trust,
    pub(super) plan: Plan,
    pub(super) last: Option<(Manifest, Release)>,
    pub(super) directory: tempfile::TempDir,
    /// How long a host waits before it looks again at what it refused.
    pub(super) retry: Duration,
    /// Whether the site has everybody audit.
    pub(super) audits: bool,
    /// So much later the controller looks, in seconds.
    pub(super) later: u64,
}

/// One canary and the rest; what is watched for is nothing, so that tests need not wait.
fn plan() -> Plan {
    Plan {
        wave: vec![Wave::new("canary", "*").percent(25), Wave::new("rest", "*")],
        gate: Gate {
            audit: 0,
            // Long for the slowest machine: where a deadline is to pass, the test lets it.
            confirm: 600,
            ..Gate::default()
        },
    }
}

impl<S: Store + Clone> Fleet<S> {
    pub(super) async fn new(store: S, count: usize) -> Self {
        Self::new_in(store, count, &std::env::temp_dir()).await
    }

    pub(super) async fn new_in(store: S, count: usize, disks: &Path) -> Self {
        let signers = Signers::new(2);
        let trust = Trust::new("test", signers.keys(1, 2));
        let mut fleet = Self {
            store,
            controller: trust.clone(),
            trust,
            signers,
            keys: BTreeMap::new(),
            hosts: BTreeMap::new(),
            kernels: BTreeMap::new(),
            plan: plan(),
            last: None,
            retry: Duration::ZERO,
            audits: false,
            later: 0,
            directory: tempfile::tempdir_in(disks).unwrap(),
        };
        for number in 0..count {
            fleet.enroll(&format!("h{number}")).await;
        }
        fleet
    }

    pub(super) async fn enroll(&mut self, name: &str) {
        self.keys
            .insert(name.to_owned(), HostKey::generate().unwrap());
        self.kernels.insert(name.to_owned(), Simulated::default());
        self.start(name).await;
    }

    /// Starts a host's agent (again).
    pub(super) async fn start(&mut self, name: &str) {
        let kernel = self.kernels[name].clone();
        let identity = Identity {
            host: name.to_owned(),
            key: self.key(name),
            directory: self.directory.path().join(name),
            tool: "0.1.0".to_owned(),
            evidence_seconds: 0,
            retry: self.retry,
        };
        let store = Through::kernel(self.store.clone(), &kernel);
        let agent = Agent::begin(identity, store, kernel, self.trust.clone())
            .await
            .unwrap();
        self.hosts.insert(name.to_owned(), agent);
    }

    pub(super) fn key(&self, name: &str) -> HostKey {
        HostKey::parse(&self.keys[name], "test").unwrap()
    }

    pub(super) fn shard(&self, site: &str) -> Shard {
        let members: Vec<Member> = self
            .keys
            .keys()
            .map(|name| Member::new(name, "", &["thoughtspot/node"]))
            .collect();
        let waves = assign(&self.plan, &members).unwrap();
        let mut shard = Shard::new();
        for (wave, hosts) in waves.iter().enumerate() {
            for (turn, host) in hosts.iter().enumerate() {
                let mut entry = entry("");
                entry.digests = digests(site, true);
                entry.enforce = !self.audits;
                entry.key = Some(self.key(host).public());
                entry.wave = u32::try_from(wave).unwrap();
                entry.turn = u32::try_from(turn).unwrap();
                shard.insert((*host).to_owned(), entry);
            }
        }
        shard
    }

    /// Signs a release with this site.
    pub(super) fn sign(
        &self,
        site: &str,
        change: impl FnOnce(&mut Manifest),
    ) -> (Manifest, Release, Vec<(Hash, Vec<u8>)>) {
        let serial = self.last.as_ref().map_or(1, |(last, _)| last.serial + 1);
        let mut manifest = made(serial, self.trust.keys.clone(), Shard::new()).manifest;
        let mut chunks = Vec::new();
        manifest.objects.clear();
        for (name, text) in [(document::SITE, site), (document::FROZEN, "{}")] {
            let packed = pack(text.as_bytes()).unwrap();
            manifest.objects.insert(name.to_owned(), packed.object);
            chunks.extend(packed.chunks);
        }
        manifest.hosts.clear();
        for shard in shards(self.shard(site)) {
            let (hash, chunk) = pack_small(&serde_json::to_vec(&shard).unwrap()).unwrap();
            manifest.hosts.push(hash.clone());
            chunks.push((hash, chunk));
        }
        manifest.plan = self.plan.clone();
        manifest.rollback_to = self.last.as_ref().map(|(last, release)| Target {
            serial: last.serial,
            sha256: Hash::of(release.manifest.as_bytes()),
        });
        change(&mut manifest);
        let release = self.signers.sign(&manifest, &[0, 1]);
        (manifest, release, chunks)
    }

    pub(super) async fn publish(&mut self, site: &str) {
        self.publish_with(site, |_| {}).await;
    }

    pub(super) async fn publish_with(&mut self, site: &str, change: impl FnOnce(&mut Manifest)) {
        let (manifest, release, chunks) = self.sign(site, change);
        let position = Position::new(manifest.serial, "test", now(), "published");
        publish(&self.store, &release, &manifest, &chunks, &position, false)
            .await
            .unwrap();
        self.last = Some((manifest, release));
    }

    pub(super) async fn snapshot(&self, host: &str) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for key in self.hosts[host].keys() {
            snapshot.push(self.store.get(&key).await.unwrap());
        }
        snapshot
    }

    /// Each host takes a step, by what the store says now.
    pub(super) async fn tick(&mut self) {
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        for name in names {
            self.tick_one(&name).await;
        }
    }

    pub(super) async fn tick_one(&mut self, name: &str) {
        let is_alone = {
            let kernel = self.kernels[name].0.lock().unwrap();
            kernel.cuts() || kernel.is_apart
        };
        if is_alone {
            // It cannot hear the store: only what it does by itself happens.
            self.hosts.get_mut(name).unwrap().alone("cut").await;
            return;
        }
        let snapshot = self.snapshot(name).await;
        let _ = self.hosts.get_mut(name).unwrap().step(&snapshot).await;
    }

    /// The same by a process that dies when its fuse says so, alone or with its machine, and is started again; whether it died.
    pub(super) async fn tick_mortal(&mut self, name: &str, with_the_machine: bool) -> bool {
        let kernel = self.kernels[name].clone();
        let died = tokio::select! {
            biased;
            () = kernel.1.blown() => true,
            () = self.tick_one(name) => false,
        };
        if died {
            if with_the_machine {
                kernel.0.lock().unwrap().boot();
            }
            self.start(name).await;
        }
        died
    }

    pub(super) async fn request(&mut self, what: Request) -> Result<Position, String> {
        let who = Who {
            by: "test",
            at: now(),
            why: "asked",
        };
        ask(&self.store, &mut self.controller, what, None, &who)
            .await
            .map_err(|error| error.to_string())
    }

    /// One step of a controller that knows nothing but what is in the store.
    pub(super) async fn control(&mut self) -> Result<Position, String> {
        self.controller = self.trust.clone();
        let at = now() + self.later;
        take_step(&self.store, &mut self.controller, "controller", at)
            .await
            .unwrap()
    }

    /// The same by one that dies after so many requests; whether it lived.
    pub(super) async fn control_dying(&self, after: usize) -> bool {
        let store = Through::dying(self.store.clone(), after);
        let mut trust = self.trust.clone();
        take_step(&store, &mut trust, "dying", now()).await.is_ok()
    }

    /// Until the rollout stands.
    pub(super) async fn run(&mut self) -> Position {
        for _ in 0..200 {
            self.tick().await;
            while let Ok(position) = self.control().await {
                if position.phase != Phase::Running {
                    self.tick().await;
                    return position;
                }
            }
        }
        panic!("the rollout never stands: {:?}", self.states());
    }

    pub(super) fn states(&self) -> BTreeMap<&str, (State, &str)> {
        self.hosts
            .iter()
            .map(|(name, host)| (name.as_str(), host.state()))
            .collect()
    }

    pub(super) fn enforced(&self, name: &str) -> Vec<String> {
        self.kernels[name].0.lock().unwrap().enforced.clone()
    }

    pub(super) fn all_are(&self, state: State) -> bool {
        self.states().values().all(|(one, _)| *one == state)
    }

    pub(super) fn hosts_of_wave(&self, wave: u32) -> Vec<String> {
        let shard = self.shard("");
        shard
            .into_iter()
            .filter(|(_, entry)| entry.wave == wave)
            .map(|(name, _)| name)
            .collect()
    }

    /// A whole good rollout.
    pub(super) async fn roll_out(&mut self, site: &str) {
        self.publish(site).await;
        self.tick().await;
        self.tick().await;
        self.request(Request::Start).await.unwrap();
        let position = self.run().await;
        assert_eq!(position.phase, Phase::Done, "{:?}", self.states());
        assert!(self.all_are(State::Confirmed), "{:?}", self.states());
    }
}
