//! Causes of violations in words: who, what for, and the rows that come near.

use std::net::IpAddr;

use portguard_common::packet::{Malformed, protocol};
use portguard_common::reason::Reason;
use serde::Serialize;

use super::{Knock, Knocks, network};
use crate::catalog::{Catalog, Transport};
use crate::explain::{self, Near};
use crate::human::{grouped, rfc3339};
use crate::policy::Policy;

/// Who is knocking at one interface, since its first load.
#[derive(Debug, Clone, Serialize)]
pub struct Knocking {
    /// Whoever caused more packets than this is among the callers.
    pub bound: u64,
    /// How many callers are known; `callers` may be the heaviest of them only.
    pub known: usize,
    /// Heaviest first.
    pub callers: Vec<Caller>,
}

/// One cause of violations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Caller {
    /// `in` or `out`.
    pub direction: &'static str,
    /// Stable name of the reason.
    pub reason: &'static str,
    /// `tcp`, `udp`, `sctp`, `icmp`, `ip` with a protocol number, `ethertype`, `malformed`.
    pub transport: &'static str,
    /// Destination port, ICMP type, protocol number or EtherType; 0 where there is none.
    pub port: u16,
    /// What was malformed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// An IPv4 address, or an IPv6 prefix of 64 bits; absent where the frame names nobody that could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The last address of an IPv6 prefix that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_address: Option<IpAddr>,
    /// Packets, at most: an estimate above 64 a second.
    pub packets: u64,
    /// By how many of them that may be too high.
    pub error: u64,
    /// How many of them were dropped, not only counted.
    pub dropped: u64,
    /// RFC 3339, UTC.
    pub first: String,
    /// RFC 3339, UTC.
    pub last: String,
    /// Rows that come near.
    pub nearest: Vec<Near>,
}

impl Knocking {
    /// The `most` heaviest callers, with the rows of `policy` and `catalog` that come near.
    pub fn new(knocks: &Knocks, policy: &Policy, catalog: &Catalog, most: usize) -> Self {
        let heaviest = knocks.heaviest.iter().take(most);
        Self {
            bound: knocks.bound,
            known: knocks.heaviest.len(),
            callers: heaviest
                .map(|knock| Caller::new(knock, policy, catalog))
                .collect(),
        }
    }

    /// What is known of those that are not shown, in words.
    pub fn words(&self) -> String {
        let bound = if self.bound == 0 {
            "all callers are known".to_owned()
        } else {
            format!(
                "nobody with more than {} packets is missing",
                grouped(self.bound)
            )
        };
        format!("{bound}; above 64 violations a second numbers are estimated from one in 256")
    }
}

impl Caller {
    /// Without the rows that come near.
    pub fn plain(knock: &Knock) -> Self {
        let (transport, port, cause) = what(knock);
        let has_peer = !knock.peer.is_unspecified();
        let prefix = match (network(knock.peer), has_peer) {
            (_, false) => None,
            (IpAddr::V4(address), true) => Some(address.to_string()),
            (IpAddr::V6(network), true) => Some(format!("{network}/64")),
        };
        Self {
            direction: knock.direction.name(),
            reason: knock.reason.name(knock.direction),
            transport,
            port,
            cause,
            peer: prefix,
            last_address: Some(knock.peer).filter(|peer| has_peer && peer.is_ipv6()),
            packets: knock.packets,
            error: knock.error.min(knock.packets),
            dropped: knock.dropped,
            first: rfc3339(knock.first),
            last: rfc3339(knock.last),
            nearest: Vec::new(),
        }
    }

    fn new(knock: &Knock, policy: &Policy, catalog: &Catalog) -> Self {
        let mut caller = Self::plain(knock);
        if let Some(transport) = carrier(knock.protocol).filter(|_| caller.has_port()) {
            let asked = (knock.direction, transport, knock.port, knock.peer);
            caller.nearest = explain::nearest(policy, catalog, asked);
        }
        caller
    }

    /// Whether `port` is one.
    pub fn has_port(&self) -> bool {
        matches!(self.transport, "tcp" | "udp" | "sctp")
    }

    /// `tcp/23`, `icmp type 8`, `malformed (ip-options)`.
    pub fn what(&self) -> String {
        match (self.transport, self.cause) {
            ("malformed", Some(cause)) => format!("malformed ({cause})"),
            ("malformed", None) => "malformed".to_owned(),
            ("icmp", _) => format!("icmp type {}", self.port),
            ("ip", _) => format!("protocol {}", self.port),
            ("ethertype", _) => format!("ethertype {:#06x}", self.port),
            (transport, _) => format!("{transport}/{}", self.port),
        }
    }

    /// `10.0.0.9`, or what stands for nobody.
    pub fn who(&self) -> &str {
        self.peer.as_deref().unwrap_or("unknown")
    }

    /// `1,203`, or `900 to 1,203` where some of them may be another's.
    pub fn amount(&self) -> String {
        if self.error == 0 {
            grouped(self.packets)
        } else {
            let sure = self.packets - self.error;
            format!("{} to {}", grouped(sure), grouped(self.packets))
        }
    }

    /// The nearest row, in a few words.
    pub fn near(&self) -> String {
        self.nearest.first().map_or(String::new(), |near| {
            format!("{} ({})", near.row, near.kind.replace('-', " "))
        })
    }
}

fn carrier(number: u8) -> Option<Transport> {
    match number {
        protocol::TCP => Some(Transport::Tcp),
        protocol::UDP => Some(Transport::Udp),
        protocol::SCTP => Some(Transport::Sctp),
        _ => None,
    }
}

fn what(knock: &Knock) -> (&'static str, u16, Option<&'static str>) {
    match (knock.reason, knock.protocol) {
        (Reason::Malformed, _) => {
            let mut all = Malformed::ALL.into_iter();
            let cause = all.find(|cause| *cause as u16 == knock.port);
            ("malformed", 0, cause.map(Malformed::name))
        }
        (Reason::NonIp | Reason::StrictEthertype, _) => ("ethertype", knock.port, None),
        (Reason::UndocumentedProtocol | Reason::StrictFragment, number) => {
            ("ip", number.into(), None)
        }
        (_, protocol::TCP) => ("tcp", knock.port, None),
        (_, protocol::UDP) => ("udp", knock.port, None),
        (_, protocol::SCTP) => ("sctp", knock.port, None),
        (_, protocol::ICMP | protocol::ICMPV6) => ("icmp", knock.port, None),
        (_, number) => ("ip", number.into(), None),
    }
}

/// The callers of one place, for who compares ports.
pub fn of_port<'c>(
    callers: &'c [Caller],
    direction: &str,
    transport: &str,
    ports: std::ops::RangeInclusive<u16>,
) -> impl Iterator<Item = &'c Caller> {
    callers.iter().filter(move |caller| {
        caller.direction == direction
            && caller.transport == transport
            && ports.contains(&caller.port)
    })
}

#[cfg(test)]
mod tests {
    use portguard_common::reason::Direction;

    use super::*;

    fn knock(reason: Reason, number: u8, port: u16, peer: &str) -> Knock {
        Knock {
            direction: Direction::Ingress,
            reason,
            protocol: number,
            port,
            peer: peer.parse().unwrap(),
            packets: 1_203,
            error: 0,
            dropped: 3,
            first: 1_000_000_000,
            last: 2_000_000_000,
        }
    }

    #[test]
    fn causes_have_words() {
        for (knock, who, what) in [
            (
                knock(Reason::UndocumentedPort, 6, 23, "192.0.2.7"),
                "192.0.2.7",
                "tcp/23",
            ),
            (
                knock(Reason::UndocumentedPeer, 17, 53, "2001:db8::9"),
                "2001:db8::/64",
                "udp/53",
            ),
            (
                knock(Reason::Icmp, 58, 139, "2001:db8::9"),
                "2001:db8::/64",
                "icmp type 139",
            ),
            (
                knock(Reason::UndocumentedProtocol, 47, 0, "192.0.2.7"),
                "192.0.2.7",
                "protocol 47",
            ),
            (
                knock(Reason::Malformed, 0, Malformed::Options as u16, "0.0.0.0"),
                "unknown",
                "malformed (ip-options)",
            ),
            (
                knock(Reason::StrictEthertype, 0, 0x88cc, "0.0.0.0"),
                "unknown",
                "ethertype 0x88cc",
            ),
        ] {
            let caller = Caller::plain(&knock);
            assert_eq!((caller.who(), caller.what().as_str()), (who, what));
            assert_eq!(caller.first, "1970-01-01T00:00:01.000000Z");
        }
    }

    #[test]
    fn amounts_say_how_sure_they_are() {
        let mut caller = Caller::plain(&knock(Reason::UndocumentedPort, 6, 23, "192.0.2.7"));
        assert_eq!(caller.amount(), "1,203");
        caller.error = 303;
        assert_eq!(caller.amount(), "900 to 1,203");
    }

    #[test]
    fn near_rows_are_those_that_explain_names() {
        use crate::policy::{Grant, GrantKind, Peers};
        let policy = Policy {
            inbound: vec![Grant {
                kind: GrantKind::Documented,
                transport: Transport::Udp,
                first: 23,
                last: 23,
                peers: Peers::Any,
                row: "a/talk".to_owned(),
            }],
            ..Policy::default()
        };
        let knocks = Knocks {
            heaviest: vec![knock(Reason::UndocumentedPort, 6, 23, "192.0.2.7")],
            bound: 0,
        };
        let catalog = Catalog::default();
        let knocking = Knocking::new(&knocks, &policy, &catalog, 10);
        assert_eq!(knocking.callers[0].near(), "a/talk (other transport)");
        assert!(knocking.words().starts_with("all callers are known"));
        assert!(
            Knocking::new(&knocks, &policy, &catalog, 0)
                .callers
                .is_empty()
        );
    }
}
