//! What a site's words on a row mean at its two ends.
//!
//! `only` of a row says who may connect to its listener. Whoever would connect and is not among them may not send, either:
//! both ends follow from one statement. `ID/out`, or `ID` of a row that only sends, narrows where a row's hosts may connect to in the same way, and a row that no
//! host of the site listens for has only that end.

use crate::catalog::{Direction, Peer, PeerClass, Row, System};
use crate::site::{Host, Interface, SystemSite, Who, names_row};

/// Which end of a row a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Who may connect.
    Listener,
    /// Where to connect to.
    Sender,
}

/// A row's id without its end.
pub(super) fn base(id: &str) -> &str {
    let system = id.find('/').map_or(0, |at| at + 1);
    let rest = id.get(system..).unwrap_or_default();
    let length = rest.find('/').unwrap_or(rest.len());
    id.get(..system + length).unwrap_or(id)
}

/// Whether a peer is hosts of the system, which listen themselves where a row sends.
pub(super) fn is_of_system(row: &Row, peer: &Peer) -> bool {
    match peer {
        Peer::Role(_) | Peer::SameRole => true,
        Peer::Unprinted => row.class == Some(PeerClass::ClusterMembers),
        Peer::Group(_)
        | Peer::Prefix(_)
        | Peer::Asn(_)
        | Peer::Domain(_)
        | Peer::Itself
        | Peer::Multicast => false,
    }
}

/// What is said of one end of a row; `row` is of that end.
pub(super) fn only<'s>(
    said: &'s SystemSite,
    system: &System,
    row: &Row,
    end: End,
) -> Option<&'s Who> {
    let mut plain = None;
    for (key, settings) in &said.rows {
        let Some(rest) = end_of(key, system, row) else {
            continue;
        };
        let is_of_end = match end {
            End::Listener => rest.starts_with("/in") || rest.starts_with("/both"),
            End::Sender => rest.starts_with("/out"),
        };
        // A statement on one of several far roles is for that one.
        let is_of_row = names_row(key, &system.id, &row.id) || !is_end_of(&row.id, end);
        if is_of_end && is_of_row && settings.only.is_some() {
            return settings.only.as_ref();
        }
        let is_whole = end == End::Listener || is_lone_sender(row);
        if rest.is_empty() && is_whole {
            plain = settings.only.as_ref();
        }
    }
    plain
}

/// Whether a document prints the sending end as a row by itself: what is said of it is about where to connect to.
pub(super) fn is_lone_sender(row: &Row) -> bool {
    row.direction == Direction::Out && base(&row.id) == row.id
}

/// What is said of a row as a whole.
pub(super) fn plain<'s>(said: &'s SystemSite, system: &System, row: &Row) -> Option<&'s Who> {
    let mut named = said.rows.iter();
    let is_plain = |key: &str| end_of(key, system, row) == Some("");
    named.find_map(|(key, settings)| settings.only.as_ref().filter(|_| is_plain(key)))
}

/// What follows the row in a key that is about any of its ends.
fn end_of<'k>(key: &'k str, system: &System, row: &Row) -> Option<&'k str> {
    let local = base(&row.id)
        .strip_prefix(system.id.as_str())?
        .strip_prefix('/')?;
    let rest = key.strip_prefix(local)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Whether an id is of this end, and so says all that a key may.
fn is_end_of(id: &str, end: End) -> bool {
    let rest = id.get(base(id).len()..).unwrap_or_default();
    match end {
        End::Listener => rest.starts_with("/in") || rest.starts_with("/both"),
        End::Sender => rest.starts_with("/out"),
    }
}

/// Whether anything is said of any end of a row.
pub(super) fn is_spoken_of(said: &SystemSite, system: &System, row: &Row) -> bool {
    said.rows
        .keys()
        .any(|key| end_of(key, system, row).is_some())
}

/// The rows of the other end, as the catalog has them: those of the same connection, seen from there.
pub(super) fn far_rows<'s>(
    system: &'s System,
    row: &'s Row,
    direction: Direction,
) -> impl Iterator<Item = &'s Row> {
    let base_id = base(&row.id);
    let wanted = if direction == Direction::In {
        Direction::Out
    } else {
        Direction::In
    };
    system.rows.iter().filter(move |far| {
        base(&far.id) == base_id && (far.direction == wanted || far.direction == Direction::Both)
    })
}

/// Whether a host serves a row of one of its roles on any interface.
pub(super) fn is_served(system: &System, row: &Row, host: &Host) -> bool {
    let serves = |interface: &Interface| {
        let roles = interface.roles.iter().chain(&host.roles);
        let mut roles = roles.filter_map(|(role, _)| role.split_once('/'));
        let is_of = |role: &str| system.closure(role).contains(row.role.as_str());
        roles.any(|(of, role)| of == system.id && is_of(role)) && interface.serves(&row.id)
    };
    host.interfaces.is_empty() || host.interfaces.values().any(serves)
}
