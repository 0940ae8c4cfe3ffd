//! The JSON Schema of the site file, for editors: every key that the reader takes, with what it may be, and what the catalog
//! lets be said of each system.

mod keys;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use self::keys::{Key, Kind, Level, Table};
use crate::catalog::{Catalog, System};

/// Where the package has the file.
pub const FILE: &str = "/usr/share/portguard/site.schema.json";

/// The schema, by the draft that editors of TOML read. Systems that are not in the catalog may be there, too: users have
/// matrices of their own.
pub fn schema(catalog: &Catalog) -> Value {
    let mut schema = table(&keys::site(), catalog);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(
            "$schema".to_owned(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        schema.insert("title".to_owned(), json!("The site file of portguard"));
        schema.insert("definitions".to_owned(), definitions(catalog));
    }
    schema
}

const fn name_of(level: Level) -> &'static str {
    match level {
        Level::System => "system",
        Level::Cluster => "cluster",
        Level::Host => "system-of-host",
    }
}

fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{name}") })
}

/// What is said in several places.
fn definitions(catalog: &Catalog) -> Value {
    let roles: Vec<String> = catalog
        .systems
        .values()
        .flat_map(|system| {
            let roles = system.host_roles();
            roles.map(|role| format!("{}/{}", system.id, role.id))
        })
        .collect();
    let mut all = Map::new();
    let mut define = |name: &str, value: Value| all.insert(name.to_owned(), value);
    define(
        "peer",
        json!({
            "type": "string",
            "minLength": 1,
            "not": { "enum": ["any", "none"] },
            "description": "An address, a prefix, a group, role:SYSTEM/ROLE, host:NAME, domain:NAME or file:PATH",
        }),
    );
    define(
        "peers",
        json!({ "anyOf": [
            { "enum": ["any", "none"] },
            { "type": "array", "minItems": 1, "items": refer("peer") },
        ]}),
    );
    define(
        "role",
        json!({ "anyOf": [
            { "enum": roles },
            { "type": "string", "pattern": "^[^/]+/[^/]+$" },
        ]}),
    );
    let port = json!({ "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": 65535 },
        { "type": "string", "pattern": "^\\s*[0-9]+\\s*(-\\s*[0-9]+\\s*)?$" },
    ]});
    define(
        "ports",
        json!({ "anyOf": [port, { "type": "array", "minItems": 1, "items": port }] }),
    );
    for level in [Level::System, Level::Host] {
        define(name_of(level), table(&keys::system(level), catalog));
    }
    for system in catalog.systems.values() {
        define(&format!("of-{}", system.id), of_system(system));
    }
    Value::Object(all)
}

/// What one document lets a site say.
fn of_system(system: &System) -> Value {
    let mut properties = Map::new();
    if !system.deployments.is_empty() {
        let ids: Vec<&String> = system.deployments.keys().collect();
        let about = titles(system.deployments.iter());
        properties.insert(
            "deployment".to_owned(),
            json!({ "enum": ids, "description": about }),
        );
    }
    if !system.options.is_empty() {
        let ids: Vec<&String> = system.options.keys().collect();
        for (key, is_on) in [("options", false), ("without", true)] {
            let of_key = system
                .options
                .iter()
                .filter(|(_, one)| one.default == is_on);
            let about = titles(of_key.map(|(id, option)| (id, &option.title)));
            properties.insert(
                key.to_owned(),
                json!({ "items": { "enum": ids }, "description": about }),
            );
        }
    }
    let choices = system.choices.iter().map(|(id, choice)| {
        let values: Vec<&String> = choice.values.keys().collect();
        let about = format!("{}: {}", choice.title, titles(choice.values.iter()));
        let one = json!({ "enum": values });
        let both = json!({ "type": "object", "properties": { "both": { "items": one } } });
        let any = json!({ "anyOf": [one, both], "description": about });
        (id.clone(), any)
    });
    let choices: Map<String, Value> = choices.collect();
    if !choices.is_empty() {
        properties.insert("choices".to_owned(), json!({ "properties": choices }));
    }
    let groups = system.groups.iter();
    let groups: Map<String, Value> = groups
        .map(|(id, title)| (id.clone(), json!({ "description": title })))
        .collect();
    properties.insert("peers".to_owned(), json!({ "properties": groups }));
    json!({ "description": system.document, "properties": properties })
}

/// `id (title), id (title)`.
fn titles<'t>(all: impl Iterator<Item = (&'t String, &'t String)>) -> String {
    let each: Vec<String> = all.map(|(id, title)| format!("{id} ({title})")).collect();
    each.join(", ")
}

fn table(Table(keys): &Table, catalog: &Catalog) -> Value {
    let described = |key: &Key| {
        let mut value = value(&key.kind, catalog);
        match value.as_object_mut() {
            Some(plain) if !plain.contains_key("$ref") => {
                plain.insert("description".to_owned(), json!(key.about));
                value
            }
            // Beside a reference nothing else is read.
            _ => json!({ "allOf": [value], "description": key.about }),
        }
    };
    let properties: Map<String, Value> = keys
        .iter()
        .map(|key| (key.name.to_owned(), described(key)))
        .collect();
    let required = keys.iter().filter(|key| key.is_required);
    let required: Vec<&str> = required.map(|key| key.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn value(kind: &Kind, catalog: &Catalog) -> Value {
    match kind {
        Kind::Format => json!({ "const": 1 }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Number(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Text | Kind::Date => json!({ "type": "string" }),
        Kind::Shaped(pattern, example) => {
            json!({ "type": "string", "pattern": pattern, "examples": [example] })
        }
        Kind::Texts(of, least) => {
            let items = value(of, catalog);
            json!({ "type": "array", "items": items, "minItems": least })
        }
        Kind::Either(one, other) => {
            json!({ "anyOf": [value(one, catalog), value(other, catalog)] })
        }
        Kind::Peer => refer("peer"),
        Kind::Peers => refer("peers"),
        Kind::Role => refer("role"),
        Kind::Ports => refer("ports"),
        Kind::Table(inner) => table(inner, catalog),
        Kind::Tables(inner, least) => {
            json!({ "type": "array", "minItems": least, "items": table(inner, catalog) })
        }
        Kind::Named(of) => {
            json!({ "type": "object", "additionalProperties": value(of, catalog) })
        }
        Kind::Systems(level) => systems(*level, catalog),
    }
}

/// Those of the catalog each with what its document has; others by the keys alone.
fn systems(level: Level, catalog: &Catalog) -> Value {
    let any = refer(name_of(level));
    let known: Map<String, Value> = catalog
        .systems
        .keys()
        .map(|id| {
            (
                id.clone(),
                json!({ "allOf": [any, refer(&format!("of-{id}"))] }),
            )
        })
        .collect();
    json!({ "type": "object", "properties": known, "additionalProperties": any })
}
