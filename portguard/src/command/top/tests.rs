use std::time::{Duration, Instant};

use portguard_common::abi::Counter;
use portguard_common::reason::{Direction, Reason};
use portguard_common::tables::Key;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use portguard_kernel::generation::Live;
use portguard_kernel::generation::effective::Effective;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::pins::meta::{Meta, Sources, XdpModeName};
use portguard_observe::counters::{Keyed, Snapshot};
use portguard_observe::observe::Observed;
use portguard_observe::talkers::{Talker, Talkers, TopTalkers};
use portguard_policy::catalog::Transport;
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::{Grant, GrantKind, Peers, Policy};

fn observed(passed: u64, violations: u64) -> Observed {
    let policy = Policy {
        inbound: vec![Grant {
            kind: GrantKind::Documented,
            transport: Transport::Tcp,
            first: 443,
            last: 443,
            peers: Peers::Any,
            row: "a/web".to_owned(),
            until: None,
        }],
        ..Policy::default()
    };
    let directory = Image::build(&policy, Directory::default())
        .unwrap()
        .directory;
    let counter = |packets| Counter {
        packets,
        bytes: packets * 100,
    };
    let mut cells = vec![Counter::default(); directory.cells.len()];
    cells[0] = counter(passed);
    Observed {
        name: "eth0".to_owned(),
        layout: Layout::of("eth0"),
        live: Live {
            meta: Meta {
                version: "0".to_owned(),
                number: 7,
                ifindex: 2,
                xdp_mode: XdpModeName::Native,
                digest: policy.digest(),
                loaded_at: 0,
                deadline: 1,
                flow_key: [0; 2],
                tick_shift: 8,
                flow_sets: 1,
                sources: Sources::default(),
                local: Vec::new(),
                previous: None,
                egress_hook: None,
                policy: policy.clone(),
                directory,
            },
            ingress: Some(1),
            egress: None,
            warnings: vec!["careful".to_owned()],
            is_confirmed: false,
            effective: Effective::of(&policy.settings),
        },
        raw: Snapshot {
            cells,
            violations: [((false, Key::port(1, 161)), violations)].into(),
            totals: [((false, Keyed::Port), counter(violations))].into(),
            slots: Vec::new(),
        },
        talkers: Talkers::default(),
        resets: None,
    }
}

fn screen(top: &Top, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, top)).unwrap();
    terminal.backend().to_string()
}

fn top() -> Top {
    let start = Instant::now();
    let mut top = Top::new(None);
    top.update(vec![observed(10, 1)], start);
    top.update(vec![observed(510, 201)], start + Duration::from_secs(2));
    top
}

#[test]
fn the_screen_says_all_without_colour() {
    let mut top = top();
    let ports = screen(&top, 120, 24);
    for wanted in [
        "eth0",
        "audit",
        "generation 7",
        "unconfirmed: has given way",
        "warning: careful",
        "711 packets",
        "201 violations that enforcing would drop",
        "findings: 1",
        "tcp/443",
        "510",
        "250/s",
        "udp/161",
        "100/s",
        "not documented",
        "a/web",
    ] {
        assert!(ports.contains(wanted), "{wanted}\n{ports}");
    }
    top.turn(1);
    let violations = screen(&top, 120, 24);
    assert!(
        violations.contains("udp/161") && !violations.contains("tcp/443"),
        "{violations}"
    );
    let talker = Talker {
        direction: Direction::Ingress,
        reason: Reason::UndocumentedPort,
        protocol: 17,
        port: 161,
        to_client: false,
        service: 0,
        peer: [10, 0, 0, 1].into(),
        is_crowd: false,
        packets: 128,
        error: 28,
        dropped: 0,
        looks: 1,
        first: 0,
        last: 3_661_000_000_000,
    };
    let talkers = Talkers {
        heaviest: vec![talker],
        bound: 28,
        attributed: 128,
    };
    let top_talkers = TopTalkers::new(&talkers, &observed(0, 128).report(true), None, 9);
    top.talkers.insert("eth0".to_owned(), top_talkers);
    top.turn(1);
    let sources = screen(&top, 120, 24);
    assert!(
        sources.contains("10.0.0.1")
            && sources.contains("100 to 128")
            && sources.contains("01:01:01"),
        "{sources}"
    );
}

#[test]
fn each_direction_has_its_mode_and_what_is_confirmed_gives_no_way() {
    let mut both = observed(10, 200);
    both.live.meta.policy.settings.enforce = true;
    both.live.effective = Effective::of(&both.live.meta.policy.settings);
    let out = (
        (true, Keyed::Port),
        Counter {
            packets: 7,
            bytes: 700,
        },
    );
    both.raw.totals.extend([out]);
    both.live.is_confirmed = true;
    let mut top = Top::new(None);
    top.update(vec![both], Instant::now());
    let shown = screen(&top, 80, 24);
    assert!(
        shown.contains("207 violations: 200 in, dropped; 7 out, counted only"),
        "{shown}"
    );
    assert!(!shown.contains("unconfirmed"), "{shown}");
}

#[test]
fn narrow_screens_cut_no_address_and_say_where_they_cut() {
    let mut top = top();
    let talker = Talker {
        direction: Direction::Ingress,
        reason: Reason::UndocumentedProtocol,
        protocol: 47,
        port: 0,
        to_client: false,
        service: 0,
        peer: "2001:db8:aaaa:bbbb:cccc:dddd:eeee:7777".parse().unwrap(),
        is_crowd: false,
        packets: 1_234_567,
        error: 0,
        dropped: 0,
        looks: 1,
        first: 0,
        last: 0,
    };
    let talkers = Talkers {
        heaviest: vec![talker],
        bound: 0,
        attributed: 1_234_567,
    };
    let top_talkers = TopTalkers::new(&talkers, &observed(0, 1_234_567).report(true), None, 9);
    top.talkers.insert("eth0".to_owned(), top_talkers);
    top.turn(2);
    let shown = screen(&top, 80, 24);
    for wanted in [
        "2001:db8:aaaa:bbbb:cccc:dddd:eeee:7777 ",
        "protocol 47",
        "1.2 M",
        "undocu…",
    ] {
        assert!(shown.contains(wanted), "{wanted}\n{shown}");
    }
    assert!(screen(&top, 60, 24).contains('…'));
    // Scrolled beyond the end, the last line stays.
    top.scroll(1_000);
    assert!(screen(&top, 80, 24).contains("protocol 47"));
}

#[test]
fn keys_do_what_the_footer_says_and_small_screens_do_no_harm() {
    let mut top = top();
    let none = KeyModifiers::NONE;
    assert!(is_end(&mut top, KeyCode::Char('q'), none));
    assert!(is_end(&mut top, KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(!is_end(&mut top, KeyCode::Left, none));
    assert_eq!(top.view, 3);
    assert!(screen(&top, 100, 24).contains("never used"));
    assert!(!is_end(&mut top, KeyCode::Up, none));
    assert_eq!(top.offset, 0);
    // Ports: three lines (one is ping's), and the last stays. In another view one begins at the top.
    assert!(!is_end(&mut top, KeyCode::Tab, none));
    assert!(!is_end(&mut top, KeyCode::PageDown, none));
    assert_eq!((top.view, top.offset), (0, 2));
    assert!(!is_end(&mut top, KeyCode::Up, none));
    assert_eq!(top.offset, 1);
    assert!(!is_end(&mut top, KeyCode::Down, none));
    assert!(!is_end(&mut top, KeyCode::Right, none));
    assert_eq!((top.view, top.offset), (1, 0));
    is_end(&mut top, KeyCode::Char('n'), none);
    assert_eq!(top.shown.as_deref(), Some("eth0"));
    is_end(&mut top, KeyCode::Char(' '), none);
    assert!(screen(&top, 100, 24).contains("paused"));
    // Sorted by name, and only lines with these letters; help explains it.
    for key in ['s', 's', '/', '4', '4', '3'] {
        assert!(!is_end(&mut top, KeyCode::Char(key), none));
    }
    is_end(&mut top, KeyCode::Left, none);
    is_end(&mut top, KeyCode::Enter, none);
    is_end(&mut top, KeyCode::Left, none);
    let shown = screen(&top, 100, 24);
    assert!(
        shown.contains("tcp/443") && !shown.contains("udp/161"),
        "{shown}"
    );
    assert!(
        shown.contains("sort: name") && shown.contains(" /443 "),
        "{shown}"
    );
    is_end(&mut top, KeyCode::Char('?'), none);
    assert!(screen(&top, 100, 24).contains("sort by rate, total or name"));
    assert!(!is_end(&mut top, KeyCode::Esc, none) && !is_end(&mut top, KeyCode::Esc, none));
    assert!(top.filter.is_empty() && is_end(&mut top, KeyCode::Esc, none));
    for (width, height) in [(1, 1), (20, 4), (80, 9), (300, 100)] {
        screen(&top, width, height);
    }
}

#[test]
fn every_view_is_drawn_as_it_was() {
    let mut top = top();
    let mut all = String::new();
    for view in 0..4 {
        for (width, height) in [(80, 14), (120, 14)] {
            let shown = screen(&top, width, height);
            all = format!("{all}view {view}, {width} columns\n{shown}\n");
        }
        top.turn(1);
    }
    is_end(&mut top, KeyCode::Char('?'), KeyModifiers::NONE);
    all = format!("{all}help\n{}", screen(&top, 80, 24));
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/output/snapshots"
    ));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("top", all));
}
