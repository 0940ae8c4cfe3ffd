//! Grants to table entries: ranges that overlap freely are cut into spans that do not.

use std::collections::{BTreeMap, BTreeSet};

use portguard_common::reason::Direction;
use portguard_common::tables::{Ending, Entry, Key, MAX_ENDINGS, Rule};

use super::TooLarge;
use super::classes::Classes;
use super::endings::{Endings, times};
use crate::catalog::Transport;
use crate::cells::{Cell, Directory};
use crate::human::range;
use crate::policy::{Grant, GrantKind, Peers, Policy};

/// Ports of one transport that the same grants cover, in precedence order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span<'a> {
    /// Transport.
    pub transport: Transport,
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
    /// The grants; never empty.
    pub grants: Vec<&'a Grant>,
}

impl Span<'_> {
    /// Whether it has this port.
    pub fn covers(&self, transport: Transport, port: u16) -> bool {
        self.transport == transport && (self.first..=self.last).contains(&port)
    }

    /// `tcp/443`, `udp/8000-8010`.
    pub fn ports(&self) -> String {
        format!("{}/{}", self.transport, range(self.first, self.last))
    }
}

/// Which grants of a span an address class has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variant(pub Vec<usize>);

/// Spans with at most this many cells count each port by itself.
pub(crate) const SINGLE_PORTS: usize = 64;

/// Cuts the grants of one direction into disjoint spans, sorted by transport and port.
pub fn spans(grants: &[Grant]) -> Vec<Span<'_>> {
    let mut result = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
        // What starts and what ends at a port; 65,536 ends the space.
        let mut starts: BTreeMap<u32, Vec<&Grant>> = BTreeMap::new();
        let mut cuts: BTreeSet<u32> = BTreeSet::new();
        for grant in grants.iter().filter(|grant| grant.transport == transport) {
            starts
                .entry(u32::from(grant.first))
                .or_default()
                .push(grant);
            cuts.insert(u32::from(grant.first));
            cuts.insert(u32::from(grant.last) + 1);
        }
        let mut live: Vec<&Grant> = Vec::new();
        let cuts: Vec<u32> = cuts.into_iter().collect();
        for (first, next) in cuts.iter().zip(cuts.iter().skip(1)) {
            live.retain(|grant| u32::from(grant.last) >= *first);
            live.extend(starts.remove(first).unwrap_or_default());
            live.sort();
            live.dedup();
            if let (false, Ok(first), Ok(last)) = (
                live.is_empty(),
                u16::try_from(*first),
                u16::try_from(next - 1),
            ) {
                result.push(Span {
                    transport,
                    first,
                    last,
                    grants: live.clone(),
                });
            }
        }
    }
    result
}

/// The span that has all ports of a range, of those that [`spans`] made.
pub fn covering<'s, 'a>(
    spans: &'s [Span<'a>],
    transport: Transport,
    (first, last): (u16, u16),
) -> Option<&'s Span<'a>> {
    let after = spans.partition_point(|span| (span.transport, span.first) <= (transport, first));
    let span = spans.get(after.checked_sub(1)?)?;
    (span.transport == transport && last <= span.last).then_some(span)
}

/// A column of the admission matrix.
pub(super) struct PeerClass {
    /// Variant by address class: 0 = not admitted, else the index into `grants` plus one.
    pub(super) variants: Vec<u32>,
    /// The distinct variants.
    grants: Vec<Variant>,
}

pub(super) struct Built {
    pub(super) rules: Vec<u32>,
    pub(super) peer_classes: Vec<PeerClass>,
    pub(super) directory: Directory,
    pub(super) endings: Vec<Ending>,
}

pub(super) struct Builder<'a> {
    policy: &'a Policy,
    classes: &'a Classes,
    directory: Directory,
    index: BTreeMap<Cell, Vec<u16>>,
    known: BTreeMap<Vec<Peers>, u16>,
    peer_classes: Vec<PeerClass>,
    rules: Vec<u32>,
    endings: Endings,
}

/// One thing to be looked up: a port space with a range, and who is granted it for which rows.
struct Item<'a> {
    egress: bool,
    space: u8,
    first: u16,
    last: u16,
    grants: Vec<(GrantKind, Peers, &'a str)>,
    /// When each of these ends; empty if none does.
    ends: Vec<Option<u64>>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(policy: &'a Policy, classes: &'a Classes, directory: Directory) -> Self {
        let index = directory.index();
        Self {
            policy,
            classes,
            directory,
            index,
            known: BTreeMap::new(),
            peer_classes: Vec::new(),
            rules: Vec::new(),
            endings: Endings::default(),
        }
    }

    pub(super) fn finish(self) -> Built {
        let Self {
            directory,
            peer_classes,
            rules,
            endings,
            ..
        } = self;
        Built {
            rules,
            peer_classes,
            directory,
            endings: endings.into_table(),
        }
    }

    /// The entry table of one direction.
    pub(super) fn direction(&mut self, direction: Direction) -> Result<Vec<u16>, TooLarge> {
        let egress = direction == Direction::Egress;
        let policy = self.policy;
        let mut table = vec![0u16; Key::COUNT as usize];
        if !egress {
            for &(transport, first, last) in &policy.settings.audit_ports {
                let space = transport.space();
                for port in first..=last {
                    put(&mut table, Key::port(space, port).0, Entry::AUDIT);
                }
            }
        }
        for span in spans(policy.grants(direction)) {
            let grants = span
                .grants
                .iter()
                .map(|g| (g.kind, g.peers, g.row.as_str()))
                .collect();
            let ends = times(&span.grants);
            self.place(
                &mut table,
                &Item {
                    egress,
                    space: u8::try_from(span.transport.space()).unwrap_or(u8::MAX),
                    first: span.first,
                    last: span.last,
                    grants,
                    ends,
                },
            )?;
        }
        let protocol = |number, grants| Item {
            egress,
            space: 3,
            first: number,
            last: number,
            grants,
            ends: Vec::new(),
        };
        let mut protocols: BTreeMap<u8, Vec<(GrantKind, Peers, &str)>> = BTreeMap::new();
        for grant in &policy.protocols {
            let grants = protocols.entry(grant.protocol).or_default();
            grants.push((GrantKind::Site, grant.peers, &grant.row));
        }
        for (number, grants) in protocols {
            let number = u16::from(number);
            self.place(&mut table, &protocol(number, grants))?;
        }
        // The host may always ping; who may ping the host is the site's choice.
        let echo = if egress {
            Some(Peers::Any)
        } else {
            policy.echo
        };
        if let Some(peers) = echo {
            let number = Key::ECHO.number();
            let grants = vec![(GrantKind::Baseline, peers, "baseline/echo")];
            self.place(&mut table, &protocol(number, grants))?;
        }
        Ok(table)
    }

    fn place(&mut self, table: &mut [u16], item: &Item<'_>) -> Result<(), TooLarge> {
        let count = usize::from(item.last - item.first) + 1;
        let signature: Vec<Peers> = item.grants.iter().map(|(_, peers, _)| *peers).collect();
        let is_open = signature.iter().all(|peers| *peers == Peers::Any);
        let (peer_class, variants) = if is_open {
            (0, vec![Variant((0..signature.len()).collect())])
        } else {
            let class = self.peer_class(signature)?;
            (
                class,
                self.peer_classes
                    .get(usize::from(class))
                    .map(|c| c.grants.clone())
                    .unwrap_or_default(),
            )
        };
        let is_audit = !item.grants.is_empty()
            && item
                .grants
                .iter()
                .all(|(_, _, row)| self.policy.is_audited(row));
        let ranges: Vec<(u16, u16)> = if count * variants.len() <= SINGLE_PORTS {
            (item.first..=item.last).map(|port| (port, port)).collect()
        } else {
            vec![(item.first, item.last)]
        };
        for (first, last) in ranges {
            let run: Vec<Cell> = variants
                .iter()
                .map(|variant| cell(item, first, last, variant))
                .collect();
            let base = self.cells(&run)?;
            let stays_audit = (first..=last).all(|port| {
                let key = Key::port(u32::from(item.space), port).0;
                let kept = table.get(key as usize).copied().unwrap_or(0);
                kept & Entry::AUDIT != 0
            });
            let closed = if is_audit && !stays_audit {
                Ending::CLOSED_WITH_AUDIT
            } else {
                Ending::CLOSED
            };
            if !item.ends.is_empty() {
                let numbers = (base..).take(variants.len());
                self.endings.taken.extend(numbers);
                for (variant, number) in variants.iter().zip(base..) {
                    self.follow(item, (first, last), variant, (number, closed))?;
                }
            }
            let mut entry = if is_open {
                base
            } else {
                let rule = u16::try_from(self.rules.len())
                    .ok()
                    .filter(|rule| *rule <= Entry::INDEX);
                let rule = rule.ok_or(TooLarge::Rules)?;
                self.rules.push(Rule::new(peer_class, base).0);
                if closed == Ending::CLOSED_WITH_AUDIT {
                    self.endings.end_rule(rule, &item.ends);
                }
                rule | Entry::RESTRICTED
            };
            if is_audit {
                entry |= Entry::AUDIT;
            }
            for port in first..=last {
                let key = Key::port(u32::from(item.space), port).0;
                let kept = table.get(key as usize).copied().unwrap_or(0) & Entry::AUDIT;
                put(table, key, entry | kept);
            }
        }
        Ok(())
    }

    /// The column for a list of peers: which of them each address class is among.
    fn peer_class(&mut self, signature: Vec<Peers>) -> Result<u16, TooLarge> {
        if let Some(class) = self.known.get(&signature) {
            return Ok(*class);
        }
        let mut grants: Vec<Variant> = Vec::new();
        let variants = self
            .classes
            .members
            .iter()
            .map(|sets| {
                let admitted: Vec<usize> = signature
                    .iter()
                    .enumerate()
                    .filter(|(_, peers)| match peers {
                        Peers::Any => true,
                        Peers::Set(set) => sets.binary_search(set).is_ok(),
                    })
                    .map(|(index, _)| index)
                    .collect();
                if admitted.is_empty() {
                    return 0;
                }
                let variant = Variant(admitted);
                let index = grants
                    .iter()
                    .position(|known| *known == variant)
                    .unwrap_or_else(|| {
                        grants.push(variant);
                        grants.len() - 1
                    });
                u32::try_from(index + 1).unwrap_or(0)
            })
            .collect();
        let class = u16::try_from(self.peer_classes.len()).map_err(|_large| {
            TooLarge::Admission(self.classes.members.len(), usize::from(u16::MAX))
        })?;
        self.peer_classes.push(PeerClass { variants, grants });
        self.known.insert(signature, class);
        Ok(class)
    }

    /// Says what is left of a variant's cell after each ending.
    fn follow(
        &mut self,
        item: &Item<'_>,
        (first, last): (u16, u16),
        variant: &Variant,
        (mut number, closed): (u16, u32),
    ) -> Result<(), TooLarge> {
        let end_of = |index: usize| item.ends.get(index).copied().flatten();
        let mut left = variant.clone();
        for _ in 0..MAX_ENDINGS {
            let Some(at) = left.0.iter().filter_map(|index| end_of(*index)).min() else {
                return Ok(());
            };
            left.0.retain(|index| end_of(*index) != Some(at));
            let is_closed = item.ends.iter().all(|end| end.is_some_and(|end| end <= at));
            let next = if left.0.is_empty() {
                0
            } else {
                self.cell_left(&cell(item, first, last, &left))?
            };
            let left = if is_closed { closed } else { Ending::OTHERS };
            self.endings.end_cell(number, at, (next, left));
            number = next;
        }
        if left.0.iter().any(|index| end_of(*index).is_some()) {
            return Err(TooLarge::Endings);
        }
        Ok(())
    }

    /// A cell of this meaning for what is left after an ending: of its own, since what it counts next may end differently.
    fn cell_left(&mut self, meaning: &Cell) -> Result<u16, TooLarge> {
        let known = self.index.get(meaning).into_iter().flatten();
        let free = known
            .copied()
            .find(|number| !self.endings.taken.contains(number));
        let number = match free {
            Some(number) => number,
            None => self.push(std::slice::from_ref(meaning))?,
        };
        self.endings.taken.insert(number);
        Ok(number)
    }

    /// The first cell of a run with these meanings: where it was, or at the end.
    fn cells(&mut self, run: &[Cell]) -> Result<u16, TooLarge> {
        let Some(head) = run.first() else {
            return Ok(0);
        };
        for &first in self.index.get(head).into_iter().flatten() {
            let at = usize::from(first) - 1;
            if self.directory.cells.get(at..at + run.len()) == Some(run) {
                return Ok(first);
            }
        }
        self.push(run)
    }

    fn push(&mut self, run: &[Cell]) -> Result<u16, TooLarge> {
        let first = self.directory.push(run).ok_or(TooLarge::Cells)?;
        for (cell, number) in run.iter().zip(first..) {
            self.index.entry(cell.clone()).or_default().push(number);
        }
        Ok(first)
    }
}

fn cell(item: &Item<'_>, first: u16, last: u16, variant: &Variant) -> Cell {
    let admitted = || variant.0.iter().filter_map(|index| item.grants.get(*index));
    let mut rows: Vec<String> = admitted().map(|(_, _, row)| (*row).to_owned()).collect();
    rows.sort();
    rows.dedup();
    let kind = admitted()
        .map(|(kind, _, _)| *kind)
        .min()
        .unwrap_or(GrantKind::Site);
    Cell {
        egress: item.egress,
        space: item.space,
        first,
        last,
        kind,
        rows,
    }
}

fn put(table: &mut [u16], key: u32, value: u16) {
    if let Some(entry) = table.get_mut(key as usize) {
        *entry = value;
    }
}
