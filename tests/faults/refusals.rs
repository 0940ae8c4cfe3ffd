//! What the system refuses in the middle of a load: the guard that was there stays, whole.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Output;
use portguard_harness::traffic::UdpEcho;

use super::state::{check_gone, check_whole, layout, maps};
use super::traffic::Traffic;
use super::{BOTH, FIRST, NONE, SECOND, check_open, echoes};
use crate::guard::{Guarded, LONG, SHORT};

/// Runs the tool under another one: `prlimit`, `setpriv`, `unshare`, a shell.
fn under(guarded: &Guarded, wrapper: &[&str], args: &[String]) -> Result<Output> {
    let (program, more) = wrapper.split_first().context("a wrapper")?;
    let mut command = Command::new(program);
    command
        .args(more)
        .arg(env!("CARGO_BIN_EXE_portguard"))
        .args(args);
    for name in ["SSH_CONNECTION", "PORTGUARD_CONFIG", "PORTGUARD_FAULT"] {
        command.env_remove(name);
    }
    guarded.link.left.host.output(&mut command, LONG)
}

#[test]
fn what_the_kernel_refuses_to_make_changes_nothing() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let traffic = Traffic::start(&guarded, BOTH, NONE)?;
    let load = guarded.load_args("--enforce", &[BOTH, SECOND], &[]);
    // Every map, program and link is a file descriptor: with three more each time, a later one is refused.
    let mut refused = 0;
    for limit in (8..200).step_by(3) {
        let limit = format!("--nofile={limit}:{limit}");
        let output = under(&guarded, &["prlimit", &limit], &load)?;
        if output.status.success() {
            break;
        }
        refused += 1;
        let after = format!("{limit}: {output}");
        ensure!(output.code() == 3, "{after}");
        check_whole(&guarded, &after)?;
        ensure!(check_open(&guarded, &after)? == FIRST, "{after}");
    }
    ensure!(refused > 6, "only {refused} refusals");
    ensure!(check_open(&guarded, "enough descriptors")? == SECOND);
    // The verifier does not take a program of this kind from one who may not look at kernel memory.
    let load = guarded.load_args("--enforce", &[BOTH, FIRST], &[]);
    let without = [
        "setpriv",
        "--bounding-set=-perfmon,-sys_admin",
        "--inh-caps=-all",
    ];
    let output = under(&guarded, &without, &load)?;
    ensure!(
        output.code() == 3 && output.stderr.contains("CAP_PERFMON"),
        "{output}"
    );
    check_whole(&guarded, "no CAP_PERFMON")?;
    ensure!(check_open(&guarded, "no CAP_PERFMON")? == SECOND);
    let sent = traffic.finish()?;
    println!("{refused} refusals, {sent} allowed datagrams, none lost");
    Ok(())
}

#[test]
fn a_full_disk_costs_the_next_boot_its_policy_and_says_so() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    let directory = std::env::temp_dir().join(format!("{}-full", guarded.interface()));
    std::fs::create_dir_all(&directory)?;
    let shown = directory.display();
    // A disk of its own, which only the tool sees: first with room, then full to the last page.
    let script = |fill: &str| {
        format!(
            "set -e; mount -t tmpfs -o size=64k none {shown}; export STATE_DIRECTORY={shown}; \
             echo old > {shown}/{}.policy.json; {fill}; set +e; \"$@\"; code=$?; \
             head -c 3 {shown}/{}.policy.json; ls {shown} | wc -l; exit $code",
            guarded.interface(),
            guarded.interface()
        )
    };
    let load = guarded.load_args("--enforce", &[BOTH, FIRST], &[]);
    let full = script(&format!("head -c 60k /dev/zero > {shown}/filler"));
    let output = under(&guarded, &["unshare", "-m", "sh", "-c", &full, "sh"], &load)?;
    ensure!(output.code() == 0, "{output}");
    ensure!(
        output.stderr.contains("the next boot will not load"),
        "{output}"
    );
    // What was stored is still there, and no half file beside it and the filler.
    ensure!(output.stdout.trim() == "old2", "{output}");
    check_whole(&guarded, "a full disk")?;
    ensure!(check_open(&guarded, "a full disk")? == FIRST);
    let output = under(
        &guarded,
        &["unshare", "-m", "sh", "-c", &script("true"), "sh"],
        &load,
    )?;
    ensure!(output.stdout.starts_with("{\"s"), "{output}");
    std::fs::remove_dir(&directory)?;
    Ok(())
}

#[test]
fn mounts_of_the_tools_own_are_refused_and_a_missing_file_system_is_mounted() -> Result<()> {
    let guarded = Guarded::new()?;
    let load = guarded.load_args("--enforce", &[BOTH, FIRST], &[]);
    // As `ip netns exec` does: the BPF file system is not there, and one mounted now would end with the tool.
    let hidden = [
        "unshare",
        "-m",
        "sh",
        "-c",
        "umount /sys/fs/bpf; \"$@\"",
        "sh",
    ];
    let output = under(&guarded, &hidden, &load)?;
    ensure!(output.code() == 3, "{output}");
    ensure!(output.stderr.contains("nsenter --net"), "{output}");
    ensure!(guarded.status()?.is_none());
    // Where process 1 has the same mounts, they are the machine's.
    let whole = [
        "unshare",
        "-m",
        "-p",
        "-f",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        "umount /sys/fs/bpf; \"$@\" && ls /sys/fs/bpf/portguard",
        "sh",
    ];
    let output = under(&guarded, &whole, &load)?;
    ensure!(
        output.code() == 0 && output.stdout.contains("locks"),
        "{output}"
    );
    ensure!(guarded.status()?.is_none());
    Ok(())
}

#[test]
fn an_interface_deleted_at_any_step_leaves_nothing() -> Result<()> {
    for step in [
        "swept",
        "loaded",
        "pinned",
        "prepared",
        "egress",
        "ingress",
        "published",
    ] {
        let guarded = Guarded::new()?;
        let load = guarded.load_args("--enforce", &[BOTH], &[]);
        let process = guarded.start(&load, Some(&format!("{step}:stop")))?;
        crate::guard::eventually("the stop", || {
            Ok(std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?.contains(") T"))
        })?;
        let left = &guarded.link.left;
        left.host.delete_interface(&left.name)?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT)?;
        let output = process.output(LONG)?;
        if matches!(step, "ingress" | "published") {
            // It was in force; what is left of it is removed when asked for.
            guarded.unload()?;
        } else {
            ensure!(
                output.code() == 3 && output.stderr.contains("is gone"),
                "{step}: {output}"
            );
        }
        ensure!(!guarded.pins()?.exists(), "{step}: {:?}", guarded.pinned()?);
    }
    Ok(())
}

#[test]
fn many_loads_at_once_some_killed_come_one_after_the_other() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    guarded.load("--enforce", &[BOTH, FIRST], &[])?;
    let traffic = Traffic::start(&guarded, BOTH, NONE)?;
    let mut running = Vec::new();
    for (index, fault) in [
        None,
        Some("egress:kill"),
        None,
        Some("ingress:kill"),
        Some("prepared:kill"),
        None,
    ]
    .into_iter()
    .enumerate()
    {
        let port = if index % 2 == 0 { FIRST } else { SECOND };
        let load = guarded.load_args("--enforce", &[BOTH, port], &[]);
        running.push((fault, guarded.start(&load, fault)?));
    }
    for (fault, process) in running {
        let output = process.output(LONG)?;
        ensure!(output.status.success() == fault.is_none(), "{output}");
    }
    super::heal(&guarded)?;
    check_whole(&guarded, "many loads")?;
    check_open(&guarded, "many loads")?;
    traffic.finish()?;
    Ok(())
}

#[test]
fn a_deadline_is_the_machines_whatever_clock_the_tool_is_shown() -> Result<()> {
    let guarded = Guarded::new()?;
    let address = IpAddr::V4(guarded.link.left.v4());
    let _server = UdpEcho::start(&guarded.link.left.host, SocketAddr::new(address, NONE))?;
    for offset in ["100000", "-1"] {
        let clock = format!("--boottime={offset}");
        let within = std::time::Duration::from_secs(3);
        let load = guarded.load_args("--enforce", &[BOTH], &["--confirm-within", "3s"]);
        let before = std::time::Instant::now();
        let output = under(&guarded, &["unshare", "-T", "--fork", &clock], &load)?;
        ensure!(output.code() == 0, "{output}");
        ensure!(
            !guarded.reaches(NONE, SHORT)? || before.elapsed() >= within,
            "early"
        );
        let status = guarded.status()?.context("a guard")?;
        let left = status["confirm_seconds_left"].as_u64().unwrap_or_default();
        ensure!(left <= 3, "{status}");
        crate::guard::eventually("the deadline", || guarded.reaches(NONE, SHORT))?;
        ensure!(before.elapsed() >= within, "early: {:?}", before.elapsed());
        ensure!(
            before.elapsed() < 3 * within,
            "late: {:?}",
            before.elapsed()
        );
        guarded.unload()?.success()?;
    }
    Ok(())
}

/// What can go wrong with a migration.
const FAULTS: [&str; 5] = [
    "egress:kill",
    "ingress:kill",
    "migrated-link:kill",
    "egress:fail",
    "ingress:fail",
];

#[test]
fn another_versions_guard_is_named_and_its_place_taken_without_a_gap() -> Result<()> {
    let guarded = Guarded::new()?;
    let _servers = echoes(&guarded)?;
    // An older and a newer one; then all that can go wrong.
    let cases = [("v0", None), ("v99", None)].into_iter();
    let cases = cases.chain(FAULTS.map(|fault| ("v0", Some(fault))));
    for (version, fault) in cases {
        let after = format!("{version} {fault:?}");
        guarded.load("--enforce", &[BOTH, FIRST], &[])?;
        let own = layout(&guarded)?;
        // The other version: the same kind of pins, under another name, one table more and one less.
        let root = own
            .directory
            .parent()
            .and_then(std::path::Path::parent)
            .context("a root")?;
        let other = root
            .join(version)
            .join(own.directory.file_name().context("a name")?);
        std::fs::create_dir_all(root.join(version))?;
        std::fs::rename(&own.directory, &other)?;
        std::fs::rename(other.join("shared/SLOTS"), other.join("shared/LOTS"))?;
        let held = {
            let traffic = Traffic::start(&guarded, BOTH, NONE)?;
            let plain = guarded.load_args("--enforce", &[BOTH, SECOND], &[]);
            let output = guarded.run(&plain, None)?;
            ensure!(output.code() == 3, "{after}: {output}");
            for said in [
                version,
                "SLOTS: is not there",
                "LOTS: is not known",
                "--migrate",
            ] {
                ensure!(output.stderr.contains(said), "{after}: {output}");
            }
            ensure!(check_open(&guarded, &after)? == FIRST);
            let migrate = guarded.load_args("--enforce", &[BOTH, SECOND], &["--migrate"]);
            let output = guarded.run(&migrate, fault)?;
            ensure!(
                output.status.success() == fault.is_none(),
                "{after}: {output}"
            );
            super::heal(&guarded)?;
            let is_new = matches!(fault, None | Some("ingress:kill" | "migrated-link:kill"));
            let open = check_open(&guarded, &after)?;
            ensure!((open == SECOND) == is_new, "{after}: {open} is open");
            if !is_new {
                ensure!(other.exists(), "{after}");
                guarded.run(&migrate, None)?.success()?;
            }
            ensure!(check_open(&guarded, &after)? == SECOND, "{after}");
            traffic.finish()?;
            ensure!(!other.exists(), "{after}");
            check_whole(&guarded, &after)?;
            maps(&guarded)?
        };
        guarded.unload()?.success()?;
        check_gone(&held).context(after)?;
        // Empty but for what other tests have there at the moment.
        let _ = std::fs::remove_dir(root.join(version));
    }
    Ok(())
}

/// The kernel attaches no program below one that stands on the interface, and says only that something exists.
#[test]
fn what_stands_on_the_interface_and_has_a_program_is_named() -> Result<()> {
    let guarded = Guarded::new()?;
    let port = guarded.interface();
    let host = &guarded.link.left.host;
    crate::topology::ip(
        host,
        port,
        "link add br0 type bridge
         link set IF master br0
         link set br0 up",
    )?;
    let load = |interfaces: &[&str]| {
        let mut args = guarded.load_args("--audit", &[BOTH], &["--xdp-mode", "generic"]);
        let place = args.iter().position(|arg| arg == port).context("a port")?;
        args.splice(place - 1..=place, []);
        for interface in interfaces {
            args.extend(["--interface", interface].map(str::to_owned));
        }
        guarded.run(&args, None)
    };
    load(&["br0"])?.success()?;
    let refused = load(&[port])?;
    ensure!(refused.code() == 3, "{refused}");
    for said in [
        "`br0`, which stands on it",
        "portguard unload --interface br0",
    ] {
        ensure!(refused.stderr.contains(said), "{said}: {refused}");
    }
    ensure!(!refused.stderr.contains("another XDP program"), "{refused}");
    let doctor = guarded.run(&["doctor", "--interface", port].map(str::to_owned), None)?;
    ensure!(
        doctor.stdout.contains("`br0`, which stands on it"),
        "{doctor}"
    );
    guarded
        .run(&["unload", "--interface", "br0"].map(str::to_owned), None)?
        .success()?;
    // Together they are taken in the order in which the kernel takes them.
    load(&["br0", port])?.success()?;
    Ok(())
}
