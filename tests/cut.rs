//! Whatever drops something asks first: by whichever verb, and in whichever direction.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Output;
use portguard_harness::traffic::{TcpEcho, connect, exchange_tcp};

use crate::guard::{Guarded, LONG, SOON, eventually};
use crate::weaker::Site;

/// Inbound and outbound mode, and whether they drop anything.
const MODES: [(&str, &str, bool); 4] = [
    ("audit", "audit", false),
    ("audit", "enforce", true),
    ("enforce", "audit", true),
    ("enforce", "enforce", true),
];

/// How a policy is put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// By the site file.
    Site,
    /// By flags.
    Flags,
    /// What is on the disk.
    LastGood,
    /// What was in force before.
    Rollback,
}

/// A host, and somebody who is connected to a port of it that no policy here documents.
struct Here {
    site: Site,
    _server: TcpEcho,
    peer: TcpStream,
    ssh: String,
}

impl Here {
    fn new(inbound: &str, outbound: &str) -> Result<Self> {
        let site = Site::new()?;
        let (left, right) = (&site.guarded.link.left, &site.guarded.link.right);
        let server = TcpEcho::start(&left.host, SocketAddr::new(left.v4().into(), 7008))?;
        let peer = right
            .host
            .run(|| connect(server.address(), SOON).stream())?;
        let (from, to) = (peer.local_addr()?, peer.peer_addr()?);
        let ssh = format!("{} {} {} {}", from.ip(), from.port(), to.ip(), to.port());
        site.write(
            &format!("mode = \"{inbound}\"\noutbound = \"{outbound}\""),
            "",
        )?;
        Ok(Self {
            site,
            _server: server,
            peer,
            ssh,
        })
    }

    /// By an operator who is here by that session, or by somebody at the console.
    fn run(&self, args: &[&str], is_operator: bool) -> Result<Output> {
        let mut command = Guarded::command(args);
        command.env("STATE_DIRECTORY", self.site.directory());
        if is_operator {
            command.env("SSH_CONNECTION", &self.ssh);
        }
        self.site.guarded.link.left.host.output(&mut command, LONG)
    }

    /// What it takes to be about to put the policy in force, and the words that do so.
    fn prepare(&self, verb: Verb, inbound: &str, outbound: &str) -> Result<Vec<String>> {
        let interface = self.site.guarded.interface();
        let file = self.site.file();
        let words = |text: &str| -> Vec<String> {
            let text = text.replace("IF", interface).replace("FILE", &file);
            text.split(' ').map(str::to_owned).collect()
        };
        let flags = format!("load -c FILE --interface IF --{inbound} --outbound {outbound}");
        let forced = || -> Result<()> {
            let forced = words(&format!("{flags} --force --confirm-within 0"));
            let forced: Vec<&str> = forced.iter().map(String::as_str).collect();
            self.run(&forced, false)?.success()?;
            Ok(())
        };
        let run = |text: &str| -> Result<()> {
            let args = words(text);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            self.run(&args, false)?.success()?;
            Ok(())
        };
        Ok(words(match verb {
            Verb::Site => "load -c FILE --interface IF",
            Verb::Flags => &flags,
            Verb::LastGood => {
                forced()?;
                run("unload --interface IF")?;
                "load --last-good --interface IF"
            }
            Verb::Rollback => {
                forced()?;
                run("load -c FILE --interface IF --audit --outbound audit --allow-weaker")?;
                "rollback --interface IF"
            }
        }))
    }
}

#[test]
fn whatever_drops_something_asks_first() -> Result<()> {
    for (inbound, outbound, drops) in MODES {
        for verb in [Verb::Site, Verb::Flags, Verb::LastGood, Verb::Rollback] {
            let at = format!("{verb:?} inbound {inbound} outbound {outbound}");
            one(verb, (inbound, outbound), drops).context(at)?;
        }
    }
    Ok(())
}

fn one(verb: Verb, (inbound, outbound): (&str, &str), drops: bool) -> Result<()> {
    let mut here = Here::new(inbound, outbound)?;
    let words = here.prepare(verb, inbound, outbound)?;
    let with = |more: &'static [&'static str]| -> Vec<&str> {
        words
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect()
    };
    ensure!(exchange_tcp(&mut here.peer, b"before", LONG)?, "it lives");
    if !drops {
        let loaded = here.run(&with(&[]), true)?.success()?;
        let is_said = loaded.stderr.contains("nothing is dropped");
        ensure!(is_said || verb == Verb::Rollback, "{loaded}");
        ensure!(here.deadline()?.is_none());
        ensure!(exchange_tcp(&mut here.peer, b"after", SOON)?, "it lives");
        return Ok(());
    }
    // The operator's own; and those of others, where he is here by none.
    for (more, is_operator, named) in [
        (&["--cut-sessions"][..], true, "your own SSH connection"),
        (&[], true, "your own SSH connection"),
    ] {
        let refused = here.run(&with(more), is_operator)?;
        ensure!(
            refused.code() == 2 && refused.stderr.contains(named),
            "{refused}"
        );
    }
    // At boot nobody is there to ask.
    if verb != Verb::LastGood {
        let refused = here.run(&with(&[]), false)?;
        let is_named = refused.stderr.contains("tcp port 7008");
        ensure!(refused.code() == 2 && is_named, "{refused}");
    }
    ensure!(exchange_tcp(&mut here.peer, b"still", SOON)?, "it lives");
    let forced = here.run(&with(&["--force"]), true)?.success()?;
    ensure!(!forced.stderr.contains("nothing is dropped;"), "{forced}");
    ensure!(
        forced.stderr.contains("would cut 1 open session"),
        "{forced}"
    );
    if verb != Verb::Rollback {
        ensure!(forced.stderr.contains("1 cut"), "{forced}");
        let left = here.deadline()?.context("a deadline")?;
        ensure!((60..=120).contains(&left), "{left}");
    }
    ensure!(
        !exchange_tcp(&mut here.peer, b"cut", SOON)?,
        "it was said to be cut"
    );
    Ok(())
}

impl Here {
    /// Seconds until it gives way.
    fn deadline(&self) -> Result<Option<u64>> {
        let status = self.site.guarded.status()?.context("a guard")?;
        Ok(status["confirm_seconds_left"].as_u64())
    }
}

/// Between the look at who is there and the swap there is time for somebody to come.
#[test]
fn who_comes_while_a_policy_is_made_ready_is_not_cut_unasked() -> Result<()> {
    for (more, is_cut) in [(&[][..], false), (&["--cut-sessions"][..], true)] {
        let guarded = Guarded::new()?;
        let (left, right) = (&guarded.link.left, &guarded.link.right);
        let server = TcpEcho::start(&left.host, SocketAddr::new(left.v4().into(), 7008))?;
        let load = guarded.load_args("--enforce", &[7000], more);
        let process = guarded.start(&load, Some("tested:stop"))?;
        eventually("the stop", || {
            Ok(std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?.contains(") T"))
        })?;
        let mut peer = right
            .host
            .run(|| connect(server.address(), SOON).stream())?;
        ensure!(exchange_tcp(&mut peer, b"before", SOON)?, "it lives");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT)?;
        let output = process.output(LONG)?;
        ensure!(output.stderr.contains("tcp port 7008"), "{output}");
        if is_cut {
            ensure!(
                output.code() == 0 && output.stderr.contains("1 cut"),
                "{output}"
            );
        } else {
            ensure!(output.code() == 2, "{output}");
            ensure!(guarded.status()?.is_none() && !guarded.pins()?.exists());
        }
        let lives = exchange_tcp(&mut peer, b"after", SOON)?;
        ensure!(lives != is_cut, "it was said otherwise");
    }
    Ok(())
}
