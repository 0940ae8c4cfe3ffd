//! What a shell offers at the tab key.

use anyhow::{Result, ensure};

use crate::guard::{Guarded, LONG};

/// A line up to the word that is being typed, a candidate that must be there, and one that must not.
const ASKED: &[(&str, &str, &str)] = &[
    (
        "portguard check --role wso",
        "wso2/api-manager",
        "nexthink/portal",
    ),
    (
        "portguard check -c site.toml --host ",
        "portal1",
        "site.toml",
    ),
    ("portguard load --interface p", "IF", "portal1"),
    ("portguard explain -c site.toml ", "tcp", "eth0"),
    ("portguard explain -c site.toml tcp ", "engine1", "https"),
    (
        "portguard explain -c site.toml tcp engine1 ht",
        "https",
        "ssh",
    ),
    (
        "portguard catalog show thoughtspot/intracluster-4",
        "thoughtspot/intracluster-443",
        "thoughtspot/node",
    ),
    (
        "portguard events --row nexthink/overview-4",
        "nexthink/overview-443/in",
        "nexthink/portal",
    ),
    ("portguard events --reason mal", "malformed", "icmp"),
    (
        "portguard check --role nexthink/portal --deployment ",
        "on-premises",
        "clustered",
    ),
    ("portguard sta", "status", "load"),
];

#[test]
fn names_that_can_be_known_are_completed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let site = "schema = 1\n[[host]]\nname = \"portal1\"\naddresses = [\"10.0.0.1\"]\nroles = [\"nexthink/portal\"]\n\
                [[host]]\nname = \"engine1\"\naddresses = [\"10.0.0.2\"]\nroles = [\"nexthink/engine\"]\n";
    std::fs::write(directory.path().join("site.toml"), site)?;
    let guarded = Guarded::new()?;
    for (line, wanted, unwanted) in ASKED {
        let wanted = wanted.replace("IF", guarded.interface());
        let words: Vec<&str> = line.split(' ').collect();
        let mut args = vec!["--"];
        args.extend(&words);
        let mut command = Guarded::command(&args);
        command
            .current_dir(directory.path())
            .env("PORTGUARD_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_IFS", "\n");
        let offered = guarded.link.left.host.output(&mut command, LONG)?.stdout;
        ensure!(
            offered.lines().any(|one| one == wanted),
            "{line}: no {wanted} in {offered}"
        );
        ensure!(
            !offered.lines().any(|one| one == *unwanted),
            "{line}: {unwanted} in {offered}"
        );
    }
    Ok(())
}
