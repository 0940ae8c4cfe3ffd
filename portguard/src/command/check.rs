//! `portguard check`: the effective matrix of a host, for an auditor.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::failure;
use crate::stderr::stderr;
use crate::stdout::{print, print_json};

use super::selection::{Resolving, SelectionArgs};
use super::table::Column::{Below, Prose, Spare, Whole};
use super::table::{Grid, hanging};
use portguard_policy::diagnostic::{Diagnostic, Level};
use portguard_policy::error::Exit;
use portguard_policy::human::{count, plain_lines, time};
use portguard_policy::matrix::{Matrix, sweep};
use portguard_policy::policy::{Compiled, Grant, GrantKind, Outbound, Peers, Policy};

/// Show what the documents let in and out of a host, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portguard check -c site.toml --host db1  the matrix of one host of the site
  portguard check --role thoughtspot/node --unprinted-peers any \\
      --unresolved-peers any
  portguard check -c site.toml -v
      with the document, section and row of each line
  portguard check -c site.toml | grep tcp/443
      one record a line where it is piped")]
pub struct CheckArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only the roles that this interface serves
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Cite the documents, and list the rows that open nothing here
    #[arg(short, long)]
    verbose: bool,
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
        // Without a host or a role there is no matrix to show.
        let refused = errors(&compiled) > 0;
        let policy = &compiled.policy;
        if *policy != Policy::default() && !(refused && policy.roles.is_empty()) {
            print(|out| text(out, &compiled, args.verbose))?;
        }
        if args.verbose {
            talk(&compiled.diagnostics);
        } else {
            talk_briefly(&compiled.diagnostics, &[Level::Note], "`-v`");
        }
        verdict(&compiled);
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

/// Diagnostics on standard error, errors last; one that cannot be written is no reason to fail.
fn talk(diagnostics: &[Diagnostic]) {
    let all: Vec<&Diagnostic> = diagnostics.iter().collect();
    let _ = failure::diagnostics(&mut stderr(), &all);
}

/// The same, of several of one kind only the first: of notes, and of warnings where `check` shows them all.
pub(crate) fn talk_briefly(diagnostics: &[Diagnostic], brief: &[Level], who_shows: &str) {
    let mut more: BTreeMap<(Level, &str), u64> = BTreeMap::new();
    let mut shown: Vec<&Diagnostic> = Vec::new();
    for one in diagnostics {
        let is_known = |other: &&Diagnostic| (other.level, other.code) == (one.level, one.code);
        if brief.contains(&one.level) && shown.iter().any(is_known) {
            *more.entry((one.level, one.code)).or_default() += 1;
        } else {
            shown.push(one);
        }
    }
    shown.sort_by_key(|one| one.level);
    let mut err = stderr();
    for one in shown {
        let _ = failure::diagnostics(&mut err, &[one]);
        if let Some(number) = more.get(&(one.level, one.code)) {
            let level = one.level.name();
            let more = count(*number, &format!("more {level}"));
            let code = one.code;
            let _ = writeln!(
                err,
                "{level}[{code}]: {more} of this kind; {who_shows} shows each"
            );
        }
    }
}

/// The last line: whether this can be loaded.
fn verdict(compiled: &Compiled) {
    let of = |level| {
        let all = compiled.diagnostics.iter();
        all.filter(|diagnostic| diagnostic.level == level).count() as u64
    };
    let (errors, warnings) = (of(Level::Error), of(Level::Warning));
    let mut err = stderr();
    let _ = match (errors, warnings) {
        (0, 0) => Ok(()),
        (0, warnings) => writeln!(err, "{}: it can be loaded", count(warnings, "warning")),
        (errors, _) => writeln!(err, "{}: it cannot be loaded", count(errors, "error")),
    };
}

/// Who a row is for, in its own words.
fn words(policy: &Policy, grant: &Grant) -> String {
    let (words, members) = policy.row_peers(&grant.row, grant.peers);
    // A prefix that the document prints is its own member.
    let own = words.strip_prefix("prefix ").unwrap_or(&words);
    if grant.kind == GrantKind::Documented && !words.is_empty() && own != members {
        format!("{words}: {members}")
    } else {
        members
    }
}

fn text(out: &mut dyn Write, compiled: &Compiled, verbose: bool) -> io::Result<()> {
    let policy = &compiled.policy;
    let host = policy.host.as_deref().unwrap_or("this host");
    let roles = if policy.roles.is_empty() {
        "no role".to_owned()
    } else {
        policy.roles.join(", ")
    };
    let (inbound, outbound) = (policy.settings.mode(), policy.settings.outbound.name());
    writeln!(
        out,
        "{} ({}): inbound {inbound}, outbound {outbound}",
        plain_lines(host),
        plain_lines(&roles)
    )?;
    let refused = errors(compiled) as u64;
    if refused > 0 {
        writeln!(
            out,
            "{}: cannot be loaded. Missing peers are shown as \"any\"",
            count(refused, "error")
        )?;
    }
    let shown = (policy, verbose);
    writeln!(out, "\nInbound\n{}", grants(shown, &policy.inbound, "from"))?;
    for protocol in &policy.protocols {
        let from = who(policy, protocol.peers);
        let text = format!("from {from} ({})", plain_lines(&protocol.row));
        hanging(out, &format!("protocol {} ", protocol.protocol), &text)?;
    }
    let echo = policy
        .echo
        .map_or("nobody".to_owned(), |peers| who(policy, peers));
    writeln!(out, "ping from {echo}")?;
    if policy.settings.outbound != Outbound::Off {
        writeln!(out, "\nOutbound\n{}", grants(shown, &policy.outbound, "to"))?;
    }
    left_out(out, policy, verbose)?;
    let is_offline = compiled
        .diagnostics
        .iter()
        .any(|one| one.code == "domain-not-asked");
    // What is in force has the addresses of names in it, and so another digest.
    let without = if is_offline {
        " (without the addresses of domain names, which `load` adds)"
    } else {
        ""
    };
    writeln!(out, "digest {}{without}", policy.digest())
}

/// Rows that open nothing here: how many for which reason, or each.
fn left_out(out: &mut dyn Write, policy: &Policy, verbose: bool) -> io::Result<()> {
    if policy.omitted.is_empty() {
        return Ok(());
    }
    if verbose {
        let mut table = Grid::new(&[("row", Whole), ("left out", Whole), ("why", Below)]);
        for omitted in &policy.omitted {
            table.row(
                [&omitted.row, &omitted.reason, &omitted.detail].map(|cell| plain_lines(cell)),
            );
        }
        return writeln!(out, "Left out\n{table}");
    }
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for omitted in &policy.omitted {
        *reasons.entry(&omitted.reason).or_default() += 1;
    }
    let each: Vec<String> = reasons
        .iter()
        .map(|(reason, number)| format!("{number} {reason}"))
        .collect();
    writeln!(
        out,
        "left out: {} ({}); `-v` lists them",
        count(policy.omitted.len() as u64, "row"),
        each.join(", ")
    )
}

fn grants((policy, verbose): (&Policy, bool), grants: &[Grant], direction: &'static str) -> Grid {
    let mut columns = vec![
        ("port", Whole),
        (direction, Prose),
        ("row", Whole),
        ("purpose", if verbose { Below } else { Spare }),
    ];
    if verbose {
        columns.push(("document", Below));
    }
    let mut table = Grid::new(&columns);
    for entry in sweep(grants) {
        let ports = entry.ports();
        for grant in &entry.grants {
            let facts = policy.facts(&grant.row);
            let (purpose, citation, audit) = facts.map_or(("", "", false), |facts| {
                (&facts.purpose, &facts.citation, facts.audit)
            });
            let audit = if audit { " (audit only)" } else { "" };
            let ends = grant.until.map(|until| format!(" (ends {})", time(until)));
            let ends = ends.unwrap_or_default();
            table.row([
                ports.clone(),
                plain_lines(&words(policy, grant)),
                format!("{}{audit}{ends}", plain_lines(&grant.row)),
                plain_lines(purpose),
                plain_lines(citation),
            ]);
        }
    }
    table
}

fn who(policy: &Policy, peers: Peers) -> String {
    plain_lines(&policy.peers_words(peers))
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
            until: None,
        };
        let policy = Policy {
            host: Some("h\u{1b}[1m".to_owned()),
            roles: vec!["acme/node".to_owned()],
            sets: vec![
                set("group g", &["10.0.0.1/32", "10.1.0.0/16"]),
                set("192.0.2.1", &["192.0.2.1/32"]),
            ],
            inbound: vec![
                grant(80, 81, Peers::Set(0)),
                Grant {
                    until: Some(1_801_440_000),
                    ..grant(90, 90, Peers::Set(1))
                },
            ],
            rows: vec![RowFacts {
                id: "acme/web".to_owned(),
                role: None,
                purpose: "web".to_owned(),
                citation: "Doc, S, 80".to_owned(),
                audit: true,
                peers: String::new(),
            }],
            omitted: vec![Omitted {
                row: "acme/x".to_owned(),
                reason: "loopback".to_owned(),
                detail: "why".to_owned(),
                peers: None,
            }],
            hosts: [("10.0.0.1".parse().unwrap(), "web1".to_owned())].into(),
            ..Policy::default()
        };
        let mut out = Vec::new();
        text(
            &mut out,
            &Compiled {
                policy,
                diagnostics: Vec::new(),
            },
            true,
        )
        .unwrap();
        let out = String::from_utf8(out).unwrap();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<_> = out.lines().map(words).collect();
        for wanted in [
            "h\u{fffd}[1m (acme/node): inbound audit, outbound audit",
            "tcp/80-81 group g: web1, 10.1.0.0/16 acme/web (audit only) web Doc, S, 80",
            "tcp/90 192.0.2.1 acme/web (audit only) (ends 2027-02-01 00:00:00 UTC) web Doc, S, 80",
            "ping from nobody",
            "acme/x loopback why",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted}\n{out}");
        }
    }
}
