//! The Ansible role, run on a Debian that is booted for it: installs, audits, enforces with confirmation, turns off.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Lab};
use serde_json::{Value, json};

use super::debian::Debian;

use crate::docs::copy_tree;
use crate::shell::say;
use crate::workspace::root;

/// The longest that a play may take.
const PATIENCE: Duration = Duration::from_mins(5);

const PLAY: &str = "\
- hosts: localhost
  connection: local
  roles: [portguard]
";

const SITE: &str = r#"
schema = 1
unprinted_peers = "any"
unresolved_peers = "none"
unresolved_ports = "none"

[management]
allow = ["tcp/22"]

[systems.thoughtspot]
version = "6.0"
choices = { mail-port = "587", directory-port = "636" }

[[host]]
name = "node-1"
addresses = ["10.80.0.1"]
roles = ["thoughtspot/node"]
interfaces = { eth0 = {} }
"#;

/// Runs the role with a Debian package.
pub(super) fn package(package: &Path) -> Result<()> {
    let lab = Lab::new()?;
    let (node, other) = (lab.host("node")?, lab.host("other")?);
    let near = End::new("eth0").address("10.80.0.1/24");
    lab.connect(
        &node,
        &near,
        &other,
        &End::new("far0").address("10.80.0.2/24"),
    )?;
    let debian = Debian::boot(&node)?;
    copy_tree(
        &root().join("packaging/ansible/roles"),
        &debian.directory.join("roles"),
    )?;
    fs::copy(package, debian.directory.join("portguard.deb"))?;
    fs::write(debian.directory.join("play.yml"), PLAY)?;
    fs::write(debian.directory.join("site.toml"), SITE)?;

    ensure!(play(&debian, "audit")? > 0, "nothing was changed");
    ensure!(mode(&debian)? == Some("audit".to_owned()), "no audit");
    debian.sh("systemctl is-active portguard-agent.service")?;
    debian.sh("systemctl is-enabled portguard@eth0.service")?;
    let again = play(&debian, "audit")?;
    ensure!(again == 0, "the second run changed {again}");
    play(&debian, "enforce")?;
    ensure!(mode(&debian)? == Some("enforce".to_owned()), "no enforce");
    let again = play(&debian, "enforce")?;
    ensure!(again == 0, "the second run in enforce changed {again}");
    play(&debian, "off")?;
    ensure!(mode(&debian)?.is_none(), "still guarded");
    debian.sh("! systemctl is-enabled portguard@eth0.service")?;
    let again = play(&debian, "off")?;
    ensure!(again == 0, "the second run of off changed {again}");
    say(
        "packaging/ansible: installed, audited, enforced and turned off a host; nothing changes twice",
    );
    Ok(())
}

/// Runs the role in a mode, and says how much it changed.
fn play(debian: &Debian, mode: &str) -> Result<u64> {
    let variables = json!({
        "portguard_package": "/mnt/portguard.deb",
        "portguard_site": "/mnt/site.toml",
        "portguard_interfaces": ["eth0"],
        "portguard_mode": mode,
    });
    let line = format!(
        "cd /mnt && ANSIBLE_ROLES_PATH=/mnt/roles \
         ansible-playbook --inventory localhost, --extra-vars '{variables}' play.yml"
    );
    let output = debian.output(&line, PATIENCE)?.success();
    let output = output.with_context(|| format!("the role in mode {mode}"))?;
    let words = output.stdout.split_whitespace();
    let changed = words
        .filter_map(|word| word.strip_prefix("changed="))
        .next_back();
    let changed = changed.with_context(|| format!("no recapitulation: {output}"))?;
    Ok(changed.parse()?)
}

/// What is in force.
fn mode(debian: &Debian) -> Result<Option<String>> {
    let status: Value = serde_json::from_str(&debian.sh("portguard status --json")?)?;
    let mode = status.pointer("/interfaces/0/effective/inbound");
    Ok(mode.and_then(Value::as_str).map(str::to_owned))
}
