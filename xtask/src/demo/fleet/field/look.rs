//! What hosts really do, and what becomes of traffic.

#![expect(
    clippy::indexing_slicing,
    reason = "a field that an answer lacks is null, and what was looked for does not come"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Host;
use portguard_harness::traffic::{TcpEcho, connect_from, exchange_tcp};
use serde_json::Value;

use super::{Field, HOSTS, PATIENCE};

impl Field {
    /// Somebody uses a service of node-5 that no document names.
    pub(in crate::demo::fleet) fn use_undocumented(&mut self) -> Result<()> {
        let target: SocketAddr = "10.79.5.2:4711".parse()?;
        let host = self.hosts.get(4).context("node-5")?;
        let service = TcpEcho::start(host, target)?;
        self.hub.run(|| {
            let from = "10.79.5.1".parse()?;
            let mut stream = connect_from(from, target, Duration::from_secs(5)).stream()?;
            let is_answered = exchange_tcp(&mut stream, b"a job", Duration::from_secs(5))?;
            ensure!(is_answered, "in audit everything passes");
            Ok(())
        })?;
        self.service = Some(service);
        Ok(())
    }

    fn status(&self, host: &Host) -> Result<Value> {
        let mut command = Command::new(&self.program);
        command
            .args(["status", "--json"])
            .env_remove("PORTGUARD_CONFIG");
        let output = host.output(&mut command, PATIENCE)?.success()?;
        let said: Value = serde_json::from_str(&output.stdout)?;
        Ok(said["interfaces"][0].clone())
    }

    /// What each host's kernel has loaded.
    pub(in crate::demo::fleet) fn digests(&self) -> Result<Vec<String>> {
        let one = |host: &Host| Ok(self.status(host)?["digest"].to_string());
        self.hosts.iter().map(one).collect()
    }

    /// Whether somebody on the network gets an answer from a port of a host, be it that nobody listens there.
    pub(in crate::demo::fleet) fn answers(&self, node: u8, port: u16) -> Result<bool> {
        let target: SocketAddr = format!("10.79.{node}.2:{port}").parse()?;
        let from = format!("10.79.{node}.1").parse()?;
        self.hub
            .run(|| Ok(!connect_from(from, target, Duration::from_millis(500)).is_timed_out()))
    }

    pub(in crate::demo::fleet) fn must_enforce(&self, names: &[&str]) -> Result<()> {
        for name in names {
            ensure!(self.enforces(name)?, "{name} does not enforce");
        }
        Ok(())
    }

    pub(in crate::demo::fleet) fn must_not_enforce(&self, name: &str) -> Result<()> {
        ensure!(!self.enforces(name)?, "{name} enforces");
        Ok(())
    }

    fn enforces(&self, name: &str) -> Result<bool> {
        let host = HOSTS.iter().zip(&self.hosts).find(|(one, _)| **one == name);
        let (_, host) = host.context("a host")?;
        Ok(self.status(host)?["effective"]["inbound"] == "enforce")
    }
}
