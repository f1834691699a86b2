//! What the kernel knows of its interfaces: two netlink requests, asked and read without a library.
//!
//! `RTM_GETLINK` lists the links with their kind, master and XDP programs; the generic family `netdev` (Linux 6.3 and
//! later) says which XDP features a driver has, which is better than any table of drivers.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// The bits of an attribute's type that are flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
const HEADER: usize = 16;
const IFINFO: usize = 16;
/// Bytes of a route's fixed part.
const RTMSG: usize = 12;
const GENL: usize = 4;
/// The kernel fills at most 32 KiB a message in a dump.
const BUFFER: usize = 64 * 1024;

/// How an XDP program is attached, as the kernel reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AttachedMode {
    Native,
    Generic,
    Hardware,
    Several,
}

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AttachedProgram {
    pub(super) mode: AttachedMode,
    /// The program's id; with several programs the first that the kernel names.
    pub(super) id: u32,
}

/// One network interface.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Administratively up.
    pub(super) up: bool,
    /// Has a carrier (or does not need one).
    pub(super) running: bool,
    pub(super) loopback: bool,
    pub(super) mtu: u32,
    /// The kind of a virtual link (`veth`, `bond`, `vlan`, …); none for hardware.
    pub(super) kind: Option<String>,
    /// The index of the link that it is a member of.
    pub(super) master: Option<u32>,
    /// A bond's mode, as the kernel numbers it.
    pub(super) bond_mode: Option<u8>,
    pub(super) xdp: Option<AttachedProgram>,
}

/// The XDP features of a device, as bits (`enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct XdpFeatures(pub(super) u64);

impl XdpFeatures {
    /// The driver runs XDP programs itself.
    pub(super) fn native(self) -> bool {
        self.0 & 1 != 0
    }

    /// It hands frames of several buffers to programs that can take them.
    pub(super) fn multi_buffer(self) -> bool {
        self.0 & 32 != 0
    }
}

/// Every link of this network namespace.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let mut body = vec![0; IFINFO];
    body[0] = libc::AF_UNSPEC as u8;
    let answers = ask(
        SockProtocol::NetlinkRoute,
        RTM_GETLINK,
        NLM_F_REQUEST | NLM_F_DUMP,
        &body,
    )?;
    Ok(answers
        .iter()
        .filter(|(kind, _)| *kind == RTM_NEWLINK)
        .filter_map(|(_, body)| link(body))
        .collect())
}

/// The XDP features of each device, by interface index; `None` when this kernel is too old to say (before 6.3).
pub(super) fn xdp_features() -> io::Result<Option<Vec<(u32, XdpFeatures)>>> {
    let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    attribute(&mut body, CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answers = match ask(SockProtocol::NetlinkGeneric, GENL_ID_CTRL, NLM_F_REQUEST, &body) {
        Ok(answers) => answers,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let family = answers
        .iter()
        .filter_map(|(_, body)| body.get(GENL..))
        .flat_map(attributes)
        .find_map(|(kind, value)| (kind == CTRL_ATTR_FAMILY_ID).then(|| u16_of(value)).flatten());
    let Some(family) = family else { return Ok(None) };
    let body = [NETDEV_CMD_DEV_GET, 1, 0, 0];
    let answers = ask(
        SockProtocol::NetlinkGeneric,
        family,
        NLM_F_REQUEST | NLM_F_DUMP,
        &body,
    )?;
    Ok(Some(
        answers
            .iter()
            .filter_map(|(_, body)| device_features(body.get(GENL..)?))
            .collect(),
    ))
}

fn device_features(body: &[u8]) -> Option<(u32, XdpFeatures)> {
    let mut index = None;
    let mut features = None;
    for (kind, value) in attributes(body) {
        match kind {
            NETDEV_A_DEV_IFINDEX => index = u32_of(value),
            NETDEV_A_DEV_XDP_FEATURES => features = u64_of(value),
            _ => {}
        }
    }
    Some((index?, XdpFeatures(features?)))
}

/// The default gateways of every routing table, both families; next hops of several, too.
pub(crate) fn gateways() -> io::Result<Vec<IpAddr>> {
    let mut body = vec![0; RTMSG];
    body[0] = libc::AF_UNSPEC as u8;
    let answers = ask(
        SockProtocol::NetlinkRoute,
        libc::RTM_GETROUTE,
        NLM_F_REQUEST | NLM_F_DUMP,
        &body,
    )?;
    let routes = answers.iter().filter(|(kind, _)| *kind == libc::RTM_NEWROUTE);
    let mut found: Vec<IpAddr> = routes.flat_map(|(_, body)| gateways_of(body)).collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// The next hops of a route, if it is a default route.
fn gateways_of(body: &[u8]) -> Vec<IpAddr> {
    const PREFIX_LENGTH: usize = 1;
    let mut found = Vec::new();
    if body.len() < RTMSG || body[PREFIX_LENGTH] != 0 {
        return found;
    }
    for (kind, value) in attributes(&body[RTMSG..]) {
        if kind == libc::RTA_MULTIPATH {
            let mut hops = value;
            // A length, two bytes of flags, the interface, and attributes of its own.
            while let Some(length) = u16_of(hops).map(usize::from).filter(|length| *length >= 8) {
                let Some(hop) = hops.get(8..length) else { break };
                found.extend(attributes(hop).filter_map(|(kind, value)| gateway(kind, value)));
                hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        } else {
            found.extend(gateway(kind, value));
        }
    }
    found
}

fn gateway(kind: u16, value: &[u8]) -> Option<IpAddr> {
    let address = match kind {
        libc::RTA_GATEWAY => value,
        // A next hop of the other family: that family in front.
        libc::RTA_VIA => value.get(2..)?,
        _ => return None,
    };
    <[u8; 4]>::try_from(address)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from))
        .ok()
}

/// One request and every message of its answer, as (type, body).
fn ask(protocol: SockProtocol, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
    let socket: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend(1_u32.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(body);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;

    let dump = flags & NLM_F_DUMP != 0;
    let mut buffer = vec![0; BUFFER];
    let mut answers = Vec::new();
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        if read_messages(&buffer[..length], &mut answers)? || !dump {
            return Ok(answers);
        }
    }
}

/// Splits a datagram into its messages; true when it holds the end of the answer.
fn read_messages(mut datagram: &[u8], answers: &mut Vec<(u16, Vec<u8>)>) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_of(datagram), datagram.get(4..).and_then(u16_of)) {
        let length = length as usize;
        let Some(body) = datagram.get(HEADER..length) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a netlink message is cut short",
            ));
        };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = body.get(..4).and_then(u32_of).unwrap_or(0) as i32;
                return if code == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(-code))
                };
            }
            _ => answers.push((kind, body.to_vec())),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn link(body: &[u8]) -> Option<Link> {
    let flags = u32_of(body.get(8..)?)?;
    let has = |flag: libc::c_int| flags & flag as u32 != 0;
    let mut link = Link {
        index: u32_of(body.get(4..)?)?,
        up: has(libc::IFF_UP),
        running: has(libc::IFF_RUNNING),
        loopback: has(libc::IFF_LOOPBACK),
        ..Link::default()
    };
    for (kind, value) in attributes(body.get(IFINFO..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_MTU => link.mtu = u32_of(value).unwrap_or(0),
            libc::IFLA_MASTER => link.master = u32_of(value),
            libc::IFLA_LINKINFO => link_info(value, &mut link),
            libc::IFLA_XDP => link.xdp = xdp(value),
            _ => {}
        }
    }
    Some(link)
}

fn link_info(body: &[u8], link: &mut Link) {
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    const BOND_MODE: u16 = 1;
    let mut data = None;
    for (kind, value) in attributes(body) {
        match kind {
            KIND => link.kind = Some(text(value)),
            DATA => data = Some(value),
            _ => {}
        }
    }
    if link.kind.as_deref() == Some("bond") {
        link.bond_mode = data
            .into_iter()
            .flat_map(attributes)
            .find_map(|(kind, value)| (kind == BOND_MODE).then(|| value.first().copied()).flatten());
    }
}

fn xdp(body: &[u8]) -> Option<AttachedProgram> {
    const ATTACHED: u16 = 2;
    /// The program's id, and after it the ids of the native, the generic and the offloaded one.
    const FIRST_ID: u16 = 4;
    const LAST_ID: u16 = 7;
    let mut mode = None;
    let mut id = 0;
    for (kind, value) in attributes(body) {
        match kind {
            ATTACHED => {
                mode = match value.first() {
                    Some(1) => Some(AttachedMode::Native),
                    Some(2) => Some(AttachedMode::Generic),
                    Some(3) => Some(AttachedMode::Hardware),
                    Some(4) => Some(AttachedMode::Several),
                    _ => None,
                }
            }
            FIRST_ID..=LAST_ID if id == 0 => id = u32_of(value).unwrap_or(0),
            _ => {}
        }
    }
    Some(AttachedProgram { mode: mode?, id })
}

/// Appends an attribute, padded to four bytes.
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(((value.len() + 4) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The attributes of a message, as (type, value); stops at the first that does not fit.
fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_of(body)?);
        let kind = u16_of(body.get(2..)?)? & ATTRIBUTE_TYPE;
        let value = body.get(4..length)?;
        body = body.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn u16_of(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.first_chunk()?))
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.first_chunk()?))
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ifinfo(index: u32, flags: u32) -> Vec<u8> {
        let mut body = vec![0; IFINFO];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body
    }

    #[test]
    fn a_bond_with_a_program_is_read() {
        let mut body = ifinfo(7, (libc::IFF_UP | libc::IFF_RUNNING) as u32);
        attribute(&mut body, libc::IFLA_IFNAME, b"bond0\0");
        attribute(&mut body, libc::IFLA_MTU, &1500_u32.to_ne_bytes());
        let mut data = Vec::new();
        attribute(&mut data, 1, &[4]);
        let mut info = Vec::new();
        attribute(&mut info, 1, b"bond\0");
        attribute(&mut info, 2, &data);
        attribute(&mut body, libc::IFLA_LINKINFO, &info);
        let mut program = Vec::new();
        attribute(&mut program, 2, &[2]);
        attribute(&mut program, 4, &42_u32.to_ne_bytes());
        attribute(&mut program, 6, &42_u32.to_ne_bytes());
        // Nested attributes carry a flag in their type.
        attribute(&mut body, libc::IFLA_XDP | 0x8000, &program);
        assert_eq!(
            link(&body).unwrap(),
            Link {
                index: 7,
                name: "bond0".into(),
                up: true,
                running: true,
                loopback: false,
                mtu: 1500,
                kind: Some("bond".into()),
                master: None,
                bond_mode: Some(4),
                xdp: Some(AttachedProgram {
                    mode: AttachedMode::Generic,
                    id: 42
                }),
            }
        );
    }

    #[test]
    fn no_program_is_none() {
        let mut body = ifinfo(1, libc::IFF_LOOPBACK as u32);
        let mut program = Vec::new();
        attribute(&mut program, 2, &[0]);
        attribute(&mut body, libc::IFLA_XDP, &program);
        let link = link(&body).unwrap();
        assert_eq!(link.xdp, None);
        assert!(link.loopback && !link.up);
    }

    #[test]
    fn broken_messages_do_not_panic() {
        assert!(link(&[1, 2, 3]).is_none());
        let mut answers = Vec::new();
        let mut short = 64_u32.to_ne_bytes().to_vec();
        short.extend([0; 20]);
        assert!(read_messages(&short, &mut answers).is_err());
        let mut zero = vec![0; 32];
        zero[0] = 3;
        assert!(read_messages(&zero, &mut answers).is_err());
        assert_eq!(attributes(&[3, 0, 1, 0, 9]).count(), 0);
    }

    #[test]
    fn an_error_message_becomes_its_error() {
        let mut message = 20_u32.to_ne_bytes().to_vec();
        message.extend(NLMSG_ERROR.to_ne_bytes());
        message.extend([0; 10]);
        message.extend((-libc::ENOENT).to_ne_bytes());
        let error = read_messages(&message, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn gateways_are_those_of_default_routes() {
        let mut route = vec![0; RTMSG];
        attribute(&mut route, libc::RTA_GATEWAY, &[192, 0, 2, 1]);
        assert_eq!(gateways_of(&route), [IpAddr::from([192, 0, 2, 1])]);
        route[1] = 24;
        assert!(gateways_of(&route).is_empty(), "a route to a network");

        let mut hops = Vec::new();
        for last in [1, 2] {
            let mut hop = vec![0; 8];
            attribute(&mut hop, libc::RTA_GATEWAY, &[198, 51, 100, last]);
            let length = hop.len() as u16;
            hop[..2].copy_from_slice(&length.to_ne_bytes());
            hops.extend(hop);
        }
        let mut route = vec![0; RTMSG];
        attribute(&mut route, libc::RTA_MULTIPATH, &hops);
        let mut via = vec![libc::AF_INET6 as u8, 0, 0xfe, 0x80];
        via.resize(17, 0);
        via.push(1);
        attribute(&mut route, libc::RTA_VIA, &via);
        let found: Vec<String> = gateways_of(&route).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["198.51.100.1", "198.51.100.2", "fe80::1"]);
        assert!(gateways_of(&[0; 5]).is_empty());
    }

    #[test]
    fn this_kernel_lists_a_loopback() {
        let links = links().unwrap();
        assert!(
            links.iter().any(|link| link.loopback && link.name == "lo"),
            "{links:?}"
        );
    }

    #[test]
    fn features_are_bits() {
        assert!(XdpFeatures(0x21).native() && XdpFeatures(0x21).multi_buffer());
        assert!(!XdpFeatures(0x1e).native() && !XdpFeatures(0x1e).multi_buffer());
    }
}
