//! From audit to enforce on evidence: what was seen decides, over reloads and boots.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::net::Output;
use portguard_harness::traffic::{TcpEcho, connect, exchange_tcp};
use serde_json::Value;

use crate::guard::{Guarded, LONG, SOON, eventually};

/// Open, and not.
const OPEN: u16 = 7020;
const CLOSED: [u16; 2] = [7021, 7022];

struct Audited {
    guarded: Guarded,
    state: PathBuf,
}

impl Audited {
    fn new() -> Result<Self> {
        let guarded = Guarded::new()?;
        let state = std::env::temp_dir().join(format!("{}-state", guarded.interface()));
        std::fs::create_dir_all(&state)?;
        Ok(Self { guarded, state })
    }

    fn run(&self, args: &[String]) -> Result<Output> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = Guarded::command(&args);
        command.env("STATE_DIRECTORY", &self.state);
        command.env("SUDO_USER", "ada");
        self.guarded.link.left.host.output(&mut command, LONG)
    }

    fn load(&self, ports: &[u16]) -> Result<Output> {
        self.run(&self.guarded.load_args("--audit", ports, &[]))?
            .success()
    }

    /// `promote` with the same policy.
    fn promote(&self, ports: &[u16], more: &[&str]) -> Result<(Output, Value)> {
        let mut args = self.guarded.load_args("--enforce", ports, more);
        *args.first_mut().context("a verb")? = "promote".to_owned();
        args.push("--json".to_owned());
        let output = self.run(&args)?;
        let answer = serde_json::from_str(&output.stdout).unwrap_or_default();
        Ok((output, answer))
    }

    fn knock(&self, port: u16, count: usize) -> Result<()> {
        let target = SocketAddr::new(self.guarded.link.left.v4().into(), port);
        self.guarded.link.right.host.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..count {
                // Nobody listens: what comes back is no matter of this test.
                let _ = socket.send_to(b"knock", target);
            }
            Ok(())
        })
    }

    fn mode(&self) -> Result<String> {
        let status = self.guarded.status()?.context("a guard")?;
        Ok(status["mode"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

fn flow<'a>(answer: &'a Value, what: &str) -> Result<&'a Value> {
    answer["interfaces"][0]["flows"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|flow| flow["what"] == what)
        .with_context(|| format!("no {what} in {answer}"))
}

fn against(answer: &Value) -> String {
    answer["interfaces"][0]["against"].to_string()
}

#[test]
fn enforcing_waits_for_evidence_and_for_every_flow_to_be_explained() -> Result<()> {
    let audited = Audited::new()?;
    let (output, _) = audited.promote(&[OPEN], &["--window", "0"])?;
    ensure!(
        output.code() == 2 && output.stderr.contains("not guarded"),
        "{output}"
    );
    audited.load(&[OPEN])?;
    for port in CLOSED {
        audited.knock(port, 5)?;
    }
    audited.knock(OPEN, 20)?;

    // Neither long enough nor often enough, and two flows that nobody explained.
    let (output, answer) = audited.promote(&[OPEN], &[])?;
    ensure!(
        output.code() == 1 && answer["promoted"] == false,
        "{output}"
    );
    for said in ["--window", "hours of the day", "--min-packets", "2 flows"] {
        ensure!(against(&answer).contains(said), "{said}: {answer}");
    }
    let first = flow(&answer, "udp/7021")?;
    ensure!(
        first["state"] == "unexplained" && first["packets"] == 5,
        "{first}"
    );
    ensure!(first["peer"] == "10.77.0.2", "{first}");
    ensure!(
        first["first"].as_str() <= first["last"].as_str()
            && first["first"].as_str() > Some("2020-01-01T00:00:00Z"),
        "{first}"
    );
    ensure!(
        first["site"]
            .as_str()
            .is_some_and(|site| site.contains("ports = [7021]")),
        "{first}"
    );
    ensure!(first["nearest"].to_string().contains("udp/7020"), "{first}");
    ensure!(audited.mode()? == "audit");

    let lax = ["--window", "0", "--min-packets", "10"];
    // One is accepted: not yet enough, and kept. A dry run keeps nothing.
    let accept = [
        "--accept",
        "udp/7021=10.77.0.0/24",
        "--because",
        "a scanner of ours",
    ];
    let dry = [&lax[..], &accept, &["--dry-run"]].concat();
    let (output, answer) = audited.promote(&[OPEN], &dry)?;
    ensure!(
        output.code() == 1 && against(&answer).contains("1 flow "),
        "{output}"
    );
    let (_, answer) = audited.promote(&[OPEN], &lax)?;
    ensure!(against(&answer).contains("2 flows"), "{answer}");
    audited.promote(&[OPEN], &[&lax[..], &accept].concat())?;
    let (output, answer) = audited.promote(&[OPEN], &lax)?;
    ensure!(output.code() == 1, "{output}");
    let said = &flow(&answer, "udp/7021")?["accepted"];
    ensure!(
        said["by"] == "ada" && said["why"] == "a scanner of ours" && said["at"].is_string(),
        "{answer}"
    );

    // What the audited policy admits and this one does not was never watched.
    let (output, answer) = audited.promote(&[CLOSED[1]], &lax)?;
    ensure!(
        output.code() == 1 && against(&answer).contains("closes ports that the audited one admits"),
        "{output}"
    );

    // The other one is written into the site: a dry run touches nothing, then it is enforced.
    let both = [OPEN, CLOSED[1]];
    let (output, answer) = audited.promote(&both, &[&lax[..], &["--dry-run"]].concat())?;
    ensure!(
        output.code() == 0 && answer["promoted"] == false,
        "{output}"
    );
    ensure!(audited.mode()? == "audit");
    let (output, answer) =
        audited.promote(&both, &[&lax[..], &["--confirm-within", "1h"]].concat())?;
    ensure!(output.code() == 0 && answer["promoted"] == true, "{output}");
    ensure!(
        flow(&answer, "udp/7022")?["state"] == "admitted",
        "{answer}"
    );
    ensure!(answer["loaded"][0]["mode"] == "enforce", "{answer}");
    ensure!(
        answer["loaded"][0]["confirm_deadline"].is_string(),
        "{answer}"
    );
    ensure!(audited.mode()? == "enforce");
    Ok(())
}

#[test]
fn evidence_outlives_reloads_and_boots() -> Result<()> {
    let audited = Audited::new()?;
    audited.load(&[OPEN])?;
    audited.knock(CLOSED[0], 3)?;
    // The agent writes it down.
    let history = format!("--history={}", audited.state.display());
    let args = ["agent", "--every=1", &history].map(str::to_owned);
    let mut command = Guarded::command(&args.each_ref().map(String::as_str));
    command.env("STATE_DIRECTORY", &audited.state);
    let agent = audited.guarded.link.left.host.start(&mut command)?;
    let file = audited
        .state
        .join(format!("{}.evidence.json", audited.guarded.interface()));
    eventually("the evidence", || {
        Ok(std::fs::read_to_string(&file).is_ok_and(|text| text.contains("7021")))
    })?;
    drop(agent);
    // What a boot does to the kernel: nothing is left there.
    audited.guarded.unload()?.success()?;
    audited.load(&[OPEN])?;
    audited.knock(CLOSED[0], 4)?;
    audited.load(&[OPEN, CLOSED[1]])?;
    let (output, answer) = audited.promote(&[OPEN, CLOSED[1]], &["--window", "0"])?;
    ensure!(output.code() == 1, "{output}");
    let flow = flow(&answer, "udp/7021")?;
    ensure!(flow["packets"] == 7, "{flow}");
    Ok(())
}

/// What the host itself had open before it was audited is its own: no violation, and nothing to explain.
#[test]
fn what_was_open_before_the_audit_is_no_evidence_against_enforcing() -> Result<()> {
    let audited = Audited::new()?;
    let (left, right) = (&audited.guarded.link.left, &audited.guarded.link.right);
    let mut open = Vec::new();
    for theirs in right.both() {
        let server = TcpEcho::start(&right.host, SocketAddr::new(theirs, 0))?;
        let own = left.host.run(|| connect(server.address(), SOON).stream())?;
        open.push((server, own));
    }
    audited.load(&[OPEN])?;
    for (_, own) in &mut open {
        for _ in 0..5 {
            ensure!(exchange_tcp(own, b"still here", SOON)?);
        }
    }
    // They may end as well.
    drop(open.pop());
    audited.knock(OPEN, 20)?;
    let counters = audited.run(&["counters", "--json"].map(str::to_owned))?;
    let counters: Value = serde_json::from_str(&counters.success()?.stdout)?;
    // Outbound, what it sends may well be undocumented.
    let is_inbound = |one: &&Value| one["direction"] == "in";
    let findings = counters["interfaces"][0]["findings"].as_array();
    let inbound = findings.context("findings")?.iter().find(is_inbound);
    ensure!(inbound.is_none(), "{inbound:?}");
    let lax = ["--window", "0", "--min-packets", "10", "--dry-run"];
    let (_, answer) = audited.promote(&[OPEN], &lax)?;
    let flows = answer["interfaces"][0]["flows"].as_array();
    let inbound = flows.context("flows")?.iter().find(is_inbound);
    ensure!(inbound.is_none(), "{inbound:?}");
    // Whatever is kept of it is for root only.
    let mut kept = 0;
    for file in std::fs::read_dir(&audited.state)? {
        let (path, facts) = file.map(|file| (file.path(), file.metadata()))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&facts?.permissions());
        ensure!(mode & 0o777 == 0o600, "{}: {mode:o}", path.display());
        kept += 1;
    }
    ensure!(kept > 1, "{kept} files");
    Ok(())
}
