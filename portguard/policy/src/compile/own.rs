//! What the site itself opens: management, baseline services, protocols, rows of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::impossible::{Nobody, never, nobody};
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
        let own = self.addresses();
        let mut useless = Vec::new();
        for access in &management.allow {
            let place = self.place(access.place, "--management");
            match self.peers.said(&access.peers) {
                Some(peers) => {
                    if let Some(why) = nobody(&self.peers.sets.prefixes(peers), &own) {
                        let ports = range(access.ports.0, access.ports.1);
                        useless.push((format!("{}/{ports}", access.transport), why, place.clone()));
                    }
                    self.manage(access.transport, access.ports, peers, &place, &access.peers);
                }
                None => self.nobody("management", &access.peers, &place, Level::Error),
            }
        }
        // While there is another way in, it is no more than a mistake.
        let is_shut = useless.len() == management.allow.len();
        let drops =
            self.subject.mode == Mode::Enforce || self.inputs.site.outbound == Outbound::Enforce;
        let level = if is_shut && drops {
            Level::Error
        } else {
            Level::Warning
        };
        for (ports, why, place) in useless {
            let (code, what) = match why {
                Nobody::Example => (
                    "example-addresses",
                    "example addresses (RFC 5737, RFC 3849), which no host has",
                ),
                Nobody::Impossible(what) => ("impossible-peers", what),
            };
            let message = format!("management access by {ports} names only {what}");
            let diagnostic = Diagnostic::new(level, code, message).at(place);
            let hint = "replace them with the networks that you administer this host from";
            self.diagnostics.push(diagnostic.hint(hint));
        }
    }

    /// The host's own addresses.
    fn addresses(&self) -> Vec<IpAddr> {
        let host = self.subject.host.into_iter();
        host.flat_map(|host| host.addresses.iter().map(|(address, _)| *address))
            .collect()
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
        if let Some(peers) = self.policy.echo {
            let place = self.place_of(&baseline.echo);
            self.impossible("echo", peers, &place);
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
            self.impossible("protocols", peers, &place);
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
        if row.direction != Direction::Out {
            self.impossible(&row.name, peers, &place);
        }
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

    /// Where only addresses are named that no packet comes from.
    fn impossible(&mut self, what: &str, peers: Peers, place: &str) {
        let prefixes = self.peers.sets.prefixes(peers);
        if let Some(why) = prefixes.first().and_then(never)
            && prefixes.iter().all(|net| never(net).is_some())
        {
            let message = format!("the peers of `{what}` are only {why}: it lets nobody in");
            self.diagnostics
                .push(Diagnostic::warning("impossible-peers", message).at(place));
        }
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
