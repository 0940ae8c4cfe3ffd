//! Two network namespaces, a veth pair, and a flood from one to the other.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{Xdp, XdpMode};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use portguard_harness::net::{End, Lab, Link, Output, unique_name};

use super::traffic::{Generator, Traffic};
use crate::measure::stay_on;
use crate::programs::Program;

/// CPU of the generator.
const SENDER: usize = 0;
/// CPU of the receiver, where there is more than one.
const RECEIVER: usize = 1;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pair: the left end is guarded, the right end floods.
pub(crate) struct Stage {
    pub(super) link: Link,
    /// The threads that poll the guarded interface, one a queue.
    pollers: Vec<Pid>,
    /// As long as the stage stands.
    awake: Option<Awake>,
}

/// Keeps a CPU from sleeping when it has nothing to do: to wake it takes longer than to judge a packet. Whatever else wants
/// the CPU has it at once.
struct Awake(Child);

impl Awake {
    fn keep(cpu: usize) -> Result<Self> {
        let spin = ["sh", "-c", "while :; do :; done"];
        let child = Command::new("chrt")
            .args(["--idle", "0", "taskset", "--cpu-list", &cpu.to_string()])
            .args(spin)
            .spawn()
            .context("`chrt` and `taskset` of util-linux are needed to keep a CPU awake")?;
        Ok(Self(child))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a flood came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    /// Packets that were received.
    pub(crate) packets: u64,
    /// CPU time of the polling threads, nanoseconds.
    pub(crate) spent: u64,
    /// How long it took.
    pub(crate) took: Duration,
}

/// A program on the XDP hook of the guarded interface, until it is dropped.
pub(crate) struct Attached<'a> {
    program: &'a mut Xdp,
    link: Option<XdpLinkId>,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            // The namespace goes away with the run in any case.
            let _ = self.program.detach(link);
        }
    }
}

impl Stage {
    pub(crate) fn new() -> Result<Self> {
        let receiver = RECEIVER.min(cpus() - 1);
        let mut stage = Self::with_queues(&[receiver])?;
        if receiver != SENDER {
            stage.awake = Some(Awake::keep(receiver)?);
        }
        Ok(stage)
    }

    /// Whether what a stage takes is there: before anything is measured.
    pub(crate) fn check() -> Result<()> {
        for (program, argument) in [("ethtool", "--version"), ("chrt", "--version")] {
            let said = Command::new(program).arg(argument).output();
            ensure!(
                said.is_ok_and(|said| said.status.success()),
                "`{program}` is needed for the live measurements: install it, or leave them out by `--only`"
            );
        }
        Ok(())
    }

    /// One receive queue for each of these CPUs, whose thread stays there.
    pub(crate) fn with_queues(cpus: &[usize]) -> Result<Self> {
        let lab = Lab::new()?;
        let queues = u32::try_from(cpus.len())?;
        let end = |prefix: &str, address: &str| {
            End::new(&unique_name(prefix))
                .queues(queues)
                .address(address)
        };
        let link = lab.connect(
            &lab.host("left")?,
            &end("pgl", "10.77.0.1/24"),
            &lab.host("right")?,
            &end("pgr", "10.77.0.2/24"),
        )?;
        let name = &link.left.name;
        // Frames that no XDP program takes are still polled by the veth itself, as a card's driver would.
        let mut gro = Command::new("ethtool");
        link.left
            .host
            .output(gro.args(["-K", name, "gro", "on"]), PATIENCE)
            .and_then(Output::success)?;
        link.left.host.run(|| threaded(name))?;
        let pollers = pollers(name)?;
        ensure!(
            pollers.len() == cpus.len(),
            "{} threads poll {queues} queues",
            pollers.len()
        );
        for (poller, cpu) in pollers.iter().zip(cpus) {
            let mut set = CpuSet::new();
            set.set(*cpu)?;
            sched_setaffinity(*poller, &set).context("cannot move a polling thread")?;
        }
        Ok(Self {
            link,
            pollers,
            awake: None,
        })
    }

    /// Attaches a program to the guarded interface.
    pub(crate) fn attach<'a>(&self, program: &'a mut Program) -> Result<Attached<'a>> {
        let index = self.link.left.index;
        let xdp = program.xdp()?;
        let (program, link) = self.link.left.host.run(move || {
            let link = xdp.attach_to_if_index(index, XdpMode::Driver)?;
            Ok((xdp, link))
        })?;
        Ok(Attached {
            program,
            link: Some(link),
        })
    }

    /// Runs a command in the guarded namespace.
    pub(super) fn command(&self, program: &str, args: &[&str]) -> Result<()> {
        let mut command = Command::new(program);
        let output = self.link.left.host.output(command.args(args), PATIENCE)?;
        output.success()?;
        Ok(())
    }

    /// Floods, and says how many nanoseconds of CPU time the receiver spent on a packet.
    ///
    /// # Errors
    /// If the guarded host answered, or received nothing: then something else was measured.
    pub(super) fn flood(&self, run: Duration, traffic: Traffic) -> Result<f64> {
        let flood = self.flood_from(&[SENDER], run, traffic)?;
        #[expect(clippy::cast_precision_loss, reason = "figures of a second")]
        Ok(flood.spent as f64 / flood.packets as f64)
    }

    /// Floods from several CPUs at the same time.
    ///
    /// # Errors
    /// As [`Self::flood`].
    pub(crate) fn flood_from(
        &self,
        cpus: &[usize],
        run: Duration,
        traffic: Traffic,
    ) -> Result<Flood> {
        let (before, spent_before) = (self.counters()?, self.spent()?);
        let begun = Instant::now();
        self.link.right.host.run(|| {
            let ready = Barrier::new(cpus.len());
            thread::scope(|scope| {
                let senders: Vec<_> = cpus
                    .iter()
                    .map(|cpu| {
                        scope.spawn(|| {
                            let made =
                                stay_on(*cpu).and_then(|()| Generator::new(&self.link, traffic));
                            ready.wait();
                            made?.send(run)
                        })
                    })
                    .collect();
                for sender in senders {
                    sender
                        .join()
                        .map_err(|_panic| anyhow!("a sender failed"))??;
                }
                Ok(())
            })
        })?;
        self.settle()?;
        let took = begun.elapsed();
        let (after, spent_after) = (self.counters()?, self.spent()?);
        let received = after.received - before.received;
        ensure!(received > 10_000, "only {received} packets arrived");
        ensure!(
            after.sent - before.sent < received / 1000,
            "the host answered what should have been dropped"
        );
        Ok(Flood {
            packets: received,
            spent: spent_after - spent_before,
            took,
        })
    }

    /// Waits until what is under way has been received.
    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut last = self.counters()?.received;
        loop {
            thread::sleep(Duration::from_millis(5));
            let now = self.counters()?.received;
            if now == last {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "packets keep arriving");
            last = now;
        }
    }

    /// CPU time of the polling threads, nanoseconds.
    fn spent(&self) -> Result<u64> {
        let times = self.pollers.iter().map(|poller| {
            let path = format!("/proc/{poller}/schedstat");
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
            let first = text.split_whitespace().next().context("no CPU time")?;
            Ok(first.parse::<u64>()?)
        });
        times.sum()
    }

    fn counters(&self) -> Result<Counters> {
        let name = &self.link.left.name;
        let text = self
            .link
            .left
            .host
            .run(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = text.lines().find_map(|line| {
            line.trim_start()
                .strip_prefix(name.as_str())?
                .strip_prefix(':')
        });
        let fields: Vec<u64> = line
            .context("no counters of the interface")?
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        match fields.as_slice() {
            [_, received, _, _, _, _, _, _, _, sent, ..] => Ok(Counters {
                received: *received,
                sent: *sent,
            }),
            _ => bail!("counters of another form: `{text}`"),
        }
    }
}

struct Counters {
    received: u64,
    sent: u64,
}

pub(crate) fn cpus() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Has the kernel poll an interface in a thread of its own. Call in the interface's namespace; sysfs shows the
/// interfaces of the namespace that it was mounted in.
fn threaded(name: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)
        .context("cannot mount sysfs")?;
    let path = Path::new("/sys/class/net").join(name).join("threaded");
    fs::write(&path, "1").with_context(|| format!("cannot write `{}`", path.display()))
}

/// The kernel's threads that poll an interface, in the order of its queues.
fn pollers(name: &str) -> Result<Vec<Pid>> {
    // Names of threads are cut at 15 characters.
    let wanted: String = format!("napi/{name}-").chars().take(15).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end().starts_with(wanted.trim_end()) {
            found.push(Pid::from_raw(pid));
        }
    }
    ensure!(
        !found.is_empty(),
        "no thread polls `{name}`: this kernel does not poll in threads (Linux 5.12)"
    );
    found.sort();
    Ok(found)
}
