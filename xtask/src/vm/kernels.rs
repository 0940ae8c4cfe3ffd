//! The list of kernels.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::arch::Arch;
use crate::workspace::root;

/// A kernel to boot; see `xtask/kernels.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kernel {
    pub(super) id: String,
    pub(super) suite: String,
    pub(super) packages: String,
    #[serde(default)]
    pub(super) arch: Arch,
    #[serde(default)]
    pub(super) required: bool,
    #[serde(default = "yes")]
    pub(super) supported: bool,
    /// Why it is not supported.
    #[serde(default)]
    pub(super) because: String,
    #[serde(default)]
    pub(super) facts: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kernel: Vec<Kernel>,
}

const fn yes() -> bool {
    true
}

pub(super) fn read() -> Result<Vec<Kernel>> {
    let path = root().join("xtask/kernels.toml");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
    let file: File = toml::from_str(&text).with_context(|| format!("in `{}`", path.display()))?;
    Ok(file.kernel)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_list_can_be_read_and_demands_something() {
        let kernels = super::read().unwrap();
        assert!(kernels.iter().any(|kernel| kernel.required));
        for kernel in kernels {
            assert!(kernel.supported || !kernel.required, "{}", kernel.id);
            assert_eq!(kernel.supported, kernel.because.is_empty(), "{}", kernel.id);
        }
    }
}
