//! What was learned of services that are not watched now: they may come back.

use std::collections::BTreeMap;

use gateway_detect::Detector;

/// For how long it is kept, in seconds.
pub const KEPT_SECONDS: f64 = 7.0 * 86_400.0;
/// The most services that it is kept of.
pub const MOST: usize = 10_000;
/// The most bytes of one service, written down. One that is larger is not kept: it would be a fault.
pub const MOST_BYTES: usize = 256 << 10;

/// What was learned of one service, written down.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// When it was last watched, in seconds since 1970.
    pub(super) seen: f64,
    /// Its detector, written down.
    pub(super) bytes: Vec<u8>,
}

/// What was learned of services that are not watched now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Dormant {
    pub(super) services: BTreeMap<String, Record>,
}

/// Writes a detector down; nothing if it cannot be, which is told.
pub(super) fn write_down(service: &str, detector: &Detector) -> Option<Vec<u8>> {
    match postcard::to_allocvec(detector) {
        Ok(bytes) if bytes.len() <= MOST_BYTES => Some(bytes),
        Ok(bytes) => {
            let length = bytes.len();
            tracing::error!(
                service,
                length,
                most = MOST_BYTES,
                "a detector has grown too large and is not kept"
            );
            None
        }
        Err(error) => {
            tracing::error!(service, %error, "a detector cannot be written down and is not kept");
            None
        }
    }
}

/// A detector as it is after a restart: with what it has learned, and nothing of the last seconds. Nothing if it cannot be
/// written down and read back, which is told.
pub(crate) fn restarted(service: &str, detector: &Detector) -> Option<Detector> {
    let mut dormant = Dormant::default();
    dormant.lay_down(service, detector, 0.0);
    dormant.wake(service)
}

impl Dormant {
    /// Keeps what was learned of a service that is not watched any more.
    pub(super) fn lay_down(&mut self, service: &str, detector: &Detector, at: f64) {
        if let Some(bytes) = write_down(service, detector) {
            self.services
                .insert(service.to_owned(), Record { seen: at, bytes });
        }
    }

    /// Takes what was learned of a service that is watched again.
    pub(super) fn wake(&mut self, service: &str) -> Option<Detector> {
        let record = self.services.remove(service)?;
        let read = postcard::take_from_bytes(&record.bytes);
        // What is left over was another layout's.
        let read = read.and_then(|(detector, rest)| {
            let whole = rest.is_empty().then_some(detector);
            whole.ok_or(postcard::Error::DeserializeBadEncoding)
        });
        read.inspect_err(
            |error| tracing::warn!(service, %error, "what was learned of a service cannot be read back; it is learned anew"),
        )
        .ok()
    }

    /// Forgets what is too old, and the oldest of what is too much.
    pub(super) fn prune(&mut self, at: f64) {
        self.services.retain(|_, record| at - record.seen < KEPT_SECONDS);
        let excess = self.services.len().saturating_sub(MOST);
        if excess > 0 {
            let seen = self.services.iter();
            let mut seen: Vec<(f64, String)> = seen
                .map(|(service, record)| (record.seen, service.clone()))
                .collect();
            // Those that went at the same moment are equals: names decide.
            seen.sort_by(|(a, left), (b, right)| a.total_cmp(b).then_with(|| left.cmp(right)));
            for (_, service) in seen.into_iter().take(excess) {
                self.services.remove(&service);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let mut dormant = Dormant::default();
        let detector = Detector::default();
        dormant.lay_down("old", &detector, 0.0);
        for number in 0..MOST + 5 {
            dormant.lay_down(
                &format!("s{number:05}"),
                &detector,
                1_000.0 + (number / 100) as f64,
            );
        }
        dormant.prune(KEPT_SECONDS + 1.0);
        assert_eq!(dormant.services.len(), MOST);
        assert!(!dormant.services.contains_key("old") && !dormant.services.contains_key("s00000"));
        assert!(dormant.services.contains_key("s10004"), "the last to go is kept");
        assert!(dormant.wake("s10004").is_some() && dormant.wake("s10004").is_none());
    }

    #[test]
    fn what_cannot_be_read_back_is_learned_anew() {
        let mut dormant = Dormant::default();
        let bytes = vec![0xff; 11];
        dormant.services.insert("web".into(), Record { seen: 1.0, bytes });
        // Whatever a detector is made of, it is not this.
        assert!(dormant.wake("web").is_none() && dormant.services.is_empty());
    }
}
