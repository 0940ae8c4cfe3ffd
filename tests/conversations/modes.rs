//! Audit is enforce in counts: of the same frames, the same number is a violation by reason and by port, whether they are dropped
//! or answered, and whenever the conversation began. The far end is raw frames, so that nothing is sent again by itself.

mod far;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::Tcp;
use portguard_harness::traffic::PacketSocket;
use serde_json::Value;

use crate::guard::Guarded;
use far::Far;

/// What strangers call: nobody documented it. One port a conversation, beginning here.
const FIRST: u16 = 9_900;
/// Documented for others than who calls.
const OTHERS: u16 = 9_800;
/// What the host may ask outside.
const ASKED: u16 = 8_001;

const SITE: &str = "\
schema = 1
MODE
unprinted_peers = \"none\"
unresolved_peers = \"none\"
[management]
none = true
[systems.thoughtspot]
version = \"10\"
choices = { directory-port = \"636\", mail-port = \"587\" }
[[row]]
name = \"others\"
direction = \"in\"
transport = [\"tcp\", \"udp\"]
ports = [\"9800-9899\"]
peers = [\"192.0.2.1\"]
reason = \"a test\"
[[row]]
name = \"outside\"
direction = \"out\"
transport = [\"tcp\", \"udp\"]
ports = [8001]
peers = \"any\"
reason = \"a test\"
ROWS
[[host]]
name = \"here\"
addresses = [\"10.77.0.1\", \"fd77::1\"]
roles = [\"thoughtspot/node\"]
HOST
";

/// Opens to everybody what strangers call.
const WIDE: &str = "\
[[row]]
name = \"wide\"
direction = \"in\"
transport = [\"tcp\", \"udp\"]
ports = [\"9800-9999\"]
peers = \"any\"
reason = \"a test\"
";

/// What is loaded: lines before the tables of a site, lines of its host, and whether strangers are heard.
type Mode = (&'static str, (&'static str, &'static str), bool);
const AUDIT: &str = "mode = \"audit\"\noutbound = \"audit\"";
const ENFORCE: &str = "mode = \"enforce\"\noutbound = \"audit\"";
const BOTH: &str = "mode = \"enforce\"\noutbound = \"enforce\"";
const PORTS: &str = "audit_ports = [\"tcp/1-65535\", \"udp/1-65535\"]";
const MODES: [Mode; 5] = [
    ("audit", (AUDIT, ""), true),
    ("ports in audit", (ENFORCE, PORTS), true),
    ("enforce, lapsed", (ENFORCE, ""), true),
    ("enforce", (ENFORCE, ""), false),
    ("enforce in both directions", (BOTH, ""), false),
];

/// What is in force when a conversation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Began {
    /// Nothing.
    Unguarded,
    /// A wider policy.
    Wide,
    /// What is tried.
    Now,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// A service that no row has.
    Undocumented,
    /// One whose row has other peers.
    Others,
    /// A port that nobody listens at.
    Nobody,
    /// A service that hears a group.
    Many,
}

type Talk = fn(&mut Far<'_>) -> Result<()>;

/// One conversation at one address of the host, with a port of its own.
struct Conversation {
    what: &'static str,
    to: To,
    began: Began,
    /// What it begins with, when that is in force.
    begin: Talk,
    /// What goes on when the policy that is tried is.
    go_on: Talk,
    /// How many packets of this are violations.
    violations: u64,
}

const fn one(
    what: &'static str,
    (to, began): (To, Began),
    (begin, go_on): (Talk, Talk),
    violations: u64,
) -> Conversation {
    Conversation {
        what,
        to,
        began,
        begin,
        go_on,
        violations,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "one of many that may fail")]
fn nothing(_: &mut Far<'_>) -> Result<()> {
    Ok(())
}

/// All that a far end of TCP does: asks twice to be connected, says something twice, and so on.
fn tcp_talks(far: &mut Far<'_>) -> Result<()> {
    far.segment(Tcp::SYN, b"", 0)?;
    far.opens()?;
    tcp_goes_on(far)
}

/// Ten segments of who is connected, some of them again.
fn tcp_goes_on(far: &mut Far<'_>) -> Result<()> {
    far.segment(Tcp::ACK | Tcp::PSH, b"hello", 0)?;
    far.segment(Tcp::ACK | Tcp::PSH, b"hello", 0)?;
    far.hears_tcp()?;
    // Too early, an acknowledgement, and a probe of who is silent.
    far.segment(Tcp::ACK | Tcp::PSH, b"later", 50)?;
    far.segment(Tcp::ACK, b"", 5)?;
    far.segment(Tcp::ACK, b"", 4)?;
    far.segment(Tcp::ACK | Tcp::FIN, b"", 5)?;
    far.segment(Tcp::ACK | Tcp::FIN, b"", 5)?;
    far.segment(Tcp::ACK, b"", 6)?;
    far.segment(Tcp::RST, b"", 6)?;
    far.segment(Tcp::ACK, b"", 6)
}

/// Nobody began what these go on with.
fn tcp_unasked(far: &mut Far<'_>) -> Result<()> {
    let flags = [
        Tcp::ACK,
        Tcp::SYN | Tcp::ACK,
        Tcp::RST,
        Tcp::FIN,
        0,
        Tcp::ACK,
    ];
    flags
        .iter()
        .try_for_each(|flags| far.segment(*flags, b"", 0))
}

/// A service that answers, ten times.
fn udp_talks(far: &mut Far<'_>) -> Result<()> {
    for _ in 0..10 {
        far.datagram(b"question")?;
        far.hears_udp()?;
    }
    Ok(())
}

/// As [`udp_talks`]; of some answers it says that nobody was there.
fn udp_and_errors(far: &mut Far<'_>) -> Result<()> {
    for number in 0..10 {
        far.datagram(b"question")?;
        far.hears_udp()?;
        if number % 2 == 0 {
            far.error_about_answer()?;
        }
    }
    Ok(())
}

/// The service says something unasked to who called.
fn udp_and_news(far: &mut Far<'_>) -> Result<()> {
    udp_talks(far)?;
    far.service_speaks();
    udp_talks(far)
}

fn from_a_name_server(far: &mut Far<'_>) -> Result<()> {
    far.from = 53;
    udp_and_news(far)
}

fn in_fragments(far: &mut Far<'_>) -> Result<()> {
    for _ in 0..5 {
        far.in_fragments()?;
        far.hears_udp()?;
    }
    Ok(())
}

/// From the port that was asked, from another, and from another address.
fn answers(far: &mut Far<'_>) -> Result<()> {
    far.host_asks()?;
    for _ in 0..3 {
        far.answers(ASKED, 0)?;
        far.answers(ASKED + 1, 0)?;
        far.answers(ASKED, 1)?;
        far.host_asks()?;
    }
    Ok(())
}

const NEW: Began = Began::Now;
const OPEN: Began = Began::Unguarded;
const WAS: Began = Began::Wide;
const CLOSED: To = To::Undocumented;

#[rustfmt::skip]
const CONVERSATIONS: [Conversation; 27] = [
    one("TCP", (CLOSED, NEW), (nothing, tcp_talks), 13),
    one("TCP, open at the load", (CLOSED, OPEN), (|far| far.opens(), tcp_goes_on), 10),
    one("TCP, open before", (CLOSED, WAS), (|far| far.opens(), tcp_goes_on), 10),
    one("TCP of strangers", (To::Others, NEW), (nothing, tcp_talks), 13),
    one("TCP of strangers, open at the load", (To::Others, OPEN), (|far| far.opens(), tcp_goes_on), 10),
    one("TCP of strangers, open before", (To::Others, WAS), (|far| far.opens(), tcp_goes_on), 10),
    one("TCP to nobody", (To::Nobody, NEW), (nothing, tcp_talks), 13),
    one("TCP unasked", (CLOSED, NEW), (nothing, tcp_unasked), 6),
    one("UDP", (CLOSED, NEW), (nothing, udp_talks), 10),
    one("UDP, going on at the load", (CLOSED, OPEN), (udp_talks, udp_talks), 10),
    one("UDP, going on before", (CLOSED, WAS), (udp_talks, udp_talks), 10),
    one("UDP of strangers", (To::Others, NEW), (nothing, udp_talks), 10),
    one("UDP of strangers, going on at the load", (To::Others, OPEN), (udp_talks, udp_talks), 10),
    one("UDP of strangers, going on before", (To::Others, WAS), (udp_talks, udp_talks), 10),
    one("UDP to nobody", (To::Nobody, NEW), (nothing, udp_talks), 10),
    one("UDP with errors", (CLOSED, NEW), (nothing, udp_and_errors), 10),
    one("UDP with errors, going on before", (CLOSED, WAS), (udp_and_errors, udp_and_errors), 10),
    one("UDP with news", (CLOSED, NEW), (nothing, udp_and_news), 20),
    one("UDP with news, going on at the load", (CLOSED, OPEN), (udp_and_news, udp_and_news), 20),
    one("UDP with news, going on before", (CLOSED, WAS), (udp_and_news, udp_and_news), 20),
    one("UDP from port 53", (CLOSED, NEW), (nothing, from_a_name_server), 20),
    one("to a group", (To::Many, NEW), (nothing, udp_talks), 10),
    one("to a group, before", (To::Many, WAS), (udp_talks, udp_talks), 10),
    one("fragments", (CLOSED, NEW), (nothing, in_fragments), 5),
    one("what has no ports", (To::Nobody, NEW), (nothing, |far| far.without_ports()), 9),
    one("answers", (To::Nobody, OPEN), (|far| far.host_asks(), answers), 6),
    one("TCP of the host", (To::Nobody, OPEN), (|far| far.host_connects(), tcp_goes_on), 0),
];

/// The reasons of all that is a violation here.
const VIOLATIONS: [&str; 4] = [
    "undocumented-port",
    "undocumented-peer",
    "undocumented-protocol",
    "icmp",
];

/// What is counted, by reason, and of violations by port.
type Counts = BTreeMap<String, u64>;

struct Host {
    guarded: Guarded,
    folder: PathBuf,
}

impl Host {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let folder = std::env::temp_dir().join(format!("{}-modes", guarded.interface()));
        std::fs::create_dir_all(&folder)?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        for ours in left.both() {
            for theirs in far::addresses(ours) {
                left.add_neighbour(theirs, right.mac)?;
            }
        }
        Ok(Self { guarded, folder })
    }

    fn load(&self, (mode, host): (&str, &str), rows: &str, within: &str) -> Result<()> {
        let text = SITE.replace("MODE", mode).replace("ROWS", rows);
        let file = self.folder.join("site.toml");
        std::fs::write(&file, text.replace("HOST", host))?;
        let file = file.display().to_string();
        let args = ["load", "-c", &file, "--interface", self.guarded.interface()];
        let more = ["--confirm-within", within, "--force", "--allow-weaker"];
        let args = [&args[..], &more].concat();
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        self.guarded.run(&args, None)?.success()?;
        Ok(())
    }

    /// By reason, and by port.
    fn counts(&self) -> Result<Counts> {
        let answer = self
            .guarded
            .run(&["counters", "--json"].map(str::to_owned), None)?;
        let answer: Value = serde_json::from_str(&answer.success()?.stdout)?;
        let answer = &answer["interfaces"][0];
        let lines = |key: &str| {
            let all = answer[key].as_array().cloned().unwrap_or_default();
            all.into_iter().filter(|one| one["direction"] == "in")
        };
        let packets = |value: &Value| value["packets"].as_u64().unwrap_or_default();
        let mut counts = Counts::new();
        for line in lines("reasons") {
            let reason = line["reason"].as_str().context("a reason")?;
            // Of who is next to it, and of groups, the other host speaks when it likes.
            if !["arp", "icmp-essential"].contains(&reason) {
                *counts.entry(reason.to_owned()).or_default() += packets(&line);
            }
        }
        for line in lines("ports") {
            let port = line["port"].as_u64().unwrap_or_default();
            // Which one the kernel picks is another each time.
            let port = if port < 32_768 {
                port.to_string()
            } else {
                "picked".to_owned()
            };
            let transport = line["transport"].as_str().unwrap_or_default();
            let key = format!("{transport}/{port}");
            *counts.entry(key).or_default() += packets(&line["violations"]);
        }
        Ok(counts)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What is more than before.
fn since(before: &Counts, now: Counts) -> Counts {
    let more = |(key, count): (String, u64)| {
        let more = count - before.get(&key).copied().unwrap_or_default();
        (more > 0).then_some((key, more))
    };
    now.into_iter().filter_map(more).collect()
}

/// What conversations are counted as in one mode: those that were begun under a wider policy, or the others.
fn counted(mode: &Mode, is_narrowed: bool) -> Result<Counts> {
    let (name, lines, is_heard) = *mode;
    let host = Host::new()?;
    let (left, right) = (&host.guarded.link.left, &host.guarded.link.right);
    let wire = RefCell::new(right.host.run(|| PacketSocket::open(&right.name))?);
    let mut all = Vec::new();
    for (index, conversation, port) in conversations(is_narrowed) {
        let ours = left.both()[index];
        let far = Far::new(&host.guarded, &wire, (ours, port), conversation.to)?;
        let what = format!("{} at {ours}", conversation.what);
        all.push((what, conversation, far));
    }
    let begin = |all: &mut Vec<(String, &Conversation, Far<'_>)>, began| -> Result<()> {
        for (what, conversation, far) in all {
            if conversation.began == began {
                (conversation.begin)(far).with_context(|| what.clone())?;
            }
        }
        Ok(())
    };
    begin(&mut all, Began::Unguarded)?;
    if is_narrowed {
        host.load((ENFORCE, ""), WIDE, "0")?;
        begin(&mut all, Began::Wide)?;
    }
    if name.ends_with("lapsed") {
        host.load((AUDIT, ""), "", "0")?;
        host.load(lines, "", "1ns")?;
    } else {
        host.load(lines, "", "0")?;
    }
    let before = host.counts()?;
    for (what, conversation, far) in &mut all {
        far.is_heard = is_heard;
        (conversation.go_on)(far).with_context(|| format!("{name}: {what}"))?;
        if !is_heard {
            far.heard_nothing()
                .with_context(|| format!("{name}: {what}"))?;
        }
    }
    Ok(since(&before, host.counts()?))
}

/// Conversations of each family, by its index, and the port of each.
fn conversations(is_narrowed: bool) -> impl Iterator<Item = (usize, &'static Conversation, u16)> {
    let both = (0_u16..)
        .zip(&CONVERSATIONS)
        .flat_map(|one| [(0, one), (1, one)]);
    let tried = both.filter(move |(_, (_, one))| is_narrowed == (one.began == Began::Wide));
    tried.map(|(family, (index, one))| {
        let first = if one.to == To::Others { OTHERS } else { FIRST };
        (usize::from(family), one, first + 2 * index + family)
    })
}

fn the_same_in_every_mode(is_narrowed: bool) -> Result<()> {
    let mut wrong = Vec::new();
    let (audit, others) = MODES.split_first().context("a mode")?;
    let in_audit = counted(audit, is_narrowed)?;
    // By reason, and of what has a port of its own, by port.
    let (mut wanted, mut by_reason) = (0, 0);
    for (_, one, port) in conversations(is_narrowed) {
        wanted += one.violations;
        let ports = ["tcp", "udp"].map(|transport| format!("{transport}/{port}"));
        let counted: u64 = ports.iter().filter_map(|port| in_audit.get(port)).sum();
        if counted != 0 && counted != one.violations {
            wrong.push(format!(
                "audit: {}: {counted}, not {}",
                one.what, one.violations
            ));
        }
    }
    for reason in VIOLATIONS {
        by_reason += in_audit.get(reason).copied().unwrap_or_default();
    }
    if by_reason != wanted {
        wrong.push(format!("audit: {by_reason}, not {wanted}: {in_audit:?}"));
    }
    for mode in others {
        let here = counted(mode, is_narrowed)?;
        let keys: BTreeSet<&String> = here.keys().chain(in_audit.keys()).collect();
        for key in keys {
            let (here, audit) = (here.get(key), in_audit.get(key));
            if here != audit {
                wrong.push(format!("{}: {key}: {here:?}, in audit {audit:?}", mode.0));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn audit_counts_what_enforce_drops() -> Result<()> {
    the_same_in_every_mode(false)
}

#[test]
fn audit_counts_what_enforce_drops_of_what_was_admitted_before() -> Result<()> {
    the_same_in_every_mode(true)
}
