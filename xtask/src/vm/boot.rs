//! One emulated machine, from power on to its end.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::fetch::Files;
use super::guest::{Guest, SOAK};
use super::kernels::Kernel;
use super::pack;
use crate::arch::Arch;
use crate::workspace::target;

/// The longest that a machine may take; many times what one needs, since a loaded host slows it down.
const LIMIT: Duration = Duration::from_mins(10);
/// A soak has three turns however short it is, each with a dozen loads.
const TURNS: Duration = Duration::from_mins(20);

/// What says to the guest which serial port its result goes to.
const RESULT: &str = "PORTGUARD_RESULT";

/// What is emulated.
struct Machine {
    emulator: &'static str,
    options: &'static [&'static str],
    /// The serial port that the kernel writes to.
    console: &'static str,
    /// The one that nothing but the guest writes to.
    result: &'static str,
}

impl Machine {
    const fn of(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => Self {
                emulator: "qemu-system-x86_64",
                options: &[
                    "-cpu",
                    "max",
                    "-device",
                    "isa-serial,chardev=result,index=1",
                ],
                console: "ttyS0",
                result: "ttyS1",
            },
            // The board has one serial port; the other is a card.
            Arch::Aarch64 => Self {
                emulator: "qemu-system-aarch64",
                options: &[
                    "-machine",
                    "virt",
                    "-cpu",
                    "cortex-a72",
                    "-device",
                    "pci-serial,chardev=result",
                ],
                console: "ttyAMA0",
                result: "ttyS0",
            },
        }
    }
}

/// What a machine left behind.
#[derive(Debug)]
pub(super) struct Booted {
    /// The release that was booted.
    pub(super) release: String,
    /// What its init process wrote.
    pub(super) result: String,
    /// The end of what the kernel wrote.
    pub(super) console: String,
    /// Whether it had to be ended.
    pub(super) overdue: bool,
}

/// Boots a kernel and waits for its end.
pub(super) fn boot(kernel: &Kernel, files: &Files, guest: &Guest) -> Result<Booted> {
    let folder = target().join("vm/run").join(&kernel.id);
    fs::create_dir_all(&folder)?;
    let (initrd, result, console) = (
        folder.join("initrd"),
        folder.join("result"),
        folder.join("console"),
    );
    fs::write(&initrd, pack::pack(files, guest)?)?;
    // A result of an earlier run must not be taken for this one's.
    fs::write(&result, "")?;
    let machine = Machine::of(kernel.arch);
    let mut command = Command::new(machine.emulator);
    // Emulation by name: where /dev/kvm can be opened but runs no stock kernel, qemu would not fall back.
    command.args(["-accel", "tcg", "-m", "768", "-smp", "2"]);
    command.args(machine.options);
    command.args(["-nographic", "-nodefaults", "-no-reboot", "-net", "none"]);
    command.args(["-serial", "stdio", "-chardev"]);
    command.arg(format!("file,id=result,path={}", result.display()));
    command.arg("-kernel").arg(&files.image);
    command.arg("-initrd").arg(&initrd);
    let soak = guest.soak.map(|seconds| format!(" {SOAK}={seconds}"));
    let soak = soak.unwrap_or_default();
    command.arg("-append");
    let Machine {
        console: terminal,
        result: port,
        ..
    } = machine;
    command.arg(format!(
        "console={terminal} panic=-1 quiet {RESULT}=/dev/{port}{soak}"
    ));
    let limit = LIMIT
        + guest.soak.map_or(Duration::ZERO, |seconds| {
            TURNS + Duration::from_secs(seconds)
        });
    let mut child = command
        .stdin(Stdio::null())
        .stdout(File::create(&console)?)
        .stderr(File::create(folder.join("qemu"))?)
        .spawn()
        .context("cannot start `qemu-system-x86_64`")?;
    let begun = Instant::now();
    let mut overdue = false;
    while child.try_wait()?.is_none() {
        if begun.elapsed() > limit {
            overdue = true;
            child.kill()?;
            child.wait()?;
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let read =
        |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let console = format!("{}{}", read(&console)?, read(&folder.join("qemu"))?);
    let lines: Vec<&str> = console.lines().collect();
    let tail = lines
        .get(lines.len().saturating_sub(15)..)
        .unwrap_or_default();
    Ok(Booted {
        release: files.release.clone(),
        result: read(&result)?,
        console: tail.join("\n"),
        overdue,
    })
}
