//! The container image: an archive in OCI's layout, of one layer with one file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::package::stage::rfc3339;
use crate::shell::capture;
use crate::shipped::Shipped;

/// Writes `portguard-VERSION-ARCH.oci.tar`, which `podman load` and `skopeo` read. The same image as that of
/// `packaging/container/Containerfile`.
pub(super) fn write(shipped: &Shipped, out: &Path, version: &str, epoch: u64) -> Result<PathBuf> {
    let work = out.join("image");
    let root = work.join("root");
    let layout = work.join("layout");
    fs::create_dir_all(&root)?;
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::copy(&shipped.program, root.join("portguard"))?;
    let layer = work.join("layer.tar");
    tar(&root, &["portguard"], &layer, epoch)?;
    let architecture = shipped.arch.debian();
    let time = rfc3339(epoch)?;

    let layer = blob(&layout, &layer)?;
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "created": time,
        "config": {
            "Entrypoint": ["/portguard"],
            "Cmd": ["--help"],
            "Labels": {
                "org.opencontainers.image.title": "portguard",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        // Uncompressed: the layer's digest is that of its content.
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        "history": [{"created": time, "created_by": "cargo xtask release"}],
    });
    let config = document(&layout, &work, &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.described("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.described("application/vnd.oci.image.layer.v1.tar")],
    });
    let manifest = document(&layout, &work, &manifest)?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.digest,
            "size": manifest.size,
            "annotations": {"org.opencontainers.image.ref.name": version},
            "platform": {"architecture": architecture, "os": "linux"},
        }],
    });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(
        layout.join("oci-layout"),
        json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )?;
    let archive = out.join(format!(
        "portguard-{version}-{}.oci.tar",
        shipped.arch.name()
    ));
    tar(
        &layout,
        &["oci-layout", "index.json", "blobs"],
        &archive,
        epoch,
    )?;
    fs::remove_dir_all(work)?;
    Ok(archive)
}

/// A file of the layout, named by its content.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn described(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.size})
    }
}

fn document(layout: &Path, work: &Path, document: &Value) -> Result<Blob> {
    let file = work.join("document.json");
    fs::write(&file, document.to_string())?;
    blob(layout, &file)
}

fn blob(layout: &Path, file: &Path) -> Result<Blob> {
    let text = capture(Command::new("sha256sum").arg(file))?;
    let sum = text.split_whitespace().next().context("no checksum")?;
    fs::rename(file, layout.join("blobs/sha256").join(sum))?;
    Ok(Blob {
        digest: format!("sha256:{sum}"),
        size: fs::metadata(layout.join("blobs/sha256").join(sum))?.len(),
    })
}

/// The same bytes whoever calls it when.
fn tar(folder: &Path, names: &[&str], to: &Path, epoch: u64) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .args([
            "--create",
            "--format=ustar",
            "--sort=name",
            "--numeric-owner",
        ])
        .args(["--owner=0", "--group=0", "--mode=u=rwX,go=rX"])
        .arg(format!("--mtime=@{epoch}"))
        .arg("--file")
        .arg(to)
        .arg("--directory")
        .arg(folder)
        .args(names);
    capture(&mut command).map(drop)
}
