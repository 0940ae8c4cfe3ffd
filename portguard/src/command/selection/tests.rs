//! Reading what is selected, from real files.

use std::fs;
use std::path::PathBuf;

use portguard_policy::error::Exit;
use portguard_policy::policy::{Outbound, Peers};

use super::{INTERFACES_DIFFER, OutboundArg, Resolving, SelectionArgs};
use crate::failure::exit_of;

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portguard-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_beside_the_site_are_read_and_flags_override() {
    let dir = Directory::new("selection");
    dir.write("list.txt", "10.7.0.0/16\n");
    let site = "schema = 1\nmode = \"enforce\"\n[groups]\nours = [\"file:list.txt\"]\n[management]\nallow = [\"tcp/22=ours\"]\n[[host]]\nname = \"a\"\naddresses = [\"192.0.2.1\"]\n";
    let config = Some(dir.write("site.toml", site));
    let args = SelectionArgs {
        config,
        host: Some("a".to_owned()),
        audit: true,
        ..SelectionArgs::default()
    };
    let compiled = args.load(Resolving::WhenTold).unwrap().compile(None);
    assert!(!compiled.policy.settings.enforce);
    let Peers::Set(set) = compiled.policy.inbound[0].peers else {
        panic!("{:?}", compiled.policy.inbound)
    };
    assert_eq!(compiled.policy.peers_text(Peers::Set(set)), ["10.7.0.0/16"]);
}

#[test]
fn an_audit_that_is_asked_for_drops_nothing_in_either_direction() {
    let dir = Directory::new("selection-audit");
    let site = "schema = 1\nmode = \"enforce\"\noutbound = \"enforce\"\n[management]\nallow = [\"tcp/22\"]\n[[host]]\nname = \"a\"\naddresses = [\"192.0.2.1\"]\n";
    let config = Some(dir.write("site.toml", site));
    let settings = |outbound: Option<OutboundArg>| {
        let args = SelectionArgs {
            config: config.clone(),
            host: Some("a".to_owned()),
            audit: true,
            outbound,
            ..SelectionArgs::default()
        };
        let compiled = args.load(Resolving::WhenTold).unwrap().compile(None);
        compiled.policy.settings
    };
    assert!(!settings(None).enforce);
    assert_eq!(settings(None).outbound, Outbound::Audit);
    // Unless somebody asks for that, too.
    let asked = settings(Some(OutboundArg::Enforce));
    assert_eq!(asked.outbound, Outbound::Enforce);
}

#[test]
fn what_holds_on_no_interface_is_said_to() {
    let dir = Directory::new("selection-interfaces");
    let note = |interfaces: &str, asked: Option<&str>| {
        let site = format!(
            "schema = 1\nmode = \"audit\"\nunprinted_peers = \"any\"\n[management]\nallow = [\"tcp/22\"]\n[[host]]\nname = \"a\"\n\
             addresses = [\"10.1.0.1\"]\ninterfaces = {{ {interfaces} }}\nroles = [\"wso2/api-manager\"]\n"
        );
        let args = SelectionArgs {
            config: Some(dir.write("site.toml", &site)),
            host: Some("a".to_owned()),
            ..SelectionArgs::default()
        };
        let compiled = args.load(Resolving::WhenTold).unwrap().compile(asked);
        let all = compiled.diagnostics.into_iter();
        let mut notes = all.filter(|one| one.code == INTERFACES_DIFFER);
        notes.next().map(|note| note.message)
    };
    let both = "eth0 = { roles = [\"wso2/api-manager\"], mode = \"enforce\" }, eth1 = {}";
    let said = note(both, None).unwrap();
    assert!(said.contains("`eth0`"), "{said}");
    assert_eq!(note(both, Some("eth0")), None);
    assert_eq!(note("eth0 = {}, eth1 = {}", None), None);
    let alone = note("eth0 = { mode = \"enforce\" }", None);
    assert!(alone.is_some_and(|said| said.contains("has a policy of its own")));
}

#[test]
fn files_that_are_not_there_are_the_users_fault() {
    let args = SelectionArgs {
        config: Some("/nonexistent/site.toml".into()),
        ..SelectionArgs::default()
    };
    let error = args.load(Resolving::WhenTold).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "cannot open /nonexistent/site.toml: No such file or directory (os error 2)"
    );
    assert_eq!(exit_of(&error), Exit::Usage);
    let dir = Directory::new("broken");
    let config = Some(dir.write("site.toml", "schema = 1\nmode = 1\n"));
    let error = SelectionArgs {
        config,
        ..SelectionArgs::default()
    }
    .load(Resolving::WhenTold)
    .unwrap_err();
    assert_eq!(exit_of(&error), Exit::Usage);
    assert!(error.to_string().ends_with(
        "site.toml:2:8: error[wrong-type]: `mode` must be a string, not a whole number"
    ));
}
