use super::*;
use portguard_kernel::generation::effective::Effective;
use portguard_observe::counters::{CauseCount, Count, Packets, PortCount, ReasonCount, RowCount};
use portguard_observe::drift::Sight;
use portguard_observe::findings::{Sockets, findings};
use portguard_policy::policy::{Grant, GrantKind, Omitted, Peers, RowFacts, Settings};

fn top_talkers() -> TopTalkers {
    let talker = portguard_observe::talkers::Talker {
        direction: portguard_common::reason::Direction::Ingress,
        reason: portguard_common::reason::Reason::UndocumentedPort,
        protocol: 6,
        port: 6667,
        to_client: false,
        service: 0,
        peer: "2001:db8:0:7::9".parse().unwrap(),
        is_crowd: false,
        packets: 12,
        error: 2,
        dropped: 0,
        looks: 1,
        first: 1_000_000_000_000,
        last: 2_000_000_000_000,
    };
    TopTalkers {
        since: Some(1_000),
        is_reset: false,
        bound: 2,
        exact: true,
        violations: 12,
        attributed: 12,
        known: 3,
        talkers: vec![portguard_observe::talkers::TopTalker::plain(&talker)],
    }
}

#[expect(clippy::too_many_lines, reason = "one value, written out")]
fn evidence() -> Evidence {
    let nasty = "<script>alert('x')</script>|\"".to_owned();
    let port = |direction, port, documented, passed, violations| PortCount {
        direction,
        transport: "tcp",
        port,
        port_last: None,
        documented,
        rows: if documented {
            vec!["a/web".to_owned()]
        } else {
            Vec::new()
        },
        passed: Count {
            packets: passed,
            bytes: passed * 100,
        },
        violations: Packets {
            packets: violations,
        },
    };
    let report = Report {
        name: "eth0".to_owned(),
        warnings: Vec::new(),
        generation: 3,
        digest: "ab".repeat(32),
        mode: "audit",
        effective: Effective::of(&Settings::default()),
        outbound: "audit",
        since: Some(1_000),
        reset: None,
        totals: Count {
            packets: 1_234_567,
            bytes: 1 << 30,
        },
        violations: Count {
            packets: 17,
            bytes: 1_700,
        },
        reasons: vec![ReasonCount {
            direction: "in",
            reason: "undocumented-port".to_owned(),
            violation: true,
            packets: 17,
            bytes: 1_700,
        }],
        causes: vec![CauseCount {
            direction: "in",
            kind: "malformed",
            cause: "ip-options".to_owned(),
            packets: 3,
            bytes: 300,
        }],
        ports: vec![port("in", 443, true, 42, 5), port("in", 6667, false, 0, 12)],
        rows: vec![RowCount {
            row: "a/web".to_owned(),
            role: None,
            purpose: "=web".to_owned(),
            citation: nasty.clone(),
            packets: 0,
            bytes: 0,
        }],
        peers: Vec::new(),
    };
    let policy = Policy {
        roles: vec!["a/node".to_owned()],
        inbound: vec![Grant {
            kind: GrantKind::Documented,
            transport: portguard_policy::catalog::Transport::Tcp,
            first: 443,
            last: 443,
            peers: Peers::Any,
            row: "a/web".to_owned(),
            until: None,
        }],
        rows: vec![RowFacts {
            id: "a/web".to_owned(),
            role: None,
            purpose: "web".to_owned(),
            citation: nasty,
            audit: false,
            peers: String::new(),
        }],
        omitted: vec![Omitted {
            row: "a/other".to_owned(),
            reason: "condition".to_owned(),
            detail: "does not hold".to_owned(),
            peers: None,
        }],
        ..Policy::default()
    };
    let sample = |at, violations| Sample {
        at,
        generation: 3,
        packets: 0,
        violations,
    };
    let findings = findings(
        &policy,
        std::slice::from_ref(&report),
        &[],
        &Sockets::default(),
    );
    let sight = Sight {
        report: report.clone(),
        talkers: Vec::new(),
        findings: findings.clone(),
    };
    let drift = Drift::new(
        &policy,
        &portguard_observe::drift::Views {
            seen: std::slice::from_ref(&sight),
            ..portguard_observe::drift::Views::default()
        },
        vec![portguard_kernel::host::nat::Unread {
            rule: portguard_kernel::host::nat::Place {
                tool: "nft",
                family: "inet".to_owned(),
                table: "nat".to_owned(),
                chain: "pre".to_owned(),
                handle: Some(7),
                rule: None,
            },
            why: "`<novel>` is not known".to_owned(),
        }],
    );
    Evidence {
        host: "node<1>".to_owned(),
        kernel: "Linux 6.12".to_owned(),
        made_at: 100_000,
        guards: vec![Guard {
            report,
            policy,
            xdp_mode: "native",
            loaded_at: 2_000,
            loaded_by: "0.1.0".to_owned(),
            site: None,
            warnings: vec!["careful".to_owned()],
            resets: Vec::new(),
            findings,
            top_talkers: top_talkers(),
            history: vec![sample(1_000, 0), sample(2_000, 17)],
        }],
        drift,
    }
}

#[test]
fn the_page_holds_all_and_asks_nobody() {
    let page = html(&evidence());
    for wanted in [
        "node&lt;1&gt;",
        "1,234,567",
        "tcp/443",
        "tcp/6667",
        "undocumented-traffic-seen",
        "documented-not-listening",
        "does not hold",
        "2001:db8:0:7::9",
        "10 to 12",
        "and 2 more",
        "careful",
        "violations over time",
        "&lt;script&gt;alert(&#39;x&#39;)",
        &format!("sha256:{}", "ab".repeat(32)),
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    for unwanted in ["<script", "http://", "https://", "src=", "url(", "@import"] {
        assert!(!page.contains(unwanted), "{unwanted}");
    }
    // Sheets are narrower than screens, and no less able to hold tables.
    assert!(!page.contains("@media (max-width"));
    for tag in [
        "table", "tr", "td", "div", "section", "svg", "h2", "h3", "p", "dl", "main",
    ] {
        let open =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn markdown_and_csv_have_the_same_numbers() {
    let text = markdown(&evidence());
    assert!(
        text.contains("| in | tcp/443 | any | a/web | 42 | 4.1 KiB | 5 |"),
        "{text}"
    );
    assert!(
        text.contains("# Port matrix evidence: node&lt;1>"),
        "{text}"
    );
    assert!(
        text.contains("| in | 2001:db8:0:7::9 | tcp/6667 | undocumented-port | 10 to 12 |"),
        "{text}"
    );
    let text = csv(&evidence());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[1].contains(",in,tcp,443,443,true,42,4200,5,\"a/web\",\"'=web\","),
        "{text}"
    );
    let columns = lines[0].split(',').count();
    assert_eq!(lines[2].split(',').count(), columns);
}
