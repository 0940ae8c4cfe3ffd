//! Verbs over several interfaces: what cannot be done on one keeps none of the others from its turn, and is told.

use anyhow::{Result, ensure};
use portguard_harness::net::Output;
use serde_json::Value;

use crate::arrivals::Place;
use crate::guard::{Guarded, LONG};

/// A host with two cards, both guarded.
struct Both(Place);

impl Both {
    fn new() -> Result<Self> {
        Ok(Self(Place::new()?))
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let host = &self.0.guarded.link.left.host;
        host.output(&mut Guarded::command(args), LONG)
    }

    fn names(&self) -> (&str, &str) {
        (self.0.guarded.interface(), &self.0.second.left.name)
    }

    fn load(&self, name: &str, more: &[&str]) -> Result<()> {
        let args = self.0.guarded.load_args("--outbound", &[7000], &[]);
        let args = args.iter().map(|one| match one.as_str() {
            "--outbound" => "--outbound=audit",
            one if one == self.0.guarded.interface() => name,
            one => one,
        });
        let args: Vec<&str> = args.chain(more.iter().copied()).collect();
        self.run(&args)?.success()?;
        Ok(())
    }

    /// What is in force on each.
    fn inbound(&self) -> Result<Vec<(String, String, u64)>> {
        let status: Value =
            serde_json::from_str(&self.run(&["status", "--json"])?.success()?.stdout)?;
        let all = status["interfaces"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(all
            .map(|one| {
                let number = one["generation"].as_u64().unwrap_or_default();
                (
                    text(&one["name"]),
                    text(&one["effective"]["inbound"]),
                    number,
                )
            })
            .collect())
    }

    fn is(&self, name: &str, inbound: &str) -> Result<bool> {
        Ok(self
            .inbound()?
            .iter()
            .any(|one| one.0 == name && one.1 == inbound))
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        let _ = self.run(&["unload", "--interface", self.names().1]);
    }
}

#[test]
fn a_rollback_that_one_cannot_do_changes_none_and_names_the_others() -> Result<()> {
    let both = Both::new()?;
    let (first, second) = both.names();
    both.load(first, &["--audit"])?;
    both.load(first, &["--enforce"])?;
    both.load(second, &["--enforce"])?;
    let before = both.inbound()?;
    let refused = both.run(&["rollback"])?;
    ensure!(refused.code() == 2, "{refused}");
    ensure!(both.inbound()? == before, "{:?}", both.inbound()?);
    let hint = format!("`portguard rollback --interface {first}`");
    let named = format!("`portguard unload --interface {second}`");
    ensure!(
        refused.stderr.contains(&hint) && refused.stderr.contains(&named),
        "{refused}"
    );
    both.run(&["rollback", "--interface", first])?.success()?;
    ensure!(both.is(first, "audit")? && both.is(second, "enforce")?);
    Ok(())
}

#[test]
fn a_guard_that_lapsed_keeps_no_other_from_being_confirmed() -> Result<()> {
    let both = Both::new()?;
    let (first, second) = both.names();
    both.load(first, &["--enforce", "--confirm-within", "1ns"])?;
    both.load(second, &["--enforce", "--confirm-within", "1h"])?;
    let partly = both.run(&["confirm", "--json"])?;
    ensure!(partly.code() == 3, "{partly}");
    let said: Value = serde_json::from_str(&partly.stdout)?;
    ensure!(
        said["interfaces"][0]["name"] == second && said["interfaces"][0]["confirmed"] == true,
        "{said}"
    );
    ensure!(said["failed"][0]["name"] == first, "{said}");
    let hint = said["failed"][0]["hint"].as_str().unwrap_or_default();
    ensure!(hint.contains(&format!("--interface {first}")), "{said}");
    // Said once more, to a person: there is nothing left to do for the second.
    let again = both.run(&["confirm"])?;
    let is_told = again.stderr.contains("too late") && again.stderr.contains("nothing to confirm");
    ensure!(again.code() == 3 && is_told, "{again}");
    Ok(())
}

#[test]
fn an_interface_that_has_gone_keeps_no_other_from_going_back() -> Result<()> {
    let both = Both::new()?;
    let (first, second) = both.names();
    for name in [first, second] {
        both.load(name, &["--audit"])?;
        both.load(name, &["--enforce"])?;
    }
    both.0.guarded.link.left.host.delete_interface(second)?;
    let back = both.run(&["rollback", "--json"])?.success()?;
    let said: Value = serde_json::from_str(&back.stdout)?;
    ensure!(
        said["interfaces"][0]["name"] == first && said["gone"][0] == second,
        "{said}"
    );
    ensure!(both.is(first, "audit")?);
    ensure!(
        back.stderr
            .contains(&format!("unload --interface {second}")),
        "{back}"
    );
    Ok(())
}
