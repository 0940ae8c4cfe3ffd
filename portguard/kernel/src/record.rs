//! Asks programs of the object that follows sockets by running them on a [`Record`]: they are attached nowhere.

use aya::programs::SchedClassifier;
use aya::{TestRun as _, TestRunOptions};
use portguard_common::addr::Addr;
use portguard_common::conntrack::{Class, Record, Tuple, record};

use crate::error::Context as _;

/// The object that the build script made: programs that follow sockets, and those that are run.
pub(crate) static SOCKETS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portguard-sockets"));

/// Runs a program on a record; gives what it returns.
pub(crate) fn run(program: &mut SchedClassifier, record: &Record) -> crate::Result<u32> {
    run_at(program, record, 0)
}

/// Where the kernel's `struct __sk_buff` has the index of the interface.
const INTERFACE: usize = 40;

/// The same, as if the record had come by an interface; 0 = whichever.
pub(crate) fn run_at(
    program: &mut SchedClassifier,
    record: &Record,
    interface: u32,
) -> crate::Result<u32> {
    let bytes = bytes(record);
    let context = [&[0; INTERFACE][..], &interface.to_ne_bytes()].concat();
    let run = program.test_run(TestRunOptions {
        data_in: Some(&bytes),
        ctx_in: (interface != 0).then_some(&context),
        ..TestRunOptions::default()
    });
    match run
        .context("cannot run a program on a record of a conversation")?
        .return_value
    {
        record::WRONG => Err(crate::Error::system(
            "a record of a conversation was not understood",
        )),
        done => Ok(done),
    }
}

/// The record as it lies in memory, behind what is taken for an Ethernet header.
fn bytes(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; record::AT];
    bytes.extend([record.what, record.class, record.space, record.v6]);
    bytes.extend(record.local_port.to_ne_bytes());
    bytes.extend(record.remote_port.to_ne_bytes());
    for word in [record.local, record.remote, [record.set, record.cell]] {
        bytes.extend(word.map(u64::to_ne_bytes).as_flattened());
    }
    bytes
}

/// A record of a conversation.
pub(crate) fn record_of(tuple: &Tuple, what: u8, class: Class) -> Record {
    let halves = |address: Addr| [address.high, address.low];
    Record {
        what,
        class: class as u8,
        space: u8::try_from(tuple.space).unwrap_or(u8::MAX),
        v6: u8::from(tuple.local.v6),
        local_port: tuple.local_port,
        remote_port: tuple.remote_port,
        local: halves(tuple.local),
        remote: halves(tuple.remote),
        set: 0,
        cell: 0,
    }
}
