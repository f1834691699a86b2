//! Watching instead of dropping, enforcing for a share of the sources, and classes.

use anyhow::{Result, ensure};
use weir_tests::site::{Site, counts, datagram, reason};

fn policy(global: &str, service: &str, more: &str) -> String {
    format!(
        "version = 1\n{global}\n[lists.mobile]\nprefixes = [\"10.64.0.0/10\"]\n[lists.bad]\naction = \"drop\"\nprefixes = [\"198.51.100.0/24\"]\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n{service}\n[service.per_source]\npackets = {{ rate = 1, burst = 10 }}\n{more}"
    )
}

#[test]
fn a_watching_node_drops_nothing_at_all() -> Result<()> {
    let site = Site::new()?;
    let block = "block = { for = \"30s\", drops = 5, within = \"10s\" }";
    let weir = site.weir(&policy("mode = \"monitor\"", "", block))?;
    site.send(&[datagram("192.0.2.1", 60)], 100)?;
    site.send(&[datagram("198.51.100.1", 60)], 7)?;
    let metrics = weir.metrics()?;
    let all = counts(&metrics, "web", &[]);
    ensure!(
        all.drop == 0 && (95..=97).contains(&all.would) && all.pass + all.would == 107,
        "{all:?}"
    );
    ensure!(reason(&metrics, "web", "block") == 0, "no block starts");
    ensure!(reason(&metrics, "web", "list") == 7, "the list is counted");
    Ok(())
}

#[test]
fn the_safer_of_two_modes_wins() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy("mode = \"enforce\"", "mode = \"monitor\"", ""))?;
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    site.send(&[datagram("198.51.100.1", 60)], 7)?;
    let all = counts(&weir.metrics()?, "web", &[]);
    ensure!((38..=40).contains(&all.would), "its buckets only watch: {all:?}");
    ensure!(all.drop == 7, "lists follow the node's mode: {all:?}");
    weir.apply(&policy("mode = \"monitor\"", "mode = \"enforce\"", ""))?
        .ok()?;
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(after.drop == 0 && after.would >= 46, "{after:?}");
    Ok(())
}

#[test]
fn a_share_of_the_sources_is_enforced() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy("", "enforce_share = \"50%\"", ""))?;
    let frames: Vec<Vec<u8>> = (0..400u32)
        .map(|n| datagram(&format!("10.1.{}.{}", n / 250, 1 + n % 250), 60))
        .collect();
    site.send(&frames, 400 * 30)?;
    let first = counts(&weir.metrics()?, "web", &[]);
    // 400 sources with 20 too many each: half of them are dropped, five standard deviations allowed.
    let share = first.drop as f64 / (first.drop + first.would) as f64;
    println!("{first:?}, share {share:.3}");
    ensure!((0.37..0.63).contains(&share), "{first:?}");
    site.send(&frames, 400 * 30)?;
    let second = counts(&weir.metrics()?, "web", &[]).since(first);
    let sources = |counted: u64| counted as f64 / 30.0;
    let expected = first.drop as f64 / 20.0;
    ensure!(
        (sources(second.drop) - expected).abs() < expected * 0.1,
        "the same sources: {first:?} {second:?}"
    );
    weir.apply(&policy("", "enforce_share = \"0%\"", ""))?.ok()?;
    site.send(&frames, 400)?;
    let none = counts(&weir.metrics()?, "web", &[]).since(first).since(second);
    ensure!(none.drop == 0, "none of them: {none:?}");
    Ok(())
}

#[test]
fn classes_have_limits_of_their_own() -> Result<()> {
    let site = Site::new()?;
    let class = "[service.total]\npackets = { rate = 1, burst = 200 }\n[[service.class]]\nname = \"mobile\"\nlists = [\"mobile\"]\n[service.class.per_source]\npackets = { rate = 1, burst = 40 }\n[service.class.total]\npackets = { rate = 1, burst = 100 }\n";
    let weir = site.weir(&policy("", "", class))?;
    site.send(&[datagram("192.0.2.1", 60)], 60)?;
    site.send(&[datagram("10.64.0.1", 60)], 60)?;
    let metrics = weir.metrics()?;
    let plain = counts(&metrics, "web", &[("class", "")]);
    let mobile = counts(&metrics, "web", &[("class", "mobile")]);
    ensure!((10..=12).contains(&plain.pass), "the service's: {plain:?}");
    ensure!((40..=42).contains(&mobile.pass), "the class's: {mobile:?}");
    let frames: Vec<Vec<u8>> = (2..20).map(|n| datagram(&format!("10.64.0.{n}"), 60)).collect();
    site.send(&frames, 18 * 20)?;
    let metrics = weir.metrics()?;
    let mobile = counts(&metrics, "web", &[("class", "mobile")]);
    ensure!(
        (100..=103).contains(&mobile.pass),
        "the class's total: {mobile:?}"
    );
    ensure!(reason(&metrics, "web", "class_packets") > 0, "is the reason");
    let watched = class.replace("lists = [\"mobile\"]", "lists = [\"mobile\"]\nmode = \"monitor\"");
    weir.apply(&policy("", "", &watched))?.ok()?;
    let before = counts(&weir.metrics()?, "web", &[]);
    site.send(&[datagram("10.64.0.1", 60)], 20)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        after.drop == 0 && after.would >= 17,
        "a class that only watches: {after:?}"
    );
    Ok(())
}
