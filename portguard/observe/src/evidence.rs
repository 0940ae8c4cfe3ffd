//! What a guard has seen that enforcing would drop, for as long as it was watched: kept in a file, since the kernel forgets
//! it at the next boot. The agent adds to it, and so does `portguard promote`.
//!
//! The kernel counts from the first load on; what it counted until it was last asked is remembered by the time at
//! which its counters were made, and added to when there are new ones.

pub mod accept;
mod fold;
pub mod judge;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::IpNet;
use portguard_common::reason::{Direction, Reason};
use portguard_kernel::error::{Context as _, Error, Kind};
use serde::{Deserialize, Serialize};

use crate::counters::totals;
use crate::observe::Observed;
use crate::talkers::{Crowd, Deed, Talker, Talkers, network, whom};
use portguard_kernel::store;
use portguard_policy::diff::diff;
use portguard_policy::policy::Policy;

/// Version of the file's format.
const SCHEMA: u32 = 1;
/// Causes that are kept: the lightest go first.
const CAUSES: usize = 4096;
/// Spans that are kept: one a boot.
const SPANS: usize = 512;

/// All that is known of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    schema: u32,
    /// Seconds since the Unix epoch from which it counts: a policy that admits less than the one before begins anew.
    pub since: u64,
    /// When the guard was in force, as far as what it saw is known.
    pub spans: Vec<Span>,
    /// Nanoseconds since the Unix epoch at which the kernel's counters of the last span were made: a guard that is removed
    /// and loaded again within a second has others.
    #[serde(default)]
    made: u64,
    /// Packets judged.
    pub packets: Sum,
    /// Packets that had been judged when it began.
    pub packets_before: u64,
    /// What a cause may have sent without being listed.
    pub bound: Sum,
    /// Who did what.
    pub causes: Vec<Cause>,
    /// Causes for which there was no room.
    pub forgotten: u64,
    /// What was in force last.
    pub policy: Policy,
}

/// A time in which the guard was in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Seconds since the Unix epoch.
    pub from: u64,
    /// Seconds since the Unix epoch.
    pub to: u64,
}

/// A count that survives the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sum {
    earlier: u64,
    now: u64,
}

/// Who did what that is a violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `in` or `out`.
    pub direction: String,
    /// Stable name of the reason.
    pub reason: String,
    /// IP protocol number.
    pub protocol: u8,
    /// See [`Talker::port`].
    pub port: u16,
    /// See [`Talker::to_client`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_client: bool,
    /// See [`Talker::service`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub service: u16,
    /// The other end: of a crowd, the address that was seen last.
    pub peer: IpAddr,
    /// See [`Talker::is_crowd`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_crowd: bool,
    /// Packets.
    pub packets: Sum,
    /// By how many of them that may be too high.
    pub error: Sum,
    /// Seconds since the Unix epoch.
    pub first: u64,
    /// Seconds since the Unix epoch.
    pub last: u64,
}

impl Sum {
    /// Altogether.
    pub fn total(self) -> u64 {
        self.earlier.saturating_add(self.now)
    }

    /// Before the kernel began to count anew.
    pub fn earlier(self) -> u64 {
        self.earlier
    }

    /// Both of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            earlier: self.earlier.saturating_add(other.earlier),
            now: self.now.saturating_add(other.now),
        }
    }

    fn roll(&mut self) {
        self.earlier = self.total();
        self.now = 0;
    }
}

/// What the kernel says at one moment.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// When it was loaded, in seconds since the Unix epoch.
    pub loaded_at: u64,
    /// Whether it is the first since the counters began.
    pub is_first: bool,
    /// When the counters were made, in nanoseconds since the Unix epoch.
    pub made: u64,
    /// Packets judged since.
    pub packets: u64,
    /// Violations since, by who caused them.
    pub talkers: &'a Talkers,
    /// Seconds since the Unix epoch.
    pub now: u64,
}

impl Seen<'_> {
    /// When the counters began, in seconds since the Unix epoch.
    fn began(&self) -> u64 {
        self.made / SECOND
    }
}

impl Evidence {
    fn new(seen: &Seen<'_>) -> Self {
        // What was in force before the generation in force is not known; its own time is.
        let since = if seen.is_first {
            seen.began()
        } else {
            seen.loaded_at
        };
        Self {
            schema: SCHEMA,
            since,
            spans: Vec::new(),
            made: 0,
            packets: Sum::default(),
            packets_before: 0,
            bound: Sum::default(),
            causes: Vec::new(),
            forgotten: 0,
            policy: seen.policy.clone(),
        }
    }

    /// Adds what the kernel says now.
    pub fn absorb(&mut self, seen: &Seen<'_>) {
        match self.spans.last_mut() {
            Some(last) if self.made == seen.made => last.to = last.to.max(seen.now),
            _ => self.begin(seen),
        }
        self.packets.now = seen.packets;
        self.bound.now = self.bound.now.max(seen.talkers.bound);
        let talkers = seen.talkers.gathered(&self.crowds());
        for talker in &talkers.heaviest {
            self.add(talker);
        }
        if self.causes.len() > CAUSES {
            self.causes
                .sort_by_key(|cause| std::cmp::Reverse(cause.packets.total()));
            self.forgotten += u64::try_from(self.causes.len() - CAUSES).unwrap_or(0);
            self.causes.truncate(CAUSES);
        }
        if *seen.policy != self.policy {
            // What the policy before admitted and this one does not was not watched as a violation until now.
            if !diff(&self.policy, seen.policy).closed.is_empty() {
                self.since = seen.loaded_at;
                self.packets_before = self.packets.total();
            }
            self.policy = seen.policy.clone();
        }
    }

    /// The kernel counts from zero.
    fn begin(&mut self, seen: &Seen<'_>) {
        self.packets.roll();
        self.bound.roll();
        for cause in &mut self.causes {
            cause.packets.roll();
            cause.error.roll();
        }
        self.made = seen.made;
        self.spans.push(Span {
            from: seen.began(),
            to: seen.now,
        });
        if self.spans.len() > SPANS {
            self.spans.remove(0);
        }
    }

    /// Whom one line stands for already.
    fn crowds(&self) -> BTreeSet<Crowd<'_>> {
        let crowds = self.causes.iter().filter(|cause| cause.is_crowd);
        crowds
            .filter_map(|cause| Some((cause.deed(), network(cause.peer)?)))
            .collect()
    }

    fn add(&mut self, talker: &Talker) {
        let deed = talker.deed();
        let whom = whom(talker.peer, talker.is_crowd);
        let is_same = |cause: &Cause| cause.deed() == deed && whom.contains(&cause.peer);
        let (first, last) = (talker.first / SECOND, talker.last / SECOND);
        let now = |now| Sum { earlier: 0, now };
        let mut cause = Cause {
            direction: deed.0.to_owned(),
            reason: deed.1.to_owned(),
            protocol: talker.protocol,
            port: talker.port,
            to_client: talker.to_client,
            service: talker.service,
            peer: talker.peer,
            is_crowd: talker.is_crowd,
            packets: now(0),
            error: now(0),
            first,
            last,
        };
        // One, or of those who became a crowd some.
        for known in self.causes.extract_if(.., |cause| is_same(cause)) {
            cause.packets = cause.packets.and(known.packets);
            cause.error = cause.error.and(known.error);
            cause.first = cause.first.min(known.first);
            if known.last > cause.last {
                (cause.last, cause.peer) = (known.last, known.peer);
            }
        }
        cause.packets.now = cause.packets.now.max(talker.packets);
        cause.error.now = cause.error.now.max(talker.error);
        self.causes.push(cause);
    }

    /// Seconds in which the guard was in force since the evidence counts.
    pub fn watched(&self) -> u64 {
        self.counted()
            .map(|span| span.to.saturating_sub(span.from))
            .sum()
    }

    /// Hours of the day (UTC) in which it was.
    pub fn hours(&self) -> BTreeSet<u64> {
        self.counted()
            .flat_map(|span| (span.from / 3600..=span.to / 3600).take(24))
            .map(|hour| hour % 24)
            .collect()
    }

    fn counted(&self) -> impl Iterator<Item = Span> {
        self.spans
            .iter()
            .map(|span| Span {
                from: span.from.max(self.since),
                to: span.to,
            })
            .filter(|span| span.to >= span.from)
    }

    /// Packets that were judged since the evidence counts.
    pub fn judged(&self) -> u64 {
        self.packets.total().saturating_sub(self.packets_before)
    }
}

const SECOND: u64 = 1_000_000_000;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what serde calls it with"
)]
const fn is_zero(number: &u16) -> bool {
    *number == 0
}

impl Cause {
    /// The other end: an address, or the /64 of a crowd.
    pub fn whom(&self) -> IpNet {
        whom(self.peer, self.is_crowd)
    }

    /// What was done, whoever did it.
    fn deed(&self) -> Deed<'_> {
        (
            &self.direction,
            &self.reason,
            self.protocol,
            self.port,
            self.to_client,
            self.service,
        )
    }

    /// As the data plane calls it.
    pub fn direction(&self) -> Direction {
        if self.direction == Direction::Egress.name() {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }

    /// As the data plane calls it; `None` = a reason of another version, or several together.
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL
            .into_iter()
            .find(|reason| reason.name(self.direction()) == self.reason)
    }
}

fn path(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}.evidence.json"))
}

/// The evidence of an interface up to now: what is stored and what the kernel says, stored again where there is a place to.
///
/// # Errors
/// If the kernel's tables cannot be read, or the disk refuses.
pub fn gather(observed: &Observed, now: u64) -> portguard_kernel::Result<Evidence> {
    let talkers = Talkers::read(&observed.layout.shared(), crate::events::stream::booted())?;
    let meta = &observed.live.meta;
    let seen = Seen {
        policy: &meta.policy,
        loaded_at: meta.loaded_at,
        is_first: meta.number == 1,
        made: observed.counters_made().unwrap_or(meta.loaded_at * SECOND),
        packets: totals(meta, &observed.raw).0.packets,
        talkers: &talkers,
        now,
    };
    let directory = store::directory(&observed.layout);
    let stored = directory
        .as_deref()
        .map(|directory| read(directory, &observed.pinned_name()))
        .transpose()?
        .flatten();
    let mut evidence = stored.unwrap_or_else(|| Evidence::new(&seen));
    evidence.absorb(&seen);
    if let Some(directory) = directory {
        let path = path(&directory, &observed.pinned_name());
        store::write(&directory, &path, &serde_json::to_vec(&evidence)?)
            .with_context(|| format!("cannot keep the evidence in `{}`", path.display()))?;
    }
    Ok(evidence)
}

fn read(directory: &Path, interface: &str) -> portguard_kernel::Result<Option<Evidence>> {
    let path = path(directory, interface);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| format!("cannot read `{}`", path.display()))?,
    };
    let damaged = |why: String| {
        Error::new(
            Kind::Damaged,
            format!("`{}` is damaged: {why}", path.display()),
        )
        .hint("remove it: the evidence then counts from the generation in force")
    };
    let evidence: Evidence =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if evidence.schema != SCHEMA {
        return Err(damaged(format!(
            "format {}, expected {SCHEMA}",
            evidence.schema
        )));
    }
    Ok(Some(evidence))
}

#[cfg(test)]
mod tests;
