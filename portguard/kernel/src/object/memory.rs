//! How much kernel memory maps take, as the kernel accounts for it.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Map, MapData};

use crate::error::Context as _;
use crate::object::{Loaded, NAMESPACE, SHARED};

/// Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// The tables of one generation.
    pub generation: u64,
    /// What generations share, flows included, but for the counters.
    pub shared: u64,
    /// Counters, on each CPU that the kernel has room for.
    pub per_cpu: u64,
}

/// Of an object in the kernel.
///
/// # Errors
/// If the kernel does not say.
pub fn of(loaded: &Loaded) -> crate::Result<Memory> {
    let cpus = u64::try_from(aya::util::nr_cpus().map_err(|(file, error)| {
        crate::Error::from(error).context(format!("cannot read `{file}`"))
    })?)?;
    let mut memory = Memory::default();
    for (name, map) in loaded.ebpf.maps() {
        let bytes = bytes(data(map)?).with_context(|| format!("map `{name}`"))?;
        if matches!(map, Map::PerCpuArray(_) | Map::PerCpuHashMap(_)) {
            memory.per_cpu += bytes / cpus;
        } else if SHARED.contains(&name) || NAMESPACE.contains(&name) {
            memory.shared += bytes;
        } else {
            memory.generation += bytes;
        }
    }
    Ok(memory)
}

/// What every kind of map has.
///
/// # Errors
/// If the object has no such kind.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "maps have many kinds, of which the object has these"
)]
pub(crate) fn data(map: &Map) -> crate::Result<&MapData> {
    Ok(match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data) => data,
        other => {
            return Err(crate::Error::system(format!(
                "a map of a kind that the object does not have: {other:?}"
            )));
        }
    })
}

/// What the kernel says of a map's descriptor.
fn bytes(map: &MapData) -> crate::Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let line = line.with_context(|| format!("`{path}` says no `memlock`"))?;
    Ok(line.trim().parse()?)
}
