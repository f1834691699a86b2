//! Any bytes as the files of the state directory and as the state that is pinned beside the maps.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::from_slice;
use weir::{
    bans::SavedBans,
    compile::registry::Registry,
    lists::Overlay,
    state::{History, PolicyState},
};

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    match which % 5 {
        0 => {
            if let Ok(saved) = from_slice::<SavedBans>(bytes) {
                let wall = jiff::Timestamp::UNIX_EPOCH;
                let mut book = saved.clone().restore("this boot", 1 << 40, wall);
                let _ = SavedBans::of(&book, "this boot");
                let _ = book.prune(u64::MAX);
                let _ = saved.restore("another", 0, jiff::Timestamp::MAX);
            }
        }
        1 => {
            if let Ok(state) = from_slice::<PolicyState>(bytes) {
                let written = serde_json::to_vec(&state).expect("can be written");
                assert_eq!(from_slice::<PolicyState>(&written).expect("can be read"), state);
            }
        }
        2 => {
            if let Ok(history) = from_slice::<History>(bytes) {
                let _ = history.newest();
                let _ = history.before(u64::MAX, "");
            }
        }
        3 => {
            if let Ok(overlay) = from_slice::<Overlay>(bytes) {
                let written = serde_json::to_vec(&overlay).expect("can be written");
                assert_eq!(from_slice::<Overlay>(&written).expect("can be read"), overlay);
            }
        }
        _ => {
            if let Ok(mut registry) = from_slice::<Registry>(bytes) {
                registry.reindex();
                let _ = registry.versions().count();
            }
        }
    }
});
