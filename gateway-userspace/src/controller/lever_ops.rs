//! The emergency levers.

use super::{
    backend::Moment,
    engine::{Engine, whole_second},
};
use crate::{
    api::{
        error::Failure,
        peer::Peer,
        types::{LeverRequest, LeverStatus, LeversAnswer, LeversCleared, SCHEMA},
    },
    events::{Entry, Kind},
    kernel::Lever,
};

/// The longest that a lever may hold, in seconds.
const LONGEST_SECONDS: u64 = 86_400;

impl Engine {
    /// `GET /v1/levers`.
    pub fn show_levers(&self) -> Result<LeversAnswer, Failure> {
        Ok(LeversAnswer {
            schema: SCHEMA,
            levers: self.lever_statuses()?,
            warnings: Vec::new(),
        })
    }

    pub(super) fn lever_statuses(&self) -> Result<Vec<LeverStatus>, Failure> {
        let now = self.clock.now();
        Ok(self
            .backend
            .levers()?
            .iter()
            .filter(|lever| until_ns(lever) > now.ns)
            .map(|lever| show(now, lever))
            .collect())
    }

    /// Pulls a lever, in the place of a running one of the same kind for the same service.
    pub fn pull_lever(
        &mut self,
        request: &LeverRequest,
        peer: Option<Peer>,
    ) -> Result<LeversAnswer, Failure> {
        self.settle_policy();
        let now = self.clock.now();
        let (LeverRequest::Bypass { for_seconds, .. } | LeverRequest::Scale { for_seconds, .. }) = *request;
        if !(1..=LONGEST_SECONDS).contains(&for_seconds) {
            return Err(Failure::invalid(format!(
                "for_seconds must be 1 to {LONGEST_SECONDS}"
            )));
        }
        let until_ns = now.ns_after(for_seconds);
        let lever = match request {
            LeverRequest::Bypass { service, all, .. } => {
                if let Some(service) = service {
                    self.need_service(service)?;
                }
                Lever::Bypass {
                    service: service.clone(),
                    all: *all,
                    until_ns,
                }
            }
            LeverRequest::Scale { service, percent, .. } => {
                self.need_service(service)?;
                if !(1..=10_000).contains(percent) {
                    return Err(Failure::invalid(format!(
                        "percent must be 1 to 10000, and is {percent}"
                    )));
                }
                Lever::Scale {
                    service: service.clone(),
                    percent: *percent,
                    until_ns,
                }
            }
        };
        let mut warnings = Vec::new();
        match request {
            LeverRequest::Bypass { service, .. } if self.waiting.is_some() => {
                // Whoever pulls it has no time for a riddle, and the newest change is the first suspect.
                let taken_back = self.take_back(peer)?.taken_back;
                if let Some(service) = service {
                    self.need_service(service)?;
                }
                warnings.push(format!(
                    "revision {taken_back} waited for confirmation and was taken back first; the policy before it is in force"
                ));
            }
            _ => self.none_waits()?,
        }
        let mut levers = self.backend.levers()?;
        levers.retain(|running| !same_place(running, &lever));
        levers.push(lever);
        self.backend.set_levers(&levers)?;
        self.tell_lever(request, peer);
        match request {
            LeverRequest::Bypass { service, all, .. } => tracing::warn!(
                service = service.as_deref().unwrap_or(""), all, for_seconds, by = %Peer::show(peer), "bypass is on"
            ),
            LeverRequest::Scale { service, percent, .. } => {
                tracing::warn!(service, percent, for_seconds, by = %Peer::show(peer), "limits are scaled");
            }
        }
        Ok(LeversAnswer {
            warnings,
            ..self.show_levers()?
        })
    }

    fn tell_lever(&self, request: &LeverRequest, peer: Option<Peer>) {
        let (what, service) = match request {
            LeverRequest::Bypass {
                service, for_seconds, ..
            } => {
                let whom = service.as_deref().unwrap_or("everything");
                (format!("bypass of {whom} for {for_seconds} s"), service.clone())
            }
            LeverRequest::Scale {
                service,
                percent,
                for_seconds,
            } => (
                format!("limits of {service} at {percent} % for {for_seconds} s"),
                Some(service.clone()),
            ),
        };
        let mut entry = Entry::new(Kind::Lever, what).by(peer);
        entry.service = service;
        self.tell(entry);
    }

    /// Takes every lever off.
    pub fn clear_levers(&mut self, peer: Option<Peer>) -> Result<LeversCleared, Failure> {
        self.none_waits()?;
        let cleared = self.lever_statuses()?;
        self.backend.set_levers(&[])?;
        self.tell(Entry::new(Kind::Lever, format!("{} levers cleared", cleared.len())).by(peer));
        tracing::info!(levers = cleared.len(), by = %Peer::show(peer), "levers cleared");
        Ok(LeversCleared {
            schema: SCHEMA,
            cleared,
        })
    }
}

fn until_ns(lever: &Lever) -> u64 {
    match lever {
        Lever::Bypass { until_ns, .. } | Lever::Scale { until_ns, .. } => *until_ns,
    }
}

fn same_place(one: &Lever, other: &Lever) -> bool {
    match (one, other) {
        (Lever::Bypass { service: one, .. }, Lever::Bypass { service: other, .. }) => one == other,
        (Lever::Scale { service: one, .. }, Lever::Scale { service: other, .. }) => one == other,
        _ => false,
    }
}

fn show(now: Moment, lever: &Lever) -> LeverStatus {
    let until = whole_second(now.wall_at(until_ns(lever)));
    let seconds_left = now.seconds_to(until_ns(lever));
    match lever {
        Lever::Bypass { service, all, .. } => LeverStatus::Bypass {
            service: service.clone(),
            all: *all,
            until,
            seconds_left,
        },
        Lever::Scale { service, percent, .. } => LeverStatus::Scale {
            service: service.clone(),
            percent: *percent,
            until,
            seconds_left,
        },
    }
}
