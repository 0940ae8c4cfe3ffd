//! Tunnels: a guard judges them by their outer header, and every view says so where one is open.

use std::process::Command;

use anyhow::{Result, ensure};
use portguard_harness::net::{Output, unique_name};

use crate::guard::{Guarded, LONG};
use crate::living::town::Site;

const SITE: &str = r#"
schema = 1
mode = "enforce"
unprinted_peers = "any"
catalogs = ["matrices"]
[management]
none = true
[baseline]
BASELINE
ROWS
[[host]]
name = "house"
addresses = ["10.77.0.1"]
roles = ["town/house"]
"#;

fn site(baseline: &str, rows: &str) -> Result<Site> {
    Site::of(&SITE.replace("BASELINE", baseline).replace("ROWS", rows))
}

fn udp(port: u16) -> String {
    format!(
        "[[row]]\nname = \"overlay\"\ndirection = \"in\"\ntransport = \"udp\"\nports = [{port}]\npeers = \"any\"\nreason = \"a tunnel\"\n"
    )
}

fn run(guarded: &Guarded, args: &[&str]) -> Result<Output> {
    guarded
        .link
        .left
        .host
        .output(&mut Guarded::command(args), LONG)
}

fn ip(guarded: &Guarded, arguments: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    guarded
        .link
        .left
        .host
        .output(&mut command, LONG)?
        .success()?;
    Ok(())
}

/// Whatever carries packets within packets, by how a site opens it.
#[test]
fn check_names_every_tunnel_that_a_site_lets_in() -> Result<()> {
    for port in [4789, 8472, 6081, 51_820, 1194, 1701, 2152, 4500] {
        let site = site("", &udp(port))?;
        let output =
            Guarded::command(&["check", "-c", &site.file(), "--host", "house"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        ensure!(
            said.contains(&format!("udp/{port} ("))
                && said.contains("inside the tunnel are not judged"),
            "udp/{port}: {said}"
        );
    }
    for number in [4, 41, 47, 50, 97, 115, 137] {
        let protocol = format!(
            "protocols = [{{ number = {number}, peers = \"any\", reason = \"a tunnel\" }}]"
        );
        let site = site(&protocol, "")?;
        let output =
            Guarded::command(&["check", "-c", &site.file(), "--host", "house"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        ensure!(
            said.contains(&format!("ip/{number} ("))
                && said.contains("inside the tunnel are not judged"),
            "ip/{number}: {said}"
        );
    }
    // What is no tunnel is none.
    let site = site("", &udp(4790))?;
    let output = Guarded::command(&["check", "-c", &site.file(), "--host", "house"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!said.contains("tunnel are not judged"), "{said}");
    Ok(())
}

#[test]
fn a_tunnel_that_ends_here_is_said_until_it_has_a_guard() -> Result<()> {
    let guarded = Guarded::new()?;
    let card = guarded.interface();
    let site = site("", &udp(4789))?;
    let file = site.file();
    let load = |interface: &str, mode: &str| {
        run(
            &guarded,
            &[
                "load",
                "-c",
                &file,
                "--host",
                "house",
                "--interface",
                interface,
                "--xdp-mode",
                mode,
            ],
        )
    };
    let tunnel = unique_name("vx");
    let said = load(card, "native")?.success()?.stderr;
    ensure!(said.contains("inside the tunnel are not judged"), "{said}");
    let status = run(&guarded, &["status"])?.success()?.stdout;
    ensure!(status.contains("udp/4789 is open (VXLAN)"), "{status}");
    // One that is made later, too.
    ip(
        &guarded,
        &format!("link add {tunnel} type vxlan id 42 dstport 4789 dev {card} remote 10.77.0.2"),
    )?;
    ip(&guarded, &format!("link set {tunnel} up"))?;
    for (verb, args) in [
        ("status", vec!["status"]),
        ("status --json", vec!["status", "--json"]),
        ("doctor", vec!["doctor", "--interface", card]),
    ] {
        let said = run(&guarded, &args)?.stdout;
        ensure!(
            said.contains(&format!("`{tunnel}`")) && said.contains("load --interface"),
            "{verb}: {said}"
        );
    }
    let said = load(card, "native")?.success()?.stderr;
    ensure!(said.contains(&format!("`{tunnel}`")), "{said}");
    load(&tunnel, "generic")?.success()?;
    let status = run(&guarded, &["status"])?.success()?.stdout;
    ensure!(!status.contains("VXLAN"), "{status}");
    let doctor = run(&guarded, &["doctor", "--interface", card])?.stdout;
    ensure!(!doctor.contains(&format!("`{tunnel}`")), "{doctor}");
    run(&guarded, &["unload", "--interface", &tunnel])?.success()?;
    Ok(())
}
