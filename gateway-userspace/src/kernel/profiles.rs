//! What the packet path counts of each service's traffic: making room for it, and reading it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use gateway_core::{
    image::{Control, Epoch, SUBJECTS, Subject, half, subject_flags},
    profile::{
        PAGE_DISTINCT, PAGE_SERVICES, PROFILE_MARKS, PROFILE_WORDS, REGISTERS, SIZE_COUNTS, TIME_COUNTS,
        TIMES_WORDS, TTL_COUNTS,
    },
};

use crate::compile::DEFAULT;

use super::{
    Dataplane, DistinctSources, KernelError, ServiceProfile, nested, pins, pins::io_error, sys::Map,
};

/// What was read last: only services that changed since are read again.
#[derive(Debug, Default)]
pub(super) struct Reading {
    known: BTreeMap<u32, Arc<ServiceProfile>>,
    /// The epoch that the last reading of profiles ended. At 0 all are read the next time: then nothing was read yet, or it was the first epoch of the
    /// maps, whose marks are those of services that were never touched.
    profiles: u64,
    /// The same of different sources.
    distinct: u64,
    /// The pages that were opened, by what their pins are called and their numbers. A page is made once and stays.
    pages: HashMap<(&'static str, u32), Arc<Map>>,
}

impl Reading {
    /// Lets go of pages that nobody counts in any more.
    pub(super) fn let_go(&mut self) {
        self.pages = HashMap::new();
    }
}

/// From so many services of a page on that changed, the whole page is read at once.
const WHOLE_PAGE: usize = 4;

/// A kind of pages.
struct Pages {
    /// The map of them.
    outer: &'static str,
    /// What their pins are called.
    pin: &'static str,
    services: u32,
    shape: fn() -> super::sys::Shape,
}

const PROFILES: Pages = Pages {
    outer: "PROFILES",
    pin: "profiles",
    services: PAGE_SERVICES,
    shape: nested::profiles,
};
const TIMES: Pages = Pages {
    outer: "TIMES",
    pin: "times",
    services: PAGE_SERVICES,
    shape: nested::times,
};
const DISTINCT: Pages = Pages {
    outer: "DISTINCT",
    pin: "distinct",
    services: PAGE_DISTINCT,
    shape: nested::distinct,
};

fn failed(source: std::io::Error) -> KernelError {
    io_error("cannot read the profiles of services".into(), source)
}

impl Dataplane {
    /// Makes the pages that the services of a policy need, and clears what services `before` it left under numbers that are new
    /// ones' now.
    pub(super) fn make_profiles(&mut self, subjects: &[Subject], before: &[u32]) -> Result<(), KernelError> {
        let made = |source| io_error("cannot make room for profiles of services".into(), source);
        let numbers: Vec<u32> = self.profiled().map(|(_, number)| number).collect();
        for number in numbers {
            let Some(subject) = subjects.get(number as usize) else {
                continue;
            };
            for (pages, flag) in [
                (&PROFILES, subject_flags::PROFILE),
                (&DISTINCT, subject_flags::PROFILE),
                (&TIMES, subject_flags::TIME),
            ] {
                if subject.flags & flag != 0 {
                    self.make_page(pages, number).map_err(made)?;
                }
            }
            if number != 0 && !before.contains(&number) {
                self.clear_profile(number).map_err(made)?;
            } else if subject.flags & subject_flags::PROFILE == 0 {
                self.reading.borrow_mut().known.remove(&number);
            }
        }
        Ok(())
    }

    /// Whoever may have a profile, by name and number: the services, and the traffic to none.
    fn profiled(&self) -> impl Iterator<Item = (&str, u32)> {
        self.state.registry.services().chain([(DEFAULT, 0)])
    }

    fn make_page(&self, pages: &Pages, service: u32) -> std::io::Result<()> {
        let number = service / pages.services;
        let path = pins::pages(&self.set, pages.pin, number);
        if path.exists() {
            return Ok(());
        }
        let map = Map::create("weir_profiles", &(pages.shape)())?;
        self.map(pages.outer).set(&number, &map.number())?;
        map.pin(&path)
    }

    /// The page of a service, if there is one.
    fn page_of(&self, pages: &Pages, service: u32) -> std::io::Result<Option<Arc<Map>>> {
        let number = service / pages.services;
        let open = &mut self.reading.borrow_mut().pages;
        if let Some(page) = open.get(&(pages.pin, number)) {
            return Ok(Some(Arc::clone(page)));
        }
        let path = pins::pages(&self.set, pages.pin, number);
        if !path.exists() {
            return Ok(None);
        }
        let page = Arc::new(Map::open(&path)?);
        open.insert((pages.pin, number), Arc::clone(&page));
        Ok(Some(page))
    }

    fn clear_profile(&self, service: u32) -> std::io::Result<()> {
        // Before the counts: a CPU whose counts are cleared marks the service anew, and one whose are not does not.
        self.map("TOUCHED").set(&service, &0u64)?;
        if let Some(page) = self.page_of(&PROFILES, service)? {
            page.clear_per_cpu::<[u64; PROFILE_WORDS]>(service % PAGE_SERVICES, self.cpus)?;
        }
        if let Some(page) = self.page_of(&TIMES, service)? {
            page.clear_per_cpu::<[u64; TIMES_WORDS]>(service % PAGE_SERVICES, self.cpus)?;
        }
        if let Some(page) = self.page_of(&DISTINCT, service)? {
            for set in 0..2 {
                page.set(&(service % PAGE_DISTINCT * 2 + set), &[0u64; REGISTERS / 8])?;
            }
        }
        self.reading.borrow_mut().known.remove(&service);
        Ok(())
    }

    /// The services that were touched in `epoch` or later, by number.
    fn touched_since(&self, epoch: u64) -> Result<Vec<u32>, KernelError> {
        let mut numbers: Vec<u32> = self.profiled().map(|(_, number)| number).collect();
        numbers.sort_unstable();
        let Some(last) = numbers.last().copied().filter(|_| epoch != 0) else {
            return Ok(numbers);
        };
        let mut touched = vec![false; last as usize + 1];
        self.map("TOUCHED")
            .read_first::<u64>(last + 1, 1, |at, mark| {
                if let Some(touched) = touched.get_mut(at as usize) {
                    *touched = mark[0] >= epoch;
                }
            })
            .map_err(failed)?;
        numbers.retain(|number| touched.get(*number as usize).copied().unwrap_or(false));
        Ok(numbers)
    }

    /// Begins an epoch of marks, with the other set of registers where these are read; what is over.
    fn next_epoch(&self, other_set: bool) -> Result<Epoch, KernelError> {
        let over = Epoch::from_word(self.control(Control::Epoch)?);
        self.set_control(Control::Epoch, over.next(other_set).word())?;
        Ok(over)
    }

    /// The flags of a service in generation `active`.
    fn flags_of(&self, active: u32, service: u32) -> Result<u32, KernelError> {
        let written = self.written.subject_flags.get(active as usize);
        if let Some(flags) = written.and_then(|written| written.get(service as usize)) {
            return Ok(*flags);
        }
        // Another controller wrote it.
        let subject: Option<Subject> = self
            .map("SUBJECT_TABLE")
            .get(&half(active, SUBJECTS, service))
            .map_err(failed)?;
        Ok(subject.map_or(0, |subject| subject.flags))
    }

    /// The profiles of the services that have one, as they count since the maps were made. Only those that changed since the
    /// last call are read; the others are the same as they were then.
    pub fn profiles(&self) -> Result<Vec<Arc<ServiceProfile>>, KernelError> {
        let since = self.reading.borrow().profiles;
        let over = self.next_epoch(false)?;
        let active = self.active()?.in_force(Self::now_ns());
        let mut wanted = Vec::new();
        for number in self.touched_since(since)? {
            let flags = self.flags_of(active, number)?;
            if flags & subject_flags::PROFILE == 0 {
                self.reading.borrow_mut().known.remove(&number);
            } else {
                wanted.push((number, flags));
            }
        }
        for page in wanted.chunk_by(|(a, _), (b, _)| a / PAGE_SERVICES == b / PAGE_SERVICES) {
            self.read_page(page)?;
        }
        let mut reading = self.reading.borrow_mut();
        // A packet that had read the epoch before may have left its mark only now.
        reading.profiles = over.number();
        let known = |(name, number): (&str, u32)| {
            let profile = reading.known.get(&number)?;
            // A number that became another service's without a packet since.
            (profile.service == name).then(|| Arc::clone(profile))
        };
        Ok(self.profiled().filter_map(known).collect())
    }

    /// The same of some services, read now, without their times. Services that [`Self::profiles`] has not told of are left
    /// out.
    pub fn profiles_of(&self, services: &[Arc<str>]) -> Result<Vec<Arc<ServiceProfile>>, KernelError> {
        let mut found = Vec::with_capacity(services.len());
        for name in services {
            let number = match &**name {
                DEFAULT => Some(0),
                name => self.state.registry.service(name),
            };
            let known = |number: &u32| self.reading.borrow().known.contains_key(number);
            let Some(number) = number.filter(known) else {
                continue;
            };
            let Some(page) = self.page_of(&PROFILES, number).map_err(failed)? else {
                continue;
            };
            let counts = summed::<PROFILE_WORDS>(&page, number % PAGE_SERVICES, self.cpus)?;
            found.push(Arc::new(ServiceProfile {
                service: name.as_ref().to_owned(),
                ..read(&counts)
            }));
        }
        Ok(found)
    }

    /// Reads services of one page, by number and flags.
    fn read_page(&self, wanted: &[(u32, u32)]) -> Result<(), KernelError> {
        let Some((first, _)) = wanted.first() else {
            return Ok(());
        };
        let Some(page) = self.page_of(&PROFILES, *first).map_err(failed)? else {
            return Ok(());
        };
        let mut counts: Vec<(u32, [u64; PROFILE_WORDS])> = Vec::with_capacity(wanted.len());
        if wanted.len() < WHOLE_PAGE {
            for (number, _) in wanted {
                let at = number % PAGE_SERVICES;
                counts.push((at, summed::<PROFILE_WORDS>(&page, at, self.cpus)?));
            }
        } else {
            let is_wanted = |at: u32| wanted.iter().any(|(number, _)| number % PAGE_SERVICES == at);
            page.read_array::<[u64; PROFILE_WORDS]>(self.cpus, |at, values| {
                if is_wanted(at) {
                    counts.push((at, sum(values)));
                }
            })
            .map_err(failed)?;
        }
        for (number, flags) in wanted {
            let at = number % PAGE_SERVICES;
            let Some((_, counts)) = counts.iter().find(|(of, _)| *of == at) else {
                continue;
            };
            let mut profile = read(counts);
            if flags & subject_flags::TIME != 0
                && let Some(page) = self.page_of(&TIMES, *number).map_err(failed)?
            {
                let times = summed::<TIMES_WORDS>(&page, at, self.cpus)?;
                read_times(&times, &mut profile);
            }
            profile.service = match number {
                0 => DEFAULT.to_owned(),
                number => self.service_name(*number).unwrap_or_default(),
            };
            self.reading.borrow_mut().known.insert(*number, Arc::new(profile));
        }
        Ok(())
    }

    /// The sources that each service saw since this was called last; services that saw none are left out.
    pub fn take_distinct(&mut self) -> Result<Vec<DistinctSources>, KernelError> {
        // A packet that has read the word before may still raise a register after it was read: then its source counts in the
        // interval after the next.
        let over = self.next_epoch(true)?;
        let since = self.reading.borrow().distinct;
        let mut found = Vec::new();
        for number in self.touched_since(since)? {
            let Some(page) = self.page_of(&DISTINCT, number).map_err(failed)? else {
                continue;
            };
            let at = number % PAGE_DISTINCT * 2 + over.set();
            let registers: [u8; REGISTERS] = page.get(&at).map_err(failed)?.unwrap_or([0; REGISTERS]);
            if registers.iter().all(|register| *register == 0) {
                continue;
            }
            page.set(&at, &[0u8; REGISTERS]).map_err(failed)?;
            found.push(DistinctSources {
                service: self.service_name(number).unwrap_or_else(|| DEFAULT.to_owned()),
                registers: registers.to_vec(),
            });
        }
        self.reading.borrow_mut().distinct = over.number();
        Ok(found)
    }
}

/// An element of a page, summed over the CPUs.
fn summed<const N: usize>(page: &Map, at: u32, cpus: usize) -> Result<[u64; N], KernelError> {
    let values = page.get_per_cpu::<[u64; N]>(at, cpus).map_err(failed)?;
    Ok(sum(&values))
}

/// The values of all CPUs together.
fn sum<const N: usize>(values: &[[u64; N]]) -> [u64; N] {
    values.iter().fold([0; N], |mut sum, value| {
        for (sum, value) in sum.iter_mut().zip(value) {
            *sum = sum.wrapping_add(*value);
        }
        sum
    })
}

/// The words of a [`gateway_core::profile::Profile`], in the order of its fields.
fn read(words: &[u64; PROFILE_WORDS]) -> ServiceProfile {
    let (sizes, others) = words[PROFILE_MARKS..].split_at(SIZE_COUNTS);
    let (ttls, others) = others.split_at(TTL_COUNTS);
    let [syn, syn_ack, first_ack, fin, rst, udp, reflected, fragments] = others else {
        return ServiceProfile::default();
    };
    ServiceProfile {
        sizes: sizes.to_vec(),
        ttls: ttls.to_vec(),
        syn: *syn,
        syn_ack: *syn_ack,
        first_ack: *first_ack,
        fin: *fin,
        rst: *rst,
        udp: *udp,
        reflected: *reflected,
        fragments: *fragments,
        ..ServiceProfile::default()
    }
}

/// The words of [`gateway_core::profile::Times`].
fn read_times(words: &[u64; TIMES_WORDS], profile: &mut ServiceProfile) {
    let (handshake, rest) = words.split_at(TIME_COUNTS);
    let (first_byte, rest) = rest.split_at(TIME_COUNTS);
    if let [handshake_ns, first_byte_ns] = rest {
        profile.handshake = handshake.to_vec();
        profile.first_byte = first_byte.to_vec();
        profile.handshake_ns = *handshake_ns;
        profile.first_byte_ns = *first_byte_ns;
    }
}
