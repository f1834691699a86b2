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
    backend::{Backend, Clock, Moment},
    filecheck::FileCheck,
    prepare::Prepared,
    rates::Rates,
};
use crate::{
    api::{
        error::Failure,
        peer::Peer,
        types::{Detached, PolicyApplied, SCHEMA, code},
    },
    bans::{BanBook, Protection, SavedBans},
    events::{Entry, EventLog, Kind},
    guard::{self, Neighbours},
    kernel::{Attachment, Lever, ListContents, SourceSlots, XdpMode, XdpModeChoice},
    lists::{ListBook, Overlay},
    state::{PolicyState, StateError, Store},
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
    /// SHA-256 of the policy file when it was last read.
    file_sha256: String,
    pub(super) file: FileCheck,
    pub(super) bans: BanBook,
    pub(super) bans_dirty: bool,
    pub(super) lists: ListBook,
    pub(super) lists_dirty: BTreeSet<String>,
    pub(super) rates: Rates,
    pub(super) slots: Option<(u64, SourceSlots)>,
    /// True when list entries have ended that the kernel still holds.
    pub(super) lists_behind: bool,
    /// The interfaces that should be attached.
    pub(super) wanted: BTreeSet<String>,
    /// Why the last write to the state directory failed, until one succeeds.
    pub(super) save_fault: Option<String>,
    /// Slots of the source table that is in use; it is made once.
    tracked: u32,
    pub(super) events: Arc<EventLog>,
    /// Where those are found who must not be cut off.
    pub(super) neighbours: Box<dyn Neighbours>,
    /// The faults that were told as events and have not ended, with the interface that each is about.
    pub(super) faults: Vec<(Option<String>, String)>,
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

/// What a start puts in force.
#[derive(Debug)]
pub struct Choice {
    /// The policy.
    pub prepared: Prepared,
    file_sha256: String,
    stored: Option<PolicyState>,
}

impl Choice {
    /// What was applied since the policy file was last read, if the file is still the same; else the file.
    pub fn of(store: &Store, file: Prepared) -> Result<Self, StateError> {
        let stored: Option<PolicyState> = store.load(PolicyState::FILE)?;
        let file_sha256 = file.sha256.clone();
        Ok(Self {
            prepared: choose(stored.as_ref(), file),
            file_sha256,
            stored,
        })
    }
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
    /// Puts the chosen policy in force, and the bans and the live
    /// lists of the state directory with it. Nothing is attached yet, and nothing saved: [`Self::save_policy`] must
    /// follow once the start has succeeded.
    pub fn start(parts: Parts, choice: Choice) -> Result<Self, StartError> {
        let Parts {
            backend,
            clock,
            store,
            policy_file,
        } = parts;
        let started = clock.now();
        let Choice {
            prepared: chosen,
            file_sha256,
            stored,
        } = choice;
        let bans = store.load::<SavedBans>(SavedBans::FILE)?.unwrap_or_default();
        let bans = bans.restore(&clock.boot_id(), started.ns, started.wall);

        let lists = load_lists(&store, &chosen)?;
        let (revision, applied_at) = match &stored {
            Some(stored) if stored.sha256 == chosen.sha256 => (stored.revision, stored.applied_at),
            Some(stored) => (stored.revision + 1, whole_second(started.wall)),
            None => (1, whole_second(started.wall)),
        };
        let tracked = chosen.policy.source.max_tracked;
        let events = Arc::new(EventLog::open(store.dir()));
        let mut engine = Self {
            events,
            neighbours: Box::<guard::System>::default(),
            faults: Vec::new(),
            rates: Rates::default(),
            backend,
            clock,
            store,
            started,
            file: FileCheck::new(policy_file),
            file_sha256,
            bans,
            bans_dirty: true,
            lists,
            lists_dirty: BTreeSet::new(),
            slots: None,
            lists_behind: false,
            wanted: BTreeSet::new(),
            save_fault: None,
            tracked,
            in_force: InForce {
                protection: Protection::default(),
                prepared: chosen.clone(),
                revision,
                applied_at,
                lists_at: BTreeMap::new(),
                list_sizes: BTreeMap::new(),
            },
        };
        engine.put_in_force(chosen, revision, applied_at)?;
        Ok(engine)
    }

    /// What cannot be seen of handshakes, and what that means.
    pub fn handshake_faults(&self) -> Vec<String> {
        self.backend.handshake_faults()
    }

    /// The policy file, read anew (SIGHUP), is put in force.
    pub fn reload(&mut self, file: Prepared) -> Result<PolicyApplied, Failure> {
        // The file counts as read only when it is in force: one that needs a restart is taken by the restart.
        self.apply_guarded(file, true, None)
    }

    /// Puts a policy in force, whoever is cut off by it. On any failure the old one stays.
    pub fn apply(&mut self, prepared: Prepared, peer: Option<Peer>) -> Result<PolicyApplied, Failure> {
        let mut warnings = prepared.warnings.clone();
        let tracked = prepared.policy.source.max_tracked;
        if tracked != self.tracked {
            return Err(Failure::new(
                code::CONFLICT,
                format!(
                    "[source] max_tracked is {tracked}, and the source table was made with {}; it is made once",
                    self.tracked
                ),
            )
            .hint("keep the number, or write the policy to the controller's file and restart it (buckets start full then)"));
        }
        let unattached: Vec<&str> = prepared.policy.interfaces.iter().map(String::as_str).collect();
        let unattached: Vec<&str> = unattached
            .into_iter()
            .filter(|name| !self.wanted.contains(*name))
            .collect();
        if !unattached.is_empty() {
            warnings.push(format!(
                "the policy names interfaces that this controller was not started for: {}; restart it to attach to them",
                unattached.join(", ")
            ));
        }
        let revision = self.in_force.revision + 1;
        let now = self.clock.now();
        let applied = self.put_in_force(prepared, revision, whole_second(now.wall))?;
        if self
            .file
            .sha256()
            .is_ok_and(|sha256| sha256 == self.in_force.prepared.sha256)
        {
            self.file_sha256.clone_from(&self.in_force.prepared.sha256);
        }
        if let Err(error) = self.save_policy() {
            warnings.push(format!(
                "the policy is in force, but will not outlive a restart: {error}"
            ));
        }
        let answer = PolicyApplied {
            schema: SCHEMA,
            revision,
            sha256: self.in_force.prepared.sha256.clone(),
            services: applied.services as u64,
            prefixes: applied.prefixes as u64,
            took_seconds: applied.took.as_secs_f64(),
            warnings,
        };
        tracing::info!(
            revision, sha256 = answer.sha256, path = self.in_force.prepared.path, services = answer.services,
            prefixes = answer.prefixes, took_ms = applied.took.as_millis(), by = %Peer::show(peer), "policy in force"
        );
        for warning in &answer.warnings {
            tracing::warn!("{warning}");
        }
        let what = format!(
            "policy revision {revision} of {} is in force",
            self.in_force.prepared.path
        );
        let mut entry = Entry::new(Kind::Policy, what).by(peer);
        entry.revision = Some(revision);
        self.tell(entry);
        Ok(answer)
    }

    fn put_in_force(
        &mut self,
        prepared: Prepared,
        revision: u64,
        applied_at: Timestamp,
    ) -> Result<crate::kernel::Applied, Failure> {
        let contents = self.lists.contents(&prepared.base);
        for list in &prepared.policy.lists {
            let held = contents.get(&list.name).map_or(0, Vec::len);
            if held as u64 > u64::from(list.max_prefixes) {
                return Err(Failure::new(
                    code::CONFLICT,
                    format!(
                        "list {} holds {held} prefixes with its live changes, more than the policy's max_prefixes of {}",
                        list.name, list.max_prefixes
                    ),
                )
                .hint("raise max_prefixes, or feed the list less with `weir list replace`"));
            }
        }
        let levers = self.levers_for(&prepared)?;
        let applied = self
            .backend
            .apply(&prepared.policy, &prepared.text, &contents, &levers)?;

        let now = whole_second(self.clock.now().wall);
        let lists_at = prepared.base.iter().map(|(name, content)| {
            let unchanged = self.in_force.prepared.base.get(name) == Some(content);
            let before = self.in_force.lists_at.get(name).filter(|_| unchanged);
            (name.clone(), before.copied().unwrap_or(now))
        });
        let lists_at = lists_at.collect();
        self.in_force = InForce {
            protection: Protection::of(&prepared.policy),
            list_sizes: sizes(&contents),
            lists_at,
            prepared,
            revision,
            applied_at,
        };
        self.reconcile_bans()?;
        Ok(applied)
    }

    /// The running levers that still have their service in `prepared`.
    fn levers_for(&self, prepared: &Prepared) -> Result<Vec<Lever>, Failure> {
        let mut levers = self.backend.levers()?;
        levers.retain(|lever| match lever {
            Lever::Bypass { service: None, .. } => true,
            Lever::Bypass {
                service: Some(service),
                ..
            }
            | Lever::Scale { service, .. } => {
                let kept = prepared.has_service(service);
                if !kept {
                    tracing::warn!(service, "a lever ends: the new policy has no such service");
                }
                kept
            }
        });
        Ok(levers)
    }

    /// Puts the same policy in force again with other list contents.
    pub(super) fn apply_lists(&mut self, contents: &ListContents) -> Result<(), Failure> {
        let levers = self.backend.levers()?;
        let prepared = &self.in_force.prepared;
        self.backend
            .apply(&prepared.policy, &prepared.text, contents, &levers)?;
        self.in_force.list_sizes = sizes(contents);
        self.lists_behind = false;
        Ok(())
    }

    /// Writes down what is in force, for the next start.
    pub fn save_policy(&self) -> Result<(), StateError> {
        self.store.save(
            PolicyState::FILE,
            &PolicyState {
                revision: self.in_force.revision,
                file_sha256: self.file_sha256.clone(),
                sha256: self.in_force.prepared.sha256.clone(),
                path: self.in_force.prepared.path.clone(),
                applied_at: self.in_force.applied_at,
                text: self.in_force.prepared.text.clone(),
            },
        )
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
        Ok(attached)
    }

    /// Goes back to the policy that was in force before a start that failed.
    pub fn restore(&mut self, before: Prepared) {
        let (revision, applied_at) = (self.in_force.revision, self.in_force.applied_at);
        match self.put_in_force(before, revision, applied_at) {
            Ok(_) => tracing::warn!("the start failed; the policy from before is in force"),
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

/// What was applied since the policy file was last read, if the file is still the same; else the file.
fn choose(stored: Option<&PolicyState>, file: Prepared) -> Prepared {
    let Some(stored) = stored.filter(|stored| stored.outlives(&file.sha256)) else {
        return file;
    };
    match Prepared::from_text(&stored.text, &stored.path) {
        Ok(applied) => {
            tracing::warn!(
                revision = stored.revision,
                path = stored.path,
                file = file.path,
                "the last applied policy stays in force; it is not the policy file's (which has not changed since)"
            );
            applied
        }
        Err(errors) => {
            tracing::warn!(%errors, "the last applied policy is not valid any more; the policy file is used instead");
            file
        }
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

fn sizes(contents: &ListContents) -> BTreeMap<String, u64> {
    contents
        .iter()
        .map(|(name, content)| (name.clone(), content.len() as u64))
        .collect()
}

/// Times are told in whole seconds.
pub(super) fn whole_second(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}
