//! What the controller says, asked for on threads of their own so that no key ever waits for an answer.

use std::{
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use weir::{
    api::{
        anomalies::{AnomaliesAnswer, ServiceAnomaly},
        traffic::{FlowsAnswer, ServicesAnswer, SourcesAnswer},
        types::{
            Ban, BanRequest, BansAdded, BansAnswer, BansRequest, EventsAnswer, PolicyAnswer, StatusAnswer,
            UnbanRequest, Unbanned,
        },
    },
    client::{Client, ClientError},
    policy,
};

use super::{Message, state::By};
use crate::cli::table::span;

/// How long an answer may take: a controller that is slower is said not to answer, and asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a change may take: a ban waits for the disk.
const CHANGE_PATIENCE: Duration = Duration::from_secs(20);
/// More bans than this are not read every second, and not shown.
pub(super) const MOST_BANS: u64 = 5_000;
/// Rows asked for: more than fit a screen, so that a filter finds something.
const ROWS: usize = 200;
/// How often the services are asked for: the answer is the whole host's inventory, of which little is shown here.
const SERVICES: Duration = Duration::from_secs(5);
/// Events asked for at once.
const EVENTS: usize = 200;

/// What the present view needs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Ask {
    /// What is shown besides the status, the bans and the events.
    pub(super) what: What,
    /// The heaviest by this.
    pub(super) by: By,
    /// Only what is sent to this service.
    pub(super) service: Option<String>,
}

/// What there is to ask for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum What {
    /// Nothing more.
    #[default]
    Nothing,
    /// The sources.
    Sources,
    /// Their networks.
    Networks,
    /// The flows.
    Flows,
}

/// What came back of one round. What was not asked for, or did not change, is absent.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// What was asked.
    pub(super) ask: Ask,
    /// The status.
    pub(super) status: Option<StatusAnswer>,
    /// The sources or networks, or why there are none.
    pub(super) sources: Option<Result<SourcesAnswer, String>>,
    /// The flows, or why there are none.
    pub(super) flows: Option<Result<FlowsAnswer, String>>,
    /// New connections by service, where this controller counts them.
    pub(super) services: Option<ServicesAnswer>,
    /// The bans, or why they are not shown.
    pub(super) bans: Option<Result<Vec<Ban>, String>>,
    /// The services with an anomaly, the worst first.
    pub(super) anomalies: Option<Vec<ServiceAnomaly>>,
    /// New events, oldest first.
    pub(super) events: Option<EventsAnswer>,
    /// What `[[protect]]` names, when the policy has changed.
    pub(super) protected: Option<Vec<IpNet>>,
    /// Why the controller does not answer.
    pub(super) error: Option<ClientError>,
}

/// A change that the operator has confirmed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// Ban.
    Ban(BanRequest),
    /// Take a ban back.
    Unban(UnbanRequest),
}

/// The reader: keeps what it needs from one round to the next.
#[derive(Debug)]
pub(super) struct Reader {
    client: Client,
    next_event: Option<u64>,
    revision: Option<u64>,
    /// When the services were asked for last.
    services_at: Option<Instant>,
}

impl Reader {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client: client.with_patience(PATIENCE),
            next_event: None,
            revision: None,
            services_at: None,
        }
    }

    /// Asks for everything that `ask` needs.
    pub(super) fn round(&mut self, ask: &Ask) -> Round {
        let mut round = Round {
            ask: ask.clone(),
            ..Round::default()
        };
        if let Err(error) = self.fill(ask, &mut round) {
            round.error = Some(error);
            // Another controller may come: with other events, and another policy.
            (self.next_event, self.revision, self.services_at) = (None, None, None);
        }
        round
    }

    fn fill(&mut self, ask: &Ask, round: &mut Round) -> Result<(), ClientError> {
        let status: StatusAnswer = self.client.get("/v1/status")?;
        let bans = status.bans;
        let revision = status.policy.revision;
        let summary = &status.anomalies;
        let anomalous = summary.attack + summary.stealth + summary.crowd > 0;
        round.status = Some(status);
        let query = ask.query();
        match ask.what {
            What::Nothing => {}
            What::Sources => round.sources = Some(self.optional(&format!("/v1/sources?{query}"))?),
            What::Networks => {
                round.sources = Some(self.optional(&format!("/v1/sources?{query}&networks=true"))?);
            }
            What::Flows => round.flows = Some(self.optional(&format!("/v1/flows?{query}"))?),
        }
        if self.services_at.is_none_or(|at| at.elapsed() >= SERVICES) {
            round.services = self.optional("/v1/services")?.ok();
            self.services_at = Some(Instant::now());
        }
        round.bans = Some(if bans > MOST_BANS {
            Err(format!(
                "{bans} bans are too many to show here; weir bans lists them"
            ))
        } else {
            self.optional::<BansAnswer>("/v1/bans")?.map(|answer| answer.bans)
        });
        round.anomalies = if anomalous {
            let answer = self.optional::<AnomaliesAnswer>("/v1/anomalies?limit=0")?;
            answer.ok().map(|answer| answer.services)
        } else {
            Some(Vec::new())
        };
        let after = self
            .next_event
            .map_or_else(String::new, |next| format!("&after={next}"));
        if let Ok(events) = self.optional::<EventsAnswer>(&format!("/v1/events?limit={EVENTS}{after}"))? {
            self.next_event = Some(events.next);
            round.events = Some(events);
        }
        if self.revision != Some(revision) {
            let policy: PolicyAnswer = self.client.get("/v1/policy")?;
            // What the controller has in force it could read, unless it is of another version.
            let parsed = policy::parse(&policy.text, Path::new(&policy.policy.path)).ok();
            let protect = parsed.map(|parsed| parsed.policy.protect).unwrap_or_default();
            round.protected = Some(protect.into_iter().flat_map(|rule| rule.sources).collect());
            self.revision = Some(revision);
        }
        Ok(())
    }

    /// Reads what a controller may refuse, or not have: that is an answer, and no trouble.
    fn optional<A: DeserializeOwned>(&self, path: &str) -> Result<Result<A, String>, ClientError> {
        match self.client.get(path) {
            Ok(answer) => Ok(Ok(answer)),
            // With a service in the question it may be the service that is not there.
            Err(ClientError::Refused { status: 404, .. }) if !path.contains("service=") => {
                let path = path.split('?').next().unwrap_or(path);
                Ok(Err(format!(
                    "this controller has no {path}: it is of another version"
                )))
            }
            Err(ClientError::Refused { body, .. }) => Ok(Err(body.message)),
            Err(error) => Err(error),
        }
    }
}

impl Ask {
    fn query(&self) -> String {
        // Names of services are letters, digits and `_-.` in a valid policy; what is not stays out of the query.
        let service = self.service.as_ref().map_or_else(String::new, |service| {
            let escaped: String = service
                .bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                        char::from(byte).to_string()
                    }
                    byte => format!("%{byte:02X}"),
                })
                .collect();
            format!("&service={escaped}")
        });
        format!("by={}&limit={ROWS}{service}", self.by.name())
    }
}

/// Starts the thread that asks, every `interval` and whenever something else is asked for. It ends when nobody listens.
pub(super) fn poll(client: Client, interval: Duration, first: Ask, messages: Sender<Message>) -> Sender<Ask> {
    let (send, asked) = channel();
    thread::spawn(move || {
        let mut reader = Reader::new(client);
        let mut ask = first;
        loop {
            let begun = Instant::now();
            if messages
                .send(Message::Round(Box::new(reader.round(&ask))))
                .is_err()
            {
                return;
            }
            match wait(&asked, interval.saturating_sub(begun.elapsed()), ask) {
                Some(next) => ask = next,
                None => return,
            }
        }
    });
    send
}

/// What to ask next: what was asked for last within that time, or the same again.
fn wait(asked: &Receiver<Ask>, time: Duration, same: Ask) -> Option<Ask> {
    match asked.recv_timeout(time) {
        Ok(next) => Some(asked.try_iter().last().unwrap_or(next)),
        Err(RecvTimeoutError::Timeout) => Some(same),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// Starts the thread that makes changes, one after the other.
pub(super) fn changes(client: &Client, messages: Sender<Message>) -> Sender<Change> {
    let client = client.clone().with_patience(CHANGE_PATIENCE);
    let (send, changes) = channel();
    thread::spawn(move || {
        for change in changes {
            if messages.send(Message::Changed(make(&client, change))).is_err() {
                return;
            }
        }
    });
    send
}

/// Makes a change and says what came of it, in the controller's words where it refuses.
fn make(client: &Client, change: Change) -> Result<String, String> {
    let told = |error: ClientError| match error {
        ClientError::Refused { body, .. } => match body.hint {
            Some(hint) => format!("{} ({hint})", body.message),
            None => body.message,
        },
        error => error.to_string(),
    };
    match change {
        Change::Ban(ban) => {
            let what = match ban.for_seconds {
                Some(seconds) => format!("banned {} for {}", ban.prefix, span(seconds)),
                None => format!("banned {} until unban", ban.prefix),
            };
            let request = BansRequest {
                bans: vec![ban],
                force: false,
            };
            let added: BansAdded = client.post("/v1/bans", &request).map_err(told)?;
            let what = [what].into_iter().chain(added.warnings);
            Ok(what.collect::<Vec<_>>().join("; "))
        }
        Change::Unban(request) => {
            let unbanned: Unbanned = client.delete("/v1/bans", &request).map_err(told)?;
            let what = format!("unbanned {}", unbanned.ban.prefix);
            Ok(match unbanned.still_covered_by {
                Some(wider) => format!("{what}; it is still banned by {}", wider.prefix),
                None => what,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_nothing_that_could_end_it() {
        let ask = Ask {
            what: What::Sources,
            by: By::Dropped,
            service: Some("a b&x=1".into()),
        };
        assert_eq!(ask.query(), "by=dropped&limit=200&service=a%20b%26x%3D1");
    }

    #[test]
    fn the_last_of_several_wishes_counts_and_nobody_left_is_the_end() {
        let (send, asked) = channel();
        let wish = |by| Ask { by, ..Ask::default() };
        assert_eq!(
            wait(&asked, Duration::ZERO, wish(By::Bytes)),
            Some(wish(By::Bytes))
        );
        send.send(wish(By::Bytes)).unwrap();
        send.send(wish(By::Dropped)).unwrap();
        assert_eq!(
            wait(&asked, Duration::ZERO, wish(By::Packets)),
            Some(wish(By::Dropped))
        );
        drop(send);
        assert_eq!(wait(&asked, Duration::ZERO, wish(By::Packets)), None);
    }

    #[test]
    fn a_controller_that_is_not_there_is_trouble() {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(Client::new(directory.path().join("none.sock")));
        let round = reader.round(&Ask::default());
        assert!(round.error.unwrap().to_string().contains("no controller answers"));
    }
}
