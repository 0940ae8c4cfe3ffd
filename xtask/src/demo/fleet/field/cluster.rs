//! The members of etcd.

#![expect(
    clippy::indexing_slicing,
    reason = "a field that an answer lacks is null, and what was looked for does not come"
)]

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Field, MEMBERS, PATIENCE};
use crate::setup;

impl Field {
    pub(super) fn start_etcd(&mut self) -> Result<()> {
        let addresses: Vec<String> = MEMBERS.iter().map(|one| format!("10.79.{one}.2")).collect();
        self.certificates.issue("server", "server", &addresses)?;
        for class in [
            "root",
            "portguard-agent",
            "portguard-controller",
            "portguard-publisher",
        ] {
            self.certificates.issue(class, class, &[])?;
        }
        let file = |name: &str| self.certificates.file(name).display().to_string();
        let peers: Vec<String> = MEMBERS
            .iter()
            .map(|one| format!("m{one}=https://10.79.{one}.2:2380"))
            .collect();
        for (number, (host, process)) in MEMBERS.iter().zip(&mut self.members) {
            let client = format!("https://10.79.{number}.2:2379");
            let peer = format!("https://10.79.{number}.2:2380");
            let data = self.directory.join(format!("etcd-{number}"));
            let mut command = Command::new(setup::servers()?);
            command.args([
                format!("--name=m{number}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                format!("--cert-file={}", file("server.pem")),
                format!("--key-file={}", file("server.key")),
                format!("--trusted-ca-file={}", file("ca.pem")),
                format!("--peer-cert-file={}", file("server.pem")),
                format!("--peer-key-file={}", file("server.key")),
                format!("--peer-trusted-ca-file={}", file("ca.pem")),
                "--client-cert-auth=true".to_owned(),
                "--peer-client-cert-auth=true".to_owned(),
                "--logger=zap".to_owned(),
                "--log-level=error".to_owned(),
            ]);
            *process = Some(host.start(&mut command)?);
        }
        Ok(())
    }

    /// Kills the member that leads, and says which it was.
    pub(in crate::demo::fleet) fn kill_leader(&mut self) -> Result<String> {
        for (number, (host, process)) in MEMBERS.iter().zip(&mut self.members) {
            let file = |name: &str| self.certificates.file(name).display().to_string();
            let mut command = Command::new(setup::servers()?.with_file_name("etcdctl"));
            command.env("ETCDCTL_API", "3").args([
                format!("--endpoints=https://10.79.{number}.2:2379"),
                format!("--cacert={}", file("ca.pem")),
                format!("--cert={}", file("root.pem")),
                format!("--key={}", file("root.key")),
                "endpoint".to_owned(),
                "status".to_owned(),
                "--write-out=json".to_owned(),
            ]);
            let output = host.output(&mut command, PATIENCE)?.success()?;
            let said: Value = serde_json::from_str(&output.stdout)?;
            let status = &said[0]["Status"];
            if status["leader"] == status["header"]["member_id"] {
                let mut process = process.take().context("it runs")?;
                process.kill();
                return Ok(format!("etcd-{}", number - 100));
            }
        }
        bail!("no member leads")
    }
}
