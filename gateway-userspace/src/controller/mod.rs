//! The daemon behind `weir run`.
//!
//! A start changes nothing until it is sure to succeed: the policy is read and validated, the interfaces are looked up,
//! the state directory, the address and the socket are taken; only then is the kernel half opened, the policy put in
//! force, and each interface attached. Stopping leaves enforcement on.
//!
//! - `engine` holds all state and makes every change (`*_ops` and `status` are its parts); it knows no threads
//! - `handle` shares it: one kernel operation at a time, off the event loop
//! - `backend` is the seam to the kernel and the clocks, where tests put their own
//! - `start` finds out what a start puts in force, and what became of a policy that waited for confirmation
//! - `detect_ops` feeds the detectors (`detect`), which have a lock and tasks of their own
//! - `outside` lets the webhook hear of anomalies, and follows the database of countries
//! - `upkeep` is what happens by itself, `heartbeat` the sign of life for the kernel
//! - `access` is who may connect to the control socket

pub mod access;
mod action_ops;
mod action_upkeep;
pub mod backend;
mod ban_ops;
mod detect_ops;
pub mod engine;
mod event_ops;
mod explain_ops;
mod filecheck;
mod guard_ops;
mod handle;
mod heartbeat;
mod lever_ops;
mod links;
mod list_ops;
mod listen;
pub mod logging;
mod notices;
mod outside;
pub mod policy_ops;
mod prepare;
mod rates;
mod react;
mod run;
mod sample_ops;
mod samples;
mod seen;
mod service_ops;
mod settle;
pub mod start;
mod status;
mod traffic_ops;
mod upkeep;

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "the kernel half of tests")]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzz targets use some of it"))]
mod fake;
#[cfg(test)]
mod tests;

#[cfg(feature = "fuzzing")]
pub(crate) use self::fake::engine as fake_engine;
pub use self::{
    handle::Handle,
    listen::ListenError,
    prepare::Prepared,
    run::{RunError, RunOptions, run},
};
