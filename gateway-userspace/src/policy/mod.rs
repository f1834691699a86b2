//! The policy file: from TOML text to a live [`model::Policy`], with every error of a file at once.

pub mod model;
