//! Questions about a catalog: which rows a role has, which role a name means.

use std::collections::{BTreeMap, BTreeSet};

use super::cells::unknown;
use super::report::{nearest, quoted};
use super::{Catalog, Condition, Inert, Peer, PeerClass, Role, Row, System, VersionBound};
use crate::diagnostic::Diagnostic;

impl Catalog {
    /// The system of that id, or what to write instead.
    pub fn system(&self, id: &str) -> Result<&System, Diagnostic> {
        self.systems.get(id).ok_or_else(|| {
            let mut unknown = unknown("system", id, self.systems.keys().map(String::as_str));
            // Nothing like it: likely a matrix of one's own that was not read.
            if nearest(id, self.systems.keys().map(String::as_str)).is_none() {
                let known = unknown.hint.map_or(String::new(), |hint| format!("{hint}; "));
                unknown.hint = Some(format!(
                    "{known}for a matrix of your own write `catalogs = [\"DIR\"]` at the top of the site file, or `--catalog DIR`"
                ));
            }
            unknown
        })
    }

    /// The role that `SYSTEM/ROLE` names, for a host to have; abstract roles are refused.
    pub fn role(&self, name: &str) -> Result<(&System, &Role), Diagnostic> {
        let Some((system, role)) = name.split_once('/') else {
            let system = self.system(name)?;
            let roles: Vec<_> = system
                .host_roles()
                .map(|role| format!("{name}/{}", role.id))
                .collect();
            let message = format!("{} names a system, not a role", quoted(name));
            return Err(Diagnostic::error("unknown-name", message)
                .hint(format!("write one of: {}", roles.join(", "))));
        };
        let system = self.system(system)?;
        let known = system.host_roles().map(|role| role.id.as_str());
        match system.roles.get(role) {
            Some(role) if !role.is_abstract => Ok((system, role)),
            Some(role) => {
                let includers: Vec<_> = system
                    .host_roles()
                    .filter(|other| system.closure(&other.id).contains(role.id.as_str()))
                    .map(|other| format!("{}/{}", system.id, other.id))
                    .collect();
                let message = format!("no host has the role {} by itself", quoted(name));
                Err(Diagnostic::error("abstract-role", message).hint(format!(
                    "write a role that includes it: {}",
                    includers.join(", ")
                )))
            }
            None => Err(unknown(&format!("role of `{}`:", system.id), role, known)),
        }
    }
}

impl System {
    /// The role and all that it includes, transitively. Empty for a role that is not there.
    pub fn closure(&self, role: &str) -> BTreeSet<&str> {
        let known = self.roles.get_key_value(role).map(|(id, _)| id.as_str());
        reach(known.into_iter().collect(), |id| self.includes_of(id))
    }

    fn includes_of(&self, role: &str) -> Vec<&str> {
        let includes = self
            .roles
            .get(role)
            .map(|role| role.includes.as_slice())
            .unwrap_or_default();
        includes.iter().map(String::as_str).collect()
    }

    /// The rows that a host of this role has, in document order.
    pub fn rows_of(&self, role: &str) -> impl Iterator<Item = &Row> {
        let closure = self.closure(role);
        self.rows
            .iter()
            .filter(move |row| closure.contains(row.role.as_str()))
    }

    /// Roles that may meet a port offset: those that have one, what they include, and who includes them.
    pub(super) fn roles_with_offset(&self) -> BTreeSet<&str> {
        let with_offset: Vec<&str> = self
            .roles
            .values()
            .filter(|role| role.has_offset)
            .map(|role| role.id.as_str())
            .collect();
        let mut includers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for role in self.roles.values() {
            for included in &role.includes {
                includers.entry(included).or_default().push(&role.id);
            }
        }
        let mut found = reach(with_offset.clone(), |id| self.includes_of(id));
        found.extend(reach(with_offset, |id| {
            includers.get(id).cloned().unwrap_or_default()
        }));
        found
    }

    /// Where a row stands: `Document, section, row`.
    pub fn cite(&self, row: &Row) -> String {
        let mut words = self.document.clone();
        for part in [&row.citation.section, &row.citation.row] {
            if !part.is_empty() {
                words.push_str(", ");
                words.push_str(part);
            }
        }
        words
    }

    /// Roles that a host can be given.
    pub fn host_roles(&self) -> impl Iterator<Item = &Role> + Clone {
        self.roles.values().filter(|role| !role.is_abstract)
    }
}

/// All that can be reached from the roles in `to_visit`, themselves included.
fn reach<'s>(
    mut to_visit: Vec<&'s str>,
    next: impl Fn(&'s str) -> Vec<&'s str>,
) -> BTreeSet<&'s str> {
    let mut reached = BTreeSet::new();
    while let Some(id) = to_visit.pop() {
        if reached.insert(id) {
            to_visit.extend(next(id));
        }
    }
    reached
}

impl Peer {
    /// Stable kebab-case name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Role(_) => "role",
            Self::SameRole => "same-role",
            Self::Group(_) => "group",
            Self::Prefix(_) => "prefix",
            Self::Asn(_) => "asn",
            Self::Domain(_) => "domain",
            Self::Itself => "self",
            Self::Multicast => "multicast",
            Self::Unprinted => "unprinted",
        }
    }

    /// What the peer is called, as the document prints it; a single address has no length. `None` where the kind says it all.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Role(name) | Self::Group(name) | Self::Domain(name) => Some(name.clone()),
            Self::Prefix(net) if net.prefix_len() == net.max_prefix_len() => {
                Some(net.addr().to_string())
            }
            Self::Prefix(net) => Some(net.to_string()),
            Self::Asn(number) => Some(number.to_string()),
            Self::SameRole | Self::Itself | Self::Multicast | Self::Unprinted => None,
        }
    }

    /// The role it names, if it does.
    pub fn as_role(&self) -> Option<&str> {
        if let Self::Role(role) = self {
            Some(role)
        } else {
            None
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} {name}", self.kind()),
            None => f.write_str(self.kind()),
        }
    }
}

impl PeerClass {
    /// All of them, in the order in which a site is asked.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Stable kebab-case name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// In words, as what a row is there for.
    pub fn title(self) -> &'static str {
        match self {
            Self::PublicService => "the product's users",
            Self::Administration => "administration",
            Self::ClusterMembers => "members of a cluster",
            Self::Infrastructure => "infrastructure and back ends",
            Self::Monitoring => "monitoring",
        }
    }
}

impl Inert {
    /// Stable kebab-case name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl std::fmt::Display for VersionBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<_> = self.version.iter().map(ToString::to_string).collect();
        write!(f, "{}{}", self.operator, parts.join("."))
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            deployments,
            version,
            options,
            without,
            choices,
        } = self;
        let mut parts = Vec::new();
        if !deployments.is_empty() {
            parts.push(format!("deployment {}", deployments.join(" or ")));
        }
        if !version.is_empty() {
            let bounds: Vec<_> = version.iter().map(ToString::to_string).collect();
            parts.push(format!("version {}", bounds.join(", ")));
        }
        parts.extend(options.iter().map(|option| format!("option {option}")));
        parts.extend(without.iter().map(|option| format!("no option {option}")));
        parts.extend(
            choices
                .iter()
                .map(|(choice, value)| format!("{choice} = {value}")),
        );
        f.write_str(&parts.join("; "))
    }
}
