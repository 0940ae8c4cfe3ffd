//! The embedded eBPF object: loads it with an image in its maps. Attaching is elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, anyhow};
use aya::maps::{Array, HashMap as BpfHashMap, Map, MapData, MapInfo, ProgramArray};
use aya::programs::{Program, ProgramFd, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use portguard_common::abi::{Block, Facts, Host6, Step};
use portguard_common::reason::Direction;

use crate::error::Fault;
use crate::flows;
use crate::image::Image;
use crate::kernel::preflight::missing_capabilities;
use crate::kernel::shape::Shape;

/// The object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portguard-ebpf"));

/// Name of the ingress program.
pub const INGRESS: &str = "portguard_xdp";

/// Name of the egress program.
pub const EGRESS: &str = "portguard_tc";

/// Maps that outlive a generation: counters, who knocked, events and flows.
pub const SHARED: [&str; 7] = [
    "CELLS",
    "VIOLATIONS",
    "CARRY",
    "SLOTS",
    "KNOCKS",
    "EVENTS",
    "FLOWS",
];

/// Name of the map that holds the program of the generation before.
const fn previous(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "PREVIOUS_IN",
        Direction::Egress => "PREVIOUS_OUT",
    }
}

/// The first kernel that knows XDP programs for frames in several pieces.
const FRAGS: KernelVersion = KernelVersion::new(5, 18, 0);

/// What only the loading host knows.
#[derive(Debug, Clone, Copy)]
pub struct HostFacts {
    /// See [`Facts::multi_buffer`].
    pub multi_buffer: bool,
    /// See [`Facts::tick_shift`].
    pub tick_shift: u32,
    /// See [`Facts::flow_key`].
    pub flow_key: [u64; 2],
    /// See [`Facts::deadline`].
    pub deadline: u64,
}

impl Default for HostFacts {
    fn default() -> Self {
        Self {
            multi_buffer: true,
            tick_shift: 8,
            flow_key: [0; 2],
            deadline: 0,
        }
    }
}

/// An object in the kernel, filled and verified, attached to nothing.
#[derive(Debug)]
pub struct Loaded {
    /// aya's view of it.
    pub ebpf: Ebpf,
    /// The facts as loaded.
    pub facts: Facts,
}

/// Loads the object with an image; the maps named in [`SHARED`] are reused from `shared`, or created there, if given.
///
/// The egress program is loaded only where there is a flow table ([`Facts::flows`]). A flow table that is there already
/// keeps its size, whatever the image asks for: its flows are worth more.
///
/// # Errors
/// What the kernel refused: memory, privileges, or the program (then with the end of the verifier's log).
pub fn load(image: &Image, host: &HostFacts, shared: Option<&Path>) -> anyhow::Result<Loaded> {
    let mut facts = Facts {
        multi_buffer: u32::from(host.multi_buffer),
        tick_shift: host.tick_shift,
        flow_key: host.flow_key,
        deadline: host.deadline,
        tcp_idle: flows::units(image.facts.tcp_idle, host.tick_shift),
        udp_idle: flows::units(image.facts.udp_idle, host.tick_shift),
        ..image.facts
    };
    if let Some(sets) = shared.and_then(|shared| MapInfo::from_pin(shared.join("FLOWS")).ok()) {
        facts.flow_mask = sets.max_entries().max(1) - 1;
    }
    match load_object(OBJECT, image, facts, shared) {
        // Some distributions gave frames in several pieces to older kernels, so that asking is better than knowing.
        Err(_) if KernelVersion::current().is_ok_and(|running| running < FRAGS) => {
            facts.multi_buffer = 0;
            load_object(&without_frags(OBJECT), image, facts, shared)
        }
        result => result,
    }
}

fn load_object(
    object: &[u8],
    image: &Image,
    facts: Facts,
    shared: Option<&Path>,
) -> anyhow::Result<Loaded> {
    let pins: BTreeMap<&str, PathBuf> = shared
        .map(|directory| {
            SHARED
                .iter()
                .map(|name| (*name, directory.join(name)))
                .collect()
        })
        .unwrap_or_default();
    let flow_sets = if facts.flows == 0 {
        1
    } else {
        facts.flow_mask + 1
    };
    let mut loader = EbpfLoader::new();
    loader
        .override_global("FACTS", &facts, true)
        .override_global("IN", image.inbound.as_slice(), true)
        .override_global("OUT", image.outbound.as_slice(), true)
        .override_global("RULES", image.rules.as_slice(), true)
        .override_global("ROOT4", image.root4.as_slice(), true)
        .override_global("ROOT6", image.root6.as_slice(), true)
        .map_max_entries("BLOCKS", entries(image.blocks.len()))
        .map_max_entries("STEPS", entries(image.steps.len()))
        .map_max_entries("HOSTS", entries(image.hosts.len()))
        .map_max_entries("ADMIT", entries(image.admit.len()))
        .map_max_entries("OWN", entries(image.own.len().max(1)))
        .map_max_entries("FLOWS", flow_sets);
    for (name, path) in &pins {
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader
        .load(object)
        .map_err(|error| refused("object", error.into()))?;
    fill(&mut ebpf, image)?;
    verify(&mut ebpf, facts.flows != 0)?;
    Ok(Loaded { ebpf, facts })
}

/// Has the kernel take the programs: both at the same time, since its verifier is most of what a load takes.
fn verify(ebpf: &mut Ebpf, with_egress: bool) -> anyhow::Result<()> {
    let (mut ingress, mut egress) = (None, None);
    for (name, program) in ebpf.programs_mut() {
        match name {
            INGRESS => ingress = Some(program),
            EGRESS if with_egress => egress = Some(program),
            _ => {}
        }
    }
    let absent = |name| format!("the embedded object has no program `{name}`");
    let ingress: &mut Xdp = ingress.with_context(|| absent(INGRESS))?.try_into()?;
    thread::scope(|scope| {
        let other = egress.map(|program| {
            scope.spawn(move || -> anyhow::Result<()> {
                let egress: &mut SchedClassifier = program.try_into()?;
                egress.load().map_err(|error| refused(EGRESS, error.into()))
            })
        });
        ingress
            .load()
            .map_err(|error| refused(INGRESS, error.into()))?;
        match other {
            Some(thread) => thread
                .join()
                .map_err(|_panic| anyhow!("loading the egress program failed"))?,
            None if with_egress => Err(anyhow!(absent(EGRESS))),
            None => Ok(()),
        }
    })
}

/// The object with its ingress program in a section that means frames in one piece: what older kernels take.
fn without_frags(object: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"xdp.frags\0";
    let mut object = object.to_vec();
    let places: Vec<usize> = object
        .windows(NAME.len())
        .enumerate()
        .filter(|(_, window)| *window == NAME)
        .map(|(place, _)| place)
        .collect();
    for place in places {
        if let Some(dot) = object.get_mut(place + 3) {
            *dot = 0;
        }
    }
    object
}

/// The shapes that pinned shared maps must have to be reused.
///
/// # Errors
/// If the embedded object cannot be read.
pub fn shared_shapes() -> anyhow::Result<Vec<(&'static str, Shape)>> {
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
                max_entries: (*name != "FLOWS").then(|| map.max_entries()),
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
    pub fn ingress(&mut self) -> anyhow::Result<&mut Xdp> {
        let program: &mut Program = self
            .ebpf
            .program_mut(INGRESS)
            .context("the embedded object has no ingress program")?;
        Ok(program.try_into()?)
    }

    /// The egress program; in the kernel only if [`Facts::flows`].
    ///
    /// # Errors
    /// If the object is not ours.
    pub fn egress(&mut self) -> anyhow::Result<&mut SchedClassifier> {
        let program: &mut Program = self
            .ebpf
            .program_mut(EGRESS)
            .context("the embedded object has no egress program")?;
        Ok(program.try_into()?)
    }

    /// Names the program of the generation before this one that decides when this one is overdue.
    ///
    /// # Errors
    /// What the kernel refused: a program of another kind, above all.
    pub fn set_previous(
        &mut self,
        direction: Direction,
        program: &ProgramFd,
    ) -> anyhow::Result<()> {
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
    pub fn set_control(&mut self, word: u32, value: u64) -> anyhow::Result<()> {
        let mut control: Array<&mut MapData, u64> = map(&mut self.ebpf, "CONTROL")?.try_into()?;
        control
            .set(word, value, 0)
            .context("cannot write map `CONTROL`")
    }

    /// A map by name, to be written.
    ///
    /// # Errors
    /// If the object has no such map.
    pub fn map_mut(&mut self, name: &str) -> anyhow::Result<&mut Map> {
        map(&mut self.ebpf, name)
    }

    /// A map by name, borrowed.
    ///
    /// # Errors
    /// If the object has no such map.
    pub fn map(&self, name: &str) -> anyhow::Result<&Map> {
        self.ebpf
            .map(name)
            .with_context(|| format!("the embedded object has no map `{name}`"))
    }
}

fn entries(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Fills the maps that are no frozen globals.
fn fill(ebpf: &mut Ebpf, image: &Image) -> anyhow::Result<()> {
    let mut blocks: Array<&mut MapData, Block> = map(ebpf, "BLOCKS")?.try_into()?;
    for (block, index) in image.blocks.iter().zip(0..) {
        blocks
            .set(index, block, 0)
            .context("cannot fill map `BLOCKS`")?;
    }
    let mut steps: Array<&mut MapData, Step> = map(ebpf, "STEPS")?.try_into()?;
    for (step, index) in image.steps.iter().zip(0..) {
        steps
            .set(index, step, 0)
            .context("cannot fill map `STEPS`")?;
    }
    let mut hosts: Array<&mut MapData, Host6> = map(ebpf, "HOSTS")?.try_into()?;
    for (host, index) in image
        .hosts
        .iter()
        .zip(0..)
        .filter(|(host, _)| host.class != 0)
    {
        hosts
            .set(index, host, 0)
            .context("cannot fill map `HOSTS`")?;
    }
    let mut admit: Array<&mut MapData, u32> = map(ebpf, "ADMIT")?.try_into()?;
    for (word, index) in image.admit.iter().zip(0..).filter(|(word, _)| **word != 0) {
        admit
            .set(index, word, 0)
            .context("cannot fill map `ADMIT`")?;
    }
    let mut own: BpfHashMap<&mut MapData, [u64; 3], u32> = map(ebpf, "OWN")?.try_into()?;
    for address in &image.own {
        own.insert(address.words(), 1, 0)
            .context("cannot fill map `OWN`")?;
    }
    Ok(())
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Map> {
    ebpf.map_mut(name)
        .with_context(|| format!("the embedded object has no map `{name}`"))
}

/// Says what a refusal of the kernel means.
fn refused(what: &str, error: anyhow::Error) -> anyhow::Error {
    let errno = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error);
    let text = format!("{error:#}");
    let missing = missing_capabilities().unwrap_or_default();
    let fault = match errno {
        // Whatever it says then: without them it says all kinds of things.
        _ if !missing.is_empty() => Fault::system(format!(
            "the kernel refused the guard's program (`{what}`): this process lacks {}",
            missing.join(", ")
        ))
        .hint("run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        Some(1 | 13) if !text.contains("verifier") || text.contains("processed 0 insns") => {
            Fault::system("the kernel does not let this process load eBPF programs")
                .hint("run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
        }
        Some(12) => Fault::system("the kernel has no memory left for the guard's maps")
            .hint("see `portguard doctor` for what the policy needs"),
        _ => Fault::system(format!("the kernel refused the guard's program (`{what}`)"))
            .hint(format!("the end of what it said:\n{}", tail(&text, 12))),
    };
    error.context(fault)
}

/// The last lines of a text.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use aya_obj::{Object, ProgramSection};

    use super::{INGRESS, OBJECT, without_frags};

    #[test]
    fn older_kernels_get_a_program_for_frames_in_one_piece() {
        let section = |object: &[u8]| {
            let object = Object::parse(object).expect("an object");
            object
                .programs
                .get(INGRESS)
                .expect("a program")
                .section
                .clone()
        };
        assert!(matches!(
            section(OBJECT),
            ProgramSection::Xdp { frags: true, .. }
        ));
        assert!(matches!(
            section(&without_frags(OBJECT)),
            ProgramSection::Xdp { frags: false, .. }
        ));
    }
}
