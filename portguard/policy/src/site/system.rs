//! What the site says of one system, and of its rows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{Place, Ports, Who};
use crate::catalog::PeerClass;

/// What the site says of one system.
#[derive(Debug, Clone, Default)]
pub struct SystemSite {
    /// The one deployment chosen.
    pub deployment: Option<(String, Place)>,
    /// Dotted version, as parts.
    pub version: Option<(Vec<u32>, Place)>,
    /// Options turned on.
    pub options: BTreeMap<String, Place>,
    /// Options turned off, where the document has them on.
    pub without: BTreeMap<String, Place>,
    /// Of each exclusive alternative, the value chosen.
    pub choices: BTreeMap<String, Chosen>,
    /// Who the document's groups, roles, `asn:N` and `domain:NAME` are at this site.
    pub peers: BTreeMap<String, (Who, Place)>,
    /// Who is meant where this document prints no peer.
    pub unprinted_peers: Option<Who>,
    /// The same by class of rows, before [`Self::unprinted_peers`].
    pub unprinted_classes: BTreeMap<PeerClass, (Who, Place)>,
    /// Port offsets by role: one for each server of the role on a host.
    pub offsets: BTreeMap<String, (Vec<u16>, Place)>,
    /// Changed ports by row.
    pub ports: BTreeMap<String, (ChangedPorts, Place)>,
    /// Further settings by row.
    pub rows: BTreeMap<String, RowSite>,
    /// Installations that hosts belong to unless they say otherwise; of a host: those of this system, before its others'.
    pub cluster: Vec<(String, Place)>,
    /// Settings of one installation; they override the system's.
    pub clusters: BTreeMap<String, SystemSite>,
    /// Where the system is first spoken of.
    pub place: Place,
}

/// What the site chooses of exclusive alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// One value, or during a change-over the old and the new one.
    pub values: Vec<String>,
    /// Last day (`YYYY-MM-DD`) on which more than the last value holds.
    pub until: Option<String>,
    /// Where.
    pub place: Place,
}

impl Chosen {
    /// When a value ends, in seconds since the Unix epoch: all but the last do, with the change-over.
    pub(crate) fn end_of(&self, value: &str) -> Option<u64> {
        let is_last = self.values.last().is_some_and(|last| last == value);
        let until = self.until.as_deref().filter(|_| !is_last)?;
        end_of_day(until)
    }
}

/// The end of a day (`YYYY-MM-DD`, in UTC), or a moment, in seconds since the Unix epoch.
pub(crate) fn end_of_day(day: &str) -> Option<u64> {
    if let Ok(moment) = day.parse::<Timestamp>() {
        return u64::try_from(moment.as_second()).ok();
    }
    let day: Date = day.parse().ok()?;
    let end = day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
    u64::try_from(end.timestamp().as_second()).ok()
}

/// New port numbers of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedPorts {
    /// In place of the row's own: of its one port, or of several in their order.
    All(Vec<Ports>),
    /// By the port that the document prints.
    Each(BTreeMap<String, Vec<Ports>>),
}

/// What the site says of one catalog row.
#[derive(Debug, Clone, Default)]
pub struct RowSite {
    /// Narrows the row: whoever the document lets in must be among these, too.
    pub only: Option<Who>,
    /// Peers of this row, where the document prints none.
    pub unprinted_peers: Option<Who>,
    /// The row's ports stay in audit.
    pub audit: bool,
    /// Why the row is switched off, if it is.
    pub off: Option<String>,
    /// Where.
    pub place: Place,
}

impl SystemSite {
    /// One part of what is said of a row, by its full id: what is said of its end goes before what is said of the whole.
    pub fn of_row<'s, T>(
        &'s self,
        system: &str,
        row: &str,
        part: impl Fn(&'s RowSite) -> Option<T>,
    ) -> Option<T> {
        let named = self
            .rows
            .iter()
            .filter(|(key, _)| names_row(key, system, row));
        let mut named: Vec<_> = named.collect();
        named.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
        named.into_iter().find_map(|(_, settings)| part(settings))
    }

    /// Why a row is switched off, if it is.
    pub fn off(&self, system: &str, row: &str) -> Option<&str> {
        self.of_row(system, row, |settings| settings.off.as_deref())
    }

    pub(super) fn whos(&self) -> impl Iterator<Item = &Who> {
        let rows = self.rows.values();
        self.unprinted_peers
            .iter()
            .chain(self.unprinted_classes.values().map(|(who, _)| who))
            .chain(self.peers.values().map(|(who, _)| who))
            .chain(rows.flat_map(|row| row.only.iter().chain(&row.unprinted_peers)))
    }
}

/// Whether a row's key in a system's table means a row: its id without the system, or a flow's without its end.
pub fn names_row(key: &str, system: &str, row: &str) -> bool {
    let local = row
        .strip_prefix(system)
        .and_then(|rest| rest.strip_prefix('/'));
    local
        .and_then(|local| local.strip_prefix(key))
        .is_some_and(|rest| {
            rest.is_empty()
                || ["/in", "/out", "/both"]
                    .iter()
                    .any(|end| rest == *end || rest.starts_with(&format!("{end}-")))
        })
}
