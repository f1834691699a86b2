//! Every developer and release chore of Weir, in Rust: `cargo xtask <command>`.
fn main() {}
