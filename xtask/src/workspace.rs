//! Where things are, and who runs this.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository. Asked of cargo at run time, so that a moved clone is found; else where this was built.
pub(crate) fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this, whatever else of that name is on PATH, in the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        // `cargo run` tells us about our own package; a build script must not take that for its own.
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// A program on PATH, or in the folders of system tools that users often do not have there.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|meta| meta.uid() == 0)
}

/// Whether a CI system runs this: nobody answers questions, and the machine is thrown away.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// A folder of the user's: the variable, or a name in the home folder.
pub(crate) fn home(variable: &str, name: &str) -> PathBuf {
    env::var_os(variable).map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(name),
        PathBuf::from,
    )
}

/// A line without the colours of a terminal.
pub(crate) fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut inside = false;
    for char in line.chars() {
        match (inside, char) {
            (false, '\u{1b}') => inside = true,
            (false, char) => plain.push(char),
            (true, 'm') => inside = false,
            (true, _) => {}
        }
    }
    plain
}
