//! Weir's decision logic.
#![no_std]
#![forbid(unsafe_code)]
