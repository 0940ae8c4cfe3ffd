//! The documents of a release: the site and all that it refers to, as hosts will have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use portguard_fleet::layout;
use portguard_fleet::release::{MAX_OBJECT, document};
use portguard_kernel::host::resolve;
use portguard_policy::compile::{self, Selection};
use portguard_policy::error::Fault;
use portguard_policy::site::Host;

use super::super::project::{Project, write};
use crate::command::selection::{Frozen, Loaded, Resolving, SelectionArgs};

/// Copies the site and all that it refers to, as hosts will have it.
pub(super) fn stage(project: &Project) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let next = project.draft();
    if next.exists() {
        fs::remove_dir_all(&next).with_context(|| format!("cannot remove {}", next.display()))?;
    }
    let site = project.directory.join(&project.config.site);
    if !site.exists() {
        return Err(
            Fault::usage(format!("there is no site file {}", site.display()))
                .hint("`portguard setup` proposes one, and docs/site.md says what is in it")
                .into(),
        );
    }
    let loaded = SelectionArgs {
        config: Some(site.clone()),
        ..SelectionArgs::default()
    }
    .load(Resolving::WhenTold)?;
    let base = site.parent().unwrap_or(Path::new(""));
    let mut documents = BTreeMap::new();
    documents.insert(document::SITE.to_owned(), read(&site)?);
    for name in loaded.site.files() {
        documents.insert(name.to_owned(), read(&base.join(name))?);
    }
    for directory in &loaded.site.catalogs {
        let path = base.join(directory);
        let entries =
            fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries.flatten() {
            let file = entry.path();
            if file.extension().is_some_and(|end| end == "toml") {
                let name = entry.file_name().to_string_lossy().into_owned();
                let name = format!("{}/{name}", directory.trim_end_matches('/'));
                documents.insert(name, read(&file)?);
            }
        }
    }
    let frozen = serde_json::to_vec(&frozen(loaded)?)?;
    documents.insert(document::FROZEN.to_owned(), frozen);
    for (name, content) in &documents {
        if !layout::is_key(name) {
            return Err(Fault::usage(format!("`{name}` cannot be part of a release"))
                .hint("put it below the site file's directory, by a name of letters, digits, `.`, `-` and `_`")
                .into());
        }
        write(&next.join("tree").join(name), content)?;
    }
    Ok(documents)
}

pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let size = fs::metadata(path).map(|meta| meta.len());
    let size = size.map_err(|error| Fault::usage(format!("cannot read {shown}: {error}")))?;
    if size > MAX_OBJECT {
        return Err(
            Fault::usage(format!("{shown}: {size} bytes are more than {MAX_OBJECT}")).into(),
        );
    }
    fs::read(path).with_context(|| format!("cannot read {shown}"))
}

/// All roles of a host, on whatever interface.
fn roles(host: &Host) -> Vec<String> {
    let of_interfaces = host.interfaces.values().flat_map(|one| &one.roles);
    let all = host.roles.iter().chain(of_interfaces);
    let all: BTreeSet<String> = all.map(|(role, _)| role.clone()).collect();
    all.into_iter().collect()
}

/// The names of all hosts, resolved once and here.
fn frozen(mut loaded: Loaded) -> anyhow::Result<Frozen> {
    let hosts = loaded.site.hosts.iter();
    // Names are a matter of roles: hosts that have the same ask for the same.
    let kinds: BTreeSet<Vec<String>> = hosts.map(roles).collect();
    let mut domains = BTreeSet::new();
    for roles in kinds {
        loaded.host = Selection::Roles(roles);
        domains.extend(compile::domains(&loaded.inputs(None)));
    }
    let (resolved, failures) = resolve::once(domains, None)?;
    loaded.freeze(Frozen {
        resolved,
        ..loaded.frozen()
    });
    let mut frozen = loaded.frozen();
    for (name, why) in failures {
        if let Some(host) = asking(&mut loaded, &name) {
            return Err(
                Fault::system(format!("domain {name} does not resolve: {why}"))
                    .hint(format!(
                        "host `{host}` has rows with this name as a peer, and a release has the answers of its day: plan \
                         again when it resolves, or say in the site who is meant (`peers.\"domain:{name}\" = [...]`)"
                    ))
                    .into(),
            );
        }
        frozen.resolved.remove(&name);
    }
    Ok(frozen)
}

/// A host whose policy has a domain name in it. Versions and options leave rows out, so that not all names are needed.
fn asking(loaded: &mut Loaded, name: &str) -> Option<String> {
    let hosts: Vec<String> = loaded
        .site
        .hosts
        .iter()
        .map(|host| host.name.clone())
        .collect();
    hosts.into_iter().find(|host| {
        loaded.host = Selection::Name(host.clone());
        let policy = loaded.compile_alone(None).policy;
        policy.domains.names.contains_key(name)
    })
}
