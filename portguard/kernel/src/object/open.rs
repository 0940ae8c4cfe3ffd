//! From the object in this file to programs that the kernel has taken: its maps first, then the verifier.

use std::num::NonZero;
use std::path::Path;
use std::thread;

use aya::programs::{SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;
use portguard_common::abi::Config;

use super::refusal::refused;
use super::{EGRESS, HostFacts, INGRESS, Loaded, NAMESPACE, OBJECT, SHARED, TABLES, Tables};
use crate::error::Context as _;
use crate::flows;
use crate::host::{above, local, owners};
use crate::machine;
use portguard_policy::image::Image;

/// The first kernel that knows XDP programs for frames in several pieces.
const FRAGS: KernelVersion = KernelVersion::new(5, 18, 0);

/// Which maps are not an object's alone, and how large its own are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Placing<'a> {
    /// Directory of the maps named in [`SHARED`]: reused from there, or created there.
    pub shared: Option<&'a Path>,
    /// Directory of those named in [`NAMESPACE`], likewise.
    pub namespace: Option<&'a Path>,
    /// Directory of those named in [`TABLES`], likewise.
    pub tables: Option<&'a Path>,
    /// Leave room in the tables for addresses to come.
    pub room: bool,
}

impl Placing<'_> {
    /// How many elements a table of so many gets: a quarter more, and at least 64.
    fn entries(&self, count: usize) -> u32 {
        let more = if self.room { count / 4 + 64 } else { 0 };
        u32::try_from(count + more).unwrap_or(u32::MAX)
    }
}

/// An object whose maps are in the kernel, and whose programs are not yet.
#[derive(Debug)]
pub struct Opened {
    ebpf: Ebpf,
    facts: Config,
    local: Vec<IpNet>,
}

/// Loads with frames in several pieces, and where the kernel is too old for that, without.
///
/// # Errors
/// Those of the last attempt.
pub fn as_kernel_allows<T>(attempt: impl Fn(bool) -> crate::Result<T>) -> crate::Result<T> {
    match attempt(true) {
        // Some distributions gave frames in several pieces to older kernels, so that asking is better than knowing.
        Err(_) if machine::version().is_some_and(|running| running < FRAGS) => attempt(false),
        result => result,
    }
}

/// Makes the maps of the object for an image, once for each of these: with such facts, in such places. Globals are filled, the
/// tables not: see [`Tables::fill`]. What has a place in one of them has it in those that follow, too.
///
/// # Errors
/// What the kernel refused.
pub fn open<const N: usize>(
    image: &Image,
    objects: [(Config, Placing<'_>); N],
    frags: bool,
) -> crate::Result<[Opened; N]> {
    let older;
    let object = if frags {
        OBJECT
    } else {
        older = without_frags(OBJECT);
        &older
    };
    let objects = objects.map(|(facts, placing)| {
        let multi_buffer = facts.multi_buffer & u32::from(frags);
        let facts = Config {
            multi_buffer,
            ..facts
        };
        (facts, placing)
    });
    let (asked, tracked, first) = (owners::bit(), owners::tracking(), owners::first());
    let places = above::places();
    let is_scoped = objects.iter().any(|(facts, _)| facts.scoped != 0);
    let kept = if is_scoped {
        local::prefixes()?
    } else {
        Vec::new()
    };
    let words = local::words(&kept)?;
    // One loader for all: a new one reads the kernel's own types, which takes longer than all else here. Nothing in the object
    // depends on their layout.
    let mut loader = EbpfLoader::new();
    loader
        .btf(None)
        .override_global(owners::GLOBAL, &asked, true)
        .override_global(owners::TRACKING, &tracked, true)
        .override_global(owners::FIRST, &first, true)
        .override_global(above::GLOBAL, places.as_slice(), true)
        .override_global(local::GLOBAL, words.as_slice(), true)
        .override_global("IN", image.inbound.as_slice(), true)
        .override_global("OUT", image.outbound.as_slice(), true)
        .override_global("RULES", image.rules.as_slice(), true)
        .override_global("ROOT4", image.root4.as_slice(), true)
        .override_global("ROOT6", image.root6.as_slice(), true);
    let mut opened = Vec::new();
    for (facts, placing) in &objects {
        loader.override_global("CONFIG", facts, true);
        place(&mut loader, image, facts, *placing)?;
        let ebpf = loader
            .load(object)
            .map_err(|error| refused("object", error.into()))?;
        opened.push(Opened {
            ebpf,
            facts: *facts,
            local: kept.clone(),
        });
    }
    opened
        .try_into()
        .map_err(|_others: Vec<Opened>| crate::Error::system("as many objects as were asked for"))
}

/// Says how large the maps are, and where those are that have a place.
fn place(
    loader: &mut EbpfLoader<'_>,
    image: &Image,
    facts: &Config,
    placing: Placing<'_>,
) -> crate::Result<()> {
    let flow_sets = if facts.flows == 0 {
        1
    } else {
        facts.flow_mask + 1
    };
    loader
        .map_max_entries("BLOCKS", placing.entries(image.blocks.len()))
        .map_max_entries("STEPS", placing.entries(image.steps.len()))
        .map_max_entries("FILTER", u32::try_from(image.filter.len())?)
        .map_max_entries("NETS", u32::try_from(image.nets.len())?)
        .map_max_entries("HOSTS", u32::try_from(image.hosts.len())?)
        .map_max_entries("ADMIT", placing.entries(image.admit.len()))
        .map_max_entries("ENDINGS", u32::try_from(image.endings.len())?)
        .map_max_entries("FLOWS", flow_sets)
        .map_max_entries("THEIRS", flow_sets)
        .map_max_entries("SPILLED", spilled(flow_sets));
    let places = [
        (placing.shared, SHARED.as_slice()),
        (placing.namespace, NAMESPACE.as_slice()),
        (placing.tables, TABLES.as_slice()),
    ];
    for (directory, names) in places {
        let Some(directory) = directory else { continue };
        for name in names {
            loader.map_pin_path(name, directory.join(name));
        }
    }
    Ok(())
}

/// An image's facts as this host is to have them.
pub fn facts(of: &Config, host: &HostFacts) -> Config {
    Config {
        multi_buffer: u32::from(host.multi_buffer),
        tick_shift: host.tick_shift,
        flow_key: host.flow_key,
        deadline: host.deadline,
        flow_mask: host.flow_sets.map_or(of.flow_mask, |sets| sets.max(1) - 1),
        raw_ip: u32::from(host.raw_ip),
        card: host.card.0.into(),
        card_address: host.card.1,
        picked_ports: u32::from(host.picked_ports.0) << 16 | u32::from(host.picked_ports.1),
        no_fast_path: u32::from(host.raw_ip || of.scoped != 0),
        tcp_idle: flows::units(of.tcp_idle, host.tick_shift),
        udp_idle: flows::units(of.udp_idle, host.tick_shift),
        ..*of
    }
}

/// Room of the overflow table: it takes no memory before it is used, but for eight bytes or so each.
pub(crate) const fn spilled(sets: u32) -> u32 {
    sets * 2
}

impl Opened {
    /// Handles of the tables, which do not depend on this one.
    ///
    /// # Errors
    /// If the object is not ours.
    pub fn tables(&self) -> crate::Result<Tables> {
        Tables::of(&self.ebpf)
    }

    /// The facts as this host has them.
    pub fn facts(&self) -> &Config {
        &self.facts
    }

    /// What it is once [`verify`] has come back without an error.
    pub fn into_loaded(self) -> Loaded {
        let Self { ebpf, facts, local } = self;
        Loaded { ebpf, facts, local }
    }

    /// What the kernel has to take, the longest first.
    fn jobs(&mut self) -> crate::Result<Vec<Job<'_>>> {
        let with_egress = self.facts.flows != 0;
        let (mut ingress, mut egress) = (None, None);
        for (name, program) in self.ebpf.programs_mut() {
            match name {
                INGRESS => ingress = Some(program),
                EGRESS if with_egress => egress = Some(program),
                _ => {}
            }
        }
        let absent = |name| format!("the embedded object has no program `{name}`");
        let mut jobs = Vec::new();
        if with_egress {
            let program = egress.with_context(|| absent(EGRESS))?;
            jobs.push(Job::Egress(program.try_into()?));
        }
        let program = ingress.with_context(|| absent(INGRESS))?;
        jobs.push(Job::Ingress(program.try_into()?));
        Ok(jobs)
    }
}

/// A program that the kernel has to take.
enum Job<'a> {
    Ingress(&'a mut Xdp),
    Egress(&'a mut SchedClassifier),
}

impl Job<'_> {
    fn run(self) -> crate::Result<()> {
        match self {
            Self::Ingress(program) => program
                .load()
                .map_err(|error| refused(INGRESS, error.into())),
            Self::Egress(program) => program
                .load()
                .map_err(|error| refused(EGRESS, error.into())),
        }
    }
}

/// Has the kernel take the programs of objects at the same time, as far as there are CPUs, since its verifier is most of
/// what a load takes; and does something else beside that.
///
/// # Errors
/// What the kernel refused, and the errors of what is done `meanwhile`.
pub fn verify(
    objects: &mut [&mut Opened],
    meanwhile: impl FnOnce() -> crate::Result<()>,
) -> crate::Result<()> {
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let mut jobs = Vec::new();
    for opened in objects {
        jobs.extend(opened.jobs()?);
    }
    // The first job is the longest: it has a CPU to itself, and the others share the rest.
    let mut lanes: Vec<Vec<Job<'_>>> = Vec::new();
    for (job, index) in jobs.into_iter().zip(0usize..) {
        let lane = index.min(cpus.max(2) - 1);
        match lanes.get_mut(lane) {
            Some(lane) => lane.push(job),
            None => lanes.push(vec![job]),
        }
    }
    thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .into_iter()
            .map(|lane| scope.spawn(move || lane.into_iter().try_for_each(Job::run)))
            .collect();
        let beside = meanwhile();
        for thread in threads {
            thread
                .join()
                .map_err(|_panic| crate::Error::system("loading a program failed"))??;
        }
        beside
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
