//! The programs that portguard loads: entry points only. What a frame means is decided in `portguard-common`.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "linker attributes of entry points, globals and the licence"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_ptr_alignment,
    clippy::int_plus_one,
    clippy::modulo_one,
    clippy::needless_borrows_for_generic_args,
    clippy::needless_pass_by_value,
    clippy::unused_self,
    clippy::wildcard_enum_match_arm,
    reason = "BPF is a 64-bit machine without alignment; maps are reached through the policy that owns them; bounds are \
              written as the verifier is to see them"
)]

mod above;
mod barrier;
mod conversations;
mod copied;
mod count;
mod direct;
mod endings;
mod event;
mod frozen;
mod guard;
mod hook;
mod local;
mod maps;
mod options;
mod other;
mod owner;
mod remember;
mod route;
mod sample;
mod sending;
mod talkers;
mod tracked;
mod whole;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use portguard_common::packet::{Packet, Subject};
use portguard_common::plain::Plain;
use portguard_common::track;
use portguard_common::verdict::Verdict;

use crate::direct::Direct;
use crate::guard::{Action, Hears, Slow};
use crate::hook::{Hook as _, Received, Sent};
use crate::maps::Maps;
use crate::sending::Sending;
use crate::whole::Whole;

/// Judges what a network interface receives.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn portguard_xdp(ctx: XdpContext) -> u32 {
    let hook = Received(ctx.ctx);
    guard::give_way(hook, &ctx, |_| ());
    match guard::decide(hook, guard::fast_path(hook, hook)) {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
    }
}

/// Judges what the host sends, and keeps the flow table.
#[classifier]
#[inline(always)]
pub(crate) fn portguard_tc(ctx: TcContext) -> i32 {
    let hook = Sent(ctx.skb.skb);
    guard::give_way(hook, &ctx, |hook| {
        sending::note_served(hook.0);
    });
    match guard::decide(hook, plain_sent(hook.0)) {
        // The next program on this hook, if there is one, has its say too.
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
    }
}

/// What [`portguard_tc`] does mostly. A function of its own all the same: its stack is free again on the slow path.
#[inline(never)]
fn plain_sent(ctx: *mut __sk_buff) -> u32 {
    let hook = Sent(ctx);
    guard::fast_path(hook, hook)
}

impl Hears for Received {
    #[inline(always)]
    fn hear<S: Subject>(self, packet: &S, verdict: &Verdict) {
        if track::is_begun_by_peer(&Maps::new(self.ctx()), packet, verdict.reason) {
            note_plain(self.0, packet.handle());
        }
    }
}

/// Notes what a plain frame that is let in begins. A function of its own, which reads the frame again: it is called rarely,
/// and what it needs would be kept at hand for every frame.
#[inline(never)]
fn note_plain(ctx: *mut xdp_md, handle: u64) -> u32 {
    let hook = Received(ctx);
    let packet = Plain::found(&Direct::new(hook), handle);
    track::note_received(&Maps::new(hook.ctx()), &packet);
    0
}

impl Hears for Sent {
    #[inline(always)]
    fn hear<S: Subject>(self, packet: &S, verdict: &Verdict) {
        let maps = &Maps::new(self.ctx());
        track::sent(maps, packet, verdict.reason, &Sending(self));
    }
}

/// The slow path of a hook, by functions of these names; and how it lets hear of a frame.
macro_rules! slow {
    ($hook:ident($context:ident), $is_heard:path, $hear:expr, $judge:ident, $sample:ident) => {
        impl Slow for $hook {
            #[inline(always)]
            fn judge(self, decided: u32) -> u32 {
                $judge(self.0, decided)
            }

            #[inline(always)]
            fn is_heard(maps: &Maps, packet: &Packet, verdict: &Verdict) -> bool {
                $is_heard(maps, packet, verdict.reason)
            }

            #[inline(always)]
            fn hear(self) {
                $hear(self);
            }

            #[inline(always)]
            fn sample(self, decided: u32) {
                $sample(self.0, decided);
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $judge(ctx: *mut $context, decided: u32) -> u32 {
            guard::judge($hook(ctx), decided)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $sample(ctx: *mut $context, decided: u32) -> u32 {
            guard::sample($hook(ctx), decided);
            0
        }
    };
}

slow!(
    Received(xdp_md),
    track::is_begun_by_peer,
    |_| note_received(),
    judge_received,
    sample_received
);

/// Notes what a frame begins that is let in.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_received() -> u32 {
    if let Some(Whole { packet, verdict }) = Whole::at_hand() {
        track::received(&Maps::alone(), &*packet, verdict.reason);
    }
    0
}

slow!(
    Sent(__sk_buff),
    track::is_noted,
    |hook: Sent| note_sent(hook.0),
    judge_sent,
    sample_sent
);

/// Notes what a frame begins that is let go.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_sent(ctx: *mut __sk_buff) -> u32 {
    let hook = Sent(ctx);
    if let Some(Whole { packet, verdict }) = Whole::at_hand() {
        let maps = &Maps::new(hook.ctx());
        track::sent(maps, &*packet, verdict.reason, &Sending(hook));
    }
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers of the kernel that GPL-compatible programs may call.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
