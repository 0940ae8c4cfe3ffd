//! What a link needs besides IP: the protocols that a strict host lets in, and a load that would drop what its bridge speaks.

use anyhow::{Context as _, Result, ensure};
use portguard_common::ethertypes;
use portguard_harness::frames::Frame;
use portguard_harness::traffic::PacketSocket;
use serde_json::Value;

use crate::guard::{Guarded, LONG};
use crate::topology::ip;
use crate::weaker::Site;

const STRICT: &str = "mode = \"enforce\"\nstrict_ethertypes = true";
/// All that passes by default but what bridges speak.
const LISTED: &str = "mode = \"enforce\"\nstrict_ethertypes = true\nallowed_ethertypes = [\"lldp\", \"lacp\", \"eapol\"]";

/// Where the protocols of links are sent, by their names.
const PROTOCOLS: [(&str, u16, [u8; 6]); 8] = [
    ("lldp", 0x88cc, [1, 0x80, 0xc2, 0, 0, 0x0e]),
    ("lacp", 0x8809, [1, 0x80, 0xc2, 0, 0, 2]),
    ("eapol", 0x888e, [1, 0x80, 0xc2, 0, 0, 3]),
    ("stp", 0, [1, 0x80, 0xc2, 0, 0, 0]),
    ("macsec", 0x88e5, [1, 0x80, 0xc2, 0, 0, 3]),
    ("mpls", 0x8847, [1, 0, 0x5e, 0, 0, 1]),
    ("pppoe", 0x8863, [0xff; 6]),
    ("nobody's", 0x9000, [0xff; 6]),
];
/// Of these, the ones that pass a strict host that names none.
const PASSING: usize = 4;

fn frame(source: [u8; 6], (name, ethertype, to): (&str, u16, [u8; 6])) -> Vec<u8> {
    let frame = Frame::new(to, source);
    if name == "stp" {
        // 802.3: a length, and the address of the spanning tree protocol twice.
        let payload = [&[0x42, 0x42, 3][..], &[0; 35]].concat();
        return frame.ethertype(38).payload(payload).pad(60).build();
    }
    frame.ethertype(ethertype).payload([1; 46]).build()
}

/// Packets that arrived, by reason.
fn counted(guarded: &Guarded, reason: &str) -> Result<u64> {
    let args = ["counters", "--by", "reason", "--json"].map(str::to_owned);
    let output = guarded.run(&args, None)?.success()?;
    let answer: Value = serde_json::from_str(&output.stdout).with_context(|| output.to_string())?;
    let reasons = answer["interfaces"][0]["reasons"].as_array();
    let reasons = reasons.context("reasons")?.iter();
    let of = reasons.filter(|one| one["direction"] == "in" && one["reason"] == reason);
    Ok(of.filter_map(|one| one["packets"].as_u64()).sum())
}

#[test]
fn a_strict_host_lets_in_what_its_links_speak() -> Result<()> {
    let site = Site::new()?;
    let guarded = &site.guarded;
    let right = &guarded.link.right;
    let wire = right.host.run(|| PacketSocket::open(&right.name))?;
    site.write(STRICT, "")?;
    site.load(&[])?.success()?;
    for (index, protocol) in PROTOCOLS.into_iter().enumerate() {
        let before = (
            counted(guarded, "non-ip")?,
            counted(guarded, "strict-ethertype")?,
        );
        guarded.receive(&wire, &frame(right.mac, protocol), 3)?;
        let passed = counted(guarded, "non-ip")? - before.0;
        let dropped = counted(guarded, "strict-ethertype")? - before.1;
        let wanted = if index < PASSING { (3, 0) } else { (0, 3) };
        ensure!(
            (passed, dropped) == wanted,
            "{protocol:?}: {passed} {dropped}"
        );
    }
    // The table of names says the same.
    for known in ethertypes::ALL {
        let passes = PROTOCOLS[..PASSING]
            .iter()
            .any(|(name, ..)| *name == known.name);
        ensure!(known.by_default == passes, "{known:?}");
    }
    Ok(())
}

/// Every way to load looks, and only a word, or nobody who could answer, makes it a warning.
#[test]
fn what_a_bridge_speaks_is_not_dropped_unasked() -> Result<()> {
    let site = Site::new()?;
    let name = site.guarded.interface().to_owned();
    let host = &site.guarded.link.left.host;
    ip(
        host,
        &name,
        "link add br0 type bridge stp_state 1
         link set IF master br0
         link set br0 up",
    )?;
    let says = |output: &portguard_harness::net::Output| {
        let words = ["`br0` needs stp", &name, "allowed_ethertypes"];
        words.iter().all(|word| output.stderr.contains(word))
    };
    site.write(LISTED, "")?;
    let refused = site.load(&[])?;
    ensure!(refused.code() == 2 && says(&refused), "{refused}");
    ensure!(site.guarded.status()?.is_none());
    // Where nothing is dropped, it is only said.
    let audited = site.load(&["--audit"])?.success()?;
    ensure!(says(&audited), "{audited}");
    let forced = site.load(&["--force"])?.success()?;
    ensure!(says(&forced), "{forced}");
    // The same policy, from disk: at boot nobody answers, and over SSH somebody does.
    let unload = ["unload", "--interface", &name];
    site.run(&unload)?.success()?;
    let last_good = ["load", "--last-good", "--interface", &name];
    let mut over_ssh = Guarded::command(&last_good);
    over_ssh.env("STATE_DIRECTORY", site.directory());
    over_ssh.env("SSH_CONNECTION", "192.0.2.9 50000 192.0.2.1 22");
    let refused = host.output(&mut over_ssh, LONG)?;
    ensure!(refused.code() == 2 && says(&refused), "{refused}");
    ensure!(site.guarded.status()?.is_none());
    let at_boot = site.run(&last_good)?.success()?;
    ensure!(says(&at_boot), "{at_boot}");
    site.run(&unload)?.success()?;
    // By the default list nothing is wrong, nor without spanning tree.
    site.write(STRICT, "")?;
    let quiet = site.load(&[])?.success()?;
    ensure!(!quiet.stderr.contains("needs stp"), "{quiet}");
    ip(host, "", "link set br0 type bridge stp_state 0")?;
    site.write(LISTED, "")?;
    let quiet = site.load(&[])?.success()?;
    ensure!(!quiet.stderr.contains("needs stp"), "{quiet}");
    Ok(())
}
