//! What was counted, by port: as many ports may have been scanned as there are.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{Views, transport_of};
use crate::counters::PortCount;
use crate::talkers::TopTalker;
use portguard_policy::catalog::Transport;

/// Direction, transport and port.
type Place = (&'static str, Transport, u16);

/// The counters and talkers of the views, to be found by port.
pub(super) struct Seen<'v> {
    /// Counts of one port.
    single: BTreeMap<Place, Vec<&'v PortCount>>,
    /// Counts of a range, which only documents have.
    wide: Vec<(Transport, RangeInclusive<u16>, &'v PortCount)>,
    /// With their places among all, which are in order.
    talkers: BTreeMap<Place, Vec<(usize, &'v TopTalker)>>,
}

impl<'v> Seen<'v> {
    pub(super) fn new(views: &Views<'v>) -> Self {
        let mut seen = Self {
            single: BTreeMap::new(),
            wide: Vec::new(),
            talkers: BTreeMap::new(),
        };
        for line in views.seen.iter().flat_map(|report| &report.ports) {
            let Some(transport) = transport_of(line.transport) else {
                continue;
            };
            if let Some(last) = line.port_last {
                seen.wide.push((transport, line.port..=last, line));
            } else {
                let place = (line.direction, transport, line.port);
                seen.single.entry(place).or_default().push(line);
            }
        }
        for (index, talker) in views.talkers.iter().enumerate() {
            if let Some(transport) = transport_of(talker.transport) {
                let Some(port) = talker.port else { continue };
                let place = (talker.direction, transport, port);
                seen.talkers.entry(place).or_default().push((index, talker));
            }
        }
        seen
    }

    /// The counts of ports in a range.
    pub(super) fn lines(
        &self,
        direction: &'static str,
        transport: Transport,
        (first, last): (u16, u16),
    ) -> impl Iterator<Item = &'v PortCount> {
        let places = (direction, transport, first)..=(direction, transport, last);
        let single = self.single.range(places).flat_map(|(_, lines)| lines);
        let wide = self.wide.iter().filter(move |(of, range, line)| {
            *of == transport
                && line.direction == direction
                && *range.start() <= last
                && first <= *range.end()
        });
        single.copied().chain(wide.map(|(_, _, line)| *line))
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
