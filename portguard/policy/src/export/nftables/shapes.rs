//! What is judged by other things than ports: own addresses, ICMP, other protocols, fragments.

use std::collections::BTreeMap;

use portguard_common::reason::{Direction, Reason};

use super::{Side, Table};
use crate::policy::Peers;

impl Table<'_> {
    /// Judges only what the kernel's routes do not hand on, where the site says so.
    pub(super) fn scope(&mut self, side: &Side<'_>) -> Vec<String> {
        if self.policy.settings.host_addresses.is_none() {
            return Vec::new();
        }
        let transit = self.count_reason(side, Reason::Transit);
        let end = match side.direction {
            Direction::Ingress => "daddr",
            Direction::Egress => "saddr",
        };
        [("ip", "169.254.0.0/16"), ("ip6", "fe80::/10")]
            .map(|(family, link_local)| {
                format!("{family} {end} != {link_local} fib {end} type unicast {transit} accept")
            })
            .to_vec()
    }

    pub(super) fn icmp(&mut self, side: &Side<'_>) {
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

    pub(super) fn protocols(&mut self, side: &Side<'_>) -> Vec<String> {
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
    pub(super) fn fragments(&mut self, side: &Side<'_>) {
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
}
