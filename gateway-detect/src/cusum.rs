//! Slow changes.
