//! `portguard check`: the effective matrix of a host, for an auditor.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};

use super::selection::{Resolving, SelectionArgs};
use super::{print, print_json};
use crate::diagnostic::{Diagnostic, Level};
use crate::error::Exit;
use crate::matrix::{Matrix, sweep};
use crate::policy::{Compiled, Grant, Outbound, Peers, Policy};

/// Show what the documents let in and out of a host, and why
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only what this interface serves
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Compiles and prints; errors of the policy are exit code 2, the matrix is printed all the same.
pub fn run(args: &CheckArgs) -> anyhow::Result<Exit> {
    let loaded = args.selection.load(Resolving::WhenTold)?;
    let compiled = loaded.compile(args.interface.as_deref());
    if args.json {
        print_json(&Matrix::new(&compiled))?;
    } else {
        print(|out| text(out, &compiled))?;
        talk(&compiled.diagnostics);
    }
    let refused = compiled
        .diagnostics
        .iter()
        .any(|diagnostic| diagnostic.level == Level::Error);
    Ok(if refused { Exit::Usage } else { Exit::Ok })
}

/// Diagnostics on standard error; one that cannot be written is no reason to fail.
pub(crate) fn talk(diagnostics: &[Diagnostic]) {
    let mut err = io::stderr().lock();
    for diagnostic in diagnostics {
        let _ = writeln!(err, "{}", plain(&diagnostic.to_string()));
    }
}

fn text(out: &mut dyn Write, compiled: &Compiled) -> io::Result<()> {
    let policy = &compiled.policy;
    let host = policy.host.as_deref().unwrap_or("this host");
    let roles = if policy.roles.is_empty() {
        "no role".to_owned()
    } else {
        policy.roles.join(", ")
    };
    let inbound = if policy.settings.enforce {
        "enforce"
    } else {
        "audit"
    };
    let outbound = match policy.settings.outbound {
        Outbound::Off => "off",
        Outbound::Audit => "audit",
        Outbound::Enforce => "enforce",
    };
    writeln!(
        out,
        "{} ({}): inbound {inbound}, outbound {outbound}",
        plain(host),
        plain(&roles)
    )?;
    writeln!(
        out,
        "\nInbound\n{}",
        grants(policy, &policy.inbound, "from")
    )?;
    for protocol in &policy.protocols {
        writeln!(
            out,
            "protocol {} from {} ({})",
            protocol.protocol,
            who(policy, protocol.peers),
            plain(&protocol.row)
        )?;
    }
    let echo = policy
        .echo
        .map_or("nobody".to_owned(), |peers| who(policy, peers));
    writeln!(out, "ping from {echo}")?;
    if policy.settings.outbound != Outbound::Off {
        writeln!(
            out,
            "\nOutbound\n{}",
            grants(policy, &policy.outbound, "to")
        )?;
    }
    if !policy.omitted.is_empty() {
        let mut table = table(&["row", "left out", "why"]);
        for omitted in &policy.omitted {
            table.add_row([&omitted.row, &omitted.reason, &omitted.detail].map(|cell| plain(cell)));
        }
        writeln!(out, "\nLeft out\n{table}")?;
    }
    writeln!(out, "\ndigest {}", policy.digest())
}

fn grants(policy: &Policy, grants: &[Grant], direction: &str) -> Table {
    let mut table = table(&["port", "transport", direction, "row", "purpose", "citation"]);
    for entry in sweep(grants) {
        let ports = if entry.first == entry.last {
            entry.first.to_string()
        } else {
            format!("{}-{}", entry.first, entry.last)
        };
        for grant in &entry.grants {
            let facts = policy.rows.iter().find(|facts| facts.id == grant.row);
            let (purpose, citation, audit) = facts.map_or(("", "", false), |facts| {
                (&facts.purpose, &facts.citation, facts.audit)
            });
            let audit = if audit { " (audit only)" } else { "" };
            table.add_row([
                ports.clone(),
                entry.transport.to_string(),
                who(policy, grant.peers),
                format!("{}{audit}", plain(&grant.row)),
                plain(purpose),
                plain(citation),
            ]);
        }
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    table
}

fn who(policy: &Policy, peers: Peers) -> String {
    plain(&policy.peers_words(peers))
}

/// Without control characters: names come from files, and the reader's terminal obeys.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}
