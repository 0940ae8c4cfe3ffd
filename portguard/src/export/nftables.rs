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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use ipnet::IpNet;
use portguard_common::reason::{Direction, Reason};

use crate::catalog::Transport;
use crate::image::spans;
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
        let set = self.policy.sets.get(index as usize);
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
        for transport in TRANSPORTS {
            if self.ports(side, transport) {
                rules.push(format!("{transport} dport vmap @{name}_{transport}"));
            }
        }
        rules.push(format!(
            "meta l4proto {{ tcp, udp, sctp }} goto {name}_port"
        ));
        self.icmp(side);
        rules.push(format!(
            "meta nfproto ipv4 meta l4proto icmp goto {name}_icmp"
        ));
        rules.push(format!(
            "meta nfproto ipv6 meta l4proto ipv6-icmp goto {name}_icmpv6"
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

    /// Judges only what is for the host's own addresses, where the site says so.
    fn scope(&mut self, side: &Side<'_>) -> Vec<String> {
        let Some(own) = &self.policy.settings.host_addresses else {
            return Vec::new();
        };
        let transit = self.count_reason(side, Reason::Transit);
        let mut rules = Vec::new();
        for (v6, family, groups) in [
            (false, "ip", "{ 224.0.0.0/4, 255.255.255.255 }"),
            (true, "ip6", "ff00::/8"),
        ] {
            let own: Vec<String> = own
                .iter()
                .filter(|net| is_v6(net) == v6)
                .map(|net| net.addr().to_string())
                .collect();
            let end = match side.direction {
                Direction::Ingress => "daddr",
                Direction::Egress => "saddr",
            };
            let mut rule = if own.is_empty() {
                format!("meta nfproto ipv{} ", if v6 { 6 } else { 4 })
            } else {
                format!("{family} {end} != {{ {} }} ", own.join(", "))
            };
            if side.direction == Direction::Ingress {
                let _ = write!(rule, "{family} {end} != {groups} ");
            }
            rules.push(format!("{rule}{transit} accept"));
        }
        rules
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
        let grants = match side.direction {
            Direction::Ingress => &self.policy.inbound,
            Direction::Egress => &self.policy.outbound,
        };
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
            let chain = match chains.get(&meaning) {
                Some(chain) => chain.clone(),
                None => {
                    let chain = format!("{name}_{transport}_{}", span.first);
                    self.span(side, &chain, &meaning);
                    chains.insert(meaning, chain.clone());
                    chain
                }
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
            let stays = meaning.iter().all(|(_, row)| self.is_audit(row));
            rules.push(format!(
                "goto {}_peer{}",
                side.name(),
                if stays { "_audit" } else { "" }
            ));
        }
        self.chain(chain, &rules);
    }

    fn is_audit(&self, row: &str) -> bool {
        self.policy
            .rows
            .iter()
            .any(|facts| facts.audit && facts.id == row)
    }

    /// What the host answers from its documented ports: by the source port, to those who may ask.
    fn replies(&mut self) {
        for transport in TRANSPORTS {
            let mut chains: BTreeMap<BTreeSet<Peers>, String> = BTreeMap::new();
            let mut elements = Vec::new();
            let spans = spans(&self.policy.inbound);
            for span in spans.iter().filter(|span| span.transport == transport) {
                let peers: BTreeSet<Peers> = span.grants.iter().map(|grant| grant.peers).collect();
                let chain = match chains.get(&peers) {
                    Some(chain) => chain.clone(),
                    None => {
                        let chain = format!("reply_{transport}_{}", span.first);
                        let count = self.count("out", Reason::Reply.name(Direction::Egress));
                        let mut rules = Vec::new();
                        for of in peers.iter().flat_map(|peers| self.peers(*peers, "daddr")) {
                            rules.push(format!("{of}{count} accept"));
                        }
                        self.chain(&chain, &rules);
                        chains.insert(peers, chain.clone());
                        chain
                    }
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
        write_elements(&mut self.maps, elements);
        let _ = writeln!(self.maps, "\t}}");
    }

    fn icmp(&mut self, side: &Side<'_>) {
        let essential = self.count_reason(side, Reason::IcmpEssential);
        let reply = self.count_reason(side, Reason::EchoReply);
        let refused = self.count_reason(side, Reason::Icmp);
        let name = side.name();
        let echo = match side.direction {
            Direction::Ingress => self.policy.echo,
            Direction::Egress => Some(Peers::Any),
        };
        let echo_counter = self.count(name, "baseline/echo");
        let stranger = self.count_reason(side, Reason::UndocumentedPeer);
        let families = [
            (
                "icmp",
                "icmp",
                8,
                vec![
                    format!("icmp type {{ 3, 4, 11, 12 }} {essential} accept"),
                    format!("icmp type 0 {reply} accept"),
                ],
            ),
            (
                "icmpv6",
                "icmpv6",
                128,
                vec![
                    format!("icmpv6 type {{ 1, 2, 3, 4, 130, 131, 132, 143 }} {essential} accept"),
                    format!("icmpv6 type 133-137 ip6 hoplimit 255 {essential} accept"),
                    format!("icmpv6 type 129 {reply} accept"),
                ],
            ),
        ];
        for (chain, word, request, mut rules) in families {
            if let Some(peers) = echo {
                let family = if word == "icmp" { "ip " } else { "ip6 " };
                for of in self.peers(peers, side.end()) {
                    if of.is_empty() || of.starts_with(family) {
                        rules.push(format!("{word} type {request} {of}{echo_counter} accept"));
                    }
                }
                if peers != Peers::Any {
                    rules.push(format!(
                        "{word} type {request} {stranger} {}",
                        side.action()
                    ));
                }
            }
            rules.push(format!("{refused} {}", side.action()));
            self.chain(&format!("{name}_{chain}"), &rules);
        }
    }

    fn protocols(&mut self, side: &Side<'_>) -> Vec<String> {
        let name = side.name();
        let mut by_number: BTreeMap<u8, Vec<(Peers, &str)>> = BTreeMap::new();
        for grant in &self.policy.protocols {
            by_number
                .entry(grant.protocol)
                .or_default()
                .push((grant.peers, &grant.row));
        }
        let mut rules = Vec::new();
        for (number, meaning) in by_number {
            let chain = format!("{name}_protocol_{number}");
            self.span(side, &chain, &meaning);
            rules.push(format!("meta l4proto {number} goto {chain}"));
        }
        rules
    }

    /// Before fragments are put together: counts them, and drops what is dropped of them.
    fn fragments(&mut self, side: &Side<'_>) {
        let strict = self.policy.settings.strict_fragments;
        let reason = if strict {
            Reason::StrictFragment
        } else {
            Reason::Fragment
        };
        let action = if strict { side.action() } else { "accept" };
        let malformed = self.count_reason(side, Reason::Malformed);
        let later = self.count_reason(side, reason);
        let rules = [
            // Before defragmentation, which is at -400.
            "type filter hook prerouting priority -450; policy accept;".to_owned(),
            side.elsewhere(),
            format!(
                "ip protocol tcp ip frag-off & 0x1fff == 1 {malformed} {}",
                side.action()
            ),
            format!(
                "frag nexthdr tcp frag frag-off 1 {malformed} {}",
                side.action()
            ),
            format!("ip frag-off & 0x1fff != 0 {later} {action}"),
            format!("frag frag-off != 0 {later} {action}"),
        ];
        self.chain("in_fragments", &rules);
    }

    fn finish(self) -> String {
        let Self {
            policy,
            counters,
            sets,
            maps,
            chains,
        } = self;
        let mut out = String::new();
        let host = policy.host.as_deref().unwrap_or("this host");
        let _ = writeln!(
            out,
            "# The documented matrix of {} ({}), policy {}.\n# Written by portguard export; changes belong into the site file.",
            one_line(host),
            one_line(&policy.roles.join(", ")),
            policy.digest()
        );
        out.push_str(
            "\ntable inet portguard\ndelete table inet portguard\n\ntable inet portguard {\n",
        );
        for name in counters {
            if let Some(facts) = name
                .split_once('/')
                .and_then(|(_, row)| policy.rows.iter().find(|facts| facts.id == row))
            {
                let _ = writeln!(
                    out,
                    "\t# {}: {}",
                    one_line(&facts.citation),
                    one_line(&facts.purpose)
                );
            }
            let _ = writeln!(out, "\tcounter {name} {{}}");
        }
        for index in sets {
            let Some(set) = policy.sets.get(index as usize) else {
                continue;
            };
            for (v6, family) in [(false, 4), (true, 6)] {
                let elements: Vec<String> = set
                    .prefixes
                    .iter()
                    .filter(|net| is_v6(net) == v6)
                    .map(ToString::to_string)
                    .collect();
                if elements.is_empty() {
                    continue;
                }
                let _ = writeln!(
                    out,
                    "\n\t# {}\n\tset s{index}_v{family} {{\n\t\ttype ipv{family}_addr\n\t\tflags interval",
                    one_line(&set.name)
                );
                write_elements(&mut out, &elements);
                out.push_str("\t}\n");
            }
        }
        out.push_str(&maps);
        out.push_str(&chains);
        out.push_str("}\n");
        out
    }
}

fn write_elements(out: &mut String, elements: &[String]) {
    if !elements.is_empty() {
        let _ = writeln!(
            out,
            "\t\telements = {{\n\t\t\t{}\n\t\t}}",
            elements.join(",\n\t\t\t")
        );
    }
}

fn range(first: u16, last: u16) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

const fn is_v6(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(_))
}

/// Names come from files: a line break would end a comment, and what follows would be a rule.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A string of nft's language, which knows no escapes.
fn quoted(text: &str) -> String {
    let kept: String = text
        .chars()
        .filter(|c| !c.is_control() && *c != '"')
        .collect();
    format!("\"{kept}\"")
}
