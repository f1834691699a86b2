//! What a packet costs: the kernel's own test-run over policies and frames, every row in every round, least and median
//! of the rounds side by side.
//!
//! The figures are for comparing rows of one run on one machine: shared machines drift between runs.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use weir::{
    kernel::{Dataplane, ListContents, TestProgram},
    policy,
};
use weir_tests::{
    bpffs::BpffsDir,
    frame::{ACK, Frame, SYN, TPID_8021Q},
};

/// A policy and a frame.
struct Row {
    name: &'static str,
    policy: String,
    frame: Vec<u8>,
    /// It goes out, and no verdict is asked for.
    leaves: bool,
}

/// A row made ready: its own maps and program.
struct Ready {
    name: &'static str,
    program: TestProgram,
    frame: Vec<u8>,
    leaves: bool,
    times: Vec<Duration>,
    _dataplane: Dataplane,
    _bpffs: BpffsDir,
}

/// Neither samples nor profiles.
const BLIND: &str = "one_in = 0";
/// Samples, as a policy that does not speak of them has them.
const SAMPLED: &str = "one_in = 1000";

const PASSED: &str = r#"
[service.per_source]
packets = { rate = "100M", burst = "8M" }
"#;
const DROPPED: &str = r"
[service.per_source]
packets = { rate = 1, burst = 1 }
";
const FULL: &str = r#"
[service.per_source]
packets = { rate = "100M", burst = "8M" }
bytes = { rate = "50GB", burst = "250MB" }
connections = { rate = 1000, burst = 1000 }
block = { for = "30s", drops = 1000, within = "10s" }
[service.per_network]
packets = { rate = "100M", burst = "8M" }
[service.total]
packets = { rate = "100M", burst = "8M" }
"#;
const LIST: &str = r#"
[lists.bad]
action = "drop"
prefixes = ["198.51.100.0/24", "203.0.113.128/25"]
"#;

/// A policy with one service: its sampling, what comes before it, its own keys and its limits.
fn policy_of(sampling: &str, before: &str, keys: &str, limits: &str) -> String {
    // Traffic to no service has a profile unless a policy says otherwise; then every packet is asked whether it has one.
    let default = if keys.contains("profile = false") {
        "[default]\nprofile = false\n"
    } else {
        ""
    };
    format!(
        "version = 1\n{default}[source]\nmax_tracked = 4096\n[sampling]\n{sampling}\n{before}\n[[service]]\nname = \"web\"\n\
         protocol = \"tcp\"\nports = [80]\n{keys}\n{limits}\n"
    )
}

fn rows() -> Vec<Row> {
    let ack = |frame: Frame| frame.ip("192.0.2.1", "203.0.113.10").tcp(40_000, 80, ACK).build();
    let plain = || ack(Frame::new());
    let data = || {
        let payload = vec![0; 1_000];
        Frame::new()
            .ip("192.0.2.1", "203.0.113.10")
            .tcp(40_000, 80, ACK)
            .payload(&payload)
            .build()
    };
    let six = Frame::new().ip("2001:db8:1::1", "2001:db8::10");
    let chain = six
        .clone()
        .hop_by_hop(1)
        .destination_options(1)
        .tcp(40_000, 80, ACK)
        .build();
    let blind = |limits: &str| policy_of(BLIND, "", "profile = false", limits);
    let row = |name, policy: String, frame| Row {
        name,
        policy,
        frame,
        leaves: false,
    };
    let leaving = |name, keys: &str, flags, payload: &[u8]| Row {
        name,
        policy: policy_of(BLIND, "", keys, PASSED),
        frame: Frame::new()
            .ip("203.0.113.10", "192.0.2.1")
            .tcp(80, 40_000, flags)
            .payload(payload)
            .build(),
        leaves: true,
    };
    let nothing = format!(
        "version = 1\n[source]\nmax_tracked = 4096\n[sampling]\n{BLIND}\n[default]\nprofile = false\n"
    );
    vec![
        row("no service", nothing, plain()),
        row("a service that only counts", blind(""), plain()),
        row("per source packets, passed", blind(PASSED), plain()),
        row("per source packets, dropped", blind(DROPPED), plain()),
        row(
            "the same, one VLAN tag",
            blind(DROPPED),
            ack(Frame::new().vlan(TPID_8021Q, 9)),
        ),
        row("the same, IPv6", blind(DROPPED), six.tcp(40_000, 80, ACK).build()),
        row("the same, two extension headers", blind(DROPPED), chain),
        row(
            "lists, three buckets, block, network, total",
            policy_of(BLIND, LIST, "profile = false", FULL),
            plain(),
        ),
        row("per source: blind", blind(PASSED), data()),
        row(
            "per source: sampled",
            policy_of(SAMPLED, "", "profile = false", PASSED),
            data(),
        ),
        row("per source: profile", policy_of(BLIND, "", "", PASSED), data()),
        row(
            "per source: profile, sampled (the default)",
            policy_of(SAMPLED, "", "", PASSED),
            data(),
        ),
        row(
            "per source: profile, a bare ACK",
            policy_of(BLIND, "", "", PASSED),
            plain(),
        ),
        row(
            "per source: profile and time",
            policy_of(BLIND, "", "time = true", PASSED),
            data(),
        ),
        row(
            "everything: profile, sampled",
            policy_of(SAMPLED, LIST, "", FULL),
            plain(),
        ),
        leaving("on the way out: data, profile", "", ACK, &[0; 1_000]),
        leaving("on the way out: SYN-ACK, profile", "", SYN | ACK, &[]),
        leaving(
            "on the way out: data, profile and time",
            "time = true",
            ACK,
            &[0; 1_000],
        ),
        leaving(
            "on the way out: SYN-ACK, profile and time",
            "time = true",
            SYN | ACK,
            &[],
        ),
    ]
}

fn ready(row: Row) -> Result<Ready> {
    let parsed = policy::parse(&row.policy, std::path::Path::new("bench.toml"))?.policy;
    let bpffs = BpffsDir::create()?;
    let (mut dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &parsed.source)?;
    let lists = policy::lists::contents(&parsed, std::path::Path::new("/"))?;
    let lists: ListContents = lists;
    dataplane.apply(&parsed, &row.policy, &lists, &[])?;
    let program = dataplane.test_program(false)?;
    Ok(Ready {
        name: row.name,
        program,
        frame: row.frame,
        leaves: row.leaves,
        times: Vec::new(),
        _dataplane: dataplane,
        _bpffs: bpffs,
    })
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut as_json, mut rounds, mut repeat) = (false, 15, 1_000_000);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => as_json = true,
            "--quick" => (rounds, repeat) = (5, 200_000),
            other => bail!("no option {other}; there are --json and --quick"),
        }
    }
    weir_tests::skip::require_root();
    let mut rows: Vec<Ready> = rows().into_iter().map(ready).collect::<Result<_>>()?;
    for _ in 0..rounds {
        for row in &mut rows {
            let time = if row.leaves {
                row.program.leaves(&row.frame, repeat)?
            } else {
                row.program.run(&row.frame, repeat)?.1
            };
            row.times.push(time);
        }
    }
    let kernel =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's version")?;
    let mut answer = BTreeMap::new();
    if !as_json {
        println!(
            "kernel {}; {rounds} rounds of {repeat} runs, all rows in each round; ns a packet",
            kernel.trim()
        );
        println!(
            "{:<46} {:>6} {:>8} {:>6} {:>12}",
            "ROW", "LEAST", "MEDIAN", "MOST", "VERIFIED"
        );
    }
    for row in &mut rows {
        row.times.sort_unstable();
        let ns = |at: usize| row.times[at].as_nanos() as u64;
        let (least, median, most) = (ns(0), ns(row.times.len() / 2), ns(row.times.len() - 1));
        if as_json {
            answer.insert(
                row.name,
                json!({ "least_ns": least, "median_ns": median, "most_ns": most }),
            );
        } else {
            println!(
                "{:<46} {least:>6} {median:>8} {most:>6} {:>12}",
                row.name,
                row.program.complexity()
            );
        }
    }
    if as_json {
        println!(
            "{}",
            json!({ "schema": 1, "kernel": kernel.trim(), "rounds": rounds, "runs": repeat, "rows": answer })
        );
    }
    Ok(())
}
