//! Weir's controller: policies, the kernel's maps and programs, the control socket, metrics and the command line.

pub mod compile;
pub mod kernel;
pub mod policy;
