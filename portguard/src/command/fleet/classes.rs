//! `portguard fleet classes`: what each class of certificates may do in etcd.

use std::path::PathBuf;

use clap::Args;
use portguard_fleet::store::etcd::{classes, set_up};
use portguard_fleet::store::{Address, Etcd, Files};
use portguard_policy::error::{Exit, Fault};
use serde::Serialize;

use super::project::ProjectArgs;
use super::{block_on, store_fault};
use crate::stderr::say;
use crate::stdout::print_field;

/// Make the classes of certificates in etcd, and turn its authorisation on
///
/// Once, with the certificate of etcd's user `root`. From then on a certificate may do what its common name says:
/// `portguard-agent`, `portguard-reader`, `portguard-controller` or `portguard-publisher`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet classes --ca tls/ca.pem --cert tls/root.pem --key tls/root.key")]
pub(super) struct ClassesArgs {
    /// Authority that signed etcd's certificate
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Certificate of `root`
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// A class, and what it may write.
#[derive(Debug, Serialize)]
struct Class {
    name: &'static str,
    /// Below `/portguard/v1/`.
    writes: Vec<&'static str>,
}

/// Makes them.
pub(super) fn run(args: &ClassesArgs) -> anyhow::Result<Exit> {
    let Address::Etcd(hosts) = args.project.open()?.address()? else {
        return Err(Fault::usage("only etcd has classes of certificates")
            .hint("who may write a directory, or what a web server serves, is up to them")
            .into());
    };
    let files = Files {
        ca: Some(args.ca.clone()),
        cert: Some(args.cert.clone()),
        key: Some(args.key.clone()),
    };
    block_on(async {
        let store = Etcd::new(&hosts, &files).map_err(|error| store_fault(&error))?;
        set_up(&store)
            .await
            .map_err(|error| store_fault(&error).into())
    })?;
    let classes: Vec<Class> = classes()
        .into_iter()
        .map(|(name, writes)| Class { name, writes })
        .collect();
    if args.json {
        print_field("classes", &classes)?;
        return Ok(Exit::Ok);
    }
    say("etcd goes by the common names of certificates now; each class reads everything, and");
    for class in &classes {
        let writes: Vec<&str> = class
            .writes
            .iter()
            .map(|prefix| {
                if prefix.is_empty() {
                    "everything"
                } else {
                    prefix
                }
            })
            .collect();
        let writes = if writes.is_empty() {
            "nothing".to_owned()
        } else {
            writes.join(", ")
        };
        say(&format!("  {:<22} writes {writes}", class.name));
    }
    Ok(Exit::Ok)
}
