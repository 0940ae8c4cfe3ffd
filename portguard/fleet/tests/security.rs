//! SECURITY.md's table of attempts names tests: each is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where a file is that the table names: below the fleet's tests, or from the top.
fn file(name: &str) -> PathBuf {
    let places = ["portguard/fleet/tests", "portguard/fleet/src", "."];
    let mut all = places.iter().map(|place| root().join(place).join(name));
    all.find(|path| path.is_file())
        .unwrap_or_else(|| panic!("SECURITY.md names {name}, which is not there"))
}

/// Names of tests in a file; those that a macro runs over every store are functions, too.
fn functions(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let after = text.split("fn ").skip(1);
    let names = after.map(|rest| {
        let end = rest.find(|one: char| !one.is_alphanumeric() && one != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    });
    names.collect()
}

#[test]
fn every_attempt_has_a_test() {
    let text = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let (_, fleet) = text.split_once("\n## The fleet\n").unwrap();
    let rows: Vec<&str> = fleet
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    let rows = rows.get(2..).unwrap();
    assert!(rows.len() > 30, "{} attempts", rows.len());
    let mut known: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    let mut named = 0;
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        if cell.trim() == "the same" {
            continue;
        }
        let mut path = None;
        let codes: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!codes.is_empty(), "no test: {row}");
        for code in codes.into_iter().filter(|code| !code.starts_with("cargo ")) {
            let test = match code.split_once("::") {
                Some((name, test)) => {
                    path = Some(file(name));
                    test
                }
                None if code.contains('/') || code.contains(".rs") => {
                    path = Some(file(code));
                    continue;
                }
                None => code,
            };
            let path = path
                .clone()
                .unwrap_or_else(|| panic!("in which file is {test}?"));
            let all = known
                .entry(path.clone())
                .or_insert_with(|| functions(&path));
            let is_there = match test.strip_suffix('*') {
                Some(begin) => all.iter().any(|one| one.starts_with(begin)),
                None => all.iter().any(|one| one == test),
            };
            assert!(is_there, "{} has no {test}", path.display());
            named += 1;
        }
    }
    assert!(named > 30, "{named} tests");
}
