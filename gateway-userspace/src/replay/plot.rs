//! A replay as a drawing.
use super::{Replay, report::Report};
/// Draws.
pub fn svg(_: &Replay, _: &Report) -> String { String::new() }
