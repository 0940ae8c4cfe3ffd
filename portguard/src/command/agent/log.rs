//! The agent's log: events with fields, as text for people or as JSON for collectors. Always on standard error.

use std::io;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// `--log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// One line an event: level, words, fields. The journal adds the time.
    Text,
    /// One JSON object a line, with the time.
    Json,
}

/// Sends the events of this program, and of no library, to standard error.
#[expect(clippy::disallowed_methods, reason = "a log: one line an event")]
pub(super) fn begin(format: LogFormat) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines.without_time().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO);
    // Only one can be; a second is of a test in the same process.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(ours))
        .try_init();
}
