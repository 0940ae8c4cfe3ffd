//! The command line: verbs and what is common to them.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::command;
use portguard_policy::error::Exit;

/// Makes a vendor's port matrix the firewall of this host
#[derive(Debug, Parser)]
#[command(name = "portguard", version, about, long_about = None, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 findings, 2 usage or policy error, 3 the kernel or the system refused."
)]
pub struct Cli {
    /// When to use colour: `auto` asks the terminal, `NO_COLOR` and `TERM`
    #[arg(long, value_name = "WHEN", value_enum, global = true, default_value_t = Color::Auto)]
    color: Color,
    /// Write JSON, errors too: docs/json.md has the fields
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Catalog(command::catalog::CatalogArgs),
    Setup(command::setup::SetupArgs),
    Init(command::init::InitArgs),
    Check(command::check::CheckArgs),
    Doctor(command::doctor::DoctorArgs),
    Explain(command::explain::ExplainArgs),
    Diff(command::diff::DiffArgs),
    Export(command::export::ExportArgs),
    Load(command::load::LoadArgs),
    Promote(command::promote::PromoteArgs),
    Confirm(command::confirm::ConfirmArgs),
    Rollback(command::confirm::RollbackArgs),
    Status(command::status::StatusArgs),
    Counters(command::counters::CountersArgs),
    Flows(command::flows::FlowsArgs),
    Drift(command::drift::DriftArgs),
    Events(command::events::EventsArgs),
    Report(command::report::ReportArgs),
    Agent(command::agent::AgentArgs),
    #[cfg(feature = "fleet")]
    Fleet(command::fleet::FleetArgs),
    Top(command::top::TopArgs),
    Bench(command::bench::BenchArgs),
    Unload(command::unload::UnloadArgs),
    Schema(command::schema::SchemaArgs),
    Completions(command::generate::CompletionsArgs),
    Man(command::man::ManArgs),
}

impl Cli {
    /// Reads a command line, and says whether there is to be colour from now on.
    ///
    /// # Errors
    /// If it is not understood, and for `--help` and `--version`.
    pub fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let choice = color(arguments);
        let (colour, help) = match choice {
            Some(Color::Always) => (anstream::ColorChoice::Always, ColorChoice::Always),
            Some(Color::Never) => (anstream::ColorChoice::Never, ColorChoice::Never),
            Some(Color::Auto) | None => (anstream::ColorChoice::Auto, ColorChoice::Auto),
        };
        colour.write_global();
        let matches = Self::command()
            .color(help)
            .try_get_matches_from(arguments)
            .map_err(nearest_first)?;
        Self::from_arg_matches(&matches)
    }

    /// Whether the verb puts a policy in force, or refuses to and leaves all as it is.
    pub fn is_all_or_nothing(&self) -> bool {
        matches!(self.verb, Verb::Load(_) | Verb::Promote(_) | Verb::Setup(_))
    }

    /// Runs the verb.
    ///
    /// # Errors
    /// Whatever it could not do; see [`crate::failure::exit_of`].
    pub fn run(&self) -> anyhow::Result<Exit> {
        match &self.verb {
            Verb::Catalog(args) => command::catalog::run(args),
            Verb::Setup(args) => command::setup::run(args),
            Verb::Init(args) => command::init::run(args),
            Verb::Check(args) => command::check::run(args),
            Verb::Doctor(args) => command::doctor::run(args),
            Verb::Explain(args) => command::explain::run(args),
            Verb::Diff(args) => command::diff::run(args),
            Verb::Export(args) => command::export::run(args),
            Verb::Load(args) => command::load::run(args),
            Verb::Promote(args) => command::promote::run(args),
            Verb::Confirm(args) => command::confirm::confirm(args),
            Verb::Rollback(args) => command::confirm::rollback(args),
            Verb::Status(args) => command::status::run(args),
            Verb::Counters(args) => command::counters::run(args),
            Verb::Flows(args) => command::flows::run(args),
            Verb::Drift(args) => command::drift::run(args),
            Verb::Events(args) => command::events::run(args),
            Verb::Report(args) => command::report::run(args),
            Verb::Agent(args) => command::agent::run(args),
            #[cfg(feature = "fleet")]
            Verb::Fleet(args) => command::fleet::run(args),
            Verb::Top(args) => command::top::run(args),
            Verb::Bench(args) => command::bench::run(args),
            Verb::Unload(args) => command::unload::run(args),
            Verb::Schema(args) => command::schema::run(args),
            Verb::Completions(args) => command::generate::completions(args),
            Verb::Man(args) => command::man::run(args, Self::command()),
        }
    }
}

/// Of several verbs that may have been meant, clap names the likeliest last.
fn nearest_first(mut error: clap::Error) -> clap::Error {
    let similar = ContextKind::SuggestedSubcommand;
    if let Some(ContextValue::Strings(mut words)) = error.remove(similar) {
        words.reverse();
        error.insert(similar, ContextValue::Strings(words));
    }
    error
}

/// What `--color` says, before the command line is understood: its errors have colours, too.
fn color(arguments: &[OsString]) -> Option<Color> {
    let mut words = arguments.iter().filter_map(|argument| argument.to_str());
    while let Some(word) = words.next() {
        let said = match word.strip_prefix("--color") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('='),
            None => continue,
        };
        return said.and_then(|said| Color::from_str(said, true).ok());
    }
    None
}
