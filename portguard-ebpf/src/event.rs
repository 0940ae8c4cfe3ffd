//! Sampled violations for whoever listens.
#![expect(unsafe_code, reason = "fills a record of the ring buffer in place")]

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::XdpContext;
use portguard_common::abi::{EVENT_HEAD, Event, slot};
use portguard_common::packet::Packet;
use portguard_common::reason::Direction;
use portguard_common::tables::Tables;
use portguard_common::verdict::Verdict;

use crate::maps::{EVENTS, Maps};

/// Whether the `count`th violation of its kind becomes an event.
#[inline(always)]
pub(crate) fn is_sampled(maps: &Maps, count: u32) -> bool {
    let mask = maps.facts().sample_mask;
    mask != u32::MAX && count & mask == 0
}

/// Writes an event, or counts it as lost.
#[inline(always)]
pub(crate) fn emit(
    ctx: &XdpContext,
    maps: &Maps,
    packet: &Packet,
    verdict: &Verdict,
    direction: Direction,
    is_drop: bool,
) {
    let Some(mut record) = EVENTS.reserve_untyped::<Event>(0) else {
        maps.add_slot(slot::EVENTS_LOST, 0);
        return;
    };
    record.write(Event {
        // SAFETY: takes nothing, gives a number.
        time: unsafe { bpf_ktime_get_boot_ns() },
        source: [packet.source.high, packet.source.low],
        destination: [packet.destination.high, packet.destination.low],
        ifindex: ctx.ingress_ifindex() as u32,
        length: packet.length as u32,
        weight: maps.facts().sample_mask + 1,
        vlan: packet.vlan,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        ethertype: packet.ethertype,
        reason: verdict.reason as u8,
        protocol: packet.protocol,
        detail: verdict.cause.map_or(packet.icmp_type, |cause| cause as u8),
        v6: u8::from(packet.source.v6),
        direction: direction as u8,
        dropped: u8::from(is_drop),
        captured: 0,
        reserved: 0,
        head: [0; EVENT_HEAD],
    });
    record.submit(0);
}
