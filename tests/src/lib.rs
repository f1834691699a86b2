//! The laboratory for the tests that need a kernel.
