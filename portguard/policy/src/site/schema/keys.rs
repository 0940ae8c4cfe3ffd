//! The keys of a site file, table by table: what each may be, and what it is for. The tests hold them against the reader.

use portguard_common::ethertypes;

use crate::catalog::PeerClass;

/// A table whose keys are these and no others.
pub(super) struct Table(pub(super) Vec<Key>);

/// One key.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) about: &'static str,
    pub(super) is_required: bool,
}

impl Key {
    fn required(mut self) -> Self {
        self.is_required = true;
        self
    }
}

/// What a value may be.
pub(super) enum Kind {
    /// The number of the format.
    Format,
    /// One of these words.
    Word(Vec<&'static str>),
    Flag,
    /// Within these bounds.
    Number(u32, u32),
    Text,
    /// Texts like this one, at least so many.
    Texts(Box<Self>, usize),
    /// The one, or the other.
    Either(Box<Self>, Box<Self>),
    /// Of this shape, with an example.
    Shaped(&'static str, &'static str),
    /// `"any"`, `"none"`, or a list of peers.
    Peers,
    /// One peer.
    Peer,
    /// `SYSTEM/ROLE`.
    Role,
    /// A port, a range, or a list of them.
    Ports,
    /// A last day, or a moment.
    Date,
    Table(Table),
    /// `[[...]]`, at least so many.
    Tables(Table, usize),
    /// A table whose keys are the operator's own, each of which may be this.
    Named(Box<Self>),
    /// A table of systems.
    Systems(Level),
}

use Kind::{
    Date, Either, Flag, Format, Named, Number, Peer, Peers, Ports, Role, Shaped, Systems, Tables,
    Text, Texts, Word,
};

fn key(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key {
        name,
        kind,
        about,
        is_required: false,
    }
}

/// A list, which may be empty.
fn list(of: Kind) -> Kind {
    Texts(Box::new(of), 0)
}

/// A list of at least one.
fn some(of: Kind) -> Kind {
    Texts(Box::new(of), 1)
}

fn or(one: Kind, other: Kind) -> Kind {
    Either(Box::new(one), Box::new(other))
}

fn word(words: &[&'static str]) -> Kind {
    Word(words.to_vec())
}

fn named(of: Kind) -> Kind {
    Named(Box::new(of))
}

const MODE: &[&str] = &["audit", "enforce"];
const TRANSPORT: &[&str] = &["tcp", "udp", "sctp"];
const ADDRESS: Kind = Shaped("^[0-9a-fA-F:.]+$", "192.0.2.11");
const DURATION: Kind = Shaped("^[0-9]+[smhd]$", "4h");

/// The whole file.
pub(super) fn site() -> Table {
    Table(vec![
        key("schema", Format, "The version of the format").required(),
        key(
            "mode",
            word(MODE),
            "What comes in: audit (the default) counts violations, enforce drops them",
        ),
        key(
            "outbound",
            word(&["off", "audit", "enforce"]),
            "What the host sends: not judged, counted (the default), or dropped where no document has it",
        ),
        key(
            "unprinted_peers",
            unprinted(),
            "Peers of rows for which a document prints none: one answer, or one for each class of rows",
        ),
        key(
            "unresolved_peers",
            word(&["refuse", "any", "none"]),
            "How to treat peers that a document names and this file does not define. If not given: refuse in enforce, any in audit",
        ),
        key(
            "unresolved_ports",
            word(&["refuse", "none"]),
            "How to treat rows whose port numbers neither the document nor this file gives: refuse in enforce (the default), or keep closed",
        ),
        key("strict_fragments", Flag, "Later fragments are violations"),
        key(
            "strict_ethertypes",
            Flag,
            "EtherTypes other than IPv4, IPv6 and ARP are violations",
        ),
        key(
            "allowed_ethertypes",
            list(protocols()),
            "EtherTypes that pass even with `strict_ethertypes`",
        ),
        key(
            "scope",
            word(&["all", "host-addresses"]),
            "Judge everything (the default), or only what the kernel would not forward",
        ),
        key(
            "catalogs",
            list(Text),
            "Directories of matrices of your own, beside this file",
        ),
        key("groups", named(some(Peer)), "Peers by a name of your own"),
        key(
            "management",
            Kind::Table(management()),
            "Access that stays open whatever the documents say",
        ),
        key(
            "baseline",
            Kind::Table(baseline()),
            "Services that every host needs; each defaults to any",
        ),
        key(
            "timeouts",
            Kind::Table(timeouts()),
            "Settings of the flow table",
        ),
        key(
            "systems",
            Systems(Level::System),
            "What the documents leave open, by system",
        ),
        key("row", Tables(row(), 1), "A row of your own"),
        key("host", Tables(host(), 1), "A host of the site"),
    ])
}

fn unprinted() -> Kind {
    let mut keys = vec![key("default", Peers, "For rows of the other classes")];
    let classes = PeerClass::ALL.iter();
    keys.extend(classes.map(|class| key(class.as_str(), Peers, class.title())));
    or(Peers, Kind::Table(Table(keys)))
}

fn management() -> Table {
    Table(vec![
        key(
            "allow",
            list(Shaped("^(tcp|udp|sctp)/[0-9]", "tcp/22=admins")),
            "PROTO/PORT for anybody, or PROTO/PORT=PEER,...",
        ),
        key("none", Flag, "On its own: no management access"),
    ])
}

fn baseline() -> Table {
    Table(vec![
        key("dhcp", Peers, "Servers of DHCP and DHCPv6"),
        key("echo", Peers, "Who may ping"),
        key("dns", Peers, "Name servers that the host asks"),
        key("ntp", Peers, "Time servers that the host asks"),
        key(
            "protocols",
            Tables(
                Table(vec![
                    key("number", Number(0, 255), "IP protocol number").required(),
                    key("peers", Peers, "From whom").required(),
                    key("reason", Text, "Why"),
                ]),
                0,
            ),
            "IP protocols without ports",
        ),
        key(
            "profiles",
            list(Role),
            "Roles of hosts that have none of that system",
        ),
    ])
}

fn timeouts() -> Table {
    Table(vec![
        key(
            "tcp_idle",
            DURATION,
            "How long a silent TCP conversation is kept",
        ),
        key(
            "udp_idle",
            DURATION,
            "How long a silent UDP conversation is kept",
        ),
        key(
            "flows",
            Number(1024, 16 << 20),
            "Number of conversations to keep room for",
        ),
    ])
}

/// Whose table it is; see the reader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    System,
    Cluster,
    Host,
}

pub(super) fn system(level: Level) -> Table {
    let offset = || Number(0, 65_535);
    let mut keys = vec![
        key("deployment", Text, "The one that holds here"),
        key(
            "version",
            Shaped("^[vV]?[0-9]", "V6.24"),
            "As the vendor writes it",
        ),
        key("options", list(Text), "Turned on"),
        key(
            "without",
            list(Text),
            "Turned off, where the document has them on",
        ),
        key(
            "choices",
            named(or(
                Text,
                Kind::Table(Table(vec![
                    key(
                        "both",
                        Texts(Box::new(Text), 2),
                        "The old value and the new one",
                    )
                    .required(),
                    key("until", Date, "The last day of both").required(),
                ])),
            )),
            "Of alternatives that exclude each other, the one that holds",
        ),
        key(
            "peers",
            named(Peers),
            "Who the document's groups, roles, asn:N and domain:NAME are here",
        ),
        key(
            "unprinted_peers",
            unprinted(),
            "Peers of rows for which this document prints none; overrides the site's answer",
        ),
        key("offsets", named(or(offset(), some(offset()))), OFFSETS),
        key(
            "ports",
            named(or(Ports, named(Ports))),
            "Changed ports by row, or by row and printed port; ranges where the document prints none",
        ),
        key(
            "rows",
            named(Kind::Table(Table(vec![
                key("only", Peers, "Only these of the document's peers"),
                key(
                    "unprinted_peers",
                    Peers,
                    "Peers of this row, where the document prints none",
                ),
                key("audit", Flag, "Its ports stay in audit"),
                key("off", Flag, "Switched off; needs a reason"),
                key("reason", Text, "Why it is switched off"),
            ]))),
            "Settings of single rows",
        ),
    ];
    if level != Level::Cluster {
        keys.push(key(
            "cluster",
            or(Text, some(Text)),
            "The installation, or installations, that hosts belong to",
        ));
    }
    if level == Level::System {
        keys.push(key(
            "clusters",
            named(Kind::Table(system(Level::Cluster))),
            "Settings of one installation; they override the system's",
        ));
    }
    Table(keys)
}

const OFFSETS: &str = "Port offset by role; a list for several servers of the role on a host";

fn row() -> Table {
    Table(vec![
        key("name", Text, "Unique").required(),
        key(
            "direction",
            word(&["in", "out"]),
            "What comes in, or what the host sends",
        )
        .required(),
        key(
            "transport",
            or(word(TRANSPORT), some(word(TRANSPORT))),
            "One, or several",
        )
        .required(),
        key("ports", Ports, "What it opens").required(),
        key("peers", Peers, "To whom").required(),
        key("reason", Text, "Why").required(),
        key("expires", Date, "The last day (UTC), or a moment"),
        key("hosts", some(Text), "Only on these"),
        key("roles", some(Role), "Only on hosts that have one of these"),
        key("audit", Flag, "Stays in audit"),
    ])
}

fn host() -> Table {
    Table(vec![
        key("name", Text, "Unique").required(),
        key("addresses", list(ADDRESS), "As its peers see them"),
        key(
            "shared_addresses",
            list(ADDRESS),
            "Addresses that move between hosts, or belong to several",
        ),
        key(
            "cluster",
            or(Text, some(Text)),
            "The installation, or installations, that it belongs to",
        ),
        key(
            "systems",
            Systems(Level::Host),
            "Settings of this host; they override its cluster's and the system's",
        ),
        key("roles", list(Role), "What it does"),
        key(
            "offsets",
            named(or(Number(0, 65_535), some(Number(0, 65_535)))),
            OFFSETS,
        ),
        key("mode", word(MODE), "Overrides the site's"),
        key("audit_roles", list(Role), "Roles that stay in audit"),
        key(
            "audit_ports",
            list(Shaped("^(tcp|udp|sctp)/[0-9]", "tcp/8000-9000")),
            "Ports that stay in audit",
        ),
        key(
            "interfaces",
            named(Kind::Table(Table(vec![
                key(
                    "roles",
                    some(Role),
                    "Roles served here in addition to the host's",
                ),
                key("rows", some(Text), "SYSTEM/ROW; only these are served here"),
                key("without_rows", list(Text), "SYSTEM/ROW; not served here"),
                key("mode", word(MODE), "Overrides the host's"),
            ]))),
            "Interfaces to guard, and what each serves",
        ),
    ])
}

/// Names of non-IP protocols, each once.
fn protocols() -> Kind {
    let mut names: Vec<&'static str> = ethertypes::ALL.iter().map(|one| one.name).collect();
    names.dedup();
    Word(names)
}
