//! Callers counted from a moment that the operator chose, as counters are: see [`crate::resets::Resets`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use portguard_common::reason::Direction;
use serde::{Deserialize, Serialize};

use super::{Talker, Talkers};

/// One cause as it is written: whether sent, reason, protocol, port or what takes its place, peer; packets, error, dropped.
type Written = (bool, u8, u8, u64, IpAddr, u64, u64, u64);

/// What was put down to talkers at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(Vec<Written>);

fn written(talker: &Talker) -> Written {
    let Talker {
        direction,
        reason,
        protocol,
        port,
        to_client,
        service,
        peer,
        is_crowd: _,
        packets,
        error,
        dropped,
        looks: _,
        first: _,
        last: _,
    } = *talker;
    let is_sent = direction == Direction::Egress;
    // The port as it always was; what takes its place, above it.
    let port = u64::from(port) | u64::from(service) << 16 | u64::from(to_client) << 32;
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

impl Talkers {
    /// To count from now.
    pub fn mark(&self) -> Mark {
        Mark(self.heaviest.iter().map(written).collect())
    }

    /// What came since a mark was made, at a time in nanoseconds since the Unix epoch. Without a mark only the time is known:
    /// numbers of packets are then bounds from above.
    ///
    /// Where a talker had `b` packets by the mark, of which `d` may be another's, and has `n` now, of which `e` may be
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
        let mut heaviest: Vec<Talker> = self
            .heaviest
            .iter()
            .filter(|talker| talker.last >= at)
            .map(|talker| {
                let (sent, reason, protocol, port, peer, ..) = written(talker);
                let who = (sent, reason, protocol, port, peer);
                let (packets, error, dropped) = before.get(&who).copied().unwrap_or_default();
                let sure = match mark {
                    Some(_) => (talker.packets - talker.error).saturating_sub(packets),
                    None => 0,
                };
                let most = talker.packets.saturating_sub(packets) + error;
                Talker {
                    packets: most,
                    error: most.saturating_sub(sure),
                    dropped: talker.dropped.saturating_sub(dropped),
                    // It was seen, or its last packet were older.
                    looks: Talker::looks(sure).max(1),
                    ..*talker
                }
            })
            .filter(|talker| talker.packets > 0)
            .collect();
        heaviest.sort_by_key(|talker| std::cmp::Reverse(talker.packets));
        Self {
            heaviest,
            bound: self.bound,
            attributed: self.attributed.saturating_sub(all),
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn talker(peer: &str, packets: u64, error: u64, last: u64) -> Talker {
        Talker {
            packets,
            error,
            dropped: packets / 2,
            looks: Talker::looks(packets - error),
            first: 1,
            last,
            ..Talker::example(23, peer)
        }
    }

    fn talkers(heaviest: Vec<Talker>) -> Talkers {
        Talkers {
            attributed: heaviest.iter().map(|talker| talker.packets).sum(),
            heaviest,
            bound: 3,
        }
    }

    #[test]
    fn what_came_since_is_within_its_bounds() {
        let then = talkers(vec![
            talker("192.0.2.1", 10, 2, 5),
            talker("192.0.2.2", 9, 0, 5),
            talker("2001:db8::1", 8, 0, 5),
            talker("192.0.2.3", 7, 0, 5),
        ]);
        let now = talkers(vec![
            talker("192.0.2.1", 30, 2, 9),
            talker("192.0.2.2", 9, 0, 5),
            talker("2001:db8::1", 10, 0, 9),
            // Has the place of the one that is gone.
            talker("192.0.2.4", 8, 7, 9),
        ]);
        let text = serde_json::to_vec(&then.mark()).unwrap();
        let mark: Mark = serde_json::from_slice(&text).unwrap();
        let since = now.since(Some(&mark), 6);
        let told: Vec<_> = since
            .heaviest
            .iter()
            .map(|talker| {
                (
                    talker.peer.to_string(),
                    talker.packets,
                    talker.error,
                    talker.dropped,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("192.0.2.1".to_owned(), 22, 4, 10),
                ("192.0.2.4".to_owned(), 8, 7, 4),
                ("2001:db8::1".to_owned(), 2, 0, 1),
            ]
        );
        assert_eq!(since.attributed, 23);

        // Nobody marked anything: they came, and how often since is not known.
        let unmarked = now.since(None, 6);
        assert!(
            unmarked
                .heaviest
                .iter()
                .all(|talker| (talker.error, talker.looks) == (talker.packets, 1))
        );
        assert_eq!(unmarked.heaviest.len(), 3);
    }
}
