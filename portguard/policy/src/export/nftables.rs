//! A policy as an nftables ruleset that the kernel's own filter judges as the guard does.
//!
//! One table, `inet portguard`. A map a transport leads from the port to a chain, in which a rule a grant admits its peers
//! and counts under the row's name; so the work does not grow with the number of ports. Inbound hooks `prerouting` behind
//! connection tracking and before address translation, outbound hooks `postrouting`, so that forwarded packets are judged
//! as the guard judges them.
//!
//! What differs from the guard, and why:
//!
//! - **Connection tracking allocates.** A reply is what conntrack knows as one; every packet makes or finds an entry, also
//!   those of strangers. The guard's flow table is written by the host alone.
//! - **Fragments are put together** before they are judged, so the whole datagram meets the port rules; the guard passes
//!   later fragments. Fragments are counted (and with `strict_fragments` dropped) in a chain before that.
//! - **Malformed packets**: the stack itself drops wrong versions, lengths and checksums before the filter, uncounted, also
//!   in audit. TCP fragments at offset 8, source routes and routing headers of type 0 are ours. A cut transport header that
//!   still has its ports is judged by them; first fragments without ports fail to be put together; chains of more than
//!   eight extension headers are walked to their end.
//! - **Not seen at all**: ARP and other EtherTypes (`strict_ethertypes` has no effect), packets for other MAC addresses, and
//!   packets with a source address that the stack refuses early (IPv6 loopback and multicast). Packet sockets (DHCP
//!   clients, captures) are served before the filter and send behind it.
//! - **VLANs** are judged where they arrive: on the VLAN interface, not on its parent. Loopback is never judged.
//! - **Several rows that admit one packet**: the first counts, management first; the guard counts them together.
//! - Of a denied packet only the reason is counted, not the port. The flow table's timeouts are conntrack's own.

mod render;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use ipnet::IpNet;
use portguard_common::config::dhcp;
use portguard_common::reason::{Direction, Reason};

use crate::catalog::Transport;
use crate::human::range;
use crate::image::{dhcp_only, spans};
use crate::policy::{Outbound, Peers, Policy};

/// The ruleset; `interface`: only what passes there, else whatever passes anywhere but on loopback.
///
/// Loading it replaces an earlier one of the same name in one step.
pub fn ruleset(policy: &Policy, interface: Option<&str>) -> String {
    let mut table = Table {
        policy,
        counters: BTreeSet::new(),
        sets: BTreeSet::new(),
        maps: String::new(),
        chains: String::new(),
    };
    let inbound = Side {
        direction: Direction::Ingress,
        enforce: policy.settings.enforce,
        interface,
    };
    table.side(&inbound);
    if policy.settings.outbound != Outbound::Off {
        table.replies();
        table.side(&Side {
            direction: Direction::Egress,
            enforce: policy.settings.outbound == Outbound::Enforce,
            interface,
        });
    }
    table.finish()
}

/// One direction.
struct Side<'a> {
    direction: Direction,
    enforce: bool,
    interface: Option<&'a str>,
}

struct Table<'a> {
    policy: &'a Policy,
    counters: BTreeSet<String>,
    sets: BTreeSet<u32>,
    maps: String,
    chains: String,
}

const TRANSPORTS: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

impl Side<'_> {
    const fn name(&self) -> &'static str {
        self.direction.name()
    }

    /// The peer's end of an address.
    const fn end(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "saddr",
            Direction::Egress => "daddr",
        }
    }

    const fn action(&self) -> &'static str {
        if self.enforce { "drop" } else { "accept" }
    }

    /// Lets other interfaces be.
    fn elsewhere(&self) -> String {
        let (index, name) = match self.direction {
            Direction::Ingress => ("iif", "iifname"),
            Direction::Egress => ("oif", "oifname"),
        };
        match self.interface {
            Some(interface) => format!("{name} != {} accept", quoted(interface)),
            None => format!("{index} \"lo\" accept"),
        }
    }
}

impl Table<'_> {
    /// `counter name in/ROW`, and remembers to declare it.
    fn count(&mut self, side: &str, what: &str) -> String {
        let name: String = format!("{side}/{what}")
            .chars()
            .map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '-' | '.' | '_' => c,
                _ => '_',
            })
            .collect();
        let statement = format!("counter name {name}");
        self.counters.insert(name);
        statement
    }

    fn count_reason(&mut self, side: &Side<'_>, reason: Reason) -> String {
        self.count(side.name(), reason.name(side.direction))
    }

    /// Address matches of a set of peers, one a family that it has; a match of everything for any.
    fn peers(&mut self, peers: Peers, end: &str) -> Vec<String> {
        let Peers::Set(index) = peers else {
            return vec![String::new()];
        };
        self.sets.insert(index);
        let set = self.policy.set(index);
        let has = |v6: bool| set.is_some_and(|set| set.prefixes.iter().any(|net| is_v6(net) == v6));
        let mut matches = Vec::new();
        if has(false) {
            matches.push(format!("ip {end} @s{index}_v4 "));
        }
        if has(true) {
            matches.push(format!("ip6 {end} @s{index}_v6 "));
        }
        matches
    }

    fn chain(&mut self, name: &str, rules: &[String]) {
        let _ = writeln!(self.chains, "\n\tchain {name} {{");
        for rule in rules {
            let _ = writeln!(self.chains, "\t\t{rule}");
        }
        let _ = writeln!(self.chains, "\t}}");
    }

    fn side(&mut self, side: &Side<'_>) {
        let name = side.name();
        self.refusals(side);
        let mut rules = Vec::new();
        if side.direction == Direction::Ingress {
            let only = dhcp_only(&self.policy.inbound);
            for (bit, client, server) in dhcp::PORTS {
                if only & bit != 0 {
                    rules.push(format!(
                        "udp dport {client} udp sport != {server} goto {name}_port"
                    ));
                }
            }
        }
        for transport in TRANSPORTS {
            if self.ports(side, transport) {
                rules.push(format!("{transport} dport vmap @{name}_{transport}"));
            }
        }
        rules.push(format!(
            "meta l4proto {{ tcp, udp, sctp }} goto {name}_port"
        ));
        self.icmp(side);
        rules.push(format!("meta nfproto ipv4 meta l4proto 1 goto {name}_icmp"));
        rules.push(format!(
            "meta nfproto ipv6 meta l4proto 58 goto {name}_icmpv6"
        ));
        rules.extend(self.protocols(side));
        let refused = self.count_reason(side, Reason::UndocumentedProtocol);
        rules.push(format!("{refused} {}", side.action()));

        let hook = match side.direction {
            Direction::Ingress => "prerouting",
            Direction::Egress => "postrouting",
        };
        let mut all = vec![
            format!(
                "type filter hook {hook} priority mangle; policy {};",
                side.action()
            ),
            side.elsewhere(),
        ];
        let malformed = self.count_reason(side, Reason::Malformed);
        for what in [
            "ip option lsrr exists",
            "ip option ssrr exists",
            "rt type 0",
        ] {
            all.push(format!("{what} {malformed} {}", side.action()));
        }
        all.extend(self.scope(side));
        all.append(&mut rules);
        self.chain(&format!("{name}bound"), &all);
        if side.direction == Direction::Ingress {
            self.fragments(side);
        }
    }

    /// Where a port that is open to others, and one that is open to nobody, ends.
    fn refusals(&mut self, side: &Side<'_>) {
        let name = side.name();
        let reply = self.count_reason(side, Reason::Reply);
        let reply = match side.direction {
            Direction::Ingress => {
                vec![format!(
                    "ct state established ct direction reply {reply} accept"
                )]
            }
            Direction::Egress => TRANSPORTS
                .iter()
                .map(|transport| format!("{transport} sport vmap @reply_{transport}"))
                .collect(),
        };
        let mut spared = Vec::new();
        let ranges = &self.policy.settings.audit_ports;
        if side.direction == Direction::Ingress && side.enforce {
            for transport in TRANSPORTS {
                let ranges: Vec<String> = ranges
                    .iter()
                    .filter(|(of, ..)| *of == transport)
                    .map(|(_, first, last)| range(*first, *last))
                    .collect();
                if !ranges.is_empty() {
                    spared.push(format!("{transport} dport {{ {} }}", ranges.join(", ")));
                }
            }
        }
        for (end, reason) in [
            ("port", Reason::UndocumentedPort),
            ("peer", Reason::UndocumentedPeer),
        ] {
            let count = self.count_reason(side, reason);
            let mut rules = reply.clone();
            rules.extend(spared.iter().map(|ports| format!("{ports} {count} accept")));
            rules.push(format!("{count} {}", side.action()));
            self.chain(&format!("{name}_{end}"), &rules);
        }
        let count = self.count_reason(side, Reason::UndocumentedPeer);
        let mut rules = reply;
        rules.push(format!("{count} accept"));
        self.chain(&format!("{name}_peer_audit"), &rules);
    }

    /// The map of one transport and the chains that it leads to; whether there are any.
    fn ports(&mut self, side: &Side<'_>, transport: Transport) -> bool {
        let grants = self.policy.grants(side.direction);
        let name = side.name();
        let mut chains: BTreeMap<Vec<(Peers, &str)>, String> = BTreeMap::new();
        let mut elements = Vec::new();
        for span in spans(grants)
            .iter()
            .filter(|span| span.transport == transport)
        {
            let mut seen = BTreeSet::new();
            let meaning: Vec<(Peers, &str)> = span
                .grants
                .iter()
                .map(|grant| (grant.peers, grant.row.as_str()))
                .filter(|meaning| seen.insert(*meaning))
                .collect();
            let chain = if let Some(chain) = chains.get(&meaning) {
                chain.clone()
            } else {
                let chain = format!("{name}_{transport}_{}", span.first);
                self.span(side, &chain, &meaning);
                chains.insert(meaning, chain.clone());
                chain
            };
            elements.push(format!("{} : goto {chain}", range(span.first, span.last)));
        }
        self.map(&format!("{name}_{transport}"), &elements);
        !elements.is_empty()
    }

    fn span(&mut self, side: &Side<'_>, chain: &str, meaning: &[(Peers, &str)]) {
        let mut rules = Vec::new();
        let mut is_open = false;
        for (peers, row) in meaning {
            let count = self.count(side.name(), row);
            for of in self.peers(*peers, side.end()) {
                rules.push(format!("{of}{count} accept"));
            }
            is_open |= *peers == Peers::Any;
        }
        if !is_open {
            let stays = meaning.iter().all(|(_, row)| self.policy.is_audited(row));
            rules.push(format!(
                "goto {}_peer{}",
                side.name(),
                if stays { "_audit" } else { "" }
            ));
        }
        self.chain(chain, &rules);
    }

    /// What the host answers from its documented ports: by the source port, to those who may ask.
    fn replies(&mut self) {
        for transport in TRANSPORTS {
            let mut chains: BTreeMap<BTreeSet<Peers>, String> = BTreeMap::new();
            let mut elements = Vec::new();
            let spans = spans(&self.policy.inbound);
            for span in spans.iter().filter(|span| span.transport == transport) {
                let peers: BTreeSet<Peers> = span.grants.iter().map(|grant| grant.peers).collect();
                let chain = if let Some(chain) = chains.get(&peers) {
                    chain.clone()
                } else {
                    let chain = format!("reply_{transport}_{}", span.first);
                    let count = self.count("out", Reason::Reply.name(Direction::Egress));
                    let mut rules = Vec::new();
                    for of in peers.iter().flat_map(|peers| self.peers(*peers, "daddr")) {
                        rules.push(format!("{of}{count} accept"));
                    }
                    self.chain(&chain, &rules);
                    chains.insert(peers, chain.clone());
                    chain
                };
                elements.push(format!("{} : jump {chain}", range(span.first, span.last)));
            }
            self.map(&format!("reply_{transport}"), &elements);
        }
    }

    fn map(&mut self, name: &str, elements: &[String]) {
        let _ = writeln!(
            self.maps,
            "\n\tmap {name} {{\n\t\ttype inet_service : verdict\n\t\tflags interval"
        );
        render::elements(&mut self.maps, elements);
        let _ = writeln!(self.maps, "\t}}");
    }
}

const fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// A string of nft's language, which knows no escapes.
fn quoted(text: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|c| !c.is_control() && *c != '"')
        .collect();
    format!("\"{kept}\"")
}
