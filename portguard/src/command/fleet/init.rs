//! `portguard fleet init`: the directory of a new fleet.

use std::fs;

use anyhow::Context as _;
use clap::Args;
use portguard_fleet::store::Address;
use portguard_policy::error::{Exit, Fault};
use serde::Serialize;

use super::project::{FILE, Project, ProjectArgs, name, site, write};
use crate::stderr::say;
use crate::stdout::print_json;

/// Make the directory of a new fleet
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard fleet init prod --key \"$(tail -1 alice.pub)\"
      a store in the directory `store`
  portguard fleet init prod --store etcd://10.0.0.1,10.0.0.2,10.0.0.3 \\
      --key \"$(tail -1 alice.pub)\" --key \"$(tail -1 bob.pub)\" --threshold 2")]
pub(super) struct InitArgs {
    /// The fleet's name
    #[arg(value_name = "NAME", value_parser = name)]
    fleet: String,
    /// Where releases go: `file:DIR`, or `etcd://HOST[:PORT],...`
    #[arg(long, value_name = "STORE", default_value = "file:store")]
    store: Address,
    /// Public key of minisign; may be repeated
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// How many of the keys must sign
    #[arg(long, value_name = "K", default_value_t = 1)]
    threshold: usize,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// What `init` made.
#[derive(Debug, Serialize)]
struct Made {
    fleet: String,
    config: String,
    store: String,
}

/// Makes a fleet's directory.
pub(super) fn init(args: &InitArgs) -> anyhow::Result<Exit> {
    let directory = &args.project.directory;
    let path = directory.join(FILE);
    if path.exists() {
        return Err(Fault::usage(format!("{} already exists", path.display())).into());
    }
    if let Address::Https(_) = &args.store {
        return Err(Fault::usage(format!("nothing can be published to {}: a web server is read only", args.store))
            .hint("`--store file:DIR` with the directory that it serves; hosts take the `https://` address")
            .into());
    }
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let keys: Vec<String> = args.keys.iter().map(|key| quoted(key)).collect();
    let text = format!(
        r#"# One signed site for many hosts: `portguard fleet --help`.
fleet = "{}"
store = {}
site = "site.toml"
# Guarded where the site names no interface of a host.
interface = "eth0"
valid = "90d"
# For how long a host that enforces a release obeys a rollback that nobody signed, from whoever can write to the store.
rollback_within = "0"

[keys]
threshold = {}
public = [{}]

# Certificates of your class (etcd):
# [tls]
# ca = "tls/ca.pem"
# cert = "tls/publisher.pem"
# key = "tls/publisher.key"

# Where a host is, so that waves are spread over zones:
# [hosts."node-1"]
# zone = "rack-7"
# labels = {{ tier = "test" }}

[[wave]]
name = "canary"
hosts = "*"
percent = 1

[[wave]]
name = "rest"
hosts = "*"
after = "24h"
at_once = 5

[gate]
audit = "3d"
would_drop = 0
max_failed = 2
reporting = 99
confirm = "2m"
"#,
        args.fleet,
        quoted(&args.store.to_string()),
        args.threshold,
        keys.join(", ")
    );
    // As every other verb reads it: what none of them takes is not written.
    let config = toml::from_str(&text).map_err(|error| Fault::usage(error.to_string()))?;
    let made = Project {
        directory: directory.clone(),
        config,
    };
    made.check_new().map_err(|why| {
        Fault::usage(why).hint("a key is the second line of the file that `minisign -G` writes")
    })?;
    if let Address::Directory(store) = &args.store {
        let store = directory.join(store);
        fs::create_dir_all(&store).with_context(|| format!("cannot make {}", store.display()))?;
    }
    write(&path, text.as_bytes())?;
    if args.json {
        print_json(&Made {
            fleet: args.fleet.clone(),
            config: path.display().to_string(),
            store: args.store.to_string(),
        })?;
        return Ok(Exit::Ok);
    }
    let site = directory.join(site());
    let site = if site.exists() {
        String::new()
    } else {
        format!(
            " write {} (`portguard init` prints one to begin with);",
            site.display()
        )
    };
    say(&format!(
        "wrote {}; next:{site} `portguard fleet enroll HOST` for each host, then `plan`",
        path.display()
    ));
    Ok(Exit::Ok)
}
