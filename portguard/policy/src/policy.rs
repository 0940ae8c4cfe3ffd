//! One host's policy: what the compiler makes of catalog and site, and all that the rest needs to know of them.
//!
//! A [`Grant`] is one reason for one range of ports to be open to one set of peers. Grants overlap freely; the image
//! builder sweeps them into port entries, `check` prints them merged. Nothing below this type reads a catalog or a site.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portguard_common::reason::Direction;
use serde::{Deserialize, Serialize};

use crate::catalog::Transport;
use crate::diagnostic::Diagnostic;
use crate::domains::{Answers, Domains};
use crate::human::range;

/// The effective matrix of one host. Deterministic: same inputs, equal value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// The host's name in the inventory, if it was found by one.
    pub host: Option<String>,
    /// Roles of this host, `SYSTEM/ROLE`, sorted.
    pub roles: Vec<String>,
    /// Ids of the systems, sorted.
    pub systems: Vec<String>,
    /// Peer sets that grants refer to by index; no two are equal and follow the same domain names.
    pub sets: Vec<PeerSet>,
    /// What may come in, in the order management, baseline, documented, site; then by row.
    pub inbound: Vec<Grant>,
    /// What may go out.
    pub outbound: Vec<Grant>,
    /// IP protocols without ports (ESP, GRE ...) that the site lists.
    pub protocols: Vec<ProtocolGrant>,
    /// Who may ping; `None` = nobody.
    pub echo: Option<Peers>,
    /// Facts about the rows cited by the grants and omissions: id to what a person wants to read.
    pub rows: Vec<RowFacts>,
    /// Rows of the host's roles that compile to nothing here, and why.
    pub omitted: Vec<Omitted>,
    /// How the data plane behaves.
    pub settings: Settings,
    /// Names of hosts in the inventory, for the addresses in [`Policy::sets`] that are theirs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<IpAddr, String>,
    /// Domain names, what they resolved to, and the sets that follow them.
    #[serde(default, skip_serializing_if = "Domains::is_empty")]
    pub domains: Domains,
}

impl Policy {
    /// Where a row stands: its id in the catalog, or where the site has it.
    /// What is known of a row.
    pub fn facts(&self, row: &str) -> Option<&RowFacts> {
        self.rows.iter().find(|facts| facts.id == row)
    }

    /// Whether a row is only audited.
    pub fn is_audited(&self, row: &str) -> bool {
        self.facts(row).is_some_and(|facts| facts.audit)
    }

    /// A set of peers.
    pub fn set(&self, index: u32) -> Option<&PeerSet> {
        self.sets.get(usize::try_from(index).ok()?)
    }

    /// What is open in a direction.
    pub fn grants(&self, direction: Direction) -> &[Grant] {
        match direction {
            Direction::Ingress => &self.inbound,
            Direction::Egress => &self.outbound,
        }
    }

    pub(crate) fn place_of(&self, row: &str) -> String {
        match self.facts(row) {
            Some(facts) if facts.role.is_none() => facts.citation.clone(),
            _ => row.to_owned(),
        }
    }

    /// The same policy with other answers for its domain names; `None` if that changes no set. Names without an answer keep
    /// what they have, and no name loses its last address.
    pub fn with_answers(&self, answers: &Answers) -> Option<Self> {
        let mut next = self.clone();
        next.domains.update(answers);
        for made in &next.domains.sets {
            if let Some(set) = next.sets.get_mut(made.set as usize) {
                set.prefixes = made.resolved(&next.domains.names);
            }
        }
        (next.sets != self.sets).then_some(next)
    }
}

/// A set of peers with the words that name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSet {
    /// As a reader would say it: `role thoughtspot/node`, `group admins`, `208.83.110.20`; several joined by `, `.
    pub name: String,
    /// Sorted, aggregated, both families. Empty only where domain names have resolved to nothing that the site admits.
    pub prefixes: Vec<IpNet>,
}

/// Who a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peers {
    /// Everybody.
    Any,
    /// Index into [`Policy::sets`].
    Set(u32),
}

/// Why a grant exists; the data plane's pass reason, and the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantKind {
    /// Management access of the site.
    Management,
    /// DHCP client traffic (inbound), or the site's baseline services (outbound).
    Baseline,
    /// A row of a vendor's document.
    Documented,
    /// A row of the site's own.
    Site,
}

/// One range of ports open to one set of peers for one reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// Why.
    pub kind: GrantKind,
    /// TCP, UDP or SCTP.
    pub transport: Transport,
    /// First port, the listening side's; 0 is a port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
    /// Who: the source of inbound, the destination of outbound.
    pub peers: Peers,
    /// Row id: `thoughtspot/intracluster-2100`, `management/tcp-22`, `baseline/dns`, `site/NAME`.
    pub row: String,
    /// Seconds since the Unix epoch from which on it is no more: the end, in UTC, of the last day that the site gives it.
    /// Grants end; none begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Grant {
    /// Whether it is of this port.
    pub fn covers(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// `tcp/443`, `udp/8000-8010`.
    pub fn ports(&self) -> String {
        format!("{}/{}", self.transport, range(self.first, self.last))
    }
}

/// A protocol without ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolGrant {
    /// IP protocol number.
    pub protocol: u8,
    /// Who.
    pub peers: Peers,
    /// Row id.
    pub row: String,
}

/// What a person wants to read about a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowFacts {
    /// Row id.
    pub id: String,
    /// `SYSTEM/ROLE`, where it is a catalog row.
    pub role: Option<String>,
    /// What it is for.
    pub purpose: String,
    /// `Document, section, row`; or the place in the site file.
    pub citation: String,
    /// Stays in audit while the rest enforces.
    pub audit: bool,
    /// Who it is for, in the document's own words; empty where a row has none but those of its peers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peers: String,
}

/// A row that opens nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// Row id.
    pub row: String,
    /// Kebab-case reason: `condition`, `dynamic`, `out-of-band`, `loopback`, `other-device`, `no-number`, `no-peer`, `outbound-off`.
    pub reason: String,
    /// In words.
    pub detail: String,
    /// Who it is for, where only its number is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Peers>,
}

/// How the data plane behaves; every field is frozen into the generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Ingress: `true` drops violations, `false` counts them only.
    pub enforce: bool,
    /// Egress.
    pub outbound: Outbound,
    /// Later fragments are violations.
    pub strict_fragments: bool,
    /// EtherTypes other than IPv4, IPv6 and ARP are violations.
    pub strict_ethertypes: bool,
    /// Of these, the ones that pass all the same: a bit each, by [`portguard_common::ethertypes::index`].
    #[serde(default)]
    pub ethertypes: u32,
    /// Judge only what is for the host's own, multicast and broadcast addresses; pass the rest as `transit`.
    pub host_addresses: Option<Vec<IpNet>>,
    /// Ranges of ports that stay in audit (transport, first, last).
    pub audit_ports: Vec<(Transport, u16, u16)>,
    /// Seconds after which an idle TCP flow of the host is forgotten.
    pub tcp_idle: u32,
    /// The same for UDP and ICMP echo.
    pub udp_idle: u32,
    /// Capacity of the flow table.
    pub flows: u32,
}

/// What egress does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Outbound {
    /// No egress program: replies to the host's own connections are not known, so ingress may not enforce.
    Off,
    /// Judge and count; track flows.
    #[default]
    Audit,
    /// Drop.
    Enforce,
}

impl Outbound {
    /// As it is written.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Settings {
    /// What is done with what arrives: `audit` or `enforce`.
    pub const fn mode(&self) -> &'static str {
        if self.enforce { "enforce" } else { "audit" }
    }

    /// Whether violations of a direction are dropped.
    pub fn drops(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.enforce,
            Direction::Egress => self.outbound == Outbound::Enforce,
        }
    }

    /// Whether anything is dropped, whichever way it goes: then somebody can be cut off.
    pub fn drops_any(&self) -> bool {
        self.drops(Direction::Ingress) || self.drops(Direction::Egress)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enforce: false,
            outbound: Outbound::Audit,
            strict_fragments: false,
            strict_ethertypes: false,
            ethertypes: 0,
            host_addresses: None,
            audit_ports: Vec::new(),
            tcp_idle: 4 * 3600,
            udp_idle: 180,
            flows: 65_536,
        }
    }
}

/// A compiled policy and all that was noticed on the way.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The policy; to be used only if no diagnostic is an error.
    pub policy: Policy,
    /// Sorted: errors first, then by place.
    pub diagnostics: Vec<Diagnostic>,
}
