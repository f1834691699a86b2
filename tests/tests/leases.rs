//! Leases of totals in the kernel: two CPUs that race for one total, and one that agrees with its twin.

use std::{
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use gateway_core::verdict::Verdict;
use weir::{
    kernel::{Dataplane, ListContents, TestProgram},
    policy,
    twin::Twin,
};
use weir_tests::{bpffs::BpffsDir, cpus::stay_on, frame::Frame, skip::require_root};

const MILLISECOND: u64 = 1_000_000;

fn text(rate: u64, burst: u64) -> String {
    format!(
        "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n\
         [service.total]\npackets = {{ rate = {rate}, burst = {burst} }}\n"
    )
}

fn frame() -> Vec<u8> {
    Frame::new()
        .ip("192.0.2.1", "203.0.113.10")
        .udp(40_000, 80)
        .build()
}

fn place(text: &str) -> Result<(Dataplane, policy::model::Policy, BpffsDir)> {
    let parsed = policy::parse(text, Path::new("leases.toml"))?.policy;
    let bpffs = BpffsDir::create()?;
    let (mut dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &parsed.source)?;
    dataplane.apply(&parsed, text, &ListContents::new(), &[])?;
    Ok((dataplane, parsed, bpffs))
}

fn passed(dataplane: &Dataplane) -> Result<u64> {
    let counters = dataplane.counters()?;
    let passed = counters
        .iter()
        .filter(|counter| counter.service == "web" && counter.reason == "pass");
    Ok(passed.map(|counter| counter.packets).sum())
}

/// Both CPUs run the program so often, at once. From before the first run to after the last, and how long the slower one's packets
/// took, to a nanosecond each: a call takes milliseconds more, because the kernel waits until its table of XDP programs is changed.
fn both_at_once(program: &TestProgram, repeat: u32) -> Result<(Duration, Duration)> {
    let (start, frame) = (Barrier::new(2), frame());
    let first = Instant::now();
    let spans = thread::scope(|scope| {
        [0, 1]
            .map(|cpu| {
                let (start, frame) = (&start, &frame);
                scope.spawn(move || -> Result<Duration> {
                    stay_on(cpu)?;
                    start.wait();
                    Ok(program.run(frame, repeat)?.1 * repeat)
                })
            })
            .map(|thread| thread.join().map_err(|_| anyhow!("a CPU's thread panicked"))?)
    });
    let outer = first.elapsed();
    let [one, other] = spans;
    Ok((outer, one?.max(other?)))
}

/// Two CPUs, each far faster than the total, get at most burst + rate × time, and at least that without the leases of one.
#[test]
fn two_cpus_on_one_total_pass_no_more_than_it_and_no_fewer_than_it_without_a_lease() -> Result<()> {
    const RATE: u64 = 1_000_000;
    const BURST: u64 = 200_000;
    require_root();
    let (mut dataplane, _, _bpffs) = place(&text(RATE, BURST))?;
    for cpus in [1, 2] {
        let program = dataplane.test_program_of(cpus, false)?;
        program.run(&frame(), 1)?;
        // Full again.
        thread::sleep(Duration::from_millis(400));
        let before = passed(&dataplane)?;
        let (outer, inner) = both_at_once(&program, 3_000_000)?;
        let passed = passed(&dataplane)? - before;
        let of = |time: Duration| (RATE as f64 * time.as_secs_f64()) as u64 + BURST;
        // Leases keep at most 0.1 % of a second's rate.
        let lease = if cpus == 1 { 0 } else { RATE / 1_000 };
        // The rate itself is rounded to one part in 2,048; a packet; and what a CPU was not there to take, for it was another's
        // turn: a thousandth of the time.
        let rounded = of(outer) / 2_048 + 1;
        println!(
            "as {cpus} CPUs: {passed} passed in {outer:?}, {inner:?} of packets; {} to {} allowed",
            of(inner) - lease - rounded,
            of(outer) + rounded
        );
        ensure!(passed <= of(outer) + rounded, "{passed} passed");
        ensure!(passed + lease + rounded >= of(inner), "{passed} passed");
    }
    Ok(())
}

/// Both CPUs come to hold leases; after rests shorter and longer than those last, both take all that there is while the clock stands. What
/// they held comes not on top of a full burst, to the packet.
#[test]
fn what_leases_hold_is_nothing_on_top_of_a_full_burst() -> Result<()> {
    const RATE: u64 = 10_000_000;
    const BURST: u64 = 100_000;
    // What leases may keep where there is one other CPU.
    const LEASE: u64 = RATE / 1_000;
    /// Packets of each CPU until it holds a lease, of which some is left.
    const WARM: u32 = 400;
    require_root();
    let (mut dataplane, _, _bpffs) = place(&text(RATE, BURST))?;
    let program = dataplane.test_program_of(2, true)?;
    let mut now_ns = 1_000_000 * MILLISECOND;
    for rest_ns in [
        0, 10_000, 100_000, 300_000, 1_000_000, 5_000_000, 9_000_000, 12_000_000,
    ] {
        // Full, and no lease.
        now_ns += 1_000 * MILLISECOND;
        dataplane.set_test_clock(now_ns)?;
        let before = passed(&dataplane)?;
        both_at_once(&program, WARM)?;
        let warm = passed(&dataplane)? - before;
        ensure!(warm == u64::from(2 * WARM), "{warm} of the first packets passed");
        now_ns += rest_ns;
        dataplane.set_test_clock(now_ns)?;
        both_at_once(&program, 200_000)?;
        let flood = passed(&dataplane)? - before - warm;
        let refilled = rest_ns * RATE / 1_000_000_000;
        let most = BURST.min(BURST + refilled - warm.min(BURST));
        println!("after {rest_ns} ns: {flood} of {most}");
        // The rate is rounded by up to one part in 2,048.
        let rounded = refilled.min(warm) / 2_048 + 1;
        ensure!(
            flood <= BURST && flood <= most + rounded && flood + LEASE >= most,
            "after {rest_ns} ns: {flood} passed, {most} could"
        );
    }
    Ok(())
}

/// One CPU's program and the twin, both as one of so many CPUs, decide alike at every packet: over bursts, rests and an empty total.
#[test]
fn the_twin_takes_the_leases_that_the_kernel_takes() -> Result<()> {
    require_root();
    for cpus in [2, 64] {
        let text = text(1_000_000, 3_000);
        let (mut dataplane, parsed, _bpffs) = place(&text)?;
        stay_on(0)?;
        let (key, lines) = dataplane.placement();
        let program = dataplane.test_program_of(cpus, true)?;
        let mut twin = Twin::new(&parsed, &ListContents::new(), key, lines)?;
        twin.set_cpus(cpus);
        let frame = frame();
        let mut now_ns = 1_000_000 * MILLISECOND;
        let mut refused = 0u32;
        for at in 0..24_000u64 {
            // Twice, four times and half the rate, then rests.
            now_ns += [500, 250, 2_000, 0][(at / 3_000 % 4) as usize];
            if at % 3_000 == 0 {
                now_ns += at / 3_000 % 7 * 2 * MILLISECOND;
            }
            dataplane.set_test_clock(now_ns)?;
            twin.set_clock(now_ns);
            let (kernel, twin) = (program.run(&frame, 1)?.0, twin.judge(&frame).verdict);
            ensure!(
                kernel == twin,
                "packet {at} as one of {cpus} CPUs: {kernel:?}, the twin {twin:?}"
            );
            refused += u32::from(kernel == Verdict::Drop);
        }
        ensure!(refused > 100, "the total was never empty: {refused} refused");
        println!("as one of {cpus} CPUs: {refused} of 24,000 refused, alike");
    }
    Ok(())
}
