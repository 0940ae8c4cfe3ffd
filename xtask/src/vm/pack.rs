//! The initial file system: programs, modules, and nothing else. An uncompressed cpio archive in the `newc` format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::fetch::Files;
use super::guest::Guest;
use crate::shell::capture;

/// What the checks need of a kernel; modules that a kernel has built in are no files, and are passed over.
const MODULES: [&str; 8] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "8021q",
    "bonding",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
];

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const DEVICE: u32 = 0o020_600;

/// Packs the guest with the modules of a kernel.
pub(super) fn pack(files: &Files, guest: &Guest) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["dev", "m", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    // A process finds these before it has mounted anything.
    archive.entry("dev/console", DEVICE, (5, 1), &[]);
    archive.entry("dev/null", DEVICE, (1, 3), &[]);
    for (name, path) in [("init", &guest.init), ("bin/portguard", &guest.portguard)] {
        let program = fs::read(path).with_context(|| format!("reading `{}`", path.display()))?;
        archive.file(name, PROGRAM, &program);
        for library in libraries(path)? {
            let content = fs::read(&library).with_context(|| format!("reading `{library}`"))?;
            archive.file(library.trim_start_matches('/'), PROGRAM, &content);
        }
    }
    let mut order = String::new();
    for (name, module) in modules(&files.modules)? {
        archive.file(&format!("m/{name}"), FILE, &module);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("m/order", FILE, order.as_bytes());
    Ok(archive.end())
}

/// The shared libraries of a program and its loader, at the paths where it looks for them; a static one has none.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let mut headers = Command::new("readelf");
    headers.arg("--program-headers").arg(program);
    if !capture(&mut headers)?.contains("INTERP") {
        return Ok(Vec::new());
    }
    let said = capture(Command::new("ldd").arg(program))?;
    Ok(said
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect())
}

/// The modules and what they depend on, in the order in which they can be loaded.
fn modules(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = BTreeMap::new();
    find(folder, &mut all)?;
    let mut order = Vec::new();
    for name in MODULES {
        add(name, &all, &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    all: &BTreeMap<String, PathBuf>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let Some(path) = all.get(name) else {
        return Ok(());
    };
    if order.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    let module = read(path)?;
    for needed in depends(&module) {
        add(&needed, all, order)?;
    }
    order.push((name.to_owned(), module));
    Ok(())
}

/// All modules by name, with `_` where a file name has `-`.
fn find(folder: &Path, all: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), all)?;
            continue;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Some((stem, "" | ".xz")) = name.split_once(".ko") {
            all.insert(stem.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|ending| ending == "ko") {
        return fs::read(path).with_context(|| format!("reading `{}`", path.display()));
    }
    let output = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(path)
        .output()
        .context("cannot start `xz`")?;
    anyhow::ensure!(
        output.status.success(),
        "cannot unpack `{}`",
        path.display()
    );
    Ok(output.stdout)
}

/// What a module says that it needs: the string `depends=` of its information section.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// A cpio archive to be.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    names: BTreeSet<String>,
}

impl Archive {
    /// A folder, and those that it is in, once.
    fn folder(&mut self, name: &str) {
        if let Some((above, _)) = name.rsplit_once('/') {
            self.folder(above);
        }
        if self.names.insert(name.to_owned()) {
            self.entry(name, DIRECTORY, (0, 0), &[]);
        }
    }

    /// A file, and the folders that it is in, once.
    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        if let Some((above, _)) = name.rsplit_once('/') {
            self.folder(above);
        }
        if self.names.insert(name.to_owned()) {
            self.entry(name, mode, (0, 0), content);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            u32::try_from(content.len()).unwrap_or(u32::MAX),
            0,
            0,
            device.0,
            device.1,
            u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            // Writing to memory does not fail.
            let _ = write!(self.bytes, "{field:08x}");
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Archive, FILE, depends};

    #[test]
    fn dependencies_are_read_from_the_module() {
        let module = b"\x7fELF...\0license=GPL\0depends=nf_conntrack,crc32c-intel\0name=x\0";
        assert_eq!(depends(module), ["nf_conntrack", "crc32c_intel"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty());
        assert!(depends(b"").is_empty());
    }

    #[test]
    fn an_archive_is_aligned_and_ends_in_its_trailer() {
        let mut archive = Archive::default();
        archive.file("abc", FILE, b"hello");
        let bytes = archive.end();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        // Header of 110 bytes and a name of 4: the content begins at 116.
        assert_eq!(&bytes[110..114], b"abc\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
