//! From nothing to audit: one command looks, writes a site file that is right, and loads it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Lab, unique_name};
use portguard_harness::traffic::{Connection, TcpEcho, connect};
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
    // Another node is connected, to what only nodes may use.
    let far = guarded.link.right.v4();
    let target = (guarded.link.left.v4(), 2_200).into();
    let from_far = || Ok(connect(target, LONG));
    let Connection::Connected(_node) = guarded.link.right.host.run(from_far)? else {
        anyhow::bail!("no connection to {target}");
    };
    let dry = run(
        &guarded,
        &["setup", "--dry-run", "--json", "--output", path],
    )?
    .success()?;
    let answer: Value = serde_json::from_str(&dry.stdout)?;
    ensure!(answer["loaded"] == false && !file.exists(), "{answer}");
    let of = |key: &str| answer[key].as_array().map_or(0, Vec::len);
    ensure!(of("interfaces") + of("left") == 2, "{answer}");
    assert_eq!(
        answer["roles"],
        serde_json::json!(["thoughtspot/node"]),
        "{answer:#}"
    );
    let node = serde_json::json!({ "peer": "thoughtspot/node", "addresses": [far], "ports": ["tcp/2200"] });
    assert_eq!(answer["peers"], serde_json::json!([node]), "{answer:#}");

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
    ensure!(text.contains(&format!("\nnode = [\"{far}\"]")), "{text}");
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

/// Of roles that the same would listen for, somebody at the terminal says which it is; where nobody is there, a flag does.
#[test]
fn of_roles_that_fit_as_well_the_person_chooses() -> Result<()> {
    let guarded = Guarded::new()?;
    let host = &guarded.link.left.host;
    let directory = tempfile::tempdir()?;
    let services: Result<Vec<TcpEcho>> = [9_443, 9_763, 8_280, 8_243]
        .iter()
        .map(|port| TcpEcho::start(host, (ANY, *port).into()))
        .collect();
    let _services = services?;
    let run = |line: &str| shell(&guarded, directory.path(), line);
    let dry = run("$P setup --interface $IF --output site.toml --dry-run --json")?.success()?;
    let proposed: Value = serde_json::from_str(&dry.stdout)?;
    let proposals = proposed["proposals"].as_array().context("proposals")?;
    let likely = proposals.iter().find(|one| one["likely"] == true);
    let likely = likely.context("a likely one")?;
    let rival = likely["rivals"][0].as_str().context("a rival")?;
    let first = likely["role"].as_str().context("a role")?;
    // At a terminal: by its number, by its name, or what is proposed; what is none of them is asked again.
    let place = proposals.iter().filter(|one| {
        one["role"] == first
            || likely["rivals"]
                .as_array()
                .is_some_and(|all| all.contains(&one["role"]))
    });
    let number = place.clone().position(|one| one["role"] == rival);
    let number = (number.context("a number")? + 1).to_string();
    for (answer, wanted) in [
        (number.as_str(), rival),
        (rival, rival),
        ("", first),
        ("0\\n", first),
    ] {
        let output = run(&format!(
            "printf '{answer}\\nn\\n' | script --quiet --command \
             \"$P setup --interface $IF --admins 192.0.2.7 --output site.toml\" /dev/null"
        ))?;
        let said = &output.stdout;
        ensure!(said.contains(&format!("1  {first}")), "{output}");
        ensure!(said.contains(&format!("role        {wanted}:")), "{output}");
        ensure!(said.contains("nothing was written"), "{output}");
    }
    // Nobody is there.
    let output = run("$P setup --interface $IF --output site.toml < /dev/null")?;
    ensure!(
        output.code() == 2 && output.stderr.contains("--role"),
        "{output}"
    );
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

/// What a shell on the guarded host prints; `$P` is the program.
fn shell(
    guarded: &Guarded,
    directory: &std::path::Path,
    line: &str,
) -> Result<portguard_harness::net::Output> {
    let mut command = std::process::Command::new("bash");
    command
        .args(["-c", line])
        .current_dir(directory)
        .env("STATE_DIRECTORY", directory.join("state"))
        .env("P", env!("CARGO_BIN_EXE_portguard"))
        .env("IF", guarded.interface());
    guarded.link.left.host.output(&mut command, LONG)
}

#[test]
fn a_vendor_of_ones_own_is_named_in_what_is_written() -> Result<()> {
    let guarded = Guarded::new()?;
    let directory = tempfile::tempdir()?;
    let run = |line: &str| shell(&guarded, directory.path(), line);
    std::fs::create_dir(directory.path().join("own"))?;
    std::fs::write(
        directory.path().join("own/bookshop.toml"),
        include_str!("../docs/example-matrix.toml"),
    )?;
    run("$P setup --catalog own --role bookshop/shop --yes --output site.toml --interface $IF")?
        .success()?;
    // What it says to do next needs no option.
    for verb in [
        "check -c site.toml",
        "load -c site.toml",
        "explain -c site.toml tcp 192.0.2.1 443",
    ] {
        let output = run(&format!("$P {verb}"))?;
        ensure!(output.code() < 2, "{verb}: {output}");
    }
    run("$P init --catalog own --role bookshop/shop > init.toml && $P check -c init.toml")?
        .success()?;
    // Whoever forgets it is told.
    std::fs::write(
        directory.path().join("without.toml"),
        "schema = 1\n[[host]]\nname = \"a\"\nroles = [\"bookshop/shop\"]\n",
    )?;
    let output = run("$P check -c without.toml --host a")?;
    ensure!(output.stderr.contains("catalogs = ["), "{output}");
    Ok(())
}

#[test]
fn a_setup_that_comes_to_nothing_leaves_all_as_it_was() -> Result<()> {
    let guarded = Guarded::new()?;
    let directory = tempfile::tempdir()?;
    let run = |line: &str| shell(&guarded, directory.path(), line);
    let setup = "setup --yes --role thoughtspot/node --output site.toml";
    // No such interface: said before anything is proposed, with those that there are.
    for more in ["", "--dry-run"] {
        let output = run(&format!("$P {setup} --interface none0 {more}"))?;
        ensure!(output.code() == 2, "{output}");
        ensure!(output.stdout.is_empty(), "{output}");
        ensure!(output.stderr.contains(guarded.interface()), "{output}");
    }
    // The load fails: no file is left, or the one that was there.
    for before in [None, Some("schema = 1\n")] {
        if let Some(text) = before {
            std::fs::write(directory.path().join("site.toml"), text)?;
        }
        let failing = run(&format!(
            "PORTGUARD_FAULT=prepared:fail $P {setup} --interface $IF"
        ))?;
        ensure!(failing.code() == 3, "{failing}");
        let after = std::fs::read_to_string(directory.path().join("site.toml")).ok();
        ensure!(after.as_deref() == before, "{after:?}");
    }
    // Not root: said before all else.
    let output = run(&format!(
        "setpriv --bounding-set=-all --inh-caps=-all $P {setup} --interface $IF"
    ))?;
    ensure!(output.code() == 3 && output.stdout.is_empty(), "{output}");
    ensure!(output.stderr.contains("run as root"), "{output}");
    // Nobody to ask by name is no reason to go without an audit.
    let output = run(&format!(
        "unshare -m sh -c 'mount --bind /dev/null /etc/resolv.conf; $P {setup} --interface $IF'"
    ))?
    .success()?;
    ensure!(output.stderr.contains("no name server"), "{output}");
    // What enforces is not turned back to audit in passing.
    run("$P load -c site.toml --enforce --unprinted-peers 10.77.0.0/24 --unresolved-peers none --unresolved-ports none \
         --confirm-within 0 --force")?
        .success()?;
    let text = std::fs::read_to_string(directory.path().join("site.toml"))?;
    let output = run(&format!("$P {setup} --interface $IF --replace"))?;
    ensure!(
        output.code() == 2 && output.stderr.contains("enforces"),
        "{output}"
    );
    ensure!(std::fs::read_to_string(directory.path().join("site.toml"))? == text);
    let status = guarded.status()?.context("a guard")?;
    assert_eq!(status["mode"], "enforce");
    Ok(())
}

#[test]
fn who_administers_is_asked_or_said_and_never_an_example() -> Result<()> {
    let guarded = Guarded::new()?;
    let directory = tempfile::tempdir()?;
    let run = |line: &str| shell(&guarded, directory.path(), line);
    let setup = "setup --role thoughtspot/node --interface $IF --output site.toml --dry-run --json";
    let answer = |more: &str| -> Result<Value> {
        let output = run(&format!("{more} $P {setup}"))?.success()?;
        Ok(serde_json::from_str(&output.stdout)?)
    };
    // Nobody is connected: the way in stays open to anybody, and it says so.
    let nobody = answer("")?;
    assert_eq!(nobody["admins"], serde_json::json!([]));
    let site = nobody["site"].as_str().context("a site")?;
    ensure!(site.contains("allow = [\"tcp/22\"]"), "{site}");
    ensure!(!site.contains("\nadmins = "), "{site}");
    let shown =
        run("$P setup --role thoughtspot/node --interface $IF --output site.toml --dry-run")?
            .success()?;
    ensure!(shown.stdout.contains("anybody"), "{shown}");
    // Somebody is.
    let session = answer("SSH_CONNECTION='192.0.2.200 50000 10.77.0.1 22'")?;
    assert_eq!(session["admins"], serde_json::json!(["192.0.2.200"]));
    // It is said.
    let said = run(&format!("$P {setup} --admins 10.77.0.0/24,192.0.2.7"))?.success()?;
    let said: Value = serde_json::from_str(&said.stdout)?;
    let site = said["site"].as_str().context("a site")?;
    ensure!(
        site.contains("admins = [\"10.77.0.0/24\", \"192.0.2.7\"]"),
        "{site}"
    );
    let wrong = run(&format!("$P {setup} --admins 10.77.0.1/24"))?;
    ensure!(
        wrong.code() == 2 && wrong.stdout.contains("10.77.0.0/24"),
        "{wrong}"
    );
    Ok(())
}

#[test]
fn what_no_check_would_take_is_not_drafted() -> Result<()> {
    let guarded = Guarded::new()?;
    let directory = tempfile::tempdir()?;
    let run = |line: &str| shell(&guarded, directory.path(), line);
    for (hosts, wanted) in [
        ("--host a=10.0.0.1 --host a=10.0.0.2", "`a` is listed twice"),
        (
            "--host a=10.0.0.1 --host b=10.0.0.1",
            "belongs to `a` and to `b`",
        ),
    ] {
        let output = run(&format!("$P init --role thoughtspot/node {hosts}"))?;
        ensure!(output.code() == 2 && output.stdout.is_empty(), "{output}");
        ensure!(output.stderr.contains(wanted), "{output}");
    }
    // A file that is good by itself, under the name of one that is built in.
    let matrix = include_str!("../docs/example-matrix.toml");
    std::fs::write(
        directory.path().join("taken.toml"),
        matrix.replace("system = \"bookshop\"", "system = \"wso2\""),
    )?;
    let output = run("$P catalog verify taken.toml")?.success()?;
    ensure!(output.stderr.contains("is built in"), "{output}");
    Ok(())
}
