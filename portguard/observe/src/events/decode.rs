//! A record of the ring buffer to an [`Event`], field by field: no cast, whatever the bytes are.

use portguard_common::abi::{EVENT_HEAD, Event};

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_ne_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }
}

/// Decodes a record; `None` if it is too short to be one.
pub fn decode(record: &[u8]) -> Option<Event> {
    let mut bytes = Bytes(record);
    // In the order of the layout, which is that of evaluation.
    Some(Event {
        time: bytes.u64()?,
        source: [bytes.u64()?, bytes.u64()?],
        destination: [bytes.u64()?, bytes.u64()?],
        ifindex: bytes.u32()?,
        length: bytes.u32()?,
        weight: bytes.u32()?,
        vlan: bytes.u32()?,
        source_port: bytes.u16()?,
        destination_port: bytes.u16()?,
        ethertype: bytes.u16()?,
        reason: bytes.u8()?,
        protocol: bytes.u8()?,
        detail: bytes.u8()?,
        v6: bytes.u8()?,
        direction: bytes.u8()?,
        dropped: bytes.u8()?,
        captured: bytes.u16()?,
        reserved: bytes.u16()?,
        head: bytes.take::<EVENT_HEAD>()?,
    })
}
