//! Causes of violations in words: who, what for, and the rows that come near.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use portguard_common::sampler::{RATE, SAMPLED_ALL};
use serde::Serialize;

use super::bounds::{Bounds, bounds};
use super::{Talker, Talkers, whom};
use crate::counters::{Portless, Report};
use portguard_policy::catalog::{Catalog, Transport};
use portguard_policy::explain::{self, Near};
use portguard_policy::human::{grouped, rfc3339};
use portguard_policy::policy::Policy;

/// Of so many packets, none was looked at in one of a hundred cases: `(1 - 1 / RATE)` to this power.
const MISSED: u64 = 1_177;

/// The top talkers at one interface.
#[derive(Debug, Clone, Serialize)]
pub struct TopTalkers {
    /// Seconds since the Unix epoch that packets count from, here as in the counters beside: the first load or the last
    /// reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "portguard_policy::human::seconds::maybe::serialize")]
    pub since: Option<u64>,
    /// Whether that is a reset.
    #[serde(rename = "reset")]
    pub is_reset: bool,
    /// Whoever caused more packets than this is among the talkers: for certain if `exact`, else in 99 of 100 cases.
    pub bound: u64,
    /// Whether every violation was looked at; if not, see `estimated` of each top.
    pub exact: bool,
    /// Violations by the exact counters.
    pub violations: u64,
    /// How many of them are put down to somebody, whether known or displaced by a heavier top.
    pub attributed: u64,
    /// How many talkers are known; `talkers` may be the heaviest of them only.
    pub known: usize,
    /// Heaviest first.
    #[serde(rename = "callers")]
    pub talkers: Vec<TopTalker>,
}

/// One cause of violations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopTalker {
    /// `in` or `out`.
    pub direction: &'static str,
    /// Stable name of the reason.
    pub reason: &'static str,
    /// `tcp`, `udp`, `sctp`, `icmp`, `ip` with a protocol number, `ethertype`, `malformed`.
    pub transport: &'static str,
    /// Destination port, ICMP type, protocol number or EtherType; absent where there is none, and for clients' ports, which
    /// are not told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The port that packets to clients' ports come from, where it is a service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// What was malformed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// An address, or the IPv6 /64 of which too many addresses came to tell them apart; absent where the frame names nobody that could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The last address of a /64 that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_address: Option<IpAddr>,
    /// Packets: by count if `at_least` is `at_most`, else within the two, and never more than its port or cause counted.
    pub packets: u64,
    /// So many it sent for certain.
    pub at_least: u64,
    /// More it did not send.
    pub at_most: u64,
    /// Whether `packets` is an estimate, of a sample of the violations; if not, and yet `at_least` is below `at_most`, it
    /// is the most, and some may be of a top that had its place before.
    pub estimated: bool,
    /// How many of `packets` were dropped, not only counted.
    pub dropped: u64,
    /// Of the first packet since the first load, whatever packets count from. RFC 3339, UTC.
    pub first: String,
    /// Of the last one. RFC 3339, UTC.
    pub last: String,
    /// Rows that come near.
    pub nearest: Vec<Near>,
}

impl TopTalkers {
    /// The `most` heaviest talkers of the violations of a `report` that counts from the same moment; with the rows of a
    /// policy and a catalog that come `near`, if they are given.
    pub fn new(
        talkers: &Talkers,
        report: &Report,
        near: Option<(&Policy, &Catalog)>,
        most: usize,
    ) -> Self {
        let talkers = &talkers.gathered(&BTreeSet::new());
        let (bounds, exact) = bounds(talkers, report);
        let heaviest = talkers.heaviest.iter().zip(bounds);
        let mut shown: Vec<(&Talker, TopTalker)> = heaviest
            .map(|(talker, bounds)| (talker, TopTalker::told(talker, bounds)))
            .collect();
        shown.sort_by_key(|(_, top)| Reverse(top.packets));
        shown.truncate(most);
        if let Some((policy, catalog)) = near {
            for (talker, top) in &mut shown {
                top.look_near(talker, policy, catalog);
            }
        }
        Self {
            since: report.since,
            is_reset: report.reset.is_some(),
            bound: talkers.bound + if exact { 0 } else { MISSED },
            exact,
            violations: report.violations.packets,
            attributed: talkers.attributed,
            known: talkers.heaviest.len(),
            talkers: shown.into_iter().map(|(_, top)| top).collect(),
        }
    }

    /// `the first load`, or `the last reset`.
    pub fn since(&self) -> &'static str {
        if self.is_reset {
            "the last reset"
        } else {
            "the first load"
        }
    }

    /// What is known of those that are not shown, in words.
    pub fn words(&self) -> String {
        match (self.exact, self.bound) {
            (true, 0) => {
                "every violation was sampled: all talkers are known, with exact numbers".to_owned()
            }
            (true, bound) => format!(
                "every violation was sampled: no talker with more than {} packets is missing",
                grouped(bound)
            ),
            (false, bound) => format!(
                "~ is an estimate: beyond {SAMPLED_ALL} violations a second one in {RATE} was sampled; {} of {} have a known \
                 sender; a talker with fewer than {} packets may be missing",
                grouped(self.attributed),
                grouped(self.violations),
                grouped(bound)
            ),
        }
    }
}

impl TopTalker {
    /// Whether it caused some of these.
    pub fn is_of(&self, violations: &Portless) -> bool {
        let is_same = self.direction == violations.direction && self.reason == violations.reason;
        is_same
            && match (violations.protocol, self.transport) {
                (Some(number), "ip") => self.port == Some(number),
                (Some(_), _) => false,
                (None, "malformed") => violations.cause.as_deref() == self.cause,
                (None, "ethertype") => {
                    let number = format!("{:#06x}", self.port.unwrap_or(0));
                    violations
                        .cause
                        .as_ref()
                        .is_none_or(|cause| *cause == number || cause == "other")
                }
                (None, "icmp") => true,
                (None, _) => violations.reason == "strict-fragment",
            }
    }

    /// Of a cause by itself, all of whose packets were looked at.
    pub fn plain(talker: &Talker) -> Self {
        let bounds = Bounds {
            packets: talker.packets,
            at_least: talker.packets.saturating_sub(talker.error),
            at_most: talker.packets,
            is_estimate: false,
        };
        Self::told(talker, bounds)
    }

    fn told(talker: &Talker, bounds: Bounds) -> Self {
        let (transport, port, cause) = talker.what();
        let has_peer = !talker.peer.is_unspecified();
        Self {
            direction: talker.direction.name(),
            reason: talker.reason.name(talker.direction),
            transport,
            port,
            source_port: Some(talker.service).filter(|port| *port > 0),
            cause,
            peer: has_peer.then(|| name(whom(talker.peer, talker.is_crowd))),
            last_address: Some(talker.peer).filter(|_| has_peer && talker.is_crowd),
            packets: bounds.packets,
            at_least: bounds.at_least,
            at_most: bounds.at_most,
            estimated: bounds.is_estimate,
            dropped: talker.dropped.min(bounds.packets),
            first: rfc3339(talker.first),
            last: rfc3339(talker.last),
            nearest: Vec::new(),
        }
    }

    fn look_near(&mut self, talker: &Talker, policy: &Policy, catalog: &Catalog) {
        if let Some(transport) = Transport::from_repr(talker.protocol).filter(|_| self.has_port()) {
            let Some(port) = self.port else { return };
            let asked = (talker.direction, transport, port, talker.peer);
            self.nearest = explain::nearest(policy, catalog, asked);
        }
    }

    /// Whether `port` is one.
    pub fn has_port(&self) -> bool {
        matches!(self.transport, "tcp" | "udp" | "sctp")
    }

    /// Whether it goes to the ports of clients, which are not told apart.
    pub fn is_to_client(&self) -> bool {
        self.has_port() && self.port.is_none()
    }

    /// `tcp/23`, `icmp type 8`, `malformed (ip-options)`; of what goes to clients' ports `tcp from 9100`, `udp to clients`.
    pub fn what(&self) -> String {
        let port = self.port.unwrap_or(0);
        match (self.transport, self.cause) {
            ("malformed", Some(cause)) => format!("malformed ({cause})"),
            ("malformed", None) => "malformed".to_owned(),
            ("icmp", _) => format!("icmp type {port}"),
            ("ip", _) => format!("protocol {port}"),
            ("ethertype", _) => format!("ethertype {port:#06x}"),
            (transport, _) => match (self.port, self.source_port) {
                (Some(port), _) => format!("{transport}/{port}"),
                (None, Some(service)) => format!("{transport} from {service}"),
                (None, None) => format!("{transport} to clients"),
            },
        }
    }

    /// `10.0.0.9`, or what stands for nobody.
    pub fn who(&self) -> &str {
        self.peer.as_deref().unwrap_or("unknown")
    }

    /// `1,203`; `~1,203` where that is an estimate; `900 to 1,203` where some of them may be another's.
    pub fn amount(&self) -> String {
        if self.estimated {
            format!("~{}", grouped(self.packets))
        } else if self.at_least == self.at_most {
            grouped(self.packets)
        } else {
            format!("{} to {}", grouped(self.at_least), grouped(self.at_most))
        }
    }

    /// The nearest row, in a few words.
    pub fn near(&self) -> String {
        self.nearest.first().map_or(String::new(), |near| {
            format!("{} ({})", near.row, near.kind.replace('-', " "))
        })
    }
}

/// `10.0.0.9`, `2001:db8::9`, `2001:db8::/64`.
pub(crate) fn name(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use portguard_common::packet::Malformed;
    use portguard_common::reason::Reason;

    use super::*;

    fn talker(reason: Reason, number: u8, port: u16, peer: &str) -> Talker {
        Talker {
            reason,
            protocol: number,
            packets: 1_203,
            dropped: 3,
            looks: 3,
            first: 1_000_000_000,
            last: 2_000_000_000,
            ..Talker::example(port, peer)
        }
    }

    #[test]
    fn causes_have_words() {
        for (talker, who, what) in [
            (
                talker(Reason::UndocumentedPort, 6, 23, "192.0.2.7"),
                "192.0.2.7",
                "tcp/23",
            ),
            (
                talker(Reason::UndocumentedPeer, 17, 53, "2001:db8::9"),
                "2001:db8::9",
                "udp/53",
            ),
            (
                talker(Reason::Icmp, 58, 139, "2001:db8::9"),
                "2001:db8::9",
                "icmp type 139",
            ),
            (
                talker(Reason::UndocumentedProtocol, 47, 0, "192.0.2.7"),
                "192.0.2.7",
                "protocol 47",
            ),
            (
                talker(Reason::Malformed, 0, Malformed::Options as u16, "0.0.0.0"),
                "unknown",
                "malformed (ip-options)",
            ),
            (
                talker(Reason::StrictEthertype, 0, 0x88cc, "0.0.0.0"),
                "unknown",
                "ethertype 0x88cc",
            ),
        ] {
            let top = TopTalker::plain(&talker);
            assert_eq!((top.who(), top.what().as_str()), (who, what));
            assert_eq!(top.first, "1970-01-01T00:00:01.000000Z");
        }
    }

    #[test]
    fn amounts_say_how_sure_they_are() {
        let mut top = TopTalker::plain(&talker(Reason::UndocumentedPort, 6, 23, "192.0.2.7"));
        assert_eq!(top.amount(), "1,203");
        top.at_least = 900;
        assert_eq!(top.amount(), "900 to 1,203");
        top.estimated = true;
        assert_eq!(top.amount(), "~1,203");
    }

    #[test]
    fn near_rows_are_those_that_explain_names() {
        use crate::counters::tests::report;
        use portguard_policy::policy::{Grant, GrantKind, Peers};
        let policy = Policy {
            inbound: vec![Grant {
                kind: GrantKind::Documented,
                transport: Transport::Udp,
                first: 23,
                last: 23,
                peers: Peers::Any,
                row: "a/talk".to_owned(),
                until: None,
            }],
            ..Policy::default()
        };
        let talkers = Talkers {
            heaviest: vec![talker(Reason::UndocumentedPort, 6, 23, "192.0.2.7")],
            bound: 0,
            attributed: 1_203,
        };
        let catalog = Catalog::default();
        let near = Some((&policy, &catalog));
        let top_talkers = TopTalkers::new(&talkers, &report("tcp", &[(23, 1_203)]), near, 10);
        assert_eq!(top_talkers.talkers[0].near(), "a/talk (other transport)");
        assert!(top_talkers.exact && top_talkers.words().contains("all talkers are known"));
        let flood = TopTalkers::new(&talkers, &report("tcp", &[(23, 9_999)]), near, 0);
        assert!(flood.talkers.is_empty() && flood.known == 1);
        assert!(!flood.exact && flood.words().contains("1,203 of 9,999"));
    }
}
