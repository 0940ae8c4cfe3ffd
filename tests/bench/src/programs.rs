//! Programs in the kernel, ready to be run on frames; attached to nothing.

use anyhow::{Context as _, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{Program as AyaProgram, ProgramFd, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions};
use ipnet::Ipv6Net;
use portguard_kernel::bench::nanoseconds;
use portguard_kernel::object::Loaded;

static REFERENCE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench-reference"));
static VARY: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench-vary"));

/// Which way frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    Ingress,
    Egress,
}

/// A program that frames are given to.
#[derive(Debug)]
pub(crate) enum Program {
    /// One of portguard's.
    Guard(Box<Loaded>, Hook),
    /// One of our own objects', by name.
    Own(Box<Ebpf>, &'static str, Hook),
}

/// A program of [`REFERENCE`].
pub(crate) fn reference(name: &'static str) -> Result<Program> {
    let hook = if name == "bare_tc" {
        Hook::Egress
    } else {
        Hook::Ingress
    };
    let mut loader = EbpfLoader::new();
    if name != "naive" {
        // An element a port and a CPU takes the kernel longer to make than all else here.
        loader
            .map_max_entries("PORTS", 1)
            .map_max_entries("OPEN", 1);
    }
    let mut ebpf = loader.load(REFERENCE)?;
    match name {
        "naive" => open_ports(&mut ebpf)?,
        "lean" => open_classes(&mut ebpf)?,
        _ => {}
    }
    load(&mut ebpf, name)?;
    Ok(Program::Own(Box::new(ebpf), name, hook))
}

/// The program of [`REFERENCE`] that looks sources up in the kernel's own trie, with these networks.
pub(crate) fn trie(networks: impl IntoIterator<Item = Ipv6Net>) -> Result<Program> {
    let networks: Vec<Ipv6Net> = networks.into_iter().collect();
    let mut ebpf = EbpfLoader::new()
        .map_max_entries("PORTS", 1)
        .map_max_entries("OPEN", 1)
        .map_max_entries("TRIE", u32::try_from(networks.len())?)
        .load(REFERENCE)?;
    let map = ebpf.map_mut("TRIE").context("no map `TRIE`")?;
    let mut trie: LpmTrie<&mut MapData, [u8; 16], u32> = map.try_into()?;
    for network in networks {
        let key = Key::new(network.prefix_len().into(), network.network().octets());
        trie.insert(&key, 1, 0)?;
    }
    load(&mut ebpf, "trie")?;
    Ok(Program::Own(Box::new(ebpf), "trie", Hook::Ingress))
}

/// The ports that the policy of the plain cases opens.
const OPEN: [u16; 4] = [22, 80, 443, 5432];
/// The same of UDP.
const OPEN_UDP: u16 = 53;

fn open_ports(ebpf: &mut Ebpf) -> Result<()> {
    let map = ebpf.map_mut("OPEN").context("no map `OPEN`")?;
    let mut open: Array<&mut MapData, u32> = map.try_into()?;
    for port in OPEN {
        open.set(port.into(), 1, 0)?;
    }
    open.set(65_536 + u32::from(OPEN_UDP), 1, 0)?;
    Ok(())
}

fn open_classes(ebpf: &mut Ebpf) -> Result<()> {
    let map = ebpf.map_mut("CLASSES").context("no map `CLASSES`")?;
    let mut classes: Array<&mut MapData, [u8; 65_536]> = map.try_into()?;
    for (space, ports) in [(0, OPEN.as_slice()), (1, &[OPEN_UDP])] {
        let mut table = vec![0; 65_536];
        for port in ports {
            if let Some(class) = table.get_mut(usize::from(*port)) {
                *class = 1;
            }
        }
        let table: Box<[u8; 65_536]> = table.try_into().ok().context("a table of another size")?;
        classes.set(space, table.as_ref(), 0)?;
    }
    Ok(())
}

/// One way to rewrite a frame: an address and ports, in network order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Variation {
    pub(crate) address: [u8; 16],
    pub(crate) ports: [u8; 4],
}

/// Where [`Variation`]s go.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Places {
    /// Offset of the address; 0 = not varied.
    pub(crate) address: u32,
    /// Whether that address is IPv6.
    pub(crate) v6: bool,
    /// Offset of the ports; 0 = not varied.
    pub(crate) ports: u32,
    /// Whether the first cache is filled with something else before each frame.
    pub(crate) cold: bool,
}

impl Variation {
    pub(crate) fn new(address: std::net::IpAddr, source: u16, destination: u16) -> Self {
        let mut bytes = [0; 16];
        match address {
            std::net::IpAddr::V4(v4) => {
                for (to, from) in bytes.iter_mut().zip(v4.octets()) {
                    *to = from;
                }
            }
            std::net::IpAddr::V6(v6) => bytes = v6.octets(),
        }
        let [a, b] = source.to_be_bytes();
        let [c, d] = destination.to_be_bytes();
        Self {
            address: bytes,
            ports: [a, b, c, d],
        }
    }

    /// Applies itself to a frame, as the program does.
    pub(crate) fn apply(&self, frame: &mut [u8], places: Places) {
        let mut put = |at: u32, bytes: &[u8]| {
            if at != 0 {
                let rest = frame
                    .iter_mut()
                    .skip(usize::try_from(at).unwrap_or(usize::MAX));
                rest.zip(bytes).for_each(|(to, from)| *to = *from);
            }
        };
        let length = if places.v6 { 16 } else { 4 };
        put(
            places.address,
            self.address.get(..length).unwrap_or_default(),
        );
        put(places.ports, &self.ports);
    }

    /// As the program has it.
    fn words(&self) -> [u64; 3] {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word.iter_mut()
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
            u64::from_ne_bytes(word)
        };
        let (high, low) = self.address.split_at(8);
        [word(high), word(low), word(&self.ports)]
    }
}

/// The program that rewrites frames, in front of another one.
pub(crate) fn varied(target: &mut Program, ways: &[Variation], places: Places) -> Result<Program> {
    ensure!(
        ways.len().is_power_of_two(),
        "{} variations are no power of two",
        ways.len()
    );
    let count = u32::try_from(ways.len())?;
    let (mask, v6, cold) = (count - 1, u32::from(places.v6), u32::from(places.cold));
    let mut ebpf = EbpfLoader::new()
        .override_global("MASK", &mask, true)
        .override_global("ADDRESS_AT", &places.address, true)
        .override_global("V6", &v6, true)
        .override_global("PORTS_AT", &places.ports, true)
        .override_global("COLD", &cold, true)
        .map_max_entries("WAYS", count)
        .load(VARY)?;
    let map = ebpf.map_mut("WAYS").context("no map `WAYS`")?;
    let mut table: Array<&mut MapData, [u64; 3]> = map.try_into()?;
    for (way, index) in ways.iter().zip(0..) {
        table.set(index, way.words(), 0)?;
    }
    let (name, map) = match target.hook() {
        Hook::Ingress => ("vary_xdp", "PROGRAM"),
        Hook::Egress => ("vary_tc", "PROGRAM_TC"),
    };
    load(&mut ebpf, name)?;
    let fd = target.fd()?;
    let mut next: ProgramArray<&mut MapData> = ebpf
        .map_mut(map)
        .context("no map of programs")?
        .try_into()?;
    next.set(0, &fd, 0)
        .context("the kernel refuses a tail call to the program under test")?;
    Ok(Program::Own(Box::new(ebpf), name, target.hook()))
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    match ebpf.program_mut(name) {
        Some(AyaProgram::Xdp(program)) => program.load()?,
        Some(AyaProgram::SchedClassifier(program)) => program.load()?,
        _ => anyhow::bail!("the object has no program `{name}`"),
    }
    Ok(())
}

/// A program, borrowed to be run.
enum Runnable<'a> {
    Xdp(&'a mut Xdp),
    Tc(&'a mut SchedClassifier),
}

impl Program {
    pub(crate) fn hook(&self) -> Hook {
        match self {
            Self::Guard(_, hook) | Self::Own(_, _, hook) => *hook,
        }
    }

    fn runnable(&mut self) -> Result<Runnable<'_>> {
        match self {
            Self::Guard(loaded, Hook::Ingress) => Ok(Runnable::Xdp(loaded.ingress()?)),
            Self::Guard(loaded, Hook::Egress) => Ok(Runnable::Tc(loaded.egress()?)),
            Self::Own(ebpf, name, _) => match ebpf.program_mut(name) {
                Some(AyaProgram::Xdp(program)) => Ok(Runnable::Xdp(program)),
                Some(AyaProgram::SchedClassifier(program)) => Ok(Runnable::Tc(program)),
                _ => anyhow::bail!("the object has no program `{name}`"),
            },
        }
    }

    /// The program, if it is one for what is received.
    pub(crate) fn xdp(&mut self) -> Result<&mut Xdp> {
        match self.runnable()? {
            Runnable::Xdp(program) => Ok(program),
            Runnable::Tc(_) => anyhow::bail!("no program for the XDP hook"),
        }
    }

    pub(crate) fn fd(&mut self) -> Result<ProgramFd> {
        Ok(match self.runnable()? {
            Runnable::Xdp(program) => program.fd()?.try_clone()?,
            Runnable::Tc(program) => program.fd()?.try_clone()?,
        })
    }

    /// What it answers to a frame.
    pub(crate) fn answer(&mut self, frame: &[u8]) -> Result<u32> {
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        };
        let done = match self.runnable()? {
            Runnable::Xdp(program) => program.test_run(options),
            Runnable::Tc(program) => program.test_run(options),
        };
        Ok(done.context("the kernel refused a test run")?.return_value)
    }

    /// Nanoseconds of CPU time a frame.
    pub(crate) fn time(&mut self, frame: &[u8], repeat: u32) -> Result<f64> {
        Ok(match self.runnable()? {
            Runnable::Xdp(program) => nanoseconds(program, frame, repeat)?,
            Runnable::Tc(program) => nanoseconds(program, frame, repeat)?,
        })
    }
}
