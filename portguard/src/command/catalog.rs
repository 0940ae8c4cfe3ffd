//! `portguard catalog`: list the matrices, show one, verify files.

mod json;
mod show;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::catalogs;
use super::table::Column::{Number, Prose, Spare, Whole};
use super::table::Grid;
use crate::stdout::{print, print_field};
use portguard_policy::catalog::{Catalog, System};
use portguard_policy::error::Exit;

/// Show the vendors' port matrices, and check your own
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard catalog list
  portguard catalog show nexthink/portal
  portguard catalog show wso2 -v  with document, section and row
  portguard catalog show thoughtspot/intracluster-443
      one row, by the id that other verbs show
  portguard catalog verify my-matrix.toml")]
pub struct CatalogArgs {
    /// Also read the catalog files (*.toml) of this directory; may be repeated
    #[arg(long = "catalog", value_name = "DIR", global = true)]
    directories: Vec<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the systems and their roles
    #[command(after_help = "\
Examples:
  portguard catalog list
  portguard catalog list --json | jq -r '.systems[].id'")]
    List {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the rows of a system or of one role, or one row
    #[command(after_help = "\
Examples:
  portguard catalog show nexthink/portal
  portguard catalog show wso2 -v  with document, section and row
  portguard catalog show thoughtspot/intracluster-443")]
    Show {
        /// A system, a role such as `wso2/api-manager`, or a row by its id
        #[arg(value_name = "SYSTEM[/ROLE|/ROW]")]
        name: String,
        /// Cite the document, with conditions, exclusions and notes
        #[arg(short, long)]
        verbose: bool,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Check catalog files, and count their rows by section to compare with the document
    #[command(after_help = "\
Examples:
  portguard catalog verify my-matrix.toml
  portguard catalog verify /etc/portguard/catalog")]
    Verify {
        /// Files, or directories of *.toml files [default: the built-in matrices]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`portguard_policy::diagnostic::Rejected`] for a bad catalog or an unknown name, others where files cannot be read.
pub fn run(args: &CatalogArgs) -> anyhow::Result<Exit> {
    match &args.verb {
        Verb::List { json } => list(
            &catalogs::read(std::iter::empty(), &args.directories)?,
            *json,
        ),
        Verb::Show {
            name,
            verbose,
            json,
        } => {
            let catalog = catalogs::read(std::iter::once(name.as_str()), &args.directories)?;
            show::run(&catalog, name, *verbose, *json)
        }
        Verb::Verify { paths, json } => verify::run(&args.directories, paths, *json),
    }
}

#[derive(Serialize)]
struct SystemJson<'a> {
    system: &'a str,
    name: &'a str,
    document: &'a str,
    source: &'a str,
    read: &'a str,
    rows: usize,
    roles: Vec<RoleJson<'a>>,
}

/// A role, in `list` and `show`.
#[derive(Serialize)]
struct RoleJson<'a> {
    id: &'a str,
    name: &'a str,
    /// Only there to be included by others.
    #[serde(rename = "abstract")]
    is_abstract: bool,
    includes: &'a [String],
    /// Rows that a host of the role has.
    rows: usize,
}

fn roles_json(system: &System) -> Vec<RoleJson<'_>> {
    let role = |role: &'_ portguard_policy::catalog::Role| system.rows_of(&role.id).count();
    system
        .roles
        .values()
        .map(|r| RoleJson {
            id: &r.id,
            name: &r.name,
            is_abstract: r.is_abstract,
            includes: &r.includes,
            rows: role(r),
        })
        .collect()
}

fn list(catalog: &Catalog, json: bool) -> anyhow::Result<Exit> {
    if json {
        let systems = catalog.systems.values().map(|system| SystemJson {
            system: &system.id,
            name: &system.name,
            document: &system.document,
            source: &system.source,
            read: &system.read,
            rows: system.rows.len(),
            roles: roles_json(system),
        });
        print_field("systems", &systems.collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    let mut table = Grid::new(&[
        ("system", Whole),
        ("rows", Number),
        ("roles", Prose),
        ("document", Spare),
    ]);
    for system in catalog.systems.values() {
        let roles: Vec<_> = system.host_roles().map(|role| role.id.as_str()).collect();
        let document = format!("{} (read {})", system.document, system.read);
        let rows = system.rows.len().to_string();
        table.row([system.id.as_str(), &rows, &roles.join(", "), &document]);
    }
    print(|out| write!(out, "{table}"))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        catalog: CatalogArgs,
    }

    #[test]
    fn the_directory_option_may_stand_before_or_after_the_verb() {
        for line in [
            "x --catalog a --catalog b list --json",
            "x show wso2 --catalog a --catalog b",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(
                cli.catalog.directories,
                [PathBuf::from("a"), PathBuf::from("b")],
                "{line}"
            );
        }
        assert!(Cli::try_parse_from(["x"]).is_err());
        assert!(Cli::try_parse_from(["x", "show"]).is_err());
    }

    #[test]
    fn the_list_names_systems_and_roles() {
        let catalog = Catalog::embedded().unwrap();
        let roles = roles_json(&catalog.systems["ibm-api-connect"]);
        let subsystem = roles.iter().find(|role| role.id == "subsystem").unwrap();
        assert!(subsystem.is_abstract);
        let management = roles.iter().find(|role| role.id == "management").unwrap();
        assert!(management.rows > subsystem.rows && !management.is_abstract);
    }
}
