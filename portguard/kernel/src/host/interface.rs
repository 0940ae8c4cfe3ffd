//! Network interfaces of this process's network namespace.

use nix::net::if_::{if_nameindex, if_nametoindex};

use portguard_policy::error::Fault;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
}

impl Interface {
    /// Finds an interface by name.
    ///
    /// # Errors
    /// [`Fault`] with the names that there are.
    pub fn find(name: &str) -> Result<Self, Fault> {
        match if_nametoindex(name) {
            Ok(index) => Ok(Self {
                name: name.to_owned(),
                index,
            }),
            Err(_gone) => {
                let there = names();
                let hint = if there.is_empty() {
                    "there is no network interface here".to_owned()
                } else {
                    format!("there are {}", there.join(", "))
                };
                Err(Fault::usage(format!("there is no network interface `{name}`")).hint(hint))
            }
        }
    }
}

impl Interface {
    /// The name of the interface with this index.
    pub fn name_of(index: u32) -> Option<String> {
        let all = if_nameindex().ok()?;
        let found = all.iter().find(|interface| interface.index() == index)?;
        Some(found.name().to_str().ok()?.to_owned())
    }
}

/// Names of all interfaces but loopback.
pub fn names() -> Vec<String> {
    let Ok(all) = if_nameindex() else {
        return Vec::new();
    };
    all.iter()
        .filter_map(|interface| interface.name().to_str().ok())
        .filter(|name| *name != "lo")
        .map(|name| format!("`{name}`"))
        .collect()
}
