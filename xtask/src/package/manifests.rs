//! What is published beside packages: the `DaemonSet` by Kubernetes' own schemas, the Ansible role by its linter.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::setup::{self, wheels};
use crate::shell::{capture, say};
use crate::workspace::{root, target};

/// The oldest and the newest Kubernetes whose schemas the manifest must fit.
const KUBERNETES: [&str; 2] = ["v1.30.0", "v1.37.0"];

/// Debian's Python, which has Debian's modules, whatever other comes first on PATH.
const PYTHON: &str = "/usr/bin/python3";

/// Checks them.
pub(super) fn check() -> Result<()> {
    setup::ensure_tools(&setup::MANIFESTS)?;
    kubernetes()?;
    ansible()
}

/// Every document of the manifest, with nothing in it that the schema does not know.
fn kubernetes() -> Result<()> {
    let package = wheels::ensure_folder("kubernetes-validate", "kubernetes_validate")?;
    let mut convert = Command::new(PYTHON);
    convert
        .args(["-c", "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"])
        .arg(root().join("packaging/kubernetes/daemonset.yaml"));
    let documents: Vec<Value> = serde_json::from_str(&capture(&mut convert)?)?;
    ensure!(!documents.is_empty(), "the manifest is empty");
    let folder = target().join("manifests");
    fs::create_dir_all(&folder)?;
    for version in KUBERNETES {
        let schemas = package.join(format!("kubernetes-json-schema/{version}-local-strict"));
        for document in &documents {
            let text = |key: &str| {
                document
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let (kind, group) = (
                text("kind").to_lowercase(),
                text("apiVersion").replace('/', "-"),
            );
            let schema = schemas.join(format!("{kind}-{group}.json"));
            ensure!(
                schema.exists(),
                "Kubernetes {version} has no {kind} of {group}"
            );
            let file = folder.join(format!("{kind}.json"));
            fs::write(&file, document.to_string())?;
            let mut validate = Command::new("/usr/bin/jsonschema");
            validate
                .arg("--instance")
                .arg(&file)
                .arg("--base-uri")
                .arg(format!("file://{}/", schemas.display()))
                .arg(schema);
            capture(&mut validate).with_context(|| {
                format!(
                    "the {kind} of packaging/kubernetes is not as Kubernetes {version} wants it"
                )
            })?;
        }
    }
    say(format_args!(
        "packaging/kubernetes: {} documents, by the schemas of {}",
        documents.len(),
        KUBERNETES.join(" and ")
    ));
    Ok(())
}

fn ansible() -> Result<()> {
    let mut lint = Command::new("ansible-lint");
    lint.current_dir(root().join("packaging/ansible")).args([
        "--offline",
        "--strict",
        "--profile",
        "production",
        "roles/portguard",
    ]);
    capture(&mut lint).context("the Ansible role is not as ansible-lint wants it")?;
    say("packaging/ansible: as ansible-lint's profile `production` wants it");
    Ok(())
}
