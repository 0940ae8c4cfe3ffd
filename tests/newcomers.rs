//! Interfaces that come while the agent runs: guarded where the site names them, and said where nobody guards them.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Lab, Link, Process, unique_name};
use serde_json::Value;

use crate::agent::listening;
use crate::guard::{Guarded, LONG, eventually};
use crate::living::town::Site;

const SITE: &str = r#"
schema = 1
mode = "enforce"
unprinted_peers = "any"
catalogs = ["matrices"]
[management]
none = true
[[host]]
name = "house"
addresses = ["10.77.0.1"]
roles = ["town/house"]
[host.interfaces.FIRST]
[host.interfaces.SECOND]
"#;

/// A guarded host with an agent, and a site that names an interface that is not there yet.
struct World {
    guarded: Guarded,
    second: String,
    site: Site,
    agent: Process,
}

impl World {
    fn new() -> Result<Self> {
        Self::loaded(&[])
    }

    /// With these words of `load`.
    fn loaded(words: &[&str]) -> Result<Self> {
        let guarded = Guarded::new()?;
        let second = unique_name("nc");
        let text = SITE
            .replace("FIRST", guarded.interface())
            .replace("SECOND", &second);
        let site = Site::of(&text)?;
        let file = site.file();
        let load = [&["load", "-c", &file, "--host", "house"], words].concat();
        let host = &guarded.link.left.host;
        let output = host.output(&mut Guarded::command(&load), LONG)?.success()?;
        ensure!(output.stderr.contains("not there now"), "{output}");
        let history = format!("--history={}", site.path("history").display());
        let agent = host.start(&mut Guarded::command(&["agent", &history]))?;
        listening(&agent)?;
        Ok(Self {
            guarded,
            second,
            site,
            agent,
        })
    }

    fn host(&self) -> &Host {
        &self.guarded.link.left.host
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(arguments.split_whitespace());
        self.host().output(&mut command, LONG)?.success()?;
        Ok(())
    }

    /// Makes an interface.
    fn comes(&self, name: &str) -> Result<Link> {
        let lab = Lab::new()?;
        let end = End::new(name).address("10.78.0.1/24");
        lab.connect(self.host(), &end, &lab.host("peer")?, &End::new("r0"))
    }

    fn status(&self) -> Result<Value> {
        let output = self
            .host()
            .output(&mut Guarded::command(&["status", "--json"]), LONG)?;
        Ok(serde_json::from_str(&output.success()?.stdout)?)
    }

    fn enforces(&self, name: &str) -> Result<bool> {
        let status = self.status()?;
        let mut interfaces = status["interfaces"]
            .as_array()
            .context("interfaces")?
            .iter();
        Ok(interfaces.any(|one| one["name"] == name && one["effective"]["inbound"] == "enforce"))
    }

    fn is_unguarded(&self, name: &str) -> Result<bool> {
        let status = self.status()?;
        let unguarded = status["unguarded"].as_array();
        Ok(unguarded.is_some_and(|all| all.iter().any(|one| one["name"] == name)))
    }

    fn says(&self, words: &str) -> Result<()> {
        eventually(words, || Ok(self.agent.stderr().contains(words)))
            .with_context(|| self.agent.stderr())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in [&self.second, &format!("x{}", self.second)] {
            let unload = ["unload", "--interface", name];
            let _ = self.host().output(&mut Guarded::command(&unload), LONG);
        }
    }
}

#[test]
fn an_interface_that_the_site_names_is_guarded_when_it_comes_and_after_whatever_becomes_of_it()
-> Result<()> {
    let world = World::new()?;
    let name = &world.second;
    let link = world.comes(name)?;
    eventually("it is guarded", || world.enforces(name)).with_context(|| world.agent.stderr())?;
    world.says("has come, and is guarded")?;
    // Deleted and made again: another interface of the same name.
    world.host().delete_interface(name)?;
    drop(link);
    let _link = world.comes(name)?;
    eventually("it is guarded again", || world.enforces(name))
        .with_context(|| world.agent.stderr())?;
    // Renamed: the guard goes with it.
    let other = format!("x{name}");
    world.ip(&format!("link set {name} down"))?;
    world.ip(&format!("link set {name} name {other}"))?;
    world.ip(&format!("link set {other} up"))?;
    eventually("it is guarded by its new name", || world.enforces(&other))
        .with_context(|| world.agent.stderr())?;
    // And what comes by the old name is another one, which the site names, too.
    let _another = world.comes(name)?;
    eventually("both are guarded", || {
        Ok(world.enforces(name)? && world.enforces(&other)?)
    })
    .with_context(|| world.agent.stderr())
}

#[test]
fn an_interface_that_gets_the_name_of_one_that_the_site_names_is_guarded() -> Result<()> {
    let world = World::new()?;
    let before = unique_name("nb");
    let _link = world.comes(&before)?;
    world.says("is not guarded")?;
    ensure!(world.is_unguarded(&before)?, "{}", world.status()?);
    world.ip(&format!("link set {before} down"))?;
    world.ip(&format!("link set {before} name {}", world.second))?;
    world.ip(&format!("link set {} up", world.second))?;
    eventually("it is guarded", || world.enforces(&world.second))
        .with_context(|| world.agent.stderr())?;
    ensure!(!world.is_unguarded(&world.second)?, "{}", world.status()?);
    Ok(())
}

#[test]
fn what_the_site_does_not_name_is_said_and_not_touched() -> Result<()> {
    let world = World::new()?;
    let other = unique_name("nd");
    let _link = world.comes(&other)?;
    world.says("is not guarded")?;
    ensure!(world.is_unguarded(&other)?, "{}", world.status()?);
    ensure!(!world.enforces(&other)?, "nobody asked for that");
    let output = world
        .host()
        .output(&mut Guarded::command(&["status"]), LONG)?
        .success()?;
    ensure!(
        output.stdout.contains(&format!("{other}: not guarded")),
        "{output}"
    );
    // A site that has changed since is somebody's draft.
    let file = world.site.file();
    let text = fs::read_to_string(&file)?.replace("mode = \"enforce\"", "mode = \"audit\"");
    fs::write(&file, text)?;
    let _second = world.comes(&world.second)?;
    world.says("has another policy for")?;
    ensure!(world.is_unguarded(&world.second)?, "{}", world.status()?);
    Ok(())
}

/// What nobody loaded is not put in force, whatever part of the site says it.
#[test]
fn an_edit_that_nobody_loaded_is_not_enforced() -> Result<()> {
    let world = World::loaded(&["--audit"])?;
    let own = format!("[host.interfaces.{}]", world.second);
    let file = world.site.file();
    let text = fs::read_to_string(&file)?;
    fs::write(
        &file,
        text.replace(&own, &format!("{own}\nmode = \"enforce\"")),
    )?;
    let _second = world.comes(&world.second)?;
    world.says("has another policy for it than when")?;
    ensure!(world.is_unguarded(&world.second)?, "{}", world.status()?);
    Ok(())
}

/// A policy that may give way is in force nowhere else, until it is confirmed.
#[test]
fn what_is_not_confirmed_waits() -> Result<()> {
    let world = World::loaded(&["--confirm-within", "10m"])?;
    let _second = world.comes(&world.second)?;
    world.says("is not guarded")?;
    ensure!(world.is_unguarded(&world.second)?, "{}", world.status()?);
    let confirm = ["confirm", "--interface", world.guarded.interface()];
    let host = world.host();
    host.output(&mut Guarded::command(&confirm), LONG)?
        .success()?;
    eventually("it is guarded", || world.enforces(&world.second))
        .with_context(|| world.agent.stderr())
}
