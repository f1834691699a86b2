//! The ban tables.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use gateway_core::image::{BANS_FILTER, bans as bits};
use ipnet::IpNet;

use super::{BanEntry, Dataplane, KernelError, filters::Filter, pins::io_error};
use crate::compile::prefix;

/// What the tables hold: expiries by service number and prefix.
#[derive(Debug, Default)]
pub(super) struct BanTable {
    entries: BTreeMap<(u32, IpNet), u64>,
    counts: [usize; 4],
    filter: Filter,
}

/// Which count an entry belongs to, and which of the bits of [`bits`].
fn bit(service: u32, net: &IpNet) -> usize {
    match (service, net) {
        (0, IpNet::V4(_)) => 0,
        (0, IpNet::V6(_)) => 1,
        (_, IpNet::V4(_)) => 2,
        (_, IpNet::V6(_)) => 3,
    }
}

impl BanTable {
    fn insert(&mut self, service: u32, net: IpNet, until_ns: u64) {
        if self.entries.insert((service, net), until_ns).is_none() {
            self.counts[bit(service, &net)] += 1;
            self.filter.add(&net);
        }
    }

    fn remove(&mut self, service: u32, net: IpNet) {
        if self.entries.remove(&(service, net)).is_some() {
            self.counts[bit(service, &net)] -= 1;
            self.filter.remove(&net);
        }
    }

    pub(super) fn flags(&self) -> u64 {
        let flags = [bits::V4, bits::V6, bits::SERVICE_V4, bits::SERVICE_V6];
        self.counts
            .iter()
            .zip(flags)
            .filter(|(count, _)| **count > 0)
            .fold(0, |all, (_, flag)| all | flag)
    }
}

type Key4 = [u32; 3];
type Key6 = [u32; 6];

fn key4(service: u32, net: &IpNet) -> Key4 {
    [
        32 + u32::from(net.prefix_len()),
        service,
        prefix::words(net.network())[0],
    ]
}

fn key6(service: u32, net: &IpNet) -> Key6 {
    let words = prefix::words(net.network());
    [
        32 + u32::from(net.prefix_len()),
        service,
        words[0],
        words[1],
        words[2],
        words[3],
    ]
}

fn halves(until_ns: u64) -> [u32; 2] {
    [until_ns as u32, (until_ns >> 32) as u32]
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> KernelError {
    move |source| match source.raw_os_error() {
        Some(libc::ENOSPC) => KernelError::TooLarge {
            what: "the ban table is full (1,048,576 prefixes a family)".into(),
        },
        _ => io_error(format!("cannot {what} the ban table"), source),
    }
}

impl Dataplane {
    /// Reads the tables.
    pub(super) fn read_bans(&self) -> Result<BanTable, KernelError> {
        let mut table = BanTable::default();
        let (v4, v6) = (self.map("BANS_V4"), self.map("BANS_V6"));
        let mut key: Option<Key4> = None;
        while let Some(at) = v4.next_key(key.as_ref()).map_err(failed("read"))? {
            let address = Ipv4Addr::from(at[2].to_ne_bytes());
            self.add(
                &mut table,
                v4.get::<_, [u32; 2]>(&at).map_err(failed("read"))?,
                at[0],
                at[1],
                address.into(),
            );
            key = Some(at);
        }
        let mut key: Option<Key6> = None;
        while let Some(at) = v6.next_key(key.as_ref()).map_err(failed("read"))? {
            let mut bytes = [0; 16];
            for (place, word) in bytes.chunks_exact_mut(4).zip(&at[2..]) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
            let address = Ipv6Addr::from(bytes);
            self.add(
                &mut table,
                v6.get::<_, [u32; 2]>(&at).map_err(failed("read"))?,
                at[0],
                at[1],
                address.into(),
            );
            key = Some(at);
        }
        Ok(table)
    }

    #[allow(clippy::unused_self, reason = "reads as a step of read_bans")]
    fn add(&self, table: &mut BanTable, until: Option<[u32; 2]>, length: u32, service: u32, address: IpAddr) {
        if let (Some(until), Ok(net)) = (until, IpNet::new(address, length.saturating_sub(32) as u8)) {
            table.insert(service, net, u64::from(until[0]) | u64::from(until[1]) << 32);
        }
    }

    fn service_number(&self, service: Option<&str>) -> Result<u32, KernelError> {
        match service {
            None => Ok(0),
            Some(name) => self.number_of(name).ok_or_else(|| KernelError::NoService {
                name: name.to_owned(),
            }),
        }
    }

    /// Writes and deletes ban entries in the kernel.
    pub fn change_bans(
        &mut self,
        set: &[BanEntry],
        delete: &[(IpNet, Option<String>)],
    ) -> Result<(), KernelError> {
        // Names first: a wrong one must not leave half of the change done.
        let mut numbered = Vec::with_capacity(set.len());
        for entry in set {
            numbered.push((
                self.service_number(entry.service.as_deref())?,
                entry.prefix.trunc(),
                entry.until_ns,
            ));
        }
        let mut gone = Vec::with_capacity(delete.len());
        for (net, service) in delete {
            // A service that is no more took its bans along.
            if let Ok(number) = self.service_number(service.as_deref()) {
                gone.push((number, net.trunc()));
            }
        }
        // Flags and filter say where to look: raised before the first entry, lowered after the last.
        for (service, net, until_ns) in &numbered {
            self.bans.insert(*service, *net, *until_ns);
        }
        self.show_bans()?;
        let v4: Vec<_> = numbered
            .iter()
            .filter(|(_, net, _)| net.addr().is_ipv4())
            .collect();
        let v6: Vec<_> = numbered
            .iter()
            .filter(|(_, net, _)| net.addr().is_ipv6())
            .collect();
        let keys: Vec<Key4> = v4.iter().map(|(service, net, _)| key4(*service, net)).collect();
        let values: Vec<[u32; 2]> = v4.iter().map(|(_, _, until_ns)| halves(*until_ns)).collect();
        self.map("BANS_V4")
            .set_all(&keys, &values)
            .map_err(failed("write"))?;
        let keys: Vec<Key6> = v6.iter().map(|(service, net, _)| key6(*service, net)).collect();
        let values: Vec<[u32; 2]> = v6.iter().map(|(_, _, until_ns)| halves(*until_ns)).collect();
        self.map("BANS_V6")
            .set_all(&keys, &values)
            .map_err(failed("write"))?;
        self.delete_bans(&gone)
    }

    fn delete_bans(&mut self, gone: &[(u32, IpNet)]) -> Result<(), KernelError> {
        for (service, net) in gone {
            match net {
                IpNet::V4(_) => self.map("BANS_V4").delete(&key4(*service, net)),
                IpNet::V6(_) => self.map("BANS_V6").delete(&key6(*service, net)),
            }
            .map_err(failed("write"))?;
            self.bans.remove(*service, *net);
        }
        self.show_bans()
    }

    /// Writes where packets look for bans.
    fn show_bans(&self) -> Result<(), KernelError> {
        self.write_filter(BANS_FILTER, &self.bans.filter)?;
        self.set_active(self.active()?)
    }

    /// Deletes the bans of services that are gone, before their numbers can name others.
    pub(super) fn drop_bans_of(&mut self, services: &[u32]) -> Result<(), KernelError> {
        let gone: Vec<(u32, IpNet)> = self
            .bans
            .entries
            .keys()
            .filter(|(service, _)| services.contains(service))
            .copied()
            .collect();
        if gone.is_empty() {
            Ok(())
        } else {
            self.delete_bans(&gone)
        }
    }

    /// Every ban entry in the kernel (effective expiries), but those of services that nobody knows any more.
    pub fn bans(&self) -> Result<Vec<BanEntry>, KernelError> {
        let mut entries = Vec::with_capacity(self.bans.entries.len());
        for ((number, prefix), until_ns) in &self.bans.entries {
            let service = match (*number, self.name_of(*number)) {
                (0, _) => None,
                (_, Some(name)) => Some(name.to_owned()),
                (_, None) => continue,
            };
            entries.push(BanEntry {
                prefix: *prefix,
                service,
                until_ns: *until_ns,
            });
        }
        Ok(entries)
    }
}
