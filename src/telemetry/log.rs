//! The log: JSON lines on standard error.

use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

/// Starts the log: JSON lines on standard error, filtered by `filter` (such as `info` or `stepgate=debug`).
/// Does nothing when a log is running already.
pub fn start_log(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(BoxMakeWriter::new(std::io::stderr))
        .finish();
    // A second gateway in the same process (tests, `dev`) keeps the first one's log.
    let _ = tracing::subscriber::set_global_default(log);
}
