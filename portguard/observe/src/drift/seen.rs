//! What was counted, by port: as many ports may have been scanned as there are.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Sight;
use crate::counters::PortCount;
use crate::talkers::TopTalker;
use portguard_kernel::host::listeners::Listener;
use portguard_policy::catalog::Transport;

/// Direction, transport and port.
type Place = (&'static str, Transport, u16);

/// What listens, and the counters and talkers of some interfaces, to be found by port.
pub(super) struct Seen<'v> {
    listeners: BTreeMap<(Transport, u16), Vec<&'v Listener>>,
    /// Counts of one port, in order: as many as there are ports, at each interface.
    single: Vec<(Place, &'v PortCount)>,
    /// Counts of a range, which only documents have.
    wide: Vec<(Transport, RangeInclusive<u16>, &'v PortCount)>,
    /// With their places among all, heaviest first.
    talkers: BTreeMap<Place, Vec<(usize, &'v TopTalker)>>,
}

impl<'v> Seen<'v> {
    pub(super) fn new(sights: &'v [Sight], listeners: &'v [Listener]) -> Self {
        let mut seen = Self {
            listeners: BTreeMap::new(),
            single: Vec::new(),
            wide: Vec::new(),
            talkers: BTreeMap::new(),
        };
        for one in listeners {
            let place = (one.transport, one.port);
            seen.listeners.entry(place).or_default().push(one);
        }
        for line in sights.iter().flat_map(|sight| &sight.report.ports) {
            let Ok(transport) = line.transport.parse() else {
                continue;
            };
            if let Some(last) = line.port_last {
                seen.wide.push((transport, line.port..=last, line));
            } else {
                let place = (line.direction, transport, line.port);
                seen.single.push((place, line));
            }
        }
        seen.single.sort_unstable_by_key(|(place, _)| *place);
        let mut talkers: Vec<&TopTalker> = sights.iter().flat_map(|sight| &sight.talkers).collect();
        talkers.sort_by_key(|talker| Reverse(talker.packets));
        for (index, talker) in talkers.into_iter().enumerate() {
            if let Ok(transport) = talker.transport.parse() {
                let Some(port) = talker.port else { continue };
                let place = (talker.direction, transport, port);
                seen.talkers.entry(place).or_default().push((index, talker));
            }
        }
        seen
    }

    /// What listens on ports of a range.
    pub(super) fn listeners(
        &self,
        transport: Transport,
        (first, last): (u16, u16),
    ) -> impl Iterator<Item = &'v Listener> {
        let places = (transport, first)..=(transport, last);
        let of = self.listeners.range(places).flat_map(|(_, of)| of);
        of.copied()
    }

    /// The counts of ports in a range.
    pub(super) fn lines(
        &self,
        direction: &'static str,
        transport: Transport,
        (first, last): (u16, u16),
    ) -> impl Iterator<Item = &'v PortCount> {
        let places = (direction, transport, first)..=(direction, transport, last);
        let begin = self
            .single
            .partition_point(|(place, _)| place < places.start());
        let single = self.single.iter().skip(begin);
        let single = single.take_while(move |(place, _)| place <= places.end());
        let wide = self.wide.iter().filter(move |(of, range, line)| {
            *of == transport
                && line.direction == direction
                && *range.start() <= last
                && first <= *range.end()
        });
        single
            .map(|(_, line)| *line)
            .chain(wide.map(|(_, _, line)| *line))
    }

    /// The talkers of ports in a range, heaviest first.
    pub(super) fn talkers(
        &self,
        direction: &'static str,
        transport: Transport,
        (first, last): (u16, u16),
    ) -> Vec<&'v TopTalker> {
        let places = (direction, transport, first)..=(direction, transport, last);
        let of = self.talkers.range(places).flat_map(|(_, talkers)| talkers);
        let mut of: Vec<(usize, &TopTalker)> = of.copied().collect();
        of.sort_by_key(|(index, _)| *index);
        of.into_iter().map(|(_, talker)| talker).collect()
    }
}
