//! Any bytes as a frame: parsed and judged under policies that use every stage.

#![no_main]

use std::cell::RefCell;

use gateway_core::{
    frame::Slice,
    packet::{Network, Packet, UNTAGGED},
    parse::parse,
    verdict::Verdict,
};
use libfuzzer_sys::fuzz_target;
use weir::{kernel::ListContents, policy, twin::Twin};

/// What goes before a frame: the policy, the time that has passed, whether it leaves, and where it is cut.
const CONTROL: usize = 4;
/// Lines of the source table: so few that they fill.
const LINES: u32 = 64;

const POLICIES: [&str; 3] = [
    include_str!("../policies/everything.toml"),
    include_str!("../policies/zero_trust.toml"),
    include_str!("../policies/hostile.toml"),
];

thread_local! {
    static TWINS: RefCell<Vec<(Twin, u64)>> = RefCell::new(POLICIES.iter().map(|text| (twin(text), 1 << 40)).collect());
}

fn twin(text: &str) -> Twin {
    let parsed = policy::parse(text, std::path::Path::new("fuzz.toml")).expect("a policy of ours");
    let contents: ListContents = parsed
        .policy
        .lists
        .iter()
        .map(|list| (list.name.clone(), list.prefixes.clone()))
        .collect();
    Twin::new(&parsed.policy, &contents, [3, 1, 4, 1], LINES).expect("a policy of ours fits")
}

fuzz_target!(|input: &[u8]| {
    let Some((control, frame)) = input.split_at_checked(CONTROL) else {
        return;
    };
    let whole = parse(&Slice::whole(frame));
    if let Ok(packet) = &whole {
        check(frame, packet);
    }
    // What is cut off is malformed, or an LLC frame too short to say what it carries, or has the same source.
    let cut = frame.len() * usize::from(control[3]) / 256;
    if let (Ok(packet), Ok(shorter)) = (&whole, parse(&Slice::whole(&frame[..cut])))
        && !matches!(shorter.network, Network::Other(_))
    {
        assert_eq!((shorter.network, shorter.source), (packet.network, packet.source));
    }
    TWINS.with_borrow_mut(|twins| {
        let at = usize::from(control[0]) % twins.len();
        let (twin, now_ns) = &mut twins[at];
        // From nothing to days.
        *now_ns += 1u64 << (control[1] % 48);
        twin.set_clock(*now_ns);
        if control[2] & 1 == 1 {
            return twin.leaves(frame);
        }
        let judgement = twin.judge(frame);
        assert_eq!(judgement.reason.drops(), judgement.verdict != Verdict::Pass);
        assert_eq!(whole.is_err(), judgement.reason.name() == "malformed");
        twin.notices();
    });
});

/// What every parsed packet satisfies, and the plainest frames read by hand.
fn check(frame: &[u8], packet: &Packet) {
    assert_eq!(packet.length as usize, frame.len());
    let tcp_or_quic = matches!(packet.protocol, 6 | 17);
    assert!(!packet.connection || tcp_or_quic, "{packet:?}");
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    let word = |at: usize| u32::from_ne_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    match ethertype {
        0x0800 => {
            assert_eq!((packet.network, packet.vlan), (Network::V4, UNTAGGED));
            assert_eq!(packet.source, [word(26), 0, 0, 0]);
            assert_eq!(packet.destination, [word(30), 0, 0, 0]);
            assert_eq!(packet.protocol, frame[23]);
        }
        0x86dd => {
            assert_eq!((packet.network, packet.vlan), (Network::V6, UNTAGGED));
            assert_eq!(packet.source, [word(22), word(26), word(30), word(34)]);
            assert_eq!(packet.destination, [word(38), word(42), word(46), word(50)]);
        }
        _ => {}
    }
}
