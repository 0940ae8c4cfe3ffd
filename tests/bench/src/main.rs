//! `cargo xtask bench`: what portguard costs, measured on this machine next to the least that is possible.
//!
//! [`plan`] says what is measured, [`programs`] what runs, [`measure`] how; [`budget`] judges; the rest shows.
#![expect(
    clippy::disallowed_methods,
    reason = "its own words, on whatever terminal"
)]

mod budget;
mod cli;
mod control;
mod docs;
mod held;
mod live;
mod machine;
mod measure;
mod plan;
mod programs;
mod results;
mod scaling;
mod table;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
            ExitCode::from(1)
        }
    }
}
