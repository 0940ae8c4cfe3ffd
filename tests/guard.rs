//! A guarded host on a private link, for the tests of loading and living.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{Lab, Link, Output, Process};
use portguard_harness::traffic::{PacketSocket, exchange_udp, udp_socket};
use portguard_kernel::pins::bpffs::Layout;
use serde_json::Value;

/// The longest that a command may take, on a busy machine.
pub(crate) const LONG: Duration = Duration::from_mins(1);
/// How long an answer may take that is expected.
pub(crate) const SOON: Duration = Duration::from_millis(1500);
/// How long to wait for an answer that is not expected.
pub(crate) const SHORT: Duration = Duration::from_millis(120);

/// A host (left) to be guarded, and a peer (right). Whatever is loaded is unloaded in the end.
pub(crate) struct Guarded {
    pub(crate) link: Link,
}

impl Guarded {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            link: Lab::new()?.pair()?,
        })
    }

    pub(crate) fn interface(&self) -> &str {
        &self.link.left.name
    }

    /// `portguard` with these arguments.
    pub(crate) fn command(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
        command.args(args);
        // What the developer's own session has must not matter.
        for name in ["SSH_CONNECTION", "PORTGUARD_CONFIG", "PORTGUARD_FAULT"] {
            command.env_remove(name);
        }
        command
    }

    /// Arguments that load a policy of these UDP ports and no others.
    pub(crate) fn load_args<'a>(
        &'a self,
        mode: &'a str,
        ports: &[u16],
        more: &[&'a str],
    ) -> Vec<String> {
        let mut args: Vec<String> = [
            "load",
            "--role",
            "thoughtspot/node",
            "--interface",
            self.interface(),
            mode,
            "--unprinted-peers",
            "192.0.2.0/24",
            "--unresolved-peers",
            "none",
        ]
        .map(str::to_owned)
        .to_vec();
        for port in ports {
            args.push("--management".to_owned());
            args.push(format!("udp/{port}"));
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    pub(crate) fn run(&self, args: &[String], fault: Option<&str>) -> Result<Output> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Self::command(&args);
        if let Some(fault) = fault {
            command.env("PORTGUARD_FAULT", fault);
        }
        self.link.left.host.output(&mut command, LONG)
    }

    pub(crate) fn start(&self, args: &[String], fault: Option<&str>) -> Result<Process> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Self::command(&args);
        if let Some(fault) = fault {
            command.env("PORTGUARD_FAULT", fault);
        }
        self.link.left.host.start(&mut command)
    }

    pub(crate) fn load(&self, mode: &str, ports: &[u16], more: &[&str]) -> Result<Output> {
        self.run(&self.load_args(mode, ports, more), None)?
            .success()
    }

    pub(crate) fn unload(&self) -> Result<Output> {
        self.run(
            &[
                "unload".to_owned(),
                "--interface".to_owned(),
                self.interface().to_owned(),
            ],
            None,
        )
    }

    /// The status of the interface; `None` if it is not guarded.
    pub(crate) fn status(&self) -> Result<Option<Value>> {
        let output = self
            .run(&["status".to_owned(), "--json".to_owned()], None)?
            .success()?;
        let status: Value = serde_json::from_str(&output.stdout)?;
        let all = status
            .get("interfaces")
            .and_then(Value::as_array)
            .context("no interfaces")?;
        Ok(all
            .iter()
            .find(|one| one["name"] == self.interface())
            .cloned())
    }

    /// What the guard in force says of a datagram of the peer's to this port.
    pub(crate) fn explain(&self, port: u16) -> Result<Output> {
        let (peer, port) = (self.link.right.v4().to_string(), port.to_string());
        let args = [
            "explain",
            "--running",
            self.interface(),
            "--in",
            "udp",
            &peer,
            &port,
        ];
        self.run(&args.map(str::to_owned), None)
    }

    /// The directory of the guard's pins.
    pub(crate) fn pins(&self) -> Result<PathBuf> {
        let name = self.interface();
        self.link.left.host.run(|| Ok(Layout::of(name).directory))
    }

    /// Names below the directory of pins, without those of shared maps.
    pub(crate) fn pinned(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let Ok(entries) = std::fs::read_dir(self.pins()?) else {
            return Ok(names);
        };
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Frames that the guarded interface took, whatever became of them.
    pub(crate) fn received(&self) -> Result<u64> {
        let text = self
            .link
            .left
            .host
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
        let line = lines.find(|(name, _)| *name == self.interface());
        let (_, numbers) = line.context("the interface")?;
        let packets = numbers.split_whitespace().nth(1).context("packets")?;
        Ok(packets.parse()?)
    }

    /// Sends a frame from the peer so many times: see [`Self::receive_all`].
    pub(crate) fn receive(&self, socket: &PacketSocket, frame: &[u8], count: u64) -> Result<()> {
        self.receive_all(socket, (0..count).map(|_| frame))
    }

    /// Sends frames from the peer in bursts that the queue of the link holds, and sees each taken from it.
    pub(crate) fn receive_all<F: AsRef<[u8]>>(
        &self,
        socket: &PacketSocket,
        frames: impl IntoIterator<Item = F>,
    ) -> Result<()> {
        const BURST: usize = 64;
        let mut wanted = self.received()?;
        let mut frames = frames.into_iter().peekable();
        while frames.peek().is_some() {
            for frame in frames.by_ref().take(BURST) {
                socket.send(frame.as_ref())?;
                wanted += 1;
            }
            eventually("the frames arrived", || Ok(self.received()? >= wanted))?;
        }
        Ok(())
    }

    /// Whether a datagram from the peer reaches a socket of the host on this port, and an answer comes back.
    pub(crate) fn reaches(&self, port: u16, timeout: Duration) -> Result<bool> {
        let target = SocketAddr::new(IpAddr::V4(self.link.left.v4()), port);
        self.link
            .right
            .host
            .run(|| exchange_udp(target, b"portguard", timeout))
    }

    /// Which of these ports are open to the peer. The host needs a listener on each.
    pub(crate) fn open(&self, ports: &[u16]) -> Result<Vec<u16>> {
        let mut open = Vec::new();
        for port in ports {
            if self.reaches(*port, SHORT)? {
                open.push(*port);
            }
        }
        Ok(open)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Whatever the test loaded; there may be nothing.
        let _ = self.unload();
    }
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LONG;
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A socket that only receives.
pub(crate) fn listen(guarded: &Guarded, port: u16) -> Result<std::net::UdpSocket> {
    let address = SocketAddr::new(IpAddr::V4(guarded.link.left.v4()), port);
    guarded.link.left.host.run(|| udp_socket(address))
}
