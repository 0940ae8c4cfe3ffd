//! What the publisher's verbs refuse, and what they never lose.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::Fleet;
use crate::guard::eventually;

#[test]
fn plans_that_would_cut_hosts_or_do_not_compile_are_refused() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    let site = fleet.path("site.toml");
    let good = std::fs::read_to_string(&site)?;
    let refused = |fleet: &Fleet, text: &str, what: &str| -> Result<()> {
        std::fs::write(&site, text)?;
        let output = fleet.verb(&["plan"])?;
        ensure!(
            output.status.code() == Some(2),
            "{what}: {}\n{}",
            output.stdout,
            output.stderr
        );
        ensure!(output.stderr.contains(what), "{what}: {}", output.stderr);
        Ok(())
    };
    refused(&fleet, &good.replace("[\"tcp/22\"]", "[]"), "management")?;
    refused(
        &fleet,
        &good.replace("wso2/identity-server", "wso2/identity-serve"),
        "identity-serve",
    )?;
    // It looks at the store first; what is not there is no empty store.
    let config = fleet.path("fleet.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replace("file:store", "etcd://10.77.0.9"))?;
    std::fs::write(&site, &good)?;
    let output = fleet.verb(&["plan"])?;
    assert_eq!(output.status.code(), Some(3), "{}", output.stderr);
    Ok(())
}

/// Head, release or inventory: whatever of the store is broken or forged, whoever publishes goes on.
#[test]
fn a_store_that_was_broken_is_published_to_again() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    fleet.verb(&["enroll", "left"])?.success()?;
    fleet.publish()?;
    let mut serial = 1;
    let head = fleet.path("store/head");
    let release = |serial: u64| fleet.path(&format!("store/release/{serial:020}"));
    ensure!(release(1).exists(), "where releases are");
    let object = std::fs::read_dir(fleet.path("store/object"))?;
    let objects: Vec<PathBuf> = object.flatten().map(|entry| entry.path()).collect();
    let breaks: [(&str, &dyn Fn() -> Result<()>); 6] = [
        ("a head to come", &|| Ok(std::fs::write(&head, "99")?)),
        ("an old head", &|| Ok(std::fs::write(&head, "1")?)),
        ("no number", &|| Ok(std::fs::write(&head, "x")?)),
        ("no head", &|| Ok(std::fs::remove_file(&head)?)),
        ("half a release", &|| {
            let serial: u64 = std::fs::read_to_string(&head)?.trim().parse()?;
            Ok(std::fs::write(release(serial), "{\"manifest\":")?)
        }),
        ("no inventory", &|| {
            for object in &objects {
                let _ = std::fs::remove_file(object);
            }
            Ok(())
        }),
    ];
    // With one release only, the old head is the head.
    fleet.publish()?;
    serial += 1;
    for (what, harm) in breaks {
        harm().context(what)?;
        let refused = fleet.verb(&["plan"])?;
        ensure!(
            refused.code() == 3 && refused.stderr.contains("plan --repair"),
            "{what}: {refused}"
        );
        let planned = fleet.json(&["plan", "--repair", "--json"])?;
        serial += 1;
        ensure!(planned["serial"] == serial, "{what}: {planned:#}");
        fleet.sign()?;
        fleet.verb(&["apply", "--repair"])?.success()?;
        let said = fleet.json(&["status", "--json"])?;
        ensure!(said["serial"] == serial, "{what}: {said:#}");
    }
    Ok(())
}

/// A controller, a second terminal, a copy from yesterday: none of them makes the publisher sign a number twice.
#[test]
fn no_serial_is_ever_signed_twice() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    fleet.publish()?;
    let yesterday = std::fs::read(fleet.path("trust.json"))?;
    let controller = fleet.control()?;
    fleet.publish()?;
    // Taken away again at once, before anybody else saw it.
    let store = fleet.path("store");
    std::fs::remove_file(store.join(format!("release/{:020}", 2)))?;
    std::fs::write(store.join("head"), "1")?;
    eventually("the controller says that it is older", || {
        Ok(controller.stderr().contains("older than release 2"))
    })?;
    let planned = fleet.json(&["plan", "--repair", "--json"])?;
    assert_eq!(planned["serial"], 3, "{planned:#}");
    fleet.sign()?;
    // Signed, and given to somebody; and the memory of yesterday.
    std::fs::write(fleet.path("trust.json"), yesterday)?;
    drop(controller);
    std::fs::write(store.join("head"), "99")?;
    let planned = fleet.json(&["plan", "--repair", "--json"])?;
    assert_eq!(planned["serial"], 4, "{planned:#}");
    Ok(())
}

#[test]
fn what_is_signed_stays_until_a_new_plan_is_whole() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    fleet.verb(&["plan"])?.success()?;
    fleet.sign()?;
    let signature = fleet.path("next/publisher.minisig");
    let good = std::fs::read_to_string(fleet.path("site.toml"))?;
    std::fs::write(fleet.path("site.toml"), "schema = 7\n")?;
    assert_eq!(fleet.verb(&["plan"])?.code(), 2);
    assert!(signature.exists(), "a plan that failed took it away");
    std::fs::write(fleet.path("site.toml"), good)?;
    fleet.verb(&["apply"])?.success()?;
    fleet.verb(&["plan"])?.success()?;
    assert!(!signature.exists(), "it is of another plan");
    // A name that nobody has is said; and a site that is not there, how to make it.
    fleet.verb(&["enroll", "nobody"])?.success()?;
    let planned = fleet.json(&["plan", "--json"])?;
    assert_eq!(planned["not_in_site"], serde_json::json!(["nobody"]));
    for verb in [
        &["hold", "nobody", "--because", "a typo"][..],
        &["unhold", "nobody"],
    ] {
        let refused = fleet.verb(verb)?;
        assert_eq!(refused.code(), 2, "{refused}");
        assert!(refused.stderr.contains("has no host `nobody`"), "{refused}");
    }
    std::fs::remove_file(fleet.path("site.toml"))?;
    let refused = fleet.verb(&["plan"])?;
    assert!(refused.stderr.contains("portguard setup"), "{refused}");
    Ok(())
}
