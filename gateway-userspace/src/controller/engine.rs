//! The controller's state and every change to it, without sockets, signals or threads.
//!
//! One [`Engine`] owns the kernel half. Each change goes to the kernel first and is taken into the books only when
//! the kernel took it, so that what the controller says is in force is in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use jiff::{Timestamp, Unit};

use super::{
    access::Door,
    backend::{Backend, Clock, Moment},
    filecheck::FileCheck,
    heartbeat::Heartbeat,
    links::Links,
    policy_ops::Waiting,
    prepare::Prepared,
    rates::Rates,
    seen::Seen,
    start::{Choice, Found},
};
use crate::{
    action::{Book, SavedActions},
    api::{
        error::Failure,
        peer::Peer,
        types::{Detached, SCHEMA},
    },
    bans::{BanBook, Protection, SavedBans},
    detect::Detection,
    events::{Entry, EventLog, Kind},
    export::Stand,
    guard::{self, Neighbours},
    kernel::{Attachment, ListContents, SourceSlots, XdpMode, XdpModeChoice},
    lists::{ListBook, Overlay},
    notify::webhook::Webhook,
    state::{History, StateError, Store},
    traffic::Traffic,
};

/// The policy in force.
pub(super) struct InForce {
    pub(super) prepared: Prepared,
    pub(super) protection: Protection,
    pub(super) revision: u64,
    pub(super) applied_at: Timestamp,
    /// When each list's content last changed by a policy.
    pub(super) lists_at: BTreeMap<String, Timestamp>,
    /// How many prefixes each list holds in force.
    pub(super) list_sizes: BTreeMap<String, u64>,
}

/// The controller's state.
pub struct Engine {
    pub(super) backend: Box<dyn Backend>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Arc<Store>,
    pub(super) started: Moment,
    pub(super) in_force: InForce,
    /// A policy that waits for confirmation is in force; this is what it may go back to.
    pub(super) waiting: Option<Waiting>,
    /// The revisions, as `history.json` has or will have them.
    pub(super) history: History,
    /// Why the policy could not be written to the state directory, until it is.
    pub(super) policy_unsaved: Option<String>,
    /// SHA-256 of the policy file when it was last read.
    pub(super) file_sha256: String,
    pub(super) file: FileCheck,
    pub(super) bans: BanBook,
    pub(super) bans_dirty: bool,
    /// What is done about attacks.
    pub(super) actions: Book,
    pub(super) actions_dirty: bool,
    pub(super) lists: ListBook,
    pub(super) lists_dirty: BTreeSet<String>,
    pub(super) rates: Rates,
    /// What the services' traffic looked like lately.
    pub(super) seen: Seen,
    pub(super) slots: Option<(u64, SourceSlots)>,
    /// True when list entries have ended that the kernel still holds.
    pub(super) lists_behind: bool,
    /// The interfaces that should be attached.
    pub(super) wanted: BTreeSet<String>,
    pub(super) links: Links,
    /// What this start could not take over from the one before.
    pub(super) replaced: Option<String>,
    /// Why the last write to the state directory failed, until one succeeds.
    pub(super) save_fault: Option<String>,
    /// Slots of the source table that is in use; it is made once.
    pub(super) tracked: u32,
    pub(super) events: Arc<EventLog>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) detection: Arc<Detection>,
    /// How the export of samples stands.
    pub(super) export: Arc<Stand>,
    /// Who is told of anomalies.
    pub(super) webhook: Arc<Webhook>,
    /// Where those are found who must not be cut off.
    pub(super) neighbours: Box<dyn Neighbours>,
    /// The faults that were told as events and have not ended, with the interface that each is about.
    pub(super) faults: Vec<(Option<String>, String)>,
    pub(super) heartbeat: Heartbeat,
    /// The control socket's file, where there is one.
    pub(super) door: Option<Box<dyn Door>>,
    /// Why the control socket is for its owner only, when the policy says otherwise.
    pub(super) door_fault: Option<String>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("revision", &self.in_force.revision)
            .finish_non_exhaustive()
    }
}

/// What a start needs beyond the policy.
pub struct Parts {
    /// The kernel half, opened.
    pub backend: Box<dyn Backend>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The state directory.
    pub store: Arc<Store>,
    /// The controller's policy file.
    pub policy_file: PathBuf,
}

/// Why a start failed before anything was attached.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is described by its message")]
pub enum StartError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{}{}", .0.message, .0.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
    Failed(#[from] Failure),
}

impl Engine {
    /// Puts the chosen policy in force, and the bans and the live lists of the state directory with it; a policy that waits
    /// for confirmation in the kernel stays as it is. Nothing is attached yet, and nothing saved: [`Self::save_policy`] must
    /// follow once the start has succeeded.
    pub fn start(parts: Parts, choice: Choice) -> Result<Self, StartError> {
        let Parts {
            mut backend,
            clock,
            store,
            policy_file,
        } = parts;
        let started = clock.now();
        let Found {
            prepared,
            revision,
            applied_at,
            file_sha256,
            history,
            waits,
        } = choice
            .look(backend.as_mut(), whole_second(started.wall))
            .map_err(Failure::from)?;
        let bans = store.load::<SavedBans>(SavedBans::FILE)?.unwrap_or_default();
        let bans = bans.restore(&clock.boot_id(), started.ns, started.wall);
        let actions = store
            .load::<SavedActions>(SavedActions::FILE)?
            .unwrap_or_default();
        let actions = actions.restore(&clock.boot_id(), started);

        let lists = load_lists(&store, &prepared)?;
        let tracked = prepared.policy.source.max_tracked;
        let events = Arc::new(EventLog::open(store.dir()));
        let detection = Detection::open(Arc::clone(&store), Arc::clone(&events), started);
        let in_force = in_force_of(prepared, revision, applied_at, &lists);
        let mut engine = Self {
            events,
            traffic: Arc::default(),
            detection: Arc::new(detection),
            export: Arc::default(),
            webhook: Arc::default(),
            neighbours: Box::<guard::System>::default(),
            faults: Vec::new(),
            rates: Rates::default(),
            seen: Seen::default(),
            backend,
            clock,
            store,
            started,
            file: FileCheck::new(policy_file),
            file_sha256,
            bans,
            bans_dirty: true,
            actions,
            actions_dirty: false,
            lists,
            lists_dirty: BTreeSet::new(),
            slots: None,
            lists_behind: false,
            wanted: BTreeSet::new(),
            links: Links::default(),
            replaced: None,
            save_fault: None,
            policy_unsaved: None,
            tracked,
            heartbeat: Heartbeat::default(),
            door: None,
            door_fault: None,
            history,
            waiting: None,
            in_force,
        };
        engine.notice_opened();
        if let Some(waits) = waits {
            // It is in force as it is, and so is what it may go back to.
            let fresh = in_force_of(waits.prepared, waits.revision, waits.applied_at, &engine.lists);
            let before = std::mem::replace(&mut engine.in_force, fresh);
            engine.waiting = Some(Waiting {
                until_ns: waits.until_ns,
                before,
            });
        } else {
            let prepared = engine.in_force.prepared.clone();
            engine.put_in_force(prepared, revision, applied_at, None)?;
        }
        engine.reconcile_bans()?;
        engine.beat();
        Ok(engine)
    }

    /// What cannot be seen of handshakes, and what that means.
    pub fn handshake_faults(&self) -> Vec<String> {
        self.backend.handshake_faults()
    }

    /// Puts the same policy in force again with other list contents.
    pub(super) fn apply_lists(&mut self, contents: &ListContents) -> Result<(), Failure> {
        self.look_after_pins();
        let levers = self.backend.levers()?;
        let prepared = &self.in_force.prepared;
        self.backend
            .apply_until(&prepared.policy, &prepared.text, contents, &levers, None)?;
        self.in_force.list_sizes = sizes(contents);
        self.lists_behind = false;
        Ok(())
    }

    /// Attaches to every interface, or to none: what this call newly attached is detached again on a failure.
    pub fn attach(&mut self, interfaces: &[String], mode: XdpModeChoice) -> Result<Vec<Attachment>, Failure> {
        let mut attached: Vec<Attachment> = Vec::new();
        for interface in interfaces {
            match self.backend.attach(interface, mode) {
                Ok(attachment) => attached.push(attachment),
                Err(error) => {
                    for new in attached.iter().filter(|attachment| !attachment.reused) {
                        if let Err(error) = self.backend.detach(&new.interface) {
                            tracing::error!(interface = new.interface, %error, "cannot take the attachment back");
                        }
                    }
                    return Err(error.into());
                }
            }
        }
        self.wanted = interfaces.iter().cloned().collect();
        for attachment in &attached {
            let mode = match attachment.xdp_mode {
                XdpMode::Native => "native",
                XdpMode::Generic => "generic",
            };
            let still = if attachment.reused { " still" } else { "" };
            let what = format!("attached to {}{still} in {mode} mode", attachment.interface);
            let mut entry = Entry::new(Kind::Attach, what);
            entry.interface = Some(attachment.interface.clone());
            self.tell(entry);
        }
        self.links.mode = mode;
        Ok(attached)
    }

    /// Goes back to the policy that was in force before a start that failed.
    pub fn restore(&mut self, before: Prepared) {
        if self.waiting.is_some() {
            // This start has changed nothing in the kernel.
            return;
        }
        let (revision, applied_at) = (self.in_force.revision, self.in_force.applied_at);
        let restored = self.put_in_force(before, revision, applied_at, None);
        match restored.and_then(|_| self.reconcile_bans()) {
            Ok(()) => tracing::warn!("the start failed; the policy from before is in force"),
            Err(error) => {
                tracing::error!(%error, "the start failed, and the policy from before cannot be put back");
            }
        }
    }

    /// Removes what a failed first start has pinned.
    pub fn remove_unused(&mut self) {
        if let Err(error) = self.backend.remove_unused() {
            tracing::warn!(%error, "the start failed, and what it had pinned could not be removed");
        }
    }

    /// Takes enforcement off these interfaces (all, when none is named); they are not attached again.
    pub fn detach(&mut self, interfaces: &[String], peer: Option<Peer>) -> Result<Detached, Failure> {
        let attached: Vec<String> = self
            .backend
            .attachments()?
            .into_iter()
            .map(|a| a.interface)
            .collect();
        if let Some(absent) = interfaces.iter().find(|name| !attached.contains(name)) {
            return Err(
                Failure::not_found(format!("weir is not attached to {absent}")).hint(format!(
                    "it is attached to: {}",
                    if attached.is_empty() {
                        "nothing".into()
                    } else {
                        attached.join(", ")
                    }
                )),
            );
        }
        if attached.is_empty() {
            return Err(Failure::not_found(
                "weir is not attached to any interface; there is nothing to detach",
            ));
        }
        let targets = if interfaces.is_empty() {
            &attached[..]
        } else {
            interfaces
        };
        let mut detached = Vec::new();
        for interface in targets {
            if self.backend.detach(interface)? {
                tracing::info!(interface, by = %Peer::show(peer), "detached; enforcement is off here");
                let what = format!("detached from {interface}; enforcement is off there");
                let mut entry = Entry::new(Kind::Detach, what).by(peer);
                entry.interface = Some(interface.clone());
                self.tell(entry);
                detached.push(interface.clone());
            }
            self.wanted.remove(interface);
        }
        let remaining = attached
            .iter()
            .filter(|name| !targets.contains(name))
            .cloned()
            .collect();
        Ok(Detached {
            schema: SCHEMA,
            detached,
            remaining,
        })
    }

    /// The interfaces under enforcement.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Failure> {
        Ok(self.backend.attachments()?)
    }

    /// The controller's policy file.
    pub fn policy_file(&self) -> PathBuf {
        self.file.path().to_owned()
    }

    /// The policy's revision.
    pub fn revision(&self) -> u64 {
        self.in_force.revision
    }
}

/// The live lists of the state directory. A list that no longer fits the policy is left on disk and out of force.
fn load_lists(store: &Store, prepared: &Prepared) -> Result<ListBook, StateError> {
    let mut book = ListBook::default();
    for file in store.names(crate::lists::STATE_PREFIX)? {
        let Some(overlay) = store.load::<Overlay>(&file)? else {
            continue;
        };
        let Some(name) = crate::lists::list_of(&file) else {
            continue;
        };
        let list = prepared.policy.lists.iter().find(|list| list.name == name);
        if let (Some(list), Some(base)) = (list, prepared.base.get(name)) {
            let held = overlay.content(base).len();
            if held as u64 > u64::from(list.max_prefixes) {
                tracing::warn!(
                    list = name,
                    held,
                    max_prefixes = list.max_prefixes,
                    "the live changes of this list no longer fit; the policy's content is used"
                );
                continue;
            }
        }
        book.put(name, overlay);
    }
    Ok(book)
}

/// The books of a policy that is in force already.
fn in_force_of(prepared: Prepared, revision: u64, applied_at: Timestamp, lists: &ListBook) -> InForce {
    InForce {
        protection: Protection::of(&prepared.policy),
        list_sizes: sizes(&lists.contents(&prepared.base)),
        lists_at: BTreeMap::new(),
        prepared,
        revision,
        applied_at,
    }
}

pub(super) fn sizes(contents: &ListContents) -> BTreeMap<String, u64> {
    contents
        .iter()
        .map(|(name, content)| (name.clone(), content.len() as u64))
        .collect()
}

/// Times are told in whole seconds.
pub(super) fn whole_second(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}
