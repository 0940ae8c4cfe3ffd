//! The embedded eBPF object: loads it with an image in its maps. Attaching is elsewhere.

pub mod memory;
mod open;
mod refusal;
pub mod shape;
mod tables;

use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, ProgramArray};
use aya::programs::{Program, ProgramFd, SchedClassifier, Xdp};
use ipnet::IpNet;
use portguard_common::abi::Config;
use portguard_common::reason::Direction;

use crate::error::Context as _;
use crate::object::shape::Shape;
use portguard_policy::image::Image;

pub(crate) use open::spilled;
pub use open::{Opened, Placing, as_kernel_allows, facts, open, verify};
pub(crate) use refusal::refused;
pub use tables::{GLOBALS, Tables};

/// The object that the build script made: an ELF file, aligned for those who read it in place.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portguard-ebpf"));

/// Name of the ingress program.
pub const INGRESS: &str = "portguard_xdp";

/// Name of the egress program.
pub const EGRESS: &str = "portguard_tc";

/// Maps that outlive a generation: counters, talkers, events.
pub const SHARED: [&str; 6] = ["CELLS", "VIOLATIONS", "CARRY", "SLOTS", "TALKERS", "EVENTS"];

/// Maps that all guards of a network namespace share: the conversations of the host.
pub const NAMESPACE: [&str; 8] = [
    "FLOWS",
    "THEIRS",
    "SPILLED",
    "ENDS_WITH",
    "HELD",
    "OUTSIDE",
    "SERVICES",
    "SERVED",
];

/// A generation's own tables, beside its globals.
pub const TABLES: [&str; 7] = [
    "BLOCKS", "STEPS", "FILTER", "NETS", "HOSTS", "ADMIT", "ENDINGS",
];

/// The map of words that a generation reads while it runs.
pub const CONTROL: &str = "CONTROL";

/// Name of the map that holds the program of the generation before.
const fn previous(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "PREVIOUS_IN",
        Direction::Egress => "PREVIOUS_OUT",
    }
}

/// What only the loading host knows.
#[derive(Debug, Clone, Copy)]
pub struct HostFacts {
    /// See [`Config::multi_buffer`].
    pub multi_buffer: bool,
    /// See [`Config::tick_shift`].
    pub tick_shift: u32,
    /// See [`Config::flow_key`].
    pub flow_key: [u64; 2],
    /// See [`Config::deadline`].
    pub deadline: u64,
    /// Number of sets of a flow table that is there already.
    pub flow_sets: Option<u32>,
    /// See [`Config::raw_ip`].
    pub raw_ip: bool,
    /// See [`Config::card`] and [`Config::card_address`].
    pub card: (u32, u64),
    /// See [`Config::picked_ports`]: first and last.
    pub picked_ports: (u16, u16),
}

impl Default for HostFacts {
    fn default() -> Self {
        Self {
            multi_buffer: true,
            tick_shift: 8,
            flow_key: [0; 2],
            deadline: 0,
            flow_sets: None,
            raw_ip: false,
            card: (0, 0),
            // The kernel's own choice, unless somebody says otherwise.
            picked_ports: (32_768, 60_999),
        }
    }
}

/// An object in the kernel, filled and verified, attached to nothing.
#[derive(Debug)]
pub struct Loaded {
    /// aya's view of it.
    pub ebpf: Ebpf,
    /// The facts as loaded.
    pub facts: Config,
    /// See [`crate::host::local`]; none where the policy judges all.
    pub local: Vec<IpNet>,
}

/// Loads the object with an image; the maps named in [`SHARED`] are reused from `shared`, or created there, if given.
///
/// The egress program is loaded only where there is a flow table ([`Config::flows`]).
///
/// # Errors
/// What the kernel refused: memory, privileges, or the program (then with the end of the verifier's log).
pub fn load(image: &Image, host: &HostFacts, shared: Option<&Path>) -> crate::Result<Loaded> {
    let facts = facts(&image.facts, host);
    let placing = Placing {
        shared,
        ..Placing::default()
    };
    as_kernel_allows(|frags| {
        let [mut opened] = open(image, [(facts, placing)], frags)?;
        let mut tables = opened.tables()?;
        verify(&mut [&mut opened], || tables.fill(image))?;
        Ok(opened.into_loaded())
    })
}

/// The shapes that pinned shared maps must have to be reused.
///
/// # Errors
/// If the embedded object cannot be read.
pub fn shared_shapes() -> crate::Result<Vec<(&'static str, Shape)>> {
    let object = aya_obj::Object::parse(OBJECT)?;
    SHARED
        .iter()
        .map(|name| {
            let map = object
                .maps
                .get(*name)
                .with_context(|| format!("the embedded object has no map `{name}`"))?;
            let shape = Shape {
                map_type: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: Some(map.max_entries()),
            };
            Ok((*name, shape))
        })
        .collect()
}

impl Loaded {
    /// The ingress program.
    ///
    /// # Errors
    /// If the object is not ours.
    pub fn ingress(&mut self) -> crate::Result<&mut Xdp> {
        let program: &mut Program = self
            .ebpf
            .program_mut(INGRESS)
            .context("the embedded object has no ingress program")?;
        Ok(program.try_into()?)
    }

    /// The egress program; in the kernel only if [`Config::flows`].
    ///
    /// # Errors
    /// If the object is not ours.
    pub fn egress(&mut self) -> crate::Result<&mut SchedClassifier> {
        let program: &mut Program = self
            .ebpf
            .program_mut(EGRESS)
            .context("the embedded object has no egress program")?;
        Ok(program.try_into()?)
    }

    /// Handles of its tables.
    ///
    /// # Errors
    /// If the object is not ours.
    pub fn tables(&self) -> crate::Result<Tables> {
        Tables::of(&self.ebpf)
    }

    /// Names the program of the generation before this one that decides when this one is overdue.
    ///
    /// # Errors
    /// What the kernel refused: a program of another kind, above all.
    pub fn set_previous(&mut self, direction: Direction, program: &ProgramFd) -> crate::Result<()> {
        let name = previous(direction);
        let mut previous: ProgramArray<&mut MapData> = map(&mut self.ebpf, name)?.try_into()?;
        previous
            .set(0, program, 0)
            .with_context(|| format!("cannot put the previous program into map `{name}`"))
    }

    /// Writes a word of [`portguard_common::abi::control`].
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_control(&mut self, word: u32, value: u64) -> crate::Result<()> {
        let mut control: Array<&mut MapData, u64> = map(&mut self.ebpf, CONTROL)?.try_into()?;
        control
            .set(word, value, 0)
            .context("cannot write map `CONTROL`")
    }

    /// A map by name, to be written.
    ///
    /// # Errors
    /// If the object has no such map.
    pub fn map_mut(&mut self, name: &str) -> crate::Result<&mut Map> {
        map(&mut self.ebpf, name)
    }

    /// A map by name, borrowed.
    ///
    /// # Errors
    /// If the object has no such map.
    pub fn map(&self, name: &str) -> crate::Result<&Map> {
        self.ebpf
            .map(name)
            .with_context(|| format!("the embedded object has no map `{name}`"))
    }
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> crate::Result<&'a mut Map> {
    ebpf.map_mut(name)
        .with_context(|| format!("the embedded object has no map `{name}`"))
}
