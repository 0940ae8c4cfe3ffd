//! Two network namespaces, a veth pair, and a flood from one to the other.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, MapData};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use portguard_harness::frames::{Frame, Ipv4, Tcp};
use portguard_harness::net::{Lab, Link, Output};

use crate::measure::stay_on;
use crate::programs::Program;

static GENERATE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench-generate"));

/// CPU of the generator.
const SENDER: usize = 0;
/// CPU of the receiver, where there is more than one.
const RECEIVER: usize = 1;
/// Frames between two looks at the clock.
const BURST: u32 = 1 << 15;
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pair: the left end is guarded, the right end floods.
pub(super) struct Stage {
    pub(super) link: Link,
    /// The thread that polls the guarded interface.
    poller: Pid,
}

/// A program on the XDP hook of the guarded interface, until it is dropped.
pub(super) struct Attached<'a> {
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
    pub(super) fn new() -> Result<Self> {
        let link = Lab::new()?.pair()?;
        let name = &link.left.name;
        // Frames that no XDP program takes are still polled by the veth itself, as a card's driver would.
        let mut gro = std::process::Command::new("ethtool");
        link.left
            .host
            .output(gro.args(["-K", name, "gro", "on"]), PATIENCE)
            .and_then(Output::success)
            .context("`ethtool` is needed for the live measurements: install it")?;
        link.left.host.run(|| threaded(name))?;
        let poller = poller(name)?;
        if let Some(cpu) = [RECEIVER].into_iter().find(|cpu| *cpu < cpus()) {
            let mut set = CpuSet::new();
            set.set(cpu)?;
            sched_setaffinity(poller, &set).context("cannot move the polling thread")?;
        }
        Ok(Self { link, poller })
    }

    /// Attaches a program to the guarded interface.
    pub(super) fn attach<'a>(&self, program: &'a mut Program) -> Result<Attached<'a>> {
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
        let mut command = std::process::Command::new(program);
        let output = self.link.left.host.output(command.args(args), PATIENCE)?;
        output.success()?;
        Ok(())
    }

    /// Floods, and says how many nanoseconds of CPU time the receiver spent on a packet.
    ///
    /// # Errors
    /// If the guarded host answered, or received nothing: then something else was measured.
    pub(super) fn flood(&self, run: Duration) -> Result<f64> {
        let (before, spent_before) = (self.counters()?, self.spent()?);
        self.link.right.host.run(|| {
            stay_on(SENDER)?;
            let mut generator = Generator::new(&self.link)?;
            generator.send(run)
        })?;
        self.settle()?;
        let (after, spent_after) = (self.counters()?, self.spent()?);
        let received = after.received - before.received;
        ensure!(received > 10_000, "only {received} packets arrived");
        ensure!(
            after.sent - before.sent < received / 1000,
            "the host answered what should have been dropped"
        );
        #[expect(clippy::cast_precision_loss, reason = "figures of a second")]
        Ok((spent_after - spent_before) as f64 / received as f64)
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

    /// CPU time of the polling thread, nanoseconds.
    fn spent(&self) -> Result<u64> {
        let path = format!("/proc/{}/schedstat", self.poller);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
        let first = text.split_whitespace().next().context("no CPU time")?;
        Ok(first.parse()?)
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

fn cpus() -> usize {
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

/// The kernel's thread that polls an interface.
fn poller(name: &str) -> Result<Pid> {
    // Names of threads are cut at 15 characters.
    let wanted: String = format!("napi/{name}-").chars().take(15).collect();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end().starts_with(wanted.trim_end()) {
            return Ok(Pid::from_raw(pid));
        }
    }
    bail!("no thread polls `{name}`: this kernel does not poll in threads (Linux 5.12)")
}

/// Sends frames as fast as the kernel takes them.
struct Generator {
    ebpf: Ebpf,
    context: Vec<u8>,
}

impl Generator {
    /// Call in the sender's namespace.
    fn new(link: &Link) -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(GENERATE)?;
        let frame = Frame::between(&link.right, &link.left)
            .ipv4(Ipv4::new(link.right.v4(), link.left.v4()))
            .tcp(Tcp::syn(40_000, 9999))
            .pad(60)
            .build();
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into()?);
        }
        let map = ebpf.map_mut("FRAMES").context("no map `FRAMES`")?;
        let mut frames: Array<&mut MapData, [u32; 16]> = map.try_into()?;
        frames.set(0, words, 0)?;
        generator(&mut ebpf)?.load()?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, 60, 0, link.right.index, 0, 0];
        let context = context.iter().flat_map(|word: &u32| word.to_ne_bytes());
        Ok(Self {
            ebpf,
            context: context.collect(),
        })
    }

    fn send(&mut self, run: Duration) -> Result<()> {
        let program = generator(&mut self.ebpf)?;
        let begun = Instant::now();
        while begun.elapsed() < run {
            program
                .test_run(TestRunOptions {
                    data_in: Some(&[0; 60]),
                    ctx_in: Some(&self.context),
                    repeat: BURST,
                    attrs: TestRunAttrs::new().xdp_live_frames(64),
                    ..TestRunOptions::default()
                })
                .context("this kernel sends no frames from test runs (Linux 5.18)")?;
        }
        Ok(())
    }
}

fn generator(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf
        .program_mut("generate")
        .context("no program `generate`")?;
    Ok(program.try_into()?)
}
