//! A package in a new user's hands: install, audit, enforce, upgrade under traffic, remove, purge; in a Debian that is booted for it.
#![expect(
    clippy::indexing_slicing,
    reason = "of JSON values only, where a missing key is null"
)]

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Lab};
use portguard_harness::traffic::{TcpEcho, UdpEcho};
use serde_json::Value;

use super::Format;
use super::debian::Debian;
use crate::shell::say;

const ADDRESS: &str = "10.80.0.1";
/// A row of the site's own.
const OPEN: u16 = 7000;
/// Nobody documents it, and somebody listens.
const CLOSED: u16 = 7009;
/// What a ThoughtSpot node listens on, among others.
const SERVICES: [u16; 5] = [2100, 2101, 2200, 2201, 12345];
/// Between two datagrams.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the last datagram may take.
const ARRIVAL: Duration = Duration::from_secs(5);

/// What an administrator adds to the file that `setup` wrote.
const ADDED: &str = r#"
[[row]]
name = "beacon"
direction = "in"
transport = "udp"
ports = [7000]
peers = "any"
reason = "tried by the test"
"#;

/// Makes it a host of a fleet that has published nothing yet. The key is an example.
const FLEET: &str = "cd /root && rm -rf /srv/fleet && \
    portguard fleet init town --store file:/srv/fleet --key RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3 && \
    portguard fleet enroll node && \
    mkdir -p /etc/portguard/fleet /etc/systemd/system/portguard-agent.service.d && \
    cp enrolled/node/identity.json /etc/portguard/fleet && \
    echo PORTGUARD_STORE=file:/srv/fleet >/etc/portguard/agent.conf && \
    printf '[Service]\\nReadWritePaths=/srv/fleet\\n' >/etc/systemd/system/portguard-agent.service.d/store.conf && \
    systemctl daemon-reload && systemctl enable --now portguard-agent.service";

/// Walks through a package and a newer one of the same kind.
pub(super) fn package(format: Format, package: &Path, newer: &Path) -> Result<()> {
    let lab = Lab::new()?;
    let (node, stranger) = (lab.host("node")?, lab.host("stranger")?);
    let near = End::new("eth0").address(&format!("{ADDRESS}/24"));
    let far = End::new("far0").address("10.80.0.2/24");
    lab.connect(&node, &near, &stranger, &far)?;
    let any = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
    let services: Result<Vec<TcpEcho>> = SERVICES
        .iter()
        .map(|port| TcpEcho::start(&node, any(*port)))
        .collect();
    let _services = services?;
    let walk = Walk {
        format,
        debian: Debian::boot(&node)?,
        open: UdpEcho::start(&node, any(OPEN))?,
        closed: UdpEcho::start(&node, any(CLOSED))?,
        stranger,
    };
    for (from, name) in [(package, "first"), (newer, "newer")] {
        fs::copy(from, walk.debian.directory.join(walk.file(name)))?;
    }
    walk.install()?;
    walk.audit()?;
    walk.enforce()?;
    walk.upgrade()?;
    walk.remove()?;
    walk.purge()
}

struct Walk {
    format: Format,
    debian: Debian,
    open: UdpEcho,
    closed: UdpEcho,
    stranger: Host,
}

impl Walk {
    fn file(&self, name: &str) -> String {
        match self.format {
            Format::Deb => format!("{name}.deb"),
            Format::Rpm => format!("{name}.rpm"),
        }
    }

    /// Installs by the distribution's own means; over an older version, too.
    fn put(&self, name: &str) -> Result<()> {
        let file = self.file(name);
        self.debian.sh(&match self.format {
            Format::Deb => format!("apt-get install --yes /mnt/{file}"),
            // Debian's rpm knows none of Debian's packages.
            Format::Rpm => format!("rpm --upgrade --nodeps /mnt/{file}"),
        })?;
        Ok(())
    }

    fn install(&self) -> Result<()> {
        let begun = Instant::now();
        self.put("first")?;
        let took = begun.elapsed().as_secs_f64();
        say(format_args!("installed in {took:.1} s"));
        ensure!(
            !self.debian.has("/sys/fs/bpf/portguard")?,
            "a guard already"
        );
        for page in ["8 portguard", "5 portguard-site", "8 portguard-load"] {
            self.debian.sh(&format!("man {page} >/dev/null"))?;
        }
        self.debian.sh(
            "bash -c '. /usr/share/bash-completion/bash_completion; . /usr/share/bash-completion/completions/portguard; \
             complete -p portguard'",
        )?;
        self.debian
            .sh("systemd-analyze verify portguard@eth0.service portguard-agent.service")?;
        Ok(())
    }

    fn audit(&self) -> Result<()> {
        self.debian
            .sh("portguard setup --yes --admins 10.9.0.0/28")?;
        let status = self.status()?;
        ensure!(status["mode"] == "audit", "{status}");
        let roles = &status["roles"];
        ensure!(roles.to_string().contains("thoughtspot/node"), "{status}");
        self.debian
            .sh("systemctl is-enabled portguard@eth0.service portguard-agent.service")?;
        self.debian
            .sh("systemctl is-active portguard-agent.service")?;
        let traffic = Traffic::start(&self.stranger);
        let sent = traffic.stop(Duration::from_millis(200))?;
        let arrived = settled(|| self.closed.received(), sent);
        ensure!(
            arrived == sent,
            "audit dropped {} of {sent}",
            sent - arrived
        );
        Ok(())
    }

    fn enforce(&self) -> Result<()> {
        fs::write(self.debian.directory.join("added"), ADDED)?;
        // As `check` asks for: who the document's peers are.
        self.debian.sh(
            "sed -i 's/^# admin-addresses = .*/admin-addresses = [\"admins\"]/; s/^# support = .*/support = \"none\"/; \
             s/^# unresolved_peers = \"refuse\"/unresolved_peers = \"none\"/' /etc/portguard/site.toml && \
             cat /mnt/added >>/etc/portguard/site.toml && portguard check --enforce",
        )?;
        self.debian
            .sh("portguard load --enforce --confirm-within 2m && portguard confirm")?;
        let status = self.status()?;
        ensure!(status["effective"]["inbound"] == "enforce", "{status}");
        Ok(())
    }

    /// The guard stays what it is, misses no packet and forgets none.
    fn upgrade(&self) -> Result<()> {
        let before = (
            self.status()?,
            self.counted()?,
            self.open.received(),
            self.closed.received(),
        );
        let agent = "systemctl show --property MainPID --value portguard-agent.service";
        let older = self.debian.sh(agent)?;
        let traffic = Traffic::start(&self.stranger);
        self.put("newer")?;
        let sent = traffic.stop(Duration::ZERO)?;
        let status = self.status()?;
        for same in ["generation", "digest", "programs", "loaded_at", "since"] {
            ensure!(
                status[same] == before.0[same],
                "{same}: {} and {status}",
                before.0
            );
        }
        let open = settled(|| self.open.received() - before.2, sent);
        ensure!(open == sent, "the upgrade lost {} of {sent}", sent - open);
        let closed = self.closed.received() - before.3;
        ensure!(
            closed == 0,
            "{closed} of {sent} came through during the upgrade"
        );
        let counted = self.counted()?;
        let counted = (counted.0 - before.1.0, counted.1 - before.1.1);
        let both = (u64::try_from(sent)?, u64::try_from(sent)?);
        ensure!(counted == both, "sent {both:?}, counted {counted:?}");
        ensure!(
            self.debian.sh(agent)? != older,
            "the agent is still the older one"
        );
        self.debian
            .sh("systemctl is-active portguard-agent.service")?;
        let site = self.debian.sh("cat /etc/portguard/site.toml")?;
        ensure!(
            site.contains(ADDED),
            "the upgrade changed the site file: {site}"
        );
        say(format_args!(
            "upgraded under traffic: {sent} datagrams to each port, none lost, none let through, all counted"
        ));
        Ok(())
    }

    /// Nothing of ours is in force, and nothing waits for it.
    fn remove(&self) -> Result<()> {
        self.debian
            .sh("PORTGUARD_ANY=1 portguard-fail-closed eth0")?;
        let said = self.take(match self.format {
            Format::Deb => "apt-get remove --yes portguard",
            Format::Rpm => "rpm --erase portguard",
        })?;
        ensure!(!said.contains("fleet"), "{said}");
        for gone in [
            "/usr/bin/portguard",
            "/sys/fs/bpf/portguard",
            "/etc/systemd/system/systemd-networkd.service.d",
            "/etc/systemd/system/multi-user.target.wants/portguard-agent.service",
            "/etc/systemd/system/sys-subsystem-net-devices-eth0.device.wants/portguard@eth0.service",
        ] {
            ensure!(!self.debian.has(gone)?, "the removal left {gone}");
        }
        let site = self.debian.sh("cat /etc/portguard/site.toml*")?;
        ensure!(
            site.contains(ADDED),
            "the removal took the site file: {site}"
        );
        let links = self.debian.sh("ip link show dev eth0")?;
        ensure!(!links.contains("xdp"), "{links}");
        let before = self.closed.received();
        let traffic = Traffic::start(&self.stranger);
        let sent = traffic.stop(Duration::from_millis(200))?;
        let arrived = settled(|| self.closed.received() - before, sent);
        ensure!(
            arrived == sent,
            "something still drops: {arrived} of {sent} arrived"
        );
        self.debian
            .sh("! systemctl is-active portguard-agent.service")?;
        Ok(())
    }

    /// Removes by a line of shell, and gives what was said: nothing that is not so any more once it is done.
    fn take(&self, line: &str) -> Result<String> {
        let said = self.debian.sh(&format!("{line} 2>&1"))?;
        ensure!(said.contains("eth0: no longer guarded"), "{said}");
        for untrue in ["guards it again", "stay enabled", "stay so", "stay-off"] {
            ensure!(!said.contains(untrue), "`{untrue}`: {said}");
        }
        Ok(said)
    }

    fn purge(&self) -> Result<()> {
        // Installed again it guards nothing by itself.
        self.put("newer")?;
        ensure!(
            !self.debian.has("/sys/fs/bpf/portguard/eth0")?,
            "a guard came back"
        );
        self.debian.sh(FLEET)?;
        // As long as the agent runs, that is what happens.
        let said = self
            .debian
            .sh("portguard load --last-good --interface eth0 && portguard unload 2>&1")?;
        ensure!(said.contains("the fleet's agent guards it again"), "{said}");
        self.debian
            .sh("portguard load --last-good --interface eth0")?;
        let said = self.take(match self.format {
            Format::Deb => "apt-get purge --yes portguard",
            Format::Rpm => "rpm --erase portguard",
        })?;
        ensure!(said.contains("this host was of a fleet"), "{said}");
        if self.format == Format::Deb {
            for gone in ["/etc/portguard", "/var/lib/portguard"] {
                ensure!(!self.debian.has(gone)?, "the purge left {gone}: {said}");
            }
        }
        Ok(())
    }

    fn json(&self, line: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.debian.sh(line)?)?)
    }

    fn status(&self) -> Result<Value> {
        let status = self.json("portguard status --json")?;
        let eth0 = status["interfaces"].get(0).cloned();
        eth0.with_context(|| format!("no interface is guarded: {status}"))
    }

    /// What was counted at the open port, and at the closed one.
    fn counted(&self) -> Result<(u64, u64)> {
        let counters = self.json("portguard counters --json --interface eth0")?;
        let ports = counters["interfaces"][0]["ports"].as_array().cloned();
        let at = |port: u16| {
            ports.iter().flatten().find(|one| {
                one["direction"] == "in" && one["transport"] == "udp" && one["port"] == port
            })
        };
        let packets = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or_default();
        Ok((
            packets(at(OPEN).map(|one| &one["passed"]["packets"])),
            packets(at(CLOSED).map(|one| &one["violations"]["packets"])),
        ))
    }
}

/// Waits for the last of those that were sent.
fn settled(count: impl Fn() -> usize, sent: usize) -> usize {
    let begun = Instant::now();
    while count() < sent && begun.elapsed() < ARRIVAL {
        std::thread::sleep(PAUSE);
    }
    count()
}

/// Datagrams to both ports, by turns, until stopped.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Traffic {
    fn start(from: &Host) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = from.background(move || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let mut sent = 0;
            while !until.load(Ordering::Relaxed) {
                for port in [OPEN, CLOSED] {
                    socket.send_to(b"is anybody there", (ADDRESS, port))?;
                }
                sent += 1;
                std::thread::sleep(PAUSE);
            }
            Ok(sent)
        });
        Self { stop, thread }
    }

    /// Stops it after some more time, and says how many were sent to each port.
    fn stop(self, after: Duration) -> Result<usize> {
        std::thread::sleep(after);
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(sent) => sent,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
