//! The log: structured lines on standard error.
//!
//! `WEIR_LOG` filters (`warn`, `weir=debug`, …; default `info`), `WEIR_LOG_FORMAT=json` writes one JSON object a line.

use std::{env, io};

use tracing_subscriber::{EnvFilter, fmt};

/// The environment variable with the filter.
pub const FILTER_VARIABLE: &str = "WEIR_LOG";
/// The environment variable with the format.
pub const FORMAT_VARIABLE: &str = "WEIR_LOG_FORMAT";

/// Starts the log; does nothing when there is one already.
pub fn init() {
    let wanted = env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let parsed = wanted.as_deref().map(EnvFilter::try_new);
    let fault = match &parsed {
        Some(Err(error)) => Some(error.to_string()),
        _ => None,
    };
    let filter = parsed
        .and_then(Result::ok)
        .unwrap_or_else(|| EnvFilter::new("info"));
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false);
    let started = match env::var(FORMAT_VARIABLE).as_deref() {
        Ok("json") => builder.json().flatten_event(true).try_init(),
        _ => builder.with_ansi(false).try_init(),
    };
    if let (Ok(()), Some(fault)) = (started, fault) {
        tracing::warn!(fault, "{FILTER_VARIABLE} is not a filter; logging at info");
    }
}
