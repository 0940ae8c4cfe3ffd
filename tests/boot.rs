//! Guarded from the first moment that there is an address: systemd, udevd and networkd boot in a namespace of their own, while
//! a stranger sends to an undocumented port without a pause.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{End, Host, Lab, Link, Process, unique_name};

use crate::guard::{Guarded, LONG, eventually};

const OPEN: u16 = 7000;
const CLOSED: u16 = 7009;
/// How long the stranger goes on once the host is reached.
const LONGER: Duration = Duration::from_secs(2);

/// Where the address is, and what the managers make.
const CARD: &str = "eth0";
const BRIDGE: &str = "br0";

struct Boot {
    link: Link,
    directory: PathBuf,
    process: Option<Process>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Boot {
    /// A host that is off: with a policy stored for the interface that will have the address.
    fn prepare(address_on: &str) -> Result<Self> {
        let lab = Lab::new()?;
        let (host, peer) = (lab.host("booted")?, lab.host("stranger")?);
        let far = End::new("r0").address("10.80.0.2/24");
        let link = lab.connect(&host, &End::new(CARD), &peer, &far)?;
        let directory = std::env::temp_dir().join(unique_name("pgb"));
        let boot = Self {
            link,
            directory,
            process: None,
        };
        for name in [
            "usr/bin",
            "usr/lib/systemd/system",
            "etc/systemd/system",
            "etc/systemd/network",
            "state",
        ] {
            std::fs::create_dir_all(boot.directory.join(name))?;
        }
        std::fs::copy(
            env!("CARGO_BIN_EXE_portguard"),
            boot.directory.join("usr/bin/portguard"),
        )?;
        for (from, to) in [
            (
                "packaging/systemd/portguard@.service",
                "usr/lib/systemd/system/portguard@.service",
            ),
            (
                "packaging/udev/81-portguard.rules",
                "etc/udev/rules.d/81-portguard.rules",
            ),
            (
                "packaging/portguard-fail-closed",
                "usr/bin/portguard-fail-closed",
            ),
        ] {
            let to = boot.directory.join(to);
            std::fs::create_dir_all(to.parent().context("a directory")?)?;
            std::fs::copy(repository().join(from), to)?;
        }
        boot.write("etc/systemd/system/boot.target", "[Unit]\nDefaultDependencies=no\nWants=systemd-udevd.service devices.service systemd-networkd.service report.service\n")?;
        boot.write("etc/systemd/system/devices.service", "[Unit]\nDefaultDependencies=no\nAfter=systemd-udevd.service\n[Service]\nType=oneshot\nExecStart=/usr/bin/udevadm trigger --action=add --subsystem-match=net\n")?;
        boot.write("etc/systemd/system/report.service", "[Unit]\nDefaultDependencies=no\nAfter=systemd-networkd.service\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'systemctl show -p Id -p ActiveState -p Result systemd-networkd.service portguard@eth0.service portguard@br0.service >/result/next && mv /result/next /result/units'\n")?;
        let network = |on: &str| {
            format!("[Match]\nName={on}\n[Network]\nAddress=10.80.0.1/24\nLinkLocalAddressing=no\n")
        };
        boot.write("etc/systemd/network/20.network", &network(address_on))?;
        if address_on == BRIDGE {
            boot.write(
                "etc/systemd/network/10.netdev",
                "[NetDev]\nName=br0\nKind=bridge\n",
            )?;
            boot.write(
                "etc/systemd/network/10.network",
                "[Match]\nName=eth0\n[Network]\nBridge=br0\n",
            )?;
        }
        Ok(boot)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Stores a policy for an interface, as a load before the boot would have.
    fn store(&self, interface: &str) -> Result<()> {
        let guarded = Guarded::new()?;
        let args = guarded.load_args("--enforce", &[OPEN], &["--xdp-mode", "generic"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        command.env("STATE_DIRECTORY", self.directory.join("state"));
        guarded
            .link
            .left
            .host
            .output(&mut command, LONG)?
            .success()?;
        let name = guarded.interface();
        let stored = |name: &str| self.directory.join(format!("state/{name}.policy.json"));
        let text = std::fs::read_to_string(stored(name))?.replace(name, interface);
        std::fs::remove_file(stored(name))?;
        std::fs::write(stored(interface), text)?;
        Ok(())
    }

    /// What `systemctl enable portguard@INTERFACE` does.
    fn enable(&self, interface: &str) -> Result<()> {
        let wants =
            format!("etc/systemd/system/sys-subsystem-net-devices-{interface}.device.wants");
        let wants = self.directory.join(wants);
        std::fs::create_dir_all(&wants)?;
        let unit = "/usr/lib/systemd/system/portguard@.service";
        symlink(unit, wants.join(format!("portguard@{interface}.service")))?;
        Ok(())
    }

    /// Has every manager of networks need the guard of the card.
    fn fail_closed(&self) -> Result<()> {
        let bin = self.directory.join("bin");
        std::fs::create_dir_all(&bin)?;
        // Nobody's units are enabled but those of the test.
        symlink("/bin/true", bin.join("systemctl"))?;
        let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
        let output = Command::new(repository().join("packaging/portguard-fail-closed"))
            .arg(CARD)
            .env("PATH", path)
            .env("PORTGUARD_UNITS", self.directory.join("etc/systemd/system"))
            .env("PORTGUARD_ANY", "1")
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        for manager in ["systemd-networkd", "NetworkManager", "networking", "ifup@"] {
            let path =
                format!("etc/systemd/system/{manager}.service.d/50-portguard-fail-closed.conf");
            let text = std::fs::read_to_string(self.directory.join(path))?;
            for wanted in [
                "Requires=portguard@eth0.service",
                "After=portguard@eth0.service",
            ] {
                ensure!(text.lines().any(|line| line == wanted), "{manager}: {text}");
            }
        }
        self.enable(CARD)
    }

    fn start(&mut self) -> Result<()> {
        let udev = repository().join("target/udev");
        ensure!(
            udev.exists(),
            "no udev to boot with: `cargo xtask setup` fetches it"
        );
        let mut script = Command::new(repository().join("tests/boot/boot.sh"));
        script.arg(&self.directory).arg(udev);
        self.process = Some(self.link.left.host.start(&mut script)?);
        Ok(())
    }

    fn said(&self) -> String {
        self.process
            .as_ref()
            .map(Process::stderr)
            .unwrap_or_default()
    }

    /// What systemd says of its units once the managers have started or failed.
    fn units(&self) -> Result<String> {
        let path = self.directory.join("result/units");
        eventually("systemd told of its units", || Ok(path.exists()))
            .with_context(|| self.said())?;
        Ok(std::fs::read_to_string(path)?)
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // Ends process 1 inside, and with it everything.
        drop(self.process.take());
        let _ = std::fs::remove_dir_all(&self.directory);
        if let Some(name) = self.directory.file_name() {
            for groups in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
                let _ = std::fs::remove_dir(Path::new(groups).join(name));
            }
        }
    }
}

/// Counts what arrives at a port of a host, and sends to it from another one, until dropped.
struct Stranger {
    arrived: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Stranger {
    fn start(host: &Host, stranger: &Host, port: u16) -> Self {
        let arrived = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let listener = {
            let (arrived, stop) = (Arc::clone(&arrived), Arc::clone(&stop));
            host.background(move || {
                let socket = UdpSocket::bind(("0.0.0.0", port))?;
                socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                while !stop.load(Ordering::Relaxed) {
                    if socket.recv(&mut [0; 64]).is_ok() {
                        arrived.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            })
        };
        let sender = {
            let stop = Arc::clone(&stop);
            stranger.background(move || {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                let target: SocketAddr = ([10, 80, 0, 1], port).into();
                while !stop.load(Ordering::Relaxed) {
                    // Nobody may be there yet.
                    let _ = socket.send_to(b"stranger", target);
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            })
        };
        Self {
            arrived,
            stop,
            threads: vec![listener, sender],
        }
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::Relaxed)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Boots, and says how many datagrams reached the undocumented port until well after the documented one was reached.
fn reached(boot: &mut Boot) -> Result<usize> {
    let (host, peer) = (boot.link.left.host.clone(), boot.link.right.host.clone());
    let closed = Stranger::start(&host, &peer, CLOSED);
    let open = Stranger::start(&host, &peer, OPEN);
    boot.start()?;
    eventually("the host has its address", || Ok(open.arrived() > 0))
        .with_context(|| boot.said())?;
    let begun = Instant::now();
    while begun.elapsed() < LONGER {
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(closed.arrived())
}

#[test]
fn without_a_unit_the_stranger_is_heard() -> Result<()> {
    let mut boot = Boot::prepare(CARD)?;
    boot.store(CARD)?;
    ensure!(reached(&mut boot)? > 0, "this test would see nothing");
    Ok(())
}

#[test]
fn a_card_is_guarded_before_it_has_an_address() -> Result<()> {
    let mut boot = Boot::prepare(CARD)?;
    boot.store(CARD)?;
    boot.enable(CARD)?;
    ensure!(reached(&mut boot)? == 0, "{}", boot.said());
    Ok(())
}

#[test]
fn a_bridge_that_the_network_manager_makes_is_guarded_before_it_has_an_address() -> Result<()> {
    let mut boot = Boot::prepare(BRIDGE)?;
    boot.store(BRIDGE)?;
    boot.enable(BRIDGE)?;
    ensure!(reached(&mut boot)? == 0, "{}", boot.said());
    Ok(())
}

#[test]
fn fail_closed_means_that_the_network_manager_does_not_start() -> Result<()> {
    let mut boot = Boot::prepare(CARD)?;
    boot.fail_closed()?;
    boot.start()?;
    let units = boot.units()?;
    let state = |unit: &str| {
        let of = units.split("\n\n").find(|one| one.contains(unit));
        of.unwrap_or_default().to_owned()
    };
    let guard = state("portguard@eth0.service");
    ensure!(
        guard.contains("ActiveState=failed"),
        "{units}\n{}",
        boot.said()
    );
    let manager = state("systemd-networkd.service");
    ensure!(
        !manager.contains("ActiveState=active"),
        "{units}\n{}",
        boot.said()
    );
    Ok(())
}

#[test]
fn fail_closed_with_a_policy_comes_up_guarded() -> Result<()> {
    let mut boot = Boot::prepare(CARD)?;
    boot.store(CARD)?;
    boot.fail_closed()?;
    ensure!(reached(&mut boot)? == 0, "{}", boot.said());
    ensure!(
        boot.units()?.contains("ActiveState=active"),
        "{}",
        boot.said()
    );
    Ok(())
}

/// Who asks for help, or mistypes, loses no network at the next boot.
#[test]
fn what_would_take_the_network_away_is_refused_before_anything_is_written() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (bin, units, state) = (
        directory.path().join("bin"),
        directory.path().join("units"),
        directory.path().join("state"),
    );
    for folder in [&bin, &units, &state] {
        std::fs::create_dir(folder)?;
    }
    // Whatever it would enable.
    std::fs::write(
        bin.join("systemctl"),
        "#!/bin/sh\necho \"$@\" >>\"$PORTGUARD_UNITS/enabled\"\n",
    )?;
    std::fs::set_permissions(
        bin.join("systemctl"),
        std::fs::Permissions::from_mode(0o755),
    )?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let run = |arguments: &[&str]| {
        Command::new(repository().join("packaging/portguard-fail-closed"))
            .args(arguments)
            .env("PATH", &path)
            .env("PORTGUARD_UNITS", &units)
            .env("PORTGUARD_STATE", &state)
            .output()
    };
    let is_untouched = || Ok::<_, anyhow::Error>(std::fs::read_dir(&units)?.next().is_none());
    for help in ["-h", "--help"] {
        let output = run(&[help])?;
        ensure!(output.status.success() && is_untouched()?, "{output:?}");
        ensure!(
            String::from_utf8_lossy(&output.stdout).contains("--remove"),
            "{output:?}"
        );
    }
    let guarded = Guarded::new()?;
    // A pair of virtual ends is no card.
    let virtual_end = guarded.interface();
    for wrong in [
        &["--hlep"][..],
        &["--version"],
        &["-i", "lo"],
        &["none0"],
        &["lo", "--remove"],
        &["--remove", "lo"],
        &["lo"],
        &[""],
        &[virtual_end],
        &[],
    ] {
        let output = guarded.link.left.host.run(|| Ok(run(wrong)?))?;
        ensure!(output.status.code() == Some(2), "{wrong:?}: {output:?}");
        ensure!(is_untouched()?, "{wrong:?}: {output:?}");
    }
    Ok(())
}
