//! Connections that were there before Weir was: they prove their peers too, for each of them began with a handshake.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::atomic::{AtomicU64, Ordering},
};

use gateway_core::{
    hash::{self, Key},
    image::Generation,
    judge::Shared,
    limit,
    line::{Line, WORDS},
    packet::Address,
    proof,
};

use super::{Dataplane, KernelError, pins::io_error, sys::Words};

/// `TCP_ESTABLISHED` (`include/net/tcp_states.h`), as the tables of connections print it.
const ESTABLISHED: &str = "01";

/// A peer: whether it is an IPv6 address, and the address.
type Peer = (bool, Address);

impl Dataplane {
    /// Proves the peer of every TCP connection that is established in this network namespace.
    pub(super) fn prove_established(&self, generation: &Generation) -> Result<(), KernelError> {
        let key = Key::new(self.constants.key);
        let failed = |source| io_error("cannot write the proofs of sources".into(), source);
        let tables = Mapped {
            lines: self.constants.lines,
            sources: self.map("SOURCES").words().map_err(failed)?,
            proofs: self.map("PROOFS").words().map_err(failed)?,
        };
        for (v6, address) in established() {
            let hash = limit::hash_of_address(&key, generation, v6, &address);
            proof::give(&&tables, hash, Self::now_ns());
        }
        Ok(())
    }
}

/// The tables of sources and proofs, as the kernel has them: it writes to them at the same time.
struct Mapped {
    lines: u32,
    sources: Words,
    proofs: Words,
}

/// A line of either.
struct MappedLine<'a>(&'a [AtomicU64]);

impl Line for MappedLine<'_> {
    fn get(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }

    fn swap(&self, at: usize, old: u64, new: u64) -> bool {
        self.0[at]
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// Offers and attempts are not looked at.
enum Never {}

impl Shared for Never {
    fn get(&self) -> u64 {
        match *self {}
    }

    fn swap(&self, _old: u64, _new: u64) -> bool {
        match *self {}
    }
}

impl<'a> proof::Tables for &'a Mapped {
    type Line = MappedLine<'a>;
    type Proofs = MappedLine<'a>;
    type Word = Never;

    fn line(&self, hash: u64) -> Option<MappedLine<'a>> {
        line_of(&self.sources, hash, self.lines)
    }

    fn proofs(&self, hash: u64) -> Option<MappedLine<'a>> {
        line_of(&self.proofs, hash, self.lines)
    }

    fn offers(&self, _at: u32) -> Option<Never> {
        None
    }

    fn attempts(&self, _at: u32) -> Option<Never> {
        None
    }
}

/// The line of a hash.
fn line_of(words: &Words, hash: u64, lines: u32) -> Option<MappedLine<'_>> {
    let at = hash::line(hash, lines) as usize;
    words.get().chunks_exact(WORDS).nth(at).map(MappedLine)
}

/// The peers of the established connections. Without the tables of connections there are none to prove: they are proven by
/// what they do next.
fn established() -> BTreeSet<Peer> {
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| read(table).ok())
        .flat_map(|text| text.lines().filter_map(peer).collect::<Vec<_>>())
        .collect()
}

fn read(table: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/thread-self/net/{table}"))
}

/// The peer of one line of `/proc/net/tcp` or `tcp6` (proc(5)), if the connection is established: the third field is its address in
/// memory order, word by word as numbers of this machine, and the fourth the state.
fn peer(line: &str) -> Option<Peer> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let (address, _port) = fields.next()?.split_once(':')?;
    if fields.next()? != ESTABLISHED {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok();
    match address.len() {
        8 => Some((false, [word(0)?, 0, 0, 0])),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(limit::unmapped(words).map_or((true, words), |v4| (false, [v4, 0, 0, 0])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_from_the_tables_of_connections() {
        let line = |remote: &str, state: &str| {
            format!(
                "   2: 00000000:0050 {remote}:9C40 {state} 00000000:00000000 00:00000000 00000000     0        0 1234 1"
            )
        };
        let word = |bytes: [u8; 4]| u32::from_ne_bytes(bytes);
        // As this machine prints what lies in memory as 10.77.0.1.
        let v4 = format!("{:08X}", word([10, 77, 0, 1]));
        assert_eq!(
            peer(&line(&v4, "01")),
            Some((false, [word([10, 77, 0, 1]), 0, 0, 0]))
        );
        assert_eq!(peer(&line(&v4, "0A")), None, "a listener");
        assert_eq!(peer(&line(&v4, "03")), None, "a handshake that is not complete");
        let v6 = [[0x20, 1, 0x0d, 0xb8], [0; 4], [0; 4], [0, 0, 0, 9]].map(word);
        let print = |words: [u32; 4]| words.map(|word| format!("{word:08X}")).concat();
        assert_eq!(peer(&line(&print(v6), "01")), Some((true, v6)));
        let mapped = [[0; 4], [0; 4], [0, 0, 0xff, 0xff], [10, 77, 0, 1]].map(word);
        assert_eq!(
            peer(&line(&print(mapped), "01")),
            Some((false, [word([10, 77, 0, 1]), 0, 0, 0]))
        );
        for broken in [
            "",
            "  sl  local_address rem_address   st tx_queue",
            "1: 0:0 ZZZZZZZZ:0 01",
        ] {
            assert_eq!(peer(broken), None, "{broken}");
        }
    }
}
