//! Who has completed a handshake lately, as the packet path knows it.

use std::net::IpAddr;

use gateway_core::{
    hash::Key,
    judge::Environment as _,
    limit,
    proof::{self, Tables as _},
};

use super::{Dataplane, KernelError, peek::Peek};
use crate::compile::prefix;

impl Dataplane {
    /// Whether the source that an address belongs to has a proof that counts: see [`gateway_core::proof`].
    ///
    /// # Errors
    /// Where no policy is in force, or a map cannot be read.
    pub fn proven(&self, address: IpAddr) -> Result<bool, KernelError> {
        let now_ns = Self::now_ns();
        let peek = Peek::new(self, now_ns)?;
        let key = Key::new(self.constants.key);
        let words = prefix::words(address);
        let hash = limit::hash_of_address(&key, peek.generation(), address.is_ipv6(), &words);
        let proven = peek
            .proofs(hash)
            .is_some_and(|line| proof::proven(&line, hash, now_ns));
        peek.whole()?;
        Ok(proven)
    }
}
