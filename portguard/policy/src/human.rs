//! Numbers and times as people read them, and as JSON has them.

use std::fmt::Display;

use jiff::Timestamp;

/// `1,234,567`: exact, in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 finding`, `1,234 findings`: a number of things, by the word for one of them.
pub fn count(number: u64, thing: &str) -> String {
    let plural = match number {
        1 => "",
        _ if thing.ends_with(['s', 'x']) || thing.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {thing}{plural}", grouped(number))
}

/// `443`, `8000-8010`: from one to another, both of it.
pub fn range<T: Into<u64>>(first: T, last: T) -> String {
    let (first, last) = (first.into(), last.into());
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// `a, b and 3 more`: the first few of many.
pub fn some<T: Display>(all: impl IntoIterator<Item = T>, most: usize, between: &str) -> String {
    let mut all = all.into_iter();
    let shown: Vec<String> = all.by_ref().take(most).map(|one| one.to_string()).collect();
    let shown = shown.join(between);
    match all.count() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `1.5 MiB`: three digits or so.
pub fn bytes(number: u64) -> String {
    scaled(number, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// `1.5 k`: three digits or so, for axes and rates.
pub fn short(number: u64) -> String {
    scaled(number, 1000, &["", "k", "M", "G", "T"])
        .trim_end()
        .to_owned()
}

fn scaled(number: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut base = 1;
    while number / base >= step && unit + 1 < units.len() {
        base *= step;
        unit += 1;
    }
    let unit = units.get(unit).copied().unwrap_or_default();
    let (whole, tenths) = (number / base, number % base * 10 / base);
    if base == 1 || whole >= 100 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenths} {unit}")
    }
}

/// `3 d 4 h`, `5 min`, `12 s`: the two largest units.
pub fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units {
        if rest >= size {
            parts.push(format!("{} {unit}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() {
        "0 s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// Seconds since the Unix epoch as `2026-11-22 00:15:00 UTC`.
pub fn time(seconds: u64) -> String {
    moment(seconds)
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string()
}

/// Nanoseconds since the Unix epoch as `2026-11-22T00:15:00.123456Z` (RFC 3339).
pub fn rfc3339(nanoseconds: u64) -> String {
    let time = Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::MAX);
    format!("{time:.6}")
}

/// The day of a second since the Unix epoch, as `2026-11-22`.
pub fn date(seconds: u64) -> String {
    moment(seconds).strftime("%Y-%m-%d").to_string()
}

fn moment(seconds: u64) -> Timestamp {
    let time = i64::try_from(seconds).ok().map(Timestamp::from_second);
    time.and_then(Result::ok).unwrap_or(Timestamp::MAX)
}

/// Seconds since the Unix epoch as `2026-11-22T00:15:00Z` (RFC 3339).
pub fn rfc3339_seconds(seconds: u64) -> String {
    moment(seconds).to_string()
}

/// Seconds since the Unix epoch as JSON has them: RFC 3339. What an earlier version wrote as a number is read, too.
pub mod seconds {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    /// A moment.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(seconds: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&super::moment(*seconds))
    }

    /// A moment.
    ///
    /// # Errors
    /// If it is neither a number nor a time by RFC 3339.
    pub fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Seconds(u64),
            Time(String),
        }
        match Either::deserialize(from)? {
            Either::Seconds(seconds) => Ok(seconds),
            Either::Time(text) => {
                let time: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
                u64::try_from(time.as_second()).map_err(serde::de::Error::custom)
            }
        }
    }

    /// A moment that may not be known, and is left out then.
    pub mod maybe {
        use serde::Serializer;

        /// A moment.
        ///
        /// # Errors
        /// Those of the format.
        pub fn serialize<S: Serializer>(seconds: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
            match seconds {
                Some(seconds) => super::serialize(seconds, to),
                None => to.serialize_none(),
            }
        }
    }
}

/// Without control characters: names come from files, processes and interfaces, and the reader's terminal obeys.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// As [`plain`], and lines stay lines.
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, wanted) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_778, "2026-11-21"),
        ] {
            assert_eq!(date(days * 86_400), wanted);
        }
    }

    #[test]
    fn numbers_and_times() {
        let grouped: Vec<String> = [0, 999, 1000, 1_234_567, u64::MAX].map(grouped).into();
        assert_eq!(
            grouped,
            [
                "0",
                "999",
                "1,000",
                "1,234,567",
                "18,446,744,073,709,551,615"
            ]
        );
        let sizes: Vec<String> = [0, 1023, 1024, 1536, 150 << 20, u64::MAX].map(bytes).into();
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "150 MiB",
                "16383 PiB"
            ]
        );
        assert_eq!([short(12), short(1500)], ["12", "1.5 k"]);
        let spans: Vec<String> = [0, 59, 61, 3600, 90_061, 864_000].map(duration).into();
        assert_eq!(
            spans,
            ["0 s", "59 s", "1 min 1 s", "1 h", "1 d 1 h", "10 d"]
        );
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(
            rfc3339(1_795_306_500_123_456_789),
            "2026-11-22T00:15:00.123456Z"
        );
        assert_eq!(plain("a\u{1b}[1m\n"), "a\u{fffd}[1m\u{fffd}");
    }
}
