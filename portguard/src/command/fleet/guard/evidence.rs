//! What the verbs say was seen here, as the fleet has it.

use portguard_fleet::evidence::{Cause, Evidence};
use portguard_policy::human::range;
use serde_json::Value;

/// Of `report --json` and `drift --json --findings`.
pub(super) fn of(report: &Value, drift: &Value) -> Vec<Evidence> {
    let listening = list(drift, "items")
        .filter(|item| text(item, "direction") == "in" && list(item, "listeners").next().is_some())
        .filter(|item| text(item, "state").ends_with("undocumented"))
        .map(service);
    let listening: std::collections::BTreeSet<String> = listening.collect();
    list(report, "interfaces")
        .map(|one| {
            let mut evidence = Evidence {
                interface: text(one, "name").to_owned(),
                since: text(one, "since").to_owned(),
                effective: one
                    .get("effective")
                    .map_or("", |now| text(now, "inbound"))
                    .to_owned(),
                listening: listening.clone(),
                violations: one
                    .get("violations")
                    .map_or(0, |sum| number(sum, "packets")),
                ..Evidence::default()
            };
            for reason in list(one, "reasons") {
                let name = format!("{} {}", text(reason, "direction"), text(reason, "reason"));
                evidence.reasons.insert(name, number(reason, "packets"));
            }
            for row in list(one, "rows") {
                let rows = if number(row, "packets") > 0 {
                    &mut evidence.used
                } else {
                    &mut evidence.unused
                };
                rows.insert(text(row, "row").to_owned());
            }
            evidence.causes = list(one, "traffic").map(cause).collect();
            evidence
        })
        .collect()
}

fn cause(finding: &Value) -> Cause {
    Cause {
        direction: text(finding, "direction").to_owned(),
        kind: text(finding, "kind").to_owned(),
        what: text(finding, "what").to_owned(),
        violations: number(finding, "violations"),
        listening: finding.get("listening").and_then(Value::as_bool) == Some(true),
        peers: list(finding, "peers")
            .map(|peer| text(peer, "peer").to_owned())
            .collect(),
    }
}

/// `tcp/8080 java`.
fn service(item: &Value) -> String {
    let first = number(item, "port_first");
    let ports = range(first, number(item, "port_last"));
    let process = list(item, "listeners")
        .flat_map(|listener| list(listener, "processes"))
        .map(|process| text(process, "name"))
        .find(|name| !name.is_empty())
        .unwrap_or("unknown");
    format!("{}/{ports} {process}", text(item, "transport"))
}

/// A list, which is empty where there is none.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// A text, which is empty where there is none.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or_default()
}
