//! The ring in which the packet path puts its samples.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{Map, MapData, RingBuf};
use gateway_core::sample::{SNAP, Sample as Head};

use super::{Dataplane, KernelError, Sample, pins};

/// The reader of the ring; there is one at a time, because whoever reads a sample takes it.
pub struct Samples(RingBuf<MapData>);

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples").finish_non_exhaustive()
    }
}

impl Samples {
    /// The descriptor that becomes readable when many samples wait. Few make no wake-up: look every tenth of a second too.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes what is there, at most so many.
    pub fn take(&mut self, most: usize) -> Vec<Sample> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(item) = self.0.next() else { break };
            // Another size would be another build's sample, which the ABI stamp rules out.
            taken.extend(read(&item));
        }
        taken
    }
}

/// The fields of a sample, and its bytes.
fn read(record: &[u8]) -> Option<Sample> {
    let long = |at: usize| Some(u64::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let byte = |at: usize| record.get(at).copied();
    let head = Head {
        at_ns: long(std::mem::offset_of!(Head, at_ns))?,
        missed: long(std::mem::offset_of!(Head, missed))?,
        one_in: word(std::mem::offset_of!(Head, one_in))?,
        length: word(std::mem::offset_of!(Head, length))?,
        service: word(std::mem::offset_of!(Head, service))?,
        interface: word(std::mem::offset_of!(Head, interface))?,
        verdict: byte(std::mem::offset_of!(Head, verdict))?,
        reason: byte(std::mem::offset_of!(Head, reason))?,
        captured: byte(std::mem::offset_of!(Head, captured))?,
        class: byte(std::mem::offset_of!(Head, class))?,
        reserved: [0; 4],
    };
    let captured = usize::from(head.captured).min(SNAP);
    let bytes = record.get(size_of::<Head>()..)?.get(..captured)?.to_vec();
    Some(Sample { head, bytes })
}

impl Dataplane {
    /// Opens the ring of samples.
    pub fn samples(&self) -> Result<Samples, KernelError> {
        let failed = |error: &dyn std::error::Error| {
            KernelError::Other(format!(
                "cannot open the ring of samples: {}",
                super::object::chain(error)
            ))
        };
        let data = MapData::from_pin(pins::map(&self.set, "SAMPLES")).map_err(|error| failed(&error))?;
        let map = Map::from_map_data(data).map_err(|error| failed(&error))?;
        RingBuf::try_from(map)
            .map(Samples)
            .map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_read_by_its_fields() {
        let mut record = vec![0_u8; size_of::<Head>() + SNAP];
        record[..8].copy_from_slice(&7_u64.to_ne_bytes());
        record[16..20].copy_from_slice(&1000_u32.to_ne_bytes());
        record[34] = 3;
        record[40..43].copy_from_slice(b"abc");
        let sample = read(&record).unwrap();
        assert_eq!((sample.head.at_ns, sample.head.one_in), (7, 1000));
        assert_eq!(sample.bytes, b"abc");
        assert_eq!(read(&record[..41]), None);
        assert_eq!(read(&[]), None);
    }
}
