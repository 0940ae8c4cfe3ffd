//! `portguard explain`: what the guard does with a packet, and why.

mod names;
mod pcap;

use std::io::{self, Write};
use std::path::PathBuf;

use crate::failure;
use crate::stderr::{say, stderr};
use crate::stdout::{print, print_json};
use anyhow::Context as _;
use clap::Args;
use portguard_common::packet::protocol;
use portguard_common::reason::Direction;

use self::names::Hosts;
pub(super) use self::names::SERVICES;
use super::catalogs;
use super::selection::{INTERFACES_DIFFER, Resolving, SelectionArgs};
use super::table::hanging;
use portguard_kernel::generation::Live;
use portguard_kernel::generation::effective::{Effective, Strictness};
use portguard_observe::observe;
use portguard_policy::catalog::Catalog;
use portguard_policy::diagnostic::{Diagnostic, Level, Rejected};
use portguard_policy::error::{Exit, Fault};
use portguard_policy::explain::capture;
use portguard_policy::explain::{Explainer, Outcome, Query};
use portguard_policy::human::{count, plain, plain_lines};
use portguard_policy::policy::Policy;

/// Show the verdict for a packet, and the row behind it
///
/// Runs the guard's own parser and verdict, without touching the system. Without a site file or a role on the command line, it is
/// by the policies in force where interfaces are guarded. Exit code 0 = everything passes, 1 = enforce would drop something.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard explain -c site.toml --host db1 tcp app1 https
      by host and service name
  portguard explain tcp 192.0.2.7 9999  by what is in force on this host
  portguard explain --running eth0 tcp 192.0.2.7 9999  on this interface
  portguard explain --role thoughtspot/node --unprinted-peers any \\
      --unresolved-peers any --out udp 192.0.2.53 domain
  portguard explain -c site.toml --pcap trace.pcapng
      each frame of a capture, and sums by reason")]
pub struct ExplainArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only the roles that this interface serves
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Use the policy in force on this interface instead of compiling one
    #[arg(long, value_name = "IF", conflicts_with_all = ["interface", "host", "roles"])]
    running: Option<String>,
    /// The packet arrives [default]
    #[arg(long = "in", conflicts_with = "outbound_packet")]
    inbound_packet: bool,
    /// The packet is sent
    #[arg(long = "out")]
    outbound_packet: bool,
    /// `tcp`, `udp`, `sctp`, `icmp` or the number of an IP protocol
    #[arg(value_name = "PROTO", required_unless_present_any = ["frame", "pcap"])]
    protocol: Option<String>,
    /// The other end: an address, or a host of the site by its name
    #[arg(value_name = "REMOTE-IP", required_unless_present_any = ["frame", "pcap"])]
    remote: Option<String>,
    /// Port of the listening side, as a number or a service such as `https`: this host's for an inbound packet; for `icmp` the
    /// type [default: ping]
    #[arg(value_name = "PORT")]
    port: Option<String>,
    /// Port of the connecting side
    #[arg(long, value_name = "PORT")]
    from_port: Option<u16>,
    /// An Ethernet frame in hex, instead of PROTO, REMOTE-IP and PORT
    #[arg(long, value_name = "HEX", conflicts_with_all = ["protocol", "pcap"])]
    frame: Option<String>,
    /// A capture (pcap or pcapng): one line per frame, and totals by reason
    #[arg(long, value_name = "FILE", conflicts_with = "protocol")]
    pcap: Option<PathBuf>,
    /// Print JSON; for a capture, one document a line
    #[arg(long)]
    json: bool,
}

/// Explains.
///
/// # Errors
/// [`Rejected`] policies, and wrong packets.
pub fn run(args: &ExplainArgs) -> anyhow::Result<Exit> {
    let guarded = match &args.running {
        Some(named) => vec![named.clone()],
        None => in_force(args)?,
    };
    if guarded.is_empty() {
        return selected(args);
    }
    each(args, &guarded, "--running", |name| running(args, name))
}

/// By the policy of each interface; several only for people.
fn each(
    args: &ExplainArgs,
    interfaces: &[String],
    flag: &str,
    mut explain: impl FnMut(&str) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    match interfaces {
        [only] => explain(only),
        several if args.json || args.pcap.is_some() => {
            Err(Fault::usage("which interface? Their policies differ")
                .hint(format!("name one with `{flag}`: {}", several.join(", ")))
                .into())
        }
        several => {
            let mut exit = Exit::Ok;
            for name in several {
                print(|out| writeln!(out, "{}:", plain(name)))?;
                if explain(name)? == Exit::Findings {
                    exit = Exit::Findings;
                }
            }
            Ok(exit)
        }
    }
}

/// Where neither a site nor a role is named: the interfaces whose policies in force say what becomes of a packet now. One of them
/// where all say the same; none where nothing is guarded, or this process may not look.
fn in_force(args: &ExplainArgs) -> anyhow::Result<Vec<String>> {
    if args.selection.is_given() {
        return Ok(Vec::new());
    }
    let guards = match observe::guards(args.interface.as_deref()) {
        Ok(guards) => guards,
        Err(error) if args.selection.site().is_none() => return Err(error.into()),
        Err(error) => {
            let message = format!("warning: {error:#}; this is what the site file says");
            let _ = writeln!(stderr(), "{}", plain_lines(&message));
            return Ok(Vec::new());
        }
    };
    let first = guards.first();
    let is_one = guards.iter().all(|guard| {
        first.is_some_and(|first| {
            first.live.meta.digest == guard.live.meta.digest
                && first.live.effective == guard.live.effective
        })
    });
    let names = guards.iter().map(|guard| guard.name.clone());
    Ok(names.take(if is_one { 1 } else { usize::MAX }).collect())
}

/// By what the selection compiles to: for each interface, where the site has them differ.
fn selected(args: &ExplainArgs) -> anyhow::Result<Exit> {
    let loaded = args.selection.load(Resolving::WhenTold)?;
    let hosts = Hosts::of(&loaded.site);
    let by = |interface: Option<&str>| {
        let policy = accept(loaded.compile(interface))?;
        explain(args, &policy, &loaded.catalog, None, &hosts)
    };
    if args.interface.is_some() {
        return by(args.interface.as_deref());
    }
    match loaded.apart() {
        apart if apart.is_empty() => by(None),
        apart => each(args, &apart, "--interface", |name| by(Some(name))),
    }
}

fn explain(
    args: &ExplainArgs,
    policy: &Policy,
    catalog: &Catalog,
    effective: Option<&Effective>,
    hosts: &Hosts,
) -> anyhow::Result<Exit> {
    let mut explainer = Explainer::new(policy, catalog)
        .map_err(|error| Fault::usage(error.to_string()).hint("narrow the site's own rows"))?;
    explainer.is_off = effective.is_some_and(|now| now.inbound == Strictness::Off);
    if let Some(path) = &args.pcap {
        return pcap::run(args, &explainer, path);
    }
    let answer = match &args.frame {
        Some(hex) => {
            let bytes = capture::parse_hex(hex)
                .map_err(|error| {
                    Fault::usage(format!("--frame: {error}"))
                        .hint("a frame begins with its Ethernet header; spaces and colons may stand between digits")
                })?;
            explainer.packet(&capture::packet(&bytes), args.direction())
        }
        None => explainer.query(&query(args, hosts)?),
    };
    if args.json {
        print_json(&answer)?;
    } else {
        let text = plain_lines(&answer.to_string());
        print(|out| text.lines().try_for_each(|line| wrapped(out, line)))?;
    }
    Ok(exit(answer.verdict))
}

/// A line of an answer; what does not fit stands below its text.
fn wrapped(out: &mut dyn Write, line: &str) -> io::Result<()> {
    /// As wide as the labels of an answer are.
    const LABEL: usize = 11;
    let blanks = line.len() - line.trim_start().len();
    let indent = match line.get(blanks..blanks + 2) {
        Some("- ") => blanks + 2,
        Some(_) if blanks == 2 => LABEL,
        _ => blanks,
    };
    match line.split_at_checked(indent) {
        Some((label, text)) if !text.is_empty() => hanging(out, label, text),
        _ => writeln!(out, "{line}"),
    }
}

fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Pass => Exit::Ok,
        Outcome::Drop => Exit::Findings,
    }
}

/// By what is in force on an interface.
fn running(args: &ExplainArgs, interface: &str) -> anyhow::Result<Exit> {
    let live = live(interface)?;
    for warning in &live.warnings {
        let _ = writeln!(stderr(), "warning: {}", plain_lines(warning));
    }
    let catalog = catalogs::in_force(std::iter::once(&live.meta))?;
    let mut policy = live.meta.policy;
    // What is said of the mode is what holds now.
    live.effective.apply(&mut policy.settings);
    // Of names only what a site file says: the policy in force has none.
    let hosts = match (&args.selection.config, args.running.is_some()) {
        (Some(_), _) => Hosts::of(&args.selection.load(Resolving::WhenTold)?.site),
        (None, true) => Hosts::default(),
        (None, false) => {
            let site = args.selection.load(Resolving::WhenTold);
            site.map_or_else(|_| Hosts::default(), |loaded| Hosts::of(&loaded.site))
        }
    };
    explain(args, &policy, &catalog, Some(&live.effective), &hosts)
}

/// What is in force on an interface.
fn live(interface: &str) -> anyhow::Result<Live> {
    let guards = observe::guards(Some(interface))?.into_iter();
    let live = guards.map(|guard| guard.live).next();
    live.with_context(|| observe::not_guarded(interface))
}

/// The policy, unless the compiler refused it. Warnings are `check`'s to show: here they are counted.
pub(super) fn accept(compiled: portguard_policy::policy::Compiled) -> Result<Policy, Rejected> {
    let others = Rejected::unless_fine(compiled.diagnostics)?;
    let differ: Vec<&Diagnostic> = others
        .iter()
        .filter(|diagnostic| diagnostic.code == INTERFACES_DIFFER)
        .collect();
    if !differ.is_empty() {
        // Standard error being closed is no reason to fail, here and below.
        let _ = failure::diagnostics(&mut stderr(), &differ);
    }
    let warnings = others
        .iter()
        .filter(|diagnostic| diagnostic.level == Level::Warning)
        .count() as u64;
    if warnings > 0 {
        say(&format!(
            "the policy has {}: `portguard check` shows them",
            count(warnings, "warning")
        ));
    }
    Ok(compiled.policy)
}

impl ExplainArgs {
    fn direction(&self) -> Direction {
        if self.outbound_packet {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }
}

fn query(args: &ExplainArgs, hosts: &Hosts) -> Result<Query, Fault> {
    let (Some(word), Some(remote)) = (&args.protocol, &args.remote) else {
        return Err(Fault::usage("which packet?").hint("PROTO REMOTE-IP PORT, --frame or --pcap"));
    };
    let remote = hosts.address(remote)?;
    let echo = if remote.is_ipv6() { 128 } else { 8 };
    let number = match word.to_ascii_lowercase().as_str() {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "sctp" => protocol::SCTP,
        "icmp" | "ping" | "icmpv6" if remote.is_ipv6() => protocol::ICMPV6,
        "icmp" | "ping" => protocol::ICMP,
        "igmp" if !remote.is_ipv6() => protocol::IGMP,
        other => other.parse().map_err(|_unknown| {
            Fault::usage(format!("`{}` is not a protocol", plain_lines(word)))
                .hint("tcp, udp, sctp, icmp, igmp, or a number from 0 to 255")
        })?,
    };
    let has_ports = matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP);
    let is_icmp = match number {
        protocol::ICMPV6 => remote.is_ipv6(),
        protocol::ICMP | protocol::IGMP => !remote.is_ipv6(),
        _ => false,
    };
    // A membership query, if nothing else is asked.
    let echo = if number == protocol::IGMP { 0x11 } else { echo };
    let port = match &args.port {
        Some(port) => Some(names::port(port, word)?),
        None => None,
    };
    let port = match port {
        None if has_ports => {
            return Err(Fault::usage("which port?").hint(format!(
                "write it after the address, as a number or a service: `{word} {remote} 443`"
            )));
        }
        Some(_) if !has_ports && !is_icmp => {
            return Err(Fault::usage(format!("protocol {number} has no ports")));
        }
        Some(kind) if is_icmp && kind > 255 => {
            return Err(Fault::usage(format!(
                "{kind} is not an ICMP type: types go up to 255"
            )));
        }
        Some(port) => port,
        None if is_icmp => echo,
        None => 0,
    };
    Ok(Query {
        direction: args.direction(),
        protocol: number,
        remote,
        port,
        from_port: args.from_port,
    })
}
