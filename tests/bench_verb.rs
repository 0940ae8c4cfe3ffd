//! `portguard bench` measures the policy in force, and leaves the guard alone.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::guard::{Guarded, SHORT};

fn bench(guarded: &Guarded, more: &[&str]) -> Result<Value> {
    let mut args = vec!["bench".to_owned(), "--json".to_owned()];
    args.extend(["--rounds".to_owned(), "3".to_owned()]);
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    let output = guarded.run(&args, None)?.success()?;
    Ok(serde_json::from_str(&output.stdout)?)
}

fn counters(guarded: &Guarded) -> Result<Value> {
    let args = ["counters".to_owned(), "--json".to_owned()];
    let output = guarded.run(&args, None)?.success()?;
    let mut counters: Value = serde_json::from_str(&output.stdout)?;
    // The time of the answer moves on. By port only: neighbours find each other meanwhile, and times of findings are converted from a clock anew each time.
    if let Value::Object(fields) = &mut counters {
        ensure!(fields.remove("time").is_some(), "no `time` in the counters");
    }
    for interface in counters["interfaces"].as_array_mut().into_iter().flatten() {
        if let Value::Object(fields) = interface {
            fields.retain(|name, _| ["name", "ports"].contains(&name.as_str()));
        }
    }
    Ok(counters)
}

/// The status without what the neighbours' own packets move: those that pass are not the test's to count.
fn still(guarded: &Guarded) -> Result<Option<Value>> {
    let mut status = guarded.status()?;
    if let Some(Value::Object(fields)) = &mut status {
        for moving in ["packets", "bytes"] {
            ensure!(
                fields.remove(moving).is_some(),
                "no `{moving}` in the status"
            );
        }
    }
    Ok(status)
}

#[test]
fn what_is_in_force_is_measured_and_left_alone() -> Result<()> {
    let guarded = Guarded::new()?;
    let nothing = guarded.run(&["bench".to_owned()], None)?;
    assert_eq!(nothing.code(), 2, "{}", nothing.stderr);
    assert!(nothing.stderr.contains("hint:"), "{}", nothing.stderr);

    let restricted = ["--management", "tcp/7003=192.0.2.0/24"];
    guarded.load("--enforce", &[7001], &restricted)?;
    assert!(!guarded.reaches(7002, SHORT)?, "one violation to count");
    let before = (still(&guarded)?, counters(&guarded)?, guarded.pinned()?);
    let answer = bench(&guarded, &["--interface", guarded.interface()])?;
    let after = (still(&guarded)?, counters(&guarded)?, guarded.pinned()?);
    assert_eq!(before, after);

    assert_eq!(answer["schema"], 1);
    let interface = &answer["interfaces"][0];
    assert_eq!(interface["name"], guarded.interface());
    assert_eq!(interface["generation"], 1);
    assert!(interface["memory"]["per_cpu"].as_u64() > Some(0));
    let classes = interface["classes"].as_array().context("no classes")?;
    let class = |name: &str| {
        let found = classes.iter().find(|class| class["class"] == name);
        found.with_context(|| format!("no class `{name}` in {answer}"))
    };
    for (name, verdict) in [
        ("udp4-open", "pass"),
        ("udp6-open", "pass"),
        ("udp4-closed", "drop"),
        ("tcp6-closed", "drop"),
        ("tcp4-vlan-closed", "drop"),
        ("tcp4-peer", "pass"),
        ("tcp4-stranger", "drop"),
        ("arp", "pass"),
        ("fragment4", "pass"),
        ("malformed", "drop"),
    ] {
        let class = class(name)?;
        assert_eq!(class["verdict"], verdict, "{name}");
        assert!(class["net_nanoseconds"].is_f64(), "{name}");
        assert_eq!(class["direction"], "in");
    }
    Ok(())
}
