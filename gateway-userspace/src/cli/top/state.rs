//! What is known and what is looked at. No input and no output: keys change it (`keys`), it is drawn (`draw`).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use ipnet::IpNet;
use weir::{
    api::{
        anomalies::ServiceAnomaly,
        traffic::{FlowsAnswer, SourcesAnswer},
        types::{Ban, StatusAnswer},
    },
    events::Event,
};

use super::{
    feed::{Ask, Round, What},
    rates::Rates,
};

/// Events that are kept.
const EVENTS: usize = 1_000;
/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(10);

/// What the heaviest are the heaviest by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum By {
    /// Packets a second.
    #[default]
    Packets,
    /// Bytes a second.
    Bytes,
    /// Packets dropped a second.
    Dropped,
    /// New connections a second.
    Connections,
}

impl By {
    /// Its name, as in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Dropped => "dropped",
            Self::Connections => "connections",
        }
    }
}

/// What the middle of the screen shows.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Pane {
    /// Rates and trends.
    Services,
    /// Who sends the most.
    #[default]
    Sources,
    /// The same by network.
    Networks,
    /// The heaviest flows.
    Flows,
    /// Drops by service and reason.
    Drops,
    /// What happened.
    Events,
    /// Bans in force.
    Bans,
}

impl Pane {
    /// All, in the order of their number keys from 1.
    pub(super) const ALL: [Self; 7] = [
        Self::Services,
        Self::Sources,
        Self::Networks,
        Self::Flows,
        Self::Drops,
        Self::Events,
        Self::Bans,
    ];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Sources => "sources",
            Self::Networks => "networks",
            Self::Flows => "flows",
            Self::Drops => "drops",
            Self::Events => "events",
            Self::Bans => "bans",
        }
    }

    /// The pane so many further on, round and round.
    pub(super) fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }

    fn what(self) -> What {
        match self {
            Self::Sources => What::Sources,
            Self::Networks => What::Networks,
            Self::Flows => What::Flows,
            _ => What::Nothing,
        }
    }
}

/// What is asked before something is done, or shown above everything else.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Dialog {
    /// Ban this?
    Ban {
        /// Exactly what will be banned.
        prefix: IpNet,
        /// A service that it may be limited to.
        service: Option<String>,
        /// Only that service.
        only_service: bool,
        /// Which of [`TIMES`].
        time: usize,
        /// What to know first.
        warnings: Vec<String>,
        /// How far it is.
        stage: Stage,
    },
    /// Take this ban back?
    Unban {
        /// The ban.
        ban: Ban,
        /// What it was meant for, where the ban covers more.
        wider_than: Option<IpNet>,
        /// How far it is.
        stage: Stage,
    },
    /// All about the selected row.
    Details {
        /// Its key.
        key: String,
        /// The first line shown.
        scroll: usize,
    },
    /// The keys.
    Help,
}

/// How far a change is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// It waits for the operator.
    Asked,
    /// It waits for the controller.
    Sent,
    /// The controller refused, in these words.
    Refused(String),
}

/// How long a ban from here lasts: seconds (absent: until it is taken back), and how that is called.
pub(super) const TIMES: [(Option<u64>, &str); 5] = [
    (Some(600), "10 min"),
    (Some(3_600), "1 h"),
    (Some(86_400), "1 d"),
    (Some(604_800), "7 d"),
    (None, "until unban"),
];

/// One sentence at the bottom, for a while.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notice {
    /// The sentence.
    pub(super) text: String,
    /// It is about something that failed.
    pub(super) bad: bool,
    until: Duration,
}

/// What the controller said last.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// The status.
    pub(super) status: Option<StatusAnswer>,
    /// The rates that follow from it.
    pub(super) rates: Rates,
    /// New connections a second by service, where they are counted.
    pub(super) connections: BTreeMap<String, f64>,
    /// The sources.
    pub(super) sources: Option<Result<SourcesAnswer, String>>,
    /// Their networks.
    pub(super) networks: Option<Result<SourcesAnswer, String>>,
    /// The flows.
    pub(super) flows: Option<Result<FlowsAnswer, String>>,
    /// The bans.
    pub(super) bans: Option<Result<Vec<Ban>, String>>,
    /// The services with an anomaly, the worst first.
    pub(super) anomalies: Vec<ServiceAnomaly>,
    /// Events, oldest first.
    pub(super) events: VecDeque<Event>,
    /// What cannot be banned.
    pub(super) protected: Vec<IpNet>,
    /// Why the controller does not answer.
    pub(super) trouble: Option<String>,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What the controller said.
    pub(super) data: Data,
    /// What the middle shows.
    pub(super) pane: Pane,
    /// What the heaviest are asked by.
    pub(super) by: By,
    /// Only this service.
    pub(super) service: Option<String>,
    /// By which column a pane is sorted, and whether the other way round.
    pub(super) sort: BTreeMap<Pane, (usize, bool)>,
    /// Only rows with this text, or sources within this prefix.
    pub(super) filter: String,
    /// The filter is being written; what it was before.
    pub(super) editing: Option<String>,
    /// What is shown stands still.
    pub(super) paused: bool,
    /// The key of the selected row.
    pub(super) selected: BTreeMap<Pane, String>,
    /// Where the selected row was, for when it goes.
    pub(super) position: BTreeMap<Pane, usize>,
    /// What is above it all.
    pub(super) dialog: Option<Dialog>,
    /// What was said last.
    pub(super) notice: Option<Notice>,
    /// The time, since the start.
    pub(super) now: Duration,
}

impl State {
    /// What the present view needs.
    pub(super) fn ask(&self) -> Ask {
        Ask {
            what: self.pane.what(),
            by: self.by,
            service: self.service.clone(),
        }
    }

    /// Takes in what came back at `now`. Rates, sources and flows stay while it is paused; the node's state does not: a
    /// countdown that stands still would lie.
    pub(super) fn take(&mut self, now: Duration, round: Round) {
        self.now = now;
        self.data.trouble = round.error.map(|error| error.to_string());
        // Events come once only, and what is asked before a ban is about the present.
        self.take_events(round.events);
        if round.bans.is_some() {
            self.data.bans = round.bans;
        }
        if let Some(protected) = round.protected {
            self.data.protected = protected;
        }
        if let Some(anomalies) = round.anomalies {
            self.data.anomalies = anomalies;
        }
        if let Some(status) = round.status {
            if !self.paused {
                self.data.rates.take(now, &status);
            }
            self.data.status = Some(status);
        }
        if self.paused {
            return;
        }
        if let Some(services) = round.services {
            self.data.connections = services
                .services
                .into_iter()
                .map(|service| (service.service, service.syn_per_second))
                .collect();
        }
        // An answer to what is no longer asked would be shown under the wrong heading.
        if round.ask == self.ask() {
            match round.ask.what {
                What::Networks => self.data.networks = round.sources,
                What::Sources => self.data.sources = round.sources,
                What::Flows => self.data.flows = round.flows,
                What::Nothing => {}
            }
        }
    }

    fn take_events(&mut self, answer: Option<weir::api::types::EventsAnswer>) {
        let Some(answer) = answer else { return };
        let mut last = self.data.events.back().map(|event| event.number);
        if last > Some(answer.next) {
            // A controller with another state directory counts from the beginning.
            self.data.events.clear();
            last = None;
        }
        // After trouble the newest are asked for again, and some are known.
        let new = answer
            .events
            .into_iter()
            .filter(|event| Some(event.number) > last);
        self.data.events.extend(new);
        while self.data.events.len() > EVENTS {
            self.data.events.pop_front();
        }
    }

    /// Takes in what came of a change.
    pub(super) fn changed(&mut self, result: Result<String, String>) {
        match (&mut self.dialog, result) {
            (Some(Dialog::Ban { stage, .. } | Dialog::Unban { stage, .. }), Err(why))
                if *stage == Stage::Sent =>
            {
                *stage = Stage::Refused(why);
            }
            (Some(Dialog::Ban { stage, .. } | Dialog::Unban { stage, .. }), Ok(what))
                if *stage == Stage::Sent =>
            {
                self.dialog = None;
                self.say(what, false);
            }
            // The dialog was closed before the answer came.
            (_, Ok(what)) => self.say(what, false),
            (_, Err(why)) => self.say(why, true),
        }
    }

    /// Says something at the bottom.
    pub(super) fn say(&mut self, text: impl Into<String>, bad: bool) {
        self.notice = Some(Notice {
            text: text.into(),
            bad,
            until: self.now + NOTICE,
        });
    }

    /// Lets time go by.
    pub(super) fn tick(&mut self, now: Duration) {
        self.now = now;
        if self.notice.as_ref().is_some_and(|notice| notice.until <= now) {
            self.notice = None;
        }
    }

    /// The bans that hold all of a prefix, the nearest first.
    pub(super) fn bans_over(&self, prefix: &IpNet) -> Vec<&Ban> {
        let Some(Ok(bans)) = &self.data.bans else {
            return Vec::new();
        };
        let mut over: Vec<&Ban> = bans.iter().filter(|ban| ban.prefix.contains(prefix)).collect();
        over.sort_by_key(|ban| (std::cmp::Reverse(ban.prefix.prefix_len()), ban.service.is_some()));
        over
    }
}
