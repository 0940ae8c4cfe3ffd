//! Whether an interface is guarded at boot: by a unit that somebody enabled.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Where enabled units have their links.
const UNITS: [&str; 2] = ["etc/systemd/system", "run/systemd/system"];

/// The agent's, which makes a host part of a fleet.
const AGENT: &str = "portguard-agent.service";

/// What the units of interfaces are made from, where packages and administrators put it.
const TEMPLATES: [&str; 3] = [
    "etc/systemd/system/portguard@.service",
    "usr/lib/systemd/system/portguard@.service",
    "lib/systemd/system/portguard@.service",
];

/// Who guards an interface again that was unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// The agent of a fleet, which runs.
    Agent,
    /// The agent of a fleet, once the next boot starts it.
    AgentAtBoot,
    /// The interface's unit, at the next boot.
    Unit,
}

/// Who guards an interface again, if anybody does. `is_stored`: there is a policy that its unit can load.
pub fn comes_back(interface: &str, is_stored: bool) -> Option<Return> {
    back(Path::new("/"), interface, is_stored)
}

fn back(root: &Path, interface: &str, is_stored: bool) -> Option<Return> {
    let is_agents = is_of_fleet(root);
    if is_agents && is_running(root, AGENT) {
        Some(Return::Agent)
    } else if is_agents && is_wanted(root, &[AGENT.to_owned()]) {
        Some(Return::AgentAtBoot)
    } else if is_stored && is_wanted(root, &guards(interface)) {
        Some(Return::Unit)
    } else {
        None
    }
}

/// Whether the unit that guards an interface is enabled: something wants or requires it.
pub fn is_enabled(interface: &str) -> bool {
    is_wanted(Path::new("/"), &guards(interface))
}

/// The unit to enable so that the next boot guards an interface before the network is up; `None` if it is, or a fleet's agent does, or
/// this host has no such units.
pub fn to_enable(interface: &str) -> Option<String> {
    left_out(Path::new("/"), interface)
}

fn left_out(root: &Path, interface: &str) -> Option<String> {
    let has_units = root.join("run/systemd/system").is_dir()
        && TEMPLATES.iter().any(|unit| root.join(unit).is_file());
    let [unit, _] = guards(interface);
    (has_units && !is_of_fleet(root) && !is_wanted(root, &guards(interface))).then_some(unit)
}

/// Both ways to write it: who enables a unit rarely escapes what need not be.
fn guards(interface: &str) -> [String; 2] {
    let names = [escaped(interface), interface.to_owned()];
    names.map(|name| format!("portguard@{name}.service"))
}

/// Whether something wants or requires a unit of one of these names.
fn is_wanted(root: &Path, names: &[String]) -> bool {
    let folders = UNITS.iter().map(|units| fs::read_dir(root.join(units)));
    let entries = folders.flatten().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let name = path.to_string_lossy();
        let is_links = name.ends_with(".wants") || name.ends_with(".requires");
        is_links
            && names
                .iter()
                .any(|unit| path.join(unit).symlink_metadata().is_ok())
    })
}

/// Whether systemd runs a unit: it keeps such a link for as long.
fn is_running(root: &Path, unit: &str) -> bool {
    let link = format!("run/systemd/units/invocation:{unit}");
    root.join(link).symlink_metadata().is_ok()
}

/// Whether this host is part of a fleet, whose agent guards it: by the file that its unit reads.
pub fn has_fleet() -> bool {
    is_of_fleet(Path::new("/"))
}

fn is_of_fleet(root: &Path) -> bool {
    let text = fs::read_to_string(root.join("etc/portguard/agent.conf")).unwrap_or_default();
    text.lines()
        .any(|line| line.trim_start().starts_with("PORTGUARD_STORE="))
}

/// A name as part of a unit's name, see systemd.unit(5).
pub fn escaped(name: &str) -> String {
    let mut out = String::new();
    for (index, byte) in name.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if index > 0 => out.push('.'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::symlink;

    /// A root of its own, removed when dropped.
    struct Root(std::path::PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let name = format!("portguard-boot-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn enable(&self, by: &str, unit: &str) {
            self.link(&format!("etc/systemd/system/{by}/{unit}"));
        }

        fn link(&self, path: &str) {
            let link = self.0.join(path);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink("/nowhere", link).unwrap();
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn units_are_found_by_both_ways_to_write_a_name() {
        assert_eq!(escaped("eth0.100"), "eth0.100");
        assert_eq!(escaped("br-lan"), "br\\x2dlan");
        let root = Root::new("names");
        let is_enabled = |name: &str| is_wanted(&root.0, &guards(name));
        assert!(!is_enabled("br-lan"));
        root.enable(
            "sys-subsystem-net-devices-br\\x2dlan.device.wants",
            "portguard@br\\x2dlan.service",
        );
        assert!(is_enabled("br-lan") && !is_enabled("br"));
    }

    #[test]
    fn a_unit_is_to_be_enabled_where_systemd_has_it_and_nothing_wants_it() {
        let root = Root::new("left-out");
        let left_out = || left_out(&root.0, "br-lan");
        root.link("usr/lib/other");
        assert_eq!(left_out(), None, "no systemd");
        fs::create_dir_all(root.0.join("run/systemd/system")).unwrap();
        assert_eq!(left_out(), None, "no such units");
        let units = root.0.join("usr/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join("portguard@.service"), "").unwrap();
        let unit = "portguard@br\\x2dlan.service";
        assert_eq!(left_out().as_deref(), Some(unit));
        root.enable("multi-user.target.wants", unit);
        assert_eq!(left_out(), None, "enabled");
        let wants = root.0.join("etc/systemd/system/multi-user.target.wants");
        fs::remove_dir_all(wants).unwrap();
        assert_eq!(left_out().as_deref(), Some(unit));
        fs::create_dir_all(root.0.join("etc/portguard")).unwrap();
        fs::write(
            root.0.join("etc/portguard/agent.conf"),
            "PORTGUARD_STORE=file:/srv\n",
        )
        .unwrap();
        assert_eq!(left_out(), None, "a fleet's");
    }

    #[test]
    fn what_guards_again_is_what_is_enabled_or_runs() {
        let root = Root::new("back");
        let back = |is_stored| back(&root.0, "eth0", is_stored);
        assert_eq!(back(true), None);
        root.enable("multi-user.target.wants", "portguard@eth0.service");
        assert_eq!(back(false), None, "nothing to load");
        assert_eq!(back(true), Some(Return::Unit));
        root.enable("multi-user.target.wants", AGENT);
        root.link(&format!("run/systemd/units/invocation:{AGENT}"));
        assert_eq!(back(true), Some(Return::Unit), "an agent without a fleet");
        fs::create_dir_all(root.0.join("etc/portguard")).unwrap();
        let store = "# ours\nPORTGUARD_STORE=file:/srv/fleet\n";
        fs::write(root.0.join("etc/portguard/agent.conf"), store).unwrap();
        assert_eq!(back(false), Some(Return::Agent));
        let running = format!("run/systemd/units/invocation:{AGENT}");
        fs::remove_file(root.0.join(running)).unwrap();
        assert_eq!(back(false), Some(Return::AgentAtBoot));
        // As the removal of the package leaves it.
        let units = root.0.join("etc/systemd/system/multi-user.target.wants");
        fs::remove_dir_all(units).unwrap();
        assert_eq!(back(true), None);
    }
}
