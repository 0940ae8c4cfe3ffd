//! Features of the kernel's BPF, asked for one by one: distributions carry them back to older versions.

use aya::maps::MapType;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};

use super::{Check, Grade};
use crate::conversations::cgroup;

/// What no guard can do without, and the first version that has it.
pub(super) fn needed() -> Check {
    let why = "the guard's programs use them";
    let xdp = |helper| is_helper_supported(ProgramType::Xdp, helper);
    let all = [
        (
            "ring buffers (Linux 5.8)",
            is_map_supported(MapType::RingBuf).map_err(|error| error.to_string()),
        ),
        (
            "bpf_ktime_get_boot_ns (Linux 5.8)",
            xdp(BpfHelper::BPF_FUNC_ktime_get_boot_ns).map_err(|error| error.to_string()),
        ),
        (
            "bpf_jiffies64 (Linux 5.6)",
            xdp(BpfHelper::BPF_FUNC_jiffies64).map_err(|error| error.to_string()),
        ),
    ];
    let check = |grade, found: String| Check::new("features", why, grade, found);
    let mut missing = Vec::new();
    for (name, is_there) in all {
        match is_there {
            Ok(true) => {}
            Ok(false) => missing.push(name),
            Err(error) => {
                return check(Grade::Note, format!("the kernel does not say: {error}"))
                    .todo("run as root: `sudo portguard doctor`");
            }
        }
    }
    if missing.is_empty() {
        check(Grade::Ok, "all there".to_owned())
    } else {
        check(
            Grade::Error,
            format!("this kernel has no {}", missing.join(", no ")),
        )
        .todo("a newer kernel: Linux 5.10 is the oldest that is tested")
    }
}

/// How conversations are followed: by sockets from their first packet to their last, or by packets alone.
pub(super) fn sockets() -> Check {
    let why = "a connection of the host is known for exactly as long as its socket is open";
    let cookies = is_helper_supported(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie);
    let by_packets = |because: &str| {
        Check::new(
            "sockets",
            why,
            Grade::Note,
            format!("{because}: connections are followed by their packets alone"),
        )
    };
    match (cookies, cgroup::root()) {
        (Ok(true), Ok(_)) => Check::new("sockets", why, Grade::Ok, "followed"),
        (Ok(true), Err(because)) => by_packets(&because).todo("mount cgroup v2, then load again"),
        (Ok(false), _) => {
            by_packets("no cookies of network namespaces in such programs (Linux 5.15)")
                .todo("longer `tcp_idle` in `[timeouts]` where connections are quiet for hours")
        }
        (Err(error), _) => by_packets(&unsaid(&error)),
    }
}

/// Whether programs see frames of several buffers.
pub(super) fn multi_buffer() -> Check {
    let why = "drivers hand over large frames in several buffers";
    let length = is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_get_buff_len);
    let check = |grade, found: String| Check::new("large-frames", why, grade, found);
    match length {
        Ok(true) => check(Grade::Ok, "handled".to_owned()),
        Ok(false) => check(
            Grade::Note,
            "not in this kernel (Linux 5.18): a driver takes the guard only where a frame fits one buffer".to_owned(),
        )
        .todo("an MTU of at most 3,400 or so, if `load` is refused"),
        Err(error) => check(Grade::Note, unsaid(&error)),
    }
}

fn unsaid(error: &ProgramError) -> String {
    format!("the kernel does not say: {error}")
}
