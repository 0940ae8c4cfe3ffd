//! `portguard schema`: the JSON Schema of the site file, by which editors complete and check it.

use std::path::PathBuf;

use clap::Args;

use super::catalogs;
use crate::stdout::{print, print_field};
use portguard_policy::error::Exit;
use portguard_policy::site;

/// Print the JSON Schema of the site file, for editors
///
/// Editors that know TOML complete keys, roles, deployments and options by it, and mark what the file cannot have. The package
/// has it in /usr/share/portguard, which the first line of what `setup` and `init` write names.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard schema > site.schema.json
      and `#:schema ./site.schema.json` as the first line of the site file
  portguard schema --catalog DIR  with matrices of your own")]
pub struct SchemaArgs {
    /// Directory of catalog files of your own
    #[arg(long = "catalog", value_name = "DIR")]
    catalogs: Vec<PathBuf>,
    /// Write JSON: the schema as a string
    #[arg(long)]
    json: bool,
}

/// Prints it.
///
/// # Errors
/// If a catalog cannot be read, or standard output not be written.
pub fn run(args: &SchemaArgs) -> anyhow::Result<Exit> {
    let catalog = catalogs::read(std::iter::empty(), &args.catalogs)?;
    let text = serde_json::to_string_pretty(&site::schema(&catalog))? + "\n";
    if args.json {
        print_field("text", &text)?;
    } else {
        print(|out| out.write_all(text.as_bytes()))?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use portguard_policy::catalog::Catalog;
    use toml::Value as Item;

    use super::*;
    use crate::command::draft::{Draft, HostSpec, site_file};

    /// As an editor sees a file: dates are texts.
    fn json(item: &Item) -> serde_json::Value {
        match item {
            Item::Datetime(when) => when.to_string().into(),
            Item::Array(items) => items.iter().map(json).collect(),
            Item::Table(table) => table
                .iter()
                .map(|(key, item)| (key.clone(), json(item)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Item::String(_) | Item::Integer(_) | Item::Float(_) | Item::Boolean(_) => {
                serde_json::to_value(item).unwrap()
            }
        }
    }

    /// Every site file that anybody is shown or given fits the schema.
    #[test]
    fn the_files_that_people_begin_with_fit() {
        let catalog = Catalog::embedded().unwrap();
        let validator = jsonschema::validator_for(&site::schema(&catalog)).unwrap();
        let mut seen = 0;
        let mut fits = |place: &str, text: &str| {
            let file: toml::Table = text
                .parse()
                .unwrap_or_else(|error| panic!("{place}: {error}\n{text}"));
            let faults: Vec<String> = validator
                .iter_errors(&json(&Item::Table(file)))
                .map(|fault| format!("{}: {fault}", fault.instance_path()))
                .collect();
            assert!(faults.is_empty(), "{place}: {faults:#?}\n{text}");
            seen += 1;
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        let page = "docs/site.md";
        let text = read(page);
        let whole = text
            .split("```toml\n")
            .filter(|block| block.starts_with("schema = 1"));
        for block in whole {
            fits(page, block.split("```").next().unwrap());
        }
        let packed = read("packaging/etc/site.toml");
        fits("packaging/etc/site.toml", &packed);
        // And with all that it has in comments, but for prose.
        let is_key = |line: &str| line.starts_with('[') || line.contains(" = ");
        let bare = packed.lines().map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) => rest,
            _ => line,
        });
        fits(
            "packaging/etc/site.toml",
            &bare.collect::<Vec<_>>().join("\n"),
        );
        let directive = format!("#:schema file://{}", site::SCHEMA_FILE);
        assert_eq!(packed.lines().next(), Some(directive.as_str()));
        for system in catalog.systems.values() {
            for role in system.host_roles() {
                let draft = Draft {
                    hosts: vec![HostSpec {
                        name: "host-1".to_owned(),
                        addresses: vec!["192.0.2.1".parse().unwrap()],
                        roles: vec![format!("{}/{}", system.id, role.id)],
                        interfaces: vec!["eth0".to_owned()],
                    }],
                    ..Draft::default()
                };
                let text = site_file(&catalog, &draft).unwrap();
                assert_eq!(text.lines().next(), Some(directive.as_str()));
                fits(&role.id, &text);
            }
        }
        assert!(seen > 40, "{seen}");
    }
}
