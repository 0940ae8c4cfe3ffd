//! `catalog show --json`: the contract with scripts. Fields may be added, never renamed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{RoleJson, roles_json};
use portguard_policy::catalog::{Condition, Inert, Peer, PeerClass, Row, System, VersionBound};

/// The rows of a system or of one of its roles, and all that they refer to.
#[derive(Serialize)]
pub(super) struct ShowJson<'a> {
    system: &'a str,
    name: &'a str,
    document: &'a str,
    source: &'a str,
    read: &'a str,
    deployments: &'a BTreeMap<String, String>,
    options: BTreeMap<&'a str, OptionJson<'a>>,
    choices: BTreeMap<&'a str, ChoiceJson<'a>>,
    groups: &'a BTreeMap<String, String>,
    roles: Vec<RoleJson<'a>>,
    rows: Vec<RowJson<'a>>,
}

#[derive(Serialize)]
struct OptionJson<'a> {
    title: &'a str,
    default: bool,
    /// Versions in which it is on whatever the site says.
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<String>,
}

#[derive(Serialize)]
struct ChoiceJson<'a> {
    title: &'a str,
    values: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of its own for who reads it"
)]
struct RowJson<'a> {
    id: &'a str,
    role: &'a str,
    direction: String,
    /// `false` where it was inferred, as for the transport.
    direction_printed: bool,
    transport: Vec<String>,
    transport_printed: bool,
    application: Option<&'a str>,
    ports: Vec<String>,
    /// The least number that the site may give where none is printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    ports_from: Option<u16>,
    /// The choice that picks one of `ports`.
    pick: Option<&'a str>,
    /// Whether the ports move with the port offset of the role's server.
    offset: bool,
    /// Rows of one role, transport and number are one setting of the site; so are rows with one listener.
    listener: Option<&'a str>,
    peers: Vec<PeerJson>,
    /// Hosts that have the peer's role by the same role as this host are no peers.
    other_roles_only: bool,
    /// What the row is for where no peer is printed: each class has its own answer in the site.
    class: Option<&'static str>,
    condition: Option<ConditionJson<'a>>,
    customisable: bool,
    /// Versions in which it is, if not in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    customisable_in: Option<String>,
    purpose: &'a str,
    citation: CitationJson<'a>,
    notes: &'a [String],
    /// Why the row opens nothing on any host.
    inert: Option<&'static str>,
    /// The other end of a row that the document prints for one end only.
    implied: bool,
    /// Place in the catalog file.
    location: &'a str,
}

#[derive(Serialize)]
struct PeerJson {
    kind: &'static str,
    /// `None` where the kind says it all.
    name: Option<String>,
}

#[derive(Serialize)]
struct ConditionJson<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    deployment: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    option: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    without: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    choice: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct CitationJson<'a> {
    document: &'a str,
    section: &'a str,
    row: &'a str,
}

pub(super) fn document<'a>(system: &'a System, rows: &[&'a Row]) -> ShowJson<'a> {
    let System {
        id,
        name,
        document,
        source,
        read,
        ..
    } = system;
    let options = system.options.iter().map(|(id, option)| {
        (
            id.as_str(),
            OptionJson {
                title: &option.title,
                default: option.default,
                required: bounds(&option.required),
            },
        )
    });
    let choices = system.choices.iter().map(|(id, choice)| {
        (
            id.as_str(),
            ChoiceJson {
                title: &choice.title,
                values: &choice.values,
            },
        )
    });
    ShowJson {
        system: id,
        name,
        document,
        source,
        read,
        deployments: &system.deployments,
        options: options.collect(),
        choices: choices.collect(),
        groups: &system.groups,
        roles: roles_json(system),
        rows: rows.iter().map(|row| row_json(system, row)).collect(),
    }
}

fn row_json<'a>(system: &'a System, row: &'a Row) -> RowJson<'a> {
    let peer = |peer: &Peer| PeerJson {
        kind: peer.kind(),
        // Useful to scripts that do not look at the row's own role.
        name: if *peer == Peer::SameRole {
            Some(row.role.clone())
        } else {
            peer.name()
        },
    };
    RowJson {
        id: &row.id,
        role: &row.role,
        direction: row.direction.to_string(),
        direction_printed: row.direction_printed,
        transport: row.transports.iter().map(ToString::to_string).collect(),
        transport_printed: row.transport_printed,
        application: row.application.as_deref(),
        ports: row.ports.iter().map(ToString::to_string).collect(),
        ports_from: row.ports_from,
        pick: row.pick.as_deref(),
        offset: row.offset,
        listener: row.listener.as_deref(),
        peers: row.peers.iter().map(peer).collect(),
        other_roles_only: row.other_roles_only,
        class: row.class.map(PeerClass::as_str),
        condition: row.condition.as_ref().map(condition_json),
        customisable: row.customisable,
        customisable_in: bounds(&row.customisable_in),
        purpose: &row.purpose,
        citation: CitationJson {
            document: &system.document,
            section: &row.citation.section,
            row: &row.citation.row,
        },
        notes: &row.notes,
        inert: row.inert.map(Inert::as_str),
        implied: row.implied,
        location: &row.location,
    }
}

fn condition_json(condition: &Condition) -> ConditionJson<'_> {
    let Condition {
        deployments,
        version,
        options,
        without,
        choices,
    } = condition;
    ConditionJson {
        deployment: deployments,
        version: bounds(version),
        option: options,
        without,
        choice: choices,
    }
}

/// As the catalog writes them; `None` if there are none.
fn bounds(version: &[VersionBound]) -> Option<String> {
    let bounds: Vec<_> = version.iter().map(ToString::to_string).collect();
    (!bounds.is_empty()).then(|| bounds.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use portguard_policy::catalog::Catalog;

    fn shown(name: &str) -> Value {
        let catalog = Catalog::embedded().unwrap();
        let system = &catalog.systems[name];
        let rows: Vec<_> = system.rows.iter().collect();
        serde_json::to_value(document(system, &rows)).unwrap()
    }

    fn row(document: &Value, id: &str) -> Value {
        let rows = document["rows"].as_array().unwrap();
        rows.iter()
            .find(|row| row["id"] == id)
            .unwrap_or_else(|| panic!("{id}"))
            .clone()
    }

    #[test]
    fn json_has_every_field_of_the_contract() {
        let document = shown("thoughtspot");
        assert_eq!(document["system"], "thoughtspot");
        assert_eq!(document["document"], "ThoughtSpot: Network ports");
        let mut row = row(&document, "thoughtspot/outbound-influxcloud-8086");
        let row = row.as_object_mut().unwrap();
        row.remove("location");
        row.remove("notes").unwrap();
        assert_eq!(
            Value::from(row.clone()),
            json!({
                "id": "thoughtspot/outbound-influxcloud-8086",
                "role": "node",
                "direction": "out",
                "direction_printed": true,
                "transport": ["tcp"],
                "transport_printed": false,
                "application": "HTTPS",
                "ports": ["8086"],
                "pick": null,
                "offset": false,
                "listener": null,
                "other_roles_only": false,
                "class": null,
                "implied": false,
                "peers": [{ "kind": "domain", "name": "pinheads-1da40166.influxcloud.net" }],
                "condition": { "version": "<4.5.1" },
                "customisable": false,
                "purpose": "monitoring data to InfluxCloud, before 4.5.1",
                "citation": {
                    "document": "ThoughtSpot: Network ports",
                    "section": "Required ports for inbound and outbound cluster access",
                    "row": "8086 HTTPS outbound",
                },
                "inert": null,
            })
        );
    }

    #[test]
    fn peers_have_kind_and_name() {
        let document = shown("thoughtspot");
        let peers = |id| row(&document, id)["peers"].clone();
        assert_eq!(
            peers("thoughtspot/intracluster-2101"),
            json!([{ "kind": "group", "name": "admin-addresses" }, { "kind": "same-role", "name": "node" }])
        );
        assert_eq!(
            peers("thoughtspot/outbound-egnyte"),
            json!([{ "kind": "prefix", "name": "208.83.110.20" }])
        );
        let document = shown("ibm-api-connect");
        assert_eq!(
            row(&document, "ibm-api-connect/gateway-9443")["peers"],
            json!([{ "kind": "unprinted", "name": null }])
        );
        let common = row(&document, "ibm-api-connect/common-443");
        assert_eq!(common["other_roles_only"], true);
        let other_end = row(&document, "ibm-api-connect/common-443/both-gateway");
        assert_eq!(other_end["implied"], true);
        let offload = row(&document, "ibm-api-connect/usage-12");
        assert_eq!(offload["listener"], "analytics-offload");
        assert_eq!(offload["class"], "infrastructure");
        assert_eq!(
            row(&document, "ibm-api-connect/gateway-5554")["condition"],
            json!({ "option": ["rest-management"] })
        );
    }
}
