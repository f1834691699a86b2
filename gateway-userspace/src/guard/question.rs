//! Asking the decision function what would become of the packets of those who are guarded.

use std::net::IpAddr;

use gateway_core::verdict::{Reason, Verdict};
use ipnet::IpNet;

use super::{Guarded, Session};
use crate::{
    bans::Scope,
    compile::CompileError,
    kernel::ListContents,
    policy::model::{DefaultAction, Policy},
    twin::Twin,
};

const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// A protocol number for experiments, which no service has; what becomes of it is only up to bans and lists.
const NO_SERVICE: u8 = 253;

/// Somebody whose packets would be dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cut {
    /// Who.
    pub who: Guarded,
    /// Why the packets would be dropped.
    pub reason: Reason,
    /// The session itself would go on, but its next connection would be refused.
    pub later: bool,
}

/// Those of `who` that a policy, with these contents of its lists and these bans, would cut off. A session is cut off
/// when a ban, a list or the default drops its packets or its next connection; an address of the host or a gateway
/// when a ban or a `drop` list does so. Limits cut nobody off.
///
/// # Errors
/// Where the policy does not fit the tables.
pub fn cut(
    policy: &Policy,
    contents: &ListContents,
    bans: &[(IpNet, Scope)],
    who: &[Guarded],
) -> Result<Vec<Cut>, CompileError> {
    let concerns = |prefix: &IpNet| who.iter().any(|guarded| prefix.contains(&guarded.address()));
    // The other prefixes decide nothing here, and a list may have a million of them.
    let contents: ListContents = contents
        .iter()
        .map(|(name, prefixes)| (name.clone(), prefixes.iter().copied().filter(concerns).collect()))
        .collect();
    let bans: Vec<&(IpNet, Scope)> = bans.iter().filter(|(prefix, _)| concerns(prefix)).collect();

    let mut policy = policy.clone();
    // Whether a session comes in a VLAN cannot be seen from here: the worse is assumed, that Weir looks at it.
    policy.scope.vlans.clear();
    let mut full = twin(&policy, &contents, &bans)?;
    policy.services.clear();
    policy.default.action = DefaultAction::Pass;
    let bare = twin(&policy, &contents, &bans)?;

    let locals: Vec<IpAddr> = who
        .iter()
        .filter_map(|guarded| match guarded {
            Guarded::Local(address) => Some(*address),
            _ => None,
        })
        .collect();
    for guarded in who {
        if let Guarded::Own(session) | Guarded::Other(session) = guarded {
            let (peer, port) = (session.peer.ip(), session.peer.port());
            for to in ends(session, &locals) {
                full.open_socket((TCP, (to, session.local.port()), (peer, port)));
            }
        }
    }
    let found = who.iter().filter_map(|guarded| match guarded {
        Guarded::Own(session) | Guarded::Other(session) => session_cut(&full, guarded, session, &locals),
        Guarded::Local(address) | Guarded::Gateway(address) => {
            let mut targets = locals.iter().filter(|local| local.is_ipv4() == address.is_ipv4());
            let dropped = targets.find_map(|to| dropped(&bare, &packet(*address, *to, NO_SERVICE, &[0; 20])));
            dropped.map(|reason| Cut {
                who: *guarded,
                reason,
                later: false,
            })
        }
    });
    Ok(found.collect())
}

fn twin(policy: &Policy, contents: &ListContents, bans: &[&(IpNet, Scope)]) -> Result<Twin, CompileError> {
    let mut twin = Twin::new(policy, contents, [0; 4], 1)?;
    for (prefix, scope) in bans {
        // A ban of a service that is not in force does nothing.
        if scope
            .as_ref()
            .is_none_or(|scope| policy.services.iter().any(|service| service.name == *scope))
        {
            twin.ban(*prefix, scope.as_deref(), u64::MAX)?;
        }
    }
    Ok(twin)
}

/// The addresses of this host that a session may be with.
fn ends(session: &Session, locals: &[IpAddr]) -> Vec<IpAddr> {
    let local = session.local.ip();
    if !local.is_unspecified() {
        return vec![local];
    }
    let same = locals.iter().filter(|other| other.is_ipv4() == local.is_ipv4());
    same.copied().collect()
}

fn session_cut(twin: &Twin, who: &Guarded, session: &Session, locals: &[IpAddr]) -> Option<Cut> {
    let (peer, port) = (session.peer.ip(), session.peer.port());
    ends(session, locals).into_iter().find_map(|to| {
        let judge = |from_port: u16, flags: u8| {
            let header = tcp(from_port, session.local.port(), flags);
            dropped(twin, &packet(peer, to, TCP, &header))
        };
        let now = judge(port, ACK).map(|reason| (reason, false));
        // The next connection comes from another port, so it answers no socket.
        let cut = now.or_else(|| judge(port ^ 1, SYN).map(|reason| (reason, true)));
        cut.map(|(reason, later)| Cut {
            who: *who,
            reason,
            later,
        })
    })
}

/// Why a frame would be dropped for good; nothing when it passes, or only a limit is in its way.
fn dropped(twin: &Twin, frame: &[u8]) -> Option<Reason> {
    let judgement = twin.judge(frame);
    let for_good = matches!(judgement.reason, Reason::Ban | Reason::List | Reason::DefaultDrop);
    (judgement.verdict == Verdict::Drop && for_good).then_some(judgement.reason)
}

fn tcp(source: u16, destination: u16, flags: u8) -> [u8; 20] {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    header
}

/// An Ethernet frame with one IP packet in it. Checksums are left at zero: nothing here looks at them.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = 20 + payload.len() as u16;
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (from, to) => {
            let v6 = |address: IpAddr| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((payload.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(v6(from).octets());
            frame.extend(v6(to).octets());
        }
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SERVICE: &str = "[[service]]\nname = \"ssh\"\nprotocol = \"tcp\"\nports = [22]\n";

    fn guarded() -> Vec<Guarded> {
        let session = |text: &str| text.parse::<Session>().unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        vec![
            Guarded::Own(session("192.0.2.7 50122 198.51.100.1 22")),
            Guarded::Other(session("2001:db8::7 50122 2001:db8:1::1 22")),
            Guarded::Local(address("198.51.100.1")),
            Guarded::Local(address("2001:db8:1::1")),
            Guarded::Gateway(address("198.51.100.254")),
            Guarded::Gateway(address("fe80::1")),
        ]
    }

    /// Who is cut off: addresses with the reason, `later` marked by a plus.
    fn answer(policy: &str, bans: &[(&str, Option<&str>)]) -> Vec<String> {
        let text = format!("version = 1\n{policy}");
        let policy = crate::policy::parse(&text, Path::new("/p.toml")).unwrap().policy;
        let contents = crate::policy::lists::contents(&policy, Path::new("/")).unwrap();
        let bans: Vec<(IpNet, Scope)> = bans
            .iter()
            .map(|(prefix, scope)| (prefix.parse().unwrap(), scope.map(Into::into)))
            .collect();
        let cuts = cut(&policy, &contents, &bans, &guarded()).unwrap();
        let show = |cut: &Cut| {
            let later = if cut.later { "+" } else { "" };
            format!("{}{later} {}", cut.who.address(), cut.reason.name())
        };
        cuts.iter().map(show).collect()
    }

    #[test]
    fn bans_cut_off_whom_they_cover() {
        assert!(answer("", &[("203.0.113.0/24", None)]).is_empty());
        assert_eq!(answer("", &[("192.0.2.7/32", None)]), ["192.0.2.7 ban"]);
        assert_eq!(answer("", &[("192.0.0.0/16", None)]), ["192.0.2.7 ban"]);
        assert_eq!(
            answer("", &[("198.51.100.0/24", None), ("fe80::/10", None)]),
            ["198.51.100.1 ban", "198.51.100.254 ban", "fe80::1 ban"]
        );
        assert_eq!(
            answer("", &[("2001:db8::/32", None)]),
            ["2001:db8::7 ban", "2001:db8:1::1 ban"]
        );
        let web = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n";
        assert!(
            answer(web, &[("192.0.2.7/32", Some("web"))]).is_empty(),
            "SSH goes on"
        );
        assert_eq!(
            answer(SERVICE, &[("192.0.2.7/32", Some("ssh"))]),
            ["192.0.2.7 ban"]
        );
        assert!(
            answer("mode = \"monitor\"\n", &[("192.0.2.7/32", None)]).is_empty(),
            "it is only counted"
        );
    }

    #[test]
    fn protected_sessions_are_not_cut_off() {
        let protect = "[[protect]]\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = ";
        assert!(answer(&format!("{protect}[22]\n"), &[("192.0.2.7/32", None)]).is_empty());
        assert_eq!(
            answer(&format!("{protect}[2222]\n"), &[("192.0.2.7/32", None)]),
            ["192.0.2.7 ban"],
            "another port is protected"
        );
        assert!(
            answer(
                "[[protect]]\nsources = [\"198.51.100.254/32\"]\n",
                &[("198.51.100.254/32", None)]
            )
            .is_empty()
        );
    }

    #[test]
    fn lists_cut_off_by_drop_and_by_only() {
        let drop = "[lists.bad]\naction = \"drop\"\nprefixes = [\"192.0.2.0/24\", \"198.51.100.254\"]\n";
        assert_eq!(answer(drop, &[]), ["192.0.2.7 list", "198.51.100.254 list"]);
        let narrower = "[lists.good]\naction = \"trust\"\nprefixes = [\"192.0.2.7\"]\n";
        assert_eq!(
            answer(&format!("{drop}{narrower}"), &[]),
            ["198.51.100.254 list"],
            "the longest prefix decides"
        );
        let office = "[lists.office]\nprefixes = [\"192.0.2.0/24\"]\n";
        let only = format!("{office}{SERVICE}only = [\"office\"]\n");
        assert_eq!(
            answer(&only, &[]),
            ["2001:db8::7 list"],
            "the other comes from no office"
        );
    }

    #[test]
    fn zero_trust_needs_a_way_in() {
        let default = "[default]\naction = \"drop\"\n";
        assert_eq!(
            answer(default, &[]),
            ["192.0.2.7+ default_drop", "2001:db8::7+ default_drop"],
            "the session is an answer to a socket, the next connection is not"
        );
        assert_eq!(
            answer(&format!("{default}replies = \"none\"\n"), &[]),
            ["192.0.2.7 default_drop", "2001:db8::7 default_drop"]
        );
        assert!(answer(&format!("{default}{SERVICE}"), &[]).is_empty());
        let tight = "[service.per_source]\nconnections = { rate = 1, burst = 1 }\nbytes = { rate = 1000, burst = 1600 }\n";
        assert!(
            answer(&format!("{default}{SERVICE}{tight}"), &[]).is_empty(),
            "limits cut nobody off"
        );
        let protect = "[[protect]]\nsources = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n";
        assert!(answer(&format!("{default}{protect}"), &[]).is_empty());
    }

    #[test]
    fn what_is_out_of_scope_passes() {
        let scope = "[scope]\naddresses = [\"203.0.113.0/24\"]\n";
        assert!(answer(scope, &[("192.0.2.7/32", None)]).is_empty());
    }
}
