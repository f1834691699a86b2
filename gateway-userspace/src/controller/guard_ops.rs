//! Lock-outs: changes that would cut off who is guarded are refused, or at least told.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{engine::Engine, prepare::Prepared};
use crate::{
    api::{
        error::Failure,
        peer::Peer,
        types::{PolicyApplied, code},
    },
    bans::Scope,
    compile::CompileError,
    events::{Entry, Kind},
    guard::{Cut, Guarded, Session, cut},
    kernel::ListContents,
    policy::model::Policy,
};

/// The most lock-outs that one answer spells out.
const TOLD: usize = 20;

impl Engine {
    /// Refuses bans that would cut somebody off, unless `force`; then it warns, and tells an event.
    pub(super) fn guard_bans(
        &mut self,
        bans: &[(IpNet, Scope)],
        force: bool,
        peer: Option<Peer>,
    ) -> Result<Vec<String>, Failure> {
        let concerned = |address: &IpAddr| bans.iter().any(|(prefix, _)| prefix.contains(address));
        let who = self.guarded(peer, concerned);
        if who
            .iter()
            .all(|guarded| matches!(guarded, Guarded::Local(_)) && !concerned(&guarded.address()))
        {
            return Ok(Vec::new());
        }
        let contents = self.lists.contents(&self.in_force.prepared.base);
        let mut after = self.living_bans();
        let before = after.clone();
        after.extend(bans.iter().cloned());
        let policy = &self.in_force.prepared.policy;
        let cuts = newly(
            (policy, &contents, &before),
            (policy, &contents, &after),
            &who,
            concerned,
        )?;
        self.judge_cuts("this ban", &cuts, force, peer)
    }

    /// Refuses other contents of a list that would cut somebody off, unless `force`.
    pub(super) fn guard_list(
        &mut self,
        name: &str,
        after: &ListContents,
        force: bool,
        peer: Option<Peer>,
    ) -> Result<Vec<String>, Failure> {
        let who = self.guarded(peer, |_| true);
        let before = self.lists.contents(&self.in_force.prepared.base);
        let bans = self.living_bans();
        let policy = &self.in_force.prepared.policy;
        let cuts = newly((policy, &before, &bans), (policy, after, &bans), &who, |_| true)?;
        self.judge_cuts(&format!("this change of list {name}"), &cuts, force, peer)
    }

    /// Refuses a policy that would cut somebody off, unless `force`.
    pub(super) fn guard_policy(
        &mut self,
        prepared: &Prepared,
        force: bool,
        peer: Option<Peer>,
    ) -> Result<Vec<String>, Failure> {
        let who = self.guarded(peer, |_| true);
        let (now, then) = (&self.in_force.prepared, prepared);
        let (before, after) = (self.lists.contents(&now.base), self.lists.contents(&then.base));
        let bans = self.living_bans();
        let cuts = newly(
            (&now.policy, &before, &bans),
            (&then.policy, &after, &bans),
            &who,
            |_| true,
        )?;
        self.judge_cuts("this policy", &cuts, force, peer)
    }

    /// Puts a policy in force, for good or until it is confirmed `within` so many seconds, unless it would cut somebody off;
    /// with `force` it warns.
    pub fn apply_guarded(
        &mut self,
        prepared: Prepared,
        within: Option<u64>,
        force: bool,
        peer: Option<Peer>,
    ) -> Result<PolicyApplied, Failure> {
        let warnings = self.guard_policy(&prepared, force, peer)?;
        let mut applied = match within {
            None => self.apply(prepared, peer)?,
            Some(seconds) => self.apply_within(prepared, seconds, peer)?,
        };
        applied.warnings.extend(warnings);
        Ok(applied)
    }

    /// Warns of everybody whom the policy in force cuts off, after a start.
    pub fn warn_of_lock_outs(&mut self) {
        let who = self.guarded(None, |_| true);
        let contents = self.lists.contents(&self.in_force.prepared.base);
        let cuts = cut(
            &self.in_force.prepared.policy,
            &contents,
            &self.living_bans(),
            &who,
        );
        let told = cuts
            .map_err(Failure::from)
            .and_then(|cuts| self.judge_cuts("what is in force", &cuts, true, None));
        if let Err(error) = told {
            tracing::warn!(%error, "cannot tell whether the policy locks anybody out");
        }
    }

    /// The caller's session and all others who are guarded: those of a kind that `concerned` concerns, and this host's
    /// addresses, which are also where the others' packets go.
    fn guarded(&mut self, peer: Option<Peer>, concerned: impl Fn(&IpAddr) -> bool) -> Vec<Guarded> {
        let own: Option<Session> = peer.and_then(|peer| peer.session);
        let mut who: Vec<Guarded> = own.map(Guarded::Own).into_iter().collect();
        let others = self.neighbours.look().into_iter().filter(|other| match other {
            Guarded::Other(session) => Some(*session) != own,
            _ => true,
        });
        who.extend(others);
        who.retain(|guarded| matches!(guarded, Guarded::Local(_)) || concerned(&guarded.address()));
        who
    }

    /// The bans in force, every one with its scope.
    fn living_bans(&self) -> Vec<(IpNet, Scope)> {
        let now = self.clock.now();
        let living = self.bans.iter().filter(|(_, _, record)| record.until_ns > now.ns);
        living
            .map(|(prefix, scope, _)| (*prefix, scope.clone()))
            .collect()
    }

    fn judge_cuts(
        &mut self,
        what: &str,
        cuts: &[Cut],
        force: bool,
        peer: Option<Peer>,
    ) -> Result<Vec<String>, Failure> {
        let mut told: Vec<(IpAddr, String)> = Vec::new();
        for cut in cuts {
            let address = cut.who.address();
            // The caller's own session stands first; one sentence an address is enough.
            if told.len() < TOLD && told.iter().all(|(other, _)| *other != address) {
                told.push((address, sentence(what, cut)));
            }
        }
        let sentences: Vec<String> = told.iter().map(|(_, sentence)| sentence.clone()).collect();
        match sentences.first() {
            None => Ok(Vec::new()),
            Some(first) if !force => {
                let way_out = "insist with --force, or let a [[protect]] rule of the policy name it";
                let failure = Failure::new(code::REFUSED, format!("{first}; {way_out}"));
                Err(if sentences.len() > 1 {
                    failure.details(sentences)
                } else {
                    failure
                })
            }
            Some(_) => {
                for (address, sentence) in told {
                    tracing::warn!(%address, "{sentence}");
                    let mut entry = Entry::new(Kind::LockOut, sentence).by(peer);
                    entry.address = Some(address);
                    self.events.record(self.clock.now(), entry);
                }
                Ok(sentences)
            }
        }
    }
}

fn sentence(what: &str, cut: &Cut) -> String {
    let (address, role, reason) = (cut.who.address(), cut.who.role(), cut.reason.name());
    if cut.later {
        let port = match cut.who {
            Guarded::Own(session) | Guarded::Other(session) => session.local.port(),
            _ => 0,
        };
        format!("{what} would let {address}, {role}, not connect to port {port} again (reason {reason})")
    } else {
        format!("{what} would cut off {address}, {role} (reason {reason})")
    }
}

type Situation<'a> = (&'a Policy, &'a ListContents, &'a [(IpNet, Scope)]);

/// Those who pass now and would be cut off then.
fn newly(
    now: Situation<'_>,
    then: Situation<'_>,
    who: &[Guarded],
    concerned: impl Fn(&IpAddr) -> bool,
) -> Result<Vec<Cut>, CompileError> {
    let mut cuts = cut(then.0, then.1, then.2, who)?;
    cuts.retain(|cut| concerned(&cut.who.address()));
    if !cuts.is_empty() {
        let already = cut(now.0, now.1, now.2, who)?;
        cuts.retain(|cut| {
            // A session that could only not come back is worse off when it is cut.
            !already
                .iter()
                .any(|old| old.who == cut.who && (cut.later || !old.later))
        });
    }
    Ok(cuts)
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        crate::kernel::KernelError::from(error).into()
    }
}
