//! The host's own guard, by this very program: each thing that the agent does for the fleet is a verb that an operator could
//! type, with the same checks. What compiles, loads or judges is a process of its own, whose memory is given back and whose end
//! ends nothing else; what is in force is asked of the kernel right here, as `status` does, since it is asked at every step.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use portguard_fleet::agent::{Documents, Guard, GuardError, InForce, Judgement};
use portguard_fleet::evidence::Evidence;
use portguard_fleet::release::Gate;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::store;
use portguard_observe::observe;
use serde_json::Value;
use tokio::process::Command;

use crate::command::status::seconds_left;

mod evidence;

/// The longest that a verb may take: one that is ended before it is done was work for nothing, and a busy machine has more of it.
const PATIENCE: Duration = Duration::from_mins(10);

/// Counting takes longer than asking what is in force, and is said once a minute.
const COUNTED_EVERY: Duration = Duration::from_secs(30);

/// Flows that are named where too many would be dropped: a status is small.
const NAMED: usize = 3;

/// Of all interfaces, as `status` counts them.
fn violations() -> portguard_kernel::Result<u64> {
    let observed = observe::interfaces(None)?;
    let each = observed.iter().map(|one| one.report(false));
    Ok(each.map(|report| report.violations.packets).sum())
}

/// Calls the verbs.
#[derive(Debug)]
pub(super) struct Verbs {
    program: PathBuf,
    host: String,
    /// What `promote` said last, by interface.
    said: BTreeMap<String, Said>,
    /// Packets that were violations, and when they were counted.
    violations: Option<(Instant, u64)>,
}

#[derive(Debug, Default)]
struct Said {
    watched: u64,
    against: Vec<String>,
}

impl Verbs {
    pub(super) fn new(host: &str) -> Result<Self, String> {
        let program = std::env::current_exe()
            .map_err(|error| format!("cannot find this program: {error}"))?;
        Ok(Self {
            program,
            host: host.to_owned(),
            said: BTreeMap::new(),
            violations: None,
        })
    }

    /// Runs a verb: its exit code, and the JSON that it wrote.
    async fn call(&self, arguments: &[&str]) -> Result<(i32, Value), GuardError> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_remove("PORTGUARD_CONFIG")
            // What an operator's session says of itself is not this host's.
            .env_remove("SSH_CONNECTION")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let verb = arguments.first().copied().unwrap_or_default();
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .map_err(|_elapsed| {
                let minutes = PATIENCE.as_secs() / 60;
                GuardError::Late(format!("`{verb}` took more than {minutes} minutes"))
            })?
            .map_err(|error| format!("cannot call `{verb}`: {error}"))?;
        let code = output.status.code().unwrap_or(3);
        if code > 1 {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("`{verb}`: {}", reason(&text)).into());
        }
        let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Ok((code, said))
    }

    fn selection(&self, documents: &Documents) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        [
            "--config".to_owned(),
            path(documents.site()),
            "--frozen".to_owned(),
            path(documents.frozen()),
            "--host".to_owned(),
            self.host.clone(),
        ]
        .into()
    }

    async fn with(
        &self,
        verb: &[&str],
        documents: &Documents,
        interfaces: impl IntoIterator<Item = &String> + Send,
    ) -> Result<(i32, Value), GuardError> {
        let mut all: Vec<String> = verb.iter().map(|word| (*word).to_owned()).collect();
        all.extend(self.selection(documents));
        for interface in interfaces {
            all.extend(["--interface".to_owned(), interface.clone()]);
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.call(&all).await
    }
}

/// What a verb says is wrong, in one line: which session, which row, is often on the lines below.
fn reason(text: &str) -> String {
    let from_error = text.lines().skip_while(|line| !line.starts_with("error"));
    let lines: Vec<&str> = from_error
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let lines = lines.join(" ");
    match lines.trim_start_matches("error: ") {
        "" => text.lines().next().unwrap_or("it says nothing").to_owned(),
        lines => lines.to_owned(),
    }
}

/// Whoever has the host may take its guard off for good, and the fleet is told.
fn refuse_off<'a>(interfaces: impl IntoIterator<Item = &'a String>) -> Result<(), GuardError> {
    let mut all = interfaces.into_iter();
    match all.find(|name| store::is_off(&Layout::of(name))) {
        None => Ok(()),
        Some(name) => Err(format!(
            "`{name}` was switched off on this host by `portguard unload --stay-off`: `portguard load --last-good --switch-on \
             --interface {name}` there guards it again"
        )
        .into()),
    }
}

/// `out:udp/53=192.0.2.7`, as `accept` of the gate takes it.
fn named(flow: &Value) -> String {
    let out = match evidence::text(flow, "direction") {
        "out" => "out:",
        _ => "",
    };
    let what = evidence::text(flow, "what");
    match evidence::text(flow, "peer") {
        "" => format!("{out}{what}"),
        peer => format!("{out}{what}={peer}"),
    }
}

impl Guard for Verbs {
    async fn compile(
        &mut self,
        documents: &Documents,
        audit: bool,
    ) -> Result<BTreeMap<String, String>, GuardError> {
        let mut digests = BTreeMap::new();
        for interface in documents.entry.digests.keys() {
            let mut verb = vec!["check", "--json", "--interface", interface];
            if audit {
                verb.push("--audit");
            }
            let (_, said) = self.with(&verb, documents, []).await?;
            let digest = said
                .get("digest")
                .and_then(Value::as_str)
                .ok_or_else(|| "`check` gives no digest".to_owned())?;
            digests.insert(interface.clone(), digest.to_owned());
        }
        Ok(digests)
    }

    async fn in_force(&mut self, interfaces: &[String]) -> Result<InForce, GuardError> {
        let counted = self
            .violations
            .filter(|(at, _)| at.elapsed() < COUNTED_EVERY);
        let looking = tokio::task::spawn_blocking(move || -> portguard_kernel::Result<_> {
            let guards = observe::guards(None)?;
            let counted = match counted {
                Some(counted) => counted,
                None => (Instant::now(), violations()?),
            };
            Ok((guards, counted))
        });
        let looked = looking.await.map_err(|error| error.to_string())?;
        let (guards, counted) = looked.map_err(|error| format!("what is in force: {error:#}"))?;
        self.violations = Some(counted);
        let mut found = InForce {
            violations: counted.1,
            ..InForce::default()
        };
        for observe::Guard { name, live, .. } in guards {
            if !interfaces.is_empty() && !interfaces.contains(&name) {
                found.others.push(name);
                continue;
            }
            if let Some(left) = seconds_left(&live) {
                found.is_unconfirmed = true;
                found.has_lapsed |= left == 0;
            }
            found.enforces |= live.meta.policy.settings.drops_any();
            found.generations.insert(name.clone(), live.meta.number);
            found.digests.insert(name, live.meta.digest);
        }
        Ok(found)
    }

    async fn audit(&mut self, documents: &Documents, named: &[String]) -> Result<(), GuardError> {
        refuse_off(named)?;
        self.with(&["load", "--audit", "--json"], documents, named)
            .await
            .map(|_| ())
    }

    async fn judge(&mut self, documents: &Documents, gate: &Gate) -> Result<Judgement, GuardError> {
        let window = format!("{}s", gate.audit);
        let packets = gate.packets.to_string();
        let mut verb = vec![
            "promote",
            "--dry-run",
            "--json",
            "--window",
            &window,
            "--min-packets",
            &packets,
        ];
        for flow in &gate.accept {
            verb.extend(["--accept", flow]);
        }
        if !gate.accept.is_empty() {
            verb.extend(["--because", "the publishers of the release accept it"]);
        }
        let all = documents.entry.digests.keys();
        let (_, said) = self.with(&verb, documents, all).await?;
        let mut judged = Judgement {
            watched: u64::MAX,
            ..Judgement::default()
        };
        for one in evidence::list(&said, "interfaces") {
            let number = |field: &str| one.get(field).and_then(Value::as_u64).unwrap_or_default();
            let watched = number("watched_seconds");
            judged.watched = judged.watched.min(watched);
            judged.packets += number("packets");
            let unexplained = evidence::list(one, "flows")
                .filter(|flow| evidence::text(flow, "state") == "unexplained");
            for flow in unexplained {
                judged.would_drop += 1;
                if judged.flows.len() < NAMED {
                    judged.flows.push(named(flow));
                }
            }
            let mut here = Said {
                watched,
                against: Vec::new(),
            };
            for reason in evidence::list(one, "against") {
                let message = evidence::text(reason, "message").to_owned();
                here.against.push(message.clone());
                match evidence::text(reason, "code") {
                    "closes" => judged.closes.push(message),
                    // The gate has numbers of its own for these.
                    "window" | "packets" | "flows" => {}
                    _ => judged.against.push(message),
                }
            }
            self.said
                .insert(evidence::text(one, "interface").to_owned(), here);
        }
        if judged.watched == u64::MAX {
            return Err("`promote` judged nothing".to_owned().into());
        }
        Ok(judged)
    }

    async fn enforce(
        &mut self,
        documents: &Documents,
        within: Duration,
        cuts: bool,
    ) -> Result<(), GuardError> {
        refuse_off(documents.entry.digests.keys())?;
        let within = format!("{}s", within.as_secs());
        // The publishers signed what may be dropped no more: there is nobody to ask here.
        let mut verb = vec![
            "load",
            "--allow-weaker",
            "--json",
            "--confirm-within",
            &within,
        ];
        if cuts {
            verb.push("--cut-sessions");
        }
        let all = documents.entry.digests.keys();
        self.with(&verb, documents, all).await.map(|_| ())
    }

    async fn confirm(&mut self, interfaces: &[String]) -> Result<(), GuardError> {
        self.violations = None;
        let each = interfaces
            .iter()
            .flat_map(|interface| ["--interface", interface]);
        let verb: Vec<&str> = std::iter::once("confirm").chain(each).collect();
        self.call(&verb).await.map(|_| ())
    }

    async fn evidence(&mut self) -> Vec<Evidence> {
        let called = async |verb: &[&str]| match self.call(verb).await {
            Ok((_, said)) => said,
            Err(why) => {
                tracing::warn!("no evidence is sent: {why}");
                Value::Null
            }
        };
        let report = called(&["report", "--json"]).await;
        let drift = called(&["drift", "--json", "--findings"]).await;
        let mut all = evidence::of(&report, &drift);
        for one in &mut all {
            if let Some(said) = self.said.get(&one.interface) {
                one.watched_seconds = said.watched;
                one.against.clone_from(&said.against);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn a_reason_is_one_line_with_all_that_it_names() {
        for (said, wanted) in [
            ("", "it says nothing"),
            ("killed\n", "killed"),
            ("error: no\n\nhint: do\n", "no"),
            (
                "warning: w\nerror: cuts 1 session:\n  10.0.0.1:22 to 10.0.0.2:9\n\nhint: wait\n",
                "cuts 1 session: 10.0.0.1:22 to 10.0.0.2:9",
            ),
        ] {
            assert_eq!(reason(said), wanted);
        }
    }
}
