//! Whatever hosts do, in whatever order: the controller opens no more than the plan and the gate let it.

use std::collections::BTreeMap;

use portguard_fleet::release::{Gate, Plan, Wave};
use portguard_fleet::rollout::control::{Request, Rollout, Seen, View, Who, request, step};
use portguard_fleet::rollout::{Phase, Position};
use portguard_fleet::status::{State, Status};
use proptest::prelude::*;

fn rollout() -> Rollout {
    let name = |wave: usize| move |number: usize| format!("w{wave}h{number}");
    Rollout {
        serial: 7,
        plan: Plan {
            wave: vec![
                Wave::new("canary", "role=a/b"),
                Wave::new("half", "*").at_once(40).after(100),
                Wave::new("rest", "*").at_once(50),
            ],
            gate: Gate {
                audit: 50,
                max_failed: 1,
                reporting: 90,
                ..Gate::default()
            },
        },
        waves: vec![
            (0..2).map(name(0)).collect(),
            (0..5).map(name(1)).collect(),
            (0..3).map(name(2)).collect(),
        ],
        audits: ["w0h1".to_owned()].into(),
    }
}

fn say(host: &str, state: State) -> Seen {
    Seen::saying(Status {
        host: host.to_owned(),
        serial: 7,
        release: None,
        state,
        since: 0,
        at: 0,
        in_force: None,
        enforces: false,
        watched: 60,
        packets: 10,
        would_drop: 0,
        violations: 0,
        drift: 0,
        tool: "0.1.0".to_owned(),
        why: String::new(),
    })
}

fn view(rollout: &Rollout, state: State) -> View {
    let hosts = rollout.waves.iter().flatten();
    hosts.map(|host| (host.clone(), say(host, state))).collect()
}

/// What hosts say is as old as the hills here.
const BEGIN: u64 = 1000;

fn who(at: u64) -> Who<'static> {
    Who {
        by: "test",
        at: BEGIN + at,
        why: "asked",
    }
}

fn started() -> Position {
    request(
        &Position::new(7, "test", 0, ""),
        Request::Start,
        true,
        &who(0),
    )
    .unwrap()
}

#[test]
fn a_rollout_goes_through_its_waves_and_waits_between_them() {
    let rollout = rollout();
    let mut position = started();
    let mut view = view(&rollout, State::Ready);
    let mut log = Vec::new();
    let mut now = 0;
    for _ in 0..200 {
        if let Ok(next) = step(&rollout, &position, &view, &who(now)) {
            log.push(next.why.clone());
            position = next;
        } else {
            now += 10;
            for (wave, hosts) in rollout.waves.iter().enumerate() {
                for (turn, host) in hosts.iter().enumerate() {
                    if position.lets(u32::try_from(wave).unwrap(), u32::try_from(turn).unwrap()) {
                        view.insert(host.clone(), say(host, State::Confirmed));
                    }
                }
            }
        }
        if position.phase == Phase::Done {
            break;
        }
    }
    assert_eq!(position.phase, Phase::Done, "{log:#?}");
    assert!(now >= 100, "the second wave comes 100 s after the first");
    let opened = log.iter().filter(|why| why.contains("may enforce")).count();
    assert_eq!(opened, 1 + 3 + 2, "{log:#?}");
}

#[test]
fn nobody_begins_who_is_not_ready_or_would_drop_what_nobody_accepted() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Ready);
    let mut stops = |change: &dyn Fn(&mut Status)| {
        let mut seen = say("w0h0", State::Ready);
        change(seen.status.as_mut().unwrap());
        seen.state = seen.status.as_ref().unwrap().state;
        view.insert("w0h0".to_owned(), seen);
        let why = step(&rollout, &started(), &view, &who(0)).unwrap_err();
        assert!(why.contains("w0h0"), "{why}");
    };
    stops(&|said| said.watched = 49);
    stops(&|said| said.would_drop = 1);
    stops(&|said| said.state = State::Audit);
    stops(&|said| said.state = State::Verified);
}

#[test]
fn too_few_who_report_hold_up_everybody() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Ready);
    view.remove("w2h1");
    assert!(
        step(&rollout, &started(), &view, &who(0)).is_ok(),
        "nine of ten"
    );
    view.remove("w2h2");
    assert!(
        step(&rollout, &started(), &view, &who(0)).is_err(),
        "eight of ten"
    );
}

#[test]
fn hosts_that_are_held_neither_report_nor_are_missing() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Ready);
    // Nine of ten must report. With four held, six are left, and one that is silent is too many.
    for host in ["w1h0", "w1h1", "w1h2", "w1h3"] {
        view.insert(host.to_owned(), say(host, State::Held));
    }
    assert!(step(&rollout, &started(), &view, &who(0)).is_ok());
    view.remove("w2h1");
    let why = step(&rollout, &started(), &view, &who(0)).unwrap_err();
    assert_eq!(why, "5 of 6 hosts report, 6 must");
    // Whoever holds everybody has not finished a rollout.
    for host in rollout.waves.iter().flatten() {
        view.insert(host.clone(), say(host, State::Held));
    }
    let why = step(&rollout, &started(), &view, &who(0)).unwrap_err();
    assert_eq!(why, "every host is held");
}

#[test]
fn a_wave_that_is_done_says_how_many_of_it_are_held() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Confirmed);
    view.insert("w0h1".to_owned(), say("w0h1", State::Held));
    let mut position = started();
    position.open = 2;
    let next = step(&rollout, &position, &view, &who(0)).unwrap();
    assert_eq!(
        next.why,
        "wave `canary` is done, but for 1 host that is held"
    );
}

#[test]
fn a_clock_that_was_ahead_stops_no_rollout() {
    let rollout = rollout();
    let view = view(&rollout, State::Confirmed);
    let mut position = started();
    position.open = 2;
    for (ahead, is_believed) in [
        (0, true),
        (60, true),
        (61, false),
        (u64::MAX - BEGIN, false),
    ] {
        position.done_at = Some(BEGIN + ahead);
        match step(&rollout, &position, &view, &who(0)) {
            Ok(next) => {
                assert!(!is_believed, "{ahead}: {}", next.why);
                assert_eq!((next.done_at, next.wave), (Some(BEGIN), 0), "{ahead}");
                // And from then on as ever.
                let next = step(&rollout, &next, &view, &who(100)).unwrap();
                assert_eq!(next.wave, 1, "{}", next.why);
            }
            Err(why) => assert!(is_believed && why.contains("begins in"), "{ahead}: {why}"),
        }
    }
}

#[test]
fn who_is_to_audit_from_now_on_need_not_have_watched() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Ready);
    let mut seen = say("w0h1", State::Ready);
    let said = seen.status.as_mut().unwrap();
    (said.watched, said.would_drop) = (0, 7);
    view.insert("w0h1".to_owned(), seen);
    let next = step(&rollout, &started(), &view, &who(0)).unwrap();
    assert_eq!(next.open, 2, "{}", next.why);
}

#[test]
fn trouble_halts_and_only_somebody_resumes() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Ready);
    let mut position = step(&rollout, &started(), &view, &who(0)).unwrap();
    view.insert("w0h0".to_owned(), say("w0h0", State::Reverted));
    assert_ne!(
        step(&rollout, &position, &view, &who(1)).map(|next| next.phase),
        Ok(Phase::Halted),
        "one may"
    );
    view.insert(
        "w0h1".to_owned(),
        Seen {
            state: State::Silent,
            status: None,
            doubt: None,
        },
    );
    position = step(&rollout, &position, &view, &who(2)).unwrap();
    assert_eq!(position.phase, Phase::Halted);
    assert!(position.why.contains("w0h0 reverted"), "{}", position.why);
    assert!(step(&rollout, &position, &view, &who(3)).is_err());
    for host in rollout.waves.iter().flatten() {
        view.insert(host.clone(), say(host, State::Ready));
    }
    assert!(
        step(&rollout, &position, &view, &who(4)).is_err(),
        "it does not go on by itself"
    );
    assert_eq!(
        request(&position, Request::Resume, true, &who(5))
            .unwrap()
            .phase,
        Phase::Running
    );
}

#[test]
fn silence_before_a_hosts_turn_is_no_trouble_but_failure_is() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Ready);
    view.insert(
        "w2h0".to_owned(),
        Seen {
            state: State::Silent,
            status: None,
            doubt: None,
        },
    );
    let position = step(&rollout, &started(), &view, &who(0)).unwrap();
    assert_eq!(position.phase, Phase::Running);
    view.insert("w2h1".to_owned(), say("w2h1", State::Failed));
    view.insert("w2h2".to_owned(), say("w2h2", State::Failed));
    assert_eq!(
        step(&rollout, &position, &view, &who(1)).unwrap().phase,
        Phase::Halted
    );
}

/// A host that failed at this moment.
fn failed(host: &str, at: u64) -> Seen {
    let mut seen = say(host, State::Failed);
    seen.status.as_mut().unwrap().since = BEGIN + at;
    seen
}

#[test]
fn a_failure_halts_once_it_lasts_and_nothing_goes_on_meanwhile() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Ready);
    let position = step(&rollout, &started(), &view, &who(0)).unwrap();
    for host in ["w0h0", "w0h1"] {
        view.insert(host.to_owned(), failed(host, 10));
    }
    let why = step(&rollout, &position, &view, &who(54)).unwrap_err();
    assert!(why.contains("2 hosts are in trouble, 1 may be"), "{why}");
    let halted = step(&rollout, &position, &view, &who(55)).unwrap();
    assert_eq!(halted.phase, Phase::Halted);
    // One of them has gone on: it was a bad moment, and no wave is done before the other has, too.
    view.insert("w0h0".to_owned(), say("w0h0", State::Confirmed));
    let why = step(&rollout, &position, &view, &who(54)).unwrap_err();
    assert!(why.contains("not confirmed yet, among them w0h1"), "{why}");
    let done = step(&rollout, &position, &view, &who(55)).unwrap();
    assert_eq!(done.why, "wave `canary` is done", "one may fail");
}

#[test]
fn what_a_host_said_before_a_resume_halts_nothing_until_it_has_had_time_to_report() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Ready);
    let position = step(&rollout, &started(), &view, &who(0)).unwrap();
    for host in ["w0h0", "w0h1"] {
        view.insert(host.to_owned(), failed(host, 10));
    }
    let halted = step(&rollout, &position, &view, &who(55)).unwrap();
    let resumed = request(&halted, Request::Resume, true, &who(60)).unwrap();
    // 1060 seconds after the epoch.
    let why = step(&rollout, &resumed, &view, &who(61)).unwrap_err();
    assert_eq!(why, "waiting for w0h0, w0h1 to report since 00:17:40 UTC");
    // One reports that it still fails: one may. The other is silent, and then has had its time.
    let mut anew = failed("w0h0", 10);
    anew.status.as_mut().unwrap().at = BEGIN + 62;
    view.insert("w0h0".to_owned(), anew);
    let why = step(&rollout, &resumed, &view, &who(63)).unwrap_err();
    assert!(why.starts_with("waiting for w0h1 to report"), "{why}");
    let waiting = step(&rollout, &resumed, &view, &who(60 + 179));
    assert!(waiting.is_err(), "{waiting:?}");
    let late = step(&rollout, &resumed, &view, &who(60 + 180)).unwrap();
    assert_eq!(late.phase, Phase::Halted);
    // Both report that they fail: nothing is waited for.
    let mut anew = failed("w0h1", 10);
    anew.status.as_mut().unwrap().at = BEGIN + 62;
    view.insert("w0h1".to_owned(), anew);
    let halted = step(&rollout, &resumed, &view, &who(63)).unwrap();
    assert_eq!(halted.phase, Phase::Halted, "{}", halted.why);
    // Or that all is well: it goes on.
    for host in ["w0h0", "w0h1"] {
        view.insert(host.to_owned(), say(host, State::Confirmed));
    }
    let on = step(&rollout, &resumed, &view, &who(63)).unwrap();
    assert_eq!(on.phase, Phase::Running, "{}", on.why);
}

#[test]
fn a_rollback_ends_when_all_hosts_are_back() {
    let rollout = rollout();
    let mut view = view(&rollout, State::Confirmed);
    let position = request(&started(), Request::Rollback, true, &who(0)).unwrap();
    for host in rollout.waves.iter().flatten() {
        let why = step(&rollout, &position, &view, &who(1)).unwrap_err();
        assert!(why.contains("not back yet, among them"), "{why}");
        view.insert(host.clone(), say(host, State::Reverted));
    }
    // Who is held stays, and who is silent is waited for.
    view.insert("w1h1".to_owned(), say("w1h1", State::Held));
    view.remove("w2h2");
    let why = step(&rollout, &position, &view, &who(1)).unwrap_err();
    assert!(
        why.contains("1 host is not back yet, among them w2h2"),
        "{why}"
    );
    view.insert("w2h2".to_owned(), say("w2h2", State::Reverted));
    let back = step(&rollout, &position, &view, &who(2)).unwrap();
    assert_eq!(back.phase, Phase::RolledBack);
    assert_eq!(back.why, "all hosts are back, but for 1 host that is held");
    assert!(
        step(&rollout, &back, &view, &who(3)).is_err(),
        "it is the end"
    );
    for what in [Request::Start, Request::Resume, Request::Rollback] {
        assert!(request(&back, what, true, &who(4)).is_err(), "{what:?}");
    }
}

#[test]
fn requests_that_make_no_sense_are_denied() {
    let new = Position::new(7, "test", 0, "");
    let denied = |position: &Position, what| {
        assert!(request(position, what, true, &who(0)).is_err(), "{what:?}");
    };
    denied(&new, Request::Resume);
    let running = started();
    denied(&running, Request::Start);
    let back = request(&running, Request::Rollback, true, &who(0)).unwrap();
    assert_eq!(back.phase, Phase::RollingBack);
    for what in [
        Request::Start,
        Request::Resume,
        Request::Pause,
        Request::Abort,
        Request::Rollback,
    ] {
        denied(&back, what);
    }
    assert!(
        request(&running, Request::Rollback, false, &who(0)).is_err(),
        "there is no way back"
    );
    let over = request(&running, Request::Abort, true, &who(0)).unwrap();
    denied(&over, Request::Start);
}

#[test]
fn a_position_of_another_release_opens_nothing() {
    let rollout = rollout();
    let mut position = started();
    position.serial = 6;
    assert!(step(&rollout, &position, &view(&rollout, State::Ready), &who(0)).is_err());
}

fn any_state() -> impl Strategy<Value = State> {
    proptest::sample::select(State::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Hosts change as they like; another controller takes over at every step, with nothing but the position.
    #[test]
    fn the_plan_holds_whatever_hosts_do(
        events in proptest::collection::vec((0usize..10, any_state(), 0u64..60, proptest::option::weighted(0.05, 0usize..4)), 1..200),
    ) {
        let rollout = rollout();
        let hosts: Vec<&String> = rollout.waves.iter().flatten().collect();
        let mut view = view(&rollout, State::Ready);
        let mut position = started();
        let mut now = 0;
        for (host, state, passed, asked) in events {
            now += passed;
            view.insert(hosts[host].clone(), say(hosts[host], state));
            if let Some(index) = asked {
                let what = [Request::Pause, Request::Resume, Request::Abort, Request::Start][index];
                if let Ok(next) = request(&position, what, true, &who(now)) {
                    position = next;
                }
            }
            let before = position.clone();
            let states: BTreeMap<&str, State> = view.iter().map(|(name, seen)| (name.as_str(), seen.state)).collect();
            let Ok(next) = step(&rollout, &before, &view, &who(now)) else { continue };
            prop_assert_eq!(before.phase, Phase::Running, "only a running rollout moves");
            let wave = &rollout.waves[usize::try_from(before.wave).unwrap()];
            let failed = states.values().filter(|state| matches!(state, State::Failed | State::Reverted)).count();
            if failed > 1 {
                prop_assert_eq!(next.phase, Phase::Halted);
                prop_assert_eq!((next.wave, next.open), (before.wave, before.open));
            }
            if next.wave == before.wave && next.open > before.open {
                let (old, new) = (usize::try_from(before.open).unwrap(), usize::try_from(next.open).unwrap());
                let unconfirmed = wave[..new].iter().filter(|host| {
                    let state = states[host.as_str()];
                    !(state == State::Confirmed || state == State::Held || state.is_trouble())
                }).count();
                let limit = [2, 2, 2][usize::try_from(before.wave).unwrap()];
                prop_assert!(unconfirmed <= limit, "{unconfirmed} at once");
                for host in &wave[old..new] {
                    prop_assert!(matches!(states[host.as_str()], State::Ready | State::Confirmed | State::Held));
                }
            }
            if next.wave > before.wave {
                prop_assert_eq!(next.wave, before.wave + 1);
                prop_assert_eq!(next.open, 0);
                prop_assert!(before.done_at.is_some());
            }
            if before.done_at.is_none() && next.done_at.is_some() {
                for host in wave {
                    let state = states[host.as_str()];
                    prop_assert!(state == State::Confirmed || state == State::Held || state.is_trouble());
                }
            }
            position = next;
        }
    }
}
