//! The three phases, in order.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use weir_tests::{daemon::Daemon, http::Size, metrics::Metrics, netns::Netns, shoppers::Shoppers};

use crate::{
    interrupt::Interrupt,
    lab::{BOT_CONNECTIONS, BOT_PACKETS, BOTS, Lab, SHOPPER_PATIENCE, SHOPPERS, UPLINK},
    report::{self, Row},
};

/// How long each phase is measured.
const MEASURE: Duration = Duration::from_secs(12);
/// How long a phase runs before it is measured, until queues and timeouts reflect it.
const SETTLE: Duration = Duration::from_secs(3);
/// What the demo promises when the policy is enforced; less is a failure, and the exit code says so.
const HELD_PERCENT: f64 = 95.0;

/// The policy, first only watched and then enforced: nothing but `mode` differs.
fn policy(mode: &str) -> String {
    format!(
        r#"version = 1
interfaces = ["{UPLINK}"]
mode = "{mode}"

[[service]]
name = "storefront"
protocol = ["tcp", "udp"]
ports = [80, 443]
  [service.per_source]
  packets     = {{ rate = 200, burst = 400 }}
  connections = {{ rate = 5, burst = 20 }}
  block       = {{ for = "1m", drops = 100, within = "10s" }}
"#
    )
}

/// Prints lines with the time since the start. A closed pipe is an error like any other, so that the
/// laboratory is taken down.
struct Narrator {
    start: Instant,
}

impl Narrator {
    fn say(&self, text: &str) -> Result<()> {
        plain(&format!("[{:5.1} s] {text}", self.start.elapsed().as_secs_f64()))
    }
}

/// Prints a line without the time.
fn plain(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Runs the whole demo; says whether Weir held the flood.
pub(crate) fn tell(interrupt: &Interrupt, keep: bool) -> Result<bool> {
    let narrator = Narrator {
        start: Instant::now(),
    };
    let held = phases(&narrator, interrupt, keep)?;
    narrator.say("everything is taken down again")?;
    Ok(held)
}

/// Builds the laboratory, goes through the phases and takes it down.
fn phases(narrator: &Narrator, interrupt: &Interrupt, keep: bool) -> Result<bool> {
    let size = Size::default();
    plain(&format!(
        "Weir, demonstrated. A storefront ({} workers, real HTTP) serves {SHOPPERS} shoppers, who give a page up\n\
         after {} s. Then {BOTS} bots open {} connections a second, half of them to hold a worker and say nothing,\n\
         and send {} UDP packets a second. First Weir only watches; then the same policy is enforced, live.\n\
         All of it lives in network namespaces of its own.\n",
        size.workers,
        SHOPPER_PATIENCE.as_secs(),
        report::group(BOT_CONNECTIONS),
        report::group(BOT_PACKETS),
    ))?;
    let lab = Lab::build()?;
    let storefront = lab.open_storefront(size)?;
    narrator.say(&format!(
        "the laboratory is up: the storefront listens on http://{}",
        storefront.address()
    ))?;
    let weir = Daemon::run(&lab.storefront, &[UPLINK], &policy("monitor"))
        .context("cannot run Weir on the storefront")?;
    narrator.say(&format!(
        "`weir run` holds the storefront's {UPLINK} ({}), ready after {} ms",
        attached(&weir.metrics()?),
        weir.ready_after().as_millis()
    ))?;
    let shoppers = lab.send_shoppers()?;
    let phase = Phase {
        interrupt,
        narrator,
        shoppers: &shoppers,
        weir: &weir,
        bots: &lab.bots,
    };

    let calm = phase.measure("calm", "1 of 3, calm: shoppers only")?;
    let _attack = lab.attack()?;
    let watched = phase.measure(
        "flood, monitor",
        "2 of 3: the bots flood, Weir only watches (mode = \"monitor\")",
    )?;
    let applied = weir.apply(&policy("enforce"))?.ok()?;
    narrator.say(&format!(
        "`weir policy apply` with mode = \"enforce\" took {} ms",
        applied.took.as_millis()
    ))?;
    let held = phase.measure(
        "flood, enforce",
        "3 of 3: the same flood, the same policy, enforced",
    )?;

    let ok = held.shoppers.success_percent() >= HELD_PERCENT;
    plain(&format!("\n{}", report::table(&[calm, watched, held])))?;
    plain(
        "Pages: what the shoppers asked for in 12 seconds; a page given up counts with the time waited for it.\n\
         Bot packets: what the bots put on their wire. Dropped and why: from Weir's own /metrics.",
    )?;
    if !ok {
        plain(&format!(
            "\nThe flood was NOT held: fewer than {HELD_PERCENT} % of the pages were served. Weir's log:\n{}",
            weir.log()
        ))?;
    }
    if keep {
        plain(&to_try(&lab, &weir))?;
        while !interrupt.asked() {
            std::thread::sleep(Duration::from_millis(100));
        }
        plain("")?;
    }
    Ok(ok)
}

/// What every phase is measured with.
struct Phase<'a> {
    interrupt: &'a Interrupt,
    narrator: &'a Narrator,
    shoppers: &'a Shoppers,
    weir: &'a Daemon<'a>,
    bots: &'a Netns,
}

impl Phase<'_> {
    /// Lets the phase settle, then measures it.
    fn measure(&self, name: &'static str, title: &str) -> Result<Row> {
        self.narrator.say(&format!("phase {title}"))?;
        self.interrupt.sleep(SETTLE)?;
        let (metrics, sent) = (self.weir.metrics()?, self.bots.stats(UPLINK)?.tx_packets);
        self.shoppers.take();
        self.interrupt.sleep(MEASURE)?;
        let shoppers = self.shoppers.take();
        let (after, sent_after) = (self.weir.metrics()?, self.bots.stats(UPLINK)?.tx_packets);
        self.narrator.say(&format!(
            "  {} of {} pages served, {:.1} %",
            shoppers.served,
            shoppers.visits,
            shoppers.success_percent()
        ))?;
        Ok(Row {
            phase: name,
            shoppers,
            bot_packets: sent_after - sent,
            dropped: difference(&metrics, &after, "drop"),
            would_drop: difference(&metrics, &after, "would_drop"),
        })
    }
}

/// The packets of one verdict between two scrapes, by reason.
fn difference(before: &Metrics, after: &Metrics, verdict: &str) -> BTreeMap<String, u64> {
    let reasons = |metrics: &Metrics| metrics.by("weir_packets_total", "reason", &[("verdict", verdict)]);
    let earlier = reasons(before);
    reasons(after)
        .into_iter()
        .map(|(reason, packets)| {
            let new = packets - earlier.get(&reason).copied().unwrap_or(0.0);
            (reason, new as u64)
        })
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

/// How Weir is attached, in words.
fn attached(metrics: &Metrics) -> String {
    let modes = metrics.by("weir_attached", "xdp_mode", &[("interface", UPLINK)]);
    modes
        .into_keys()
        .next()
        .map_or_else(|| "not attached".to_owned(), |mode| format!("XDP, {mode} mode"))
}

/// Commands for the laboratory that `--keep` leaves up.
fn to_try(lab: &Lab, weir: &Daemon<'_>) -> String {
    let (program, socket) = (weir.binary().display(), weir.socket_path());
    let (policy, socket) = (weir.policy_path(), socket.display());
    let (inside, crowd) = (lab.storefront.path(), lab.shoppers.path());
    let (policy, inside, crowd) = (policy.display(), inside.display(), crowd.display());
    let (target, metrics, network) = (Lab::target(), Daemon::listen_address(), Lab::bot_network());
    format!(
        "
The laboratory stays up until Ctrl-C, shoppers and bots included. In another terminal, as root, try:

  {program} status --socket {socket}
  {program} ban {network} --for 1m --reason demo --socket {socket}
  {program} bans --socket {socket}
  {program} policy show --socket {socket}
  {program} bypass --for 30s --socket {socket}      # let everything pass, and watch the shop suffer
  {program} lever clear --socket {socket}
  $EDITOR {policy}
  {program} policy apply {policy} --socket {socket}
  nsenter --net={inside} curl -s http://{metrics}/metrics
  nsenter --net={crowd} curl -m 2 http://{target}/     # shop yourself
"
    )
}
