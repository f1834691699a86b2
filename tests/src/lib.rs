//! The laboratory for the tests that need a kernel: network namespaces, frames, traffic and the
//! real daemon, each part in a file of its own.
//!
//! Everything that a part creates carries the process id in its name and is removed when the value
//! that stands for it is dropped, also when a test panics. What a killed process left behind is
//! swept by the next one ([`netns::sweep`], [`bpffs::sweep`]); nothing else is ever touched.

pub mod both;
pub mod bots;
pub mod bpf;
pub mod bpffs;
pub mod bridge;
pub mod budgets;
pub mod cgroup;
pub mod command;
pub mod cpus;
pub mod daemon;
pub mod flood;
pub mod frame;
pub mod http;
pub mod link;
pub mod metrics;
pub mod names;
pub mod netns;
pub mod pcap;
pub mod receiver;
pub mod rows;
pub mod screen;
pub mod sender;
pub mod shoppers;
pub mod site;
pub mod skip;
pub mod tcp;
