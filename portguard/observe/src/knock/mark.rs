//! Callers counted from a moment that the operator chose, as counters are: see [`crate::resets::Resets`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use portguard_common::reason::Direction;
use serde::{Deserialize, Serialize};

use super::{Knock, Knocks, network};

/// One cause as it is written: whether sent, reason, protocol, port or what takes its place, network of the peer; packets, error, dropped.
type Written = (bool, u8, u8, u64, IpAddr, u64, u64, u64);

/// What was put down to callers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(Vec<Written>);

fn written(knock: &Knock) -> Written {
    let Knock {
        direction,
        reason,
        protocol,
        port,
        to_client,
        service,
        peer,
        packets,
        error,
        dropped,
        looks: _,
        first: _,
        last: _,
    } = *knock;
    let is_sent = direction == Direction::Egress;
    // The port as it always was; what takes its place, above it.
    let port = u64::from(port) | u64::from(service) << 16 | u64::from(to_client) << 32;
    let peer = network(peer);
    (
        is_sent,
        reason as u8,
        protocol,
        port,
        peer,
        packets,
        error,
        dropped,
    )
}

impl Knocks {
    /// To count from now.
    pub fn mark(&self) -> Mark {
        Mark(self.heaviest.iter().map(written).collect())
    }

    /// What came since a mark was made, at a time in nanoseconds since the Unix epoch. Without a mark only the time is known:
    /// numbers of packets are then bounds from above.
    ///
    /// Where a caller had `b` packets by the mark, of which `d` may be another's, and has `n` now, of which `e` may be
    /// another's, it sent at most `n - b + d` since, and at least `n - e - b`. One that the mark does not have took a place
    /// since, and what it had before counts as its error.
    #[must_use]
    pub fn since(&self, mark: Option<&Mark>, at: u64) -> Self {
        let before: BTreeMap<_, _> = mark
            .into_iter()
            .flat_map(|mark| &mark.0)
            .map(
                |(sent, reason, protocol, port, peer, packets, error, dropped)| {
                    let who = (*sent, *reason, *protocol, *port, *peer);
                    (who, (*packets, *error, *dropped))
                },
            )
            .collect();
        let all = before.values().map(|(packets, ..)| packets).sum();
        let mut heaviest: Vec<Knock> = self
            .heaviest
            .iter()
            .filter(|knock| knock.last >= at)
            .map(|knock| {
                let (sent, reason, protocol, port, peer, ..) = written(knock);
                let who = (sent, reason, protocol, port, peer);
                let (packets, error, dropped) = before.get(&who).copied().unwrap_or_default();
                let sure = match mark {
                    Some(_) => (knock.packets - knock.error).saturating_sub(packets),
                    None => 0,
                };
                let most = knock.packets.saturating_sub(packets) + error;
                Knock {
                    packets: most,
                    error: most.saturating_sub(sure),
                    dropped: knock.dropped.saturating_sub(dropped),
                    // It was seen, or its last packet were older.
                    looks: Knock::looks(sure).max(1),
                    ..*knock
                }
            })
            .filter(|knock| knock.packets > 0)
            .collect();
        heaviest.sort_by_key(|knock| std::cmp::Reverse(knock.packets));
        Self {
            heaviest,
            bound: self.bound,
            attributed: self.attributed.saturating_sub(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use portguard_common::reason::Reason;

    use super::*;

    fn knock(peer: &str, packets: u64, error: u64, last: u64) -> Knock {
        Knock {
            direction: Direction::Ingress,
            reason: Reason::UndocumentedPort,
            protocol: 6,
            port: 23,
            to_client: false,
            service: 0,
            peer: peer.parse().unwrap(),
            packets,
            error,
            dropped: packets / 2,
            looks: Knock::looks(packets - error),
            first: 1,
            last,
        }
    }

    fn knocks(heaviest: Vec<Knock>) -> Knocks {
        Knocks {
            attributed: heaviest.iter().map(|knock| knock.packets).sum(),
            heaviest,
            bound: 3,
        }
    }

    #[test]
    fn what_came_since_is_within_its_bounds() {
        let then = knocks(vec![
            knock("192.0.2.1", 10, 2, 5),
            knock("192.0.2.2", 9, 0, 5),
            knock("2001:db8::1", 8, 0, 5),
            knock("192.0.2.3", 7, 0, 5),
        ]);
        let now = knocks(vec![
            knock("192.0.2.1", 30, 2, 9),
            knock("192.0.2.2", 9, 0, 5),
            knock("2001:db8::9", 10, 0, 9),
            // Has the place of the one that is gone.
            knock("192.0.2.4", 8, 7, 9),
        ]);
        let text = serde_json::to_vec(&then.mark()).unwrap();
        let mark: Mark = serde_json::from_slice(&text).unwrap();
        let since = now.since(Some(&mark), 6);
        let told: Vec<_> = since
            .heaviest
            .iter()
            .map(|knock| {
                (
                    knock.peer.to_string(),
                    knock.packets,
                    knock.error,
                    knock.dropped,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("192.0.2.1".to_owned(), 22, 4, 10),
                ("192.0.2.4".to_owned(), 8, 7, 4),
                ("2001:db8::9".to_owned(), 2, 0, 1),
            ]
        );
        assert_eq!(since.attributed, 23);

        // Nobody marked anything: they came, and how often since is not known.
        let unmarked = now.since(None, 6);
        assert!(
            unmarked
                .heaviest
                .iter()
                .all(|knock| (knock.error, knock.looks) == (knock.packets, 1))
        );
        assert_eq!(unmarked.heaviest.len(), 3);
    }
}
