//! From nothing to audit: one command looks, writes a site file that is right, and loads it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Lab, unique_name};
use portguard_harness::traffic::TcpEcho;
use serde_json::Value;

use super::guard::{Guarded, LONG};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn run(guarded: &Guarded, args: &[&str]) -> Result<portguard_harness::net::Output> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    guarded.run(&args, None)
}

#[test]
fn a_host_is_set_up_from_what_listens_on_it() -> Result<()> {
    let guarded = Guarded::new()?;
    let host = &guarded.link.left.host;
    let file = std::env::temp_dir().join(format!("{}-site.toml", guarded.interface()));
    let path = file.to_str().context("a path")?;

    // Another interface, so that there is a choice.
    let end = || End::new(&unique_name("pgs"));
    Lab::new()?.connect(host, &end(), &guarded.link.right.host, &end())?;

    // Nothing listens: it says so, and how to go on.
    let output = run(&guarded, &["setup", "--yes", "--output", path, "--json"])?;
    ensure!(output.code() == 2, "{output}");
    let answer: Value = serde_json::from_str(&output.stdout)?;
    ensure!(
        answer["error"]["hint"].to_string().contains("--role"),
        "{answer}"
    );
    ensure!(!file.exists());

    // A node of ThoughtSpot, by some of its ports.
    let ports = [2_100, 2_101, 2_200, 2_201, 12_345];
    let services: Result<Vec<TcpEcho>> = ports
        .iter()
        .map(|port| TcpEcho::start(host, (ANY, *port).into()))
        .collect();
    let _services = services?;
    let dry = run(
        &guarded,
        &["setup", "--dry-run", "--json", "--output", path],
    )?
    .success()?;
    let answer: Value = serde_json::from_str(&dry.stdout)?;
    ensure!(answer["loaded"] == false && !file.exists(), "{answer}");
    assert_eq!(
        answer["roles"],
        serde_json::json!(["thoughtspot/node"]),
        "{answer:#}"
    );

    // Nobody to ask.
    let output = run(&guarded, &["setup", "--output", path])?;
    ensure!(
        output.code() == 2 && output.stderr.contains("--yes"),
        "{output}"
    );

    // The file that comes with the package says nothing yet, and is no obstacle.
    std::fs::write(&file, include_str!("../packaging/etc/site.toml"))?;
    let name = guarded.interface();
    let setup = ["setup", "--yes", "--output", path, "--interface", name];
    let output = run(&guarded, &setup)?.success()?;
    ensure!(output.stderr.contains("nothing is dropped"), "{output}");
    ensure!(!output.stderr.contains("no-effect"), "{output}");
    let status = guarded.status()?.context("a guard")?;
    assert_eq!(status["mode"], "audit");
    assert_eq!(status["roles"], serde_json::json!(["thoughtspot/node"]));
    // The file is right as it is, for this machine.
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains(&guarded.link.left.v4().to_string()), "{text}");
    let check = run(&guarded, &["check", "-c", path])?;
    ensure!(check.code() == 0, "{check}");
    // Nobody is asked again which interface it was: the file says so, and where one does not, what is guarded does.
    ensure!(
        text.contains(&format!("interfaces = {{ \"{name}\"")),
        "{text}"
    );
    let silent = format!("{path}.silent");
    std::fs::write(&silent, text.replace("interfaces =", "# interfaces ="))?;
    for site in [path, &silent] {
        let output = run(&guarded, &["load", "--audit", "-c", site])?.success()?;
        ensure!(output.stderr.contains(name), "{output}");
    }
    std::fs::remove_file(&silent)?;
    // It is not written over.
    let again = run(&guarded, &["setup", "--yes", "--output", path])?;
    ensure!(
        again.code() == 2 && again.stderr.contains("--replace"),
        "{again}"
    );
    std::fs::remove_file(&file)?;
    // It guards: what comes is counted.
    guarded.link.right.host.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"?", (guarded.link.left.v4(), 61_000))?;
        Ok(())
    })?;
    let counters = run(&guarded, &["counters", "--violations"])?.success()?;
    ensure!(counters.stdout.contains("udp/61000"), "{counters}");
    Ok(())
}

#[test]
fn what_there_is_to_say_of_a_policy_is_said_once_for_all_interfaces() -> Result<()> {
    let guarded = Guarded::new()?;
    let second = unique_name("pgb");
    let mut command = std::process::Command::new("ip");
    command.args(["link", "add", &second, "type", "bridge"]);
    guarded
        .link
        .left
        .host
        .output(&mut command, LONG)?
        .success()?;
    let mut args = guarded.load_args("--audit", &[], &["--dry-run", "--interface", &second]);
    args.retain(|arg| !["--unprinted-peers", "192.0.2.0/24"].contains(&arg.as_str()));
    let output = guarded.run(&args, None)?.success()?;
    let would = output.stderr.matches(": would load ").count();
    ensure!(would == 2, "{output}");
    let warnings: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains("warning["))
        .collect();
    let once: std::collections::BTreeSet<&str> = warnings.iter().copied().collect();
    ensure!(!once.is_empty() && once.len() == warnings.len(), "{output}");
    Ok(())
}

#[test]
fn errors_are_json_where_json_is_asked_for() -> Result<()> {
    let guarded = Guarded::new()?;
    for (args, code, error) in [
        (vec!["status", "--json", "--nonsense"], 2, "usage"),
        (
            vec!["counters", "--json", "--interface", "none0"],
            2,
            "usage",
        ),
        (vec!["check", "--json", "-c", "/nowhere.toml"], 2, ""),
        (vec!["confirm", "--json"], 2, "usage"),
        (vec!["rollback", "--json"], 2, "usage"),
        (vec!["events", "--json", "--port", "x"], 2, "usage"),
    ] {
        let output = run(&guarded, &args)?;
        let answer: Value =
            serde_json::from_str(&output.stdout).with_context(|| format!("{args:?}: {output}"))?;
        ensure!(answer["schema"] == 1, "{answer}");
        ensure!(answer["error"]["message"].is_string(), "{answer}");
        ensure!(
            error.is_empty() || answer["error"]["code"] == error,
            "{answer}"
        );
        ensure!(error.is_empty() || output.code() == code, "{output}");
    }
    Ok(())
}
