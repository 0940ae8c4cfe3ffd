//! The lines of `events`, whole and of those that a filter asks for, on 80 and 120 columns.

use anyhow::{Context as _, Result};
use portguard_harness::frames::{Frame, Ipv4, Tcp, Udp};
use portguard_harness::traffic::PacketSocket;

use super::live::{ADMIN, Quiet, STRANGER, without_digits};
use super::text::settings;
use crate::guard::{LONG, eventually};

/// Sent until a listener listens, and not shown.
const PROBE: u16 = 60_999;
/// The last that is sent.
const LAST: u16 = 60_998;

/// What is asked for: each filter lets the first and the last packet through.
const SHOWN: &[(&str, u16, &str)] = &[
    ("events-80", 80, "events --follow"),
    ("events-120", 120, "events --follow"),
    (
        "events-port",
        80,
        "events --follow --port tcp/8080 --port udp/60998 --port udp/60999",
    ),
    (
        "events-peer",
        80,
        "events --follow --peer 203.0.113.0/24 --direction in --reason undocumented-port",
    ),
];

fn frames(quiet: &Quiet) -> Result<Vec<Vec<u8>>> {
    let (from, to) = (&quiet.guarded.link.right, &quiet.guarded.link.left);
    let packet = |source: [u8; 4]| Frame::between(from, to).ipv4(Ipv4::new(source.into(), to.v4()));
    let tcp = |source, port| packet(source).tcp(Tcp::new(50_000, port, Tcp::SYN)).build();
    let whole = tcp(STRANGER, 8_080);
    Ok(vec![
        tcp(ADMIN, 22),
        tcp(STRANGER, 22),
        tcp(STRANGER, 8_080),
        tcp(ADMIN, 8_080),
        packet(STRANGER).protocol(47).payload(vec![0; 20]).build(),
        whole.get(..24).context("a frame")?.to_vec(),
        udp(quiet, LAST),
    ])
}

fn udp(quiet: &Quiet, port: u16) -> Vec<u8> {
    let (from, to) = (&quiet.guarded.link.right, &quiet.guarded.link.left);
    Frame::between(from, to)
        .ipv4(Ipv4::new(STRANGER.into(), to.v4()))
        .udp(Udp::new(50_000, port))
        .payload(vec![0; 20])
        .build()
}

#[test]
fn events_read_as_they_did() -> Result<()> {
    let quiet = Quiet::new()?;
    quiet.run("load -c site.toml", 80)?.success()?;
    let right = &quiet.guarded.link.right;
    let socket = right.host.run(|| PacketSocket::open(&right.name))?;
    for (name, columns, line) in SHOWN {
        let mut command = quiet.command(line, *columns);
        let listener = quiet.guarded.link.left.host.start(&mut command)?;
        let has = |port: u16| listener.stdout().contains(&port.to_string());
        eventually("somebody listens", || {
            quiet.guarded.receive(&socket, &udp(&quiet, PROBE), 1)?;
            Ok(has(PROBE))
        })?;
        quiet.guarded.receive_all(&socket, frames(&quiet)?)?;
        eventually("all was shown", || Ok(has(LAST)))?;
        listener.interrupt()?;
        let mut output = listener.output(LONG)?;
        output.stdout = without(&output.stdout, &PROBE.to_string());
        // How often the probe was sent is another number each time.
        let text = quiet.stable(&output);
        let (told, summary) = text.split_once("---- ").context("a summary")?;
        let text = format!("{told}---- {}", without_digits(summary));
        settings().bind(|| insta::assert_snapshot!(*name, text));
    }
    Ok(())
}

/// Without the events that have a word: one begins where a line is not indented.
fn without(text: &str, word: &str) -> String {
    let mut events: Vec<String> = Vec::new();
    for line in text.lines() {
        match events.last_mut() {
            Some(event) if line.starts_with(' ') => {
                event.push('\n');
                event.push_str(line);
            }
            _ => events.push(line.to_owned()),
        }
    }
    events.retain(|event| !event.contains(word));
    events.join("\n") + "\n"
}
