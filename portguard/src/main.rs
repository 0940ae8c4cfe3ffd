//! The `portguard` command.

use std::process::ExitCode;

use clap::CommandFactory as _;

use portguard::cli::Cli;
use portguard::command::complete;
use portguard::failure;
use portguard::stderr;
use portguard_policy::error::Exit;

fn main() -> ExitCode {
    portguard_kernel::notice::write_with(stderr::say);
    complete::answer(Cli::command);
    let arguments: Vec<_> = std::env::args_os().collect();
    // Errors are JSON, too, also those of a command line that is not understood.
    let as_json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::read(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            if as_json && error.use_stderr() {
                failure::usage(&error);
            }
            if !error.use_stderr() {
                error.exit()
            }
            stderr::say(error.render().ansi().to_string().trim_end());
            return Exit::Usage.into();
        }
    };
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            failure::report(&error, as_json, cli.is_all_or_nothing());
            failure::exit_of(&error).into()
        }
    }
}
