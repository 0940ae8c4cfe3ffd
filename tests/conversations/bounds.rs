//! A table that is full says so wherever one looks, with how much it holds; and what has no place in it is known by less.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use portguard_common::abi::Set;
use portguard_common::conntrack::{Class, cell};
use portguard_kernel::{conversations, flows};
use serde_json::Value;

use super::translated::Scene;
use super::{OPEN, hears};
use crate::agent::{get, listening};
use crate::guard::{Guarded, eventually};

/// A table's pin, what it is called, and what a full one means.
const TABLES: [(&str, &str, &str); 6] = [
    ("SPILLED", "overflow", "may be violations"),
    ("ENDS_WITH", "translated", "tracked by their packets"),
    ("BOUND", "udp-sockets", "ports of more UDP sockets"),
    ("SERVICES", "services", "look like clients"),
    ("OUTSIDE", "interfaces", "guard fewer"),
    ("THEIRS", "inbound", "raise `flows`"),
];

/// The state of a host's network namespace.
fn directory(guarded: &Guarded) -> Result<PathBuf> {
    let host = &guarded.link.left.host;
    let inode = host.run(|| {
        let link = std::fs::read_link("/proc/thread-self/ns/net")?;
        let link = link.display().to_string();
        let digits = link.chars().filter(char::is_ascii_digit);
        Ok(digits.collect::<String>())
    })?;
    let root = guarded.pins()?;
    let mut above = root.ancestors();
    let found = above.find_map(|above| {
        let all = std::fs::read_dir(above).ok()?.flatten();
        let mut states = all.filter(|one| {
            let name = one.file_name();
            name.to_string_lossy().starts_with("conversations-v")
        });
        states.next().map(|one| one.path())
    });
    let states = std::fs::read_dir(found.context("the states")?)?;
    let mut paths = states.flatten().map(|one| one.path());
    let is_of = |path: &PathBuf| path.display().to_string().ends_with(&inode);
    paths.find(is_of).context("a state of this namespace")
}

/// A map that is filled with entries of nobody's until this is dropped.
struct Filled<K: Pod, V: Pod> {
    map: HashMap<MapData, K, V>,
    keys: Vec<K>,
    room: u64,
}

impl<K: Pod, V: Pod> Filled<K, V> {
    /// Leaves room for so many.
    fn new(pin: &PathBuf, left: usize, key: fn(u32) -> K, value: V) -> Result<Self> {
        let map = MapData::from_pin(pin)?;
        let room = map.info()?.max_entries();
        let mut map: HashMap<MapData, K, V> = Map::HashMap(map).try_into()?;
        let mut keys = Vec::new();
        for number in 0..=room {
            let key = key(number);
            if map.insert(key, value, 0).is_err() {
                break;
            }
            keys.push(key);
        }
        ensure!(keys.len() <= room as usize, "it never fills");
        let mut filled = Self {
            map,
            keys,
            room: room.into(),
        };
        for _ in 0..left {
            filled.take_one()?;
        }
        Ok(filled)
    }

    fn take_one(&mut self) -> Result<()> {
        let key = self.keys.pop().context("one more")?;
        Ok(self.map.remove(&key)?)
    }
}

impl<K: Pod, V: Pod> Drop for Filled<K, V> {
    fn drop(&mut self) {
        while self.take_one().is_ok() {}
    }
}

/// A table of sets whose cells are all of strangers that spoke just now, until this is dropped.
struct FilledSets(Array<MapData, Set>);

impl FilledSets {
    fn new(guarded: &Guarded, pin: &PathBuf) -> Result<Self> {
        let host = &guarded.link.left.host;
        let namespace = host.run(|| conversations::find().context("a state"))?;
        let now = flows::now(namespace.tick_shift())?;
        // Any tags: they are their high bits.
        let cells = std::array::from_fn(|way| cell((way as u64 + 1) << 40, Class::Datagrams, now));
        let mut filled = Self(Map::Array(MapData::from_pin(pin)?).try_into()?);
        filled.all(Set {
            cells,
            ..Set::default()
        })?;
        Ok(filled)
    }

    fn all(&mut self, set: Set) -> Result<()> {
        for index in 0..self.0.len() {
            self.0.set(index, set, 0)?;
        }
        Ok(())
    }
}

impl Drop for FilledSets {
    fn drop(&mut self) {
        let _ = self.all(Set::default());
    }
}

/// What the views say of a table: entries, room, and whether `status` and `flows` warn of it.
fn seen(guarded: &Guarded, name: &str, means: &str) -> Result<(u64, u64, [bool; 2])> {
    let answer = super::flows(guarded)?;
    let mut tables = answer["tables"].as_array().context("tables")?.iter();
    let table = tables.find(|one| one["name"] == name).context("a table")?;
    let number = |key: &str| table[key].as_u64().context("a number");
    let status = guarded.status()?.context("a guard")?;
    let said = status["warnings"].as_array().into_iter().flatten();
    let mut said = said.filter_map(Value::as_str);
    let label = format!("table `{name}`");
    let status = said.any(|one| one.contains(&label) && one.contains(means));
    let text = guarded.run(&["flows".to_owned()], None)?.success()?.stdout;
    Ok((
        number("held")?,
        number("room")?,
        [status, text.contains(&label)],
    ))
}

#[test]
fn a_full_table_is_said_wherever_one_looks() -> Result<()> {
    let guarded = Guarded::new()?;
    guarded.load("--audit", &[OPEN], &[])?;
    let directory = directory(&guarded)?;
    let history = format!("--history={}", directory.with_extension("h").display());
    let host = &guarded.link.left.host;
    let agent = host.start(&mut Guarded::command(&["agent", "--every=1", &history]))?;
    listening(&agent)?;
    let metric = |kind: &str, name: &str| -> Result<Option<u64>> {
        // A busy machine may take longer than a scraper waits.
        let Ok((_, body)) = get(host, "/metrics", "*/*") else {
            return Ok(None);
        };
        let label = format!("portguard_conversation_table_{kind}{{table=\"{name}\"}} ");
        let mut lines = body.lines();
        Ok(lines.find_map(|line| line.strip_prefix(&label)?.parse().ok()))
    };
    for (pin, name, means) in TABLES {
        let (held, room, warned) = seen(&guarded, name, means)?;
        ensure!(held < room && warned == [false; 2], "{name}: {held} {room}");
        let path = directory.join(pin);
        let high = |number| u64::from(number) << 32 | 7;
        let full = |said: (u64, u64, [bool; 2])| -> Result<()> {
            let (held, room, warned) = said;
            ensure!(held == room, "{name}: {held} of {room}");
            ensure!(warned == [true; 2], "{name}: {warned:?}");
            eventually("the metrics say so", || {
                Ok(metric("entries", name)? == Some(room) && metric("room", name)? == Some(room))
            })
        };
        match pin {
            "OUTSIDE" => {
                let _filled = Filled::new(&path, 0, |number| number + (1 << 20), 0_u32)?;
                full(seen(&guarded, name, means)?)?;
            }
            "BOUND" | "SERVICES" => {
                let _filled = Filled::new(&path, 0, high, 0_u32)?;
                full(seen(&guarded, name, means)?)?;
            }
            "THEIRS" => {
                let _filled = FilledSets::new(&guarded, &path)?;
                full(seen(&guarded, name, means)?)?;
            }
            "ENDS_WITH" => {
                let _filled = Filled::new(&path, 0, high, [0_u64; 2])?;
                full(seen(&guarded, name, means)?)?;
            }
            _ => {
                let _filled = Filled::new(&path, 0, high, 0_u64)?;
                full(seen(&guarded, name, means)?)?;
            }
        }
        let (now, _, warned) = seen(&guarded, name, means)?;
        ensure!(now == held && warned == [false; 2], "{name}: {now}");
    }
    Ok(())
}

/// The last that has a place in the table lives as long as its socket, the next as long as it says something.
#[test]
fn beyond_the_bound_a_translated_connection_is_known_by_its_packets() -> Result<()> {
    let scene = Scene::new()?;
    scene.load(&["--enforce", "--confirm-within", "0"])?;
    let pin = directory(&scene.guarded)?.join("ENDS_WITH");
    let key = |number| u64::from(number) << 32 | 7;
    let filled = Filled::new(&pin, 0, key, [0_u64; 2])?;
    ensure!(filled.room == 16_384, "{}", filled.room);
    let mut beyond = scene.open("beyond")?;
    for one in &mut beyond {
        ensure!(hears(&one.opener, &mut one.accepter)?, "{}", one.what);
    }
    drop(filled);
    let mut within = scene.open("within")?;
    std::thread::sleep(Duration::from_secs(super::translated::IDLE + 2));
    for one in &mut within {
        ensure!(hears(&one.opener, &mut one.accepter)?, "{}: cut", one.what);
    }
    // Three of four have other ends.
    let mut cut = 0;
    for one in &mut beyond {
        cut += usize::from(!hears(&one.opener, &mut one.accepter)?);
    }
    ensure!(cut == beyond.len() * 3 / 4, "{cut} of {}", beyond.len());
    Ok(())
}
