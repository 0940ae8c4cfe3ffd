//! Asks programs of the object that follows sockets by running them on a [`Record`]: they are attached nowhere.

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use portguard_common::addr::Addr;
use portguard_common::conntrack::{Class, Record, Tuple, record};

use crate::error::Context as _;

/// The object that the build script made: programs that follow sockets, and those that are run.
pub(crate) static SOCKETS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portguard-sockets"));

/// A program of that object that says something of sockets, in the kernel.
pub(crate) struct Asked {
    object: Ebpf,
    name: &'static str,
}

impl Asked {
    /// Has the kernel take a program, which finds what it looks at by a global.
    ///
    /// # Errors
    /// If it refuses.
    pub(crate) fn load(name: &'static str, (global, at): (&str, u32)) -> crate::Result<Self> {
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global(global, &at, true)
            .load(SOCKETS)?;
        let program: &mut SchedClassifier = object
            .program_mut(name)
            .with_context(|| format!("the embedded object has no program `{name}`"))?
            .try_into()?;
        program.load()?;
        Ok(Self { object, name })
    }

    /// What it says of a socket, by its ends, and what it is bound to; 0 = no interface.
    ///
    /// # Errors
    /// If it cannot be run.
    pub(crate) fn of(&mut self, tuple: &Tuple, interface: u32) -> crate::Result<u32> {
        let program = self.object.program_mut(self.name).context("the program")?;
        let record = record_of(tuple, 0, Class::Datagrams);
        run_at(program.try_into()?, &record, interface)
    }
}

/// Runs a program on a record; gives what it returns.
pub(crate) fn run(program: &mut SchedClassifier, record: &Record) -> crate::Result<u32> {
    run_at(program, record, 0)
}

/// Where the kernel's `struct __sk_buff` has the index of the interface.
const INTERFACE: usize = 40;

/// The same, as if the record had come by an interface; 0 = whichever.
fn run_at(program: &mut SchedClassifier, record: &Record, interface: u32) -> crate::Result<u32> {
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
