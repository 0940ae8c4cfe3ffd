//! Drift with what real hosts have: a service with its unit, a container behind a rule of the packet filter, and traffic
//! both ways.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use portguard_harness::net::{End, Host, Lab, Link, Process, unique_name};
use portguard_harness::traffic::{TcpEcho, connect, udp_socket};
use serde_json::Value;

use crate::guard::{Guarded, LONG, SOON, eventually};
use crate::living::town::{Site, TCP, UDP};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Listens without a document.
const SERVICE: u16 = 7_100;
/// Handed on to a container, where it is port 80: alone, and as a range.
const PUBLISHED: u16 = 7_200;
const RANGE: (u16, u16) = (7_300, 7_310);
/// Asked for by the host itself, without a document.
const OUTSIDE: u16 = 9_999;

/// A control group with the name of a unit; as empty at the end as it was.
struct Unit(PathBuf);

impl Unit {
    fn new() -> Result<Self> {
        // The hierarchy that systemd names: the old one where there is one, else the one of all.
        let old = Path::new("/sys/fs/cgroup/systemd");
        let root = if old.is_dir() {
            old
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let path = root.join(format!("{}.service", unique_name("pgu")));
        std::fs::create_dir(&path)
            .with_context(|| format!("this test needs to make `{}`", path.display()))?;
        Ok(Self(path))
    }

    fn name(&self) -> Result<String> {
        let name = self.0.file_name().context("a name")?;
        Ok(name.to_string_lossy().into_owned())
    }

    /// Starts a web server in it, and waits until it accepts.
    fn serve(&self, host: &Host, port: u16) -> Result<Process> {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec busybox httpd -f -p {port} -h /",
            self.0.display()
        );
        serve(host, Command::new("sh").args(["-c", &script]), port)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // Whoever was in it has ended; the kernel may still count them for a moment.
        let _ = eventually("the control group is empty", || {
            Ok(std::fs::remove_dir(&self.0).is_ok())
        });
    }
}

fn serve(host: &Host, command: &mut Command, port: u16) -> Result<Process> {
    let mut process = host.start(command)?;
    let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    eventually("the service listens", || {
        if let Some(status) = process.wait(Duration::ZERO)? {
            bail!("it ended ({status}): {}", process.stderr());
        }
        host.run(|| Ok(connect(target, SOON).is_connected()))
    })?;
    Ok(process)
}

/// The answer of drift, and its exit code.
fn drift(guarded: &Guarded) -> Result<(i32, Value)> {
    let args = ["drift", "--json", "--interface", guarded.interface()];
    let output = guarded.run(&args.map(str::to_owned), None)?;
    ensure!(output.code() <= 1, "{output}");
    Ok((output.code(), serde_json::from_str(&output.stdout)?))
}

fn item<'v>(answer: &'v Value, direction: &str, port: u16) -> Result<&'v Value> {
    let items = answer["items"].as_array().context("items")?;
    let item = items
        .iter()
        .find(|item| item["direction"] == direction && item["port_first"] == port);
    item.with_context(|| format!("no {direction} {port} in {answer:#}"))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(key, _)| key.as_str()).collect()
}

/// A container with a web server, and the rules that hand it on.
struct Container {
    web: Process,
    /// Kept: a namespace lives as long as its hosts.
    _link: Link,
}

impl Container {
    fn publish(guarded: &Guarded) -> Result<Self> {
        let host = &guarded.link.left.host;
        let container = Lab::new()?.host("container")?;
        let inside = Lab::new()?.connect(
            host,
            &End::new(&unique_name("pgc")).address("172.17.7.1/24"),
            &container,
            &End::new(&unique_name("pgd")).address("172.17.7.2/24"),
        )?;
        let back = Some(inside.left.v4().into());
        inside.right.add_route("10.77.0.0/24".parse()?, back)?;
        host.sysctl("net/ipv4/ip_forward", "1")?;
        let mut httpd = Command::new("busybox");
        httpd.args(["httpd", "-f", "-p", "80", "-h", "/"]);
        let web = serve(&container, &mut httpd, 80)?;
        let rules = format!(
            "table ip nat {{ chain DOCKER {{ type nat hook prerouting priority dstnat; \
             iifname != \"{}\" tcp dport {PUBLISHED} counter dnat to 172.17.7.2:80; \
             udp dport {}-{} dnat to 172.17.7.2\n }}\n }}\n",
            inside.left.name, RANGE.0, RANGE.1
        );
        host.output(Command::new("nft").arg(&rules), LONG)?
            .success()?;
        Ok(Self { web, _link: inside })
    }
}

fn check_traffic(answer: &Value, peer: Ipv4Addr) -> Result<()> {
    let used = item(answer, "out", 8_001)?;
    assert_eq!(used["state"], "documented-used");
    assert!(used["passed"].as_u64() >= Some(3), "{used}");
    assert_eq!(item(answer, "out", 80)?["state"], "documented-never-used");
    assert_eq!(item(answer, "in", TCP)?["state"], "documented-used");
    let outside = item(answer, "out", OUTSIDE)?;
    assert_eq!(outside["state"], "undocumented-traffic-seen");
    assert_eq!(outside["violations"], 1, "{outside}");
    assert_eq!(outside["callers"][0]["peer"], peer.to_string());
    Ok(())
}

/// What is handed on, alone and as a range, and who is behind it.
fn check_published(answer: &Value, web: &Process) -> Result<()> {
    let published = item(answer, "in", PUBLISHED)?;
    assert_eq!(published["state"], "published-undocumented");
    assert_eq!(published["listeners"], Value::Array(vec![]));
    assert_eq!(published["published"][0]["to"], "172.17.7.2:80");
    assert!(published["violations"].as_u64() >= Some(3), "{published}");
    let behind = published["behind"].as_array().context("behind")?;
    let is_web = |one: &Value| one["processes"][0]["pid"] == web.id();
    assert!(behind.iter().any(is_web), "{published:#}");
    let range = item(answer, "in", RANGE.0)?;
    assert_eq!(
        (&range["port_last"], &range["state"]),
        (&RANGE.1.into(), &"published-undocumented".into())
    );
    Ok(())
}

/// What scripts rely on.
fn check_schema(answer: &Value) -> Result<()> {
    let published = item(answer, "in", PUBLISHED)?;
    assert_eq!(
        keys(answer),
        BTreeSet::from([
            "schema",
            "roles",
            "digest",
            "interfaces",
            "since",
            "windows",
            "findings",
            "mismatches",
            "unread",
            "states",
            "items",
            "portless"
        ])
    );
    assert_eq!(
        keys(published),
        BTreeSet::from([
            "direction",
            "transport",
            "port_first",
            "port_last",
            "state",
            "interface",
            "finding",
            "mismatch",
            "rows",
            "purposes",
            "citations",
            "listeners",
            "published",
            "behind",
            "passed",
            "violations",
            "callers",
            "traffic",
        ])
    );
    let findings: Vec<&str> = answer["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|item| item["finding"] == true)
        .filter_map(|item| item["state"].as_str())
        .collect();
    assert_eq!(answer["findings"], findings.len());
    assert_eq!(findings.len(), 3, "{findings:?}");
    let mismatches = answer["items"].as_array().into_iter().flatten();
    let mismatches = mismatches.filter(|item| item["mismatch"] == true);
    let mismatches: Vec<_> = mismatches
        .map(|item| (&item["state"], &item["port_first"]))
        .collect();
    assert_eq!(answer["mismatches"], mismatches.len());
    assert_eq!(mismatches.len(), 1, "{mismatches:?}");
    for state in findings {
        assert!(answer["states"][state].as_u64() >= Some(1), "{state}");
    }
    Ok(())
}

#[test]
fn units_containers_and_traffic_both_ways_are_named() -> Result<()> {
    let guarded = Guarded::new()?;
    let link = &guarded.link;
    let host = &link.left.host;
    Site::new("audit")?.load(&guarded, &["--audit"])?;

    // All that is documented is there and nothing else is: nothing to say, and that is the exit code.
    let _door = TcpEcho::start(host, (ANY, TCP).into())?;
    let _bell = host.run(|| udp_socket((ANY, UDP).into()))?;
    let (code, clean) = drift(&guarded)?;
    assert_eq!((code, &clean["findings"]), (0, &0.into()), "{clean:#}");
    assert_eq!(clean["schema"], 1);
    assert_eq!(
        item(&clean, "in", TCP)?["state"],
        "documented-listening-unused"
    );
    assert_eq!(item(&clean, "out", 80)?["state"], "documented-never-used");

    // Both ways, as documented and not.
    let _outside = TcpEcho::start(&link.right.host, (ANY, 8_001).into())?;
    let there = |port| SocketAddr::new(link.right.v4().into(), port);
    let here = |port| SocketAddr::new(link.left.v4().into(), port);
    host.run(|| {
        ensure!(connect(there(8_001), SOON).is_connected());
        ensure!(connect(there(OUTSIDE), SOON).is_refused());
        Ok(())
    })?;
    link.right.host.run(|| {
        ensure!(connect(here(TCP), SOON).is_connected());
        Ok(())
    })?;

    let unit = Unit::new()?;
    let service = unit.serve(host, SERVICE)?;
    let container = Container::publish(&guarded)?;
    link.right.host.run(|| {
        // Past the host's own sockets.
        ensure!(connect(here(PUBLISHED), SOON).is_connected());
        ensure!(connect(here(SERVICE), SOON).is_connected());
        Ok(())
    })?;

    let (code, answer) = drift(&guarded)?;
    assert_eq!(code, 1);
    check_traffic(&answer, link.right.v4())?;
    let open = item(&answer, "in", SERVICE)?;
    assert_eq!(open["state"], "listening-undocumented");
    let process = &open["listeners"][0]["processes"][0];
    assert_eq!(process["pid"], service.id());
    assert_eq!(
        (&process["name"], &process["unit"]),
        (&"busybox".into(), &unit.name()?.into())
    );
    check_published(&answer, &container.web)?;
    check_schema(&answer)?;

    // In words: who, and where to.
    let args = ["drift", "--interface", guarded.interface()].map(str::to_owned);
    let text = guarded.run(&args, None)?.stdout;
    for words in [
        format!("busybox ({})", unit.name()?),
        "-> 172.17.7.2:80".to_owned(),
    ] {
        assert!(text.contains(&words), "{words}: {text}");
    }
    drop(service);
    Ok(())
}

/// A process may have any name: it is shown as far as it is text, and does nothing to a terminal.
#[test]
fn names_of_processes_need_not_be_text() -> Result<()> {
    const NAME: &[u8] = b"s\xff\x1b[2Jx";
    let guarded = Guarded::new()?;
    Site::new("audit")?.load(&guarded, &["--audit"])?;
    let found = std::env::var_os("PATH").context("PATH")?;
    let busybox = std::env::split_paths(&found).map(|folder| folder.join("busybox"));
    let busybox = busybox.into_iter().find(|file| file.exists());
    let folder = tempfile::tempdir()?;
    let program = folder.path().join(OsStr::from_bytes(NAME));
    symlink(busybox.context("busybox")?, &program)?;
    let mut command = Command::new(&program);
    let port = SERVICE.to_string();
    command.arg0("httpd").args(["-f", "-p", &port, "-h", "/"]);
    let _service = serve(&guarded.link.left.host, &mut command, SERVICE)?;
    let (_, answer) = drift(&guarded)?;
    let process = &item(&answer, "in", SERVICE)?["listeners"][0]["processes"][0];
    ensure!(process["name"] == "s\u{fffd}\u{1b}[2Jx", "{process}");
    let args = ["drift", "--interface", guarded.interface()].map(str::to_owned);
    let text = guarded.run(&args, None)?.stdout;
    ensure!(
        text.contains("s\u{fffd}") && !text.contains('\u{1b}'),
        "{text:?}"
    );
    Ok(())
}
