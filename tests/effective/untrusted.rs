//! A BPF file system that is everybody's to write to: what others made there is not trusted.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::{Lab, Output};
use portguard_kernel::pins::bpffs::Layout;

use crate::guard::LONG;

/// Ways in which somebody else can have made the directory, below a file system of mode 1777, and what is wrong then.
const MADE: [(&str, &str); 4] = [
    (
        "setpriv --reuid 65534 --clear-groups mkdir -p ROOT",
        "belongs to user 65534",
    ),
    ("mkdir -p ROOT && chmod 0777 ROOT", "has mode 0777"),
    ("mkdir -p ROOT && chown 65534 ROOT", "belongs to user 65534"),
    (
        "mkdir -p TOP && chmod 1777 TOP && mkdir -p ROOT",
        "has mode 1777",
    ),
];

#[test]
fn what_somebody_else_made_where_pins_are_is_not_trusted() -> Result<()> {
    let lab = Lab::new()?;
    let link = lab.pair()?;
    let name = &link.left.name;
    let layout = link.left.host.run(|| Ok(Layout::of(name).directory))?;
    let root = layout.parent().context("a root")?;
    let top = root.parent().context("a top")?;
    let portguard = env!("CARGO_BIN_EXE_portguard");
    let run = |made: &str, verb: &str| -> Result<Output> {
        let made = made.replace("ROOT", &root.display().to_string());
        let made = made.replace("TOP", &top.display().to_string());
        let script = format!(
            "mount -t bpf bpf /sys/fs/bpf && chmod 1777 /sys/fs/bpf && {made} && exec {portguard} {verb}"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        command.env_remove("SSH_CONNECTION");
        link.left.host.output(&mut command, LONG)
    };
    let load = format!(
        "load --role thoughtspot/node --interface {name} --audit --unprinted-peers none --unresolved-peers none"
    );
    let verbs = [
        "status",
        "status --json",
        "counters",
        "agent --once",
        "unload",
        &load,
    ];
    for (made, wrong) in MADE {
        for verb in verbs {
            let output = run(made, verb)?;
            let said = format!("{}{}", output.stdout, output.stderr);
            ensure!(output.code() == 3, "{made}: {verb}: {output}");
            for words in ["cannot be trusted", wrong, "chmod 0700"] {
                ensure!(said.contains(words), "{words}: {made}: {verb}: {said}");
            }
        }
    }
    // What root made for root only is good enough, also there.
    let output = run("mkdir -p -m 0700 TOP ROOT", "status")?.success()?;
    ensure!(
        output.stdout.contains("no interface is guarded"),
        "{output}"
    );
    Ok(())
}
