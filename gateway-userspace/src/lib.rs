//! Weir's controller: policies, the kernel's maps and programs, the control socket, metrics and the command line.

pub mod action;
pub mod api;
pub mod bans;
pub mod capture;
pub mod client;
pub mod compile;
pub mod controller;
pub mod detect;
pub mod distinct;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod export;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod geo;
pub mod guard;
pub mod inventory;
pub mod kernel;
pub mod lists;
pub mod metrics;
mod notify;
pub mod policy;
pub mod replay;
pub mod series;
mod stamp;
pub mod state;
pub mod traffic;
pub mod twin;
