//! `portguard fleet classes`: what each class of certificates may do in etcd.

use std::path::PathBuf;

use clap::Args;
use portguard_fleet::store::etcd::{AGENT, CONTROLLER, PUBLISHER, READER, set_up};
use portguard_fleet::store::{Address, Etcd, Files};
use portguard_policy::error::{Exit, Fault};

use super::project::{ProjectArgs, eprint_line};
use super::{block_on, store_fault};

/// Make the classes of certificates in etcd, and turn its authorisation on
///
/// Once, with the certificate of etcd's user `root`. From then on a certificate may do what its common name says:
/// `portguard-agent`, `portguard-reader`, `portguard-controller` or `portguard-publisher`.
#[derive(Debug, Args)]
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
    #[command(flatten)]
    project: ProjectArgs,
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
    eprint_line(&format!(
        "etcd goes by certificates: {AGENT}, {READER}, {CONTROLLER}, {PUBLISHER}"
    ));
    Ok(Exit::Ok)
}
