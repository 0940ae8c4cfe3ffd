//! Whether an interface is guarded at boot: by a unit that somebody enabled.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Where enabled units have their links.
const UNITS: [&str; 2] = ["/etc/systemd/system", "/run/systemd/system"];

/// Whether the unit that guards an interface is enabled: something wants or requires it.
pub fn is_enabled(interface: &str) -> bool {
    UNITS
        .iter()
        .any(|units| is_wanted(Path::new(units), interface))
}

fn is_wanted(units: &Path, interface: &str) -> bool {
    // Who enables a unit rarely escapes what need not be.
    let names = [escaped(interface), interface.to_owned()];
    let names = names.map(|name| format!("portguard@{name}.service"));
    let entries = fs::read_dir(units).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let name = path.to_string_lossy();
        let is_links = name.ends_with(".wants") || name.ends_with(".requires");
        is_links
            && names
                .iter()
                .any(|unit| path.join(unit).symlink_metadata().is_ok())
    })
}

/// Whether this host is part of a fleet, whose agent guards it: by the file that its unit reads.
pub fn has_fleet() -> bool {
    let text = fs::read_to_string("/etc/portguard/agent.conf").unwrap_or_default();
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

    #[test]
    fn units_are_found_by_both_ways_to_write_a_name() {
        assert_eq!(escaped("eth0.100"), "eth0.100");
        assert_eq!(escaped("br-lan"), "br\\x2dlan");
        let units = std::env::temp_dir().join(format!("portguard-units-{}", std::process::id()));
        let wants = units.join("sys-subsystem-net-devices-br\\x2dlan.device.wants");
        fs::create_dir_all(&wants).unwrap();
        assert!(!is_wanted(&units, "br-lan"));
        let link = wants.join("portguard@br\\x2dlan.service");
        std::os::unix::fs::symlink("/nowhere", link).unwrap();
        assert!(is_wanted(&units, "br-lan") && !is_wanted(&units, "br"));
        fs::remove_dir_all(&units).unwrap();
    }
}
