//! Maps in maps. The outer ones are made here and not by the loader: it would give their template type information
//! (BTF), and before Linux 6.2 such an outer map refuses every inner map that has none (`EINVAL`), as those made at run
//! time have none.

use std::path::Path;

use aya_obj::generated::bpf_map_type;
use gateway_core::{
    image::{DestinationEntry, INTERFACES, ListEntry, PAGE_SERIES, PAGES, SLOTS, SUBJECTS},
    profile::{PAGE_DISTINCT, PAGE_SERVICES, Profile, REGISTERS, Times},
};

use super::{
    KernelError, pins,
    sys::{Map, Shape},
};

/// `BPF_F_NO_PREALLOC`, which tries demand.
const NO_PREALLOC: u32 = 1;

/// A trie of this shape, for so many prefixes. Inner maps may differ in how much they hold, and in nothing else.
pub(super) fn trie<K, V>(entries: usize) -> Shape {
    Shape {
        kind: bpf_map_type::BPF_MAP_TYPE_LPM_TRIE,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        entries: entries.max(1) as u32,
        flags: NO_PREALLOC,
    }
}

/// The table of services with addresses, for so many entries.
pub(super) fn group_table(entries: usize) -> Shape {
    Shape {
        kind: bpf_map_type::BPF_MAP_TYPE_HASH,
        key: 8,
        value: 4,
        entries: entries.max(1) as u32,
        flags: NO_PREALLOC,
    }
}

/// A page of counters.
pub(super) fn page() -> Shape {
    Shape {
        kind: bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
        key: 4,
        value: 16,
        entries: PAGE_SERIES,
        flags: 0,
    }
}

/// A page of profiles.
pub(super) fn profiles() -> Shape {
    Shape {
        value: size_of::<Profile>() as u32,
        entries: PAGE_SERVICES,
        ..page()
    }
}

/// A page of times.
pub(super) fn times() -> Shape {
    Shape {
        value: size_of::<Times>() as u32,
        entries: PAGE_SERVICES,
        ..page()
    }
}

/// A page of registers of different sources, two sets a service.
pub(super) fn distinct() -> Shape {
    Shape {
        kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
        key: 4,
        value: REGISTERS as u32,
        entries: 2 * PAGE_DISTINCT,
        flags: 0,
    }
}

/// Makes and pins the outer maps of a new set, all of them empty.
pub(super) fn make(set: &Path) -> Result<(), KernelError> {
    let outers = [
        ("LISTS_V4", SLOTS, trie::<[u32; 2], ListEntry>(1)),
        ("LISTS_V6", SLOTS, trie::<[u32; 5], ListEntry>(1)),
        ("DESTS_V4", SLOTS, trie::<[u32; 2], DestinationEntry>(1)),
        ("DESTS_V6", SLOTS, trie::<[u32; 5], DestinationEntry>(1)),
        ("GROUP_TABLE", SLOTS, group_table(1)),
        ("COUNTERS", INTERFACES * PAGES, page()),
        ("PROFILES", SUBJECTS / PAGE_SERVICES, profiles()),
        ("TIMES", SUBJECTS / PAGE_SERVICES, times()),
        ("DISTINCT", SUBJECTS / PAGE_DISTINCT, distinct()),
    ];
    for (name, slots, inner) in outers {
        Map::create(name, &inner)
            .and_then(|template| Map::create_outer(name, slots, &template))
            .and_then(|outer| outer.pin(&pins::map(set, name)))
            .map_err(|source| match source.raw_os_error() {
                Some(libc::EPERM) => super::object::not_permitted("create BPF maps"),
                _ => pins::io_error(format!("cannot make the map {name}"), source),
            })?;
    }
    Ok(())
}
