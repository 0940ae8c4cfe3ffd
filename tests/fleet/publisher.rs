//! What the publisher's verbs refuse, and what they never lose.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Fleet, SOON};
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

#[test]
fn nothing_is_made_that_no_other_verb_would_take() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    let key = fleet.publisher.pk.to_base64();
    let place = tempfile::tempdir()?;
    let init = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portguard"));
        command
            .args(["fleet", "init", "prod"])
            .args(arguments)
            .current_dir(place.path());
        fleet.link.left.host.output(&mut command, SOON)
    };
    let quoted = "file:a\"b\\c";
    for (arguments, says) in [
        (&["--key", "abc"][..], "not a minisign public key"),
        (&["--key", ""], "not a minisign public key"),
        (&["--key", "\"\n[tls]"], "not a minisign public key"),
        (&["--threshold", "0"], "0 of 0 keys"),
        (&["--key", &key, "--threshold", "2"], "2 of 1 keys"),
        (
            &["--key", &key, "--key", &key, "--threshold", "2"],
            "2 of 1 keys",
        ),
        (&["--key", &key, "--store", "https://fleet"], "read only"),
        (&["--key", &key, "--store", "fleet"], "not a store"),
        (
            &["--key", &key, "--store", "file:/proc/none"],
            "cannot make",
        ),
    ] {
        let output = init(arguments)?;
        ensure!(output.code() >= 2, "{arguments:?}: {output}");
        ensure!(output.stderr.contains(says), "{arguments:?}: {output}");
        let made = std::fs::read_dir(place.path())?.count();
        ensure!(made == 0, "{arguments:?} leaves something");
    }
    init(&["--key", &key, "--store", quoted])?.success()?;
    ensure!(place.path().join("a\"b\\c").is_dir(), "the store");
    let mut status = Command::new(env!("CARGO_BIN_EXE_portguard"));
    status.args(["fleet", "status"]).current_dir(place.path());
    let output = fleet.link.left.host.output(&mut status, SOON)?;
    ensure!(
        output.stderr.contains("nothing has been published"),
        "{output}"
    );
    Ok(())
}

/// The stand-in for `minisign` hands out a signature that was made here.
#[test]
fn a_stranger_s_signature_neither_counts_nor_is_in_the_way() -> Result<()> {
    let fleet = Fleet::new("enforce")?;
    fleet.verb(&["enroll", "left"])?.success()?;
    fleet.verb(&["plan"])?.success()?;
    let stranger = minisign::KeyPair::generate_unencrypted_keypair()?;
    let manifest = std::fs::read(fleet.path("next/manifest.json"))?;
    let programs = tempfile::tempdir()?;
    let program = programs.path().join("minisign");
    let made = programs.path().join("made");
    let script = format!(
        "#!/bin/sh\nwhile [ \"$1\" != -x ]; do shift; done\ncp {} \"$2\"\n",
        made.display()
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let path = format!(
        "{}:{}",
        programs.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let sign = |name: &str, pair: &minisign::KeyPair| -> Result<_> {
        let signature = minisign::sign(Some(&pair.pk), &pair.sk, &manifest[..], None, None)?;
        std::fs::write(&made, signature.to_string())?;
        let mut command = fleet.command(&["sign", "-s", name, "--json"]);
        command.env("PATH", &path);
        fleet.link.left.host.output(&mut command, SOON)
    };
    let output = sign("stranger.key", &stranger)?;
    assert_eq!(output.code(), 2, "{output}");
    ensure!(output.stdout.contains("do not go by its key"), "{output}");
    ensure!(!fleet.path("next/stranger.minisig").exists(), "it is left");
    let output = sign("alice.key", &fleet.publisher)?.success()?;
    ensure!(output.stdout.contains("\"signatures\": 1"), "{output}");
    // By hand it comes there all the same.
    let signature = minisign::sign(Some(&stranger.pk), &stranger.sk, &manifest[..], None, None)?;
    std::fs::write(fleet.path("next/stranger.minisig"), signature.to_string())?;
    let output = fleet.verb(&["apply"])?.success()?;
    ensure!(output.stderr.contains("is left out"), "{output}");
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
