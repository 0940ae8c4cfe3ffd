//! What drops less than what is in force takes a word; what is switched off stays off.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Output;
use portguard_harness::traffic::{TcpEcho, connect, exchange_tcp};
use serde_json::Value;

use crate::guard::{Guarded, LONG, SOON};

/// A guarded host with a site file and a state directory of its own.
pub(crate) struct Site {
    pub(crate) guarded: Guarded,
    directory: PathBuf,
}

impl Site {
    pub(crate) fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let directory = std::env::temp_dir().join(format!("{}-site", guarded.interface()));
        std::fs::create_dir_all(&directory)?;
        Ok(Self { guarded, directory })
    }

    /// Where it keeps its state.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The site file.
    pub(crate) fn file(&self) -> String {
        self.directory.join("site.toml").display().to_string()
    }

    /// Writes the site: what it says first, and what the host says beside its name, address and role.
    pub(crate) fn write(&self, head: &str, host: &str) -> Result<()> {
        let text = format!(
            "schema = 1\n{head}\nunprinted_peers = [\"192.0.2.0/24\"]\nunresolved_peers = \"none\"\n\
             [management]\nallow = [\"udp/7000\"]\n\
             [systems.thoughtspot]\nversion = \"10\"\nchoices = {{ directory-port = \"636\", mail-port = \"587\" }}\n\
             [[host]]\nname = \"here\"\naddresses = [\"10.77.0.1\"]\nroles = [\"thoughtspot/node\"]\n{host}\n"
        );
        Ok(std::fs::write(self.file(), text)?)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Guarded::command(args);
        command.env("STATE_DIRECTORY", &self.directory);
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    /// Runs `ip` on the guarded host.
    fn ip(&self, args: &[&str]) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(args);
        let done = self.guarded.link.left.host.output(&mut ip, LONG)?;
        done.success().map(drop)
    }

    pub(crate) fn load(&self, more: &[&str]) -> Result<Output> {
        let file = self.file();
        let mut args = vec!["load", "-c", &file, "--interface", self.guarded.interface()];
        args.extend(more);
        self.run(&args)
    }

    /// Inbound and outbound, as they are.
    pub(crate) fn effective(&self) -> Result<(String, String)> {
        let status = self.guarded.status()?.context("a guard")?;
        let now = &status["effective"];
        let word = |key: &str| now[key].as_str().unwrap_or_default().to_owned();
        Ok((word("inbound"), word("outbound")))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A way to drop less: what the site says before and after, with the host's own lines, and the words that allow it.
struct Way {
    before: (&'static str, &'static str),
    after: (&'static str, &'static str),
    named: &'static str,
    hint: &'static str,
    words: &'static [&'static str],
}

const ENFORCE: &str = "mode = \"enforce\"";

/// In the order of what they weaken: the mode, the direction, some ports, rows or roles, and what is judged at all.
fn ways() -> Vec<Way> {
    const WEAKER: &[&str] = &["--allow-weaker"];
    let way = |before, after, named, hint, words| Way {
        before,
        after,
        named,
        hint,
        words,
    };
    let mode = "inbound: enforce -> audit";
    let list = |after| {
        let before = "mode = \"enforce\"\nstrict_ethertypes = true\nallowed_ethertypes = [\"lldp\", \"lacp\"]";
        way(
            (before, ""),
            (after, ""),
            "EtherTypes",
            "--allow-weaker",
            WEAKER,
        )
    };
    vec![
        way(
            (ENFORCE, ""),
            ("mode = \"audit\"", ""),
            mode,
            "site.toml:2",
            &["--audit"],
        ),
        way((ENFORCE, ""), ("", ""), mode, "below `schema`", WEAKER),
        way(
            (ENFORCE, ""),
            (ENFORCE, "mode = \"audit\""),
            mode,
            "site.toml:14",
            &["--audit"],
        ),
        way(
            (ENFORCE, ""),
            (ENFORCE, "interfaces = { IF = { mode = \"audit\" } }"),
            mode,
            "site.toml:14",
            &["--audit"],
        ),
        way(
            ("mode = \"enforce\"\noutbound = \"enforce\"", ""),
            ("mode = \"enforce\"\noutbound = \"audit\"", ""),
            "outbound: enforce -> audit",
            "site.toml:3",
            &["--outbound", "audit"],
        ),
        way(
            (ENFORCE, ""),
            (ENFORCE, "audit_ports = [\"udp/7003\"]"),
            "udp/7003-7003",
            "--allow-weaker",
            WEAKER,
        ),
        way(
            (ENFORCE, "audit_ports = [\"udp/7003\"]"),
            (ENFORCE, "audit_ports = [\"udp/7003-7004\"]"),
            "udp/7003-7004",
            "--allow-weaker",
            WEAKER,
        ),
        way(
            (ENFORCE, ROW),
            (ENFORCE, ROW_IN_AUDIT),
            "rows that are only audited: site/door",
            "--allow-weaker",
            WEAKER,
        ),
        way(
            (ENFORCE, ""),
            (ENFORCE, "audit_roles = [\"thoughtspot/node\"]"),
            "rows that are only audited: thoughtspot/",
            "--allow-weaker",
            WEAKER,
        ),
        way(
            ("mode = \"enforce\"\nstrict_fragments = true", ""),
            (ENFORCE, ""),
            "fragments",
            "--allow-weaker",
            WEAKER,
        ),
        list(ENFORCE),
        list(
            "mode = \"enforce\"\nstrict_ethertypes = true\nallowed_ethertypes = [\"lldp\", \"lacp\", \"mpls\"]",
        ),
        list("mode = \"enforce\"\nstrict_ethertypes = true"),
        way(
            (ENFORCE, ""),
            ("mode = \"enforce\"\nscope = \"host-addresses\"", ""),
            "scope all -> host-addresses",
            "--allow-weaker",
            WEAKER,
        ),
    ]
}

const ROW: &str = "[[row]]\nname = \"door\"\ndirection = \"in\"\ntransport = \"udp\"\nports = [7003]\n\
                   peers = [\"192.0.2.1\"]\nreason = \"a test\"";
const ROW_IN_AUDIT: &str = "[[row]]\nname = \"door\"\ndirection = \"in\"\ntransport = \"udp\"\nports = [7003]\n\
                            peers = [\"192.0.2.1\"]\nreason = \"a test\"\naudit = true";

#[test]
fn what_is_weaker_is_refused_with_the_line_to_change() -> Result<()> {
    let site = Site::new()?;
    let name = site.guarded.interface().to_owned();
    let write = |(head, host): (&str, &str)| site.write(head, &host.replace("IF", &name));
    for (loads, way) in (1_u64..).step_by(2).zip(ways()) {
        write(way.before)?;
        site.load(&["--allow-weaker"])?.success()?;
        write(way.after)?;
        let refused = site.load(&[])?;
        ensure!(refused.code() == 2, "{:?}: {refused:?}", way.after);
        for part in [way.named, way.hint, "nothing was changed"] {
            ensure!(refused.stderr.contains(part), "{part}: {refused:?}");
        }
        let status = site.guarded.status()?.context("a guard")?;
        ensure!(status["generation"] == loads, "{}: {status}", way.named);
        site.load(way.words)?.success()?;
    }
    // From here on it is no weaker than what is in force, and what is stricter takes no word.
    site.load(&[])?.success()?;
    write((ENFORCE, ""))?;
    site.load(&[])?.success()?;
    // Back to what drops less: it is said.
    let back = site.run(&["rollback", "--interface", &name])?.success()?;
    ensure!(
        back.stderr.contains("scope all -> host-addresses"),
        "{back}"
    );
    Ok(())
}

#[test]
fn what_gave_way_is_not_lost_by_what_is_weaker() -> Result<()> {
    let site = Site::new()?;
    site.write("mode = \"enforce\"", "")?;
    site.load(&["--confirm-within", "1ns"])?.success()?;
    ensure!(site.effective()?.0 == "audit");
    site.write("mode = \"audit\"", "")?;
    site.load(&[])?.success()?;
    Ok(())
}

#[test]
fn the_last_good_policy_is_held_to_the_same_and_rollback_says_what_is_lost() -> Result<()> {
    let site = Site::new()?;
    let name = site.guarded.interface();
    site.write("mode = \"audit\"", "")?;
    site.load(&[])?.success()?;
    site.load(&["--enforce", "--confirm-within", "1h"])?
        .success()?;
    // Not confirmed, so that the audited policy is still the last good one.
    let last_good = ["load", "--last-good", "--interface", name];
    let refused = site.run(&last_good)?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains("inbound: enforce -> audit"),
        "{refused:?}"
    );
    let output = site.run(&["rollback", "--interface", name])?.success()?;
    ensure!(
        output
            .stderr
            .contains("less is dropped now: inbound: enforce -> audit"),
        "{output:?}"
    );
    // A site that says audit is named, where something enforces.
    let output = site.load(&["--enforce"])?.success()?;
    ensure!(
        output.stderr.contains("still says audit") && output.stderr.contains("site.toml:2"),
        "{output:?}"
    );
    Ok(())
}

/// The unit and the udev rule ask nobody: a stranger who found the host open for a moment must not keep it so.
#[test]
fn the_last_good_policy_is_loaded_whoever_has_a_session() -> Result<()> {
    let site = Site::new()?;
    let name = site.guarded.interface();
    site.write("mode = \"enforce\"", "")?;
    site.load(&[])?.success()?;
    site.run(&["unload", "--interface", name])?.success()?;
    let (left, right) = (&site.guarded.link.left, &site.guarded.link.right);
    let server = TcpEcho::start(&left.host, SocketAddr::new(left.v4().into(), 7008))?;
    let mut stranger = right
        .host
        .run(|| connect(server.address(), SOON).stream())?;
    ensure!(exchange_tcp(&mut stranger, b"hello", SOON)?);
    let output = site.run(&["load", "--last-good", "--interface", name])?;
    let output = output.success()?;
    ensure!(output.stderr.contains("tcp port 7008"), "{output:?}");
    ensure!(site.effective()?.0 == "enforce");
    ensure!(
        !exchange_tcp(&mut stranger, b"hello", SOON)?,
        "it is still heard"
    );
    Ok(())
}

/// By somebody who is there, it is looked at as any other: the session by which he is there, and the deadline.
#[test]
fn the_last_good_policy_cuts_off_nobody_who_loads_it() -> Result<()> {
    let site = Site::new()?;
    let name = site.guarded.interface().to_owned();
    let last_good = |more: &[&str]| -> Result<Output> {
        let args = [&["load", "--last-good", "--interface", &name], more].concat();
        let mut command = Guarded::command(&args);
        command.env("STATE_DIRECTORY", &site.directory);
        command.env("SSH_CONNECTION", "10.77.0.2 50000 10.77.0.1 22");
        site.guarded.link.left.host.output(&mut command, LONG)
    };
    let unload = || site.run(&["unload", "--interface", &name])?.success();
    let left = || -> Result<Option<u64>> {
        let status = site.guarded.status()?.context("a guard")?;
        Ok(status["confirm_seconds_left"].as_u64())
    };
    site.write(ENFORCE, "")?;
    site.load(&[])?.success()?;
    unload()?;
    let refused = last_good(&[])?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains("your own SSH connection"),
        "{refused}"
    );
    ensure!(site.guarded.status()?.is_none());
    last_good(&["--force", "--confirm-within", "0"])?.success()?;
    ensure!(left()?.is_none());
    unload()?;
    // With a way in it is loaded, and gives way unless somebody confirms.
    let way_in = ROW
        .replace("udp", "tcp")
        .replace("7003", "22")
        .replace("192.0.2.1", "10.77.0.0/24");
    site.write(ENFORCE, &way_in)?;
    site.load(&[])?.success()?;
    unload()?;
    let loaded = last_good(&[])?.success()?;
    ensure!(loaded.stderr.contains("stays open"), "{loaded}");
    ensure!(
        left()?.is_some_and(|left| (60..=120).contains(&left)),
        "{:?}",
        left()?
    );
    Ok(())
}

#[test]
fn what_is_switched_off_stays_off_until_somebody_loads() -> Result<()> {
    let site = Site::new()?;
    let name = site.guarded.interface();
    site.write("mode = \"enforce\"", "")?;
    site.load(&[])?.success()?;
    let policy = site.directory.join(format!("{name}.policy.json"));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&policy)?);
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let unload = ["unload", "--interface", name];
    let output = site.run(&[&unload[..], &["--json"]].concat())?.success()?;
    let answer: Value = serde_json::from_str(&output.stdout)?;
    ensure!(
        answer["comes_back"].as_array().is_some_and(Vec::is_empty),
        "{answer}"
    );
    let last_good = ["load", "--last-good", "--interface", name];
    site.run(&last_good)?.success()?;
    ensure!(site.effective()?.0 == "enforce");
    let output = site
        .run(&[&unload[..], &["--stay-off"]].concat())?
        .success()?;
    ensure!(output.stderr.contains("stays off"), "{output:?}");
    // What the unit does at boot.
    let output = site.run(&last_good)?.success()?;
    ensure!(output.stderr.contains("stays off"), "{output:?}");
    ensure!(site.guarded.status()?.is_none());
    let output = site.run(&["status"])?.success()?;
    ensure!(output.stdout.contains("stays off"), "{output:?}");
    site.load(&[])?.success()?;
    ensure!(
        site.run(&["status"])?
            .success()?
            .stdout
            .contains("inbound enforce")
    );
    site.run(&unload)?.success()?;
    site.run(&last_good)?.success()?;
    ensure!(site.effective()?.0 == "enforce");
    Ok(())
}

#[test]
fn interfaces_need_no_name_where_the_site_or_the_host_leaves_one_only() -> Result<()> {
    let site = Site::new()?;
    let file = site.file();
    site.write("", "")?;
    // The only one that there is; the host finds itself by its address.
    site.run(&["load", "-c", &file])?.success()?;
    site.run(&["unload"])?.success()?;
    site.ip(&["link", "add", "second", "type", "bridge"])?;
    let asked = site.run(&["load", "-c", &file])?;
    ensure!(
        asked.code() == 2 && asked.stderr.contains("which interface"),
        "{asked:?}"
    );
    let name = site.guarded.interface();
    site.write("", &format!("interfaces = {{ {name} = {{}} }}"))?;
    site.run(&["load", "-c", &file])?.success()?;
    ensure!(site.guarded.status()?.is_some());
    Ok(())
}

#[test]
fn alternative_names_are_names() -> Result<()> {
    let site = Site::new()?;
    let name = site.guarded.interface();
    let alternative = format!("an-alternative-name-of-{name}");
    site.ip(&[
        "link",
        "property",
        "add",
        "dev",
        name,
        "altname",
        &alternative,
    ])?;
    site.write("", "")?;
    let file = site.file();
    site.run(&["load", "-c", &file, "--interface", &alternative])?
        .success()?;
    ensure!(site.guarded.status()?.is_some(), "it is called by its name");
    let output = site
        .run(&["counters", "--interface", &alternative])?
        .success()?;
    ensure!(output.stdout.starts_with(name), "{output:?}");
    site.run(&["unload", "--interface", &alternative])?
        .success()?;
    ensure!(site.guarded.status()?.is_none());
    Ok(())
}

/// What a site says of an interface holds, by whichever of its names.
#[test]
fn a_site_may_call_an_interface_by_an_alternative_name() -> Result<()> {
    let site = Site::new()?;
    let name = site.guarded.interface();
    let alternative = format!("another-name-of-{name}");
    site.ip(&[
        "link",
        "property",
        "add",
        "dev",
        name,
        "altname",
        &alternative,
    ])?;
    let audit = "{ mode = \"audit\" }";
    let file = site.file();
    let enforce = "mode = \"enforce\"";
    site.write(
        enforce,
        &format!("interfaces = {{ {alternative} = {audit} }}"),
    )?;
    for more in [
        &[][..],
        &["--interface", name],
        &["--interface", &alternative],
    ] {
        let loaded = site
            .run(&[&["load", "-c", &file], more].concat())?
            .success()?;
        ensure!(!loaded.stderr.contains("has no interface"), "{loaded}");
        let status = site.guarded.status()?.context("a guard")?;
        ensure!(
            status["effective"]["inbound"] == "audit",
            "{more:?}: {status}"
        );
    }
    site.write(
        enforce,
        &format!("interfaces = {{ {alternative} = {audit}, {name} = {{}} }}"),
    )?;
    let refused = site.run(&["load", "-c", &file])?;
    ensure!(
        refused.code() == 2 && refused.stderr.contains("are one interface"),
        "{refused}"
    );
    Ok(())
}

#[test]
fn what_was_unloaded_before_can_still_be_switched_off() -> Result<()> {
    let site = Site::new()?;
    site.write("mode = \"audit\"", "")?;
    site.load(&[])?.success()?;
    site.run(&["unload"])?.success()?;
    let off = site.run(&["unload", "--stay-off"])?.success()?;
    ensure!(off.stderr.contains("stays off until"), "{off}");
    let name = site.guarded.interface();
    let back = site.run(&["load", "--last-good", "--interface", name])?;
    ensure!(back.stderr.contains("stays off"), "{back}");
    ensure!(site.guarded.status()?.is_none());
    Ok(())
}
