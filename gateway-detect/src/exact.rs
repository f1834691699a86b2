//! Lists as they are read back: with the room that they need and no more, for the memory of a service is bounded.

use serde::{Deserialize, Deserializer};

/// A list without spare room.
pub(crate) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}
