//! Programs that fit the policies: each carries, as a constant, what of the packet path the policies need that it serves
//! ([`uses`]), and the kernel's verifier takes the rest out of it.
//!
//! A program always carries what every generation needs that is in force or may be again. So programs are replaced before a
//! policy is switched to that needs more, and after one that needs less; if something fails or ends in between, they carry
//! more than they must, which costs a little time a packet and nothing else.

use std::os::fd::OwnedFd;

use gateway_core::{
    bucket::spec::COARSE_TICK_NS,
    image::{Generation, flags, uses},
};
use nix::time::ClockId;

use super::{Constants, Dataplane, KernelError, attach, pins::io_error, ticks::resolution_ns, trim};

/// The programs of one size: for frames in one buffer, and for frames in several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    made_for: u64,
    pub(super) single: &'static str,
    pub(super) several: &'static str,
}

/// Every size, the smallest first and the one for everything last.
const SIZES: [Size; 4] = [
    size(uses::LEAN, "weir_lean", "weir_lean_frags"),
    size(uses::BASE, "weir_base", "weir_base_frags"),
    size(uses::FULL, "weir_full", "weir_full_frags"),
    size(uses::ALL, "weir", "weir_frags"),
];

const fn size(made_for: u64, single: &'static str, several: &'static str) -> Size {
    Size {
        made_for,
        single,
        several,
    }
}

/// The smallest that serves policies that need `uses`.
pub(super) fn fitting(uses: u64) -> Size {
    let [lean, base, full, all] = SIZES;
    [lean, base, full]
        .into_iter()
        .find(|size| uses::fits(uses, size.made_for))
        .unwrap_or(all)
}

/// Whether a program of this name on an interface is Weir's.
pub(crate) fn is_own(name: &str) -> bool {
    SIZES
        .iter()
        .any(|size| [size.single, size.several].contains(&name))
}

/// Programs that are kept: who goes back and forth between policies of different needs does not wait for the verifier each time.
const KEPT: usize = 4;

/// A program that was loaded and is kept.
#[derive(Debug)]
pub(super) struct Fitted {
    interface: String,
    number: u32,
    uses: u64,
    program: OwnedFd,
}

impl Fitted {
    /// Whether it is what these constants would load.
    fn is(&self, constants: &Constants, interface: &str) -> bool {
        self.number == constants.interface && self.uses == constants.uses && self.interface == interface
    }
}

impl Dataplane {
    /// What the generations need that are in force or may be again.
    pub(super) fn needed(&self) -> Result<u64, KernelError> {
        if !self.ready {
            return Ok(uses::ALL);
        }
        let active = self.active()?;
        let needed = match active.until_ns() {
            Some(_) => self.needed_by_both()?,
            None => self.needed_by(active.generation())?,
        };
        Ok(needed | clock())
    }

    fn needed_by(&self, number: u32) -> Result<u64, KernelError> {
        let read: Option<Generation> = self
            .map("GENERATIONS")
            .get(&number)
            .map_err(|source| io_error("cannot read the generations".into(), source))?;
        Ok(read.map_or(uses::ALL, |generation| generation.uses))
    }

    /// What either of the two generations needs.
    pub(super) fn needed_by_both(&self) -> Result<u64, KernelError> {
        Ok(self.needed_by(0)? | self.needed_by(1)?)
    }

    /// Replaces the program of every link by one that carries `uses`; each at once, and none is ever off.
    pub(super) fn fit(&self, uses: u64) -> Result<(), KernelError> {
        let mut fitted = self.fitted.borrow_mut();
        for found in attach::list(&self.dir)? {
            let known = &self.state.registry.interfaces;
            // A link that has no number yet has a program of the maps before these. It goes on with that, and so with its bans, until
            // all of them are here and [`Self::attach`] replaces it.
            let Some(number) = known.iter().position(|name| *name == found.interface) else {
                continue;
            };
            let constants = Constants {
                interface: number as u32,
                uses,
                ..self.constants
            };
            let at = fitted
                .iter()
                .position(|kept| kept.is(&constants, &found.interface));
            let known = at.map(|at| fitted.remove(at));
            let program = known.as_ref().map(|known| &known.program);
            let fresh = attach::replace(&self.dir, &self.set, &constants, &found, program)?;
            let kept = fresh.map(|program| Fitted {
                interface: found.interface,
                number: constants.interface,
                uses,
                program,
            });
            fitted.extend(kept.or(known));
            if fitted.len() > KEPT {
                fitted.remove(0);
            }
        }
        trim();
        Ok(())
    }

    /// Replaces programs that carry more than is needed now. Where that fails they go on as they are.
    pub(super) fn slim(&self, carried: u64) {
        let slimmed = self.needed().and_then(|needed| {
            if carried & !needed == 0 {
                return Ok(());
            }
            self.fit(needed)
        });
        if let Err(error) = slimmed {
            tracing::warn!(%error, "the programs carry more than the policy needs; they are right, and slower than they could be");
        }
    }
}

/// What the host's coarse clock asks for: where it ticks more seldom than buckets reckon with, all need the exact one.
pub(super) fn clock() -> u64 {
    let tick_ns = resolution_ns(ClockId::CLOCK_MONOTONIC_COARSE);
    let fine = tick_ns.is_some_and(|tick_ns| tick_ns <= COARSE_TICK_NS);
    if fine { 0 } else { uses::of(flags::EXACT_CLOCK, 0) }
}
