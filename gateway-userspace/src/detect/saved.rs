//! What was learned, on disk: the file `detectors` of the state directory.
//!
//! ```text
//! magic     8 bytes   "weirdet\n"
//! version   u32       of this layout
//! layout    u32       of a detector (gateway_detect::LAYOUT)
//! seconds   f64       when it was written, since 1970
//! notes     u32, …    their length; what is over and what lasts, as JSON
//! records   …         until none: the length of a name, u16 (0: none follows), the name, when the service was last watched,
//!                     f64, the length of its detector, u32, and the detector (postcard)
//! checksum  32 bytes  SHA-256 of all that
//! ```
//!
//! Numbers are little-endian. It is written service by service, so that no copy of everything is in memory.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use gateway_detect::Detector;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::dormant::{Dormant, MOST_BYTES, Record};
use crate::{
    api::anomalies::{Anomaly, EndedAnomaly},
    state::{StateError, Store},
};

/// The file's name in the state directory.
pub const FILE: &str = "detectors";
const MAGIC: [u8; 8] = *b"weirdet\n";
/// The version of the file's layout; that of detectors has a number of its own.
const VERSION: u32 = 1;
const CHECKSUM: usize = 32;

/// What is written besides detectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Notes {
    /// What is over, the last first.
    pub(super) ended: Vec<EndedAnomaly>,
    /// What lasted when it was written.
    pub(super) active: Vec<Lasting>,
}

/// An anomaly that lasts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Lasting {
    /// The service.
    pub(super) service: String,
    /// As it was at its worst.
    #[serde(flatten)]
    pub(super) anomaly: Anomaly,
}

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Saved {
    /// When it was written, in seconds since 1970.
    pub(super) at: f64,
    pub(super) notes: Notes,
    pub(super) learned: Dormant,
}

/// What became of reading it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Loaded {
    /// There is none.
    Nothing,
    /// What it says.
    Saved(Box<Saved>),
    /// It is of another version, or was damaged and is set aside: why nothing is known.
    Anew(String),
}

/// Why a file's bytes say nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unreadable {
    /// Another version wrote it.
    #[error("it is of another version of weir")]
    Version,
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// When such a file was written, in seconds since 1970, and what it has learned of each service.
///
/// # Errors
/// Where the bytes are of another version, or damaged.
pub fn learned(bytes: &[u8]) -> Result<(f64, BTreeMap<String, Detector>), Unreadable> {
    let Saved { at, mut learned, .. } = parse(bytes)?;
    let names: Vec<String> = learned.services.keys().cloned().collect();
    let mut detectors = BTreeMap::new();
    for name in names {
        let read = learned.wake(&name);
        let detector = read.ok_or(Unreadable::Damaged("a detector cannot be read back"))?;
        detectors.insert(name, detector);
    }
    Ok((at, detectors))
}

/// Reads the file.
pub(super) fn load(store: &Store) -> Result<Loaded, StateError> {
    let Some(bytes) = store.read(FILE)? else {
        return Ok(Loaded::Nothing);
    };
    match parse(&bytes) {
        Ok(saved) => Ok(Loaded::Saved(Box::new(saved))),
        Err(why @ Unreadable::Damaged(_)) => {
            store.damaged(FILE, &why)?;
            Ok(Loaded::Anew(why.to_string()))
        }
        Err(why @ Unreadable::Version) => Ok(Loaded::Anew(why.to_string())),
    }
}

/// Writes the file. `records` are asked for one after the other: a service, when it was last watched, its detector.
pub(super) fn save(
    store: &Store,
    at: f64,
    notes: &Notes,
    records: impl Iterator<Item = (String, Record)>,
) -> Result<(), StateError> {
    store.write(FILE, |out| {
        let mut out = Summing {
            out,
            sum: Sha256::new(),
        };
        write(&mut out, at, notes, records)?;
        let sum = out.sum.finalize();
        out.out.write_all(&sum)
    })
}

fn write(
    out: &mut impl Write,
    at: f64,
    notes: &Notes,
    records: impl Iterator<Item = (String, Record)>,
) -> io::Result<()> {
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&gateway_detect::LAYOUT.to_le_bytes())?;
    out.write_all(&at.to_le_bytes())?;
    let notes = serde_json::to_vec(notes)?;
    out.write_all(&length::<u32>(notes.len())?.to_le_bytes())?;
    out.write_all(&notes)?;
    for (service, record) in records {
        out.write_all(&length::<u16>(service.len())?.to_le_bytes())?;
        out.write_all(service.as_bytes())?;
        out.write_all(&record.seen.to_le_bytes())?;
        out.write_all(&length::<u32>(record.bytes.len())?.to_le_bytes())?;
        out.write_all(&record.bytes)?;
    }
    out.write_all(&0_u16.to_le_bytes())
}

fn length<T: TryFrom<usize>>(length: usize) -> io::Result<T> {
    T::try_from(length).map_err(|_| io::Error::other("too long to be written"))
}

/// A writer that sums what goes through it.
struct Summing<'o> {
    out: &'o mut dyn Write,
    sum: Sha256,
}

impl Write for Summing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A place in the bytes of a file.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn bytes(&mut self, length: usize) -> Result<&'b [u8], Unreadable> {
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Unreadable::Damaged("it is cut short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let bytes = self.bytes(N)?;
        bytes
            .try_into()
            .map_err(|_| Unreadable::Damaged("it is cut short"))
    }

    fn u16(&mut self) -> Result<u16, Unreadable> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Unreadable> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn seconds(&mut self) -> Result<f64, Unreadable> {
        let seconds = f64::from_le_bytes(self.array()?);
        if seconds.is_finite() {
            Ok(seconds)
        } else {
            Err(Unreadable::Damaged("a time is none"))
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Saved, Unreadable> {
    let mut reader = Reader(bytes);
    if reader.array()? != MAGIC {
        return Err(Unreadable::Damaged("it does not begin as such a file does"));
    }
    if (reader.u32()?, reader.u32()?) != (VERSION, gateway_detect::LAYOUT) {
        return Err(Unreadable::Version);
    }
    let (said, sum) = bytes
        .split_last_chunk::<CHECKSUM>()
        .ok_or(Unreadable::Damaged("it is cut short"))?;
    if Sha256::digest(said).as_slice() != sum {
        return Err(Unreadable::Damaged("its checksum is wrong"));
    }
    let at = reader.seconds()?;
    let notes = reader.u32()? as usize;
    let notes = serde_json::from_slice(reader.bytes(notes)?)
        .map_err(|_| Unreadable::Damaged("its notes cannot be read"))?;
    let mut learned = Dormant::default();
    loop {
        let name = reader.u16()?;
        if name == 0 {
            break;
        }
        let name = str::from_utf8(reader.bytes(usize::from(name))?)
            .map_err(|_| Unreadable::Damaged("a name is no text"))?;
        let seen = reader.seconds()?;
        let length = reader.u32()? as usize;
        if length > MOST_BYTES {
            return Err(Unreadable::Damaged("a detector is too long"));
        }
        let bytes = reader.bytes(length)?.to_vec();
        learned.services.insert(name.to_owned(), Record { seen, bytes });
    }
    Ok(Saved { at, notes, learned })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(byte: u8) -> Record {
        Record {
            seen: 1_800_000_000.5,
            bytes: vec![byte; 5],
        }
    }

    fn written() -> (tempfile::TempDir, Store, Notes) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let notes = Notes {
            ended: Vec::new(),
            active: vec![Lasting {
                service: "web".into(),
                anomaly: Anomaly {
                    verdict: "crowd".into(),
                    score: 2.5,
                    ..Anomaly::default()
                },
            }],
        };
        let records = [("web".to_owned(), record(1)), ("shop".to_owned(), record(2))];
        save(&store, 1_800_000_001.0, &notes, records.into_iter()).unwrap();
        (dir, store, notes)
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let (_dir, store, notes) = written();
        let Loaded::Saved(saved) = load(&store).unwrap() else {
            panic!("nothing was loaded");
        };
        assert_eq!((saved.at, &saved.notes), (1_800_000_001.0, &notes));
        let names: Vec<&String> = saved.learned.services.keys().collect();
        assert_eq!(names, ["shop", "web"]);
        assert_eq!(saved.learned.services["web"], record(1));
        let empty = tempfile::tempdir().unwrap();
        let empty = Store::open(empty.path()).unwrap();
        assert_eq!(load(&empty).unwrap(), Loaded::Nothing);
    }

    #[test]
    fn no_byte_may_change_and_none_may_be_missing() {
        let (dir, store, _) = written();
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let parsed = parse(&bytes);
            // The two numbers that are looked at before the checksum are told apart.
            let expected = (8..16).contains(&at);
            assert_eq!(parsed == Err(Unreadable::Version), expected, "{at}: {parsed:?}");
            assert!(parsed.is_err(), "{at}");
            assert!(parse(&whole[..at]).is_err(), "{at}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(load(&store).unwrap(), Loaded::Anew(why) if why.contains("damaged")));
        assert!(dir.path().join("detectors.corrupt-1").exists() && !path.exists());
        // Another version's is left where it is, until this one has something to save.
        let mut newer = whole;
        newer[8] = 99;
        fs::write(&path, &newer).unwrap();
        assert!(matches!(load(&store).unwrap(), Loaded::Anew(why) if why.contains("another version")));
        assert!(path.exists());
    }
}
