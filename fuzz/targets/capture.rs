//! Any bytes as a capture file: read in memory that does not depend on what the file claims.

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
    assert!(
        held <= input.len(),
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
