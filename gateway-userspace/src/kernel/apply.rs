//! Putting a policy in force: fill what is not in force, then switch with one write.
//!
//! Arrays have two halves and are written where no packet looks; tries and hash tables are made anew and put into a free
//! slot of a map in maps. Putting one there waits until every packet that runs has finished (`synchronize_rcu`, kernel
//! 5.0 on), which is also what makes the other half safe to write: the packets that read it began before
//! the last switch. The waits of several tables run side by side, so an apply waits once.

use std::{fs, thread, time::Instant};

use gateway_core::image::{
    ADDRESS_GROUPS, Active, Control, DestinationEntry, Generation, ListEntry, PORT_CELLS, PROTECT_RULES,
    SLOTS, SUBJECTS, flags, half,
};
use ipnet::IpNet;

use super::{
    Applied, Dataplane, KernelError, Lever, ListContents,
    filters::Filter,
    nested,
    pending::Waiting,
    pins::{self, io_error},
    sys::{Map, Plain},
};
use crate::{
    compile::{CompileError, Image, compile, ports::CLASS_WORDS, prefix, registry::Registry},
    policy::{self, model::Policy},
};

/// What each half of the arrays that seldom change holds.
#[derive(Debug, Default)]
pub(super) struct Written {
    port_classes: [Vec<u64>; 2],
    source_ports: [Vec<u64>; 2],
    port_table: [Vec<u64>; 2],
    /// The flags of the subjects.
    pub(super) subject_flags: [Vec<u32>; 2],
}

impl From<CompileError> for KernelError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::NoService(name) => Self::NoService { name },
            other => Self::TooLarge {
                what: other.to_string(),
            },
        }
    }
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> KernelError {
    move |source| match source.raw_os_error() {
        Some(libc::ENOMEM) => KernelError::TooLarge {
            what: format!("the kernel has no memory for {what}"),
        },
        _ => io_error(format!("cannot write {what}"), source),
    }
}

impl Dataplane {
    /// Compiles `policy` and puts it in force for every attached interface in one switch. On any error what was in
    /// force stays in force. Call it before the first [`Self::attach`].
    /// `text` is the policy file's text; it is kept beside the maps, so that levers work without a controller.
    ///
    /// # Errors
    /// `Pending` while a policy waits for confirmation.
    pub fn apply(
        &mut self,
        policy: &Policy,
        text: &str,
        lists: &ListContents,
        levers: &[Lever],
    ) -> Result<Applied, KernelError> {
        self.apply_until(policy, text, lists, levers, None)
    }

    /// As [`Self::apply`]; with `until_ns` the policy waits for [`Self::confirm`]: at that time of the kernel's clock the kernel goes back to the
    /// policy before it, whether anybody lives to see it or not.
    ///
    /// # Errors
    /// `Pending` while another policy waits.
    pub fn apply_until(
        &mut self,
        policy: &Policy,
        text: &str,
        lists: &ListContents,
        levers: &[Lever],
        until_ns: Option<u64>,
    ) -> Result<Applied, KernelError> {
        self.none_waits()?;
        if until_ns.is_some() && !self.ready {
            return Err(KernelError::Other(
                "no policy is in force to go back to; apply the first one without a time".into(),
            ));
        }
        if super::lines_of(&policy.source) != self.constants.lines {
            return Err(KernelError::Other(format!(
                "source.max_tracked is allocated once, now for about {} slots; to change it, restart weir with the new policy \
                 (its buckets then start full)",
                u64::from(self.constants.lines) * 7
            )));
        }
        self.switch(policy, text, Some(lists), levers, until_ns)
    }

    /// Changes the levers only; the policy, the lists and the state of every bucket stay.
    ///
    /// # Errors
    /// `Pending` while a policy waits for confirmation.
    pub fn set_levers(&mut self, levers: &[Lever]) -> Result<(), KernelError> {
        self.none_waits()?;
        let Some(text) = self.state.text.clone() else {
            return Err(KernelError::Other(
                "no policy is in force, so there is nothing to pull a lever on".into(),
            ));
        };
        let policy = pinned(&text)?;
        for lever in levers {
            if let Lever::Scale { service, .. }
            | Lever::Bypass {
                service: Some(service),
                ..
            } = lever
                && self.state.registry.service(service).is_none()
            {
                return Err(KernelError::NoService {
                    name: service.clone(),
                });
            }
        }
        self.switch(&policy, &text, None, levers, None).map(drop)
    }

    /// Compiles and switches. Without `lists`, those in force stay.
    fn switch(
        &mut self,
        policy: &Policy,
        text: &str,
        lists: Option<&ListContents>,
        levers: &[Lever],
        until_ns: Option<u64>,
    ) -> Result<Applied, KernelError> {
        self.still_there()?;
        let begun = Instant::now();
        let now_ns = Self::now_ns();
        // Nothing waits here, so it is in force for good.
        let active = self.active()?.in_force(now_ns);
        let before: Generation = self
            .map("GENERATIONS")
            .get(&active)
            .map_err(failed("the generations"))?
            .unwrap_or_default();

        // Compile on copies: nothing of ours changes until the kernel has everything.
        let mut next = self.state.clone();
        let usage = next.registry.usage();
        let empty = ListContents::new();
        let mut image = compile(
            policy,
            lists.unwrap_or(&empty),
            levers,
            &mut next.registry,
            now_ns,
        )?;
        if lists.is_none() {
            // A lever is pulled in an emergency and waits for no program: it uses nothing that its policy does not.
            image.generation.uses = before.uses;
        }
        // Programs that carry what this policy needs come before it.
        let carried = if self.ready { self.needed()? } else { 0 };
        let needed = image.generation.uses | super::fit::clock();
        if needed & !carried != 0 {
            self.fit(carried | needed)?;
        }
        // While it waits, what the policy before it uses stays.
        let mut cleared = Vec::new();
        if until_ns.is_some() {
            image.gone.clear();
            next.waiting = Some(Waiting {
                generation: 1 - active,
                text: text.to_owned(),
                levers: levers.to_vec(),
                before: usage,
            });
        } else {
            cleared = retire_of(&mut next.registry, policy);
            next.text = Some(text.to_owned());
            next.levers = levers.to_vec();
        }
        let fresh = match until_ns {
            Some(until_ns) => Active::until(1 - active, until_ns),
            None => Active::for_good(1 - active),
        };

        // Numbers must be known to whoever comes after us before packets use them.
        let served: Vec<u32> = self.state.registry.services().map(|(_, number)| number).collect();
        let previous = std::mem::replace(&mut self.state, next);
        let result = self.install(&mut image, &before, fresh, lists.is_some(), &served);
        if let Err(error) = result {
            self.state = previous;
            let _ = self.state.write(&self.set);
            return Err(error);
        }
        // Only now: until the switch the old services' bans and counters were in use.
        let gone = std::mem::take(&mut image.gone);
        self.drop_bans_of(&gone)?;
        self.clear_series(&cleared)?;
        if let Err(error) = self.watch_handshakes(false) {
            if until_ns.is_some() {
                // Whoever asked is told that it failed, so it must not wait for anybody.
                self.revert()?;
            }
            return Err(error);
        }
        if until_ns.is_none() {
            self.slim(carried | needed);
        }
        super::trim();
        Ok(Applied {
            services: policy.services.len(),
            prefixes: image.lists.len(),
            took: begun.elapsed(),
        })
    }

    fn install(
        &mut self,
        image: &mut Image,
        before: &Generation,
        fresh: Active,
        lists: bool,
        served: &[u32],
    ) -> Result<(), KernelError> {
        self.state.write(&self.set)?;
        self.make_pages()?;
        self.make_profiles(&image.subjects, served)?;
        self.write_versions()?;

        let next_slot = |slot: u32| (slot + 1) % SLOTS;
        let mut tables: Vec<(&'static str, u32, Map)> = Vec::new();
        if lists {
            image.generation.lists_slot = next_slot(before.lists_slot);
            let (v4, v6) = tries("weir_lists", &image.lists)?;
            tables.push(("LISTS_V4", image.generation.lists_slot, v4));
            tables.push(("LISTS_V6", image.generation.lists_slot, v6));
        } else {
            image.generation.lists_slot = before.lists_slot;
            image.generation.flags |= before.flags & flags::LISTS;
        }
        image.generation.destinations_slot = next_slot(before.destinations_slot);
        let (v4, v6) = tries("weir_dests", &image.destinations)?;
        tables.push(("DESTS_V4", image.generation.destinations_slot, v4));
        tables.push(("DESTS_V6", image.generation.destinations_slot, v6));
        tables.push((
            "GROUP_TABLE",
            image.generation.destinations_slot,
            group_table(&image.group_table)?,
        ));
        self.put(&tables)?;
        if lists {
            // After that wait, too: the slot may have been that of a policy that waited and was taken back a moment ago.
            let filter = Filter::of(image.lists.iter().map(|(net, _)| net));
            self.write_filter(image.generation.lists_slot, &filter)?;
        }
        // Every packet that looked into the other half has finished: the waits above began after the last switch.
        self.write_half(image, fresh.generation())?;
        self.set_active(fresh)?;
        // The last step that can fail, and only the first time: a policy that waits is never left half known.
        if !self.ready {
            self.set_control(Control::Ready, 1)?;
            self.ready = true;
        }
        Ok(())
    }

    /// Puts inner maps into their slots, all at once, and pins them: a map in a map can be opened by its number only with
    /// `CAP_SYS_ADMIN`, by its path without.
    fn put(&self, tables: &[(&'static str, u32, Map)]) -> Result<(), KernelError> {
        for (outer, slot, inner) in tables {
            let path = pins::inner(&self.set, outer, *slot);
            let fresh = path.with_file_name("inner-new");
            let _ = fs::remove_file(&fresh);
            inner
                .pin(&fresh)
                .and_then(|()| fs::rename(&fresh, &path))
                .map_err(failed("the tries"))?;
        }
        thread::scope(|scope| {
            let put = |(outer, slot, inner): &(&'static str, u32, Map)| {
                let (outer, slot, number) = (self.map(outer), *slot, inner.number());
                thread::Builder::new()
                    .stack_size(64 * 1024)
                    .spawn_scoped(scope, move || outer.set(&slot, &number))
                    .map_err(failed("the tries"))
            };
            let threads: Vec<_> = tables.iter().map(put).collect::<Result<_, _>>()?;
            for thread in threads {
                match thread.join() {
                    Ok(result) => result.map_err(failed("the tries"))?,
                    Err(_) => {
                        return Err(KernelError::Other(
                            "a thread that writes tables ended badly".into(),
                        ));
                    }
                }
            }
            Ok(())
        })
    }

    /// Writes the half of every array that belongs to generation `fresh`.
    fn write_half(&mut self, image: &Image, fresh: u32) -> Result<(), KernelError> {
        let half_of = |size| half(fresh, size, 0);
        let at = fresh as usize;
        self.written.subject_flags[at].clear();
        self.map("SUBJECT_TABLE")
            .set_run(half_of(SUBJECTS), &image.subjects)
            .map_err(failed("the services"))?;
        self.written.subject_flags[at].extend(image.subjects.iter().map(|subject| subject.flags));
        self.map("ADDRESS_GROUP")
            .set_run(half_of(ADDRESS_GROUPS), &image.groups)
            .map_err(failed("the address groups"))?;
        self.map("VLANS")
            .set_run(half_of(64), &image.vlans)
            .map_err(failed("the VLANs"))?;
        self.map("PROTECT")
            .set_run(half_of(PROTECT_RULES), &image.protect)
            .map_err(failed("the protect rules"))?;
        let written = &mut self.written;
        for (name, first, fresh, held) in [
            (
                "PORT_CLASSES",
                half_of(CLASS_WORDS as u32),
                &image.port_classes,
                &mut written.port_classes[at],
            ),
            (
                "SOURCE_PORTS",
                half_of(CLASS_WORDS as u32),
                &image.source_ports,
                &mut written.source_ports[at],
            ),
            (
                "PORT_TABLE",
                half_of(PORT_CELLS / 4),
                &image.port_table,
                &mut written.port_table[at],
            ),
        ] {
            if fresh != held {
                held.clear();
                self.maps[name]
                    .set_run(first, fresh)
                    .map_err(failed("the port tables"))?;
                held.clone_from(fresh);
            }
        }
        self.map("GENERATIONS")
            .set(&fresh, &image.generation)
            .map_err(failed("the generations"))
    }

    fn write_versions(&self) -> Result<(), KernelError> {
        let (keys, values): (Vec<u32>, Vec<_>) = self.state.registry.versions().unzip();
        self.map("VERSIONS")
            .set_all(&keys, &values)
            .map_err(failed("the bucket versions"))
    }
}

/// Takes back the series of services and classes that a policy does not have; returns their numbers.
fn retire_of(registry: &mut Registry, policy: &Policy) -> Vec<u32> {
    let kept: std::collections::BTreeSet<(&str, &str)> = policy
        .services
        .iter()
        .flat_map(|service| {
            let classes = service
                .classes
                .iter()
                .map(|class| (service.name.as_str(), class.name.as_str()));
            std::iter::once((service.name.as_str(), "")).chain(classes)
        })
        .chain(std::iter::once((crate::compile::DEFAULT, "")))
        .collect();
    registry.retire_series(|record| kept.contains(&(record.service.as_str(), record.class.as_str())))
}

/// As [`retire_of`], by a pinned policy's text. One that this version cannot read keeps its series: they cost room, and a
/// start must not fail for them.
pub(super) fn retire_series(registry: &mut Registry, text: &str) -> Vec<u32> {
    pinned(text).map_or_else(|_| Vec::new(), |policy| retire_of(registry, &policy))
}

/// The policy of a pinned text.
fn pinned(text: &str) -> Result<Policy, KernelError> {
    policy::parse(text, std::path::Path::new("(policy in force)"))
        .map(|parsed| parsed.policy)
        .map_err(|errors| KernelError::Other(format!("the pinned policy cannot be read: {errors}")))
}

/// A table that a trie of this shape holds.
fn trie<K: Plain, V: Plain>(name: &str, keys: &[K], values: &[V]) -> Result<Map, KernelError> {
    let map = Map::create(name, &nested::trie::<K, V>(keys.len())).map_err(failed("a trie"))?;
    map.set_all(keys, values).map_err(failed("a trie"))?;
    Ok(map)
}

/// Two tries, IPv4 and IPv6, of prefixes with entries.
fn tries<V: Plain>(name: &str, entries: &[(IpNet, V)]) -> Result<(Map, Map), KernelError> {
    let (mut keys4, mut values4): (Vec<[u32; 2]>, Vec<V>) = (Vec::new(), Vec::new());
    let (mut keys6, mut values6): (Vec<[u32; 5]>, Vec<V>) = (Vec::new(), Vec::new());
    for (net, entry) in entries {
        let words = prefix::words(net.network());
        let length = u32::from(net.prefix_len());
        if net.addr().is_ipv4() {
            keys4.push([length, words[0]]);
            values4.push(*entry);
        } else {
            keys6.push([length, words[0], words[1], words[2], words[3]]);
            values6.push(*entry);
        }
    }
    Ok((trie(name, &keys4, &values4)?, trie(name, &keys6, &values6)?))
}

fn group_table(entries: &[(u64, u32)]) -> Result<Map, KernelError> {
    let map =
        Map::create("weir_groups", &nested::group_table(entries.len())).map_err(failed("the group table"))?;
    let (keys, values): (Vec<u64>, Vec<u32>) = entries.iter().copied().unzip();
    map.set_all(&keys, &values).map_err(failed("the group table"))?;
    Ok(map)
}

const _: () = assert!(size_of::<ListEntry>() == 20 && size_of::<DestinationEntry>() == 8);
