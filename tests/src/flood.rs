//! A raw flood in the background.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Result, anyhow};

use crate::{
    netns::Netns,
    sender::{Plan, Sender, Sent},
};

/// Frames sent over and over on a thread of its own; the flood ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Sent>>>,
}

impl Flood {
    /// Starts a flood on `dev` inside `netns`.
    pub fn start(netns: &Netns, dev: &str, frames: Vec<Vec<u8>>, plan: Plan) -> Result<Self> {
        let sender = Sender::open(netns, dev)?;
        let stop = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("flood".to_owned())
            .spawn(move || sender.send(&frames, &plan, || heard.load(Ordering::Relaxed)))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Waits for the plan's own end.
    pub fn wait(mut self) -> Result<Sent> {
        self.join()
    }

    /// Ends the flood and says what was sent.
    pub fn end(mut self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(&mut self) -> Result<Sent> {
        let thread = self
            .thread
            .take()
            .ok_or_else(|| anyhow!("the flood has ended already"))?;
        thread
            .join()
            .map_err(|_| anyhow!("the flood's thread panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
