//! `portguard fleet plan`: compiles every host, cuts the waves, and writes what is to be signed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use portguard_fleet::release::{
    HostEntry, MAX_OBJECT, Manifest, PlanError, SCHEMA, Shard, Target, document, pack, pack_small,
    shards,
};
use portguard_fleet::rollout::follow::{FollowError, Published, published};
use portguard_fleet::rollout::waves::{Member, assign};
use portguard_fleet::store::Address;
use portguard_fleet::{Hash, layout, now};
use portguard_kernel::host::resolve;
use portguard_policy::catalog::Transport;
use portguard_policy::compile::{self, Selection};
use portguard_policy::diagnostic::{Diagnostic, Level, Rejected};
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::{bytes, grouped};
use portguard_policy::policy::{GrantKind, Outbound, Peers, Policy};
use serde::Serialize;

use super::project::{Project, ProjectArgs, eprint_line, seconds, write};
use super::sign::{CHUNKS, MANIFEST};
use super::{block_on, follow_fault};
use crate::command::selection::{Frozen, Loaded, Resolving, SelectionArgs};
use crate::command::{print, print_json};

/// Hosts that are named; the rest is counted.
const NAMED: usize = 5;

/// Compile every host, cut the waves, and write the release that is to be signed
///
/// Refuses what does not compile, what leaves a host out of the waves, and what would cut a host from the store or from
/// its management.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Plan it although it cuts hosts from the store or from management: their kernels go back by themselves
    #[arg(long)]
    force: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Show which hosts the planned release changes
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Serialize)]
struct Planned {
    schema: u32,
    serial: u64,
    hosts: usize,
    enforcing: usize,
    not_enrolled: Vec<String>,
    changed: usize,
    added: usize,
    removed: usize,
    waves: Vec<PlannedWave>,
    rollback_to: Option<u64>,
    bytes: u64,
    compile_milliseconds: u64,
}

#[derive(Debug, Serialize)]
struct PlannedWave {
    name: String,
    hosts: usize,
    first: Vec<String>,
}

/// Plans.
pub(super) fn run(args: &PlanArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let before = look(&project)?;
    let documents = stage(&project)?;
    let tree = project.next().join("tree");
    let loaded = SelectionArgs {
        config: Some(tree.join(document::SITE)),
        frozen: Some(tree.join(document::FROZEN)),
        ..SelectionArgs::default()
    }
    .load(Resolving::WhenTold)?;
    let begun = std::time::Instant::now();
    let endpoints = endpoints(&project.address()?)?;
    let mut hosts = compile_all(&project, &loaded, &endpoints, args.force)?;
    let took = begun.elapsed();
    let waves = waves(&project, &mut hosts)?;
    let manifest = manifest(&project, before.as_ref(), &documents, hosts.clone())?;
    let size = save(&project, &manifest)?;
    let (changed, added, removed) = differences(before.as_ref(), &hosts);
    let planned = Planned {
        schema: 1,
        serial: manifest.serial,
        hosts: hosts.len(),
        enforcing: hosts.values().filter(|host| host.enforce).count(),
        not_enrolled: hosts
            .iter()
            .filter(|(_, host)| host.key.is_none())
            .map(|(name, _)| name.clone())
            .collect(),
        changed: changed.len(),
        added: added.len(),
        removed: removed.len(),
        waves,
        rollback_to: manifest.rollback_to.as_ref().map(|to| to.serial),
        bytes: size,
        compile_milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    };
    if args.json {
        print_json(&planned)?;
    } else {
        text(&planned)?;
    }
    Ok(Exit::Ok)
}

fn text(planned: &Planned) -> anyhow::Result<()> {
    print(|out| {
        writeln!(
            out,
            "release {}: {} hosts, of which {} enforce; {} changed, {} new, {} gone",
            planned.serial,
            grouped(planned.hosts as u64),
            grouped(planned.enforcing as u64),
            planned.changed,
            planned.added,
            planned.removed
        )?;
        for wave in &planned.waves {
            writeln!(
                out,
                "  wave {:<12} {:>6} hosts: {} ...",
                wave.name,
                wave.hosts,
                wave.first.join(", ")
            )?;
        }
        match planned.rollback_to {
            Some(serial) => writeln!(out, "  rollback     to release {serial}")?,
            None => writeln!(out, "  rollback     to none: there is no release before")?,
        }
        writeln!(out, "  size         {}", bytes(planned.bytes))?;
        if let Some(first) = planned.not_enrolled.first() {
            writeln!(
                out,
                "  warning: {} hosts are not enrolled and cannot report, among them {first}",
                planned.not_enrolled.len()
            )?;
        }
        writeln!(out, "next: `portguard fleet sign`, then `apply`")
    })
}

/// What is published now, if anything is.
fn look(project: &Project) -> anyhow::Result<Option<Published>> {
    let store = project.store()?;
    let mut trust = project.trust()?;
    block_on(async {
        match published(&store, &mut trust).await {
            Ok(found) => Ok(Some(found)),
            Err(FollowError::Empty) => Ok(None),
            Err(error) => Err(follow_fault(&error).into()),
        }
    })
    .and_then(|found| {
        project.keep_trust(&trust)?;
        Ok(found)
    })
}

/// Copies the site and all that it refers to, as hosts will have it.
fn stage(project: &Project) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let next = project.next();
    if next.exists() {
        fs::remove_dir_all(&next).with_context(|| format!("cannot remove {}", next.display()))?;
    }
    let site = project.directory.join(&project.config.site);
    let loaded = SelectionArgs {
        config: Some(site.clone()),
        ..SelectionArgs::default()
    }
    .load(Resolving::WhenTold)?;
    let base = site.parent().unwrap_or(Path::new(""));
    let mut documents = BTreeMap::new();
    documents.insert(document::SITE.to_owned(), read(&site)?);
    for name in loaded.site.files() {
        documents.insert(name.to_owned(), read(&base.join(name))?);
    }
    for directory in &loaded.site.catalogs {
        let path = base.join(directory);
        let entries =
            fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries.flatten() {
            let file = entry.path();
            if file.extension().is_some_and(|end| end == "toml") {
                let name = entry.file_name().to_string_lossy().into_owned();
                let name = format!("{}/{name}", directory.trim_end_matches('/'));
                documents.insert(name, read(&file)?);
            }
        }
    }
    let frozen = serde_json::to_vec(&frozen(loaded)?)?;
    documents.insert(document::FROZEN.to_owned(), frozen);
    for (name, content) in &documents {
        if !layout::is_key(name) {
            return Err(Fault::usage(format!("`{name}` cannot be part of a release"))
                .hint("put it below the site file's directory, by a name of letters, digits, `.`, `-` and `_`")
                .into());
        }
        write(&next.join("tree").join(name), content)?;
    }
    Ok(documents)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let size = fs::metadata(path).map(|meta| meta.len());
    let size = size.map_err(|error| Fault::usage(format!("cannot read {shown}: {error}")))?;
    if size > MAX_OBJECT {
        return Err(
            Fault::usage(format!("{shown}: {size} bytes are more than {MAX_OBJECT}")).into(),
        );
    }
    fs::read(path).with_context(|| format!("cannot read {shown}"))
}

/// The names of all hosts, resolved once and here.
fn frozen(mut loaded: Loaded) -> anyhow::Result<Frozen> {
    let names: Vec<String> = loaded
        .site
        .hosts
        .iter()
        .map(|host| host.name.clone())
        .collect();
    let mut domains = BTreeSet::new();
    for name in names {
        loaded.host = Selection::Name(name);
        domains.extend(compile::domains(&loaded.inputs(None)));
    }
    let mut frozen = loaded.frozen();
    if !domains.is_empty() {
        let (resolved, failures) = resolve::once(domains, None)?;
        if let Some((name, why)) = failures.into_iter().next() {
            return Err(
                Fault::system(format!("domain {name} does not resolve: {why}"))
                    .hint(
                        "a release has the answers of its day; agents follow the names from there",
                    )
                    .into(),
            );
        }
        frozen.resolved = resolved;
    }
    Ok(frozen)
}

/// All hosts of the site, on all processors; the documents are parsed once.
fn compile_all(
    project: &Project,
    loaded: &Loaded,
    endpoints: &[SocketAddr],
    force: bool,
) -> anyhow::Result<Shard> {
    let names: Vec<&str> = loaded
        .site
        .hosts
        .iter()
        .map(|host| host.name.as_str())
        .collect();
    if names.is_empty() {
        return Err(Fault::usage("the site has no `[[host]]`").into());
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let each = names.len().div_ceil(workers);
    let compiled: anyhow::Result<Vec<Shard>> = std::thread::scope(|scope| {
        let workers: Vec<_> = names
            .chunks(each)
            .map(|names| {
                let mut loaded = loaded.clone();
                scope.spawn(move || {
                    let mut shard = Shard::new();
                    for name in names {
                        let entry = compile_one(project, &mut loaded, name, endpoints, force)?;
                        shard.insert((*name).to_owned(), entry);
                    }
                    Ok(shard)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    Ok(compiled?.into_iter().flatten().collect())
}

fn compile_one(
    project: &Project,
    loaded: &mut Loaded,
    name: &str,
    endpoints: &[SocketAddr],
    force: bool,
) -> anyhow::Result<HostEntry> {
    if !layout::is_name(name) {
        return Err(
            Fault::usage(format!("host `{name}` cannot be part of a fleet"))
                .hint("letters, digits, `.`, `-` and `_`")
                .into(),
        );
    }
    loaded.host = Selection::Name(name.to_owned());
    let named: Vec<String> = loaded
        .site
        .host(name)
        .iter()
        .flat_map(|host| host.interfaces.keys().cloned())
        .collect();
    let interfaces = match (&project.config.interface, named.is_empty()) {
        (_, false) => named,
        (Some(interface), true) => vec![interface.clone()],
        (None, true) => {
            return Err(Fault::usage(format!("host `{name}`: which interface?"))
                .hint("name some in the site, or one for all in fleet.toml: `interface = \"eth0\"`")
                .into());
        }
    };
    let mut entry = HostEntry {
        roles: Vec::new(),
        zone: String::new(),
        labels: BTreeMap::new(),
        key: project.host_key(name),
        digests: BTreeMap::new(),
        enforce: false,
        wave: 0,
        turn: 0,
    };
    if let Some(host) = project.config.hosts.get(name) {
        entry.zone.clone_from(&host.zone);
        entry.labels.clone_from(&host.labels);
    }
    for interface in interfaces {
        let compiled = loaded.compile(Some(&interface));
        let errors: Vec<Diagnostic> = compiled
            .diagnostics
            .into_iter()
            .filter(|one| one.level == Level::Error)
            .collect();
        if !errors.is_empty() {
            eprint_line(&format!("host `{name}`, interface `{interface}`:"));
            return Err(Rejected(errors).into());
        }
        let policy = compiled.policy;
        for cut in cuts(&policy, endpoints) {
            if !force {
                return Err(
                    Fault::usage(format!("host `{name}`, interface `{interface}`: {cut}"))
                        .hint(
                            "add a row to the site that admits it; `--force` plans it all the same",
                        )
                        .into(),
                );
            }
            eprint_line(&format!(
                "warning: host `{name}`, interface `{interface}`: {cut}"
            ));
        }
        entry.enforce |= policy.settings.enforce;
        entry.roles.extend(policy.roles.iter().cloned());
        entry.digests.insert(interface, policy.digest());
    }
    entry.roles.sort_unstable();
    entry.roles.dedup();
    Ok(entry)
}

/// What a policy would keep a host from that it cannot do without.
fn cuts(policy: &Policy, endpoints: &[SocketAddr]) -> Vec<String> {
    let mut cuts = Vec::new();
    let settings = &policy.settings;
    if settings.enforce
        && !policy
            .inbound
            .iter()
            .any(|rule| rule.kind == GrantKind::Management)
    {
        cuts.push("enforces without any management access".to_owned());
    }
    let admits = |endpoint: &SocketAddr| {
        policy.outbound.iter().any(|rule| {
            rule.transport == Transport::Tcp
                && (rule.first..=rule.last).contains(&endpoint.port())
                && match rule.peers {
                    Peers::Any => true,
                    Peers::Set(index) => policy
                        .sets
                        .get(usize::try_from(index).unwrap_or(usize::MAX))
                        .is_some_and(|set| {
                            set.prefixes.iter().any(|net| net.contains(&endpoint.ip()))
                        }),
                }
        })
    };
    if settings.outbound == Outbound::Enforce {
        let closed = endpoints.iter().filter(|endpoint| !admits(endpoint));
        cuts.extend(closed.map(|endpoint| format!("cuts the way to the store at tcp {endpoint}")));
    }
    cuts
}

/// Where hosts reach the store.
fn endpoints(address: &Address) -> anyhow::Result<Vec<SocketAddr>> {
    let hosts = match address {
        Address::Directory(_) => Vec::new(),
        Address::Etcd(hosts) => hosts.clone(),
        Address::Https(url) => {
            let host = url
                .trim_start_matches("https://")
                .split('/')
                .next()
                .unwrap_or_default();
            let has_port = host.rsplit(']').next().unwrap_or(host).contains(':');
            vec![if has_port {
                host.to_owned()
            } else {
                format!("{host}:443")
            }]
        }
    };
    let mut found = Vec::new();
    for host in hosts {
        let addresses = host
            .to_socket_addrs()
            .map_err(|error| Fault::system(format!("the store's `{host}`: {error}")))?;
        found.extend(addresses);
    }
    Ok(found)
}

/// Gives every host its wave and its turn.
fn waves(project: &Project, hosts: &mut Shard) -> anyhow::Result<Vec<PlannedWave>> {
    let members: Vec<Member> = hosts
        .iter()
        .map(|(name, entry)| Member {
            name: name.clone(),
            zone: entry.zone.clone(),
            roles: entry.roles.clone(),
            labels: entry.labels.clone(),
        })
        .collect();
    let plan = project.plan();
    let assigned = assign(&plan, &members)
        .map_err(|PlanError(why)| Fault::usage(why).hint("see `[[wave]]` in fleet.toml"))?;
    let mut waves = Vec::new();
    for (index, (wave, names)) in plan.wave.iter().zip(&assigned).enumerate() {
        for (turn, name) in names.iter().enumerate() {
            if let Some(entry) = hosts.get_mut(*name) {
                entry.wave = u32::try_from(index).unwrap_or(u32::MAX);
                entry.turn = u32::try_from(turn).unwrap_or(u32::MAX);
            }
        }
        waves.push(PlannedWave {
            name: wave.name.clone(),
            hosts: names.len(),
            first: names
                .iter()
                .take(NAMED)
                .map(|name| (*name).to_owned())
                .collect(),
        });
    }
    Ok(waves)
}

fn manifest(
    project: &Project,
    before: Option<&Published>,
    documents: &BTreeMap<String, Vec<u8>>,
    hosts: Shard,
) -> anyhow::Result<Manifest> {
    let refused = |refused: portguard_fleet::release::Refused| Fault::usage(refused.to_string());
    let chunks = project.next().join(CHUNKS);
    let keep = |hash: &Hash, chunk: &[u8]| write(&chunks.join(hash.as_str()), chunk);
    let mut objects = BTreeMap::new();
    for (name, content) in documents {
        let packed = pack(content).map_err(refused)?;
        for (hash, chunk) in &packed.chunks {
            keep(hash, chunk)?;
        }
        objects.insert(name.clone(), packed.object);
    }
    let mut pieces = Vec::new();
    for shard in shards(hosts) {
        let (hash, chunk) = pack_small(&serde_json::to_vec(&shard)?).map_err(refused)?;
        keep(&hash, &chunk)?;
        pieces.push(hash);
    }
    let last = before.map(|before| &before.manifest);
    let serial = last.map_or(1, |last| last.serial + 1);
    let mut key_changes = last
        .map(|last| last.key_changes.clone())
        .unwrap_or_default();
    let mut keys = project.keys(key_changes.len() as u64 + 1);
    if last.is_some_and(|last| last.keys != keys) {
        keys.version += 1;
        key_changes.push(serial);
        eprint_line(
            "the keys change with this release: the old ones sign it, the new ones the next",
        );
    }
    let now = now();
    Ok(Manifest {
        schema: SCHEMA,
        fleet: project.config.fleet.clone(),
        serial,
        previous: last.map(|last| last.serial),
        rollback_to: last.map(|last| Target {
            serial: last.serial,
            sha256: Hash::of(last.canonical().as_bytes()),
        }),
        rollback_within: seconds(&project.config.rollback_within).map_err(Fault::usage)?,
        issued: now,
        valid_until: now.saturating_add(seconds(&project.config.valid).map_err(Fault::usage)?),
        least_tool: env!("CARGO_PKG_VERSION").to_owned(),
        keys,
        key_changes,
        plan: project.plan(),
        objects,
        hosts: pieces,
    })
}

fn save(project: &Project, manifest: &Manifest) -> anyhow::Result<u64> {
    let text = manifest.canonical();
    write(&project.next().join(MANIFEST), text.as_bytes())?;
    write(
        &project.next().join("hosts.json"),
        &serde_json::to_vec(&manifest.hosts)?,
    )?;
    let mut size = text.len() as u64;
    for hash in manifest.chunks() {
        let path: PathBuf = project.next().join(CHUNKS).join(hash.as_str());
        size += fs::metadata(&path).map_or(0, |meta| meta.len());
    }
    Ok(size)
}

fn differences<'a>(
    before: Option<&'a Published>,
    hosts: &'a Shard,
) -> (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>) {
    let old = |name: &str| before.and_then(|before| before.hosts.get(name));
    let is_changed =
        |name: &str, entry: &HostEntry| old(name).is_some_and(|one| one.digests != entry.digests);
    let changed = hosts.iter().filter(|(name, entry)| is_changed(name, entry));
    let added = hosts.keys().filter(|name| old(name).is_none());
    let gone = before.into_iter().flat_map(|before| before.hosts.keys());
    let gone = gone.filter(|name| !hosts.contains_key(*name));
    (
        changed.map(|(name, _)| name.as_str()).collect(),
        added.map(String::as_str).collect(),
        gone.map(String::as_str).collect(),
    )
}

#[derive(Debug, Serialize)]
struct Differences {
    schema: u32,
    from: Option<u64>,
    to: u64,
    changed: Vec<String>,
    added: Vec<String>,
    removed: Vec<String>,
}

/// Shows what the planned release changes.
pub(super) fn diff(args: &DiffArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let manifest = super::sign::read_manifest(&project)?;
    let before = look(&project)?;
    let mut hosts = Shard::new();
    for hash in &manifest.hosts {
        let path = project.next().join(CHUNKS).join(hash.as_str());
        let piece = portguard_fleet::release::unpack_small(hash, &read(&path)?)
            .map_err(|refused| Fault::usage(refused.to_string()))?;
        hosts.extend(serde_json::from_slice::<Shard>(&piece)?);
    }
    let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (changed, added, removed) = differences(before.as_ref(), &hosts);
    let found = Differences {
        schema: 1,
        from: before.as_ref().map(|before| before.manifest.serial),
        to: manifest.serial,
        changed: own(changed),
        added: own(added),
        removed: own(removed),
    };
    let is_same = found.changed.is_empty() && found.added.is_empty() && found.removed.is_empty();
    if args.json {
        print_json(&found)?;
    } else {
        print(|out| {
            for (sign, names) in [
                ("~", &found.changed),
                ("+", &found.added),
                ("-", &found.removed),
            ] {
                for name in names {
                    writeln!(out, "{sign} {name}")?;
                }
            }
            Ok(())
        })?;
    }
    Ok(if is_same { Exit::Ok } else { Exit::Findings })
}
