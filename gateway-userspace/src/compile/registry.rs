//! Who has which number in the kernel's tables, across policies and restarts of the controller.
//!
//! Buckets, services and counter series are known to people by name and to the packet path by number. A name keeps its
//! number as long as it is in the policy, so that what stays keeps its state; a bucket's number is given to another
//! only after the longest debt under it has drained, so that nobody inherits a debt. The registry is written beside the pinned
//! maps before a policy that uses it comes into force.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{
    bucket::spec::{Home, Kind, Spec, Unfit},
    image::{BUCKETS, PAGE_SERIES, PAGES, SUBJECTS},
    line::MOST_PATIENCE,
    verdict::Reason,
};
use serde::{Deserialize, Serialize};

use super::CompileError;
use crate::policy::model::Limit;

/// What a bucket or block belongs to.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct BucketName {
    /// The service.
    pub service: String,
    /// The class; empty for the service itself.
    pub class: String,
    /// 0 source, 1 network, 2 class, 3 total.
    pub tier: u8,
    /// 0 packets, 1 bytes, 2 connections, 3 a block.
    pub kind: u8,
}

/// A rate and burst that a bucket had.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Version {
    rate: u64,
    burst: u64,
    /// When the last debt under it has drained, on the kernel's clock; `None` while it may be in use.
    drained_ns: Option<u64>,
}

/// A bucket's number and its recent specs.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bucket {
    id: u32,
    versions: [Option<Version>; 4],
    /// Versions that the policy in force uses: the current one, and another while a lever scales it.
    in_use: Vec<u8>,
    /// When the last debt under any version has drained, once no policy uses the bucket; then the number is free. A
    /// service that comes back before finds its debts as they are.
    free_ns: Option<u64>,
}

/// The registry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Registry {
    /// Numbers of services, by name.
    services: BTreeMap<String, u32>,
    /// Services whose number is free from a time on (bans for them must go first).
    buckets: Vec<(BucketName, Bucket)>,
    #[serde(skip)]
    index: BTreeMap<BucketName, usize>,
    free_buckets: Vec<u32>,
    next_bucket: u32,
    /// Series: by service, class and reason.
    series: Vec<SeriesRecord>,
    #[serde(skip)]
    series_index: BTreeMap<(String, String, u8), u32>,
    /// Numbers of series that are gone: single ones, and the first of pairs.
    free_series: [Vec<u32>; 2],
    next_series: u32,
    /// Interfaces by the number of their counters.
    pub interfaces: Vec<String>,
}

/// A series and its number. A reason that drops has the next number as well, for `would_drop`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeriesRecord {
    /// The service.
    pub service: String,
    /// The class.
    pub class: String,
    /// The reason's number.
    pub reason: u8,
    /// The number of the series.
    pub number: u32,
}

/// What one policy uses of the numbers of a registry: enough to go back to that policy after another one was compiled.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    services: BTreeMap<String, u32>,
    /// Versions in use, by bucket number.
    versions: BTreeMap<u32, Vec<u8>>,
    /// Services and classes with counters.
    counted: BTreeSet<(String, String)>,
}

impl Usage {
    /// A service's number.
    pub fn service(&self, name: &str) -> Option<u32> {
        self.services.get(name).copied()
    }

    /// A service's name.
    pub fn service_name(&self, number: u32) -> Option<&str> {
        name_of(&self.services, number)
    }

    /// The numbers of the services that `registry` does not know.
    pub fn services_not_in(&self, registry: &Registry) -> Vec<u32> {
        not_in(&self.services, &registry.services)
    }
}

fn name_of(services: &BTreeMap<String, u32>, number: u32) -> Option<&str> {
    let mut services = services.iter();
    services
        .find(|(_, at)| **at == number)
        .map(|(name, _)| name.as_str())
}

fn not_in(services: &BTreeMap<String, u32>, others: &BTreeMap<String, u32>) -> Vec<u32> {
    let gone = services.iter().filter(|(name, _)| !others.contains_key(*name));
    gone.map(|(_, number)| *number).collect()
}

impl Registry {
    /// What the policy that was compiled last uses.
    pub fn usage(&self) -> Usage {
        let used = self
            .buckets
            .iter()
            .filter(|(_, bucket)| !bucket.in_use.is_empty());
        Usage {
            services: self.services.clone(),
            versions: used
                .map(|(_, bucket)| (bucket.id, bucket.in_use.clone()))
                .collect(),
            counted: self.series.iter().map(SeriesRecord::owner).collect(),
        }
    }

    /// Goes back to an earlier policy: its buckets and versions are in use again, those of the later one begin to drain.
    /// Returns the numbers of the services that only the later one had, and of the series of its services and classes, which
    /// must be zeroed before a later compilation gives them away. What counted for a service of both stays.
    pub fn back_to(&mut self, usage: &Usage, now_ns: u64) -> (Vec<u32>, Vec<u32>) {
        let gone = not_in(&self.services, &usage.services);
        self.services.clone_from(&usage.services);
        for (_, bucket) in &mut self.buckets {
            bucket.in_use = usage.versions.get(&bucket.id).cloned().unwrap_or_default();
        }
        self.finish(now_ns);
        let cleared = self.retire_series(|record| usage.counted.contains(&record.owner()));
        (gone, cleared)
    }

    /// Restores the look-up tables after reading a registry.
    pub fn reindex(&mut self) {
        self.index = self
            .buckets
            .iter()
            .enumerate()
            .map(|(at, (name, _))| (name.clone(), at))
            .collect();
        self.series_index = self
            .series
            .iter()
            .map(|record| {
                (
                    (record.service.clone(), record.class.clone(), record.reason),
                    record.number,
                )
            })
            .collect();
        self.next_bucket = self.next_bucket.max(1);
        // Number 0 means that there is no series.
        self.next_series = self.next_series.max(1);
    }

    /// Every series.
    pub fn series(&self) -> &[SeriesRecord] {
        &self.series
    }

    /// One more than the highest number of a series.
    pub fn series_end(&self) -> u32 {
        self.next_series
    }

    /// A service's number.
    pub fn service(&self, name: &str) -> Option<u32> {
        self.services.get(name).copied()
    }

    /// A service's name.
    pub fn service_name(&self, number: u32) -> Option<&str> {
        name_of(&self.services, number)
    }

    /// Every service's name and number.
    pub fn services(&self) -> impl Iterator<Item = (&str, u32)> {
        self.services
            .iter()
            .map(|(name, number)| (name.as_str(), *number))
    }

    /// Gives every service of a policy its number; returns the numbers that no service has any more, and the lowest
    /// number above all.
    pub fn assign_services(&mut self, names: &[&str]) -> Result<(Vec<u32>, u32), CompileError> {
        let wanted: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        let gone: Vec<u32> = self
            .services
            .iter()
            .filter(|(name, _)| !wanted.contains(name.as_str()))
            .map(|(_, at)| *at)
            .collect();
        self.services.retain(|name, _| wanted.contains(name.as_str()));
        let mut taken: std::collections::BTreeSet<u32> = self.services.values().copied().collect();
        // A number that has just become free may still be in the generation that is being replaced; it names a
        // service only through tables of its own generation, and its bans are deleted before the switch.
        taken.extend(&gone);
        let mut candidate = 1;
        for name in names {
            if self.services.contains_key(*name) {
                continue;
            }
            while taken.contains(&candidate) {
                candidate += 1;
            }
            taken.insert(candidate);
            self.services.insert((*name).to_owned(), candidate);
        }
        let end = self.services.values().max().map_or(1, |last| last + 1);
        if end > SUBJECTS {
            return Err(CompileError::TooMany {
                what: "services",
                most: SUBJECTS,
            });
        }
        Ok((gone, end))
    }

    /// Begins a compilation: numbers whose debts have drained are free, and no version is in use until it is asked for.
    pub fn begin(&mut self, now_ns: u64) {
        self.reclaim(now_ns);
        for (_, bucket) in &mut self.buckets {
            bucket.in_use.clear();
        }
    }

    /// The spec of a bucket with a limit: its number and version filled in.
    pub fn bucket(
        &mut self,
        name: &BucketName,
        home: Home,
        limit: Limit,
        now_ns: u64,
    ) -> Result<Spec, CompileError> {
        let kind = match name.kind {
            0 => Kind::Packets,
            1 => Kind::Bytes,
            _ => Kind::Connections,
        };
        let spec = Spec::new(kind, home, limit.rate, limit.burst).map_err(|Unfit| CompileError::Unfit {
            bucket: name.describe(),
            rate: limit.rate,
            burst: limit.burst,
        })?;
        let at = self.slot(name)?;
        let bucket = &mut self.buckets[at].1;
        let version = bucket.version(limit, now_ns);
        if !bucket.in_use.contains(&version) {
            bucket.in_use.push(version);
        }
        Ok(spec.of_bucket(bucket.id, version))
    }

    /// The number of a block.
    pub fn block(&mut self, name: &BucketName) -> Result<u32, CompileError> {
        let at = self.slot(name)?;
        let bucket = &mut self.buckets[at].1;
        bucket.in_use = vec![0];
        Ok(bucket.id)
    }

    fn slot(&mut self, name: &BucketName) -> Result<usize, CompileError> {
        if let Some(at) = self.index.get(name) {
            return Ok(*at);
        }
        let id = match self.free_buckets.pop() {
            Some(id) => id,
            None if self.next_bucket < BUCKETS => {
                self.next_bucket += 1;
                self.next_bucket - 1
            }
            None => {
                return Err(CompileError::TooMany {
                    what: "buckets",
                    most: BUCKETS - 1,
                });
            }
        };
        let at = self.buckets.len();
        self.buckets.push((
            name.clone(),
            Bucket {
                id,
                versions: [None; 4],
                in_use: Vec::new(),
                free_ns: None,
            },
        ));
        self.index.insert(name.clone(), at);
        Ok(at)
    }

    /// Ends a compilation: what nothing uses any more begins to drain.
    pub fn finish(&mut self, now_ns: u64) {
        /// The longest block, and a margin.
        const LONGEST_BLOCK_NS: u64 = 90_000 * 1_000_000_000;
        for (_, bucket) in &mut self.buckets {
            for (number, version) in bucket.versions.iter_mut().enumerate() {
                let used = bucket.in_use.contains(&(number as u8));
                if let Some(version) = version {
                    version.drained_ns = match (used, version.drained_ns) {
                        (true, _) => None,
                        (false, Some(at)) => Some(at),
                        (false, None) => Some(now_ns.saturating_add(version.drain_ns())),
                    };
                }
            }
        }
        for (name, bucket) in &mut self.buckets {
            if !bucket.in_use.is_empty() {
                bucket.free_ns = None;
            } else if bucket.free_ns.is_none() {
                let drains = bucket
                    .versions
                    .iter()
                    .flatten()
                    .filter_map(|version| version.drained_ns)
                    .max();
                let block = (name.kind == 3).then_some(now_ns.saturating_add(LONGEST_BLOCK_NS));
                bucket.free_ns = Some(drains.max(block).unwrap_or(now_ns));
            }
        }
        self.reindex();
    }

    /// Takes back the numbers of buckets that nothing uses and whose debts have drained.
    fn reclaim(&mut self, now_ns: u64) {
        let over =
            |bucket: &Bucket| bucket.in_use.is_empty() && bucket.free_ns.is_some_and(|at| at <= now_ns);
        if !self.buckets.iter().any(|(_, bucket)| over(bucket)) {
            return;
        }
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.buckets)
            .into_iter()
            .partition(|(_, bucket)| over(bucket));
        self.buckets = kept;
        self.free_buckets.extend(gone.iter().map(|(_, bucket)| bucket.id));
        self.reindex();
    }

    /// For how many ticks a line of the source table may wait to be tidied, whichever of these buckets have cells in it.
    pub fn patience(&self) -> u32 {
        let tagged: BTreeSet<u32> = self
            .buckets
            .iter()
            .filter(|(name, _)| name.tier < 2)
            .map(|(_, bucket)| bucket.id)
            .collect();
        self.versions()
            .filter(|(id, _)| tagged.contains(id))
            .flat_map(|(_, specs)| specs)
            .filter(Spec::exists)
            .map(|spec| spec.patience())
            .min()
            .unwrap_or(MOST_PATIENCE)
    }

    /// Every bucket's number and the specs of its versions, for the conversion of debts.
    pub fn versions(&self) -> impl Iterator<Item = (u32, [Spec; 4])> + '_ {
        self.buckets
            .iter()
            .filter(|(name, _)| name.kind != 3)
            .map(|(name, bucket)| {
                let kind = match name.kind {
                    0 => Kind::Packets,
                    1 => Kind::Bytes,
                    _ => Kind::Connections,
                };
                let home = if name.tier < 2 { Home::Tagged } else { Home::Shared };
                let mut specs = [Spec::default(); 4];
                for (number, version) in bucket.versions.iter().enumerate() {
                    if let Some(version) = version
                        && let Ok(spec) = Spec::new(kind, home, version.rate, version.burst)
                    {
                        specs[number] = spec.of_bucket(bucket.id, number as u8);
                    }
                }
                (bucket.id, specs)
            })
    }

    /// Whose bucket a number is, and the limit that one of its versions stands for.
    pub fn bucket_of(&self, id: u32, version: u8) -> Option<(&BucketName, Limit)> {
        let (name, bucket) = self.buckets.iter().find(|(_, bucket)| bucket.id == id)?;
        let version = (*bucket.versions.get(usize::from(version))?)?;
        let Version { rate, burst, .. } = version;
        Some((name, Limit { rate, burst }))
    }

    /// The number of a series, given on first use.
    pub fn series_of(&mut self, service: &str, class: &str, reason: Reason) -> Result<u32, CompileError> {
        let key = (service.to_owned(), class.to_owned(), reason as u8);
        if let Some(number) = self.series_index.get(&key) {
            return Ok(*number);
        }
        let width = width(reason);
        let number = match self.free_series[width as usize - 1].pop() {
            Some(number) => number,
            None => self.new_series(width)?,
        };
        self.series.push(SeriesRecord {
            service: key.0.clone(),
            class: key.1.clone(),
            reason: key.2,
            number,
        });
        self.series_index.insert(key, number);
        Ok(number)
    }

    /// The first of `width` numbers that no series has had.
    fn new_series(&mut self, width: u32) -> Result<u32, CompileError> {
        let mut first = self.next_series;
        // A pair must not straddle two pages.
        if first % PAGE_SERIES + width > PAGE_SERIES {
            self.free_series[0].push(first);
            first += 1;
        }
        if first + width > PAGES * PAGE_SERIES {
            return Err(CompileError::TooMany {
                what: "counter series",
                most: PAGES * PAGE_SERIES,
            });
        }
        self.next_series = first + width;
        Ok(first)
    }

    /// Takes back the series that are not to be kept; returns their numbers, which must be zeroed
    /// before a later compilation gives them away.
    pub fn retire_series(&mut self, keep: impl Fn(&SeriesRecord) -> bool) -> Vec<u32> {
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.series).into_iter().partition(keep);
        self.series = kept;
        self.reindex();
        let mut numbers = Vec::new();
        for record in gone {
            let width = record.width();
            self.free_series[width as usize - 1].push(record.number);
            numbers.extend(record.number..record.number + width);
        }
        numbers
    }
}

/// How many numbers a reason's series takes: one that drops counts `would_drop` under the next.
fn width(reason: Reason) -> u32 {
    1 + u32::from(reason.drops())
}

impl SeriesRecord {
    fn owner(&self) -> (String, String) {
        (self.service.clone(), self.class.clone())
    }

    /// How many numbers it has.
    pub fn width(&self) -> u32 {
        Reason::ALL
            .get(usize::from(self.reason))
            .map_or(1, |reason| width(*reason))
    }
}

impl Version {
    fn drain_ns(&self) -> u64 {
        // The whole burst, refilled at the rate, and a second for clocks that lag.
        let ns = u128::from(self.burst) * 1_000_000_000 / u128::from(self.rate.max(1)) + 1_000_000_000;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

impl Bucket {
    /// The version that stands for a limit: one that has it already, or one whose debts have drained, or (after four
    /// different limits within one drain time) the one that drains first. Debts under that one then keep
    /// their time rather than their tokens.
    fn version(&mut self, limit: Limit, now_ns: u64) -> u8 {
        let same = self
            .versions
            .iter()
            .position(|version| version.is_some_and(|v| v.rate == limit.rate && v.burst == limit.burst));
        if let Some(at) = same {
            return at as u8;
        }
        let at = (0..4usize)
            .filter(|at| !self.in_use.contains(&(*at as u8)))
            .min_by_key(|at| match self.versions[*at] {
                None => 0,
                Some(version) => match version.drained_ns {
                    Some(drained) if drained <= now_ns => 1,
                    Some(drained) => drained,
                    None => u64::MAX,
                },
            })
            .unwrap_or(0);
        self.versions[at] = Some(Version {
            rate: limit.rate,
            burst: limit.burst,
            drained_ns: None,
        });
        at as u8
    }
}

impl BucketName {
    /// What to call it in an error.
    pub fn describe(&self) -> String {
        let tier = ["per_source", "per_network", "class total", "total"][usize::from(self.tier.min(3))];
        let kind = ["packets", "bytes", "connections", "block"][usize::from(self.kind.min(3))];
        let class = if self.class.is_empty() {
            String::new()
        } else {
            format!(" class {}", self.class)
        };
        format!("service {}{class} {tier} {kind}", self.service)
    }
}
