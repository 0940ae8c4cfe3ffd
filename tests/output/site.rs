//! A site of two hosts, the same on every machine.

/// What the document asks, and the site may answer or leave open.
#[derive(Default)]
pub(super) struct Answers {
    system: String,
    host: String,
}

/// All of it answered, and an interface named.
pub(super) fn answered(interface: &str) -> Answers {
    Answers {
        system: "finder = [\"192.0.2.16/28\"]\n[systems.nexthink.choices]\ndirectory-channel = \"secure\"\nportal-access = \"secure\"\n"
            .to_owned(),
        host: format!("[host.interfaces.{interface}]\n"),
    }
}

/// The site file of a portal at an address, and of an engine.
pub(super) fn site(address: &str, Answers { system, host }: &Answers) -> String {
    format!(
        r#"schema = 1
unprinted_peers = ["admins"]
unresolved_ports = "none"
[groups]
admins = ["10.9.0.0/28"]
[management]
allow = ["tcp/22=admins"]
[systems.nexthink]
deployment = "on-premises"
[systems.nexthink.peers]
active-directory = ["192.0.2.5"]
mail-server = ["192.0.2.6"]
{system}[[host]]
name = "portal1"
addresses = ["{address}"]
roles = ["nexthink/portal"]
{host}[[host]]
name = "engine1"
addresses = ["10.0.0.2"]
roles = ["nexthink/engine"]
"#
    )
}
