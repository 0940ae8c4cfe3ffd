//! What is known of the domain names among the peers, and when to ask for which again. No network and no clock in here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portguard_kernel::host::resolve::Answer;
use portguard_policy::domains::{Answers, Domains};

/// How often to ask, and how long an address outlives its last answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Never ask sooner, however short the TTL.
    pub(super) least: Duration,
    /// Never ask later, however long the TTL.
    pub(super) most: Duration,
    /// An address that is no longer in the answer stays so long.
    pub(super) hold: Duration,
}

/// All names of the policies in force.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<String, Name>,
}

/// One name.
#[derive(Debug)]
pub(super) struct Name {
    /// Addresses of each family, and when each was last in an answer.
    families: [BTreeMap<IpAddr, Instant>; 2],
    due: Instant,
    is_asked: bool,
    /// Failures since the agent began.
    pub(super) failures: u64,
    /// Why there is no newer answer, if the last question failed.
    pub(super) error: Option<String>,
    /// When the last answer came, in seconds since the Unix epoch.
    pub(super) answered: Option<u64>,
    /// Whether some set follows the name.
    pub(super) is_used: bool,
}

impl Name {
    /// Addresses, sorted.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.families
            .iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect()
    }
}

/// What an answer made of a name, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// As before.
    Nothing,
    /// The question failed; the last good answer stays.
    Failed(String),
    /// The first answer after failures.
    Recovered,
}

impl Names {
    /// Takes the names of the policies in force; those that are new are asked for at once.
    pub(super) fn track<'a>(&mut self, policies: impl Iterator<Item = &'a Domains>, now: Instant) {
        let mut wanted: BTreeMap<&str, (Vec<IpAddr>, bool)> = BTreeMap::new();
        for domains in policies {
            let used = domains.used();
            for (name, addresses) in &domains.names {
                let entry = wanted.entry(name).or_default();
                entry.0.extend(addresses);
                entry.1 |= used.contains(name.as_str());
            }
        }
        self.known
            .retain(|name, _| wanted.contains_key(name.as_str()));
        for (name, (addresses, is_used)) in wanted {
            if let Some(known) = self.known.get_mut(name) {
                known.is_used = is_used;
                // What a policy was loaded with that this agent did not ask for.
                for address in addresses {
                    let [v4, v6] = &mut known.families;
                    let family = if address.is_ipv6() { v6 } else { v4 };
                    family.entry(address).or_insert(now);
                }
                continue;
            }
            let family = |v6: bool| {
                let of = addresses.iter().filter(|address| address.is_ipv6() == v6);
                of.map(|address| (*address, now)).collect()
            };
            let name_of = Name {
                families: [family(false), family(true)],
                due: now,
                is_asked: false,
                failures: 0,
                error: None,
                answered: None,
                is_used,
            };
            self.known.insert(name.to_owned(), name_of);
        }
    }

    /// Names to ask for now; they are not due again until they are answered.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        for (text, name) in &mut self.known {
            if !name.is_asked && name.due <= now {
                name.is_asked = true;
                due.push(text.clone());
            }
        }
        due
    }

    /// When the next name is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self.known.values().filter(|name| !name.is_asked);
        waiting.map(|name| name.due).min()
    }

    /// Takes an answer. A family that failed keeps what it had.
    pub(super) fn answered(
        &mut self,
        text: &str,
        answer: Answer,
        (now, wall): (Instant, u64),
        bounds: &Bounds,
    ) -> News {
        let Some(name) = self.known.get_mut(text) else {
            return News::Nothing;
        };
        name.is_asked = false;
        let (mut wait, mut error) = (bounds.most, None);
        for (family, known) in answer.into_iter().zip(&mut name.families) {
            match family {
                Ok((addresses, ttl)) => {
                    wait = wait.min(ttl);
                    known.extend(addresses.iter().map(|address| (*address, now)));
                    known.retain(|address, seen| {
                        addresses.contains(address) || now.duration_since(*seen) < bounds.hold
                    });
                }
                Err(why) => {
                    wait = bounds.least;
                    error = Some(why);
                }
            }
        }
        name.due = now + wait.clamp(bounds.least, bounds.most);
        let had = std::mem::replace(&mut name.error, error.clone());
        let Some(why) = error else {
            name.answered = Some(wall);
            let is_back = had.is_some() && name.is_used;
            return if is_back {
                News::Recovered
            } else {
                News::Nothing
            };
        };
        name.failures += 1;
        // Once, not every minute; and not of a name that no set follows.
        if had.as_ref() == Some(&why) || !name.is_used {
            News::Nothing
        } else {
            News::Failed(why)
        }
    }

    /// What each name stands for now.
    pub(super) fn answers(&self) -> Answers {
        let all = self.known.iter();
        all.map(|(text, name)| (text.clone(), name.addresses()))
            .collect()
    }

    /// All names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Name)> {
        self.known.iter().map(|(text, name)| (text.as_str(), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portguard_policy::domains::{DomainSet, Part};

    const BOUNDS: Bounds = Bounds {
        least: Duration::from_secs(30),
        most: Duration::from_mins(10),
        hold: Duration::from_secs(100),
    };

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn tracked(now: Instant) -> Names {
        let domains = Domains {
            names: Answers::from([("a".to_owned(), vec![ip(1)])]),
            sets: vec![DomainSet {
                set: 0,
                parts: vec![Part {
                    prefixes: Vec::new(),
                    names: vec!["a".to_owned()],
                }],
            }],
        };
        let mut names = Names::default();
        names.track([&domains].into_iter(), now);
        names
    }

    fn v4(addresses: &[u8], ttl: u64) -> Answer {
        let addresses = addresses.iter().map(|last| ip(*last)).collect();
        let long = Duration::from_secs(9_999);
        [
            Ok((addresses, Duration::from_secs(ttl))),
            Ok((Vec::new(), long)),
        ]
    }

    #[test]
    fn names_are_asked_for_when_their_ttl_ends_within_bounds() {
        let start = Instant::now();
        let mut names = tracked(start);
        for (ttl, wait) in [(1, 30), (60, 60), (86_400, 600)] {
            let now = names.next().unwrap();
            assert_eq!(names.due(now), ["a"]);
            assert_eq!(names.due(now), [] as [&str; 0], "asked for already");
            assert_eq!(names.next(), None);
            names.answered("a", v4(&[1], ttl), (now, 5), &BOUNDS);
            assert_eq!(names.next(), Some(now + Duration::from_secs(wait)));
            assert_eq!(names.due(now), [] as [&str; 0]);
        }
    }

    #[test]
    fn addresses_outlive_their_answer_by_the_hold_and_failures_for_ever() {
        let start = Instant::now();
        let at = |seconds| (start + Duration::from_secs(seconds), seconds);
        let mut names = tracked(start);
        let answer =
            |names: &mut Names, answer, seconds| names.answered("a", answer, at(seconds), &BOUNDS);
        answer(&mut names, v4(&[1], 30), 0);
        answer(&mut names, v4(&[2], 30), 99);
        assert_eq!(names.answers()["a"], [ip(1), ip(2)]);
        answer(&mut names, v4(&[2], 30), 100);
        assert_eq!(names.answers()["a"], [ip(2)]);
        let failed = || [Err("no".to_owned()), Err("no".to_owned())];
        let said = answer(&mut names, failed(), 5_000);
        assert_eq!(said, News::Failed("no".to_owned()));
        assert_eq!(answer(&mut names, failed(), 6_000), News::Nothing);
        assert_eq!(names.answers()["a"], [ip(2)]);
        let (_, name) = names.iter().next().unwrap();
        assert_eq!((name.failures, name.answered), (2, Some(100)));
        // One family fails: the other's answer is taken.
        let half = [v4(&[3], 30)[0].clone(), Err("no".to_owned())];
        answer(&mut names, half, 7_000);
        assert_eq!(names.answers()["a"], [ip(3)]);
        assert_eq!(answer(&mut names, v4(&[3], 30), 8_000), News::Recovered);
    }

    #[test]
    fn names_that_no_policy_has_are_forgotten() {
        let start = Instant::now();
        let mut names = tracked(start);
        names.track(std::iter::empty(), start);
        assert!(names.answers().is_empty());
        let late = names.answered("a", v4(&[1], 1), (start, 1), &BOUNDS);
        assert_eq!(late, News::Nothing);
    }
}
