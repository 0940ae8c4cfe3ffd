//! The verbs of the command line. Each file owns its arguments and its `run`.

pub mod agent;
pub mod bench;
pub mod catalog;
mod catalogs;
pub mod check;
pub mod complete;
pub mod confirm;
pub mod counters;
pub mod diff;
pub mod doctor;
mod draft;
pub mod drift;
pub mod events;
pub mod explain;
pub mod export;
#[cfg(feature = "fleet")]
pub mod fleet;
pub mod flows;
pub mod generate;
pub mod init;
pub mod load;
pub mod man;
pub mod promote;
pub mod report;
pub mod schema;
pub mod selection;
pub mod setup;
pub mod status;
mod table;
pub mod top;
pub(crate) mod traffic;
pub mod unload;

use anyhow::Context as _;

/// A number of things to show: of none there is nothing to see.
fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a whole number above 0".to_owned())
}

/// Does a job that waits.
fn block_on<T>(job: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for events and signals")?
        .block_on(job)
}

/// Completes when somebody interrupts or ends this process, who then gets to clean up and to say so with exit code 0.
fn interrupted() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
