//! Many hosts: real guards in namespaces, and plans of thousands.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Lab};
use serde_json::Value;

use super::{Fleet, Output};

/// What the plan of ten thousand hosts may take.
const MINUTE: Duration = Duration::from_mins(1);
/// For a hundred agents on two processors.
const PATIENCE: Duration = Duration::from_mins(40);

/// A hundred in `nightly`; a few in every run, which is a test of the figures.
#[test]
fn what_is_published_is_soon_in_force_on_many_namespaces() -> Result<()> {
    let count: usize = match std::env::var("PORTGUARD_FLEET_NAMESPACES") {
        Ok(count) => count.parse()?,
        Err(_) => 4,
    };
    let mut fleet = Fleet::new("enforce")?;
    let lab = Lab::new()?;
    let hub = lab.host("hub")?;
    let mut hosts = Vec::new();
    for number in 0..count {
        let host = lab.host(&format!("h{number}"))?;
        let (near, far) = (End::new("pgn0"), End::new(&format!("pgn{number}")));
        lab.connect(&host, &near, &hub, &far)?;
        hosts.push(host);
    }
    write_site(&fleet, count, 4000)?;
    let path = fleet.path("fleet.toml");
    let config = std::fs::read_to_string(&path)?;
    let (head, _) = config.split_once("[[wave]]").context("waves")?;
    let head = head.replace("interface = \"eth0\"", "interface = \"pgn0\"");
    let waves =
        "[[wave]]\nname = \"all\"\nhosts = \"*\"\n[gate]\naudit = \"0\"\nconfirm = \"10m\"\n";
    std::fs::write(&path, format!("{head}{waves}"))?;
    for number in 0..count {
        fleet.verb(&["enroll", &format!("h{number}")])?.success()?;
    }
    for (number, host) in hosts.iter().enumerate() {
        fleet.start_on(host, &format!("h{number}"), &["--json"])?;
    }
    let controller = fleet.control()?;
    let wait = [
        "status",
        "--json",
        "--wait",
        "confirmed",
        "--timeout",
        "30m",
    ];
    for (release, port) in [(1, 4000), (2, 4001)] {
        write_site(&fleet, count, port)?;
        fleet.verb(&["plan"])?.success()?;
        fleet.sign()?;
        let begun = std::time::SystemTime::now();
        fleet.verb(&["apply", "--start"])?.success()?;
        let mut command = fleet.command(&wait);
        let output = fleet.link.left.host.output(&mut command, PATIENCE)?;
        ensure!(output.code() == 0, "release {release}: {}", brief(&output));
        let mut took = Vec::new();
        for agent in &fleet.agents {
            took.push(in_force_after(&agent.stderr(), begun)?);
        }
        took.sort_unstable();
        let part = |percent: usize| took.get((took.len() * percent / 100).min(took.len() - 1));
        println!(
            "{count} namespaces, release {release}: publish to in force p50 {:?}, p99 {:?}",
            part(50).context("times")?,
            part(99).context("times")?
        );
    }
    what_it_took(&fleet)?;
    drop(controller);
    Ok(())
}

fn write_site(fleet: &Fleet, count: usize, port: u16) -> Result<()> {
    let mut text = format!(
        "schema = 1\nmode = \"enforce\"\noutbound = \"audit\"\nunprinted_peers = \"any\"\nunresolved_peers = \"none\"\n\
         unresolved_ports = \"none\"\n[management]\nallow = [\"tcp/22\"]\n[[row]]\nname = \"r\"\ndirection = \"in\"\n\
         transport = \"tcp\"\nports = [\"4000-{port}\"]\npeers = \"any\"\nreason = \"a test\"\n"
    );
    for number in 0..count {
        writeln!(
            text,
            "[[host]]\nname = \"h{number}\"\naddresses = [\"10.78.{}.{}\"]\nroles = [\"wso2/identity-server\"]",
            number / 250,
            number % 250 + 1
        )?;
    }
    Ok(std::fs::write(fleet.path("site.toml"), text)?)
}

/// Prints what each agent took of the processor, and of memory.
fn what_it_took(fleet: &Fleet) -> Result<()> {
    let mut memory = Vec::new();
    let (mut own, mut verbs) = (0, 0);
    for agent in &fleet.agents {
        let spent = std::fs::read_to_string(format!("/proc/{}/stat", agent.id()))?;
        let (_, spent) = spent.rsplit_once(')').context("a name")?;
        let spent: Vec<u64> = spent
            .split_whitespace()
            .map(|number| number.parse().unwrap_or_default())
            .collect();
        // User and system time, of the agent and of what it called: hundredths of a second.
        let [user, system, user_of_verbs, system_of_verbs] = spent.get(11..15).context("times")?
        else {
            anyhow::bail!("four times");
        };
        own += user + system;
        verbs += user_of_verbs + system_of_verbs;
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let line = line.context("no VmHWM")?;
        let number = line.split_whitespace().nth(1).context("a number")?;
        memory.push(number.parse::<u64>()?);
    }
    let each =
        |hundredths: u64| Duration::from_millis(hundredths * 10 / memory.len().max(1) as u64);
    println!(
        "both releases took a host {:?} of processor time, and what it called {:?}",
        each(own),
        each(verbs)
    );
    println!(
        "an agent has {} KiB at most",
        memory.iter().max().context("agents")?
    );
    Ok(())
}

/// Why it is not there, and which hosts are not; all of a hundred are too many to read.
fn brief(output: &Output) -> String {
    let said: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let hosts = said["hosts"].as_array().into_iter().flatten();
    let missing = hosts.filter(|host| host["state"] != "confirmed");
    let missing: Vec<String> = missing
        .take(5)
        .map(|host| {
            format!(
                "{} {} {} {}",
                host["host"], host["state"], host["why"], host["doubt"]
            )
        })
        .collect();
    format!(
        "exit code {}; {}; {}; {}; {}; {}",
        output.code(),
        said["waited"],
        said["states"],
        said["position"],
        missing.join("; "),
        output.stderr
    )
}

/// When this host said that it was confirmed, since then; by its own log.
fn in_force_after(log: &str, begun: std::time::SystemTime) -> Result<Duration> {
    let last = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .rfind(|line| line["state"] == "confirmed")
        .context("it does not say so")?;
    let time = last["timestamp"].as_str().context("no time")?;
    let time = humantime::parse_rfc3339_weak(time)?;
    Ok(time.duration_since(begun)?)
}

/// Ten thousand hosts in `nightly`; a tenth of that in every run.
#[test]
fn a_plan_of_many_hosts_is_quick() -> Result<()> {
    let count: u32 = match std::env::var("PORTGUARD_FLEET_HOSTS") {
        Ok(count) => count.parse()?,
        Err(_) => 1000,
    };
    let fleet = Fleet::new("enforce")?;
    let mut site = String::from(
        "schema = 1\nmode = \"enforce\"\noutbound = \"audit\"\nunprinted_peers = \"any\"\nunresolved_peers = \"none\"\nunresolved_ports = \"none\"\n[management]\nallow = [\"tcp/22\"]\n",
    );
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let name = if number == 0 {
            "left".to_owned()
        } else {
            format!("h{number}")
        };
        writeln!(
            site,
            "[[host]]\nname = \"{name}\"\naddresses = [\"10.{a}.{b}.{c}\"]\nroles = [\"wso2/identity-server\"]"
        )?;
    }
    std::fs::write(fleet.path("site.toml"), site)?;
    let begun = Instant::now();
    let planned = fleet.json(&["plan", "--json"])?;
    ensure!(planned["hosts"] == count, "{}", planned["hosts"]);
    let (bytes, compiled) = (&planned["bytes"], &planned["compile_milliseconds"]);
    println!(
        "{count} hosts: planned in {:?}, of it {compiled} ms to compile; {bytes} bytes",
        begun.elapsed()
    );
    ensure!(begun.elapsed() < MINUTE, "{:?}", begun.elapsed());
    Ok(())
}
