//! Whether the reason given for a row that opens nothing is true.

use crate::catalog::Catalog;
use crate::site::{Host, Site};

/// Looks a reason up in the site, with none of the compiler's tables.
pub(super) fn is_true(catalog: &Catalog, site: &Site, own: &Host, reason: &str) -> bool {
    let word = |after: &str| {
        let rest = reason.split_once(after)?.1;
        Some(
            rest.split([' ', ';', '`', ','])
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let has = |host: &Host, id: &str| {
        let (system, role) = id.split_once('/').unwrap();
        host.roles.iter().any(|(own, _)| {
            let (of, own) = own.split_once('/').unwrap();
            of == system && catalog.systems[of].closure(own).contains(role)
        })
    };
    let clusters = |host: &Host| {
        host.cluster
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    let others = |id: &str| {
        let hosts = site
            .hosts
            .iter()
            .filter(|host| host.name != own.name && has(host, id));
        hosts
            .map(|host| clusters(host) == clusters(own))
            .collect::<Vec<bool>>()
    };
    if reason.starts_with("no other host of the site has") {
        return reason
            .split("role ")
            .skip(1)
            .all(|rest| others(rest.split([',', ';', ' ']).next().unwrap()).is_empty());
    }
    if reason.starts_with("no other host of its clusters has") {
        return reason.split("role ").skip(1).all(|rest| {
            let id = rest.split([',', ';', ' ']).next().unwrap();
            others(id).iter().all(|is_related| !is_related)
        });
    }
    if reason.contains("belong to other clusters") {
        let others = others(&word("with role ").unwrap());
        return !others.is_empty() && others.iter().all(|is_related| !is_related);
    }
    if reason.starts_with("cluster members have the same role") {
        let id = word("host has ").unwrap();
        let mut hosts = site
            .hosts
            .iter()
            .filter(|host| host.name != own.name && clusters(host) == clusters(own));
        return !others(&id).is_empty()
            && !hosts.any(|host| host.roles.iter().any(|(own, _)| *own == id));
    }
    if let Some(name) =
        word("towards `").or_else(|| word("`").filter(|_| reason.contains("no other role")))
    {
        return site
            .host(&name)
            .is_some_and(|other| other.name != own.name && clusters(other) == clusters(own));
    }
    if reason.starts_with("the site does not define") {
        let key = word("define `").unwrap();
        let system = word("` of ").unwrap();
        let said = site.systems.get(&system).into_iter();
        let said = said.chain(own.systems.get(&system));
        return !said
            .flat_map(|said| said.peers.keys())
            .any(|known| *known == key);
    }
    reason == "a host is never its own peer"
        || reason.starts_with("the site's `only` leaves none")
        || reason.starts_with("domain ")
        || (reason.starts_with("the site gives no peers for") && reason.contains(own.name.as_str()))
}
