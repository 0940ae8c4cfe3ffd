//! The text of verbs that look at a guard, as a reader has it on 80 and 120 columns. What arrives is the same in each run: frames
//! from addresses that the host has no way back to, in a network that says nothing by itself.

use std::net::UdpSocket;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Tcp, Udp};
use portguard_harness::net::{End, Host, Lab, Output};
use portguard_harness::traffic::PacketSocket;

use super::site;
use super::text::{WIDTHS, settings};
use crate::guard::{Guarded, LONG, eventually};
use crate::names::server::NameServer;

/// As long as the name that the interface really has.
const NAME: &str = "ethernet0";
const SERVER: &str = "127.0.0.1:5353";
pub(super) const ADMIN: [u8; 4] = [10, 9, 0, 1];
pub(super) const STRANGER: [u8; 4] = [203, 0, 113, 9];
const SCANNER: [u8; 4] = [203, 0, 113, 50];

/// Verbs that look, after some traffic in audit.
const SHOWN: &[(&str, &str)] = &[
    ("status", "status"),
    ("counters", "counters"),
    ("counters-violations", "counters --violations"),
    ("counters-row", "counters --by row"),
    ("counters-reason", "counters --by reason"),
    ("counters-peer", "counters --by peer"),
    ("drift", "drift"),
    ("flows", "flows"),
    (
        "explain-running",
        "explain --running INTERFACE tcp 203.0.113.9 8080",
    ),
    ("report-markdown", "report --format markdown"),
    (
        "promote-refused",
        "promote -c site.toml --window 1h --dry-run",
    ),
];

/// And then by the way that one goes: to enforce and back.
const LATER: &[(&str, &str)] = &[
    (
        "promote",
        "promote -c site.toml --window 0s --min-packets 0 --accept scan --accept tcp/8080 --accept tcp/22 --accept udp/from-161 \
         --accept undocumented-protocol --accept malformed --because tested --confirm-within 60s",
    ),
    ("status-unconfirmed", "status"),
    ("load-weaker", "load -c site.toml"),
    ("confirm", "confirm"),
    ("status-enforce", "status"),
    ("diff", "diff -c site.toml"),
    ("rollback", "rollback"),
    ("unload", "unload"),
    ("status-unguarded", "status"),
    ("drift-unguarded", "drift -c site.toml"),
];

/// A guarded host on a link on which nothing happens by itself.
pub(super) struct Quiet {
    pub(super) guarded: Guarded,
    directory: tempfile::TempDir,
    _names: NameServer,
}

impl Quiet {
    pub(super) fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let (left, right) = (lab.host("left")?, lab.host("right")?);
        for host in [&left, &right] {
            without_ipv6(host)?;
        }
        // Of the same length in each run, for the sake of the columns.
        let name = |end: &str| format!("pg{end}{:06x}", std::process::id() & 0xff_ffff);
        let (here, there) = (name("q"), name("r"));
        let link = lab.connect(
            &left,
            &End::new(&here).address("10.77.0.1/24"),
            &right,
            &End::new(&there).address("10.77.0.2/24"),
        )?;
        let names = NameServer::start(&left, SERVER.parse()?)?;
        names.answer(Ok(vec![[192, 0, 2, 99].into()]));
        let quiet = Self {
            _names: names,
            guarded: Guarded { link },
            directory: tempfile::tempdir()?,
        };
        let site = site::site("10.77.0.1", &site::answered(&here));
        std::fs::write(quiet.directory.path().join("site.toml"), site)?;
        Ok(quiet)
    }

    /// `portguard` as it is called on the guarded host.
    pub(super) fn command(&self, line: &str, columns: u16) -> Command {
        let interface = self.guarded.interface();
        let args = line.split_whitespace();
        let args: Vec<&str> = args
            .map(|word| if word == "INTERFACE" { interface } else { word })
            .collect();
        let mut command = Guarded::command(&args);
        self.surround(&mut command, columns);
        command
    }

    /// A shell in the same place: `$P` is the program, `$IF` the interface.
    pub(super) fn shell(&self, line: &str, columns: u16) -> Result<Output> {
        let mut command = Command::new("bash");
        command
            .args(["-c", line])
            .env("P", env!("CARGO_BIN_EXE_portguard"))
            .env("IF", self.guarded.interface());
        self.surround(&mut command, columns);
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    fn surround(&self, command: &mut Command, columns: u16) {
        command
            .current_dir(self.directory.path())
            .env("STATE_DIRECTORY", self.directory.path().join("state"))
            .env("PORTGUARD_RESOLVER", SERVER)
            .env("SUDO_USER", "operator")
            .env("COLUMNS", columns.to_string());
    }

    pub(super) fn run(&self, line: &str, columns: u16) -> Result<Output> {
        let host = &self.guarded.link.left.host;
        host.output(&mut self.command(line, columns), LONG)
    }

    pub(super) fn traffic(&self) -> Result<()> {
        let link = &self.guarded.link;
        let (from, to) = (&link.right, &link.left);
        let packet =
            |source: [u8; 4]| Frame::between(from, to).ipv4(Ipv4::new(source.into(), to.v4()));
        let syn = |source, port| packet(source).tcp(Tcp::new(50_000, port, Tcp::SYN)).build();
        let udp = |source, from, to| {
            packet(source)
                .udp(Udp::new(from, to))
                .payload(vec![0; 20])
                .build()
        };
        let mut frames = Vec::new();
        frames.extend((0..9).map(|_| syn(ADMIN, 22)));
        frames.extend((0..12).map(|_| syn(STRANGER, 8_080)));
        frames.extend((0..3).map(|_| syn(STRANGER, 22)));
        frames.extend((0..36).map(|number| udp(SCANNER, 50_000, 20_000 + number)));
        frames.extend((0..4).map(|number| udp(STRANGER, 161, 40_000 + number)));
        frames.push(packet(STRANGER).protocol(47).payload(vec![0; 20]).build());
        let whole = syn(STRANGER, 8_080);
        frames.push(whole.get(..24).context("a frame")?.to_vec());
        let socket = link.right.host.run(|| PacketSocket::open(&from.name))?;
        self.guarded.receive_all(&socket, frames)?;
        // What the host sends to a port of no document.
        let socket = link.left.host.run(|| PacketSocket::open(&to.name))?;
        let sent = Frame::between(to, from)
            .ipv4(Ipv4::new(to.v4(), STRANGER.into()))
            .udp(Udp::new(40_000, 7_777))
            .payload(vec![0; 20])
            .build();
        socket.send(&sent)?;
        eventually("it was counted", || {
            let counted = self.run("counters --violations --json", 80)?;
            Ok(counted.stdout.contains("\"udp/7777\""))
        })
    }

    /// What is said, but for what is another in each run.
    pub(super) fn stable(&self, output: &Output) -> String {
        let text = format!(
            "{}\n---- standard error, exit code {}\n{}",
            output.stdout,
            output.code(),
            output.stderr
        );
        let text = text.replace(self.guarded.interface(), NAME);
        let directory = self.directory.path().display().to_string();
        let text = text.replace(&directory, "DIRECTORY");
        masked(&text)
    }
}

fn without_ipv6(host: &Host) -> Result<()> {
    let mut command = Command::new("sysctl");
    command.args(["-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
    command.arg("net.ipv6.conf.default.disable_ipv6=1");
    host.output(&mut command, LONG)?.success().map(drop)
}

/// Times, durations, digests, numbers of programs, and what the machine is called: as long as before where columns follow.
fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    // What other tests left is removed by whoever comes next, who says so in a line that may wrap.
    let mut is_others = false;
    let is_own = |line: &&str| {
        is_others =
            line.starts_with("removed `/sys/fs/bpf/") || is_others && line.starts_with("    ");
        !is_others
    };
    for line in text.lines().filter(is_own) {
        let mut line = seconds(&times(&digests(line)));
        if ["  program ", "  outbound "]
            .iter()
            .any(|label| line.starts_with(label))
        {
            line = without_digits(&line);
        }
        if line.starts_with("  host        ") {
            "  host        HOST".clone_into(&mut line);
        }
        // This test, which has the name server.
        if let Some((before, _)) = line.split_once("integration-") {
            line = format!("{before}integration-...");
        }
        if let Some((before, after)) = line.split_once(" on Linux ") {
            let end = after.ends_with('.');
            line = format!("{before} on Linux VERSION{}", if end { "." } else { "" });
        }
        masked.push_str(line.trim_end());
        masked.push('\n');
    }
    masked
}

/// Digits together as one `N`.
pub(super) fn without_digits(line: &str) -> String {
    let mut out = String::new();
    for one in line.chars() {
        match one {
            '0'..='9' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            other => out.push(other),
        }
    }
    out
}

fn digests(line: &str) -> String {
    let mut out = line.to_owned();
    for word in line.split(|one: char| !one.is_ascii_alphanumeric()) {
        let is_hex = word.bytes().all(|one| one.is_ascii_hexdigit());
        if is_hex && matches!(word.len(), 12 | 64) {
            out = out.replace(word, &"d".repeat(word.len()));
        }
    }
    out
}

/// Dates and times, with `T` and parts of a second, too, as others of the same length.
fn times(line: &str) -> String {
    let mut out: Vec<u8> = line.bytes().collect();
    let mut at = 0;
    while at < out.len() {
        let shapes: [&[u8]; 2] = [b"2026-01-02", b"03:04:05"];
        let Some(shown) = shapes.into_iter().find(|shape| fits(&out, at, shape)) else {
            at += 1;
            continue;
        };
        for wanted in shown {
            if let Some(place) = out.get_mut(at) {
                *place = *wanted;
            }
            at += 1;
        }
        if out.get(at) == Some(&b'.') {
            at += 1;
            while let Some(place) = out.get_mut(at).filter(|one| one.is_ascii_digit()) {
                *place = b'6';
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Whether there are digits and signs as in a shape.
fn fits(text: &[u8], at: usize, shape: &[u8]) -> bool {
    shape.iter().enumerate().all(|(index, wanted)| {
        text.get(at + index)
            .is_some_and(|one| one == wanted || (one.is_ascii_digit() && wanted.is_ascii_digit()))
    })
}

/// How long ago something was: on a busy machine some more.
fn seconds(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    for index in 1..words.len() {
        let unit = words
            .get(index)
            .map(|word| word.trim_end_matches([',', ';', '.', ')']));
        if unit != Some("s") {
            continue;
        }
        if let Some(number) = words.get_mut(index - 1) {
            let bare = number.trim_start_matches('(');
            if bare.parse::<u64>().is_ok() {
                *number = if bare.len() < number.len() { "(S" } else { "S" };
            }
        }
    }
    words.join(" ")
}

#[test]
fn verbs_that_look_at_a_guard_read_as_they_did() -> Result<()> {
    let quiet = Quiet::new()?;
    quiet.run("load -c site.toml", 80)?.success()?;
    quiet.traffic()?;
    for (name, line) in SHOWN {
        for columns in WIDTHS {
            let output = quiet.run(line, columns)?;
            ensure!(output.code() <= 1, "{line}: {output}");
            let text = quiet.stable(&output);
            settings().bind(|| insta::assert_snapshot!(format!("live-{name}-{columns}"), text));
        }
    }
    for (name, line) in LATER {
        let output = quiet.run(line, 100)?;
        let text = quiet.stable(&output);
        settings().bind(|| insta::assert_snapshot!(format!("live-{name}"), text));
    }
    Ok(())
}

#[test]
fn flows_say_whether_an_answer_would_be_let_in() -> Result<()> {
    let quiet = Quiet::new()?;
    quiet.run("load -c site.toml", 80)?.success()?;
    for name in ["unknown", "known"] {
        let output = quiet.run("flows --live udp 10.77.0.1:40001 10.77.0.2:53", 80)?;
        let text = quiet.stable(&output);
        settings().bind(|| insta::assert_snapshot!(format!("live-flows-{name}"), text));
        // And once the host has asked.
        quiet.guarded.link.left.host.run(|| {
            let socket = UdpSocket::bind("10.77.0.1:40001")?;
            socket.send_to(b"?", "10.77.0.2:53")?;
            Ok(())
        })?;
    }
    Ok(())
}
