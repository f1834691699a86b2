//! Waiting for a file that is still being written.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

/// A file that has not changed for so long is taken to be whole.
const QUIET: Duration = Duration::from_millis(500);
/// However often it changes, it is read after so long.
const PATIENCE: Duration = Duration::from_secs(5);
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

    #[test]
    fn a_file_has_rested_when_it_has_not_changed_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        assert!(rested(&path), "what is not there is not waited for");
        fs::write(&path, "version").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let changed_at = |at: SystemTime| {
            file.set_modified(at).unwrap();
            rested(&path)
        };
        let (now, hour) = (SystemTime::now(), Duration::from_hours(1));
        // A little ahead, because this test may be kept waiting between two lines.
        assert!(!changed_at(now + QUIET / 2), "just written");
        assert!(changed_at(now - QUIET), "it has rested");
        assert!(
            changed_at(now - hour) && changed_at(now + hour),
            "a wrong clock holds nothing up"
        );
    }
}
