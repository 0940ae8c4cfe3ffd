//! What is published beside packages: the `DaemonSet` by Kubernetes' own schemas, the Ansible role by its linter.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::{self, wheels};
use crate::shell::{capture, say};
use crate::workspace::root;

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
    for version in KUBERNETES {
        let mut validate = Command::new(PYTHON);
        validate
            .arg(root().join("xtask/src/package/kubernetes.py"))
            .arg(root().join("packaging/kubernetes/daemonset.yaml"))
            .arg(package.join(format!("kubernetes-json-schema/{version}-local-strict")));
        capture(&mut validate).with_context(|| {
            format!("packaging/kubernetes is not as Kubernetes {version} wants it")
        })?;
    }
    let versions = KUBERNETES.join(" and ");
    say(format_args!(
        "packaging/kubernetes: valid by the schemas of {versions}"
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
