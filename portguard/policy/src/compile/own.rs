//! What the site itself opens: management, baseline services, protocols, rows of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::lint::names::is_mistyped;
use super::{Compiler, endings};
use crate::catalog::{Direction, Transport};
use crate::diagnostic::{Diagnostic, Level};
use crate::human::range;
use crate::policy::{Grant, GrantKind, Omitted, Outbound, Peers, ProtocolGrant, RowFacts};
use crate::site::{Mode, OwnRow, Place, Who, end_of_day};

/// The row of ping.
const ECHO: &str = "baseline/echo";

/// A baseline service: key, row, purpose, inbound ports, outbound ports.
type Service = (
    &'static str,
    &'static str,
    &'static [(Transport, u16)],
    &'static [(Transport, u16)],
);

const SERVICES: [Service; 4] = [
    (
        "dhcp",
        "address of the host (DHCP)",
        &[(Transport::Udp, 68)],
        &[(Transport::Udp, 67)],
    ),
    (
        "dhcp6",
        "address of the host (DHCPv6)",
        &[(Transport::Udp, 546)],
        &[(Transport::Udp, 547)],
    ),
    (
        "dns",
        "names that the host asks for",
        &[],
        &[(Transport::Udp, 53), (Transport::Tcp, 53)],
    ),
    (
        "ntp",
        "time that the host asks for",
        &[],
        &[(Transport::Udp, 123)],
    ),
];

/// All `DHCPv6` servers and relays of a link (RFC 8415 section 7.1).
const DHCP6_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Networks of documentation (RFC 5737, RFC 3849, RFC 9637).
const EXAMPLES: [IpNet; 5] = [
    v4([192, 0, 2, 0]),
    v4([198, 51, 100, 0]),
    v4([203, 0, 113, 0]),
    v6(0x2001_0db8 << 96, 32),
    v6(0x3fff << 112, 20),
];

const fn v4([a, b, c, d]: [u8; 4]) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), 24))
}

const fn v6(bits: u128, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length))
}

fn is_example(net: &IpNet) -> bool {
    EXAMPLES.iter().any(|example| example.contains(net))
}

impl<'a> Compiler<'a, '_> {
    pub(super) fn management(&mut self) {
        let Some(management) = &self.inputs.site.management else {
            let message = "no management access is given: tcp/22 stays open to any";
            let hint = "write `[management]` with `allow = [\"tcp/22=GROUP\"]`, or `--management tcp/22=CIDR,...`";
            self.diagnostics
                .push(Diagnostic::new(Level::Note, "default-management", message).hint(hint));
            self.manage(
                Transport::Tcp,
                (22, 22),
                Peers::Any,
                "not given by the site: the default",
                &Who::Any,
            );
            return;
        };
        if management.allow.is_empty() {
            let message =
                "no management access: a wrong policy can only be corrected at the console";
            let diagnostic = Diagnostic::warning("no-management", message);
            let place = self
                .inputs
                .site
                .at(management.place)
                .unwrap_or_else(|| "--management".to_owned());
            self.diagnostics.push(diagnostic.at(place));
        }
        let mut examples = Vec::new();
        for access in &management.allow {
            let place = self.place(access.place, "--management");
            match self.peers.said(&access.peers) {
                Some(peers) => {
                    let prefixes = self.peers.sets.prefixes(peers);
                    if !prefixes.is_empty() && prefixes.iter().all(is_example) {
                        let ports = range(access.ports.0, access.ports.1);
                        examples.push((format!("{}/{ports}", access.transport), place.clone()));
                    }
                    self.manage(access.transport, access.ports, peers, &place, &access.peers);
                }
                None => self.nobody("management", &access.peers, &place, Level::Error),
            }
        }
        // While there is another way in, it is no more than a mistake.
        let is_shut = examples.len() == management.allow.len();
        let level = if is_shut && self.subject.mode == Mode::Enforce {
            Level::Error
        } else {
            Level::Warning
        };
        for (ports, place) in examples {
            let message = format!(
                "management access by {ports} names only example addresses (RFC 5737, RFC 3849), which no host has"
            );
            let diagnostic = Diagnostic::new(level, "example-addresses", message).at(place);
            let hint = "replace them with the networks that you administer this host from";
            self.diagnostics.push(diagnostic.hint(hint));
        }
    }

    fn manage(
        &mut self,
        transport: Transport,
        (first, last): (u16, u16),
        peers: Peers,
        place: &str,
        who: &Who,
    ) {
        let ports = range(first, last);
        let row = format!("management/{transport}-{ports}");
        self.facts(&row, "management access", place, who);
        self.policy.inbound.push(Grant {
            kind: GrantKind::Management,
            transport,
            first,
            last,
            peers,
            row,
            until: None,
        });
    }

    pub(super) fn baseline(&mut self) {
        let baseline = &self.inputs.site.baseline;
        self.policy.echo = self.peers.said(&baseline.echo);
        if self.policy.echo.is_none() && baseline.echo != Who::None {
            self.nobody(
                "echo",
                &baseline.echo,
                &self.place_of(&baseline.echo),
                Level::Warning,
            );
        }
        if self.policy.echo.is_some() {
            let place = self.place_of(&baseline.echo);
            self.facts(
                ECHO,
                "whether the host is there (ping)",
                &place,
                &baseline.echo,
            );
        }
        for (name, purpose, inbound, outbound) in SERVICES {
            let who = match name {
                "dns" => &baseline.dns,
                "ntp" => &baseline.ntp,
                _ => &baseline.dhcp,
            };
            let Some(peers) = self.peers.said(who) else {
                if *who != Who::None {
                    self.nobody(name, who, &self.place_of(who), Level::Warning);
                }
                continue;
            };
            let judged = self.inputs.site.outbound != Outbound::Off;
            let row = format!("baseline/{name}");
            let grant = |&(transport, port): &(Transport, u16), peers| Grant {
                kind: GrantKind::Baseline,
                transport,
                first: port,
                last: port,
                peers,
                row: row.clone(),
                until: None,
            };
            let inbound_grants = inbound.iter().map(|port| grant(port, peers));
            self.policy.inbound.extend(inbound_grants);
            if judged {
                // Who looks for a server does not know it yet, and asks them all.
                let all = match name {
                    "dhcp" => vec![IpAddr::V4(Ipv4Addr::BROADCAST).into()],
                    "dhcp6" => vec![IpAddr::V6(DHCP6_SERVERS).into()],
                    _ => Vec::new(),
                };
                let peers = self.peers.said_and(who, &all).unwrap_or(peers);
                let outbound_grants = outbound.iter().map(|port| grant(port, peers));
                self.policy.outbound.extend(outbound_grants);
            }
            if judged || !inbound.is_empty() {
                let place = self.place_of(who);
                self.facts(&row, purpose, &place, who);
            }
        }
        for protocol in &baseline.protocols {
            let place = self.place(protocol.place, "baseline");
            let Some(peers) = self.peers.said(&protocol.peers) else {
                self.nobody("protocols", &protocol.peers, &place, Level::Warning);
                continue;
            };
            let row = format!("site/protocol-{}", protocol.number);
            let purpose = protocol
                .reason
                .as_deref()
                .unwrap_or("protocol without ports");
            self.facts(&row, purpose, &place, &protocol.peers);
            self.policy.protocols.push(ProtocolGrant {
                protocol: protocol.number,
                peers,
                row,
            });
        }
    }

    pub(super) fn own_rows(&mut self) {
        for row in &self.inputs.site.rows {
            if self.concerns(row) {
                self.own_row(row);
            }
        }
    }

    /// Whether a row of the site is for this host.
    fn concerns(&self, row: &OwnRow) -> bool {
        if row.hosts.is_empty() && row.roles.is_empty() {
            return true;
        }
        let host = self.subject.host.map(|host| host.name.as_str());
        let named = row
            .hosts
            .iter()
            .any(|(name, _)| Some(name.as_str()) == host);
        let mut roles = self
            .policy
            .roles
            .iter()
            .filter_map(|role| role.split_once('/'));
        named
            || roles.any(|(system, role)| {
                row.roles
                    .iter()
                    .filter_map(|(wanted, _)| wanted.split_once('/'))
                    .any(|(of, wanted)| {
                        of == system && self.inventory.including(system, wanted).contains(&role)
                    })
            })
    }

    fn own_row(&mut self, row: &'a OwnRow) {
        let id = format!("site/{}", row.name);
        let place = self.place(row.place, "the site");
        self.policy.rows.push(RowFacts {
            id: id.clone(),
            role: None,
            purpose: row.reason.clone(),
            citation: place.clone(),
            audit: row.audit,
            peers: row.peers.to_string(),
        });
        let omit = |reason: &str, detail: String| Omitted {
            row: id.clone(),
            reason: reason.to_owned(),
            detail,
            peers: None,
        };
        if let Some(expires) = &row.expires
            && endings::is_over(expires, self.inputs.today)
        {
            let message = format!("row `{}` expired on {expires}: it opens nothing", row.name);
            let hint = "remove it, or give it a later day";
            self.diagnostics.push(
                Diagnostic::warning("expired-row", message)
                    .at(place)
                    .hint(hint),
            );
            self.policy
                .omitted
                .push(omit("expired", format!("its last day was {expires}")));
            return;
        }
        if row.direction == Direction::Out && self.inputs.site.outbound == Outbound::Off {
            self.policy.omitted.push(omit(
                "outbound-off",
                "what the host sends is not judged".to_owned(),
            ));
            return;
        }
        let Some(peers) = self.peers.said(&row.peers) else {
            self.policy
                .omitted
                .push(omit("no-peer", "its peers have no address".to_owned()));
            self.nobody(&row.name, &row.peers, &place, Level::Warning);
            return;
        };
        let grants = if row.direction == Direction::Out {
            &mut self.policy.outbound
        } else {
            &mut self.policy.inbound
        };
        for ports in &row.ports {
            grants.extend(row.transports.iter().map(|transport| Grant {
                kind: GrantKind::Site,
                transport: *transport,
                first: ports.first,
                last: ports.last,
                peers,
                row: id.clone(),
                until: row.expires.as_deref().and_then(end_of_day),
            }));
        }
    }

    /// A name that nobody has is an error of its own, and this would only be its consequence.
    fn nobody(&mut self, what: &str, who: &Who, place: &str, level: Level) {
        if is_mistyped(self.inputs, who.terms(), &mut Vec::new()) {
            return;
        }
        let message = format!("the peers of `{what}` have no address");
        self.diagnostics
            .push(Diagnostic::new(level, "empty-peers", message).at(place));
    }

    fn facts(&mut self, id: &str, purpose: &str, citation: &str, who: &Who) {
        let words = who.to_string();
        if let Some(row) = self.policy.rows.iter_mut().find(|row| row.id == id) {
            // One access may be written in two lines.
            if !row.peers.split(", ").any(|known| known == words) {
                row.peers = format!("{}, {words}", row.peers);
            }
            return;
        }
        self.policy.rows.push(RowFacts {
            id: id.to_owned(),
            role: None,
            purpose: purpose.to_owned(),
            citation: citation.to_owned(),
            audit: false,
            peers: words,
        });
    }

    fn place(&self, place: Place, otherwise: &str) -> String {
        self.inputs
            .site
            .at(place)
            .unwrap_or_else(|| otherwise.to_owned())
    }

    fn place_of(&self, who: &Who) -> String {
        let place = who
            .terms()
            .first()
            .map(|(_, place)| *place)
            .unwrap_or_default();
        self.place(place, "baseline")
    }
}
