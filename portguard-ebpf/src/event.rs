//! Sampled violations for whoever listens.
#![expect(unsafe_code, reason = "fills a record of the ring buffer in place")]

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use portguard_common::abi::{EVENT_HEAD, EVENTS_A_TICK, Event, control, slot};
use portguard_common::packet::Packet;
use portguard_common::reason::Direction;
use portguard_common::tables::Tables;
use portguard_common::verdict::Verdict;

use crate::barrier::barrier_var;
use crate::hook::Hook;
use crate::maps::{self, EVENTS, Maps};
use crate::sample::Sample;

/// What an event says of a packet and its verdict that verifiers would tell states apart by: as numbers they know nothing of.
#[derive(Clone, Copy)]
pub(crate) struct Cause {
    reason: u8,
    detail: u8,
    protocol: u8,
    v6: u8,
    ethertype: u16,
}

impl Cause {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "as wide as it was")]
    pub(crate) fn of(packet: &Packet, verdict: &Verdict) -> Self {
        let detail = verdict.cause.map_or(packet.icmp_type, |cause| cause as u8);
        let octet = |number: u8| barrier_var(number.into()) as u8;
        Self {
            reason: octet(verdict.reason as u8),
            detail: octet(detail),
            protocol: octet(packet.protocol),
            v6: octet(packet.source.v6.into()),
            ethertype: barrier_var(packet.ethertype.into()) as u16,
        }
    }
}

/// Writes an event if anybody listens, or counts it as lost.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "frames are shorter than 2^32"
)]
pub(crate) fn emit<H: Hook>(hook: H, maps: &Maps, packet: &Packet, cause: Cause, sample: Sample) {
    if maps::control(control::LISTENERS) <= sample.time {
        return;
    }
    if !is_within_quota(maps, H::DIRECTION, cause) {
        maps.add_slot(slot::EVENTS_LOST, (1, 0));
        return;
    }
    let Some(mut record) = EVENTS.reserve_untyped::<Event>(0) else {
        maps.add_slot(slot::EVENTS_LOST, (1, 0));
        return;
    };
    let event = record.as_mut_ptr();
    macro_rules! write {
        ($($field:ident: $value:expr),* $(,)?) => {
            // SAFETY: fields of a record that was reserved for an event.
            unsafe { $((&raw mut (*event).$field).write($value);)* }
        };
    }
    write! {
        time: sample.time,
        source: [packet.source.high, packet.source.low],
        destination: [packet.destination.high, packet.destination.low],
        ifindex: hook.ifindex(),
        length: packet.length as u32,
        weight: sample.weight,
        vlan: packet.vlan,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        ethertype: cause.ethertype,
        reason: cause.reason,
        protocol: cause.protocol,
        detail: cause.detail,
        v6: cause.v6,
        direction: H::DIRECTION as u8,
        dropped: u8::from(sample.is_drop),
        reserved: 0,
    }
    // SAFETY: the head lies in the record.
    let head = unsafe { &raw mut (*event).head }.cast::<u64>();
    for word in 0..EVENT_HEAD / 8 {
        // Word by word, since a `memset` would be a loop of octets, and one step more of the verifier for each.
        // SAFETY: in the head, whose place in the record is a multiple of eight.
        unsafe { head.add(word).write_volatile(0) };
    }
    let captured = if hook.is_split(maps.config()) {
        capture(hook, hook.whole(maps.config()), head.cast())
    } else {
        0
    };
    write! { captured: captured }
    record.submit(0);
}

/// Copies what a capture of this frame shows, and says how long that is: one of some lengths that frames often have, since
/// a variable one is more than older verifiers can follow here.
#[inline(always)]
fn capture<H: Hook>(hook: H, whole: usize, head: *mut c_void) -> u16 {
    macro_rules! lengths {
        ($($length:literal),*) => {
            $(
                const { assert!($length <= EVENT_HEAD) };
                if whole >= $length {
                    return if hook.copy(0, head, $length) { $length } else { 0 };
                }
            )*
        };
    }
    // All that there is room for; TCP with time stamps; the shortest that a wire knows; TCP, UDP and ARP on a virtual one.
    lengths!(96, 74, 66, 60, 54, 42, 14);
    0
}

/// Every reason has so many events a tick of its own, so that a flood of one leaves room for the others.
#[inline(always)]
fn is_within_quota(maps: &Maps, direction: Direction, cause: Cause) -> bool {
    let slot = direction as u32 * slot::DIRECTION + u32::from(cause.reason);
    let Some(quota) = maps::quota(slot) else {
        return false;
    };
    // SAFETY: takes nothing, gives a number.
    let tick = unsafe { bpf_jiffies64() } >> maps.config().tick_shift;
    // SAFETY: a live per-CPU element; another program of this CPU in between would only miscount.
    let quota = unsafe { &mut *quota };
    if quota.tick != tick {
        quota.tick = tick;
        quota.used = 0;
    }
    quota.used += 1;
    quota.used <= EVENTS_A_TICK
}
