//! The cells that say, at the price of one look, whether an answer to an offer may be awaited.

use std::collections::BTreeSet;

use gateway_core::proof;

const SECOND: u64 = 1_000_000_000;

#[test]
fn an_answer_is_awaited_while_its_offer_lives() {
    let life = (proof::OFFER_LIFE + 1) << 28;
    for offered in [0, 1, 5 * SECOND, 0x7fff << 30, 1 << 50] {
        let cell = proof::awaited(offered);
        for age in [0, 1, SECOND, life / 2, life] {
            assert!(proof::awaits(cell, offered + age), "{offered} {age}");
        }
        assert!(
            proof::awaits(cell, offered.saturating_sub(SECOND)),
            "another CPU's clock"
        );
        for age in [15, 60, 3_600, 30_000] {
            assert!(!proof::awaits(cell, offered + age * SECOND), "{offered} {age}");
        }
    }
    assert!(!proof::awaits(0, 5 * SECOND), "nobody was offered anything");
}

/// A peer's address and port.
type Peer = ([u32; 4], u32);

#[test]
fn peers_that_may_answer_have_cells_of_their_own() {
    // 10,000 peers: neighbours in IPv4, networks there, the same with few ports; neighbours in a /64 and in a site's /48 of IPv6, and its subnets;
    // one address with many ports.
    let peers: [fn(u32) -> Peer; 7] = [
        |peer| ([(0x0a00_0000 + peer).to_be(), 0, 0, 0], 443),
        |peer| ([(0x0a00_0000 + peer * 256).to_be(), 0, 0, 0], 443),
        |peer| ([(0x0a00_0000 + peer).to_be(), 0, 0, 0], 1_024 + peer % 7),
        |peer| ([0xb80d_0120, 0x0100_0000, 0, peer.to_be()], 1_024 + peer % 7),
        |peer| {
            (
                [0xb80d_0120, (peer / 100).to_be(), 0, (peer % 100).to_be()],
                40_000,
            )
        },
        |peer| ([0xb80d_0120, peer.to_be(), 0, 0x0100_0000], 40_000),
        |peer| ([0x0a00_0000_u32.to_be(), 0, 0, 0], 20_000 + peer),
    ];
    for peer in peers {
        let places: BTreeSet<usize> = (0..10_000)
            .map(peer)
            .map(|(address, port)| proof::awaited_at(&address, port as u16))
            .collect();
        // Balls into bins: of 10,000 in 2¹⁷ some 370 share one.
        assert!(places.len() > 9_400, "{}", places.len());
    }
}
