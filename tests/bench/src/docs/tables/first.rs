//! The first screen of the page: what a packet costs, what others cost, what that means on a link.

use std::fmt::Write as _;

use super::{BESIDE, DRIVER};
use crate::results::{Live, Run};

/// Packets as people think of them: with the figure, and that of the reference.
const PACKETS: [(&str, &str, &str); 11] = [
    ("TCP, denied", "port/v4-tcp-deny", "reference/lean"),
    ("TCP, allowed", "port/v4-tcp-allow", "reference/lean-allow"),
    ("UDP, denied", "port/v4-udp-deny", "reference/lean"),
    ("IPv6, denied", "port/v6-tcp-deny", "reference/lean-v6"),
    (
        "behind a VLAN tag, denied",
        "port/v4-vlan-deny",
        "reference/lean-vlan",
    ),
    (
        "random ports and sources, denied",
        "port/v4-random-ports-and-sources",
        "reference/lean-random-ports",
    ),
    (
        "the same, IPv6",
        "port/v6-random-ports-and-sources",
        "reference/lean-v6-random",
    ),
    (
        "answer to what the host asked",
        "flow/v4-tcp-reply",
        "reference/lean",
    ),
    (
        "one of 1,000 prefixes, allowed",
        "source/v4-allow",
        "reference/lean-allow",
    ),
    (
        "IPv6 at random beside 100,000 prefixes",
        "source100k/v6-spoofed",
        "reference/trie-source100k-v6-spoofed",
    ),
    ("sent, documented", "egress/audit-v4-documented", ""),
];

/// What a packet costs.
pub(super) fn packets(run: &Run) -> String {
    let net = |name: &str| {
        let found = run.costs.iter().find(|one| one.name == name);
        found.map(|one| one.net)
    };
    let mut text =
        "| packet | portguard, ns | reference, ns | |\n| --- | ---: | ---: | --- |\n".to_owned();
    for (what, own, reference) in PACKETS {
        let Some(cost) = net(own) else { continue };
        let (other, name) = net(reference).map_or_else(Default::default, |other| {
            (format!("{other:.1}"), reference.replace("reference/", ""))
        });
        let name = if name.is_empty() {
            name
        } else {
            format!("`{name}`")
        };
        let _ = writeln!(text, "| {what} | {cost:.1} | {other} | {name} |");
    }
    text
}

/// Those that were measured with denied packets, with the nanoseconds that they cost beyond a bare drop.
fn denied(run: &Run) -> impl Iterator<Item = (&str, f64, &Live)> {
    let bare = run.live.iter().find(|one| one.name == "live/bare drop");
    let bare = bare.and_then(|one| one.nanoseconds).unwrap_or(f64::NAN);
    run.live.iter().filter_map(move |one| {
        let name = one.name.trim_start_matches("live/");
        let is_denied = !name.contains(',') && one.absent.is_none();
        is_denied.then_some((name, one.nanoseconds? - bare, one))
    })
}

/// What others cost.
pub(super) fn others(run: &Run) -> String {
    let mut text =
        "| in force | ns a packet | ns beyond a bare drop | packets a second, of a bare drop |\n| --- | ---: | ---: | ---: |\n"
            .to_owned();
    for (name, more, one) in denied(run) {
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.0} | {:.2} |",
            one.nanoseconds.unwrap_or(f64::NAN),
            more.max(0.0),
            one.ratio.unwrap_or(f64::NAN)
        );
    }
    text
}

/// Cores that a link full of the smallest frames takes.
pub(super) fn link(run: &Run) -> String {
    const SHOWN: [&str; 4] = [
        "portguard",
        "xdp-filter",
        "nftables ingress",
        "iptables + ipset",
    ];
    let shown: Vec<(&str, f64)> = SHOWN
        .into_iter()
        .filter_map(|wanted| {
            let mut all = denied(run);
            all.find_map(|(name, more, _)| (name == wanted).then_some((wanted, more.max(0.0))))
        })
        .collect();
    let mut text = "| link, 64-byte frames | packets a second |".to_owned();
    for (name, _) in &shown {
        let _ = write!(text, " {name} |");
    }
    text.push_str("\n| --- | ---: |");
    text.push_str(&" ---: |".repeat(shown.len()));
    text.push('\n');
    for gigabits in [10.0, 25.0, 100.0] {
        let rate = gigabits * 1e9 / (64.0 * 8.0 + BESIDE);
        let _ = write!(text, "| {gigabits} Gb/s | {:.1} M |", rate / 1e6);
        for (_, more) in &shown {
            let cores = (rate * (more + DRIVER) / 1e9).ceil();
            let _ = write!(text, " {cores:.0} |");
        }
        text.push('\n');
    }
    text
}
