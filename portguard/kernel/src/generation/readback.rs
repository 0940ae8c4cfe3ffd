//! Reads a loaded generation's maps back and compares them with the image: what the kernel holds is what was meant.

use std::borrow::Borrow;
use std::thread;

use aya::Pod;
use aya::maps::{Array, Map, MapData};
use portguard_common::abi::{Config, MAX_CELLS};
use portguard_common::tables::Key;

use crate::error::{Context as _, Error, Kind};
use crate::object::{GLOBALS, Tables};
use portguard_policy::image::Image;

/// Values of frozen globals are read whole, up to half a megabyte, through the stack.
const STACK: usize = 32 << 20;

/// Entries of a direction.
const KEYS: usize = Key::COUNT as usize;

/// Compares.
///
/// # Errors
/// [`Error`] naming the first map that differs.
pub fn compare(tables: &Tables, image: &Image, facts: &Config) -> crate::Result<()> {
    let map = |name: &str| tables.map(name);
    array(map("BLOCKS")?, "BLOCKS", &image.blocks)?;
    array(map("STEPS")?, "STEPS", &image.steps)?;
    array(map("FILTER")?, "FILTER", &image.filter)?;
    array(map("NETS")?, "NETS", &image.nets)?;
    array(map("HOSTS")?, "HOSTS", &image.hosts)?;
    array(map("ADMIT")?, "ADMIT", &image.admit)?;
    array(map("ENDINGS")?, "ENDINGS", &image.endings)?;
    globals(tables, image, facts)
}

/// Compares what each object has for itself.
///
/// # Errors
/// As [`compare`].
pub fn globals(tables: &Tables, image: &Image, facts: &Config) -> crate::Result<()> {
    let map = |name: &str| tables.map(name);
    let maps: Vec<&Map> = GLOBALS.into_iter().map(map).collect::<Result<_, _>>()?;
    let compared = thread::scope(|scope| {
        let job = move || {
            let [f, i, o, rules, r4, r6] = maps.as_slice() else {
                return Err(Error::system("six maps were asked for"));
            };
            global(f, ".rodata.config", |there: &Config| there == facts)?;
            global(i, ".rodata.in", |there: &[u16; KEYS]| {
                there[..] == image.inbound
            })?;
            global(o, ".rodata.out", |there: &[u16; KEYS]| {
                there[..] == image.outbound
            })?;
            global(
                rules,
                ".rodata.rules",
                |there: &[u32; MAX_CELLS as usize]| there[..] == image.rules,
            )?;
            global(r4, ".data.root4", |there: &[u32; 65_536]| {
                there[..] == image.root4
            })?;
            global(r6, ".data.root6", |there: &[u32; 65_536]| {
                there[..] == image.root6
            })
        };
        thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, job)
            .map(thread::ScopedJoinHandle::join)
    });
    compared
        .context("cannot start a thread")?
        .map_err(|_panic| Error::system("reading the maps back failed"))?
}

fn differs(name: &str) -> Error {
    Error::new(
        Kind::SelfTest,
        format!("map `{name}` does not hold what was written to it: nothing was changed"),
    )
    .hint("this is a defect of the kernel or of portguard: please report it")
}

fn array<V: Pod + PartialEq>(map: &Map, name: &str, meant: &[V]) -> crate::Result<()> {
    let there: Array<&MapData, V> = map.try_into()?;
    for (value, index) in meant.iter().zip(0..) {
        let read = there
            .get(&index, 0)
            .with_context(|| format!("cannot read map `{name}` back"))?;
        let there: &V = read.borrow();
        if there != value {
            return Err(differs(name));
        }
    }
    Ok(())
}

fn global<V: Pod>(map: &Map, name: &str, same: impl Fn(&V) -> bool) -> crate::Result<()> {
    let there: Array<&MapData, V> = map.try_into()?;
    let read = there
        .get(&0, 0)
        .with_context(|| format!("cannot read map `{name}` back"))?;
    if same(&read) {
        Ok(())
    } else {
        Err(differs(name))
    }
}
