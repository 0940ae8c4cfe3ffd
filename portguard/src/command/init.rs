//! `portguard init`: a commented site file for the chosen roles.

use std::path::PathBuf;

use super::draft::{Admins, Draft, HostSpec, absolute, deployment, site_file};
use super::{catalogs, setup};
use crate::stdout::{print, print_json};
use portguard_policy::error::{Exit, Fault};

/// Write a commented site file for the roles of a host, or of several
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portguard init --role thoughtspot/node > site.toml
      this machine, by its name and addresses
  portguard init --role wso2/api-manager --host am1=10.0.0.1 \\
      --host am2=10.0.0.2 > site.toml
  portguard init --host a1=10.0.0.1@interlink-asi/authenticator \\
      --host a2=10.0.0.2@interlink-asi/vault > site.toml
  portguard setup  proposes roles from what listens here")]
pub struct InitArgs {
    /// Role of every host that does not name its own
    #[arg(
        long = "role",
        value_name = "SYSTEM/ROLE",
        required_unless_present = "hosts"
    )]
    roles: Vec<String>,
    /// Host of the site; may be repeated [default: this machine]
    #[arg(long = "host", value_name = "NAME=ADDRESS,...[@SYSTEM/ROLE,...]", value_parser = HostSpec::parse)]
    hosts: Vec<HostSpec>,
    /// Deployment of a system, as its document names it; may be repeated
    #[arg(long = "deployment", value_name = "SYSTEM=NAME", value_parser = deployment)]
    deployments: Vec<(String, String)>,
    /// Who administers the hosts [default: not given; anybody may connect to their SSH port]
    #[arg(long, value_name = "CIDR,...", value_parser = Admins::parse)]
    admins: Option<Admins>,
    /// Directory of catalog files of your own
    #[arg(long = "catalog", value_name = "DIR")]
    catalogs: Vec<PathBuf>,
    /// Write JSON: the text of the file and its hosts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, serde::Serialize)]
struct Answer {
    hosts: Vec<String>,
    text: String,
}

/// Prints the file.
pub fn run(args: &InitArgs) -> anyhow::Result<Exit> {
    let roles = args.roles.iter().map(String::as_str);
    let catalog = catalogs::read(roles, &args.catalogs)?;
    let mut hosts = args.hosts.clone();
    if hosts.is_empty() {
        hosts.push(setup::look::this_host());
    }
    for host in &mut hosts {
        if host.roles.is_empty() {
            host.roles.clone_from(&args.roles);
        }
        if host.roles.is_empty() {
            return Err(Fault::usage(format!("host `{}` has no role", host.name))
                .hint("add `--role SYSTEM/ROLE`, or write `NAME=ADDRESS@SYSTEM/ROLE`")
                .into());
        }
    }
    let draft = Draft {
        hosts,
        deployments: args.deployments.iter().cloned().collect(),
        admins: args.admins.clone().unwrap_or_default().0,
        catalogs: absolute(&args.catalogs)?,
        ..Draft::default()
    };
    let text = site_file(&catalog, &draft)?;
    if args.json {
        print_json(&Answer {
            hosts: draft.hosts.iter().map(|host| host.name.clone()).collect(),
            text,
        })?;
    } else {
        print(|out| out.write_all(text.as_bytes()))?;
    }
    Ok(Exit::Ok)
}
