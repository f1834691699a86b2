//! Verdict tables: rows of {what it shows, frame, verdict, reason, service}, judged by the kernel's program and by the
//! host's twin, which must agree.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "this is the body of tests, which fail where they should"
)]

use crate::{
    both::Both,
    frame::{ACK, Frame},
    skip::require_root,
};

/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// The time at which tests begin: nothing special.
pub const START: u64 = 123_456 * SECOND;

/// {what it shows, frame, verdict, reason, service}
pub type Row = (&'static str, Vec<u8>, &'static str, &'static str, &'static str);

/// Judges rows under a policy of their own; panics with every row that came out otherwise.
pub fn check(policy: &str, rows: Vec<Row>) {
    require_root();
    let mut both = Both::new(policy, START).unwrap();
    check_on(&mut both, rows);
}

/// Judges rows under a policy in force.
pub fn check_on(both: &mut Both, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for (what, frame, verdict, reason, service) in rows {
        match both.judge(&frame) {
            Ok(said) if (said.verdict, said.reason, said.service.as_str()) == (verdict, reason, service) => {}
            Ok(said) => wrong.push(format!("{what}: {said:?}, not {verdict} {reason} {service}")),
            Err(error) => wrong.push(format!("{what}: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The beginning of an IPv4 packet.
pub fn v4() -> Frame {
    Frame::new().ip("192.0.2.1", "203.0.113.10")
}

/// The beginning of an IPv6 packet.
pub fn v6() -> Frame {
    Frame::new().ip("2001:db8:aaaa::1", "2001:db8::10")
}

/// A packet of a TCP connection to port 80.
pub fn web(frame: Frame) -> Vec<u8> {
    frame.tcp(40_000, 80, ACK).build()
}

/// An ARP request.
pub fn arp() -> Vec<u8> {
    Frame::new()
        .arp(1, "192.0.2.1".parse().unwrap(), "203.0.113.10".parse().unwrap())
        .build()
}

/// A frame with one byte changed.
pub fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// A frame cut short.
pub fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}
