//! What the running kernel is, and what it has: asked here, and nowhere else, so that a test can have the program see another.

use std::fs;
use std::io;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use aya::util::KernelVersion;

#[cfg(feature = "fault-injection")]
mod pretend;

/// What programs of the guard use. Distributions carry some back to older kernels, so that each is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// XDP programs.
    Xdp,
    /// Maps that events go through.
    RingBuffers,
    /// A clock that goes on while the machine sleeps.
    BootClock,
    /// A clock that costs next to nothing.
    Jiffies,
    /// The cookie of a socket's network namespace, in programs that follow sockets.
    NamespaceCookies,
    /// The length of a frame in several buffers.
    FrameLength,
    /// Reading the kernel's own structures.
    KernelReads,
}

impl Feature {
    /// As the kernel's documents call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::RingBuffers => "ring buffers",
            Self::BootClock => "bpf_ktime_get_boot_ns",
            Self::Jiffies => "bpf_jiffies64",
            Self::NamespaceCookies => "bpf_get_netns_cookie",
            Self::FrameLength => "bpf_xdp_get_buff_len",
            Self::KernelReads => "bpf_probe_read_kernel",
        }
    }

    /// The first version of Linux that has it, where programs of the guard use it.
    pub(crate) const fn since(self) -> (u8, u8) {
        match self {
            Self::Xdp => (4, 8),
            Self::Jiffies => (5, 6),
            Self::RingBuffers | Self::BootClock | Self::KernelReads => (5, 8),
            Self::NamespaceCookies => (5, 15),
            Self::FrameLength => (5, 18),
        }
    }

    fn ask(self) -> Result<bool, String> {
        let helper =
            |of, helper| is_helper_supported(of, helper).map_err(|error| error.to_string());
        match self {
            Self::Xdp => is_program_supported(ProgramType::Xdp).map_err(|error| error.to_string()),
            Self::RingBuffers => {
                is_map_supported(MapType::RingBuf).map_err(|error| error.to_string())
            }
            Self::BootClock => helper(ProgramType::Xdp, BpfHelper::BPF_FUNC_ktime_get_boot_ns),
            Self::Jiffies => helper(ProgramType::Xdp, BpfHelper::BPF_FUNC_jiffies64),
            Self::NamespaceCookies => {
                helper(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie)
            }
            Self::FrameLength => helper(ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_get_buff_len),
            Self::KernelReads => helper(
                ProgramType::SchedClassifier,
                BpfHelper::BPF_FUNC_probe_read_kernel,
            ),
        }
    }
}

/// Whether the kernel has it.
///
/// # Errors
/// Why the kernel does not say.
pub(crate) fn has(feature: Feature) -> Result<bool, String> {
    #[cfg(feature = "fault-injection")]
    if pretend::lacks(feature) {
        return Ok(false);
    }
    feature.ask()
}

/// The kernel's version as it calls itself, with what the distribution adds.
pub(crate) fn release() -> Option<String> {
    #[cfg(feature = "fault-injection")]
    if let Some(release) = pretend::release() {
        return Some(release);
    }
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(text.trim().to_owned())
}

/// The same as a number.
pub(crate) fn version() -> Option<KernelVersion> {
    #[cfg(feature = "fault-injection")]
    if let Some(version) = pretend::version() {
        return Some(version);
    }
    KernelVersion::current().ok()
}

/// Where the kernel describes its own structures.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What stands there.
///
/// # Errors
/// Those of reading it.
pub(crate) fn btf() -> io::Result<Vec<u8>> {
    #[cfg(feature = "fault-injection")]
    if pretend::is_without("btf") {
        return Err(io::ErrorKind::NotFound.into());
    }
    fs::read(BTF)
}

/// The file systems that this process sees mounted, as the kernel lists them.
///
/// # Errors
/// Those of reading the list.
pub(crate) fn mounts() -> io::Result<String> {
    let all = fs::read_to_string("/proc/thread-self/mountinfo")?;
    #[cfg(feature = "fault-injection")]
    if pretend::is_without("cgroup2") {
        let others = all.lines().filter(|line| !line.contains(" - cgroup2 "));
        return Ok(others.collect::<Vec<_>>().join("\n"));
    }
    Ok(all)
}
