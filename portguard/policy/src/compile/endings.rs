//! What ends by itself: rows that expire, and change-overs that are over.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::human;
use crate::policy::{Grant, Omitted, Policy};
use crate::site::end_of_day;

/// The moment that [`super::Inputs::today`] means: a day means its start.
fn start_of(text: &str) -> Option<u64> {
    let moment = match text.parse::<Timestamp>() {
        Ok(moment) => moment,
        Err(_) => text
            .parse::<Date>()
            .ok()?
            .to_zoned(TimeZone::UTC)
            .ok()?
            .timestamp(),
    };
    u64::try_from(moment.as_second()).ok()
}

/// Whether what ends at `text` is over.
pub(super) fn is_over(text: &str, today: Option<&str>) -> bool {
    let times = end_of_day(text).zip(today.and_then(start_of));
    times.is_some_and(|(end, now)| end <= now)
}

impl Policy {
    /// All grants that end by themselves.
    pub fn ending(&self) -> impl Iterator<Item = (&Grant, u64)> {
        let grants = self.inbound.iter().chain(&self.outbound);
        grants.filter_map(|grant| Some((grant, grant.until?)))
    }

    /// The policy as the kernel has it at a time, in seconds since the Unix epoch: without what has ended.
    #[must_use]
    pub fn without_ended(&self, now: u64) -> Self {
        let mut policy = self.clone();
        for grants in [&mut policy.inbound, &mut policy.outbound] {
            grants.retain(|grant| grant.until.is_none_or(|until| until > now));
        }
        for (grant, until) in self.ending().filter(|(_, until)| *until <= now) {
            let omitted = Omitted {
                row: grant.row.clone(),
                reason: "expired".to_owned(),
                detail: format!("it ended at {}", human::time(until)),
                peers: None,
            };
            if !policy.omitted.contains(&omitted) {
                policy.omitted.push(omitted);
            }
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_day_ends_with_it_and_a_moment_at_once() {
        let midnight = end_of_day("2027-02-01T00:00:00Z");
        assert_eq!(end_of_day("2027-01-31"), midnight);
        assert_eq!(end_of_day("2027-02-01T01:00:00+01:00"), midnight);
        assert_eq!(start_of("2027-02-01"), midnight);
        assert_eq!(end_of_day("soon"), None);
        assert!(!is_over("2027-01-31", Some("2027-01-31")));
        assert!(!is_over("2027-01-31", Some("2027-01-31T23:59:59Z")));
        assert!(is_over("2027-01-31", Some("2027-02-01")));
        assert!(!is_over("2027-01-31", None));
    }
}
