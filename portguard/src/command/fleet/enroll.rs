//! `portguard fleet enroll` and `revoke`: who may speak for a host.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use portguard_fleet::follow::{FollowError, published};
use portguard_fleet::publish::{Revocation, revoke as revoke_key};
use portguard_fleet::status::HostKey;
use portguard_fleet::store::Address;
use portguard_policy::error::{Exit, Fault};
use serde::Serialize;

use super::host::{Enrolled, IDENTITY};
use super::project::{ProjectArgs, name, write};
use super::{block_on, follow_fault, store_fault};
use crate::stderr::say;
use crate::stdout::print_json;

/// Give a host its own key, and write what to put on it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet enroll node-7
  portguard fleet enroll node-7 --out /run/secrets/node-7 --json")]
pub(super) struct EnrollArgs {
    /// Name of the host in the site's inventory
    #[arg(value_parser = name)]
    host: String,
    /// Where to write what goes to the host's /etc/portguard/fleet [default: enrolled/HOST in the fleet's directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Serialize)]
struct Keyed {
    host: String,
    key: String,
    /// The file that goes to the host.
    identity: String,
}

/// Enrols a host: its statuses count from the next release on.
pub(super) fn enroll(args: &EnrollArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let host = &args.host;
    let public = project.directory.join("hosts").join(format!("{host}.pub"));
    if public.exists() {
        return Err(Fault::usage(format!("{host} is already enrolled"))
            .hint("`portguard fleet revoke` it first, to give it a new key")
            .into());
    }
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| project.directory.join("enrolled").join(host));
    let path = out.join(IDENTITY);
    if path.exists() {
        return Err(Fault::usage(format!("{} already exists", path.display()))
            .hint("it is a key that was never published: take it away, or choose another `--out`")
            .into());
    }
    if project.names(host) == Some(false) {
        say(&format!(
            "warning: the site has no host `{host}` yet: until it has, the host is in no release"
        ));
    }
    let secret = HostKey::generate().map_err(Fault::system)?;
    let key = HostKey::parse(&secret, &project.config.fleet).map_err(Fault::system)?;
    let enrolled = Enrolled {
        host: host.clone(),
        trust: project.trust()?,
        key: secret,
    };
    write_secret(&path, &serde_json::to_vec_pretty(&enrolled)?)?;
    write(&public, format!("{}\n", key.public()).as_bytes())?;
    if args.json {
        print_json(&Keyed {
            host: host.clone(),
            key: key.public(),
            identity: path.display().to_string(),
        })?;
        return Ok(Exit::Ok);
    }
    say(&format!(
        "{host}: next, on the host: {} becomes /etc/portguard/fleet/{IDENTITY} (0600){}; PORTGUARD_STORE in /etc/portguard/agent.conf says where the store is; `systemctl enable --now portguard-agent`. Then delete it here, and `plan`: the host counts from the next release on",
        path.display(),
        match project.address()? {
            Address::Etcd(_) =>
                ", with ca.pem, agent.pem and agent.key of class `portguard-agent` beside it",
            Address::Directory(_) | Address::Https(_) => "",
        }
    ));
    Ok(Exit::Ok)
}

/// Written readable to nobody else from the first byte on.
fn write_secret(path: &std::path::Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let shown = path.display();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {shown}"))?;
    file.write_all(bytes)
        .with_context(|| format!("cannot write {shown}"))
}

/// Revoke a host's key
///
/// Takes effect in the store at once, and for good with the next release. The host keeps enforcing what it enforces. Takes a
/// publisher's certificate.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet revoke node-7 --because stolen
  portguard fleet enroll node-7  with a new key, once it is trusted again")]
pub(super) struct RevokeArgs {
    /// Name of the host
    #[arg(value_parser = name)]
    host: String,
    /// Why
    #[arg(long, value_name = "REASON")]
    because: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

#[derive(Debug, Serialize)]
struct Revoked {
    host: String,
    key: String,
    because: String,
}

/// Revokes a host's key.
pub(super) fn revoke(args: &RevokeArgs) -> anyhow::Result<Exit> {
    let project = args.project.open()?;
    let store = project.store()?;
    let mut trust = project.trust()?;
    let key = block_on(async {
        // The key that is in force may be another than the one that was enrolled since.
        let key = match published(&store, &mut trust).await {
            Ok(found) => found
                .hosts
                .get(&args.host)
                .and_then(|host| host.key.clone()),
            Err(FollowError::Empty) => None,
            Err(error) => return Err(follow_fault(&error).into()),
        };
        let key = key
            .or_else(|| project.host_key(&args.host))
            .ok_or_else(|| {
                Fault::usage(format!(
                    "host `{}` has no key that could be revoked",
                    args.host
                ))
            })?;
        let revocation = Revocation {
            key,
            because: args.because.clone(),
        };
        revoke_key(&store, &args.host, &revocation)
            .await
            .map_err(|error| store_fault(&error))?;
        Ok(revocation.key)
    })?;
    project.keep_trust(&trust);
    let identity = project
        .directory
        .join("enrolled")
        .join(&args.host)
        .join(IDENTITY);
    let public = project
        .directory
        .join("hosts")
        .join(format!("{}.pub", args.host));
    // The secret of a key that counts no more is in the way of the next.
    for file in [&public, &identity] {
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", file.display()));
            }
            _ => {}
        }
    }
    if args.json {
        print_json(&Revoked {
            host: args.host.clone(),
            key,
            because: args.because.clone(),
        })?;
        return Ok(Exit::Ok);
    }
    say(&format!(
        "{}: revoked; revoke its certificate, too, where it has one of its own",
        args.host
    ));
    Ok(Exit::Ok)
}
