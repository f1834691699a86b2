//! Who outside is told what: systemd, here, and whoever wants to hear of anomalies (`webhook`).
//!
//! What systemd is told (`Type=notify-reload`); nothing happens where there is no systemd.

pub(crate) mod webhook;

use std::time::Duration;

use sd_notify::NotifyState;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// Enforcement is on and the socket answers.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The policy file is being read again; [`ready`] must follow.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot notify systemd"),
    }
}

/// The controller is about to end.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The controller lives.
pub(crate) fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] must be called, if systemd asked for it: half the time after which it would act.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}
