//! Dynamic bans, from the command line to the kernel and back.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    daemon::Daemon,
    site::{Counts, Site, counts, datagram, reason},
};

const POLICY: &str = r#"
version = 1
[[protect]]
sources = ["10.9.0.0/28"]
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[[service]]
name = "other"
protocol = "udp"
ports = [81]
"#;

/// What ten packets from a source come to.
fn ten(site: &Site, weir: &Daemon<'_>, source: &str) -> Result<Counts> {
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram(source, 80)], 10)?;
    Ok(counts(&weir.metrics()?, "web", &[]).since(before))
}

fn drops(site: &Site, weir: &Daemon<'_>, source: &str, expected: bool) -> Result<()> {
    let got = ten(site, weir, source)?;
    let wanted = if expected {
        Counts {
            drop: 10,
            ..Counts::default()
        }
    } else {
        Counts {
            pass: 10,
            ..Counts::default()
        }
    };
    ensure!(got == wanted, "{source}: {got:?}, not {wanted:?}");
    Ok(())
}

#[test]
fn addresses_and_prefixes_of_both_families() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    for (banned, inside, outside) in [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("198.51.100.0/24", "198.51.100.200", "198.51.101.1"),
        ("2001:db8:1::5", "2001:db8:1::5", "2001:db8:1::6"),
        ("2001:db8:2::/48", "2001:db8:2:ffff::1", "2001:db8:3::1"),
    ] {
        drops(&site, &weir, inside, false)?;
        weir.cli(&["ban", banned, "--reason", "a test"])?.ok()?;
        drops(&site, &weir, inside, true)?;
        drops(&site, &weir, outside, false)?;
        weir.cli(&["unban", banned])?.ok()?;
        drops(&site, &weir, inside, false)?;
    }
    weir.cli(&["unban", "192.0.2.1"])?.failed(1, "192.0.2.1")?;
    Ok(())
}

#[test]
fn the_kernel_ends_bans_and_a_wider_one_goes_on() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.cli(&["ban", "192.0.2.7", "--for", "2s"])?.ok()?;
    weir.cli(&["ban", "198.51.100.7", "--for", "1s"])?.ok()?;
    weir.cli(&["ban", "198.51.100.0/24", "--for", "1h"])?.ok()?;
    weir.stop_with(Signal::SIGKILL)?;
    std::thread::sleep(Duration::from_millis(2_300));
    site.send(&[datagram("192.0.2.7", 60)], 10)?;
    site.send(&[datagram("198.51.100.7", 60)], 10)?;
    weir.start()?;
    let all = counts(&weir.metrics()?, "web", &[]);
    ensure!(
        all.pass == 10 && all.drop == 10,
        "lapsed without a controller; the /24 lives on: {all:?}"
    );
    Ok(())
}

#[test]
fn bans_for_one_service_and_across_restarts() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    weir.cli(&[
        "ban",
        "192.0.2.9",
        "--service",
        "other",
        "--reason",
        "scraper, ticket 7",
    ])?
    .ok()?;
    drops(&site, &weir, "192.0.2.9", false)?;
    weir.cli(&["ban", "192.0.2.9", "--service", "web"])?.ok()?;
    drops(&site, &weir, "192.0.2.9", true)?;
    weir.stop_with(Signal::SIGTERM)?;
    weir.start()?;
    drops(&site, &weir, "192.0.2.9", true)?;
    let bans = weir.cli(&["bans", "--json"])?.ok()?.json()?;
    ensure!(bans["schema"] == 1, "{bans}");
    ensure!(bans.to_string().contains("scraper, ticket 7"), "{bans}");
    weir.cli(&["ban", "192.0.2.9", "--service", "nobody"])?
        .failed(1, "nobody")?;
    Ok(())
}

#[test]
fn ten_thousand_from_standard_input() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let mut feed = String::from("# a feed\n\n");
    for n in 0..10_000u32 {
        let _ = writeln!(feed, "10.{}.{}.{}", 16 + n / 65_536, n / 256 % 256, n % 256);
    }
    let took = weir
        .cli_with_input(&["ban", "-", "--for", "1h"], &feed)?
        .ok()?
        .took;
    println!("10,000 bans in {took:?}");
    drops(&site, &weir, "10.16.39.15", true)?;
    drops(&site, &weir, "10.17.0.1", false)?;
    ensure!(
        weir.metrics()?.sum("weir_bans", &[]) as u64 == 10_000,
        "all are counted"
    );
    weir.cli_with_input(&["ban", "-"], "192.0.2.1\nnonsense\n192.0.2.2/33\n")?
        .failed(2, "nonsense")?;
    drops(&site, &weir, "192.0.2.1", false)?;
    Ok(())
}

#[test]
fn bans_that_would_do_nothing_fail_and_say_why() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    weir.cli(&["ban", "10.9.0.3"])?.failed(1, "protect")?;
    weir.cli(&["ban", "198.51.100.0/24"])?.ok()?;
    weir.cli(&["ban", "198.51.100.7", "--for", "1h"])?
        .failed(1, "198.51.100.0/24")?;
    weir.cli(&["ban", "198.51.100.7/24"])?
        .failed(2, "198.51.100.0/24")?;
    ensure!(reason(&weir.metrics()?, "web", "ban") == 0, "nothing was sent");
    weir.apply(&POLICY.replace("version = 1", "version = 1\nmode = \"monitor\""))?
        .ok()?;
    let output = weir.cli(&["ban", "192.0.2.1"])?.ok()?;
    ensure!(
        format!("{}{}", output.stdout, output.stderr).contains("count"),
        "{output:?}"
    );
    ensure!(ten(&site, &weir, "192.0.2.1")?.would == 10, "only counted");
    Ok(())
}
