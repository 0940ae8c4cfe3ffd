//! What a site says of who a document's peers are: which of its words are about which row.

use super::narrow::{self, End};
use crate::catalog::{Peer, PeerClass, Row, System};
use crate::site::{Site, SystemSite, Who};

/// Whether a key of a system's `peers` says who a printed peer is.
pub(super) fn is_about(key: &str, peer: &Peer, system: &System, row: &Row) -> bool {
    let has = |role: &str| system.closure(key).contains(role);
    match peer {
        Peer::Role(role) => has(role),
        Peer::SameRole => has(&row.role),
        Peer::Group(group) => group == key,
        Peer::Asn(number) => key.strip_prefix("asn:") == Some(number.to_string().as_str()),
        Peer::Domain(name) => key.strip_prefix("domain:") == Some(name.as_str()),
        Peer::Multicast => key == "multicast",
        Peer::Unprinted => row.class == Some(PeerClass::ClusterMembers) && has(&row.role),
        Peer::Prefix(_) | Peer::Itself => false,
    }
}

/// Who is meant where a row prints no peer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Unprinted<'s> {
    /// By the row's own answer, or that of its class.
    pub(super) particular: Option<&'s Who>,
    /// By the one answer for all rows.
    pub(super) general: Option<&'s Who>,
}

/// The row's own answer, then that of its class, then the general one; the system's before the site's.
pub(super) fn unprinted<'s>(
    site: &'s Site,
    view: &'s SystemSite,
    system: &System,
    row: &Row,
) -> Unprinted<'s> {
    let of_row = view.of_row(&system.id, &row.id, |settings| {
        settings.unprinted_peers.as_ref()
    });
    let of_class = row.class.and_then(|class| {
        let said = view.unprinted_classes.get(&class);
        let site = || {
            let general = view.unprinted_peers.is_none();
            general.then(|| site.unprinted_classes.get(&class))?
        };
        said.or_else(site).map(|(who, _)| who)
    });
    let general = view.unprinted_peers.as_ref();
    Unprinted {
        particular: of_row.or(of_class),
        general: general.or(site.unprinted_peers.as_ref()),
    }
}

/// All that is said of who a row's peers are, at either of its ends.
pub(super) fn of<'s>(
    site: &'s Site,
    view: &'s SystemSite,
    system: &System,
    row: &Row,
) -> Vec<&'s Who> {
    let is_printed = |key: &str| {
        let mut peers = row.peers.iter();
        peers.any(|peer| is_about(key, peer, system, row))
    };
    let given = view.peers.iter().filter(|(key, _)| is_printed(key));
    let mut found: Vec<&Who> = given.map(|(_, (who, _))| who).collect();
    if row.peers.contains(&Peer::Unprinted) {
        let unprinted = unprinted(site, view, system, row);
        found.extend(unprinted.particular.or(unprinted.general));
    }
    // A narrowed row whose peers nobody gives is for whom the narrowing says.
    found.extend(narrow::plain(view, system, row));
    found.extend(narrow::only(view, system, row, End::Sender));
    found.extend(narrow::only(view, system, row, End::Listener));
    found
}
