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

mod conversations;
mod copied;
mod count;
mod direct;
mod endings;
mod event;
mod guard;
mod hook;
mod maps;
mod owner;
mod remember;
mod route;
mod sample;
mod sending;
mod talkers;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use portguard_common::packet::Subject;
use portguard_common::plain::Plain;
use portguard_common::track;
use portguard_common::verdict::Verdict;

use crate::direct::Direct;
use crate::guard::{Action, Hears};
use crate::hook::{Hook as _, Received, Sent};
use crate::maps::Maps;
use crate::sending::Sending;

/// Judges what a network interface receives.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn portguard_xdp(ctx: XdpContext) -> u32 {
    let hook = Received(ctx.ctx);
    guard::give_way(hook, &ctx);
    let decided = guard::fast_path(hook, hook);
    match guard::decide(decided, |decided| received(hook.0, decided)) {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
    }
}

/// What [`portguard_xdp`] does rarely: an [`Action`] as a number. A function of its own, so that the verifier and the
/// instruction cache see it once.
#[inline(never)]
fn received(ctx: *mut xdp_md, decided: u32) -> u32 {
    let hook = Received(ctx);
    guard::slow_path(hook, decided, Whole(hook))
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

/// Judges what the host sends, and keeps the flow table.
#[classifier]
#[inline(always)]
pub(crate) fn portguard_tc(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    guard::give_way(Sent(skb), &ctx);
    match guard::decide(plain_sent(skb), |decided| sent(skb, decided)) {
        // The next program on this hook, if there is one, has its say too.
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
    }
}

/// What [`portguard_tc`] does mostly. A function of its own all the same: its stack is free again when [`sent`] is called, and
/// the two with what they call would need more than the kernel gives.
#[inline(never)]
fn plain_sent(ctx: *mut __sk_buff) -> u32 {
    let hook = Sent(ctx);
    guard::fast_path(hook, hook)
}

/// What [`portguard_tc`] does rarely.
#[inline(never)]
fn sent(ctx: *mut __sk_buff, decided: u32) -> u32 {
    let hook = Sent(ctx);
    guard::slow_path(hook, decided, hook)
}

impl Hears for Sent {
    #[inline(always)]
    fn hear<S: Subject>(self, packet: &S, verdict: &Verdict) {
        track::sent(&Maps::new(self.ctx()), packet, verdict, &Sending(self));
    }
}

/// On the fast path.
impl Hears for Received {
    #[inline(always)]
    fn hear<S: Subject>(self, packet: &S, verdict: &Verdict) {
        if track::is_begun_by_peer(&Maps::new(self.ctx()), packet, verdict) {
            note_plain(self.0, packet.handle());
        }
    }
}

/// On the slow path, with all that is known of a packet.
#[derive(Clone, Copy)]
struct Whole(Received);

impl Hears for Whole {
    #[inline(always)]
    fn hear<S: Subject>(self, packet: &S, verdict: &Verdict) {
        let maps = &Maps::new(self.0.ctx());
        if track::is_begun_by_peer(maps, packet, verdict) {
            track::note_received(maps, packet);
        }
    }
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
