//! Loading, replacing and removing a guard: at every step the old or the new one is in force, whoever dies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_common::tables::Key;
use portguard_harness::net::{End, Interface, Lab, unique_name};
use portguard_harness::traffic::{UdpEcho, receive_datagram};
use portguard_kernel::fault::LOAD_STEPS;
use portguard_kernel::generation::publish::revert;
use portguard_kernel::object::HostFacts;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::pins::meta::Meta;
use portguard_observe::counters::Snapshot;
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::Policy;

use crate::guard::{Guarded, LONG, SOON, eventually, listen};

/// Open in both policies, in the first only, in the second only, in none.
const BOTH: u16 = 7000;
const FIRST: u16 = 7001;
const SECOND: u16 = 7002;
const NONE: u16 = 7003;
const ALL: [u16; 4] = [BOTH, FIRST, SECOND, NONE];

/// Every step is a place to be killed at; failing is tried where something has to be undone.
fn ways(step: &str) -> &'static [&'static str] {
    match step {
        "described" | "egress" | "ingress" => &["kill", "fail"],
        _ => &["kill"],
    }
}

fn echoes(guarded: &Guarded) -> Result<Vec<UdpEcho>> {
    let address = IpAddr::V4(guarded.link.left.v4());
    ALL.iter()
        .map(|port| UdpEcho::start(&guarded.link.left.host, SocketAddr::new(address, *port)))
        .collect()
}

#[test]
fn a_load_that_dies_at_any_step_leaves_no_guard_or_the_new_one() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    for step in LOAD_STEPS {
        for how in ways(step) {
            let fault = format!("{step}:{how}");
            let load = guarded.load_args("--enforce", &[BOTH, FIRST], &[]);
            let output = guarded.run(&load, Some(&fault))?;
            ensure!(
                !output.status.success(),
                "{fault} did not happen: {output:?}"
            );
            let open = guarded.open(&ALL)?;
            let is_new = open == [BOTH, FIRST];
            ensure!(
                is_new || open == ALL,
                "after {fault}: {open:?} are open\n{output:?}"
            );
            ensure!(
                guarded.status()?.is_some() == is_new,
                "after {fault}, status is wrong"
            );
            if *how == "fail" && !is_new {
                ensure!(
                    guarded.pinned()?.is_empty(),
                    "{fault} left {:?}",
                    guarded.pinned()?
                );
            }
            guarded.load("--enforce", &[BOTH, SECOND], &[])?;
            ensure!(
                guarded.open(&ALL)? == [BOTH, SECOND],
                "the load after {fault}"
            );
            ensure!(guarded.unload()?.status.success());
            ensure!(guarded.open(&ALL)? == ALL, "the unload after {fault}");
            ensure!(!guarded.pins()?.exists(), "pins after {fault}");
        }
    }
    Ok(())
}

#[test]
fn a_replacement_that_fails_leaves_the_old_guard_or_the_new_one() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    for step in LOAD_STEPS {
        // Being killed is in `faults`.
        for how in ways(step).iter().filter(|how| **how == "fail") {
            let fault = format!("{step}:{how}");
            let load = guarded.load_args("--enforce", &[BOTH, SECOND], &[]);
            let output = guarded.run(&load, Some(&fault))?;
            ensure!(
                !output.status.success(),
                "{fault} did not happen: {output:?}"
            );
            let open = guarded.open(&ALL)?;
            ensure!(
                open == [BOTH, FIRST] || open == [BOTH, SECOND],
                "after {fault}: {open:?} are open\n{output:?}"
            );
            ensure!(
                guarded.status()?.is_some(),
                "after {fault}, status is wrong"
            );
            guarded.load("--enforce", &[BOTH, FIRST], &[])?;
            ensure!(
                guarded.open(&ALL)? == [BOTH, FIRST],
                "the load after {fault}"
            );
            let generations = guarded
                .pinned()?
                .iter()
                .filter(|name| name.starts_with("gen-"))
                .count();
            ensure!(generations <= 2, "{fault} leaked: {:?}", guarded.pinned()?);
        }
    }
    Ok(())
}

#[test]
fn swaps_under_traffic_lose_nothing_and_pass_nothing_that_is_denied() -> Result<()> {
    /// Datagrams that are on their way at once: fewer than any queue on the way holds.
    const BURST: u64 = 32;
    let guarded = Guarded::new()?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    guarded.load("--enforce", &[BOTH, SECOND], &[])?;
    let (allowed, denied) = (listen(&guarded, BOTH)?, listen(&guarded, NONE)?);
    let address = IpAddr::V4(guarded.link.left.v4());
    let received = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let counter = {
        let (received, ended) = (received.clone(), ended.clone());
        std::thread::spawn(move || -> Result<()> {
            while !ended.load(Ordering::Relaxed) {
                let soon = Instant::now() + Duration::from_millis(50);
                while receive_datagram(&allowed, soon)?.is_some() {
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        })
    };
    let sender = {
        let (received, ended) = (received.clone(), ended.clone());
        guarded.link.right.host.background(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            let mut sent = 0;
            // What the stack lost, once at most: a machine that runs other tests may be out of memory for a moment. That the
            // guard denied none of these is in its counters, which are looked at below.
            let mut stalls = 0;
            while !ended.load(Ordering::Relaxed) {
                for _ in 0..BURST {
                    socket.send_to(b"allowed", (address, BOTH))?;
                    socket.send_to(b"denied", (address, NONE))?;
                }
                sent += BURST;
                let deadline = Instant::now() + Duration::from_secs(5);
                while received.load(Ordering::Relaxed) < sent {
                    let arrived = received.load(Ordering::Relaxed);
                    if Instant::now() > deadline {
                        stalls += 1;
                        ensure!(stalls == 1, "{arrived} of {sent} allowed datagrams arrived");
                        println!("{arrived} of {sent} allowed datagrams arrived");
                        sent = arrived;
                    }
                    std::thread::yield_now();
                }
            }
            Ok(sent)
        })
    };
    // Whole loads, then swaps between the two generations that are pinned, as fast as the kernel takes them.
    for ports in [[BOTH, FIRST], [BOTH, SECOND], [BOTH, FIRST]] {
        guarded.load("--enforce", &ports, &[])?;
    }
    let name = guarded.interface();
    let swaps = guarded.link.left.host.run(|| {
        let layout = Layout::of(name);
        let interface = portguard_kernel::host::interface::Interface::find(name)?;
        let generations: Vec<Meta> = layout
            .generations()
            .iter()
            .map(|number| Meta::read(&layout.generation(*number).join("meta")))
            .collect::<portguard_kernel::Result<_>>()?;
        let hook = generations[0].egress_hook;
        let end = Instant::now() + Duration::from_secs(12);
        let mut swaps = 0;
        for number in generations.iter().cycle() {
            if Instant::now() > end || swaps == 4000 {
                break;
            }
            revert(&layout, &interface, number, hook)?;
            swaps += 1;
        }
        Ok(swaps)
    })?;
    ended.store(true, Ordering::Relaxed);
    let sent = match sender.join() {
        Ok(sent) => sent?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    counter.join().unwrap()?;
    let soon = Instant::now() + Duration::from_millis(100);
    ensure!(
        receive_datagram(&denied, soon)?.is_none(),
        "a denied datagram came through"
    );
    ensure!(received.load(Ordering::Relaxed) == sent);
    let violations = guarded.link.left.host.run(|| {
        let shared = Layout::of(name).shared();
        Ok(Snapshot::read(&shared, 0)?.violations)
    })?;
    let of = |port| violations.get(&(false, Key::port(1, port))).copied();
    ensure!(
        of(BOTH).is_none(),
        "the guard denied {:?} allowed ones",
        of(BOTH)
    );
    ensure!(of(NONE) >= Some(sent), "the guard denied {:?}", of(NONE));
    ensure!(swaps > 100, "only {swaps} swaps");
    println!("{swaps} swaps, {sent} allowed datagrams, none lost; as many denied, none passed");
    Ok(())
}

#[test]
fn two_loads_at_once_come_one_after_the_other() -> Result<()> {
    let guarded = Guarded::new()?;
    let first = guarded.load_args("--enforce", &[BOTH, FIRST], &[]);
    let second = guarded.load_args("--enforce", &[BOTH, SECOND], &[]);
    for _ in 0..5 {
        let one = guarded.start(&first, None)?;
        let two = guarded.start(&second, None)?;
        one.output(LONG)?.success()?;
        two.output(LONG)?.success()?;
    }
    let status = guarded.status()?.unwrap();
    ensure!(status["generation"] == 10, "{status}");
    ensure!(
        status["warnings"].as_array().unwrap().is_empty(),
        "{status}"
    );
    Ok(())
}

/// An end like the one that was.
fn end(interface: &Interface) -> End {
    let addresses = interface.addresses.iter();
    addresses.fold(End::new(&interface.name), |end, address| {
        end.address(&address.to_string())
    })
}

#[test]
fn an_interface_that_goes_and_comes_back_can_be_guarded_again() -> Result<()> {
    let mut guarded = Guarded::new()?;
    guarded.load("--enforce", &[BOTH], &[])?;
    let (left, right) = (guarded.link.left.clone(), guarded.link.right.clone());
    left.host.delete_interface(&left.name)?;
    let status = guarded.status()?.unwrap();
    let warning = status["warnings"][0].as_str().unwrap().to_owned();
    ensure!(warning.contains("is gone"), "{status}");
    let counters = ["counters", "-i", guarded.interface()].map(str::to_owned);
    let counters = guarded.run(&counters, None)?.success()?;
    ensure!(counters.stdout.contains("is gone"), "{counters}");
    // Under the same name; the kernel gives it another index.
    let lab = Lab::new()?;
    guarded.link = lab.connect(&left.host, &end(&left), &right.host, &end(&right))?;
    let _servers = echoes(&guarded)?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    ensure!(guarded.open(&ALL)? == [BOTH, FIRST]);
    let status = guarded.status()?.unwrap();
    ensure!(
        status["generation"] == 2 && status["warnings"].as_array().unwrap().is_empty(),
        "{status}"
    );
    ensure!(guarded.unload()?.status.success());
    ensure!(guarded.open(&ALL)? == ALL);
    Ok(())
}

#[test]
fn an_interface_that_goes_while_it_is_loaded_leaves_nothing() -> Result<()> {
    let guarded = Guarded::new()?;
    let load = guarded.load_args("--enforce", &[BOTH], &[]);
    let process = guarded.start(&load, Some("prepared:stop"))?;
    eventually("the stop", || {
        Ok(std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?.contains(") T"))
    })?;
    guarded
        .link
        .left
        .host
        .delete_interface(guarded.interface())?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT)?;
    let output = process.output(LONG)?;
    ensure!(output.code() == 3, "{output:?}");
    ensure!(output.stderr.contains("is gone"), "{output:?}");
    ensure!(!guarded.pins()?.exists(), "{:?}", guarded.pinned()?);
    Ok(())
}

#[test]
fn a_renamed_interface_keeps_its_guard() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let new = unique_name("pgz");
    let rename = |from: &str, to: &str| -> Result<()> {
        let mut ip = std::process::Command::new("ip");
        ip.args(["link", "set", "dev", from, "name", to]);
        guarded.link.left.host.output(&mut ip, SOON)?.success()?;
        Ok(())
    };
    rename(guarded.interface(), &new)?;
    ensure!(guarded.open(&ALL)? == [BOTH, FIRST]);
    let status = ["status", "--json"].map(str::to_owned);
    let status = guarded.run(&status, None)?.success()?.stdout;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let status = &status["interfaces"][0];
    ensure!(status["name"] == new, "{status}");
    let warning = status["warnings"][0].to_string();
    ensure!(warning.contains(guarded.interface()), "{warning}");
    // Who looks finds it by the name that it has.
    for verb in [
        ["counters", "-i", &new, "--json"],
        ["drift", "-i", &new, "--json"],
    ] {
        let output = guarded.run(&verb.map(str::to_owned), None)?;
        ensure!(output.code() <= 1, "{output}");
        let answer: serde_json::Value = serde_json::from_str(&output.stdout)?;
        let first = &answer["interfaces"][0];
        ensure!(*first == *new || first["name"] == *new, "{answer}");
    }
    let mut load = guarded.load_args("--enforce", &[BOTH, SECOND], &[]);
    for arg in &mut load {
        if arg == guarded.interface() {
            arg.clone_from(&new);
        }
    }
    let output = guarded.run(&load, None)?.success()?;
    ensure!(output.stderr.contains("follows"), "{output:?}");
    ensure!(guarded.open(&ALL)? == [BOTH, SECOND]);
    rename(&new, guarded.interface())?;
    ensure!(guarded.unload()?.status.success());
    ensure!(guarded.open(&ALL)? == ALL);
    ensure!(!guarded.pins()?.exists());
    Ok(())
}

#[test]
fn a_guard_stays_while_its_interface_is_down_and_what_is_stale_is_swept() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let before = guarded.status()?.unwrap();
    for state in ["down", "up"] {
        let mut ip = std::process::Command::new("ip");
        ip.args(["link", "set", "dev", guarded.interface(), state]);
        guarded.link.left.host.output(&mut ip, SOON)?.success()?;
        ensure!(guarded.status()?.unwrap()["programs"] == before["programs"]);
    }
    eventually("the link", || guarded.reaches(BOTH, SOON))?;
    ensure!(guarded.open(&ALL)? == [BOTH, FIRST]);

    let stale = ["unload", "--stale", "--json"].map(str::to_owned);
    let output = guarded.run(&stale, None)?.success()?;
    let pins = guarded.pins()?.display().to_string();
    ensure!(
        !output.stdout.contains(&pins),
        "what guards is not stale: {output:?}"
    );
    let left = &guarded.link.left;
    left.host.delete_interface(&left.name)?;
    let output = guarded.run(&stale, None)?.success()?;
    ensure!(output.stdout.contains(&pins), "{output:?}");
    ensure!(!guarded.pins()?.exists());
    Ok(())
}

#[test]
fn the_agent_guards_an_interface_that_comes_back() -> Result<()> {
    let guarded = Guarded::new()?;
    let (left, right) = (guarded.link.left.clone(), guarded.link.right.clone());
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let agent = guarded.start(&["agent".to_owned()], None)?;
    left.host.delete_interface(&left.name)?;
    let lab = Lab::new()?;
    lab.connect(&left.host, &end(&left), &right.host, &end(&right))?;
    eventually("the guard's return", || {
        Ok(guarded
            .status()?
            .is_some_and(|status| status["warnings"].as_array().is_some_and(Vec::is_empty)))
    })?;
    let _servers = echoes(&guarded)?;
    ensure!(guarded.open(&ALL)? == [BOTH, FIRST], "{}", agent.stderr());
    Ok(())
}

/// An interface goes, comes back, and what fails or dies while it is guarded again is tried again: nothing is forgotten.
#[test]
fn a_guard_that_cannot_be_put_back_is_put_back_later() -> Result<()> {
    let mut guarded = Guarded::new()?;
    let (left, right) = (guarded.link.left.clone(), guarded.link.right.clone());
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let lab = Lab::new()?;
    let back = || lab.connect(&left.host, &end(&left), &right.host, &end(&right));
    let steps = ["prepared", "egress", "ingress", "swapped", "published"];
    let faults = steps
        .iter()
        .flat_map(|step| ["fail", "kill"].map(|way| format!("{step}:{way}")));
    for fault in faults {
        left.host.delete_interface(&left.name)?;
        guarded.link = back()?;
        let agent = guarded.start(&["agent".to_owned()], Some(&fault))?;
        if fault.ends_with("kill") {
            agent.output(LONG)?;
        } else {
            eventually("a failure", || Ok(agent.stderr().contains("cannot guard")))?;
            // The interface goes once more, before anybody tries again.
            left.host.delete_interface(&left.name)?;
            guarded.link = back()?;
            drop(agent);
        }
        let agent = guarded.start(&["agent".to_owned()], None)?;
        let _servers = echoes(&guarded)?;
        eventually(&format!("the guard's return after {fault}"), || {
            Ok(guarded.open(&ALL)? == [BOTH, FIRST])
        })
        .with_context(|| agent.stderr())?;
    }
    Ok(())
}

#[test]
fn a_program_of_others_is_named_and_left_alone() -> Result<()> {
    let guarded = Guarded::new()?;
    let index = guarded.link.left.index;
    let image = Image::build(&Policy::default(), Directory::default())?;
    let mut other = portguard_kernel::object::load(&image, &HostFacts::default(), None)?;
    let program = other.ingress()?;
    let id = program.info()?.id();
    guarded
        .link
        .left
        .host
        .run(|| Ok(program.attach_to_if_index(index, aya::programs::XdpMode::Driver)?))?;
    let output = guarded.run(&guarded.load_args("--audit", &[BOTH], &[]), None)?;
    ensure!(output.code() == 3, "{output:?}");
    ensure!(
        output
            .stderr
            .contains(&format!("native XDP program {id} (`portguard_xdp`)")),
        "{output:?}"
    );
    ensure!(!guarded.pins()?.exists());
    let doctor = ["doctor", "--interface", guarded.interface()].map(str::to_owned);
    let output = guarded.run(&doctor, None)?;
    ensure!(
        output.code() == 1 && output.stdout.contains(&format!("program {id}")),
        "{output:?}"
    );
    ensure!(guarded.unload()?.code() == 2, "there is nothing of ours");
    let there = guarded
        .link
        .left
        .host
        .run(|| Ok(portguard_kernel::host::holder::xdp(index)?))?;
    ensure!(
        there.first().is_some_and(|holder| holder.id == id),
        "{there:?}"
    );
    Ok(())
}
