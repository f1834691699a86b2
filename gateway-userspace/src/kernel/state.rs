//! What must survive with the maps and is not theirs to hold: the registry of numbers, the policy's text, the levers.
//! It is kept as JSON in an array map of its own, pinned beside them, so that it lives and dies with them.

use std::{fs, path::Path};

use aya_obj::generated::bpf_map_type;
use serde::{Deserialize, Serialize};

use super::{
    KernelError, Lever,
    pending::Waiting,
    pins,
    sys::{Map, Shape},
};
use crate::compile::registry::Registry;

/// Bytes of an element.
const PIECE: usize = 4096;

/// The state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) registry: Registry,
    /// The text of the policy that is in force for good.
    pub(super) text: Option<String>,
    pub(super) levers: Vec<Lever>,
    /// A policy that waits for confirmation; the rest, but the registry, is of the one before it.
    #[serde(default)]
    pub(super) waiting: Option<Waiting>,
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> KernelError {
    move |source| pins::io_error(format!("cannot {what} the pinned state"), source)
}

impl State {
    /// Reads it; nothing if none was written.
    pub(super) fn read(set: &Path) -> Result<Option<Self>, KernelError> {
        let path = set.join("state");
        if !path.exists() {
            return Ok(None);
        }
        let map = Map::open(&path).map_err(failed("open"))?;
        let mut bytes = Vec::with_capacity(map.entries as usize * PIECE);
        map.read_array::<[u8; PIECE]>(1, |_, piece| bytes.extend_from_slice(&piece[0]))
            .map_err(failed("read"))?;
        let length = bytes
            .first_chunk::<8>()
            .map_or(0, |first| u64::from_le_bytes(*first)) as usize;
        let text = bytes.get(8..8 + length).unwrap_or_default();
        let mut state: Self = serde_json::from_slice(text)
            .map_err(|error| KernelError::Other(format!("the pinned state cannot be read: {error}")))?;
        state.registry.reindex();
        Ok(Some(state))
    }

    /// Writes it, in place of what was there, in one step.
    pub(super) fn write(&self, set: &Path) -> Result<(), KernelError> {
        let text = serde_json::to_vec(self)
            .map_err(|error| KernelError::Other(format!("the pinned state cannot be written: {error}")))?;
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&text);
        bytes.resize(bytes.len().next_multiple_of(PIECE), 0);
        let pieces: Vec<[u8; PIECE]> = bytes
            .chunks_exact(PIECE)
            .filter_map(|piece| piece.try_into().ok())
            .collect();
        let shape = Shape {
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
            key: 4,
            value: PIECE as u32,
            entries: pieces.len() as u32,
            flags: 0,
        };
        let map = Map::create("weir_state", &shape).map_err(failed("make"))?;
        map.set_run(0, &pieces).map_err(failed("write"))?;
        let (fresh, path) = (set.join("state-new"), set.join("state"));
        let _ = fs::remove_file(&fresh);
        map.pin(&fresh).map_err(failed("pin"))?;
        fs::rename(&fresh, &path).map_err(failed("replace"))
    }
}
