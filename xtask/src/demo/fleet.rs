//! `cargo xtask demo --fleet`: one signed site for eight hosts, in three members of etcd, rolled out in waves.
//!
//! The guards, the agents and etcd are real. Whatever is shown is checked, so that this is also the test of a fleet over etcd.

mod field;
mod network;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::stage::{Paint, private_bpffs};
use crate::shell::{result, say};
use field::{Field, Site};

pub(super) fn play(program: PathBuf) -> Result<()> {
    private_bpffs()?;
    let paint = Paint::new();
    let title = |text: &str| say(format_args!("\n{}", paint.bold(text)));
    let begun = Instant::now();
    title(
        "Eight hosts with a WSO2 identity server, three members of etcd, two publishers who must both sign",
    );
    let mut field = Field::new(program)?;
    say(STORY);

    title("1. The first release: every host audits, none enforces");
    field.site(Site::First)?;
    field.show(&["plan"], &[])?;
    field.sign(&[])?;
    field.show(&["apply"], &["published"])?;
    field.start_agents()?;
    field.wait("ready", "role=wso2/identity-server")?;
    field.use_undocumented()?;
    field.wait_back("audit", "node-5")?;
    say("    somebody uses port 4711 of node-5, which no document names");

    title("2. The canary enforces; the gate holds node-5 back, by its own evidence");
    field.show(&["rollout", "start"], &["running"])?;
    field.wait("confirmed", "tier=canary")?;
    field.show(&["status"], &SOME)?;
    field.show(
        &["drift"],
        &["tcp/4711", "violations", "Undocumented services"],
    )?;
    field.must_enforce(&["node-1", "node-2"])?;
    field.must_not_enforce("node-5")?;

    title("3. The second release admits it; etcd's leader is killed in the middle of the rollout");
    field.site(Site::Second)?;
    field.publish(&[])?;
    field.wait("confirmed", "tier=canary")?;
    let leader = field.kill_leader()?;
    say(format_args!("    member {leader} led, and is killed"));
    field.wait("confirmed", "role=wso2/identity-server")?;
    field.show(&["status"], &["fleet "])?;
    field.must_enforce(&field::HOSTS)?;

    title(
        "4. A policy that cuts the hosts off from etcd: refused, and, by force, healed by the kernel",
    );
    let before = field.digests()?;
    field.site(Site::Cuts)?;
    field.refused(&["plan"], "cuts the way to the store")?;
    say(
        "    the publishers insist, and sign that hosts need not have evidence about what is closed (`closing = \"allow\"`)",
    );
    field.publish(&["--force"])?;
    field.wait("reverted", "tier=canary")?;
    field.wait_for_phase("halted")?;
    field.show(&["status"], &SOME)?;
    ensure!(
        before.get(2..) == field.digests()?.get(2..),
        "a host that is no canary has another policy than before"
    );
    field.must_enforce(&field::HOSTS)?;
    for node in 1..=8 {
        let (documented, other) = (field.answers(node, 22)?, field.answers(node, 4712)?);
        ensure!(
            documented && !other,
            "node-{node} does not drop what it dropped before"
        );
    }
    say(
        "    all eight hosts drop what they dropped before; of the six that are not canaries none was touched",
    );

    title("5. A fourth release, and back again: a rollback is signed, too");
    field.site(Site::Fourth)?;
    field.publish(&[])?;
    field.wait("confirmed", "role=wso2/identity-server")?;
    ensure!(
        field.answers(8, 4712)?,
        "the fourth release admits port 4712"
    );
    field.refused(&["rollback"], "did not sign")?;
    field.sign(&["--rollback"])?;
    field.show(
        &["rollback", "--because", "the demo wants it"],
        &["rolling-back"],
    )?;
    field.wait("reverted", "role=wso2/identity-server")?;
    ensure!(
        before == field.digests()?,
        "the hosts did not go back to what was in force before"
    );
    say(format_args!("    took {} s", begun.elapsed().as_secs()));
    result(paint.good(
        "\nAs signed: no host enforced before its turn or against its own evidence, the bad policy healed itself, and nothing went \
         back without a signature.",
    ));
    Ok(())
}

/// Of the table of hosts: one of each kind is enough.
const SOME: [&str; 6] = [
    "fleet demo",
    "rollout running:",
    "rollout halted:",
    "node-1",
    "node-3",
    "node-5",
];

const STORY: &str = "
    etcd-1 to etcd-3   10.79.101.2, 10.79.102.2, 10.79.103.2   mutual TLS; each class of certificates may do what it must
    node-1, node-2     10.79.1.2, 10.79.2.2                    the canary, in two zones
    node-3 to node-8   10.79.3.2 ... 10.79.8.2                 the rest
    a controller, and the publishers' directory, on the network between them";
