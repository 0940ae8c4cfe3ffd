//! The programs that portguard loads: entry points only. What a frame means is decided in `portguard-common`.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "linker attributes of entry points, globals and the licence"
)]

mod count;
mod direct;
mod event;
mod maps;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use portguard_common::packet::{Malformed, Packet, Shape};
use portguard_common::parse::{Nonlinear, parse};
use portguard_common::reason::Direction;
use portguard_common::tables::Tables;
use portguard_common::verdict;

use crate::direct::{Copied, Direct};
use crate::maps::Maps;

/// Judges what a network interface receives.
#[expect(missing_docs, reason = "the attribute makes a second, exported item")]
#[xdp(frags)]
#[inline(always)]
pub(crate) fn portguard_xdp(ctx: XdpContext) -> u32 {
    let maps = Maps::new();
    let packet = match parse(&mut Direct::of_xdp(&ctx, &maps)) {
        Ok(packet) => packet,
        Err(Nonlinear) => nonlinear(&ctx),
    };
    let verdict = verdict::ingress(&maps, &packet);
    let is_drop = verdict.is_drop(maps.facts().enforce != 0);
    let count = count::count(&maps, &packet, &verdict, Direction::Ingress);
    if verdict.reason.is_violation() && event::is_sampled(&maps, count) {
        event::emit(&ctx, &maps, &packet, &verdict, Direction::Ingress, is_drop);
    }
    if is_drop { XDP_DROP } else { XDP_PASS }
}

/// Headers outside of the linear part: parses a copy. Rare, and removed by the verifier where frames are always linear.
#[inline(always)]
fn nonlinear(ctx: &XdpContext) -> Packet {
    let parsed = match Copied::of_xdp(ctx) {
        Some(mut copy) => parse(&mut copy),
        None => Err(Nonlinear),
    };
    // What cannot even be copied is malformed: never passed unread.
    parsed.unwrap_or_else(|Nonlinear| {
        let mut packet = Packet::new(0);
        packet.shape = Shape::Malformed(Malformed::Truncated);
        packet
    })
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
