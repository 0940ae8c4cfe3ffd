//! Domain names whose addresses change while the agent runs: the new ones pass, the old ones stop, nothing else notices.

pub(crate) mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hickory_resolver::proto::op::ResponseCode;
use portguard_harness::net::{Host, Process};
use portguard_harness::traffic::receive_datagram;
use serde_json::Value;

use self::server::NameServer;
use super::agent::{get, listening};
use super::guard::{Guarded, LONG, eventually, listen};

/// Open to the domain name.
const NAMED: u16 = 7_000;
/// Open to everybody.
const OPEN: u16 = 7_001;
const OLD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NEW: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 77);
const SERVER: &str = "127.0.0.1:5353";

fn site(guarded: &Guarded) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("{}.toml", guarded.interface()));
    let text = format!(
        "schema = 1\nmode = \"enforce\"\nunprinted_peers = [\"192.0.2.0/24\"]\nunresolved_peers = \"none\"\nunresolved_ports = \"none\"\n\
         [management]\nallow = [\"udp/{NAMED}=domain:Peer.example\", \"udp/{OPEN}\"]\n\
         [[host]]\nname = \"guarded\"\naddresses = [\"10.77.0.1\"]\nroles = [\"wso2/identity-server\"]\n"
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

fn agent(guarded: &Guarded, more: &[&str]) -> Result<Process> {
    let mut args = vec![
        "agent",
        "--every=1",
        "--min-ttl=1",
        "--hold=0",
        "--log=json",
    ];
    args.extend(["--resolver", SERVER]);
    let history = std::env::temp_dir().join(format!("{}-history", guarded.interface()));
    let history = format!("--history={}", history.display());
    args.push(&history);
    args.extend(more);
    guarded.link.left.host.start(&mut Guarded::command(&args))
}

/// Asking takes as long as name servers take: what is wrong without them is said first.
#[test]
fn nobody_is_asked_for_names_while_something_else_is_wrong() -> Result<()> {
    let guarded = Guarded::new()?;
    let names = NameServer::start(&guarded.link.left.host, SERVER.parse()?)?;
    names.answer(Ok(vec![OLD.into()]));
    let good = site(&guarded)?;
    let wrong = good.with_extension("wrong.toml");
    let text = std::fs::read_to_string(&good)?;
    std::fs::write(&wrong, text.replace("unprinted_peers", "# unprinted_peers"))?;
    let run = |verb: &str, site: &Path| {
        let site = site.to_str().context("a path")?;
        let name = guarded.interface();
        let args = [
            verb,
            "-c",
            site,
            "--host",
            "guarded",
            "--interface",
            name,
            "--resolver",
            SERVER,
        ];
        guarded.run(&args.map(str::to_owned), None)
    };
    // Of a policy with errors; and of one that would be promoted where nothing is guarded.
    for (verb, site, said) in [
        ("load", &wrong, "error[unprinted-peers]"),
        ("promote", &wrong, "is not guarded"),
        ("promote", &good, "is not guarded"),
    ] {
        let output = run(verb, site)?;
        ensure!(
            output.code() == 2 && output.stderr.contains(said),
            "{verb}: {output}"
        );
        assert_eq!(names.asked(), 0, "{verb}: {output}");
    }
    run("load", &good)?.success()?;
    ensure!(names.asked() > 0);
    for site in [good, wrong] {
        std::fs::remove_file(site)?;
    }
    Ok(())
}

/// Who sends, and who receives.
type Threads = (JoinHandle<Result<u64>>, JoinHandle<Result<()>>);

/// Sends from an address of the peer until told to end, each burst when the one before has arrived.
struct Stream {
    ended: Arc<AtomicBool>,
    threads: Option<Threads>,
}

impl Stream {
    fn start(guarded: &Guarded, from: Ipv4Addr, port: u16) -> Result<Self> {
        const BURST: u64 = 16;
        let socket = listen(guarded, port)?;
        let target = SocketAddr::from(([10, 77, 0, 1], port));
        let (ended, received) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (over, arrived) = (ended.clone(), received.clone());
        let receiver = std::thread::spawn(move || -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                let soon = Instant::now() + Duration::from_millis(50);
                while receive_datagram(&socket, soon)?.is_some() {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let over = ended.clone();
        let sender = guarded.link.right.host.background(move || {
            let socket = UdpSocket::bind((from, 0))?;
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                for _ in 0..BURST {
                    socket.send_to(b"on", target)?;
                }
                sent += BURST;
                let deadline = Instant::now() + Duration::from_secs(5);
                while received.load(Ordering::Relaxed) < sent {
                    let count = received.load(Ordering::Relaxed);
                    ensure!(
                        Instant::now() < deadline,
                        "{count} of {sent} to {port} arrived"
                    );
                    std::thread::yield_now();
                }
            }
            Ok(sent)
        });
        Ok(Self {
            ended,
            threads: Some((sender, receiver)),
        })
    }

    /// How many were sent, all of which arrived.
    fn end(mut self) -> Result<u64> {
        self.ended.store(true, Ordering::Relaxed);
        let (sender, receiver) = self.threads.take().context("ended twice")?;
        let sent = sender.join().expect("no panic")?;
        receiver.join().expect("no panic")?;
        Ok(sent)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Whether one datagram from an address of the peer arrives.
fn passes(guarded: &Guarded, socket: &UdpSocket, from: Ipv4Addr) -> Result<bool> {
    guarded.link.right.host.run(|| {
        UdpSocket::bind((from, 0))?.send_to(b"?", (guarded.link.left.v4(), NAMED))?;
        Ok(())
    })?;
    let found = receive_datagram(socket, Instant::now() + Duration::from_millis(150))?;
    Ok(found.is_some_and(|(_, sender)| sender.ip() == IpAddr::V4(from)))
}

fn metric(host: &Host, name: &str) -> Result<Option<u64>> {
    let (_, body) = get(host, "/metrics", "*/*")?;
    let line = body.lines().find(|line| line.starts_with(name));
    Ok(line.and_then(|line| line.rsplit(' ').next()?.parse().ok()))
}

fn admitted(guarded: &Guarded) -> Result<Value> {
    let status = guarded.status()?.context("guarded")?;
    Ok(status["domains"]["peer.example"].clone())
}

#[test]
fn addresses_that_change_are_swapped_in_and_nothing_else_is_lost() -> Result<()> {
    let guarded = Guarded::new()?;
    let host = &guarded.link.left.host;
    guarded.link.right.add_address("10.77.0.77/24".parse()?)?;
    let names = NameServer::start(host, SERVER.parse()?)?;
    names.answer(Ok(vec![OLD.into()]));
    let site = site(&guarded)?;
    let load: Vec<String> = ["load", "-c"].map(str::to_owned).into();
    let mut load = load;
    load.push(site.display().to_string());
    load.extend(["--resolver", SERVER, "--interface", guarded.interface()].map(str::to_owned));
    guarded.run(&load, None)?.success()?;
    assert_eq!(admitted(&guarded)?, serde_json::json!(["10.77.0.2"]));
    let agent = agent(&guarded, &[])?;
    listening(&agent)?;

    // The same answer again and again: no swap.
    let before = names.asked();
    eventually(
        "the name is asked again",
        || Ok(names.asked() >= before + 6),
    )?;
    assert_eq!(guarded.status()?.context("guarded")?["generation"], 1);

    eventually("programs for the next swap are ready", || {
        Ok(agent.stderr().contains("are ready"))
    })?;

    // One more address: who was admitted notices nothing, nor does anybody else.
    let socket = listen(&guarded, NAMED)?;
    assert!(!passes(&guarded, &socket, NEW)?);
    drop(socket);
    let streams =
        [(OLD, NAMED), (NEW, OPEN)].map(|(from, port)| Stream::start(&guarded, from, port));
    names.answer(Ok(vec![NEW.into(), OLD.into()]));
    eventually("the second address is admitted", || {
        Ok(admitted(&guarded)? == serde_json::json!(["10.77.0.2", "10.77.0.77"]))
    })?;
    for stream in streams {
        ensure!(stream?.end()? > 0);
    }

    // The old one goes, while the new one speaks.
    let streams =
        [(NEW, NAMED), (OLD, OPEN)].map(|(from, port)| Stream::start(&guarded, from, port));
    names.answer(Ok(vec![NEW.into()]));
    eventually("the first address is gone", || {
        Ok(admitted(&guarded)? == serde_json::json!(["10.77.0.77"]))
    })?;
    for stream in streams {
        ensure!(stream?.end()? > 0);
    }
    let socket = listen(&guarded, NAMED)?;
    assert!(passes(&guarded, &socket, NEW)?);
    assert!(
        !passes(&guarded, &socket, OLD)?,
        "the old address still passes"
    );
    let status = guarded.status()?.context("guarded")?;
    assert_eq!(
        (&status["generation"], &status["mode"]),
        (&3.into(), &"enforce".into())
    );
    assert_eq!(status.get("previous"), None, "{status}");
    assert_eq!(metric(host, "portguard_domain_swaps_total")?, Some(2));
    assert_eq!(get(host, "/healthz", "*/*")?.1, "ok\n");

    // The server fails, then says that the name is gone: the last good answer stays, and that is said.
    let stale = "portguard_domain_stale{domain=\"peer.example\"}";
    for code in [ResponseCode::ServFail, ResponseCode::NXDomain] {
        names.answer(Err(code));
        eventually("the failure is noticed", || {
            Ok(metric(host, stale)? == Some(1))
        })?;
        assert!(passes(&guarded, &socket, NEW)?);
        let (head, body) = get(host, "/healthz", "*/*")?;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(
            body.starts_with("domain peer.example does not resolve"),
            "{body}"
        );
        names.answer(Ok(vec![NEW.into()]));
        eventually("the recovery is noticed", || {
            Ok(metric(host, stale)? == Some(0))
        })?;
    }
    assert_eq!(guarded.status()?.context("guarded")?["generation"], 3);

    agent.terminate()?;
    let ended = agent.output(LONG)?;
    assert_eq!(ended.code(), 0, "{ended}");
    tells_what_happened(&ended.stderr)?;
    // The guard outlives the agent, with the addresses of last.
    assert!(passes(&guarded, &socket, NEW)? && !passes(&guarded, &socket, OLD)?);
    std::fs::remove_file(site)?;
    Ok(())
}

/// The log is JSON, line by line, and tells each of these once a time.
fn tells_what_happened(stderr: &str) -> Result<()> {
    let log: Vec<Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect::<Result<_>>()?;
    let told = |words: &str| {
        let is = |line: &&Value| {
            line["message"]
                .as_str()
                .is_some_and(|said| said.contains(words))
        };
        log.iter().filter(is).count()
    };
    assert_eq!(
        told("addresses of domain names changed: swapped"),
        2,
        "{log:?}"
    );
    // The first at least: whether there were standby programs again for the second is a matter of time.
    let swapped = |line: &&Value| line["from_standby"].is_boolean();
    let first = log.iter().find(swapped).context("a swap")?;
    assert_eq!(first["from_standby"], true, "{log:?}");
    assert_eq!(told("does not resolve"), 2, "{log:?}");
    assert_eq!(told("resolves again"), 2, "{log:?}");
    assert!(
        log.iter()
            .all(|line| line["timestamp"].is_string() && line["level"].is_string())
    );
    Ok(())
}
