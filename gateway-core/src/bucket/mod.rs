//! Token buckets as GCRA: one theoretical arrival time a bucket.

pub mod cell;
pub mod gcra;
pub mod spec;
