//! The ring in which the packet path announces rare events.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{Map, MapData, RingBuf};
use gateway_core::image::Notice;

use super::{Dataplane, KernelError, pins};

/// The reader of the ring; there is one at a time, because whoever reads a notice takes it.
pub struct Notices(RingBuf<MapData>);

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

impl Notices {
    /// The descriptor that becomes readable when there is a notice.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes what is there, at most so many.
    pub fn take(&mut self, most: usize) -> Vec<Notice> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(item) = self.0.next() else { break };
            // Another size would be another build's notice, which the ABI stamp rules out.
            taken.extend(read(&item));
        }
        taken
    }
}

/// The words of a notice, in the order of its fields.
fn read(bytes: &[u8]) -> Option<Notice> {
    let long = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    Some(Notice {
        at_ns: long(std::mem::offset_of!(Notice, at_ns))?,
        until_ns: long(std::mem::offset_of!(Notice, until_ns))?,
        service: word(std::mem::offset_of!(Notice, service))?,
        kind: word(std::mem::offset_of!(Notice, kind))?,
        source: {
            let at = std::mem::offset_of!(Notice, source);
            [word(at)?, word(at + 4)?, word(at + 8)?, word(at + 12)?]
        },
        v6: word(std::mem::offset_of!(Notice, v6))?,
        interface: word(std::mem::offset_of!(Notice, interface))?,
    })
}

impl Dataplane {
    /// Opens the ring of notices.
    pub fn notices(&self) -> Result<Notices, KernelError> {
        let failed = |error: &dyn std::error::Error| {
            KernelError::Other(format!(
                "cannot open the ring of notices: {}",
                super::object::chain(error)
            ))
        };
        let data = MapData::from_pin(pins::map(&self.set, "NOTICES")).map_err(|error| failed(&error))?;
        let map = Map::from_map_data(data).map_err(|error| failed(&error))?;
        RingBuf::try_from(map)
            .map(Notices)
            .map_err(|error| failed(&error))
    }

    /// The name of a service that has this number.
    pub fn service_name(&self, number: u32) -> Option<String> {
        self.state.registry.service_name(number).map(str::to_owned)
    }

    /// Every service's name and number.
    pub fn service_numbers(&self) -> Vec<(String, u32)> {
        let services = self.state.registry.services();
        services.map(|(name, number)| (name.to_owned(), number)).collect()
    }

    /// The name of the interface that has this number.
    pub fn interface_name(&self, number: u32) -> Option<String> {
        let interfaces = &self.state.registry.interfaces;
        interfaces.get(number as usize).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_by_its_fields() {
        let mut bytes = vec![0_u8; size_of::<Notice>()];
        bytes[..8].copy_from_slice(&7_u64.to_ne_bytes());
        bytes[16..20].copy_from_slice(&3_u32.to_ne_bytes());
        bytes[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        let notice = read(&bytes).unwrap();
        assert_eq!((notice.at_ns, notice.service, notice.kind), (7, 3, 1));
        assert_eq!(read(&bytes[..30]), None);
    }
}
