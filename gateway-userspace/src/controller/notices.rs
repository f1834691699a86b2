//! From the kernel's ring of notices to the log of events.

use std::{io, os::fd::OwnedFd};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use super::{backend::NoticeSource, handle::Handle};

/// Notices that are taken at once, before others have their turn.
const BATCH: usize = 256;

/// Takes what the kernel announces until `stop` changes.
pub(super) async fn follow(
    handle: Handle,
    mut source: Box<dyn NoticeSource>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let descriptor: OwnedFd = source.descriptor().try_clone_to_owned()?;
    // SAFETY: the descriptor is this value's own, and stays open until it is dropped.
    let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
    loop {
        // What waited before this start comes without a wake-up.
        loop {
            let notices = source.take(BATCH);
            let more = notices.len() == BATCH;
            if !notices.is_empty() {
                let told = handle.call(move |engine| {
                    engine.tell_notices(&notices);
                    Ok(())
                });
                if told.await.is_err() {
                    return Ok(());
                }
            }
            if !more {
                break;
            }
        }
        tokio::select! {
            woken = ready.readable() => woken?.clear_ready(),
            _ = stop.changed() => return Ok(()),
        }
    }
}
