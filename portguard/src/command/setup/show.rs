//! What `setup` shows before it asks, and when it is done.

use std::io::{self, Write as _};
use std::path::Path;

use super::Answer;
use super::guess::Proposal;
use crate::command::table::hanging;
use crate::stderr::stderr;
use crate::stdout::print;
use portguard_policy::human::{count, plain};

/// The proposal.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn proposal(answer: &Answer, output: &Path) -> anyhow::Result<()> {
    print(|out| {
        let mut line =
            |label: &str, text: &str| hanging(out, &format!("{label:<12}"), &plain(text));
        line(
            "host",
            &format!("{} ({})", answer.host, answer.addresses.join(", ")),
        )?;
        line("interface", &answer.interfaces.join(", "))?;
        for name in &answer.left {
            line(
                "",
                &format!("{name} is left as it is: `--interface {name}` sets it up, too"),
            )?;
        }
        for role in &answer.roles {
            let why = answer.proposals.iter().find(|one| one.role == *role);
            let why = why.map_or("named".to_owned(), Proposal::why);
            line("role", &format!("{role}: {why}"))?;
        }
        for (system, name) in &answer.deployments {
            line("deployment", &format!("{system}: {name}"))?;
        }
        for other in &answer.proposals {
            if let Some(main) = other
                .beside
                .as_ref()
                .filter(|_| !answer.roles.contains(&other.role))
            {
                let role = &other.role;
                line(
                    "",
                    &format!("{role} often runs beside {main}: `--role` adds it if it runs here"),
                )?;
            }
        }
        let ports: Vec<String> = answer
            .management
            .iter()
            .map(|port| format!("tcp/{port}"))
            .collect();
        let admins = if answer.admins.is_empty() {
            "anybody, since no one is connected now; `--admins CIDR,...` restricts it".to_owned()
        } else {
            answer.admins.join(", ")
        };
        line("management", &format!("{} for {admins}", ports.join(", ")))?;
        for seen in &answer.peers {
            let addresses: Vec<String> = seen.addresses.iter().map(ToString::to_string).collect();
            let (peer, ports) = (&seen.peer, seen.ports.join(", "));
            let is_one = if addresses.len() == 1 { "is" } else { "are" };
            line(
                "peers",
                &format!(
                    "{peer}: {} {is_one} connected by {ports}",
                    addresses.join(", ")
                ),
            )?;
        }
        line("site file", &output.display().to_string())
    })
}

/// Roles that the same would listen for, numbered.
///
/// # Errors
/// If standard error cannot be written.
pub(super) fn choices(choices: &[&Proposal]) -> io::Result<()> {
    let mut err = stderr();
    writeln!(err, "What listens here fits several roles:")?;
    for (index, one) in choices.iter().enumerate() {
        let missing = match one.missing {
            0 => "nothing of it is missing".to_owned(),
            missing => format!(
                "{} of it {} closed",
                count(missing as u64, "port"),
                if missing == 1 { "is" } else { "are" }
            ),
        };
        writeln!(err, "  {}  {}: {missing}", index + 1, one.role)?;
    }
    Ok(())
}

/// What was done, and what comes next.
///
/// # Errors
/// If standard error cannot be written.
pub(super) fn last_words(answer: &Answer, output: &Path) -> io::Result<()> {
    let mut err = stderr();
    if !answer.loaded {
        return writeln!(err, "nothing was written, nothing was loaded");
    }
    let file = output.display();
    for unit in &answer.units {
        writeln!(err, "enabled {unit}")?;
    }
    writeln!(
        err,
        "wrote {file} and loaded it in audit: nothing is dropped\n\
         next: look at `portguard counters --violations` for some days, add what is missing to {file}, and run `portguard promote -c {file}` to see whether it can enforce"
    )
}
