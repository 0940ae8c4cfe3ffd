//! What the kernel and the system refuse: each message says what, why, and what to do.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::live::Quiet;
use super::text::settings;

/// What is missing, and how that is brought about; all of it before a guard is there.
const REFUSED: &[(&str, &str)] = &[
    (
        "no permission",
        "setpriv --reuid 65534 --clear-groups $P status",
    ),
    (
        "no capability",
        "setpriv --bounding-set=-all --inh-caps=-all $P load -c site.toml",
    ),
    (
        "one capability less",
        "setpriv --bounding-set=-bpf,-sys_admin --inh-caps=-all $P load -c site.toml",
    ),
    (
        "no BPF file system in mounts of one's own",
        "unshare -m sh -c 'umount -l /sys/fs/bpf; $P load -c site.toml'",
    ),
    (
        "no such interface",
        "$P load -c site.toml --interface none0",
    ),
    (
        "no native XDP",
        "ip link add bridge0 type bridge && ip link set bridge0 up && $P load -c site.toml --interface bridge0; \
         code=$?; ip link del bridge0; exit $code",
    ),
    ("nothing to confirm", "$P confirm"),
    ("nothing to go back to", "$P rollback"),
    ("nothing stored", "$P load --last-good --interface $IF"),
];

/// And of a guard that is there.
const GUARDED: &[(&str, &str)] = &[
    (
        "pins that cannot be read",
        "setpriv --reuid 65534 --clear-groups $P status",
    ),
    (
        "pins that are hidden",
        "unshare -m sh -c 'umount -l /sys/fs/bpf; $P status'",
    ),
    (
        "pins that are hidden, and a change",
        "unshare -m sh -c 'umount -l /sys/fs/bpf; $P unload'",
    ),
    ("no earlier generation", "$P rollback"),
];

#[test]
fn what_the_system_refuses_reads_as_it_did() -> Result<()> {
    let quiet = Quiet::new()?;
    let mut all = String::new();
    let mut tell = |name: &str, line: &str| -> Result<()> {
        let output = quiet.shell(line, 100)?;
        ensure!(output.code() > 1, "{name}: {output}");
        let text = quiet.stable(&output);
        let lines = text
            .lines()
            .map(|line| match line.split_once("XDP program ") {
                Some((before, after)) => format!(
                    "{before}XDP program {}",
                    after.trim_start_matches(char::is_numeric)
                ),
                None => line.to_owned(),
            });
        let text: Vec<String> = lines.collect();
        writeln!(all, "# {name}\n{}\n", text.join("\n"))?;
        let last = output.stderr.lines().last().unwrap_or_default();
        let is_end = ["hint: ", "refused: ", "failed: "]
            .iter()
            .any(|end| last.starts_with(end));
        ensure!(is_end, "{name} says no last word: {output}");
        Ok(())
    };
    for (name, line) in REFUSED {
        tell(name, line)?;
    }
    quiet.run("load -c site.toml", 80)?.success()?;
    for (name, line) in GUARDED {
        tell(name, line)?;
    }
    settings().bind(|| insta::assert_snapshot!("refusals", all));
    Ok(())
}
