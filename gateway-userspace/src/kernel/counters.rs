//! Reading what the packet path counted.

use gateway_core::{
    bucket::{cell, spec::Spec},
    filter::Filters,
    image::{AddressGroup, Generation, PAGE_SERIES, PAGES, ProtectRule, Subject},
    judge::Event,
    lease::Lease,
    line::{WORDS, rested_ns},
    verdict::{Reason, Verdict},
};

use super::{Counter, Dataplane, KernelError, Losses, SourceSlots, nested, pins, pins::io_error, sys::Map};

/// What values the maps of this build have, in bytes; maps of maps and tries of plain words are left out.
pub(super) fn expected_values() -> [(&'static str, usize); 11] {
    [
        ("GENERATIONS", size_of::<Generation>()),
        ("SUBJECT_TABLE", size_of::<Subject>()),
        ("PORT_CLASSES", 8),
        ("ADDRESS_GROUP", size_of::<AddressGroup>()),
        ("PROTECT", size_of::<ProtectRule>()),
        ("FILTERS", size_of::<Filters>()),
        ("SOURCES", 8 * WORDS),
        ("SHARED", 64),
        ("LEASES", size_of::<Lease>()),
        ("VERSIONS", 4 * size_of::<Spec>()),
        ("EVENTS_SEEN", 8),
    ]
}

/// How many pages are needed for a number of series.
fn pages(series: u32) -> u32 {
    series.div_ceil(PAGE_SERIES).clamp(1, PAGES)
}

impl Dataplane {
    /// Makes the counter pages that the registered series need, for every registered interface.
    pub(super) fn make_pages(&self) -> Result<(), KernelError> {
        let shape = nested::page();
        for interface in 0..self.state.registry.interfaces.len() as u32 {
            for page in 0..pages(self.state.registry.series_end()) {
                let path = pins::page(&self.set, interface, page);
                if path.exists() {
                    continue;
                }
                let failed = |source| io_error("cannot make a page of counters".into(), source);
                let map = Map::create("weir_counters", &shape).map_err(failed)?;
                self.map("COUNTERS")
                    .set(&(interface * PAGES + page), &map.number())
                    .map_err(failed)?;
                map.pin(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Zeroes series on every interface.
    pub(super) fn clear_series(&self, numbers: &[u32]) -> Result<(), KernelError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let failed = |source| io_error("cannot clear counters".into(), source);
        for interface in 0..self.state.registry.interfaces.len() as u32 {
            for page in 0..pages(self.state.registry.series_end()) {
                let path = pins::page(&self.set, interface, page);
                if !path.exists() {
                    continue;
                }
                let map = Map::open(&path).map_err(failed)?;
                for number in numbers.iter().filter(|number| **number / PAGE_SERIES == page) {
                    map.clear_per_cpu::<[u64; 2]>(number % PAGE_SERIES, self.cpus)
                        .map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// The packet counters.
    pub fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        let registry = &self.state.registry;
        let mut owners: Vec<Option<usize>> = vec![None; registry.series_end() as usize + 2];
        for (at, record) in registry.series().iter().enumerate() {
            for number in record.number..record.number + record.width() {
                owners[number as usize] = Some(at);
            }
        }
        let mut found = Vec::new();
        for (number, interface) in registry.interfaces.iter().enumerate() {
            for page in 0..pages(registry.series_end()) {
                let path = pins::page(&self.set, number as u32, page);
                if !path.exists() {
                    continue;
                }
                let failed = |source| io_error("cannot read the counters".into(), source);
                let map = Map::open(&path).map_err(failed)?;
                map.read_array::<[u64; 2]>(self.cpus, |at, values| {
                    let (packets, bytes) = values.iter().fold((0u64, 0u64), |(packets, bytes), value| {
                        (packets + value[0], bytes + value[1])
                    });
                    let series = (page * PAGE_SERIES + at) as usize;
                    let Some(record) = owners
                        .get(series)
                        .copied()
                        .flatten()
                        .map(|at| &registry.series()[at])
                    else {
                        return;
                    };
                    let Some(reason) = Reason::ALL.get(usize::from(record.reason)) else {
                        return;
                    };
                    if packets == 0 {
                        return;
                    }
                    let verdict = match (reason.drops(), series as u32 == record.number) {
                        (false, _) => Verdict::Pass,
                        (true, true) => Verdict::Drop,
                        (true, false) => Verdict::WouldDrop,
                    };
                    found.push(Counter {
                        interface: interface.clone(),
                        service: record.service.clone(),
                        class: record.class.clone(),
                        verdict: verdict.name(),
                        reason: reason.name(),
                        packets,
                        bytes,
                    });
                })
                .map_err(failed)?;
            }
        }
        found.sort();
        Ok(found)
    }

    /// What was lost or overflowed.
    pub fn losses(&self) -> Result<Losses, KernelError> {
        let read = |event: Event| -> Result<u64, KernelError> {
            let values = self
                .map("EVENTS_SEEN")
                .get_per_cpu::<u64>(event as u32, self.cpus);
            Ok(values
                .map_err(|source| io_error("cannot read the event counts".into(), source))?
                .iter()
                .sum())
        };
        Ok(Losses {
            overflow: read(Event::Overflow)?,
            lost_race: read(Event::LostRace)?,
            uncounted: read(Event::Uncounted)?,
            notice: read(Event::Unnoticed)?,
            sampled: read(Event::Sampled)?,
            sample: read(Event::Unsampled)?,
            sample_suppressed: read(Event::Suppressed)?,
        })
    }

    /// How full the source table is (reads the whole table: 10 ms for a million slots; cache it).
    pub fn source_slots(&self) -> Result<SourceSlots, KernelError> {
        let now_ns = Self::now_ns();
        let mut slots = SourceSlots::default();
        self.map("SOURCES")
            .read_array::<[u64; WORDS]>(1, |_, line| {
                let rested_ns = rested_ns(line[0][0], now_ns);
                for held in &line[0][1..] {
                    if cell::used(*held, now_ns, rested_ns) == cell::Use::Free {
                        slots.free += 1;
                    } else {
                        slots.in_debt += 1;
                    }
                }
            })
            .map_err(|source| io_error("cannot read the source table".into(), source))?;
        Ok(slots)
    }
}
