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
        "a kernel that is too old",
        "PORTGUARD_PRETEND=kernel=4.18.0-553.el8.x86_64 $P load -c site.toml",
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

/// What is missing and refuses nothing: it is said by the verb that looks, by the one that loads, and as long as it lasts.
const LESS: &[(&str, &str)] = &[
    (
        "a kernel that is too old",
        "export PORTGUARD_PRETEND=kernel=4.18.0-553.el8.x86_64; $P doctor | awk \"$(only kernel xdp features sockets)\"",
    ),
    (
        "a kernel that is older than frames in several buffers, TCX, and cookies of network namespaces",
        "export PORTGUARD_PRETEND=kernel=5.10.0-35-amd64; $P doctor | awk \"$(only sockets large-frames egress-hook)\"",
    ),
    (
        "no BTF",
        "export PORTGUARD_PRETEND=no-btf; $P doctor | awk \"$(only udp-ports)\"; $P load -c site.toml; \
         $P status | sed -n '/warning/,$p'; $P unload",
    ),
    (
        "no cgroup v2",
        "export PORTGUARD_PRETEND=no-cgroup2; $P doctor | awk \"$(only sockets)\"; $P load -c site.toml; \
         $P status | sed -n '/warning/,$p'; $P unload",
    ),
];

/// Of what `doctor` prints, what it says of some checks.
const ONLY: &str = r#"only() { echo "/^  [a-z]/ { is = / ($(echo $* | tr ' ' '|')) / } is"; }; "#;

#[test]
fn what_a_kernel_lacks_is_said_with_what_follows_and_what_to_do() -> Result<()> {
    let quiet = Quiet::new()?;
    let mut all = String::new();
    for (name, line) in LESS {
        let output = quiet.shell(&format!("{ONLY}{line}"), 80)?.success()?;
        let text = quiet.stable(&output);
        let wide = text.lines().find(|line| line.chars().count() > 80);
        ensure!(wide.is_none(), "{name}: {wide:?}");
        writeln!(all, "# {name}\n{text}\n")?;
    }
    settings().bind(|| insta::assert_snapshot!("kernels", all));
    Ok(())
}

#[test]
fn what_the_system_refuses_reads_as_it_did() -> Result<()> {
    let quiet = Quiet::new()?;
    let mut all = String::new();
    let mut tell = |name: &str, line: &str, columns: u16| -> Result<()> {
        let output = quiet.shell(line, columns)?;
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
        // Further in stands what goes on.
        let mut records = output
            .stderr
            .lines()
            .filter(|line| !line.starts_with("    "));
        let last = records.next_back().unwrap_or_default();
        let is_end = ["hint: ", "refused: ", "failed: "]
            .iter()
            .any(|end| last.starts_with(end));
        ensure!(is_end, "{name} says no last word: {output}");
        Ok(())
    };
    for (name, line) in REFUSED {
        tell(name, line, 80)?;
    }
    quiet.run("load -c site.toml", 80)?.success()?;
    // Where a line wraps depends on the program's number.
    for (name, line) in GUARDED {
        tell(name, line, 1000)?;
    }
    settings().bind(|| insta::assert_snapshot!("refusals", all));
    Ok(())
}
