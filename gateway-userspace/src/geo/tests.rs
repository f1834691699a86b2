//! Databases that these tests write themselves, by MaxMind's specification of the format (version 2.0).

use std::{fs, net::IpAddr};

use ipnet::IpNet;

use super::*;

/// What a side of a node of the tree leads to.
#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    /// The offset of a record in the data.
    Record(usize),
}

/// Writes a database.
pub(crate) struct Writer {
    version: u16,
    kind: &'static str,
    tree: Vec<[Side; 2]>,
    data: Vec<u8>,
}

/// A control byte, and the length behind it: the short form, which is enough for tests.
fn control(kind: u8, size: usize) -> Vec<u8> {
    assert!(size < 29);
    match kind {
        1..=7 => vec![kind << 5 | size as u8],
        // Extended: the type stands in a byte of its own.
        _ => vec![size as u8, kind - 7],
    }
}

fn text(text: &str) -> Vec<u8> {
    [control(2, text.len()), text.as_bytes().to_vec()].concat()
}

/// An unsigned integer of 16 (5), 32 (6) or 64 (9) bits, without leading zeros.
fn number(kind: u8, number: u64) -> Vec<u8> {
    let bytes: Vec<u8> = number
        .to_be_bytes()
        .into_iter()
        .skip_while(|byte| *byte == 0)
        .collect();
    [control(kind, bytes.len()), bytes].concat()
}

fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = control(7, entries.len());
    for (key, value) in entries {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

impl Writer {
    /// One for IPv4 alone, or for both (6).
    pub(crate) fn new(version: u16) -> Self {
        Self {
            version,
            kind: "Test-Country",
            tree: vec![[Side::Nothing; 2]],
            data: Vec::new(),
        }
    }

    fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// Says of a network that it is in a country.
    pub(crate) fn country(self, network: &str, code: &str) -> Self {
        self.record(network, map(&[("country", map(&[("iso_code", text(code))]))]))
    }

    fn record(mut self, network: &str, record: Vec<u8>) -> Self {
        let network: IpNet = network.parse().unwrap();
        let offset = self.data.len();
        self.data.extend(record);
        let bits: Vec<usize> = match (network, self.version) {
            (IpNet::V4(v4), 4) => bits(&v4.addr().octets(), v4.prefix_len()),
            // An IPv4 address is the last 32 bits below 96 zeros.
            (IpNet::V4(v4), _) => [vec![0; 96], bits(&v4.addr().octets(), v4.prefix_len())].concat(),
            (IpNet::V6(v6), _) => bits(&v6.addr().octets(), v6.prefix_len()),
        };
        let (last, way) = bits.split_last().unwrap();
        let mut at = 0;
        for bit in way {
            at = match self.tree[at][*bit] {
                Side::Node(next) => next,
                Side::Nothing => {
                    self.tree.push([Side::Nothing; 2]);
                    let next = self.tree.len() - 1;
                    self.tree[at][*bit] = Side::Node(next);
                    next
                }
                Side::Record(_) => panic!("{network} lies in another network"),
            };
        }
        self.tree[at][*last] = Side::Record(offset);
        self
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let nodes = self.tree.len();
        let mut file = Vec::new();
        for side in self.tree.iter().flatten() {
            let value = match side {
                Side::Nothing => nodes,
                Side::Node(node) => *node,
                Side::Record(offset) => nodes + 16 + offset,
            };
            // Records of 24 bits.
            file.extend_from_slice(&(value as u32).to_be_bytes()[1..]);
        }
        file.extend([0; 16]);
        file.extend(&self.data);
        file.extend(b"\xab\xcd\xefMaxMind.com");
        file.extend(map(&[
            ("binary_format_major_version", number(5, 2)),
            ("binary_format_minor_version", number(5, 0)),
            ("build_epoch", number(9, 1_795_000_000)),
            ("database_type", text(self.kind)),
            ("description", map(&[("en", text("of a test"))])),
            ("ip_version", number(5, u64::from(self.version))),
            ("languages", [control(11, 1), text("en")].concat()),
            ("node_count", number(6, nodes as u64)),
            ("record_size", number(5, 24)),
        ]));
        file
    }
}

fn bits(bytes: &[u8], length: u8) -> Vec<usize> {
    let all = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| usize::from(byte >> at & 1)));
    all.take(usize::from(length)).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two letters, or nothing.
fn country(database: &Database, of: &str) -> Option<String> {
    let code = database.country(address(of))?;
    Some(String::from_utf8(code.to_vec()).unwrap())
}

fn open(bytes: &[u8]) -> Result<Database, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mmdb");
    fs::write(&path, bytes).unwrap();
    Database::open(&path).map_err(|error| error.to_string())
}

fn both() -> Writer {
    Writer::new(6)
        .country("192.0.2.0/24", "NL")
        .country("198.51.100.128/25", "DE")
        .country("2001:db8:1::/48", "JP")
        .record(
            "203.0.113.0/24",
            map(&[("registered_country", map(&[("iso_code", text("FR"))]))]),
        )
        .record("203.0.112.0/24", map(&[("city", text("nowhere"))]))
        .record(
            "203.0.111.0/24",
            map(&[("country", map(&[("iso_code", text("x1"))]))]),
        )
}

#[test]
fn countries_of_both_families_are_found() {
    let database = open(&both().bytes()).unwrap();
    for (of, expected) in [
        ("192.0.2.0", Some("NL")),
        ("192.0.2.255", Some("NL")),
        ("192.0.3.0", None),
        ("198.51.100.127", None),
        ("198.51.100.128", Some("DE")),
        ("2001:db8:1:ffff::1", Some("JP")),
        ("2001:db8:2::", None),
        // Nobody says where it is, but where it is registered.
        ("203.0.113.7", Some("FR")),
        ("203.0.112.7", None),
        // No country is called so.
        ("203.0.111.7", None),
        ("0.0.0.0", None),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    ] {
        assert_eq!(country(&database, of).as_deref(), expected, "{of}");
    }
    assert_eq!(
        (database.kind(), database.bytes()),
        ("Test-Country", both().bytes().len() as u64)
    );
    assert_eq!(database.built().as_second(), 1_795_000_000);
}

#[test]
fn a_database_of_ipv4_knows_nothing_of_ipv6() {
    let database = open(&Writer::new(4).country("10.0.0.0/8", "SE").bytes()).unwrap();
    assert_eq!(country(&database, "10.1.2.3").as_deref(), Some("SE"));
    assert_eq!(country(&database, "2001:db8::1"), None);
}

#[test]
fn what_is_no_database_or_has_no_countries_is_said() {
    for bytes in [
        &b""[..],
        b"not a database",
        &[0; 4_096],
        b"\xab\xcd\xefMaxMind.com",
    ] {
        let error = open(bytes).unwrap_err();
        assert!(error.contains("no MaxMind database"), "{error}");
    }
    let other = Writer::new(6)
        .kind("Test-ASN")
        .record("192.0.2.0/24", map(&[("asn", number(6, 64_496))]));
    let error = open(&other.bytes()).unwrap_err();
    assert!(error.contains("(Test-ASN) has no countries"), "{error}");
    let error = Database::open(Path::new("/nonexistent/a.mmdb")).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    assert!(matches!(
        Database::open(Path::new("/")),
        Err(GeoError::Size { .. })
    ));
}

#[test]
fn no_damage_makes_it_panic() {
    let whole = both().bytes();
    let mut refused = 0;
    for cut in 0..whole.len() {
        refused += usize::from(open(&whole[..cut]).is_err());
    }
    // The end of the metadata is where the file ends.
    assert_eq!(refused, whole.len());
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            // What passes for a database answers something, or nothing.
            if let Ok(database) = open(&bytes) {
                for of in ["192.0.2.1", "198.51.100.200", "2001:db8:1::1", "203.0.113.1"] {
                    let _ = database.country(address(of));
                }
            }
        }
    }
}

#[test]
fn it_follows_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("country.mmdb");
    let geo = Geo::default();
    let of = |geo: &Geo| geo.now().and_then(|database| country(&database, "192.0.2.1"));
    geo.follow(None);
    assert_eq!((of(&geo), geo.fault()), (None, None), "nobody wants it");
    geo.follow(Some(&path));
    assert!(geo.fault().unwrap().contains("countries are not looked up"));

    fs::write(&path, both().bytes()).unwrap();
    geo.follow(Some(&path));
    assert_eq!((of(&geo).as_deref(), geo.fault()), (Some("NL"), None));
    let before = geo.now().unwrap();
    geo.follow(Some(&path));
    assert!(Arc::ptr_eq(&before, &geo.now().unwrap()), "it has not changed");

    // As updaters do it: a new file takes the old one's name.
    let new = folder.path().join("new");
    fs::write(&new, Writer::new(6).country("192.0.2.0/24", "BE").bytes()).unwrap();
    fs::rename(&new, &path).unwrap();
    geo.follow(Some(&path));
    assert_eq!(of(&geo).as_deref(), Some("BE"));

    // One that is broken changes nothing, and says so.
    fs::write(&path, "broken").unwrap();
    geo.follow(Some(&path));
    assert_eq!(of(&geo).as_deref(), Some("BE"));
    assert!(geo.fault().unwrap().contains("stays in use"));
    fs::remove_file(&path).unwrap();
    geo.follow(Some(&path));
    assert_eq!(of(&geo).as_deref(), Some("BE"));
    assert!(geo.fault().unwrap().contains("cannot be read"));

    fs::write(&path, both().bytes()).unwrap();
    geo.follow(Some(&path));
    assert_eq!((of(&geo).as_deref(), geo.fault()), (Some("NL"), None));
    // Another policy names another file, or none.
    geo.follow(Some(&folder.path().join("other.mmdb")));
    assert_eq!(of(&geo), None);
    geo.follow(None);
    assert_eq!(geo.fault(), None);
}
