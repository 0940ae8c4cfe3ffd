//! `portguard check`: the effective matrix of a host, for an auditor.

use std::io::{self, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, TableComponent, presets};

use super::selection::{Resolving, SelectionArgs};
use super::{print, print_json};
use portguard_policy::diagnostic::{Diagnostic, Level};
use portguard_policy::error::Exit;
use portguard_policy::matrix::{Matrix, sweep};
use portguard_policy::policy::{Compiled, Grant, Outbound, Peers, Policy};

/// Width of tables where standard output is no terminal.
const WIDTH_WITHOUT_TERMINAL: u16 = 160;

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
        // Without a host there is no matrix to show.
        if compiled.policy != Policy::default() {
            print(|out| text(out, &compiled))?;
        }
        talk(&compiled.diagnostics);
    }
    Ok(if errors(&compiled) > 0 {
        Exit::Usage
    } else {
        Exit::Ok
    })
}

fn errors(compiled: &Compiled) -> usize {
    compiled
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.level == Level::Error)
        .count()
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
    let refused = errors(compiled);
    if refused > 0 {
        writeln!(
            out,
            "refused, and not to be loaded: errors {refused}; what they leave open shows as any"
        )?;
    }
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
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_style(TableComponent::HeaderLines, '─');
    if !table.is_tty() {
        table.set_width(WIDTH_WITHOUT_TERMINAL);
    }
    table.set_header(header.iter().copied());
    // What a reader searches for stays in one piece.
    for (column, title) in table.column_iter_mut().zip(header) {
        if ["port", "transport", "row"].contains(title) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use portguard_policy::catalog::Transport;
    use portguard_policy::policy::{GrantKind, Omitted, PeerSet, RowFacts};

    #[test]
    fn the_table_says_port_peers_row_purpose_citation_and_what_is_left_out() {
        let set = |name: &str, nets: &[&str]| PeerSet {
            name: name.to_owned(),
            prefixes: nets.iter().map(|net| net.parse().unwrap()).collect(),
        };
        let grant = |first: u16, last: u16, peers: Peers| Grant {
            kind: GrantKind::Documented,
            transport: Transport::Tcp,
            first,
            last,
            peers,
            row: "acme/web".to_owned(),
        };
        let policy = Policy {
            host: Some("h\u{1b}[1m".to_owned()),
            roles: vec!["acme/node".to_owned()],
            sets: vec![
                set("group g", &["10.0.0.1/32", "10.1.0.0/16"]),
                set("192.0.2.1", &["192.0.2.1/32"]),
            ],
            inbound: vec![grant(80, 81, Peers::Set(0)), grant(90, 90, Peers::Set(1))],
            rows: vec![RowFacts {
                id: "acme/web".to_owned(),
                role: None,
                purpose: "web".to_owned(),
                citation: "Doc, S, 80".to_owned(),
                audit: true,
            }],
            omitted: vec![Omitted {
                row: "acme/x".to_owned(),
                reason: "loopback".to_owned(),
                detail: "why".to_owned(),
            }],
            ..Policy::default()
        };
        let mut out = Vec::new();
        text(
            &mut out,
            &Compiled {
                policy,
                diagnostics: Vec::new(),
            },
        )
        .unwrap();
        let out = String::from_utf8(out).unwrap();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<_> = out.lines().map(words).collect();
        for wanted in [
            "h\u{fffd}[1m (acme/node): inbound audit, outbound audit",
            "80-81 tcp 10.0.0.1, 10.1.0.0/16 (group g) acme/web (audit only) web Doc, S, 80",
            "90 tcp 192.0.2.1 acme/web (audit only) web Doc, S, 80",
            "ping from nobody",
            "acme/x loopback why",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted}\n{out}");
        }
    }
}
