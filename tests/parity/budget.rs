//! What the programs may cost the verifier and the instruction cache: `tests/budget.toml`.

use portguard::object::HostFacts;
use portguard::policy::Policy;
use serde::Deserialize;

use super::{image, loaded, policies};

#[derive(Debug, Deserialize)]
struct Budget {
    ingress: Vec<Limit>,
}

/// One way to load a program.
#[derive(Debug, Deserialize)]
struct Limit {
    policy: String,
    multi_buffer: bool,
    verified: u32,
    instructions: u32,
}

#[test]
fn ingress_keeps_its_budget() {
    let text = include_str!("../budget.toml");
    let budget: Budget = toml::from_str(text).expect("the budget file is sound");
    let mut over = Vec::new();
    for limit in &budget.ingress {
        let policy = policy(&limit.policy);
        let host = HostFacts {
            multi_buffer: limit.multi_buffer,
            ..HostFacts::default()
        };
        let mut loaded = loaded(&image(&policy), &host);
        let info = loaded
            .ingress()
            .and_then(|program| Ok(program.info()?))
            .expect("facts of the program");
        let verified = info
            .verified_instruction_count()
            .expect("Linux 5.16 or later");
        let instructions = info.size_translated().expect("root may know") / 8;
        println!("{limit:?}: {verified} verified, {instructions} instructions");
        if verified > limit.verified || instructions > limit.instructions {
            over.push(format!(
                "{limit:?}: {verified} verified, {instructions} instructions"
            ));
        }
    }
    assert!(over.is_empty(), "over budget:\n{}", over.join("\n"));
}

fn policy(name: &str) -> Policy {
    let all = policies::all();
    let mut found = all
        .into_iter()
        .filter(|policy| policy.host.as_deref() == Some(name));
    found.next().unwrap_or_else(|| panic!("no policy `{name}`"))
}
