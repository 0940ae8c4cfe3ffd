//! Counters: per-CPU maps summed, and told in the words of the policy.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use aya::maps::{Map, MapData, PerCpuArray, PerCpuHashMap};
use portguard_common::abi::{
    CELLS_A_CHUNK, CHUNK_KEYS, CHUNKS, Cells, Counter, SLOTS, Violations, slot,
};
use portguard_common::packet::Malformed;
use portguard_common::reason::{Direction, Reason};
use portguard_common::tables::Key;
use serde::Serialize;

use crate::catalog::Transport;
use crate::cells::Cell;
use crate::image::spans;
use crate::kernel::meta::Meta;

/// Sums over all CPUs at one moment, by number.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grants by cell number less one.
    pub cells: Vec<Counter>,
    /// Violations by direction (egress = true) and key.
    pub violations: BTreeMap<(bool, Key), u64>,
    /// Violations by direction and reason.
    pub totals: BTreeMap<(bool, Keyed), Counter>,
    /// By slot.
    pub slots: Vec<Counter>,
}

/// The reasons whose totals are kept beside the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keyed {
    /// [`Reason::UndocumentedPort`].
    Port,
    /// [`Reason::UndocumentedProtocol`].
    Protocol,
    /// [`Reason::UndocumentedPeer`].
    Peer,
}

impl Keyed {
    fn reason(self) -> Reason {
        match self {
            Self::Port => Reason::UndocumentedPort,
            Self::Protocol => Reason::UndocumentedProtocol,
            Self::Peer => Reason::UndocumentedPeer,
        }
    }
}

fn add(sum: &mut Counter, counter: Counter) {
    sum.packets = sum.packets.wrapping_add(counter.packets);
    sum.bytes = sum.bytes.wrapping_add(counter.bytes);
}

fn open(directory: &Path, name: &str) -> anyhow::Result<MapData> {
    let path = directory.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot read `{}`", path.display()))
}

impl Snapshot {
    /// Reads the shared maps pinned in `shared`; `cells` is how many cells were given out.
    ///
    /// # Errors
    /// If a map is missing or cannot be read.
    pub fn read(shared: &Path, cells: usize) -> anyhow::Result<Self> {
        let mut snapshot = Self {
            cells: vec![Counter::default(); cells],
            ..Self::default()
        };
        snapshot.read_cells(shared)?;
        snapshot.read_violations(shared)?;
        let slots: PerCpuArray<_, Counter> = Map::PerCpuArray(open(shared, "SLOTS")?).try_into()?;
        for index in 0..SLOTS {
            let mut sum = Counter::default();
            slots
                .get(&index, 0)?
                .iter()
                .for_each(|share| add(&mut sum, *share));
            snapshot.slots.push(sum);
        }
        Ok(snapshot)
    }

    fn read_cells(&mut self, shared: &Path) -> anyhow::Result<()> {
        let map: PerCpuArray<_, Cells> = Map::PerCpuArray(open(shared, "CELLS")?).try_into()?;
        // Cell 0 is nobody's, so that number `n` stands at index `n - 1` here.
        let last = u32::try_from(self.cells.len())?;
        for chunk in 0..=last / CELLS_A_CHUNK {
            for share in map.get(&chunk, 0)?.iter() {
                let first = (chunk * CELLS_A_CHUNK) as usize;
                for (counter, number) in share
                    .cells
                    .iter()
                    .zip(first..)
                    .filter(|(_, number)| *number > 0)
                {
                    if let Some(sum) = self.cells.get_mut(number - 1) {
                        add(sum, *counter);
                    }
                }
            }
        }
        Ok(())
    }

    fn read_violations(&mut self, shared: &Path) -> anyhow::Result<()> {
        let map: PerCpuArray<_, Violations> =
            Map::PerCpuArray(open(shared, "VIOLATIONS")?).try_into()?;
        for index in 0..2 * CHUNKS {
            let (egress, chunk) = (index >= CHUNKS, index % CHUNKS);
            let first = chunk * CHUNK_KEYS;
            let closed = if first >= 3 << 16 {
                Keyed::Protocol
            } else {
                Keyed::Port
            };
            for share in map.get(&index, 0)?.iter() {
                add(
                    self.totals.entry((egress, closed)).or_default(),
                    share.closed,
                );
                add(
                    self.totals.entry((egress, Keyed::Peer)).or_default(),
                    share.peer,
                );
                for (count, key) in share
                    .counts
                    .iter()
                    .zip(first..)
                    .filter(|(count, _)| **count > 0)
                {
                    *self.violations.entry((egress, Key(key))).or_default() += u64::from(*count);
                }
            }
        }
        let carry: PerCpuHashMap<_, u32, u64> =
            Map::PerCpuHashMap(open(shared, "CARRY")?).try_into()?;
        for item in &carry {
            let (key, wraps) = item?;
            let place = (key >= Key::COUNT, Key(key % Key::COUNT));
            let wraps: u64 = wraps.iter().sum();
            *self.violations.entry(place).or_default() += wraps << 32;
        }
        Ok(())
    }
}

/// Packets and bytes, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
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
    fn add(&mut self, counter: Counter) {
        self.packets += counter.packets;
        self.bytes += counter.bytes;
    }
}

/// One interface's counters in the words of its policy.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Interface.
    pub name: String,
    /// Generation in force.
    pub generation: u64,
    /// Digest of its policy.
    pub digest: String,
    /// `audit` or `enforce`.
    pub mode: &'static str,
    /// Both directions together.
    pub totals: Count,
    /// By direction and reason; those that never occurred are left out.
    pub reasons: Vec<ReasonCount>,
    /// By direction, transport and port; documented ones always, others that had violations.
    pub ports: Vec<PortCount>,
    /// By row, both directions.
    pub rows: Vec<RowCount>,
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
    /// What it is for.
    pub purpose: String,
    /// Where the document says so.
    pub citation: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

type PortPlace = (bool, u8, u16, u16);

impl Report {
    /// Tells a snapshot in the words of the generation in force.
    pub fn new(name: &str, meta: &Meta, snapshot: &Snapshot) -> Self {
        let reasons = reasons(meta, snapshot);
        let mut totals = Count::default();
        for reason in &reasons {
            totals.packets += reason.packets;
            totals.bytes += reason.bytes;
        }
        Self {
            name: name.to_owned(),
            generation: meta.number,
            digest: meta.digest.clone(),
            mode: if meta.policy.settings.enforce {
                "enforce"
            } else {
                "audit"
            },
            totals,
            reasons,
            ports: ports(meta, snapshot),
            rows: rows(meta, snapshot),
        }
    }
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
    let mut lines: BTreeMap<PortPlace, PortCount> = BTreeMap::new();
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
        let entry = lines
            .entry((egress, space, number, number))
            .or_insert_with(|| line(egress, space, number, number));
        entry.violations.packets += packets;
    }
    let open = [spans(&meta.policy.inbound), spans(&meta.policy.outbound)];
    for (&(egress, space, first, last), entry) in &mut lines {
        let spans = open
            .get(usize::from(egress))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let covering = spans.iter().find(|span| {
            space_of(span.transport) == space && span.first <= first && last <= span.last
        });
        if let Some(span) = covering {
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
    lines
        .into_values()
        .filter(|line| line.documented || line.passed.packets > 0 || line.violations.packets > 0)
        .collect()
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
            let facts = meta.policy.rows.iter().find(|facts| facts.id == row);
            RowCount {
                row: row.to_owned(),
                purpose: facts.map(|facts| facts.purpose.clone()).unwrap_or_default(),
                citation: facts
                    .map(|facts| facts.citation.clone())
                    .unwrap_or_default(),
                packets,
                bytes,
            }
        })
        .collect()
}

/// Details behind the reasons: malformed causes and EtherTypes with their counts, where there are any.
pub fn details(snapshot: &Snapshot) -> Vec<(&'static str, String, Count)> {
    let mut found = Vec::new();
    for side in [Direction::Ingress, Direction::Egress] {
        let mut push = |name: String, slot: u32| {
            let counter = snapshot
                .slots
                .get(slot as usize)
                .copied()
                .unwrap_or_default();
            if counter.packets > 0 {
                found.push((side.name(), name, counter.into()));
            }
        };
        for cause in Malformed::ALL {
            push(
                format!("malformed: {}", cause.name()),
                slot::malformed(side, cause),
            );
        }
        for ethertype in slot::ETHERTYPES {
            push(
                format!("ethertype {ethertype:#06x}"),
                slot::ethertype(side, ethertype),
            );
        }
        push("other ethertypes".to_owned(), slot::ethertype(side, 0));
    }
    found
}

fn direction(egress: bool) -> Direction {
    if egress {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

fn space_of(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 0,
        Transport::Udp => 1,
        Transport::Sctp => 2,
    }
}

fn transport(space: u8, number: u16) -> &'static str {
    match space {
        0 => "tcp",
        1 => "udp",
        2 => "sctp",
        _ if number == Key::ECHO.number() => "icmp",
        _ => "ip",
    }
}
