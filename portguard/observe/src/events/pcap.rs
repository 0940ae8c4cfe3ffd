//! Sampled frames as a pcapng file, each with its reason as the packet's comment.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use portguard_common::abi::{EVENT_HEAD, Event};
use portguard_kernel::error::Error;

use super::Line;

/// Timestamps count nanoseconds.
const NANOSECONDS: u8 = 9;

/// A capture file that is being written.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
}

impl<W: Write> fmt::Debug for Capture<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

impl<W: Write> Capture<W> {
    /// Begins a file with one interface block for each name, in this order.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(writer: W, interfaces: &[&str]) -> portguard_kernel::Result<Self> {
        let mut writer = PcapNgWriter::new(writer).map_err(|error| cannot("begin", error))?;
        for name in interfaces {
            writer
                .write_pcapng_block(InterfaceDescriptionBlock {
                    linktype: DataLink::ETHERNET,
                    snaplen: u32::try_from(EVENT_HEAD).unwrap_or(0),
                    options: vec![
                        InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                        InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                    ],
                })
                .map_err(|error| cannot("begin", error))?;
        }
        Ok(Self { writer })
    }

    /// Writes the head of a frame; says whether the event had one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(
        &mut self,
        interface: u32,
        event: &Event,
        line: &Line,
        booted: u64,
    ) -> portguard_kernel::Result<bool> {
        let captured = usize::from(event.captured).min(EVENT_HEAD);
        if captured == 0 {
            return Ok(false);
        }
        let comment = line.text();
        self.writer
            .write_pcapng_block(EnhancedPacketBlock {
                interface_id: interface,
                timestamp: Duration::from_nanos(booted.saturating_add(event.time)),
                original_len: event.length,
                data: Cow::Borrowed(event.head.get(..captured).unwrap_or_default()),
                options: vec![EnhancedPacketOption::Comment(Cow::Borrowed(&comment))],
            })
            .map_err(|error| cannot("write to", error))?;
        Ok(true)
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// What the file system says.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.writer.get_mut().flush()
    }
}

fn cannot(what: &str, error: PcapError) -> Error {
    let cause = if let PcapError::IoError(error) = error {
        error.into()
    } else {
        Error::system(error.to_string())
    };
    cause.context(format!("cannot {what} the capture file"))
}
