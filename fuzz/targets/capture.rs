//! Any bytes as a capture file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_tests::pcap;

fuzz_target!(|input: &[u8]| {
    if let Ok(capture) = pcap::parse(input) {
        let held: usize = capture.records.iter().map(|record| record.data.len()).sum();
        assert!(
            held <= input.len(),
            "{held} bytes of packets from {} bytes of file",
            input.len()
        );
    }
});
