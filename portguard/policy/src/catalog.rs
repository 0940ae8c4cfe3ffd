//! The catalog: vendors' port matrices as data.
//!
//! One TOML file a vendor (`portguard/catalog/*.toml`, embedded; users add directories of their own). This module owns the
//! types; `catalog/load.rs` reads and checks the files, `catalog/query.rs` answers questions about them. Pure: no kernel, no network, no clock.

mod cells;
mod conditions;
pub(crate) mod ends;
mod fields;
mod head;
mod judgements;
mod lists;
mod load;
mod query;
mod report;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use portguard_common::packet::{self, protocol};
use serde::{Deserialize, Serialize};

use crate::human::range;
pub use load::{
    LoadError, MAX_FILE_BYTES, catalog_files, embedded_files, load_bytes, load_str, read_file,
};

/// All known matrices by system id (`thoughtspot`, `wso2`, ...).
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Systems by id.
    pub systems: BTreeMap<String, System>,
}

/// One vendor system: a document turned into rows.
#[derive(Debug, Clone)]
pub struct System {
    /// Kebab-case id, as in `wso2`.
    pub id: String,
    /// The vendor's own name of the product.
    pub name: String,
    /// Vendor and title of the page: what a reader would search for.
    pub document: String,
    /// Name of the file that was read, and the day it was read (`YYYY-MM-DD`).
    pub source: String,
    /// See [`System::source`].
    pub read: String,
    /// Deployments, of which a site chooses exactly one; the first listed is not a default. Empty: the document has none.
    pub deployments: BTreeMap<String, String>,
    /// Optional features (id to description); off unless the site turns them on, or [`SystemOption::default`] says otherwise.
    pub options: BTreeMap<String, SystemOption>,
    /// Exclusive alternatives: of each, a site chooses one value.
    pub choices: BTreeMap<String, Choice>,
    /// Groups of peers that are no role of this document: users, support staff, a mail relay of the customer.
    pub groups: BTreeMap<String, String>,
    /// Roles by id.
    pub roles: BTreeMap<String, Role>,
    /// Facts of a site that the document says cannot go together.
    pub conflicts: Vec<Conflict>,
    /// Rows in document order; the other ends of rows that print a role come last.
    pub rows: Vec<Row>,
}

/// Facts that the document says cannot go together. All parts must be met.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// Kebab-case id.
    pub id: String,
    /// Facts of the host's system.
    pub condition: Option<Condition>,
    /// One host has all of these roles.
    pub same_host: Vec<String>,
    /// One host has the first of these roles ...
    pub role: Option<String>,
    /// ... and lacks this one.
    pub lacks: Option<String>,
    /// A server with this role has a port offset other than this one.
    pub offset_other_than: Option<(String, u16)>,
    /// The row whose printed number has that offset in it: what the site puts in its place counts.
    pub port_of: Option<String>,
    /// Several hosts of one cluster have this role, the host at hand among them.
    pub several: Option<String>,
    /// The site's baseline does not list this IP protocol.
    pub lacks_protocol: Option<u8>,
    /// What is wrong, in our words.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Where the document says so.
    pub citation: Citation,
}

/// An option of a system.
#[derive(Debug, Clone)]
pub struct SystemOption {
    /// What it is.
    pub title: String,
    /// Whether the document presents it as on by default.
    pub default: bool,
    /// Versions in which it is on whatever the site says; empty: none.
    pub required: Vec<VersionBound>,
}

/// Exclusive alternatives.
#[derive(Debug, Clone)]
pub struct Choice {
    /// What is chosen.
    pub title: String,
    /// Value to description.
    pub values: BTreeMap<String, String>,
}

/// A role that a host can have.
#[derive(Debug, Clone)]
pub struct Role {
    /// Kebab-case id within its system.
    pub id: String,
    /// The document's own name.
    pub name: String,
    /// Roles whose rows this role also has (transitively), and under whose name peers may refer to it:
    /// `asi` includes every ASI module, every module includes the abstract `asi-module`.
    pub includes: Vec<String>,
    /// Roles that the document has on the same node: a host of one of them may well have this one, too.
    pub beside: Vec<String>,
    /// Only there to be included; no host is given it by hand.
    pub is_abstract: bool,
    /// Has a port offset that a site may set (WSO2 servers).
    pub has_offset: bool,
    /// Offset that the numbers printed for this role contain already; rows that it includes do not.
    pub built_in_offset: u16,
}

/// One row of a document, from the view of one role. A flow (source to destination) is two: `ID/in` and `ID/out`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of the document"
)]
#[derive(Debug, Clone)]
pub struct Row {
    /// Stable id within the catalog: `SYSTEM/ROW`, and `/in` or `/out` for the two ends of a flow.
    pub id: String,
    /// The role whose view it is.
    pub role: String,
    /// From the role's view.
    pub direction: Direction,
    /// Whether the document prints the direction, by a word or by a source and a destination (else it was inferred).
    pub direction_printed: bool,
    /// Transports, at least one.
    pub transports: Vec<Transport>,
    /// Whether the document prints the transport (else it was inferred).
    pub transport_printed: bool,
    /// The protocol over the transport, as printed (`HTTPS`), if any.
    pub application: Option<String>,
    /// Ports on the listening side.
    pub ports: Vec<PortSpec>,
    /// The least number that the document allows where it prints none.
    pub ports_from: Option<u16>,
    /// The `choices` key that picks one of `ports` (its values are the ports, as text), for `25 or 587`.
    pub pick: Option<String>,
    /// The ports move with the port offset of the role's server.
    pub offset: bool,
    /// Rows with the same name are one listener wherever they stand: a changed port is changed in all of them.
    pub listener: Option<String>,
    /// Who is at the other end, as printed; never empty.
    pub peers: Vec<Peer>,
    /// Of role peers, those of the host's own role are not meant.
    pub other_roles_only: bool,
    /// What kind of peer is missing where one is [`Peer::Unprinted`].
    pub class: Option<PeerClass>,
    /// When the row holds; `None` = always.
    pub condition: Option<Condition>,
    /// The number is a default that the customer may change.
    pub customisable: bool,
    /// Versions in which the number can be changed; empty: all. In others the printed one stays.
    pub customisable_in: Vec<VersionBound>,
    /// What it is for, in our words.
    pub purpose: String,
    /// Where it stands.
    pub citation: Citation,
    /// Ambiguities: what was chosen and why.
    pub notes: Vec<String>,
    /// Why this row opens nothing on any host of the system, where that is so.
    pub inert: Option<Inert>,
    /// The other end of a row that the document prints from one side only.
    pub implied: bool,
    /// `file:line` of the row in its catalog file.
    pub location: String,
}

/// From the role's own view: does it accept the connection, or open it?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Direction {
    /// The role listens.
    In,
    /// The role connects.
    Out,
    /// Both, in one row.
    Both,
}

/// Transports that have ports.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::FromRepr,
)]
#[repr(u8)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Transport {
    /// TCP, IP protocol 6.
    Tcp = protocol::TCP,
    /// UDP, IP protocol 17.
    Udp = protocol::UDP,
    /// SCTP, IP protocol 132.
    Sctp = protocol::SCTP,
}

impl Transport {
    /// Its number among the protocols of IP.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Where its ports stand among the keys of the tables.
    pub const fn space(self) -> u32 {
        packet::space(self.number())
    }
}

/// A port expression.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortSpec {
    /// `443` or `49152-65535`, inclusive.
    Range(u16, u16),
    /// `7711+offset(analytics)`: a base plus the port offset of the server that has that role.
    Offset {
        /// Base port.
        base: u16,
        /// Role whose offset is added.
        role: String,
    },
    /// Assigned at run time from the operating system's range; compiles to nothing unless the site gives a range.
    Dynamic,
    /// A number chosen anew at each start; as `Dynamic`.
    Random,
    /// The document asks for a port and prints no number; as `Dynamic`.
    Unprinted,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Hosts that have this role of the same system.
    Role(String),
    /// Other hosts that have the row's own role.
    SameRole,
    /// A named group of the document ([`System::groups`]); the site says who that is.
    Group(String),
    /// A printed prefix or address.
    Prefix(IpNet),
    /// A printed autonomous system; the site names a prefix file.
    Asn(u32),
    /// A domain name, repaired where the document prints it broken (then with a note).
    Domain(String),
    /// The host itself: loopback and its own addresses.
    Itself,
    /// Multicast groups: a destination of what the role sends, never a source.
    Multicast,
    /// Not printed. Never "any" by itself.
    Unprinted,
}

/// What kind of peer a row lacks that prints none: each kind has an answer of its own in the site.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::IntoStaticStr,
    strum::VariantArray,
    strum::EnumString,
)]
#[strum(serialize_all = "kebab-case")]
pub enum PeerClass {
    /// Users of what the product is there for.
    PublicService,
    /// Administrators: consoles, command lines, management interfaces.
    Administration,
    /// Servers of the same kind in the same cluster.
    ClusterMembers,
    /// Services of the network and back ends: mail, names, directories, brokers, databases.
    Infrastructure,
    /// Monitoring systems.
    Monitoring,
}

/// All parts must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// One of these deployments.
    pub deployments: Vec<String>,
    /// All of these comparisons with the site's version, e.g. `>=4.5.1`, `<6.24`.
    pub version: Vec<VersionBound>,
    /// All of these options are on.
    pub options: Vec<String>,
    /// All of these options are off.
    pub without: Vec<String>,
    /// Each of these choices has this value.
    pub choices: BTreeMap<String, String>,
}

/// `>=4.5.1`: operator and dotted number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionBound {
    /// `>=`, `<`, `<=`, `>` or `=`.
    pub operator: String,
    /// Dotted decimal, compared part by part; missing parts are 0.
    pub version: Vec<u32>,
}

/// Where a row stands in its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Citation {
    /// Section path, `A > B`.
    pub section: String,
    /// The row as a reader would find it: its number or first cells.
    pub row: String,
}

/// Why a row opens nothing on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Inert {
    /// On a management controller beside the host's own network stack (IPMI).
    OutOfBand,
    /// Only over loopback, which never passes a network interface.
    Loopback,
    /// Concerns devices or networks that are not hosts of this system.
    OtherDevice,
    /// States a rule but no number.
    NoNumber,
}

impl PortSpec {
    /// Whether the document leaves the number open.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Dynamic | Self::Random | Self::Unprinted)
    }

    /// The fixed range, if the row prints one.
    pub fn range(&self) -> Option<RangeInclusive<u16>> {
        match *self {
            Self::Range(first, last) => Some(first..=last),
            Self::Offset { .. } | Self::Dynamic | Self::Random | Self::Unprinted => None,
        }
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(first, last) => f.write_str(&range(*first, *last)),
            Self::Offset { base, role } => write!(f, "{base}+offset({role})"),
            Self::Dynamic => f.write_str("dynamic"),
            Self::Random => f.write_str("random"),
            Self::Unprinted => f.write_str("unprinted"),
        }
    }
}
