//! How fast `weir replay` judges: packets a second on one core, from files that it makes itself.
//!
//! Each row is read from a file and judged, all rows in every round; the best of the rounds is what the code can do, for
//! other processes take time away and give none.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use weir::{
    capture::{ETHERNET, Reader},
    kernel::ListContents,
    policy::{self, model::Policy},
    replay::{Options, Replay},
};
use weir_tests::{
    frame::{ACK, Frame, QUIC_V1, SYN, scattered_sources},
    pcap::{self, Sent},
};

/// A policy that uses every tier, lists, a block and a reserve.
const POLICY: &str = r#"
version = 1
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24", "203.0.113.128/25", "2001:db8:bad::/48"]
[[service]]
name = "web"
protocol = ["tcp", "udp"]
ports = [80, 443]
[service.per_source]
packets = { rate = 2000, burst = 4000 }
bytes = { rate = "5MB", burst = "10MB" }
connections = { rate = 20, burst = 40 }
block = { for = "30s", drops = 1000, within = "10s" }
[service.per_network]
packets = { rate = "20k", burst = "40k" }
[service.total]
packets = { rate = "300k", burst = "600k" }
reserve = "20%"
"#;
/// The first packet's time: a Friday, 08:59 UTC.
const START_NS: u64 = 1_795_769_940_000_000_000;
/// A million packets a second.
const GAP_NS: u64 = 1000;

/// Every fifth packet asks for a connection, every tenth is to no service; from 54 to 1,454 bytes.
fn packets(count: usize, sources: usize) -> Vec<Sent> {
    let sources = scattered_sources(7, sources);
    (0..count)
        .map(|at| {
            // A step that is prime to every number of sources here, so that they come in no order.
            let source = sources[at * 7_919 % sources.len()].to_string();
            let port = if at % 10 == 9 { 8080 } else { 443 };
            let frame = Frame::new().ip(&source, "203.0.113.10");
            let data = match at % 10 {
                0 | 5 => frame.tcp(40_000, port, SYN).numbers(at as u32, 0).build(),
                1 => frame.quic_initial(40_000, port, QUIC_V1).build(),
                2 | 3 => frame.tcp(40_000, port, ACK).payload(&[0; 1400]).build(),
                _ => frame.tcp(40_000, port, ACK).build(),
            };
            Sent::arrived(START_NS + at as u64 * GAP_NS, data)
        })
        .collect()
}

struct Row {
    name: &'static str,
    file: PathBuf,
    policies: usize,
    times: Vec<Duration>,
}

fn rows(folder: &Path, count: usize) -> Result<Vec<Row>> {
    let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    };
    let many = packets(count, 1_000_000);
    let many = write("many.pcap", &pcap::pcap(&many))?;
    let few = packets(count, 1_000);
    let plain = pcap::pcap(&few);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain)?;
    let packed = write("few.pcap.gz", &encoder.finish()?)?;
    let blocks = write("few.pcapng", &pcap::pcapng(ETHERNET, &few))?;
    let plain = write("few.pcap", &plain)?;
    let row = |name, file: &PathBuf, policies| Row {
        name,
        file: file.clone(),
        policies,
        times: Vec::new(),
    };
    Ok(vec![
        row("pcap, a thousand sources", &plain, 1),
        row("pcapng", &blocks, 1),
        row("pcap, gzip", &packed, 1),
        row("pcap, a million sources", &many, 1),
        row("pcap, two policies compared", &plain, 2),
    ])
}

fn replay(row: &Row, policy: &Policy, count: usize) -> Result<Duration> {
    let lists = ListContents::default();
    let against = (row.policies == 2).then_some((policy, &lists));
    let mut replay = Replay::new((policy, &lists), against, &Options::default())?;
    let start = Instant::now();
    let mut reader = Reader::new(File::open(&row.file)?)?;
    while let Some(packet) = reader.next()? {
        replay.packet(&packet)?;
    }
    let took = start.elapsed();
    if replay.packets() != count as u64 {
        bail!("{} packets of {count} were judged", replay.packets());
    }
    Ok(took)
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-replay: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut as_json, mut rounds, mut count) = (false, 7, 2_000_000);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => as_json = true,
            "--quick" => (rounds, count) = (3, 500_000),
            other => bail!("no option {other}; there are --json and --quick"),
        }
    }
    let policy = policy::parse(POLICY, Path::new("bench.toml"))?.policy;
    let folder = tempfile::tempdir()?;
    let mut rows = rows(folder.path(), count)?;
    for _ in 0..rounds {
        for row in &mut rows {
            let took = replay(row, &policy, count)?;
            row.times.push(took);
        }
    }
    if !as_json {
        println!("{rounds} rounds of {count} packets on one core; million packets a second");
        println!("{:<32} {:>6} {:>8}", "ROW", "BEST", "MEDIAN");
    }
    let mut answer = serde_json::Map::new();
    for row in &mut rows {
        row.times.sort_unstable();
        let rate = |at: usize| count as f64 / row.times[at].as_secs_f64();
        let (best, median) = (rate(0), rate(row.times.len() / 2));
        if as_json {
            let rates = json!({ "best_packets_per_second": best, "median_packets_per_second": median });
            answer.insert(row.name.to_owned(), rates);
        } else {
            println!("{:<32} {:>6.2} {:>8.2}", row.name, best / 1e6, median / 1e6);
        }
    }
    if as_json {
        println!(
            "{}",
            json!({ "schema": 1, "rounds": rounds, "packets": count, "rows": answer })
        );
    }
    Ok(())
}
