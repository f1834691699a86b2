//! Any bytes as a capture file, also as a compressed one: read in memory that does not depend on what the file claims.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::capture::{MAX_PACKET, Reader};

fuzz_target!(|input: &[u8]| {
    let Ok(mut reader) = Reader::new(input) else {
        return;
    };
    let mut held = 0;
    let end = loop {
        match reader.next() {
            Ok(Some(packet)) => {
                assert!(packet.data.len() <= MAX_PACKET as usize);
                held += packet.data.len();
            }
            end => break end.err(),
        }
    };
    // Deflate makes at most 1032 bytes of one.
    let packed = input.starts_with(&[0x1f, 0x8b]);
    let most = if packed { input.len() * 1032 } else { input.len() };
    assert!(
        held <= most,
        "{held} bytes of packets from {} bytes of file",
        input.len()
    );
    assert!(
        matches!(reader.next(), Ok(None)),
        "after the end there is nothing"
    );
    if let Some(error) = end {
        let _ = error.to_string();
    }
});
