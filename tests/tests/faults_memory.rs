//! Memory that the kernel refuses, a controller that it kills for it, and a source table that is full.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    cgroup::MemoryGroup,
    daemon::Daemon,
    frame::{Frame, scattered_sources},
    site::{Counts, Site, counts, datagram},
    skip,
};

fn policy(more: &str) -> String {
    format!(
        "version = 1\n{more}\n[lists.bad]\naction = \"drop\"\nprefixes = [\"198.51.100.0/24\"]\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = {{ rate = 1, burst = 20 }}\n"
    )
}

/// A controller that is in a memory group from its first moment on.
fn bounded<'n>(site: &'n Site, group: &MemoryGroup, policy: &str) -> Result<Daemon<'n>> {
    let weir = Daemon::prepare(&site.node, &["eth0"], policy)?;
    let processes = group.processes().to_string_lossy().into_owned();
    Ok(weir.wrapped(&["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", &processes]))
}

fn send(site: &Site, weir: &Daemon<'_>, source: &str, count: u64) -> Result<Counts> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram(source, 60)], count)?;
    Ok(counts(&weir.metrics()?, "web", &[]).since(before))
}

/// 64 million slots are 585 MB; the group may have 200. Nothing is attached, and the sentence names the knob.
#[test]
fn a_source_table_too_large_for_the_machine_is_refused() -> Result<()> {
    let Some(group) = MemoryGroup::create()? else {
        skip::skip(
            "a_source_table_too_large_for_the_machine_is_refused",
            "this machine offers no memory controller",
        );
        return Ok(());
    };
    let site = Site::new()?;
    group.limit(200 << 20)?;
    let mut weir = bounded(&site, &group, &policy("[source]\nmax_tracked = 64_000_000"))?;
    let output = weir.start_failing()?.failed(1, "max_tracked")?;
    ensure!(output.stderr.contains("no memory"), "{output:?}");
    ensure!(
        site.node.xdp("eth0")?.is_none() && !weir.bpffs_path().exists(),
        "nothing is left"
    );
    // A node that is enforced already goes on with the table that it has.
    weir.write_policy(&policy(""))?;
    weir.start()?;
    let first = send(&site, &weir, "192.0.2.1", 50)?;
    ensure!((20..=22).contains(&first.pass), "{first:?}");
    weir.stop_with(Signal::SIGTERM)?;
    weir.write_policy(&policy("[source]\nmax_tracked = 64_000_000"))?;
    weir.start_failing()?.failed(1, "max_tracked")?;
    ensure!(site.node.xdp("eth0")?.is_some(), "still attached");
    weir.write_policy(&policy(""))?;
    weir.start()?;
    let again = send(&site, &weir, "192.0.2.1", 50)?;
    ensure!(
        again.pass <= 8 && again.pass + again.drop == 50,
        "the bucket kept its level: {again:?}"
    );
    Ok(())
}

/// A feed of a hundred thousand prefixes needs more memory than the group has left: the kernel refuses, or kills the
/// controller. Either way packets are judged by what was in force, and the next start goes on from there.
#[test]
fn a_controller_killed_for_its_memory_loses_nothing() -> Result<()> {
    let Some(group) = MemoryGroup::create()? else {
        skip::skip(
            "a_controller_killed_for_its_memory_loses_nothing",
            "this machine offers no memory controller",
        );
        return Ok(());
    };
    let site = Site::new()?;
    let mut weir = bounded(&site, &group, &policy("[source]\nmax_tracked = 10_000"))?;
    weir.start()?;
    weir.cli(&["ban", "192.0.2.66"])?.ok()?;
    let first = send(&site, &weir, "192.0.2.1", 50)?;
    ensure!((20..=22).contains(&first.pass), "{first:?}");
    let before = counts(&weir.metrics()?, "web", &[]);
    let feed: String = (0..100_000u32).fold(String::new(), |text, n| {
        text + &format!(
            "10.{}.{}.0/24\n11.{}.{}.0/24\n",
            n / 256 % 256,
            n % 256,
            n / 256 % 256,
            n % 256
        )
    });
    group.limit(group.usage()? + (2 << 20))?;
    let output = weir.cli_with_input(&["list", "replace", "bad", "-", "--force"], &feed)?;
    ensure!(output.code == 1, "{output:?}");
    std::thread::sleep(Duration::from_millis(200));
    let ended = weir.poll_exit()?;
    println!("the controller ended: {ended:?}; {}", output.stderr.trim());
    if ended.is_none() {
        weir.stop_with(Signal::SIGKILL)?;
    }
    site.send(&[datagram("192.0.2.1", 60), datagram("192.0.2.66", 60)], 100)?;
    group.limit(1 << 30)?;
    weir.start()?;
    let during = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        during.pass <= 10 && during.pass + during.drop == 100,
        "judged and counted without it: {during:?}"
    );
    let banned = send(&site, &weir, "192.0.2.66", 10)?;
    ensure!(banned.drop == 10, "the ban stays: {banned:?}");
    let listed = send(&site, &weir, "198.51.100.9", 10)?;
    ensure!(listed.drop == 10, "so does the list as it was: {listed:?}");
    weir.cli(&["status"])?.ok()?;
    Ok(())
}

/// 1,029 slots and four thousand sources in debt: those that found no slot share the overflow bucket, which holds to the
/// same rate and burst, and are counted; a source that has a slot keeps its own bucket.
#[test]
fn a_full_source_table_counts_and_holds() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(
        &policy("[source]\nmax_tracked = 1024").replace("rate = 1, burst = 20", "rate = 1, burst = 2"),
    )?;
    // First one source fills its bucket; the flood must not give it another.
    let own = send(&site, &weir, "192.0.2.1", 10)?;
    ensure!((2..=3).contains(&own.pass), "{own:?}");
    let frames: Vec<Vec<u8>> = scattered_sources(3, 4_000)
        .into_iter()
        .map(|source| {
            Frame::new()
                .ips(source.into(), [10, 77, 0, 2].into())
                .udp(4000, 80)
                .payload(&[0; 18])
                .build()
        })
        .collect();
    let before = counts(&weir.metrics()?, "web", &[]);
    let begun = std::time::Instant::now();
    let sent = site.send(&frames, 12_000)?;
    let metrics = weir.metrics()?;
    let all = counts(&metrics, "web", &[]).since(before);
    let overflow = metrics.sum("weir_source_overflow_total", &[]) as u64;
    let seconds = begun.elapsed().as_secs() + 1;
    ensure!(all.pass + all.drop == sent.frames, "{all:?} of {}", sent.frames);
    ensure!(overflow > 6_000, "most found no slot: {overflow}");
    // At most every slot's burst and refill, and the overflow bucket's.
    let most = (1_029 + 1) * (2 + seconds);
    ensure!(all.pass <= most, "{all:?}, at most {most}");
    let again = send(&site, &weir, "192.0.2.1", 10)?;
    ensure!(
        again.pass as u64 <= seconds + 2,
        "it won no fresh bucket: {again:?}"
    );
    let begun = std::time::Instant::now();
    loop {
        let status = weir.cli(&["status"])?;
        if status.code == 1
            && status.stdout.contains("overflow bucket")
            && status.stdout.contains("max_tracked")
        {
            break;
        }
        if begun.elapsed() > Duration::from_secs(15) {
            bail!("status says nothing of it: {status:?}");
        }
        site.send(&frames, 4_000)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Each of the three capabilities is named when it is the one that is missing.
#[test]
fn a_missing_capability_is_named() -> Result<()> {
    let site = Site::new()?;
    for (kept, missing) in [
        ("+net_admin,+perfmon", "CAP_BPF"),
        ("+bpf,+perfmon", "CAP_NET_ADMIN"),
        ("+bpf,+net_admin", "CAP_PERFMON"),
    ] {
        // Files may be written all the same, so that only the kernel's answer decides.
        let bounds = format!("-all,{kept},+dac_override,+setpcap");
        let mut weir = Daemon::prepare(&site.node, &["eth0"], &policy(""))?.wrapped(&[
            "setpriv",
            "--bounding-set",
            &bounds,
            "--inh-caps=-all",
        ]);
        let output = weir.start_failing()?;
        ensure!(
            output.code == 1 && output.stderr.contains(&format!("lacks {missing}:")),
            "{missing}: {output:?}"
        );
        ensure!(output.stderr.contains("AmbientCapabilities"), "{output:?}");
        ensure!(
            site.node.xdp("eth0")?.is_none() && !weir.bpffs_path().exists(),
            "{missing}: nothing is left"
        );
    }
    Ok(())
}
