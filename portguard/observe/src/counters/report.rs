//! A snapshot in the words of the policy.

use std::collections::BTreeMap;

use portguard_common::abi::{Counter, slot};
use portguard_common::reason::{Direction, Reason};
use serde::{Deserialize, Serialize};

use super::causes::{CauseCount, causes};
use super::peers::peers;
use super::space::{direction, space_named, transport, transport_of};
use super::{Reset, Snapshot};
use portguard_kernel::generation::effective::{Effective, Strictness};
use portguard_kernel::pins::meta::Meta;
use portguard_policy::cells::Cell;
use portguard_policy::human::{count, grouped};
use portguard_policy::image::{covering, spans};

/// Packets and bytes, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

impl From<Counter> for Count {
    fn from(counter: Counter) -> Self {
        Self {
            packets: counter.packets,
            bytes: counter.bytes,
        }
    }
}

impl Count {
    pub(super) fn add(&mut self, counter: Counter) {
        self.packets += counter.packets;
        self.bytes += counter.bytes;
    }
}

/// One interface's counters in the words of its policy.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Interface.
    pub name: String,
    /// What is not as it should be, such as that the interface is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Generation in force.
    pub generation: u64,
    /// Digest of its policy.
    pub digest: String,
    /// What the policy says of violations that arrive: `audit` or `enforce`.
    pub mode: &'static str,
    /// Of those that are sent: `off`, `audit` or `enforce`.
    pub outbound: &'static str,
    /// What really becomes of them now.
    pub effective: Effective,
    /// Seconds since the Unix epoch that these numbers count from: the first load or the last reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "portguard_policy::human::seconds::maybe::serialize")]
    pub since: Option<u64>,
    /// The reset that they count from, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
    /// Both directions together.
    pub totals: Count,
    /// Violations among them.
    pub violations: Count,
    /// By direction and reason; those that never occurred are left out.
    pub reasons: Vec<ReasonCount>,
    /// What is behind reasons that have no port: causes of malformed frames, EtherTypes.
    pub causes: Vec<CauseCount>,
    /// By direction, transport and port; documented ones always, others that had violations.
    pub ports: Vec<PortCount>,
    /// By row, both directions.
    pub rows: Vec<RowCount>,
    /// By the peers that the policy names.
    pub peers: Vec<PeerCount>,
}

/// Packets and bytes of one reason.
#[derive(Debug, Clone, Serialize)]
pub struct ReasonCount {
    /// `in` or `out`.
    pub direction: &'static str,
    /// Stable name.
    pub reason: String,
    /// Whether enforcing drops it.
    pub violation: bool,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Packets of one port, or of one range that is counted as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct PortCount {
    /// `in` or `out`.
    pub direction: &'static str,
    /// `tcp`, `udp`, `sctp`; `ip` with protocol numbers, `icmp` for echo.
    pub transport: &'static str,
    /// Port or protocol number.
    pub port: u16,
    /// Last port, where a range is counted as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_last: Option<u16>,
    /// Whether the policy in force opens it to anybody.
    pub documented: bool,
    /// Rows that open it.
    pub rows: Vec<String>,
    /// Passed by a grant.
    pub passed: Count,
    /// Dropped, or in audit only counted.
    pub violations: Packets,
}

impl PortCount {
    /// `tcp/443`, `udp/5000-5010`, `ip/50`, `icmp echo`.
    pub fn name(&self) -> String {
        match (self.transport, self.port_last) {
            ("icmp", _) => "icmp echo".to_owned(),
            (transport, Some(last)) => format!("{transport}/{}-{last}", self.port),
            (transport, None) => format!("{transport}/{}", self.port),
        }
    }

    /// Whether two counts are of the same port.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.direction, self.transport, self.port, self.port_last)
            == (
                other.direction,
                other.transport,
                other.port,
                other.port_last,
            )
    }
}

/// Packets alone.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Packets {
    /// Packets.
    pub packets: u64,
}

/// Packets that a row let pass. A packet that several rows admit counts for each.
#[derive(Debug, Clone, Serialize)]
pub struct RowCount {
    /// Row id.
    pub row: String,
    /// `SYSTEM/ROLE`, where it is a row of a document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What it is for.
    pub purpose: String,
    /// Where the document says so.
    pub citation: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Packets that passed for one set of peers, in the policy's words.
#[derive(Debug, Clone, Serialize)]
pub struct PeerCount {
    /// `in` or `out`.
    pub direction: &'static str,
    /// `any`, or the names of the peer sets that admit them.
    pub peers: String,
    /// Rows that admit them.
    pub rows: Vec<String>,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

type PortPlace = (bool, u8, u16, u16);

impl Report {
    /// What holds for what arrives, and what the policy says if that is something else.
    pub fn mode(&self) -> String {
        let now = self.effective.inbound.name();
        if now == self.mode {
            now.to_owned()
        } else {
            format!("{now} (the policy says {})", self.mode)
        }
    }

    /// Violations that arrived, and that were sent.
    pub fn violations_by_direction(&self) -> (u64, u64) {
        let out = Direction::Egress.name();
        let sent = self.reasons.iter();
        let sent = sent.filter(|one| one.violation && one.direction == out);
        let sent = sent.map(|one| one.packets).sum();
        (self.violations.packets.saturating_sub(sent), sent)
    }

    /// How many violations there were, and what becomes of such now: each direction has a mode of its own.
    pub fn describe_violations(&self) -> String {
        use Strictness::{Enforce, Off};
        let now = &self.effective;
        let all = count(self.violations.packets, "violation");
        let (arrived, sent) = self.violations_by_direction();
        if now.inbound == Off && now.outbound == Off {
            return format!("{all}; now, nothing is judged");
        }
        let apart = || format!("{all}: {} in, {} out", grouped(arrived), grouped(sent));
        match (now.inbound == Enforce, now.outbound == Enforce) {
            (true, true) => format!("{all}; now, they are dropped"),
            (true, false) if sent == 0 => format!("{all}; now, they are dropped"),
            (false, false) if sent == 0 => format!("{all}, which enforcing would drop"),
            (true, false) => {
                format!(
                    "{}; now, what arrives is dropped, what is sent only counted",
                    apart()
                )
            }
            (false, true) => {
                format!(
                    "{}; now, what is sent is dropped, what arrives only counted",
                    apart()
                )
            }
            (false, false) => format!(
                "{all}: {} in, which enforcing would drop; {} out, which only enforcing outbound would",
                grouped(arrived),
                grouped(sent)
            ),
        }
    }

    /// What passed and is counted for no port, with what that is: answers, ARP and the like.
    pub fn passed_without_port(&self) -> impl Iterator<Item = (&ReasonCount, &'static str)> {
        self.reasons.iter().filter_map(|one| {
            let passes = Reason::ALL
                .into_iter()
                .filter(|reason| !reason.is_violation());
            let mut passes = passes.filter(|reason| *reason != Reason::Granted);
            let reason = passes.find(|reason| reason.name(Direction::Ingress) == one.reason)?;
            Some((one, described(reason, one.direction)))
        })
    }

    /// Packets of the same reason and direction as another count.
    pub fn packets_like(&self, other: &ReasonCount) -> u64 {
        let is_same =
            |one: &&ReasonCount| (one.direction, &one.reason) == (other.direction, &other.reason);
        self.reasons
            .iter()
            .find(is_same)
            .map_or(0, |one| one.packets)
    }

    /// Tells a snapshot in the words of the generation in force.
    pub fn new(name: &str, meta: &Meta, snapshot: &Snapshot) -> Self {
        let reasons = reasons(meta, snapshot);
        let (totals, violations) = sums(&reasons);
        Self {
            name: name.to_owned(),
            warnings: Vec::new(),
            generation: meta.number,
            digest: meta.digest.clone(),
            mode: meta.policy.settings.mode(),
            outbound: meta.policy.settings.outbound.name(),
            effective: Effective::of(&meta.policy.settings),
            since: None,
            reset: None,
            totals,
            violations,
            reasons,
            causes: causes(snapshot),
            ports: ports(meta, snapshot),
            rows: rows(meta, snapshot),
            peers: peers(meta, snapshot),
        }
    }
}

/// What a packet was that passed for this reason, by no row.
fn described(reason: Reason, direction: &str) -> &'static str {
    match reason {
        Reason::Reply if direction == Direction::Ingress.name() => "answers in own conversations",
        Reason::Reply => "answers to admitted peers",
        Reason::Arp => "link addresses",
        Reason::NonIp => "neither IP nor ARP",
        Reason::Fragment => "later fragments",
        Reason::IcmpEssential => "ICMP errors, neighbours",
        Reason::EchoReply => "answers to ping",
        Reason::Transit => "not for this host",
        Reason::OtherHost => "for others on the link",
        Reason::Granted
        | Reason::UndocumentedPort
        | Reason::UndocumentedPeer
        | Reason::UndocumentedProtocol
        | Reason::Malformed
        | Reason::Icmp
        | Reason::StrictFragment
        | Reason::StrictEthertype => "",
    }
}

/// All packets, and violations among them: what a report says of both, without what takes longer.
pub(crate) fn totals(meta: &Meta, snapshot: &Snapshot) -> (Count, Count) {
    sums(&reasons(meta, snapshot))
}

fn sums(reasons: &[ReasonCount]) -> (Count, Count) {
    let (mut totals, mut violations) = (Count::default(), Count::default());
    for reason in reasons {
        let counter = Counter {
            packets: reason.packets,
            bytes: reason.bytes,
        };
        totals.add(counter);
        if reason.violation {
            violations.add(counter);
        }
    }
    (totals, violations)
}

fn reasons(meta: &Meta, snapshot: &Snapshot) -> Vec<ReasonCount> {
    let mut sums: BTreeMap<(bool, bool, String), Count> = BTreeMap::new();
    for (cell, counter) in meta.directory.cells.iter().zip(&snapshot.cells) {
        let place = (cell.egress, false, cell.reason().to_owned());
        sums.entry(place).or_default().add(*counter);
    }
    for ((egress, reason), counter) in &snapshot.totals {
        let name = reason.reason().name(direction(*egress)).to_owned();
        sums.entry((*egress, true, name)).or_default().add(*counter);
    }
    for egress in [false, true] {
        for reason in Reason::ALL {
            let index = slot::reason(direction(egress), reason) as usize;
            let counter = snapshot.slots.get(index).copied().unwrap_or_default();
            let name = reason.name(direction(egress)).to_owned();
            sums.entry((egress, reason.is_violation(), name))
                .or_default()
                .add(counter);
        }
    }
    sums.into_iter()
        .filter(|(_, count)| count.packets > 0)
        .map(
            |((egress, violation, reason), Count { packets, bytes })| ReasonCount {
                direction: direction(egress).name(),
                reason,
                violation,
                packets,
                bytes,
            },
        )
        .collect()
}

fn ports(meta: &Meta, snapshot: &Snapshot) -> Vec<PortCount> {
    // There may be as many as there are ports: none is kept twice, and no room is made for more.
    let mut lines: BTreeMap<PortPlace, PortCount> = BTreeMap::new();
    let mut all: Vec<PortCount> =
        Vec::with_capacity(snapshot.violations.len() + meta.directory.cells.len());
    let line = |egress, space, first, last| PortCount {
        direction: direction(egress).name(),
        transport: transport(space, first),
        port: first,
        port_last: (first != last).then_some(last),
        documented: false,
        rows: Vec::new(),
        passed: Count::default(),
        violations: Packets::default(),
    };
    for (cell, counter) in meta.directory.cells.iter().zip(&snapshot.cells) {
        let Cell {
            egress,
            space,
            first,
            last,
            ..
        } = *cell;
        let entry = lines
            .entry((egress, space, first, last))
            .or_insert_with(|| line(egress, space, first, last));
        entry.passed.add(*counter);
        for row in &cell.rows {
            if !entry.rows.contains(row) {
                entry.rows.push(row.clone());
            }
        }
    }
    for (&(egress, key), &packets) in &snapshot.violations {
        let (Ok(space), number) = (u8::try_from(key.space()), key.number()) else {
            continue;
        };
        let place = (egress, space, number, number);
        let violations = Packets { packets };
        if let Some(entry) = lines.get_mut(&place) {
            entry.violations = violations;
        } else if packets > 0 {
            let line = line(egress, space, number, number);
            all.push(PortCount { violations, ..line });
        }
    }
    all.extend(lines.into_values());
    all.sort_unstable_by_key(place_of);
    let open = [spans(&meta.policy.inbound), spans(&meta.policy.outbound)];
    for entry in &mut all {
        let (egress, space, first, last) = place_of(entry);
        let spans = open
            .get(usize::from(egress))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let of = transport_of(space);
        if let Some(span) = of.and_then(|of| covering(spans, of, (first, last))) {
            entry.documented = true;
            for grant in &span.grants {
                if !entry.rows.contains(&grant.row) {
                    entry.rows.push(grant.row.clone());
                }
            }
        }
        if space == 3 {
            entry.documented = !entry.rows.is_empty();
        }
        entry.rows.sort();
    }
    all.retain(|line| line.documented || line.passed.packets > 0 || line.violations.packets > 0);
    all
}

/// Where a count stands among others: by direction, transport and port.
fn place_of(line: &PortCount) -> PortPlace {
    let last = line.port_last.unwrap_or(line.port);
    (
        line.direction == direction(true).name(),
        space_named(line.transport),
        line.port,
        last,
    )
}

fn rows(meta: &Meta, snapshot: &Snapshot) -> Vec<RowCount> {
    let mut sums: BTreeMap<&str, Count> = BTreeMap::new();
    for (cell, counter) in meta.directory.cells.iter().zip(&snapshot.cells) {
        for row in &cell.rows {
            sums.entry(row).or_default().add(*counter);
        }
    }
    sums.into_iter()
        .map(|(row, Count { packets, bytes })| {
            let facts = meta.policy.facts(row);
            RowCount {
                row: row.to_owned(),
                role: facts.and_then(|facts| facts.role.clone()),
                purpose: facts.map(|facts| facts.purpose.clone()).unwrap_or_default(),
                citation: facts
                    .map(|facts| facts.citation.clone())
                    .unwrap_or_default(),
                packets,
                bytes,
            }
        })
        // What no policy has any more, and nobody used, is gone.
        .filter(|row| row.packets > 0 || !row.citation.is_empty())
        .collect()
}
