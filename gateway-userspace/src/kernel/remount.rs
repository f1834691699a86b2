//! What is pinned when its bpf file system is unmounted under a running controller.
//!
//! The lock keeps the folder open, and with it the whole unmounted file system: packets go on being judged while this
//! process lives, and what is pinned is reached through the descriptor. Once a bpf file system is mounted there again,
//! everything is pinned in it anew.

use std::{
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use super::{Dataplane, KernelError, Pinned, pins, sys};

impl Dataplane {
    /// Looks whether what is pinned still has its place, and does what can be done about it.
    ///
    /// # Errors
    /// Something is mounted there again, but not everything could be pinned in it; what is pinned stays where it was.
    pub fn keep_pinned(&mut self) -> Result<Pinned, KernelError> {
        let failed = |source| pins::io_error(format!("cannot look at {}", self.place.display()), source);
        let held = self.lock.metadata().map_err(failed)?;
        let place = self.place.clone();
        if self.gone {
            return Ok(Pinned::InPlace);
        }
        if fs::metadata(&place).is_ok_and(|seen| same(&seen, &held)) {
            if self.dir != place {
                // The same file system is back, moved or bound.
                self.move_to(&place);
            }
            return Ok(Pinned::InPlace);
        }
        if held.nlink() == 0 {
            return Ok(Pinned::Removed);
        }
        let through: PathBuf = format!("/proc/self/fd/{}", self.lock.as_raw_fd()).into();
        self.move_to(&through);
        match pins::ensure(&place, true) {
            Ok(()) => {}
            Err(KernelError::NoBpffs { .. }) => return Ok(Pinned::Unmounted),
            Err(other) => return Err(other),
        }
        let lock = pins::lock(&place)?;
        if !pins::sets(&place)?.is_empty() {
            return Err(KernelError::Other(format!(
                "another set of maps is pinned under {} now; move it away, and weir pins its own there",
                place.display()
            )));
        }
        if let Err(error) = copy(&through, &place) {
            let _ = super::clear(&place);
            return Err(error);
        }
        self.move_to(&place);
        self.lock = lock;
        Ok(Pinned::Restored)
    }

    fn move_to(&mut self, dir: &Path) {
        if let Some(name) = self.set.file_name() {
            self.set = dir.join(name);
        }
        dir.clone_into(&mut self.dir);
    }
}

fn same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Pins everything that is pinned under `from` under `to` too.
fn copy(from: &Path, to: &Path) -> Result<(), KernelError> {
    for entry in pins::read_dir(from)? {
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        let failed = |source| pins::io_error(format!("cannot pin {}", new.display()), source);
        if entry.file_type().map_err(failed)?.is_dir() {
            fs::create_dir(&new).map_err(failed)?;
            copy(&old, &new)?;
        } else {
            let object = sys::open_pin(&old).map_err(failed)?;
            sys::pin(object.as_fd(), &new).map_err(failed)?;
        }
    }
    Ok(())
}
