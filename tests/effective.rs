//! One effective state: whatever weakens a guard, every view says what really happens to packets.

mod names;
mod untrusted;
mod views;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, TcAttachType};
use portguard_harness::net::{End, Host, Lab, Link, Output, Process, unique_name};
use portguard_kernel::host::holder::xdp_programs;
use portguard_kernel::object::{self, HostFacts, Loaded};
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::pins::identity::Namespace;
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::Policy;
use serde_json::Value;

use crate::agent::{get, listening};
use crate::guard::{Guarded, LONG, eventually};

/// Long enough to be loaded, and to be waited for.
const DEADLINE: &str = "1s";

/// Outbound enforced, and what the document wants to know then.
const OUTBOUND: [&str; 8] = [
    "--outbound",
    "enforce",
    "--system-version",
    "10",
    "--choose",
    "directory-port=636",
    "--choose",
    "mail-port=587",
];

/// What must be said of an interface.
struct Wanted<'a> {
    /// The name that it has.
    name: &'a str,
    inbound: &'a str,
    outbound: &'a str,
    /// Part of why it is not what the policy says.
    because: Option<&'a str>,
}

fn run(guarded: &Guarded, args: &[&str]) -> Result<Output> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    guarded.run(&args, None)
}

fn json(output: &Output) -> Result<Value> {
    serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))
}

fn ip(guarded: &Guarded, args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(args);
    guarded
        .link
        .left
        .host
        .output(&mut command, LONG)?
        .success()?;
    Ok(())
}

/// Asks every view.
fn every_view_says(guarded: &Guarded, wanted: &Wanted<'_>) -> Result<()> {
    let Wanted {
        name,
        inbound,
        outbound,
        because,
    } = *wanted;
    let effective = |view: &str, found: &Value| -> Result<()> {
        let now = &found["effective"];
        ensure!(now["inbound"] == inbound, "{view}: {found}");
        ensure!(now["outbound"] == outbound, "{view}: {found}");
        let said = now["because"].as_str();
        ensure!(
            said.is_some() == because.is_some()
                && because.is_none_or(|because| said.is_some_and(|said| said.contains(because))),
            "{view}: {found}"
        );
        Ok(())
    };
    for view in ["status", "counters"] {
        let answer = json(&run(guarded, &[view, "--json"])?.success()?)?;
        let found = answer["interfaces"].as_array().context("interfaces")?;
        let found = found.iter().find(|one| one["name"] == name);
        effective(view, found.with_context(|| format!("{view}: {answer}"))?)?;
    }
    let text = run(guarded, &["status"])?.success()?.stdout;
    let head = format!("{name}: inbound {inbound}, outbound {outbound}\n");
    ensure!(text.contains(&head), "status: {text}");
    let text = run(guarded, &["counters", "--interface", name])?
        .success()?
        .stdout;
    ensure!(
        text.starts_with(&format!("{name}: {inbound}")),
        "counters: {text}"
    );
    ensure!(
        text.contains("now, they are dropped")
            || text.contains("what arrives is dropped") == (inbound == "enforce"),
        "counters: {text}"
    );
    let explained = run(
        guarded,
        &[
            "explain",
            "--running",
            name,
            "--in",
            "udp",
            "192.0.2.1",
            "9",
            "--json",
        ],
    )?;
    ensure!(explained.code() == 1, "{explained:?}");
    ensure!(
        json(&explained)?["mode"] == inbound,
        "explain: {explained:?}"
    );
    if let Some(because) = because {
        ensure!(explained.stderr.contains(because), "{explained:?}");
    }
    for (format, wanted) in [
        ("html", inbound.replace("off", "not guarded")),
        ("markdown", format!(": {inbound}")),
        ("csv", format!(",{inbound},")),
    ] {
        let text = run(
            guarded,
            &["report", "--interface", name, "--format", format],
        )?;
        let text = text.success()?.stdout;
        let shown = match format {
            "html" => {
                let tile = text.split("class=\"tile ").nth(1).context("a tile")?;
                let is_good = tile.starts_with("good");
                ensure!(is_good == (inbound == "enforce"), "report: {tile}");
                tile.split("</b>").next().unwrap_or_default().to_owned()
            }
            _ => text,
        };
        ensure!(shown.contains(&wanted), "report {format}: {shown}");
        ensure!(
            inbound == "enforce" || because.is_none() || !shown.contains(": enforce"),
            "report {format}: {shown}"
        );
    }
    Ok(())
}

/// Asks every view, the agent's too: where it finds nothing to put right.
fn all_views_say(guarded: &Guarded, wanted: &Wanted<'_>) -> Result<()> {
    every_view_says(guarded, wanted)?;
    agent_says(guarded, wanted)
}

/// The agent puts it right, and every view says so.
fn the_agent_reattaches(guarded: &Guarded) -> Result<()> {
    run(guarded, &["agent", "--once"])?.success()?;
    as_meant(guarded)
}

fn as_meant(guarded: &Guarded) -> Result<()> {
    all_views_say(
        guarded,
        &Wanted {
            name: guarded.interface(),
            inbound: "enforce",
            outbound: "enforce",
            because: None,
        },
    )
}

/// Metrics and health.
fn agent_says(guarded: &Guarded, wanted: &Wanted<'_>) -> Result<()> {
    let history = std::env::temp_dir().join(format!("{}-history", guarded.interface()));
    let flag = format!("--history={}", history.display());
    let agent = guarded.start(&["agent".to_owned(), flag], None)?;
    listening(&agent)?;
    let host = &guarded.link.left.host;
    let (_, metrics) = get(host, "/metrics", "*/*")?;
    let name = wanted.name;
    for (metric, value) in [
        ("portguard_enforcing", u8::from(wanted.inbound == "enforce")),
        (
            "portguard_enforcing_outbound",
            u8::from(wanted.outbound == "enforce"),
        ),
        ("portguard_as_meant", u8::from(wanted.because.is_none())),
        ("portguard_warnings", u8::from(wanted.because.is_some())),
    ] {
        let line = format!("{metric}{{interface=\"{name}\"}} {value}\n");
        ensure!(metrics.contains(&line), "no {line} in {metrics}");
    }
    let (head, body) = get(host, "/healthz", "*/*")?;
    let status = if wanted.because.is_some() {
        "503"
    } else {
        "200"
    };
    ensure!(
        head.starts_with(&format!("HTTP/1.1 {status}")),
        "{head} {body}"
    );
    let _ = std::fs::remove_dir_all(history);
    Ok(())
}

fn enforcing(more: &[&str]) -> Result<Guarded> {
    let guarded = Guarded::new()?;
    let mut all = OUTBOUND.to_vec();
    all.extend(more);
    guarded.load("--enforce", &[7000], &all)?;
    Ok(guarded)
}

/// Until the deadline has passed, by the status itself.
fn lapse(guarded: &Guarded) -> Result<()> {
    eventually("the deadline passed", || {
        Ok(guarded.status()?.context("a guard")?["confirm_seconds_left"] == 0)
    })
}

#[test]
fn what_is_as_the_policy_says_is_said_so() -> Result<()> {
    as_meant(&enforcing(&[])?)
}

#[test]
fn a_first_enforce_that_was_not_confirmed_drops_nothing() -> Result<()> {
    let guarded = enforcing(&["--confirm-within", DEADLINE])?;
    lapse(&guarded)?;
    all_views_say(
        &guarded,
        &Wanted {
            name: guarded.interface(),
            inbound: "audit",
            outbound: "audit",
            because: Some("not confirmed in time"),
        },
    )
}

#[test]
fn a_later_enforce_that_was_not_confirmed_drops_what_both_drop() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--enforce", &[7001], &[])?;
    let more = [&OUTBOUND[..], &["--confirm-within", DEADLINE]].concat();
    guarded.load("--enforce", &[7000], &more)?;
    lapse(&guarded)?;
    all_views_say(
        &guarded,
        &Wanted {
            name: guarded.interface(),
            inbound: "enforce",
            outbound: "audit",
            because: Some("has given way to generation 1"),
        },
    )
}

#[test]
fn an_interface_that_is_gone_is_not_guarded() -> Result<()> {
    let guarded = enforcing(&[])?;
    guarded
        .link
        .left
        .host
        .delete_interface(guarded.interface())?;
    gone(&guarded, "is gone")
}

#[test]
fn an_interface_that_was_replaced_is_not_guarded() -> Result<()> {
    let guarded = enforcing(&[])?;
    guarded
        .link
        .left
        .host
        .delete_interface(guarded.interface())?;
    let _link = again(&guarded)?;
    gone(&guarded, "is gone")?;
    the_agent_reattaches(&guarded)
}

/// What there is to go back to is what it was before.
#[test]
fn going_back_means_the_same_after_an_interface_came_back() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[7000], &OUTBOUND)?;
    guarded.load("--enforce", &[7000], &OUTBOUND)?;
    guarded
        .link
        .left
        .host
        .delete_interface(guarded.interface())?;
    let _link = again(&guarded)?;
    the_agent_reattaches(&guarded)?;
    run(&guarded, &["rollback"])?.success()?;
    let status = guarded.status()?.context("a guard")?;
    ensure!(status["effective"]["inbound"] == "audit", "{status}");
    Ok(())
}

#[test]
fn an_interface_that_was_moved_away_is_not_guarded() -> Result<()> {
    let guarded = enforcing(&[])?;
    let elsewhere = Lab::new()?.host("elsewhere")?;
    let sleeper = elsewhere.start(Command::new("sleep").arg("60"))?;
    let process = sleeper.id().to_string();
    ip(
        &guarded,
        &["link", "set", guarded.interface(), "netns", &process],
    )?;
    let _link = again(&guarded)?;
    gone(&guarded, "another network namespace")?;
    run(&guarded, &["agent", "--once"])?.success()?;
    every_view_says(
        &guarded,
        &Wanted {
            name: guarded.interface(),
            inbound: "enforce",
            outbound: "enforce",
            because: None,
        },
    )?;
    run(&guarded, &["unload"])?.success()?;
    Ok(())
}

#[test]
fn an_interface_that_was_moved_away_with_its_guard_is_told_in_both_namespaces() -> Result<()> {
    let guarded = enforcing(&[])?;
    let elsewhere = Lab::new()?.host("elsewhere")?;
    let name = guarded.interface().to_owned();
    let sleeper = elsewhere.start(Command::new("sleep").arg("60"))?;
    let process = sleeper.id().to_string();
    ip(&guarded, &["link", "set", &name, "netns", &process])?;
    // Nothing has its name here: what its guard does there is what it does.
    every_view_says(
        &guarded,
        &Wanted {
            name: &name,
            inbound: "enforce",
            outbound: "enforce",
            because: Some("`portguard unload` here ends it"),
        },
    )?;
    let there = |args: &[&str]| elsewhere.output(&mut Guarded::command(args), LONG);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["counters"],
        &["flows"],
        &["unload"],
        &["unload", "--interface", &name],
        &[
            "load",
            "--role",
            "thoughtspot/node",
            "--interface",
            &name,
            "--audit",
        ],
        &["doctor", "--interface", &name],
    ] {
        let said = there(args)?;
        let all = format!("{}{}", said.stdout, said.stderr);
        ensure!(all.contains("which it came from"), "{args:?}: {said}");
        ensure!(
            all.contains(&format!("portguard unload --interface {name}")),
            "{args:?}: {said}"
        );
        ensure!(!all.contains("another BPF file system"), "{args:?}: {said}");
        ensure!(said.code() != 0 || args[0] == "status", "{args:?}: {said}");
    }
    guarded.unload()?.success()?;
    let said = there(&["status"])?.success()?;
    ensure!(said.stdout.contains("no interface is guarded"), "{said}");
    Ok(())
}

/// Moves the guarded interface to another namespace, and makes one of its name.
fn moved(guarded: &Guarded) -> Result<(Host, Process, Link)> {
    let elsewhere = Lab::new()?.host("elsewhere")?;
    let sleeper = elsewhere.start(Command::new("sleep").arg("60"))?;
    let process = sleeper.id().to_string();
    let name = guarded.interface();
    ip(guarded, &["link", "set", name, "netns", &process])?;
    let link = again(guarded)?;
    Ok((elsewhere, sleeper, link))
}

/// Whatever is done where an interface came from with its guard: that guard goes on until it is ended in so many words, and who
/// has its name there is guarded beside it.
#[test]
fn a_guard_that_moved_goes_on_whatever_is_loaded_where_it_came_from() -> Result<()> {
    let state = std::env::temp_dir().join(unique_name("state"));
    for verb in [
        "load",
        "agent",
        "last-good",
        "rename",
        "rollback",
        "confirm",
    ] {
        let guarded = Guarded::new()?;
        let name = guarded.interface().to_owned();
        let portguard = |args: &[&str]| {
            let mut command = Guarded::command(args);
            command.env("STATE_DIRECTORY", &state);
            guarded.link.left.host.output(&mut command, LONG)
        };
        portguard(&load_there(&name))?.success()?;
        if verb == "rollback" {
            portguard(&load_there(&name))?.success()?;
        }
        let (elsewhere, _sleeper, _link) = moved(&guarded)?;
        let program = || -> Result<Vec<u32>> {
            let index = elsewhere.index(&name)?;
            elsewhere.run(|| Ok(xdp_programs(index)?))
        };
        let before = program()?;
        ensure!(before.len() == 1, "{verb}: {before:?}");
        let mut is_beside = true;
        match verb {
            "load" => drop(portguard(&load_there(&name))?.success()?),
            "agent" => drop(portguard(&["agent", "--once"])?.success()?),
            "last-good" => {
                portguard(&["load", "--last-good", "--interface", &name])?.success()?;
            }
            "rename" => {
                ip(&guarded, &["link", "set", &name, "down"])?;
                ip(&guarded, &["link", "set", &name, "name", "other0"])?;
                portguard(&load_there("other0"))?.success()?;
                ip(&guarded, &["link", "set", "other0", "down"])?;
                ip(&guarded, &["link", "set", "other0", "name", &name])?;
                portguard(&load_there(&name))?.success()?;
            }
            "rollback" => {
                let refused = portguard(&["rollback"])?;
                ensure!(refused.code() == 2, "{refused}");
                let said = &refused.stderr;
                ensure!(said.contains("another network namespace"), "{refused}");
                ensure!(said.contains("portguard unload"), "{refused}");
                is_beside = false;
            }
            _ => {
                portguard(&["confirm"])?.success()?;
                is_beside = false;
            }
        }
        ensure!(program()? == before, "{verb}: {:?}", program()?);
        let status = json(&portguard(&["status", "--json"])?.success()?)?;
        let found = status["interfaces"].as_array().context("interfaces")?;
        let said = |name: &str| {
            let one = found.iter().find(|one| one["name"] == name);
            one.map(|one| one["effective"]["inbound"].clone())
        };
        let aside = format!("{name}:moved");
        if is_beside {
            ensure!(said(&name) == Some("enforce".into()), "{verb}: {status}");
            ensure!(said(&aside) == Some("enforce".into()), "{verb}: {status}");
            // By that name it is ended, and the other one stays.
            portguard(&["unload", "--interface", &aside])?.success()?;
            let status = json(&portguard(&["status", "--json"])?.success()?)?;
            let left = status["interfaces"].as_array().context("interfaces")?;
            ensure!(left.len() == 1 && left[0]["name"] == *name, "{status}");
        } else {
            ensure!(said(&name) == Some("off".into()), "{verb}: {status}");
        }
        portguard(&["unload"])?.success()?;
        ensure!(program()?.is_empty(), "{verb}: {:?}", program()?);
    }
    std::fs::remove_dir_all(state)?;
    Ok(())
}

/// Arguments that load a guard in a namespace of which nothing else is known.
fn load_there(name: &str) -> Vec<&str> {
    let load = "load --role thoughtspot/node --enforce --unprinted-peers 192.0.2.0/24 --unresolved-peers none \
                --management udp/7000 --interface";
    load.split(' ')
        .filter(|word| !word.is_empty())
        .chain([name])
        .collect()
}

#[test]
fn a_guard_whose_namespace_has_ended_is_ended_where_its_interface_is() -> Result<()> {
    let lab = Lab::new()?;
    let link = lab.pair()?;
    let name = link.left.name.clone();
    let elsewhere = lab.host("elsewhere")?;
    let run = |host: &Host, args: &[&str]| host.output(&mut Guarded::command(args), LONG);
    run(&link.left.host, &load_there(&name))?.success()?;
    let sleeper = elsewhere.start(Command::new("sleep").arg("60"))?;
    let process = sleeper.id().to_string();
    let mut command = Command::new("ip");
    command.args(["link", "set", &name, "netns", &process]);
    link.left.host.output(&mut command, LONG)?.success()?;
    // Whatever else holds the namespace for a moment (a child of another test that has not yet begun its program): it has
    // ended when an interface that stayed in it is gone, and its peer with it.
    let witness = lab.host("witness")?;
    let stays = lab.connect(
        &link.left.host,
        &End::new("stays"),
        &witness,
        &End::new("w0"),
    )?;
    drop((stays, link.left));
    witness.wait_gone("w0", LONG)?;
    let refused = run(&elsewhere, &load_there(&name))?;
    ensure!(refused.code() == 3, "{refused}");
    let todo = format!("`portguard unload --interface {name}` here");
    ensure!(refused.stderr.contains(&todo), "{refused}");
    run(&elsewhere, &["unload", "--interface", &name])?.success()?;
    run(&elsewhere, &load_there(&name))?.success()?;
    run(&elsewhere, &["unload"])?.success()?;
    Ok(())
}

/// Somebody removed pins below a guard: whatever is missing, views say no less than is so, and `unload` is the way out.
#[test]
fn a_guard_without_some_of_its_pins_is_still_seen_and_ended() -> Result<()> {
    for pin in ["meta", "in", "out"] {
        let guarded = enforcing(&[])?;
        let name = guarded.interface();
        let layout = guarded.link.left.host.run(|| Ok(Layout::of(name)))?;
        let number = layout.generations().pop().context("a generation")?;
        std::fs::remove_file(layout.generation(number).join(pin))?;
        let status = run(&guarded, &["status"])?;
        let said = format!("{}{}", status.stdout, status.stderr);
        ensure!(!said.contains("no interface is guarded"), "{pin}: {said}");
        if status.code() == 0 {
            ensure!(
                said.contains("inbound enforce, outbound enforce"),
                "{pin}: {said}"
            );
        } else {
            let todo = format!("portguard unload --interface {name}");
            ensure!(status.code() == 3 && said.contains(&todo), "{pin}: {said}");
        }
        guarded
            .unload()?
            .success()
            .with_context(|| pin.to_owned())?;
        let status = run(&guarded, &["status"])?.success()?;
        ensure!(
            status.stdout.contains("no interface is guarded"),
            "{pin}: {status}"
        );
        run(&guarded, &load_there(name))?.success()?;
    }
    Ok(())
}

/// Makes an interface of the guarded one's name.
fn again(guarded: &Guarded) -> Result<Link> {
    let lab = Lab::new()?;
    let peer = lab.host("peer")?;
    let end = End::new(guarded.interface()).address("10.78.0.1/24");
    lab.connect(&guarded.link.left.host, &end, &peer, &End::new("r0"))
}

fn gone(guarded: &Guarded, because: &str) -> Result<()> {
    every_view_says(
        guarded,
        &Wanted {
            name: guarded.interface(),
            inbound: "off",
            outbound: "off",
            because: Some(because),
        },
    )
}

#[test]
fn an_interface_that_was_renamed_is_guarded_by_its_new_name() -> Result<()> {
    let guarded = enforcing(&[])?;
    let name = guarded.interface();
    let new = format!("x{name}");
    ip(&guarded, &["link", "set", name, "down"])?;
    ip(&guarded, &["link", "set", name, "name", &new])?;
    let status = json(&run(&guarded, &["status", "--json"])?.success()?)?;
    let one = &status["interfaces"][0];
    ensure!(
        one["name"] == new && one["effective"]["inbound"] == "enforce",
        "{status}"
    );
    run(&guarded, &["unload", "--interface", &new])?.success()?;
    Ok(())
}

#[test]
fn a_guard_without_its_egress_program_says_so() -> Result<()> {
    let guarded = enforcing(&[])?;
    std::fs::remove_file(guarded.pins()?.join("link_out"))?;
    let wanted = Wanted {
        name: guarded.interface(),
        inbound: "enforce",
        outbound: "off",
        because: Some("egress program is not attached"),
    };
    every_view_says(&guarded, &wanted)?;
    the_agent_reattaches(&guarded)
}

/// Programs that run before the guard's on egress may let out what it never sees. Those that were there before it run after it.
#[test]
fn a_program_before_the_guards_on_egress_is_said_and_loading_goes_in_front() -> Result<()> {
    let guarded = Guarded::new()?;
    let name = guarded.interface();
    let image = Image::build(&Policy::default(), Directory::default())?;
    let mut other = object::load(&image, &HostFacts::default(), None)?;
    let attach = |other: &mut Loaded, order| -> Result<u32> {
        let program = other.egress()?;
        let order = TcAttachOptions::TcxOrder(order);
        let host = &guarded.link.left.host;
        host.run(|| Ok(program.attach_with_options(name, TcAttachType::Egress, order)?))?;
        Ok(program.info()?.id())
    };
    attach(&mut other, LinkOrder::default())?;
    guarded.load("--enforce", &[7000], &OUTBOUND)?;
    as_meant(&guarded)?;
    // The same program cannot be on the hook twice.
    let mut front = object::load(&image, &HostFacts::default(), None)?;
    let id = attach(&mut front, LinkOrder::first())?;
    let wanted = Wanted {
        name,
        inbound: "enforce",
        outbound: "off",
        because: Some(&format!("TCX egress program {id}")),
    };
    every_view_says(&guarded, &wanted)?;
    guarded.load("--enforce", &[7000], &OUTBOUND)?;
    as_meant(&guarded)
}

/// Where the pins cannot be seen, no verb says that nothing is guarded.
#[test]
fn where_pins_cannot_be_seen_every_verb_says_so() -> Result<()> {
    let guarded = enforcing(&[])?;
    let name = guarded.interface();
    let portguard = PathBuf::from(env!("CARGO_BIN_EXE_portguard"));
    let portguard = portguard.display();
    let verbs = [
        "status".to_owned(),
        "status --json".to_owned(),
        "counters".to_owned(),
        "drift".to_owned(),
        "events --seconds 0".to_owned(),
        "report".to_owned(),
        "diff --role thoughtspot/node".to_owned(),
        "confirm".to_owned(),
        "rollback".to_owned(),
        "unload".to_owned(),
        format!("unload --interface {name}"),
        format!("explain --running {name} --in udp 192.0.2.1 9"),
        guarded.load_args("--audit", &[], &[]).join(" "),
        "agent --once".to_owned(),
    ];
    // No bpffs; another one over the one that has the pins; what `ip netns exec` mounts.
    for hide in [
        "mount -t tmpfs tmpfs /sys/fs/bpf",
        "mount -t bpf bpf /sys/fs/bpf",
        "mount -t sysfs sysfs /sys",
    ] {
        for verb in &verbs {
            let script = format!("{hide} && exec {portguard} {verb}");
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &script]);
            let output = guarded
                .link
                .left
                .host
                .output(&mut command, Duration::from_mins(1))?;
            let said = format!("{}{}", output.stdout, output.stderr);
            ensure!(output.code() == 3, "{hide}: {verb}: {output:?}");
            ensure!(said.contains("cannot be seen"), "{hide}: {verb}: {said}");
            for wrong in ["no interface is guarded", "not guarded", "detach"] {
                ensure!(!said.contains(wrong), "{hide}: {verb}: {said}");
            }
        }
        // What is asked about the machine names its own guard as such.
        let script = format!("{hide} && exec {portguard} doctor --interface {name}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let output = guarded.link.left.host.output(&mut command, LONG)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(!said.contains("detach it"), "{hide}: {said}");
        ensure!(said.contains("cannot be seen"), "{hide}: {said}");
    }
    let nobody = format!("exec setpriv --reuid 65534 --clear-groups {portguard} status");
    let mut command = Command::new("sh");
    command.args(["-c", &nobody]);
    let output = guarded.link.left.host.output(&mut command, LONG)?;
    ensure!(output.code() == 3, "{output:?}");
    ensure!(guarded.status()?.context("a guard")?["mode"] == "enforce");
    Ok(())
}

/// The kernel gives the number of a namespace that ended to the next one: what was pinned for the one is not the other's. When
/// it does so is up to the kernel, so the pins are given the number that the next one has.
#[test]
fn a_namespace_with_the_number_of_a_dead_one_is_not_guarded() -> Result<()> {
    let lab = Lab::new()?;
    let link = lab.pair()?;
    let name = link.left.name.clone();
    let run = |host: &Host, args: &[&str]| host.output(&mut Guarded::command(args), LONG);
    let load = [
        "load",
        "--role",
        "thoughtspot/node",
        "--interface",
        &name,
        "--enforce",
        "--unprinted-peers",
        "192.0.2.0/24",
        "--unresolved-peers",
        "none",
        "--management",
        "udp/7000",
    ];
    run(&link.left.host, &load)?.success()?;
    let pins = link.left.host.run(|| Ok(Layout::of(&name)))?;
    let dead = pins.namespace().context("a namespace of its own")?;
    drop(link);
    let (next, peer) = (lab.host("next")?, lab.host("peer")?);
    let heir = Namespace {
        inode: next.inode()?,
        ..dead
    };
    let called = format!("{name}@{heir}");
    std::fs::rename(&pins.directory, pins.directory.with_file_name(&called))?;
    let end = End::new(&name).address("10.78.0.1/24");
    let _link = lab.connect(&next, &end, &peer, &End::new("r0"))?;
    let no_guard = || -> Result<()> {
        let status = run(&next, &["status"])?.success()?;
        ensure!(
            status.stdout.contains("no interface is guarded"),
            "{status:?}"
        );
        Ok(())
    };
    no_guard()?;
    run(&next, &["agent", "--once"])?.success()?;
    no_guard()?;
    // Nobody can come back to them: the next tool has removed them.
    ensure!(
        !pins.directory.with_file_name(&called).exists(),
        "the pins of a dead namespace are left"
    );
    Ok(())
}
