//! `portguard fleet sign` and `apply`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Args;
use portguard_fleet::follow::{ask, position, published};
use portguard_fleet::publish::{PublishError, publish};
use portguard_fleet::release::{KeySet, Manifest, Release, Signatures, Trust};
use portguard_fleet::rollout::control::{Request, Who};
use portguard_fleet::rollout::{Phase, Position, rollback_order};
use portguard_fleet::store::{AnyStore, Store as _};
use portguard_fleet::{Hash, layout, now};
use portguard_observe::evidence::accept::who;
use portguard_policy::error::{Exit, Fault};
use serde::Serialize;

use super::project::{Project, ProjectArgs, write};
use super::{block_on, follow_fault, store_fault, warn_if_open};
use crate::stderr::say;
use crate::stdout::print_json;

/// What is signed.
pub(super) const MANIFEST: &str = "manifest.json";
/// The documents' chunks.
pub(super) const CHUNKS: &str = "chunks";

/// Sign the planned release, by calling `minisign`
///
/// Anybody else signs on a machine of their own: `minisign -S -m next/manifest.json -x next/NAME.minisig`, or
/// `minisign -S -m back/order.txt -x back/NAME.minisig`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet sign -s alice.key
  portguard fleet sign --rollback -s alice.key")]
pub(super) struct SignArgs {
    /// Secret key of minisign
    #[arg(short, long = "secret-key", value_name = "FILE")]
    secret_key: PathBuf,
    /// Sign that hosts go back from the published release, instead
    #[arg(long)]
    rollback: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// What is signed so that hosts go back.
const ORDER: &str = "order.txt";

#[derive(Debug, Serialize)]
struct Signed {
    /// What is signed, in words.
    what: String,
    signature: String,
    /// How many signatures are there, and how many there must be.
    signatures: usize,
    threshold: usize,
}

/// Signs.
pub(super) fn sign(args: &SignArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let (directory, file, comment, next) = if args.rollback {
        let comment = order(&project)?;
        (project.back(), ORDER, comment, None)
    } else {
        let manifest = read_manifest(&project)?;
        let comment = format!("fleet {} release {}", manifest.fleet, manifest.serial);
        (project.next(), MANIFEST, comment, Some(manifest.keys))
    };
    let name = args
        .secret_key
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let out = directory.join(format!("{name}.minisig"));
    #[expect(clippy::disallowed_methods, reason = "handed to another program")]
    let talk = std::io::stderr();
    let mut command = Command::new("minisign");
    command
        .args(["-S", "-H", "-s"])
        .arg(&args.secret_key)
        .arg("-m")
        .arg(directory.join(file))
        .arg("-x")
        .arg(&out)
        .args(["-t", &comment])
        // It says how it goes on standard output, which is for data.
        .stdout(talk);
    let status = command.status().map_err(|error| {
        Fault::system(format!("cannot call minisign: {error}"))
            .hint("install the package `minisign`")
    })?;
    if !status.success() {
        return Err(Fault::system(format!("minisign failed: {status}")).into());
    }
    let keys = project.trust()?.keys;
    let known = known(&keys, next.as_ref());
    let text =
        fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
    let mut this = Signatures::default();
    this.add(&text).map_err(Fault::system)?;
    if let Some(stranger) = this.retain(&known).first() {
        // It would be worth nothing.
        fs::remove_file(&out).with_context(|| format!("cannot remove {}", out.display()))?;
        let ours: Vec<String> = keys.ids().into_iter().collect();
        return Err(Fault::usage(format!(
            "{}: hosts do not go by its key {stranger} yet, or any more",
            args.secret_key.display()
        ))
        .hint(format!(
            "{} of these sign now: {}; a new key signs once a release that names it is published",
            keys.threshold,
            ours.join(", ")
        ))
        .into());
    }
    // The keys that come next may sign along, and do not count yet.
    let mut signed = signatures(&directory, &known)?;
    signed.retain(&keys.ids());
    let signed = signed.ids().count();
    let threshold = keys.threshold;
    if args.json {
        print_json(&Signed {
            what: comment,
            signature: out.display().to_string(),
            signatures: signed,
            threshold,
        })?;
        return Ok(Exit::Ok);
    }
    say(&format!(
        "{comment}: {signed} of {threshold} signatures; {}",
        out.display()
    ));
    Ok(Exit::Ok)
}

/// Ids of the keys that hosts go by, and of those that come next.
fn known(keys: &KeySet, next: Option<&KeySet>) -> BTreeSet<String> {
    let mut known = keys.ids();
    known.extend(next.into_iter().flat_map(KeySet::ids));
    known
}

/// Looks at what is published, writes what is to be signed, and says what it is.
fn order(project: &Project) -> anyhow::Result<String> {
    let store = project.store()?;
    let mut trust = project.trust()?;
    let found = block_on(async {
        published(&store, &mut trust)
            .await
            .map_err(|error| follow_fault(&error).into())
    })?;
    project.keep_trust(&trust);
    write_order(project, &found.manifest)
}

/// Writes what is to be signed, unless it is there already; says what it is.
pub(super) fn write_order(project: &Project, manifest: &Manifest) -> anyhow::Result<String> {
    let target = manifest.rollback_to.as_ref().ok_or_else(|| {
        Fault::usage(format!(
            "release {} names no release to go back to",
            manifest.serial
        ))
        .hint("publish one that does")
    })?;
    let text = rollback_order(&manifest.fleet, manifest.serial, target);
    let path = project.back().join(ORDER);
    if fs::read_to_string(&path).is_ok_and(|there| there != text) {
        // Signatures of another day's order are worth nothing.
        fs::remove_dir_all(project.back())
            .with_context(|| format!("cannot remove {}", project.back().display()))?;
    }
    write(&path, text.as_bytes())?;
    Ok(format!(
        "fleet {} rollback from release {} to {}",
        manifest.fleet, manifest.serial, target.serial
    ))
}

/// The signatures of the rollback of this release, if enough publishers signed it.
pub(super) fn signed_order(
    project: &Project,
    manifest: &Manifest,
    keys: &KeySet,
) -> anyhow::Result<Option<Signatures>> {
    let (Some(target), true) = (&manifest.rollback_to, project.back().is_dir()) else {
        return Ok(None);
    };
    let order = rollback_order(&manifest.fleet, manifest.serial, target);
    let signatures = signatures(&project.back(), &keys.ids())?;
    Ok(keys
        .verify(&order, &signatures, None)
        .is_ok()
        .then_some(signatures))
}

/// Publish the signed release
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet apply  all hosts audit; none enforces
  portguard fleet apply --start
      and the first wave begins as soon as the gate lets it")]
pub(super) struct ApplyArgs {
    /// Let the first wave begin at once, as `rollout start` does
    #[arg(long)]
    start: bool,
    /// Whatever the store says is published now: after `plan --repair`
    #[arg(long)]
    repair: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Serialize)]
struct Applied {
    serial: u64,
    phase: &'static str,
    signed_by: Vec<String>,
}

/// Publishes.
pub(super) fn apply(args: &ApplyArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let manifest = read_manifest(&project)?;
    let store = project.store()?;
    let mut trust = project.trust()?;
    let known = known(&trust.keys, Some(&manifest.keys));
    let release = Release {
        manifest: manifest.canonical(),
        signatures: signatures(&project.next(), &known)?,
    };
    let mut position = Position::new(manifest.serial, &who(), now(), "published");
    if args.start {
        position.phase = Phase::Running;
    }
    let is_new = block_on(async {
        let mut changes = std::collections::BTreeMap::new();
        for serial in trust.changes_to(&manifest) {
            let entry = store
                .get(&layout::release(serial))
                .await
                .map_err(|error| store_fault(&error))?;
            changes.extend(entry.map(|entry| (serial, entry.value)));
        }
        let mut fetch = |serial: u64| {
            changes
                .get(&serial)
                .cloned()
                .ok_or_else(|| "not in the store".to_owned())
        };
        // As every host will judge it.
        trust
            .accept(manifest.serial, &release.to_bytes(), now(), &mut fetch)
            .map_err(|refused| {
                Fault::usage(format!("hosts would refuse it: {refused}"))
                    .hint("`portguard fleet sign -s KEY` it with enough keys; `plan` it again where somebody else published meanwhile")
            })?;
        if let Some(there) = published_already(&store, &mut trust, &manifest, args.start).await? {
            position = there;
            return Ok(false);
        }
        let chunks = read_chunks(&project.next(), &manifest)?;
        warn_if_open(&store).await;
        publish(&store, &release, &manifest, &chunks, &position, args.repair)
            .await
            .map_err(|error| publish_fault(&error))?;
        Ok(true)
    })?;
    project.keep_trust(&trust);
    let signed_by: Vec<String> = release.signatures.ids().map(str::to_owned).collect();
    if args.json {
        print_json(&Applied {
            serial: manifest.serial,
            phase: position.phase.name(),
            signed_by,
        })?;
    } else {
        let already = if is_new { "" } else { " already" };
        say(&format!(
            "release {} is published{already}, signed by {}; the rollout is {}",
            manifest.serial,
            signed_by.join(", "),
            position.phase.name()
        ));
    }
    Ok(Exit::Ok)
}

/// How far the rollout is of what is to be published, if it is published already; `start`: lets it begin, if nobody did.
async fn published_already(
    store: &AnyStore,
    trust: &mut Trust,
    manifest: &Manifest,
    start: bool,
) -> anyhow::Result<Option<Position>> {
    let there = published(store, trust).await;
    if !there.is_ok_and(|there| there.manifest == *manifest) {
        return Ok(None);
    }
    let (position, _) = position(store, manifest.serial, now())
        .await
        .map_err(|error| store_fault(&error))?;
    if !start || position.phase != Phase::Auditing {
        return Ok(Some(position));
    }
    let who = Who {
        by: &who(),
        at: now(),
        why: "published",
    };
    let asked = ask(store, trust, Request::Start, None, &who).await;
    Ok(Some(asked.map_err(|error| follow_fault(&error))?))
}

fn publish_fault(error: &PublishError) -> Fault {
    match error {
        PublishError::Store(error) => store_fault(error),
        PublishError::Overtaken { .. } => Fault::usage(error.to_string()).hint(
            "`portguard fleet plan` it again, and sign it; `plan --repair` if what is published is broken",
        ),
        PublishError::Missing(_) => Fault::usage(error.to_string()),
    }
}

pub(super) fn read_manifest(project: &Project) -> anyhow::Result<Manifest> {
    let path = project.next().join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|error| {
        Fault::usage(format!("cannot read {}: {error}", path.display()))
            .hint("`portguard fleet plan` makes it")
    })?;
    Manifest::parse(&text).map_err(|refused| {
        Fault::usage(format!("{}: {refused}", path.display()))
            .hint("it was changed by hand: `portguard fleet plan` makes it anew")
            .into()
    })
}

/// The signatures in a directory that are of these keys; others are said, and left out.
fn signatures(directory: &Path, known: &BTreeSet<String>) -> anyhow::Result<Signatures> {
    let mut signatures = Signatures::default();
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|end| end != "minisig") {
            continue;
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        signatures
            .add(&text)
            .map_err(|why| Fault::usage(format!("{}: {why}", path.display())))?;
        for stranger in signatures.retain(known) {
            say(&format!(
                "warning: {}: hosts do not go by key {stranger}: the signature is left out",
                path.display()
            ));
        }
    }
    Ok(signatures)
}

fn read_chunks(next: &Path, manifest: &Manifest) -> anyhow::Result<Vec<(Hash, Vec<u8>)>> {
    manifest
        .chunks()
        .map(|hash| {
            let path = next.join(CHUNKS).join(hash.as_str());
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((hash.clone(), bytes))
        })
        .collect()
}
