//! A MaxMind database with countries, in memory.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions, path};

/// The largest file that is read, in bytes; the largest of MaxMind's with countries has a few hundred million.
const MOST: u64 = 1 << 30;
/// How many networks are looked through for one with a country.
const LOOKED_THROUGH: usize = 10_000;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    /// It cannot be read.
    #[error("the database {} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no file, or a very large one.
    #[error("the database {} must be a regular file of at most 1 GiB", path.display())]
    Size {
        /// The file.
        path: PathBuf,
    },
    /// It is none, or damaged.
    #[error("{} is no MaxMind database (.mmdb, unpacked), or is damaged: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MaxMindDbError,
    },
    /// It says something else of addresses.
    #[error("the database {} ({kind}) has no countries; take a country or city database", path.display())]
    NoCountries {
        /// The file.
        path: PathBuf,
        /// What it says it is.
        kind: String,
    },
}

/// A database.
#[derive(Debug)]
pub struct Database {
    reader: Reader<Vec<u8>>,
    bytes: u64,
}

impl Database {
    /// Reads one, and looks through all of it: what is damaged is found here, not while packets wait.
    ///
    /// # Errors
    /// Where it cannot be read, is damaged, or has no countries.
    pub fn open(path: &Path) -> Result<Self, GeoError> {
        let failed = |source| GeoError::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = |source| GeoError::Damaged {
            path: path.to_owned(),
            source,
        };
        let metadata = fs::metadata(path).map_err(failed)?;
        let size = || GeoError::Size {
            path: path.to_owned(),
        };
        // A pipe would be waited for.
        if !metadata.is_file() || metadata.len() > MOST {
            return Err(size());
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        let file = File::open(path).map_err(failed)?;
        file.take(MOST + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MOST {
            return Err(size());
        }
        let length = bytes.len() as u64;
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        reader.verify().map_err(damaged)?;
        let database = Self {
            reader,
            bytes: length,
        };
        if database.has_countries().map_err(damaged)? {
            Ok(database)
        } else {
            Err(GeoError::NoCountries {
                path: path.to_owned(),
                kind: database.kind().to_owned(),
            })
        }
    }

    fn has_countries(&self) -> Result<bool, MaxMindDbError> {
        for network in self
            .reader
            .networks(WithinOptions::default())?
            .take(LOOKED_THROUGH)
        {
            if code(&network?).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The country of an address: two letters (ISO 3166-1 alpha-2). Where it is not known where an address is used, the
    /// country that it is registered in.
    pub fn country(&self, address: IpAddr) -> Option<[u8; 2]> {
        // An IPv6 address is an error to a database that has none, and so without a country.
        code(&self.reader.lookup(address).ok()?)
    }

    /// What it says it is.
    pub fn kind(&self) -> &str {
        &self.reader.metadata().database_type
    }

    /// When it was built.
    pub fn built(&self) -> Timestamp {
        let seconds = self.reader.metadata().build_epoch;
        Timestamp::from_second(seconds as i64).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Bytes that it takes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The country that a record has.
fn code(found: &LookupResult<'_, Vec<u8>>) -> Option<[u8; 2]> {
    let used = found.decode_path::<&str>(&path!["country", "iso_code"]);
    let code = match used {
        Ok(Some(code)) => code,
        _ => found
            .decode_path::<&str>(&path!["registered_country", "iso_code"])
            .ok()??,
    };
    let code: [u8; 2] = code.as_bytes().try_into().ok()?;
    code.iter().all(u8::is_ascii_uppercase).then_some(code)
}
