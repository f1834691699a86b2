//! Waiting for a file that is still being written.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

/// A file that has not changed for so long is taken to be whole.
const QUIET: Duration = Duration::from_millis(200);
/// However often it changes, it is read after so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often to look.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until the file has not changed for a moment: an editor or a copy that has written half of a policy may have
/// written half that is valid by itself. Returns at once for a file that has rested, or cannot be looked at.
pub(super) async fn settled(path: &Path) {
    let begun = Instant::now();
    while !rested(path) && begun.elapsed() < PATIENCE {
        tokio::time::sleep(PAUSE).await;
    }
}

fn rested(path: &Path) -> bool {
    let Ok(changed) = fs::metadata(path).and_then(|metadata| metadata.modified()) else {
        return true;
    };
    match SystemTime::now().duration_since(changed) {
        Ok(age) => age >= QUIET,
        // The wall clock was set back since, or the time comes from elsewhere: it says nothing about the present, unless it
        // is hardly ahead.
        Err(ahead) => ahead.duration() > QUIET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_when_it_has_rested() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        let took = async |path: &Path| {
            let begun = Instant::now();
            settled(path).await;
            begun.elapsed()
        };
        assert!(took(&path).await < QUIET, "what is not there is not waited for");
        fs::write(&path, "version").unwrap();
        let writer = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let more = std::thread::spawn(move || {
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(100));
                std::io::Write::write_all(&mut &writer, b"x").unwrap();
            }
        });
        let waited = took(&path).await;
        assert!(more.is_finished(), "half of it was taken after {waited:?}");
        more.join().unwrap();
        assert!(took(&path).await < QUIET, "it has rested");
        for odd in [Duration::from_hours(1), Duration::from_secs(2)] {
            let ahead = SystemTime::now() + odd;
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(ahead)
                .unwrap();
            assert!(took(&path).await < QUIET, "a time in the future holds nothing up");
        }
    }
}
