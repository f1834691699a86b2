//! The runs: a detector looks at modelled traffic, and what it says is written down.

pub(crate) mod captures;
pub(crate) mod crowds;
pub(crate) mod injected;
pub(crate) mod normal;
pub(crate) mod steps;
pub(crate) mod watch;
