//! Weir's decision logic: wire formats, classification, token buckets and verdicts.
//!
//! Everything here is pure: where packet bytes, tables, time and keys come from is the caller's business
//! ([`frame::Frame`], [`judge::Environment`]). `gateway-ebpf` instantiates it over BPF maps, `gateway-userspace` over
//! memory with a virtual clock, so the same code judges in the kernel, replays captures and runs under property tests.

#![no_std]
#![forbid(unsafe_code)]

pub mod bucket;
pub mod classify;
pub mod filter;
pub mod frame;
pub mod hash;
pub mod image;
pub mod judge;
pub mod lease;
pub mod limit;
pub mod line;
pub mod packet;
pub mod parse;
pub mod plain;
pub mod profile;
pub mod proof;
pub mod sample;
pub mod times;
pub mod verdict;
pub mod wire;
