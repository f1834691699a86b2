//! Interfaces that go, come back, change their names, go down and up, or are somebody else's.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    bpf::Stranger,
    bpffs::BpffsDir,
    command::finish,
    daemon::Daemon,
    link,
    sender::{Plan, Sender},
    site::{Counts, Site, counts, datagram},
};

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = { rate = 1, burst = 20 }\n";

/// Waits for a condition, for at most ten seconds.
fn wait(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let begun = Instant::now();
    while !reached()? {
        if begun.elapsed() > Duration::from_secs(10) {
            bail!("{what}: not within ten seconds");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(begun.elapsed())
}

/// What so many packets on an interface come to.
fn send(site: &Site, weir: &Daemon<'_>, device: &str, source: &str, count: u64) -> Result<Counts> {
    let before = counts(&weir.metrics()?, "web", &[]);
    let frame = datagram(source, 60);
    Sender::open(&site.client, device)?.send(&[frame], &Plan::count(count).on_cpu(0), || false)?;
    thread::sleep(Duration::from_millis(30));
    Ok(counts(&weir.metrics()?, "web", &[]).since(before))
}

#[test]
fn an_interface_that_comes_back_is_enforced_again() -> Result<()> {
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    let weir = Daemon::run(&site.node, &["eth0", "eth1"], POLICY)?;
    let first = send(&site, &weir, "eth1", "192.0.2.1", 50)?;
    ensure!((20..=22).contains(&first.pass), "{first:?}");
    site.client.delete_link("eth1")?;
    let status = weir.cli(&["status"])?;
    ensure!(
        status.code == 1 && status.stdout.contains("interface eth1 has vanished"),
        "{status:?}"
    );
    ensure!(weir.http("GET", "/readyz")?.0 == 503, "the node is not held");
    wait("the log says so", || {
        Ok(weir.log().contains("has vanished") && weir.log().contains("eth1"))
    })?;
    let other = send(&site, &weir, "eth0", "192.0.2.2", 50)?;
    ensure!(other.drop >= 28, "the other goes on: {other:?}");
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    let took = wait("attached again", || Ok(weir.cli(&["status"])?.code == 0))?;
    println!("enforced again {took:?} after it came back");
    let again = send(&site, &weir, "eth1", "192.0.2.1", 50)?;
    ensure!(
        again.pass <= 8 && again.pass + again.drop == 50,
        "the bucket kept its level: {again:?}"
    );
    let on_eth1 = counts(&weir.metrics()?, "web", &[("interface", "eth1")]);
    ensure!(
        on_eth1.pass + on_eth1.drop == 100,
        "the counters went on: {on_eth1:?}"
    );
    ensure!(weir.http("GET", "/readyz")?.0 == 200, "ready again");
    ensure!(weir.log().contains("enforced again"), "{}", weir.log());
    Ok(())
}

#[test]
fn an_interface_that_vanished_and_came_back_between_two_starts() -> Result<()> {
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    let mut weir = Daemon::run(&site.node, &["eth1"], POLICY)?;
    send(&site, &weir, "eth1", "192.0.2.1", 50)?;
    weir.stop_with(Signal::SIGKILL)?;
    site.client.delete_link("eth1")?;
    weir.start_failing()?.failed(1, "there is no interface eth1")?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    weir.start()?;
    let again = send(&site, &weir, "eth1", "192.0.2.1", 50)?;
    ensure!(again.pass <= 8 && again.pass + again.drop == 50, "{again:?}");
    Ok(())
}

#[test]
fn down_and_up_changes_nothing() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let first = send(&site, &weir, "eth0", "192.0.2.1", 50)?;
    ensure!((20..=22).contains(&first.pass), "{first:?}");
    site.node.down("eth0")?;
    weir.cli(&["status"])?.ok()?;
    site.node.up("eth0")?;
    site.node.wait_up("eth0")?;
    let again = send(&site, &weir, "eth0", "192.0.2.1", 50)?;
    ensure!(again.pass <= 6 && again.pass + again.drop == 50, "{again:?}");
    weir.cli(&["status"])?.ok()?;
    Ok(())
}

#[test]
fn a_renamed_interface_stays_enforced_and_its_new_name_is_followed() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    send(&site, &weir, "eth0", "192.0.2.1", 50)?;
    let (program, _) = site.node.xdp("eth0")?.unwrap_or_default();
    site.node.ip(&["link", "set", "eth0", "down"])?;
    site.node.ip(&["link", "set", "eth0", "name", "wan0"])?;
    site.node.up("wan0")?;
    site.node.wait_up("wan0")?;
    let renamed = send(&site, &weir, "eth0", "192.0.2.1", 50)?;
    ensure!(
        renamed.pass <= 6 && renamed.pass + renamed.drop == 50,
        "it stays enforced: {renamed:?}"
    );
    let status = weir.cli(&["status"])?;
    ensure!(
        status.code == 1 && status.stdout.contains("interface eth0 is called wan0 now"),
        "{status:?}"
    );
    weir.stop_with(Signal::SIGTERM)?;
    weir.start_failing()?
        .failed(1, "name wan0 in the policy or with --interface")?;
    ensure!(
        site.node.xdp("wan0")?.map(|(id, _)| id) == Some(program),
        "a start that fails changes nothing"
    );
    weir.set_interfaces(&["wan0"]);
    weir.start()?;
    weir.cli(&["status"])?.ok()?;
    let followed = send(&site, &weir, "eth0", "192.0.2.1", 50)?;
    ensure!(
        followed.pass <= 6 && followed.pass + followed.drop == 50,
        "taken over, bucket and all: {followed:?}"
    );
    ensure!(
        weir.log().contains("reused=true"),
        "in one step, without a gap: {}",
        weir.log()
    );
    Ok(())
}

#[test]
fn interfaces_that_exchange_their_names_keep_their_enforcement() -> Result<()> {
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    let mut weir = Daemon::run(&site.node, &["eth0", "eth1"], POLICY)?;
    weir.stop_with(Signal::SIGTERM)?;
    for (from, to) in [("eth0", "spare"), ("eth1", "eth0"), ("spare", "eth1")] {
        site.node.down(from)?;
        site.node.ip(&["link", "set", from, "name", to])?;
        site.node.up(to)?;
    }
    weir.start()?;
    ensure!(weir.log().matches("reused=true").count() == 2, "{}", weir.log());
    weir.cli(&["status"])?.ok()?;
    send(&site, &weir, "eth0", "192.0.2.1", 50)?;
    let (eth0, eth1) = (
        counts(&weir.metrics()?, "web", &[("interface", "eth0")]),
        counts(&weir.metrics()?, "web", &[("interface", "eth1")]),
    );
    ensure!(
        eth1.pass + eth1.drop == 50 && eth0 == Counts::default(),
        "counted by the names of now: {eth0:?} {eth1:?}"
    );
    Ok(())
}

/// A program that is there already is named, with what takes it off; it stays, and nothing of Weir's is left.
#[test]
fn another_program_is_named_and_never_replaced() -> Result<()> {
    let site = Site::new()?;
    let stranger = Stranger::load("acme_filter")?;
    for (native, mode) in [(true, "native"), (false, "generic")] {
        let link = stranger.link(&site.node, "eth0", native)?;
        let before = site.node.xdp("eth0")?;
        for choice in ["auto", "native", "generic"] {
            let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?.with_args(&["--xdp-mode", choice]);
            let output = weir.start_failing()?.failed(1, "already has an XDP program")?;
            for word in ["acme_filter", mode, "bpftool link detach id"] {
                ensure!(
                    output.stderr.contains(word),
                    "{choice} against {mode}: {word:?} is not in: {}",
                    output.stderr
                );
            }
            ensure!(!weir.bpffs_path().exists(), "nothing stays pinned");
            ensure!(
                site.node.xdp("eth0")? == before,
                "{choice}: the other one was touched"
            );
        }
        drop(link);
        wait("the other is off", || Ok(site.node.xdp("eth0")?.is_none()))?;
    }
    // By netlink, as `ip link` and most tools do it.
    let pins = BpffsDir::create()?;
    let pin = pins.path().join("acme");
    stranger.pin(&pin)?;
    // Not `ip -n`, which mounts a /sys of its own and so hides bpffs.
    let mut by_netlink = site.node.command("ip");
    by_netlink
        .args(["link", "set", "dev", "eth0", "xdpgeneric", "pinned"])
        .arg(&pin);
    finish(&mut by_netlink, None, Duration::from_secs(10))?.ok()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?;
    let output = weir.start_failing()?.failed(1, "acme_filter")?;
    let way_out = "ip link set dev eth0 xdpgeneric off";
    ensure!(output.stderr.contains(way_out), "{}", output.stderr);
    // And the way out is one.
    site.node
        .ip(&["link", "set", "dev", "eth0", "xdpgeneric", "off"])?;
    weir.start()?;
    Ok(())
}

/// All interfaces or none: what was attached before the refusal is taken off again.
#[test]
fn one_interface_that_refuses_leaves_none_attached() -> Result<()> {
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    let stranger = Stranger::load("acme_filter")?;
    let _link = stranger.link(&site.node, "eth1", true)?;
    let mut weir = Daemon::prepare(&site.node, &["eth0", "eth1"], POLICY)?;
    weir.start_failing()?
        .failed(1, "eth1 already has an XDP program: acme_filter")?;
    ensure!(site.node.xdp("eth0")?.is_none(), "all or none");
    ensure!(!weir.bpffs_path().exists(), "nothing stays pinned");
    Ok(())
}

/// A bridge has no XDP of its own: native mode says what is wrong, auto goes generic and says so.
#[test]
fn a_driver_that_refuses_native_mode() -> Result<()> {
    let site = Site::new()?;
    site.node.ip(&["link", "add", "br0", "type", "bridge"])?;
    site.node.up("br0")?;
    let mut native = Daemon::prepare(&site.node, &["br0"], POLICY)?.with_args(&["--xdp-mode", "native"]);
    let output = native
        .start_failing()?
        .failed(1, "cannot attach to br0 in native mode")?;
    ensure!(
        output.stderr.contains("weir doctor --interface br0"),
        "{output:?}"
    );
    ensure!(!native.bpffs_path().exists(), "nothing stays pinned");
    ensure!(site.node.xdp("br0")?.is_none(), "nothing is attached");
    let auto = Daemon::run(&site.node, &["br0"], POLICY)?;
    ensure!(
        auto.log().contains("no native XDP") && auto.log().contains("WARN"),
        "{}",
        auto.log()
    );
    let status = auto.cli(&["status"])?.ok()?;
    ensure!(status.stdout.contains("generic"), "{status:?}");
    Ok(())
}

#[test]
fn two_controllers_hold_two_interfaces_and_never_one() -> Result<()> {
    let site = Site::new()?;
    link::veth((&site.client, "eth1"), (&site.node, "eth1"))?;
    let first = site.weir(POLICY)?;
    let second = Daemon::prepare(&site.node, &["eth1"], POLICY)?;
    let mut second = second.listening_on(9465);
    second.start()?;
    for (weir, device) in [(&first, "eth0"), (&second, "eth1")] {
        let all = send(&site, weir, device, "192.0.2.1", 50)?;
        ensure!(
            (20..=22).contains(&all.pass) && all.pass + all.drop == 50,
            "each has its own buckets: {device}: {all:?}"
        );
    }
    let mut third = Daemon::prepare(&site.node, &["eth1"], POLICY)?.listening_on(9466);
    let output = third.start_failing()?.failed(1, "another weir's")?;
    ensure!(output.stderr.contains("weir detach"), "{output:?}");
    second.cli(&["detach"])?.ok()?;
    ensure!(
        site.node.xdp("eth1")?.is_none() && site.node.xdp("eth0")?.is_some(),
        "one was detached, the other not"
    );
    let still = send(&site, &first, "eth0", "192.0.2.1", 50)?;
    ensure!(still.pass <= 6 && still.pass + still.drop == 50, "{still:?}");
    Ok(())
}
