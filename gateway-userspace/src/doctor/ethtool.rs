//! What a driver says of itself: its name and its offloads, by the ethtool ioctl.
//!
//! Requests are arrays of 32-bit words that start with the command (`linux/ethtool.h`); the kernel writes the answer
//! into the same memory.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_COUNT: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
/// The set of strings that names the features.
const FEATURE_NAMES: u32 = 4;
/// Bytes of one string of a set.
const STRING: usize = 32;
/// Words of `struct ethtool_drvinfo`.
const DRIVER_WORDS: usize = 49;
/// More features than any kernel has; a larger count is not believed.
const MOST_FEATURES: u32 = 4096;

/// Talks to drivers about their interfaces.
#[derive(Debug)]
pub(super) struct Ethtool {
    socket: OwnedFd,
}

/// One offload and whether it is on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Feature {
    /// The kernel's name of it, such as `rx-lro`.
    pub(super) name: String,
    /// Whether it is on now.
    pub(super) active: bool,
}

impl Ethtool {
    /// Opens the socket that the requests go through.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        Ok(Self { socket })
    }

    /// The driver's name.
    pub(super) fn driver(&self, interface: &str) -> io::Result<String> {
        let mut words = vec![0; DRIVER_WORDS];
        words[0] = GET_DRIVER;
        self.request(interface, &mut words)?;
        Ok(text(&bytes_of(&words)[4..4 + STRING]))
    }

    /// Every offload that the driver knows.
    pub(super) fn features(&self, interface: &str) -> io::Result<Vec<Feature>> {
        // cmd, reserved, a mask of 64 bits in native order, one count.
        let mut count = vec![GET_STRING_COUNT, 0, 0, 0, 0];
        let mask = (1_u64 << FEATURE_NAMES).to_ne_bytes();
        count[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
        count[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
        self.request(interface, &mut count)?;
        let number = count[4];
        if number == 0 || number > MOST_FEATURES {
            return Ok(Vec::new());
        }

        let mut names = vec![0; 3 + number as usize * STRING / 4];
        names[..3].copy_from_slice(&[GET_STRINGS, FEATURE_NAMES, number]);
        self.request(interface, &mut names)?;

        // cmd, blocks, then for 32 features each: available, requested, active, never changed.
        let blocks = number.div_ceil(32);
        let mut states = vec![0; 2 + blocks as usize * 4];
        states[..2].copy_from_slice(&[GET_FEATURES, blocks]);
        self.request(interface, &mut states)?;

        Ok(features_of(&bytes_of(&names[3..]), &states[2..]))
    }

    fn request(&self, interface: &str, words: &mut [u32]) -> io::Result<()> {
        let mut name = [0; libc::IFNAMSIZ];
        if interface.len() >= name.len() || interface.is_empty() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: words.as_mut_ptr().cast(),
            },
        };
        // SAFETY: `request` is a valid `ifreq` whose data pointer is `words`, which lives through the call and is as
        // long as the command and the counts that the callers wrote into it say: the kernel writes no further.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The text of a field that is padded with zeros.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// Joins the names of the features with the blocks of their states.
fn features_of(names: &[u8], states: &[u32]) -> Vec<Feature> {
    names
        .chunks_exact(STRING)
        .enumerate()
        .filter_map(|(index, name)| {
            let active = states.get(index / 32 * 4 + 2)? >> (index % 32) & 1 == 1;
            let name = text(name);
            (!name.is_empty()).then_some(Feature { name, active })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_joined_with_their_bits() {
        let mut names = vec![0; 34 * STRING];
        names[..6].copy_from_slice(b"rx-lro");
        names[33 * STRING..33 * STRING + 9].copy_from_slice(b"rx-gro-hw");
        // Two blocks: available, requested, active, never changed.
        let states = [!0, 0, 0b1, 0, !0, 0, 0b10, 0];
        let features = features_of(&names, &states);
        assert_eq!(
            features,
            [
                Feature {
                    name: "rx-lro".into(),
                    active: true
                },
                Feature {
                    name: "rx-gro-hw".into(),
                    active: true
                }
            ]
        );
        assert!(!features_of(&names, &[!0, !0, 0, 0, !0, !0, 0, 0])[0].active);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let ethtool = Ethtool::open().unwrap();
        assert!(ethtool.driver("weir-no-such").is_err());
        assert!(ethtool.driver("a-name-that-is-far-too-long").is_err());
        assert!(ethtool.features("").is_err());
    }
}
