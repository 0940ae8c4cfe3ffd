//! What is shipped for monitoring, before the programs that will read it: a Prometheus that scrapes, its rules' own tests,
//! and the dashboard's queries answered by it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_harness::net::{Host, Process};
use portguard_harness::traffic::PacketSocket;
use serde_json::Value;

use super::agent::get;
use super::guard::{Guarded, LONG, eventually};

const DATABASE: u16 = 9_090;

fn shipped(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../docs/monitoring").join(name)
}

/// Runs a program of Debian's package `prometheus`; where it is missing, that is a failure with the way out.
fn promtool(arguments: &[&str]) -> Result<String> {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(shipped(""))
        .output()
        .context("this test needs `promtool` of Debian's package `prometheus`: `cargo xtask setup` installs it")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

#[test]
fn rules_keep_their_tests() -> Result<()> {
    for (rules, tests) in [
        ("alerts.yml", "alerts-test.yml"),
        ("fleet-rules.yml", "fleet-rules-test.yml"),
    ] {
        let said = promtool(&["check", "rules", rules])?;
        assert!(said.contains("SUCCESS"), "{said}");
        let said = promtool(&["test", "rules", tests])?;
        assert!(said.contains("SUCCESS"), "{said}");
        // Every alert and every recorded series has a test.
        let rules = std::fs::read_to_string(shipped(rules))?;
        let tests = std::fs::read_to_string(shipped(tests))?;
        for line in rules.lines().map(str::trim) {
            if let Some(alert) = line.strip_prefix("- alert: ") {
                let has_test = tests.contains(&format!("alertname: {alert}\n"));
                assert!(has_test, "{alert} has no test");
            }
            if let Some(series) = line.strip_prefix("- record: ") {
                assert!(
                    tests.contains(&format!("- expr: {series}")),
                    "{series} has no test"
                );
            }
        }
    }
    Ok(())
}

/// Asks the database for JSON.
fn ask(host: &Host, path: &str) -> Result<Value> {
    let body = host.run(|| {
        let address: SocketAddr = ([127, 0, 0, 1], DATABASE).into();
        let mut stream = TcpStream::connect_timeout(&address, LONG)?;
        stream.set_read_timeout(Some(LONG))?;
        // 1.0: no chunks.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        Ok(body.to_owned())
    })?;
    serde_json::from_str(&body).with_context(|| body)
}

fn query(host: &Host, expression: &str) -> Result<Value> {
    let encoded: String = expression.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    });
    let answer = ask(host, &format!("/api/v1/query?query={encoded}"))?;
    ensure!(answer["status"] == "success", "{expression}: {answer}");
    Ok(answer["data"]["result"].clone())
}

fn database(host: &Host, directory: &Path) -> Result<Process> {
    let config = directory.join("prometheus.yml");
    let rules = shipped("alerts.yml").canonicalize()?;
    let fleet = shipped("fleet-rules.yml").canonicalize()?;
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}', '{}']\nscrape_configs:\n\
             - job_name: portguard\n  static_configs: [{{targets: ['127.0.0.1:9475']}}]\n",
            rules.display(),
            fleet.display()
        ),
    )?;
    host.start(Command::new("prometheus").args([
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", directory.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{DATABASE}"),
    ]))
    .context("this test needs Debian's package `prometheus`: `cargo xtask setup` installs it")
}

/// Undocumented datagrams: as many ports and sources as there are.
fn knock(guarded: &Guarded, count: u16) -> Result<()> {
    let link = &guarded.link;
    link.right.host.run(|| {
        let socket = PacketSocket::open(&link.right.name)?;
        for number in 0..count {
            let [high, low] = number.to_be_bytes();
            let frame = Frame::between(&link.right, &link.left)
                .ipv4(Ipv4::new([198, 18, high, low].into(), link.left.v4()))
                .udp(Udp::new(40_000, 20_000 + number))
                .payload(vec![0; 20])
                .build();
            socket.send(&frame)?;
        }
        Ok(())
    })
}

/// Every expression of the dashboard's panels and variables.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if matches!(key.as_str(), "expr" | "query" | "definition") => {
                        found.push(text.to_owned());
                    }
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Names of ours in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("portguard_"))
}

#[test]
fn a_prometheus_scrapes_and_answers_the_dashboard_and_the_alerts() -> Result<()> {
    let guarded = Guarded::new()?;
    let host = &guarded.link.left.host;
    let directory = std::env::temp_dir().join(format!("{}-prometheus", guarded.interface()));
    std::fs::create_dir_all(&directory)?;
    guarded.load("--audit", &[], &[])?;
    let history = format!("--history={}", directory.join("history").display());
    let mut agent = host.start(&mut Guarded::command(&["agent", "--every=1", &history]))?;
    let mut database = database(host, &directory)?;
    knock(&guarded, 5)?;
    eventually("the database scraped", || {
        if let Some(status) = database.wait(std::time::Duration::ZERO)? {
            anyhow::bail!("prometheus ended ({status}): {}", database.stderr());
        }
        let Ok(found) = query(
            host,
            "portguard_packets_total{reason=\"undocumented-port\"}",
        ) else {
            return Ok(false);
        };
        Ok(found[0]["value"][1] == "5")
    })?;
    let targets = ask(host, "/api/v1/targets")?;
    assert_eq!(
        targets["data"]["activeTargets"][0]["health"], "up",
        "{targets}"
    );
    let rules = ask(host, "/api/v1/rules")?;
    let groups = rules["data"]["groups"].as_array().context("groups")?;
    for rule in groups
        .iter()
        .filter_map(|group| group["rules"].as_array())
        .flatten()
    {
        assert_ne!(rule["health"], "err", "{rule}");
    }

    // Whatever the dashboard and the alerts ask for is a metric of ours, with labels that are there.
    let (_, exposition) = get(host, "/metrics", "*/*")?;
    let exposed: BTreeSet<&str> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let mut dashboards = Vec::new();
    let mut asked = Vec::new();
    for name in ["grafana-dashboard.json", "fleet-dashboard.json"] {
        let dashboard: Value = serde_json::from_slice(&std::fs::read(shipped(name))?)?;
        let before = asked.len();
        expressions(&dashboard, &mut asked);
        assert!(asked.len() > before + 10, "{asked:?}");
        dashboards.push(dashboard);
    }
    let alerts = std::fs::read_to_string(shipped("alerts.yml"))?
        + &std::fs::read_to_string(shipped("fleet-rules.yml"))?;
    for name in asked
        .iter()
        .flat_map(|text| names(text))
        .chain(names(&alerts))
    {
        assert!(exposed.contains(name), "{name} is not exposed");
    }
    for target in dashboards
        .iter()
        .filter_map(|dashboard| dashboard["panels"].as_array())
        .flatten()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
    {
        let expression = target["expr"].as_str().context("an expression")?;
        let filled = expression
            .replace("$__rate_interval", "1m")
            .replace("$__range", "1h")
            .replace("$instance", ".*")
            .replace("$interface", ".*");
        query(host, &filled).with_context(|| expression.to_owned())?;
    }

    // Who knocks at more doors makes no more series; of those who knock, the ten heaviest have a name.
    let series = |text: &str| {
        let of_all = text.lines().filter(|line| !line.starts_with('#'));
        let (callers, others): (Vec<_>, Vec<_>) =
            of_all.partition(|line| line.starts_with("portguard_caller_packets{"));
        assert!(callers.len() <= 10, "{callers:?}");
        others.len()
    };
    let before = series(&exposition);
    knock(&guarded, 2_000)?;
    let ports = "portguard_undocumented_ports";
    eventually("the ports are counted", || {
        let found = query(
            host,
            &format!("{ports}{{direction=\"in\", transport=\"udp\"}}"),
        )?;
        Ok(found[0]["value"][1] == "2000")
    })?;
    let (_, exposition) = get(host, "/metrics", "*/*")?;
    assert_eq!(series(&exposition), before, "{exposition}");

    database.kill();
    agent.kill();
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
