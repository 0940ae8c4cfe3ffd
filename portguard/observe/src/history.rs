//! Samples over time, for the plots of reports: written by the agent, one JSON object a line and file an interface.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::counters::Report;

/// Where the agent keeps samples, unless told otherwise.
pub const DIRECTORY: &str = "/var/lib/portguard/history";
/// A file that has grown beyond this is cut to its newer half.
const LIMIT: u64 = 8 << 20;

/// Sums since the first load at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the Unix epoch.
    pub at: u64,
    /// Generation in force.
    pub generation: u64,
    /// Packets judged.
    pub packets: u64,
    /// Violations among them.
    pub violations: u64,
}

impl Sample {
    /// Of a report that counts from the first load.
    pub fn of(report: &Report, at: u64) -> Self {
        Self {
            at,
            generation: report.generation,
            packets: report.totals.packets,
            violations: report.violations.packets,
        }
    }
}

fn path(directory: &Path, interface: &str) -> PathBuf {
    // Interface names have no slash, and `.` and `..` are none.
    directory.join(format!("{interface}.jsonl"))
}

/// Appends a sample.
///
/// # Errors
/// What the file system says.
pub fn append(directory: &Path, interface: &str, sample: &Sample) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = path(directory, interface);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > LIMIT) {
        halve(&path)?;
    }
    let mut line = serde_json::to_vec(sample)?;
    line.push(b'\n');
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(&line)
}

fn halve(path: &Path) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let lines: Vec<&str> = text.lines().collect();
    let newer = lines.get(lines.len() / 2..).unwrap_or_default();
    let new = path.with_extension("jsonl.new");
    fs::write(&new, newer.join("\n") + "\n")?;
    fs::rename(new, path)
}

/// The samples of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    pub samples: Vec<Sample>,
    /// Lines that are none, and are left out.
    pub damaged: usize,
}

/// Reads the samples of an interface; `None` if there is no file.
///
/// # Errors
/// What the file system says.
pub fn read(directory: &Path, interface: &str) -> io::Result<Option<History>> {
    let path = path(directory, interface);
    // Asked first: opening a pipe waits for somebody who writes.
    let facts = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        facts => facts?,
    };
    if !facts.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let file = File::open(path)?;
    let mut history = History::default();
    for line in BufReader::new(file).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(sample) => history.samples.push(sample),
            Err(_not_one) => history.damaged += 1,
        }
    }
    Ok(Some(history))
}

/// Violations between samples, in at most `buckets` equal spans of time: start of each span and count. Sums that shrink
/// mean that the guard was loaded anew; they start again at zero.
pub fn violations(samples: &[Sample], buckets: usize) -> Vec<(u64, u64)> {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Vec::new();
    };
    let buckets = u64::try_from(buckets).unwrap_or(1).max(1);
    let span = last.at.saturating_sub(first.at);
    if span == 0 {
        return Vec::new();
    }
    let width = span.div_ceil(buckets).max(1);
    let count = span.div_ceil(width);
    let mut sums: Vec<(u64, u64)> = (0..count)
        .map(|index| (first.at + index * width, 0))
        .collect();
    for (before, now) in samples.iter().zip(samples.iter().skip(1)) {
        let more = if now.violations >= before.violations {
            now.violations - before.violations
        } else {
            now.violations
        };
        let index = now.at.saturating_sub(first.at).saturating_sub(1) / width;
        if let Some((_, sum)) = usize::try_from(index)
            .ok()
            .and_then(|index| sums.get_mut(index))
        {
            *sum += more;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, violations: u64) -> Sample {
        Sample {
            at,
            generation: 1,
            packets: 2 * violations,
            violations,
        }
    }

    #[test]
    fn violations_fall_into_spans_of_time() {
        let samples = [
            sample(100, 5),
            sample(110, 7),
            sample(120, 7),
            sample(140, 3),
        ];
        assert_eq!(
            violations(&samples, 4),
            [(100, 2), (110, 0), (120, 0), (130, 3)]
        );
        assert_eq!(violations(&samples, 1), [(100, 5)]);
        assert_eq!(violations(&samples[..1], 4), []);
    }

    #[test]
    fn files_are_appended_to_read_back_and_cut() {
        let directory =
            std::env::temp_dir().join(format!("portguard-history-{}", std::process::id()));
        append(&directory, "eth0", &sample(1, 2)).unwrap();
        append(&directory, "eth0", &sample(2, 4)).unwrap();
        let samples = || read(&directory, "eth0").unwrap().unwrap();
        assert_eq!(samples().samples, [sample(1, 2), sample(2, 4)]);
        halve(&path(&directory, "eth0")).unwrap();
        assert_eq!(
            (samples().samples, samples().damaged),
            (vec![sample(2, 4)], 0)
        );
        assert_eq!(read(&directory, "eth1").unwrap(), None);
        // Cut off, or no text at all: the others are kept, and it is said.
        let mut file = OpenOptions::new()
            .append(true)
            .open(path(&directory, "eth0"))
            .unwrap();
        file.write_all(b"{\"at\":3,\n\xff\xfe\n").unwrap();
        append(&directory, "eth0", &sample(4, 5)).unwrap();
        assert_eq!((samples().samples.len(), samples().damaged), (2, 2));
        fs::create_dir(path(&directory, "eth2")).unwrap();
        read(&directory, "eth2").unwrap_err();
        nix::unistd::mkfifo(&path(&directory, "eth3"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(
            read(&directory, "eth3").unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        fs::remove_dir_all(&directory).unwrap();
    }
}
