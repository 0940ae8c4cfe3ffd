//! Ports that are left in audit while the rest enforces: whoever floods them takes nothing from the host's own conversations.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::traffic::{PacketSocket, UdpEcho};

use super::{CLOSED, flows, hears, pair};
use crate::guard::{Guarded, SHORT, eventually};
use crate::topology::ip;

/// A table as small as it may be.
const SITE: &str = "\
schema = 1
unprinted_peers = \"none\"
unresolved_peers = \"none\"
[timeouts]
flows = 1024
[management]
none = true
[systems.thoughtspot]
version = \"10\"
choices = { directory-port = \"636\", mail-port = \"587\" }
[[host]]
name = \"here\"
addresses = [\"10.77.0.1\"]
roles = [\"thoughtspot/node\"]
audit_ports = [\"udp/9999\", \"udp/41000\"]
";

/// Forty times what the table holds.
const FORGED: u32 = 40_000;
const QUIET: usize = 20;

#[test]
fn forged_questions_to_a_port_in_audit_cut_no_quiet_connection() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (&guarded.link.left, &guarded.link.right);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("site.toml");
    std::fs::write(&file, SITE)?;
    let file = file.display().to_string();
    let load = ["load", "-c", &file, "--interface", guarded.interface()];
    let load = [&load[..], &["--enforce", "--confirm-within", "0"]].concat();
    let load: Vec<String> = load.into_iter().map(str::to_owned).collect();
    guarded.run(&load, None)?.success()?;
    let mut quiet = Vec::new();
    for theirs in right.both() {
        for _ in 0..QUIET / 2 {
            quiet.push(pair(&guarded, theirs)?);
        }
    }
    // Answers to who does not exist have a way to go.
    ip(&left.host, "", "route add 10.66.0.0/16 via 10.77.0.2")?;
    let wire = right.host.run(|| PacketSocket::open(&right.name))?;
    for port in [CLOSED, 41_000] {
        let at = SocketAddr::new(left.v4().into(), port);
        let service = UdpEcho::start(&left.host, at)?;
        let frames = (0..FORGED / 2).map(|number| {
            let [_, _, high, low] = number.to_be_bytes();
            // Also of the ports that anybody may be asked at.
            let from = [53, 123, 40_000, 8001][number as usize % 4];
            Frame::between(right, left)
                .ipv4(Ipv4::new([10, 66, high, low].into(), left.v4()))
                .udp(Udp::new(from, port))
                .payload(*b"question")
                .build()
        });
        guarded.receive_all(&wire, frames)?;
        // They were asked, and answered: else nothing is shown.
        eventually("the service heard most of them", || {
            Ok(service.received() > FORGED as usize / 4)
        })?;
        ensure!(guarded.reaches(port, SHORT)?, "{port} is in audit");
    }
    ensure!(!guarded.reaches(CLOSED + 1, SHORT)?, "the rest enforces");
    for (index, (opener, accepter)) in quiet.iter_mut().enumerate() {
        ensure!(hears(opener, accepter)?, "connection {index} is lost");
    }
    let after = flows(&guarded)?;
    let known = after["occupancy"]["sockets"].as_u64().context("sockets")?;
    ensure!(known == QUIET as u64, "{after}");
    Ok(())
}
