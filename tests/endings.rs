//! Rows that end: the kernel ends them at their time, whoever is running then, and nothing opens them again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use portguard_common::abi::control;
use portguard_harness::net::Output;
use portguard_harness::traffic::UdpEcho;
use portguard_policy::human::rfc3339;
use serde_json::Value;

use crate::guard::{Guarded, LONG, SHORT, SOON, eventually};

/// Open for good, and until the end: to everybody, and to the peer alone.
const STAYS: u16 = 7000;
const ENDS: u16 = 7001;
const ENDS_FOR_PEER: u16 = 7002;
/// Rows that end and rows that stay, for the same port.
const NARROWS: u16 = 7003;
const ALL: [u16; 4] = [STAYS, ENDS, ENDS_FOR_PEER, NARROWS];

/// Long enough to load and to look, on a busy machine.
const WITHIN: Duration = Duration::from_secs(20);

struct Site {
    guarded: Guarded,
    directory: PathBuf,
    _echoes: Vec<UdpEcho>,
}

impl Site {
    /// A host whose rows end at a time.
    fn new(mode: &str, end: u64) -> Result<Self> {
        let guarded = Guarded::new()?;
        let directory = std::env::temp_dir().join(format!("{}-end", guarded.interface()));
        std::fs::create_dir_all(&directory)?;
        let end = rfc3339(end * 1_000_000_000);
        let row = |name: &str, port: u16, peers: &str, more: &str| {
            format!(
                "[[row]]\nname = \"{name}\"\ndirection = \"in\"\ntransport = \"udp\"\nports = [{port}]\npeers = {peers}\n\
                 reason = \"a test\"\n{more}\n"
            )
        };
        let until = format!("expires = {end}");
        let peer = format!("[\"{}\"]", guarded.link.right.v4());
        let text = format!(
            "schema = 1\nmode = \"{mode}\"\nunprinted_peers = \"none\"\nunresolved_peers = \"none\"\n[management]\nnone = true\n\
             [systems.thoughtspot]\nversion = \"10\"\nchoices = {{ directory-port = \"636\", mail-port = \"587\" }}\n{}{}{}{}{}\
             [[host]]\nname = \"here\"\naddresses = [\"10.77.0.1\"]\nroles = [\"thoughtspot/node\"]\n",
            row("stays", STAYS, "\"any\"", ""),
            row("ends", ENDS, "\"any\"", &until),
            row("ends-for-peer", ENDS_FOR_PEER, &peer, &until),
            row("narrows", NARROWS, "\"any\"", &until),
            row("narrowed", NARROWS, "[\"192.0.2.1\"]", ""),
        );
        std::fs::write(directory.join("site.toml"), text)?;
        let host = &guarded.link.left;
        let echoes = ALL
            .iter()
            .map(|port| UdpEcho::start(&host.host, SocketAddr::new(host.v4().into(), *port)))
            .collect::<Result<_>>()?;
        Ok(Self {
            guarded,
            directory,
            _echoes: echoes,
        })
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Guarded::command(args);
        command.env("STATE_DIRECTORY", &self.directory);
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    fn load(&self, more: &[&str]) -> Result<Output> {
        let file = self.directory.join("site.toml").display().to_string();
        let mut args = vec!["load", "-c", &file, "--interface", self.guarded.interface()];
        args.extend(["--confirm-within", "0"]);
        args.extend(more);
        self.run(&args)?.success()
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.run(args)?;
        serde_json::from_str(&output.stdout).with_context(|| format!("{output:?}"))
    }

    /// Violations inbound, as the counters have them.
    fn violations(&self) -> Result<u64> {
        let answer = self.json(&["counters", "--by", "reason", "--json"])?;
        let reasons = answer["interfaces"][0]["reasons"].as_array().cloned();
        let named = ["undocumented-port", "undocumented-peer"];
        let of_them = |one: &&Value| {
            one["direction"] == "in" && named.iter().any(|name| one["reason"] == *name)
        };
        Ok(reasons
            .context("reasons")?
            .iter()
            .filter(of_them)
            .filter_map(|one| one["packets"].as_u64())
            .sum())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

#[test]
fn rows_end_in_the_kernel_and_stay_ended() -> Result<()> {
    let end = now()? + WITHIN.as_secs();
    let site = Site::new("enforce", end)?;
    site.load(&[])?;
    ensure!(site.guarded.open(&ALL)? == ALL, "open before the end");
    let status = site.json(&["status", "--json"])?;
    let endings = &status["interfaces"][0]["effective"]["endings"];
    ensure!(
        endings.as_array().map(Vec::len) == Some(3) && endings[0]["is_over"] == false,
        "{status}"
    );
    ensure!(now()? < end, "the machine was too slow for this test");
    // Nothing of portguard's runs.
    eventually("the row ended", || {
        Ok(!site.guarded.reaches(ENDS, SHORT)?)
    })?;
    ensure!(now()? >= end, "it ended early");
    ensure!(site.guarded.open(&ALL)? == [STAYS]);
    let status = site.json(&["status", "--json"])?;
    let one = &status["interfaces"][0];
    ensure!(
        one["effective"]["endings"][0]["is_over"] == true,
        "{status}"
    );
    ensure!(
        one["warnings"].to_string().contains("expired at"),
        "{status}"
    );
    let counters = site.json(&["counters", "--json"])?;
    let endings = &counters["interfaces"][0]["effective"]["endings"];
    ensure!(endings[0]["is_over"] == true, "{counters}");
    let name = site.guarded.interface();
    let explained = site.guarded.explain(ENDS)?;
    ensure!(explained.code() == 1, "{explained:?}");
    // What was stored opens nothing either, as after a boot.
    site.run(&["unload", "--interface", name])?.success()?;
    ensure!(site.guarded.open(&ALL)? == ALL, "nothing is guarded");
    site.run(&["load", "--last-good", "--interface", name])?
        .success()?;
    ensure!(site.guarded.open(&ALL)? == [STAYS]);
    Ok(())
}

#[test]
fn what_has_ended_is_counted_in_audit() -> Result<()> {
    let end = now()? + WITHIN.as_secs();
    let site = Site::new("audit", end)?;
    site.load(&[])?;
    let ask = |port| -> Result<u64> {
        let before = site.violations()?;
        ensure!(site.guarded.reaches(port, SOON)?, "audit drops nothing");
        Ok(site.violations()? - before)
    };
    ensure!(ask(ENDS)? == 0 && ask(ENDS_FOR_PEER)? == 0);
    ensure!(now()? < end, "the machine was too slow for this test");
    eventually("the row ended", || Ok(ask(ENDS)? == 1))?;
    ensure!(now()? >= end, "it ended early");
    for (port, wanted) in [(STAYS, 0), (ENDS_FOR_PEER, 1), (NARROWS, 1)] {
        ensure!(ask(port)? == wanted, "{port}");
    }
    Ok(())
}

/// A machine without a clock of its own boots in the past, and learns the time later.
#[test]
fn who_looks_after_the_clock_was_set_ends_what_is_due() -> Result<()> {
    let site = Site::new("enforce", now()? + 3600)?;
    site.load(&[])?;
    let pin = site.guarded.pins()?.join("gen-1/CONTROL");
    let map = MapData::from_pin(&pin).with_context(|| pin.display().to_string())?;
    let mut control: Array<MapData, u64> = Map::Array(map).try_into()?;
    let right = control.get(&control::WALL, 0)?;
    let hours = |count: u64| count * 3_600 * 1_000_000_000;
    // By the program's clock it is later, and then earlier, than it is.
    control.set(control::WALL, right + hours(2), 0)?;
    ensure!(site.guarded.open(&ALL)? == [STAYS]);
    control.set(control::WALL, right - hours(2), 0)?;
    ensure!(site.guarded.open(&ALL)? == ALL);
    site.run(&["status"])?.success()?;
    let set = control.get(&control::WALL, 0)?;
    ensure!(
        set.abs_diff(right) < hours(1),
        "{right}: nobody set it to the clock, {set}"
    );
    Ok(())
}
