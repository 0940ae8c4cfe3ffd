//! What no table has room for is refused by the compiler, with the row that takes most of it.

use super::fixture::{SITE, compiled, messages};

fn row(name: &str, ports: &str, more: &str) -> String {
    format!(
        "[[row]]\nname = \"{name}\"\ndirection = \"in\"\ntransport = \"tcp\"\nports = [{ports}]\npeers = [\"10.8.0.0/16\"]\nreason = \"wanted\"\n{more}\n"
    )
}

fn site(rows: &[String]) -> String {
    SITE.replacen("[[host]]", &format!("{}[[host]]", rows.concat()), 1)
}

/// The errors, and in which line a text stands.
fn errors(site: &str, text: &str) -> (Vec<String>, usize) {
    let said = messages(&compiled(site, "node1"));
    let errors = said.into_iter().filter(|line| line.contains(": error["));
    let line = site
        .lines()
        .position(|line| line == text)
        .map_or(0, |at| at + 1);
    (errors.collect(), line)
}

/// Every other port, as many as that.
fn odd(count: u16) -> String {
    let ports: Vec<String> = (0..count)
        .map(|index| (2 * index + 1).to_string())
        .collect();
    ports.join(", ")
}

#[test]
fn more_counters_than_there_are_are_refused_with_the_row_that_needs_most() {
    let rows = [row("few", "9001", ""), row("many", &odd(16_400), "")];
    let (errors, line) = errors(&site(&rows), "name = \"many\"");
    assert_eq!(errors.len(), 1, "{errors:?}");
    let place = format!("site.toml:{}:", line - 1);
    assert!(errors[0].starts_with(&place), "{place} {}", errors[0]);
    assert!(
        errors[0].contains(
            "error[policy-too-large]: the policy needs more than 16383 counter cells\n  hint: "
        ),
        "{}",
        errors[0]
    );
}

#[test]
fn as_many_as_there_are_compile() {
    for ports in [odd(16_000), "\"1-65535\"".to_owned()] {
        let (errors, _) = errors(&site(&[row("many", &ports, "")]), "");
        assert_eq!(errors, Vec::<String>::new());
    }
}

#[test]
fn more_endings_than_a_port_can_follow_are_refused() {
    let rows: Vec<String> = (1..=5)
        .map(|month| {
            let expires = format!("expires = 2027-0{month}-01");
            row(&format!("until-{month}"), "9001", &expires)
        })
        .collect();
    let text = site(&rows);
    let (said, line) = errors(&text, "name = \"until-1\"");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with(&format!("site.toml:{}:", line - 1)),
        "{}",
        said[0]
    );
    assert!(
        said[0].contains("end at more than 4 different times\n  hint: let rows"),
        "{}",
        said[0]
    );
    let (said, _) = errors(&site(rows.get(1..).unwrap()), "");
    assert_eq!(said, Vec::<String>::new());
}
