//! Ctrl-C, heard in order: the laboratory is taken down before the program ends.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Stands for the signals that were taken over.
#[derive(Debug)]
pub(crate) struct Interrupt(());

impl Interrupt {
    /// Takes SIGINT, SIGTERM and SIGHUP over. A handler, not a blocked signal: what this program starts
    /// would inherit the block.
    pub(crate) fn listen() -> Result<Self> {
        let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: the handler only stores to an atomic, which is allowed in any context.
            unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot take {signal} over"))?;
        }
        Ok(Self(()))
    }

    /// Whether one of them came.
    #[expect(clippy::unused_self, reason = "only who took the signals over can ask")]
    pub(crate) fn asked(&self) -> bool {
        ASKED.load(Ordering::Relaxed)
    }

    /// Sleeps, unless interrupted; then an error says so.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while !self.asked() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        bail!("interrupted; the laboratory was taken down")
    }
}
