//! The controller over a store: reads all that there is, takes one step, and forgets it again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::publish::Revocation;
use crate::release::{
    HostEntry, Manifest, Refused, Release, Shard, Signatures, Trust, unpack_small,
};
use crate::rollout::control::{Denied, Request, Rollout, Seen, View, Who, request, step};
use crate::rollout::{Hold, Position};
use crate::status::{Doubt, MAX_STATUS, State, Status, read};
use crate::store::{Compare, Entry, MAX_VALUE, Op, Store, StoreError};
use crate::{Hash, layout, publish};

/// For how long a controller is one without saying so again.
pub const LEASE_SECONDS: u64 = 15;
/// How long a host may take between its sign of life and its status.
const TORN: Duration = Duration::from_millis(300);
/// How often somebody asks again whom the controller overtook.
const ASKED: u32 = 8;
/// Events of the rollout that are kept.
const HISTORY: usize = 1000;

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it has is not believed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A request that makes no sense.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nothing was published yet.
    #[error("nothing has been published yet")]
    Empty,
    /// There was a head: this is another store, or it was emptied.
    #[error("the store has no head, though release {0} was published")]
    Lost(u64),
    /// Somebody else changed the position meanwhile.
    #[error("somebody else changed the position meanwhile: look again")]
    Overtaken,
}

/// The release that is the head, as far as the rollout goes.
#[derive(Debug, Clone)]
pub struct Published {
    /// What was signed.
    pub manifest: Manifest,
    /// What was signed of each host.
    pub hosts: BTreeMap<String, HostEntry>,
    /// Waves and their hosts.
    pub rollout: Rollout,
}

/// Reads and verifies the head. `trust` learns of it, so that this controller never goes by an older one.
///
/// # Errors
/// [`FollowError`].
pub async fn published(store: &impl Store, trust: &mut Trust) -> Result<Published, FollowError> {
    let (Some(serial), _) = publish::head(store).await? else {
        return Err(match trust.seen {
            Some((serial, _)) => FollowError::Lost(serial),
            None => FollowError::Empty,
        });
    };
    let missing = |what: &str| Refused::Object(format!("{what} is not in the store"));
    let get = async |serial: u64| -> Result<Vec<u8>, FollowError> {
        let entry = store.get(&layout::release(serial)).await?;
        Ok(entry.ok_or_else(|| missing("a release"))?.value)
    };
    let bytes = get(serial).await?;
    let mut others = BTreeMap::new();
    let release = Release::parse(&bytes)?;
    // Those that were seen before need not be there any more.
    for change in trust.changes_to(&Manifest::parse(&release.manifest)?) {
        others.insert(change, get(change).await?);
    }
    let mut fetch = |serial: u64| {
        others
            .get(&serial)
            .cloned()
            .ok_or_else(|| "not there".to_owned())
    };
    // Whoever looks at a release that has ended must see it, if only to publish the next; hosts judge that for themselves.
    let ended_does_not_matter = 0;
    let manifest = trust.accept(serial, &bytes, ended_does_not_matter, &mut fetch)?;
    let mut hosts = BTreeMap::new();
    for hash in &manifest.hosts {
        let entry = store.get(&layout::object(hash)).await?;
        let chunk = entry.ok_or_else(|| missing("the inventory"))?.value;
        let shard: Shard = serde_json::from_slice(&unpack_small(hash, &chunk)?)
            .map_err(|error| Refused::Object(error.to_string()))?;
        hosts.extend(shard);
    }
    let mut waves = vec![BTreeMap::new(); manifest.plan.wave.len()];
    for (name, entry) in &hosts {
        let wave = usize::try_from(entry.wave).unwrap_or(usize::MAX);
        let wave = waves
            .get_mut(wave)
            .ok_or_else(|| Refused::Object(format!("host `{name}` is in no wave")))?;
        wave.insert(entry.turn, name.clone());
    }
    let rollout = Rollout {
        serial,
        plan: manifest.plan.clone(),
        waves: waves
            .into_iter()
            .map(|wave| wave.into_values().collect())
            .collect(),
        audits: hosts
            .iter()
            .filter(|(_, entry)| !entry.enforce)
            .map(|(name, _)| name.clone())
            .collect(),
    };
    Ok(Published {
        manifest,
        hosts,
        rollout,
    })
}

/// What all hosts say now.
///
/// # Errors
/// What the store says.
pub async fn view(store: &impl Store, published: &Published, now: u64) -> Result<View, StoreError> {
    let begun = Instant::now();
    let (view, is_torn) = look(store, published, now).await?;
    if !is_torn {
        return Ok(view);
    }
    // A host may have begun to speak while the one half was read and not yet the other: that is no silence.
    tokio::time::sleep(TORN).await;
    let now = now + begun.elapsed().as_secs();
    Ok(look(store, published, now).await?.0)
}

/// The same, and whether a sign of life was for a status that was not there.
async fn look(
    store: &impl Store,
    published: &Published,
    now: u64,
) -> Result<(View, bool), StoreError> {
    // Anybody with an agent's certificate can put anything beside the hosts' own: what cannot count is not kept.
    let by_host =
        async |prefix: &str, most: usize| -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
            let is_wanted = |key: &str| {
                let host = key.strip_prefix(prefix);
                host.is_some_and(|host| published.hosts.contains_key(host))
            };
            let entries = store.pick(prefix, most, is_wanted).await?.into_iter();
            let named = entries.filter_map(|entry| {
                let host = entry.key.strip_prefix(prefix)?.to_owned();
                Some((host, entry.value))
            });
            Ok(named.collect())
        };
    let begun = Instant::now();
    let statuses = by_host(layout::STATUSES, MAX_STATUS).await?;
    let alive = by_host(layout::ALIVE, MAX_STATUS).await?;
    let holds = by_host(layout::HOLDS, MAX_VALUE).await?;
    let revoked = by_host(layout::REVOKED, MAX_VALUE).await?;
    // It takes a while to read thousands: what was said meanwhile is not of the future.
    let now = now + begun.elapsed().as_secs();
    let serial = published.manifest.serial;
    let hash = Hash::of(published.manifest.canonical().as_bytes());
    let mut view = View::new();
    let mut is_torn = false;
    for (host, entry) in &published.hosts {
        let key = entry.key.as_deref();
        let revoked = revoked
            .get(host)
            .and_then(|value| Revocation::of(value, key?));
        let said = match (revoked, statuses.get(host)) {
            (Some(because), _) => Err(Doubt::Revoked(because)),
            (None, None) => Err(Doubt::Never),
            (None, Some(status)) => {
                let alive = alive.get(host).map(Vec::as_slice);
                read(&published.manifest.fleet, host, key, status, alive, now)
            }
        };
        let hold = holds.get(host).and_then(|hold| {
            let hold: Hold = serde_json::from_slice(hold).ok()?;
            hold.is_in_force(now).then_some(hold)
        });
        is_torn |= matches!(said, Err(Doubt::OtherStatus));
        let mut seen = match said {
            Ok(status) if is_of(&status, serial, &hash) => Seen::saying(status),
            Ok(status) if status.serial == serial => Seen {
                state: State::Pending,
                doubt: Some(format!(
                    "it has another release {serial}, signed by the same keys"
                )),
                status: None,
            },
            Ok(status) => Seen {
                state: State::Pending,
                doubt: Some(format!("it is still with release {}", status.serial)),
                status: None,
            },
            Err(doubt) => Seen {
                state: State::Silent,
                doubt: Some(doubt.to_string()),
                status: None,
            },
        };
        if seen.state == State::Held && hold.is_none() {
            // It says so until its next step, and nothing holds it there.
            seen.state = State::Pending;
            seen.doubt = Some("its hold has ended, and it has not reported since".to_owned());
        }
        // Anybody who can write to the store can hold; it must not hide that a host fails or is silent.
        if let Some(hold) = hold
            && !seen.state.is_trouble()
        {
            seen.state = State::Held;
            seen.doubt = Some(hold.words());
        }
        view.insert(host.clone(), seen);
    }
    Ok((view, is_torn))
}

/// Whether a host speaks of this very release; one that refuses it has none.
fn is_of(status: &Status, serial: u64, hash: &Hash) -> bool {
    let is_it = |release: &Hash| release == hash;
    let release = status.release.as_ref();
    status.serial == serial && release.map_or(status.state == State::Failed, is_it)
}

/// The position, if it is of this release; else that of one that was just published.
///
/// # Errors
/// What the store says.
pub async fn position(
    store: &impl Store,
    serial: u64,
    now: u64,
) -> Result<(Position, Option<Entry>), StoreError> {
    let entry = store.get(layout::POSITION).await?;
    let there = entry
        .as_ref()
        .and_then(|entry| serde_json::from_slice::<Position>(&entry.value).ok())
        .filter(|position| position.serial == serial);
    let position = there.unwrap_or_else(|| Position::new(serial, "nobody", now, "published"));
    Ok((position, entry))
}

/// One step of the rollout: the new position, or why there is none now.
///
/// # Errors
/// [`FollowError`].
pub async fn take_step(
    store: &impl Store,
    trust: &mut Trust,
    by: &str,
    now: u64,
) -> Result<Result<Position, String>, FollowError> {
    let published = published(store, trust).await?;
    let (position, seen) = position(store, published.manifest.serial, now).await?;
    let view = view(store, &published, now).await?;
    let who = Who {
        by,
        at: now,
        why: "",
    };
    match step(&published.rollout, &position, &view, &who) {
        Ok(next) => {
            write(store, seen.as_ref(), &next).await?;
            Ok(Ok(next))
        }
        Err(why) => Ok(Err(why)),
    }
}

/// Carries out what somebody asks for; a rollback with what the publishers signed of it.
///
/// # Errors
/// [`FollowError`].
pub async fn ask(
    store: &impl Store,
    trust: &mut Trust,
    what: Request,
    order: Option<Signatures>,
    who: &Who<'_>,
) -> Result<Position, FollowError> {
    let published = published(store, trust).await?;
    let has_way_back = published.manifest.rollback_to.is_some();
    let mut tries = 0;
    loop {
        let (position, seen) = position(store, published.manifest.serial, who.at).await?;
        let mut next = request(&position, what, has_way_back, who)?;
        next.order.clone_from(&order);
        match write(store, seen.as_ref(), &next).await {
            // The controller took a step meanwhile: what was asked for is asked for all the same.
            Err(FollowError::Overtaken) if tries < ASKED => tries += 1,
            other => return other.map(|()| next),
        }
    }
}

/// The names of a release's waves, for people: nobody's word is taken for anything else by it.
///
/// # Errors
/// What the store says.
pub async fn waves(store: &impl Store, serial: u64) -> Result<Vec<String>, StoreError> {
    let entry = store.get(&layout::release(serial)).await?;
    let manifest = entry.and_then(|entry| {
        let release = Release::parse(&entry.value).ok()?;
        Manifest::parse(&release.manifest).ok()
    });
    let waves = manifest.into_iter().flat_map(|manifest| manifest.plan.wave);
    Ok(waves.map(|wave| wave.name).collect())
}

/// What happened, the newest last.
///
/// # Errors
/// What the store says.
pub async fn history(store: &impl Store) -> Result<Vec<Position>, StoreError> {
    let entries = events(store).await?;
    let positions = entries
        .iter()
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok());
    Ok(positions.collect())
}

/// What somebody else put beside them is none.
async fn events(store: &impl Store) -> Result<Vec<Entry>, StoreError> {
    let is_wanted = |key: &str| layout::is_history(key);
    store.pick(layout::HISTORY, MAX_VALUE, is_wanted).await
}

/// By compare-and-swap: two controllers at once, or one and an operator, never undo each other.
async fn write(
    store: &impl Store,
    seen: Option<&Entry>,
    next: &Position,
) -> Result<(), FollowError> {
    let value = serde_json::to_vec(next).unwrap_or_default();
    let ops = [
        Op::Put(layout::POSITION.to_owned(), value.clone()),
        Op::Put(layout::history_now(), value),
    ];
    let compare = Compare::unchanged(layout::POSITION, seen);
    if !store.commit(&[compare], &ops).await? {
        return Err(FollowError::Overtaken);
    }
    let entries = events(store).await?;
    let old = entries.len().saturating_sub(HISTORY);
    let ops: Vec<Op> = entries
        .into_iter()
        .take(old.min(100))
        .map(|entry| Op::Delete(entry.key))
        .collect();
    if !ops.is_empty() {
        store.commit(&[], &ops).await?;
    }
    Ok(())
}
