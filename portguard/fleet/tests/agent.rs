//! Hosts whose kernel is simulated, over real stores: what they do, and what nobody can make them do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portguard_fleet::agent::{Agent, Documents, Guard, Identity, InForce, Judgement};
use portguard_fleet::follow::{ask, published, take_step, view};
use portguard_fleet::publish::publish;
use portguard_fleet::release::{
    Gate, Manifest, Plan, Release, Shard, Target, Trust, Wave, document, pack, pack_small, shards,
};
use portguard_fleet::rollout::control::{Request, Who};
use portguard_fleet::rollout::waves::{Member, assign};
use portguard_fleet::rollout::{Hold, Phase, Position};
use portguard_fleet::status::{HostKey, State};
use portguard_fleet::store::{Compare, Directory, Entry, Op, Snapshot, Store, StoreError, Watch};
use portguard_fleet::{Hash, layout, now};

use crate::support::etcd::Cluster;
use crate::support::sign::{Signers, entry, made};

mod attacks;
mod back;
mod lost;
mod many;
mod rollouts;

/// Each of these over a directory, with a test of its own; and all of them over etcd of one member and of three.
macro_rules! over_every_store {
    ($($name:ident),+ $(,)?) => {
        mod directory {
            $(
                #[tokio::test]
                async fn $name() {
                    let disk = tempfile::tempdir().unwrap();
                    super::$name(crate::agent::directory(disk.path())).await;
                }
            )+
        }

        async fn one_after_the_other(members: usize) {
            let cluster = crate::support::etcd::Cluster::start(members).await;
            let store = cluster.store();
            $(
                println!("{}", stringify!($name));
                crate::agent::empty(&store).await;
                $name(store.clone()).await;
            )+
        }

        #[tokio::test]
        async fn etcd_of_one_member() {
            one_after_the_other(1).await;
        }

        #[tokio::test]
        async fn etcd_of_three_members() {
            one_after_the_other(3).await;
        }
    };
}
use over_every_store;

/// What a kernel does; a site with the word `cut` closes the way to the store when it is enforced.
#[derive(Debug, Default)]
struct Kernel {
    policy: Option<(String, bool)>,
    before: Option<(String, bool)>,
    deadline: Option<Instant>,
    evidence: Judgement,
    enforced: Vec<String>,
    /// Another version of the compiler, or another catalog: the same site compiles to something else.
    is_other: bool,
    /// Interfaces that are guarded besides the one of the fleet.
    by_hand: Option<String>,
    /// The network between this host and the store is gone.
    is_apart: bool,
    /// Loading is refused, as where open sessions would be cut.
    refuses: bool,
}

impl Kernel {
    fn effective(&self) -> Option<&(String, bool)> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.before.as_ref()
        } else {
            self.policy.as_ref()
        }
    }

    /// The deadline passes: the kernel's own doing.
    fn lapse(&mut self) {
        if self.deadline.is_some() {
            self.deadline = Some(Instant::now());
        }
    }

    fn cuts(&self) -> bool {
        self.effective()
            .is_some_and(|(site, enforces)| *enforces && site.contains("cut"))
    }
}

#[derive(Debug, Clone, Default)]
struct Simulated(Arc<Mutex<Kernel>>);

fn digest(site: &str, enforces: bool) -> String {
    Hash::of(format!("{site}{enforces}").as_bytes()).to_string()
}

fn digests(site: &str, enforces: bool) -> BTreeMap<String, String> {
    [("eth0".to_owned(), digest(site, enforces))].into()
}

fn site(documents: &Documents) -> String {
    std::fs::read_to_string(documents.site()).unwrap()
}

impl Simulated {
    /// What somebody guards by hand.
    fn others(&self, interfaces: &[String]) -> Vec<String> {
        let by_hand = self.0.lock().unwrap().by_hand.clone();
        let is_other = |name: &String| !interfaces.is_empty() && !interfaces.contains(name);
        by_hand.into_iter().filter(is_other).collect()
    }
}

impl Guard for Simulated {
    async fn compile(
        &mut self,
        documents: &Documents,
        audit: bool,
    ) -> Result<BTreeMap<String, String>, String> {
        let other = if self.0.lock().unwrap().is_other {
            "other"
        } else {
            ""
        };
        Ok(digests(&(site(documents) + other), !audit))
    }

    async fn in_force(&mut self, interfaces: &[String]) -> Result<InForce, String> {
        let others = self.others(interfaces);
        let kernel = self.0.lock().unwrap();
        let Some((site, enforces)) = &kernel.policy else {
            return Ok(InForce::default());
        };
        Ok(InForce {
            digests: digests(site, *enforces),
            enforces: *enforces,
            is_unconfirmed: kernel.deadline.is_some(),
            has_lapsed: kernel
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline),
            violations: 0,
            others,
        })
    }

    async fn audit(&mut self, documents: &Documents) -> Result<(), String> {
        let mut kernel = self.0.lock().unwrap();
        kernel.policy = Some((site(documents), false));
        kernel.deadline = None;
        Ok(())
    }

    async fn judge(&mut self, _: &Documents, _: &Gate) -> Result<Judgement, String> {
        Ok(self.0.lock().unwrap().evidence.clone())
    }

    async fn enforce(&mut self, documents: &Documents, within: Duration) -> Result<(), String> {
        let mut kernel = self.0.lock().unwrap();
        if kernel.refuses {
            return Err("open sessions would be cut".to_owned());
        }
        kernel.before = kernel.policy.take();
        kernel.policy = Some((site(documents), true));
        kernel.deadline = Some(Instant::now() + within);
        kernel.enforced.push(site(documents));
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), String> {
        let mut kernel = self.0.lock().unwrap();
        if kernel
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err("too late".to_owned());
        }
        kernel.deadline = None;
        Ok(())
    }
}

/// A store, as long as one gets through to it.
#[derive(Clone)]
struct Through<S> {
    store: S,
    pass: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl<S> Through<S> {
    /// As a host sees it through its own kernel.
    fn kernel(store: S, kernel: &Simulated) -> Self {
        let kernel = kernel.clone();
        let pass = move || {
            let kernel = kernel.0.lock().unwrap();
            !kernel.cuts() && !kernel.is_apart
        };
        Self {
            store,
            pass: Arc::new(pass),
        }
    }

    /// As somebody sees it who dies after so many requests.
    fn dying(store: S, after: usize) -> Self {
        let left = Mutex::new(after);
        let pass = move || {
            let mut left = left.lock().unwrap();
            *left = left.saturating_sub(1);
            *left > 0
        };
        Self {
            store,
            pass: Arc::new(pass),
        }
    }

    fn pass(&self) -> Result<(), StoreError> {
        if (self.pass)() {
            Ok(())
        } else {
            Err(StoreError::Unreachable("cut".to_owned()))
        }
    }
}

impl<S: Store> Store for Through<S> {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.pass()?;
        self.store.get(key).await
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        self.pass()?;
        self.store.page(prefix, after).await
    }

    async fn commit(&self, compares: &[Compare], ops: &[Op]) -> Result<bool, StoreError> {
        self.pass()?;
        let done = self.store.commit(compares, ops).await;
        // Also where it was carried out, and nobody lives to hear of it.
        self.pass()?;
        done
    }

    async fn lease(
        &self,
        key: &str,
        value: &[u8],
        seconds: u64,
        only_if_mine: bool,
    ) -> Result<bool, StoreError> {
        self.pass()?;
        self.store.lease(key, value, seconds, only_if_mine).await
    }

    async fn release(&self, key: &str) -> Result<(), StoreError> {
        self.pass()?;
        self.store.release(key).await
    }

    async fn watch(&self, keys: &[String]) -> Result<Watch, StoreError> {
        self.store.watch(keys).await
    }

    async fn reconnect(&self) -> Result<(), StoreError> {
        self.pass()?;
        self.store.reconnect().await
    }
}

type Host<S> = Agent<Through<S>, Simulated>;

/// A fleet over a store.
struct Fleet<S> {
    store: S,
    signers: Signers,
    trust: Trust,
    keys: BTreeMap<String, String>,
    hosts: BTreeMap<String, Host<S>>,
    kernels: BTreeMap<String, Simulated>,
    controller: Trust,
    plan: Plan,
    last: Option<(Manifest, Release)>,
    directory: tempfile::TempDir,
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
    async fn new(store: S, count: usize) -> Self {
        Self::new_in(store, count, &std::env::temp_dir()).await
    }

    async fn new_in(store: S, count: usize, disks: &Path) -> Self {
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
            directory: tempfile::tempdir_in(disks).unwrap(),
        };
        for number in 0..count {
            fleet.enroll(&format!("h{number}")).await;
        }
        fleet
    }

    async fn enroll(&mut self, name: &str) {
        self.keys
            .insert(name.to_owned(), HostKey::generate().unwrap());
        self.kernels.insert(name.to_owned(), Simulated::default());
        self.start(name).await;
    }

    /// Starts a host's agent (again).
    async fn start(&mut self, name: &str) {
        let kernel = self.kernels[name].clone();
        let identity = Identity {
            host: name.to_owned(),
            key: self.key(name),
            directory: self.directory.path().join(name),
            tool: "0.1.0".to_owned(),
            evidence_seconds: 0,
        };
        let store = Through::kernel(self.store.clone(), &kernel);
        let agent = Agent::begin(identity, store, kernel, self.trust.clone())
            .await
            .unwrap();
        self.hosts.insert(name.to_owned(), agent);
    }

    fn key(&self, name: &str) -> HostKey {
        HostKey::parse(&self.keys[name], "test").unwrap()
    }

    fn shard(&self, site: &str) -> Shard {
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
                entry.key = Some(self.key(host).public());
                entry.wave = u32::try_from(wave).unwrap();
                entry.turn = u32::try_from(turn).unwrap();
                shard.insert((*host).to_owned(), entry);
            }
        }
        shard
    }

    /// Signs a release with this site.
    fn sign(
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

    async fn publish(&mut self, site: &str) {
        self.publish_with(site, |_| {}).await;
    }

    async fn publish_with(&mut self, site: &str, change: impl FnOnce(&mut Manifest)) {
        let (manifest, release, chunks) = self.sign(site, change);
        let position = Position::new(manifest.serial, "test", now(), "published");
        publish(&self.store, &release, &manifest, &chunks, &position)
            .await
            .unwrap();
        self.last = Some((manifest, release));
    }

    async fn snapshot(&self, host: &str) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for key in self.hosts[host].keys() {
            snapshot.push(self.store.get(&key).await.unwrap());
        }
        snapshot
    }

    /// Each host takes a step, by what the store says now.
    async fn tick(&mut self) {
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        for name in names {
            self.tick_one(&name).await;
        }
    }

    async fn tick_one(&mut self, name: &str) {
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

    async fn request(&mut self, what: Request) -> Result<Position, String> {
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
    async fn control(&mut self) -> Result<Position, String> {
        self.controller = self.trust.clone();
        take_step(&self.store, &mut self.controller, "controller", now())
            .await
            .unwrap()
    }

    /// The same by one that dies after so many requests; whether it lived.
    async fn control_dying(&self, after: usize) -> bool {
        let store = Through::dying(self.store.clone(), after);
        let mut trust = self.trust.clone();
        take_step(&store, &mut trust, "dying", now()).await.is_ok()
    }

    /// Until the rollout stands.
    async fn run(&mut self) -> Position {
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

    fn states(&self) -> BTreeMap<&str, (State, &str)> {
        self.hosts
            .iter()
            .map(|(name, host)| (name.as_str(), host.state()))
            .collect()
    }

    fn enforced(&self, name: &str) -> Vec<String> {
        self.kernels[name].0.lock().unwrap().enforced.clone()
    }

    fn all_are(&self, state: State) -> bool {
        self.states().values().all(|(one, _)| *one == state)
    }

    fn hosts_of_wave(&self, wave: u32) -> Vec<String> {
        let shard = self.shard("");
        shard
            .into_iter()
            .filter(|(_, entry)| entry.wave == wave)
            .map(|(name, _)| name)
            .collect()
    }

    /// A whole good rollout.
    async fn roll_out(&mut self, site: &str) {
        self.publish(site).await;
        self.tick().await;
        self.tick().await;
        self.request(Request::Start).await.unwrap();
        let position = self.run().await;
        assert_eq!(position.phase, Phase::Done, "{:?}", self.states());
        assert!(self.all_are(State::Confirmed), "{:?}", self.states());
    }
}

/// As if nothing had been there.
async fn empty(store: &impl Store) {
    let keys = store.list("").await.unwrap().into_iter();
    let ops: Vec<Op> = keys.map(|entry| Op::Delete(entry.key)).collect();
    for some in ops.chunks(100) {
        store.commit(&[], some).await.unwrap();
    }
}

fn directory(path: &Path) -> Directory {
    Directory::new(path).every(Duration::from_millis(20))
}

fn hold(because: &str) -> Hold {
    Hold {
        because: because.to_owned(),
        by: "test".to_owned(),
        at: now(),
        until: None,
    }
}
