//! The bill of materials: every crate that is in the program, in the JSON of `CycloneDX`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::package::stage::rfc3339;
use crate::shell::capture;
use crate::workspace::{cargo, root};

/// What is shipped: the command, and the programs for the kernel that are embedded in it.
const SHIPPED: [&str; 2] = ["portguard", "portguard-ebpf"];

/// `cargo metadata`, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// `Cargo.lock`, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// Writes it.
pub(super) fn write(file: &Path, epoch: u64) -> Result<()> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let text = capture(cargo().args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--features=portguard-ebpf/bpf",
        "--filter-platform",
        &platform,
    ]))?;
    let metadata = serde_json::from_str(&text).context("cannot read `cargo metadata`")?;
    let lock = toml::from_str(&fs::read_to_string(root().join("Cargo.lock"))?)
        .context("cannot read Cargo.lock")?;
    let bill = bill(&metadata, &lock, &rfc3339(epoch)?)?;
    fs::write(file, serde_json::to_string_pretty(&bill)? + "\n")?;
    Ok(())
}

fn bill(metadata: &Metadata, lock: &Lock, time: &str) -> Result<Value> {
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package))
        .collect();
    let edges: BTreeMap<&str, BTreeSet<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), linked(node)))
        .collect();
    let sums: BTreeMap<(&str, &str), &str> = lock
        .package
        .iter()
        .filter_map(|one| {
            Some((
                (one.name.as_str(), one.version.as_str()),
                one.checksum.as_deref()?,
            ))
        })
        .collect();
    let mut open: Vec<&str> = packages
        .values()
        .filter(|package| SHIPPED.contains(&package.name.as_str()))
        .map(|package| package.id.as_str())
        .collect();
    let mut inside = BTreeSet::new();
    while let Some(id) = open.pop() {
        if inside.insert(id) {
            open.extend(edges.get(id).into_iter().flatten());
        }
    }
    let main = packages
        .values()
        .find(|package| package.name == SHIPPED[0])
        .context("`cargo metadata` knows no portguard")?;
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for id in &inside {
        let package = packages.get(id).context("an unknown package")?;
        let on: Vec<String> = edges
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|id| packages.get(id).map(|package| reference(package)))
            .collect();
        dependencies.push(json!({"ref": reference(package), "dependsOn": on}));
        if package.id != main.id {
            let sum = sums.get(&(package.name.as_str(), package.version.as_str()));
            components.push(component(package, "library", sum.copied()));
        }
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": time, "component": component(main, "application", None)},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What ends up in the program with a package: not what builds or tests it.
fn linked(node: &Node) -> BTreeSet<&str> {
    node.deps
        .iter()
        .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()))
        .map(|dependency| dependency.pkg.as_str())
        .collect()
}

fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package, kind: &str, sum: Option<&str>) -> Value {
    let mut known = Map::new();
    let mut say = |key: &str, value: Value| known.insert(key.to_owned(), value);
    say("type", json!(kind));
    say("bom-ref", json!(reference(package)));
    say("name", json!(package.name));
    say("version", json!(package.version));
    if package.source.is_some() {
        say("purl", json!(reference(package)));
    }
    if let Some(text) = &package.description {
        say("description", json!(text.trim()));
    }
    if let Some(license) = &package.license {
        // Older crates write a slash where SPDX has OR.
        let expression = license.replace(" / ", " OR ").replace('/', " OR ");
        say("licenses", json!([{"expression": expression}]));
    }
    if let Some(sum) = sum {
        say("hashes", json!([{"alg": "SHA-256", "content": sum}]));
    }
    Value::Object(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_with_its_hash_and_what_builds_or_tests_is_not() {
        let metadata = serde_json::from_value(json!({
            "packages": [
                {"id": "p", "name": "portguard", "version": "1.0.0", "license": "MIT", "description": null, "source": null},
                {"id": "a", "name": "a", "version": "2.0.0", "license": "MIT/Apache-2.0", "description": "A", "source": "registry"},
                {"id": "b", "name": "b", "version": "3.0.0", "license": null, "description": null, "source": "registry"},
            ],
            "resolve": {"nodes": [
                {"id": "p", "deps": [
                    {"pkg": "a", "dep_kinds": [{"kind": null}]},
                    {"pkg": "b", "dep_kinds": [{"kind": "dev"}, {"kind": "build"}]},
                ]},
                {"id": "a", "deps": []},
                {"id": "b", "deps": []},
            ]},
        }))
        .unwrap();
        let lock =
            toml::from_str("[[package]]\nname = \"a\"\nversion = \"2.0.0\"\nchecksum = \"00ff\"\n")
                .unwrap();
        let bill = bill(&metadata, &lock, "2026-01-01T00:00:00Z").unwrap();
        let components = bill["components"].as_array().unwrap();
        assert_eq!(components.len(), 1, "{bill}");
        assert_eq!(components[0]["name"], "a");
        assert_eq!(components[0]["hashes"][0]["content"], "00ff");
        assert_eq!(
            components[0]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(bill["metadata"]["component"]["name"], "portguard");
    }
}
