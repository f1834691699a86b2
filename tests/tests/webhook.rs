//! The webhook of a real controller: a receiver on the node's loopback hears of an attack, signed, as often as it takes; one
//! that is not there misses it, which is counted and told once. And what a policy names besides lists must be usable.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::Sha256;
use weir_tests::{
    command::patience,
    daemon::Daemon,
    flood::Flood,
    frame::{Frame, SYN, scattered_sources},
    http::{Size, Storefront},
    receiver::{Posted, Receiver},
    sender::Plan,
    site::Site,
};

const SECRET: &str = "correct horse battery staple";
/// What no log, status or error may show.
const TOKEN: &str = "T0KEN";
/// A flood must be told within this, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(15);
/// And its end: after ten seconds without.
const OVER: Duration = Duration::from_secs(40);

fn policy(port: u16, rest: &str) -> String {
    format!(
        "version = 1\n[sampling]\none_in = 20\n[anomaly.webhook]\nurl = \"http://127.0.0.1:{port}/hook/{TOKEN}\"\n{rest}\n\
         [[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n"
    )
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// SYNs that nobody will complete: even who has learned nothing knows them.
fn flood(site: &Site) -> Result<Flood> {
    let sources = scattered_sources(7, 20_000);
    let frames = sources.into_iter().zip(1_024_u16..).map(|(source, port)| {
        let frame = Frame::new().ip(&source.to_string(), "10.77.0.2");
        frame.tcp(port, 80, SYN).build()
    });
    let plan = Plan::rate(10_000, Duration::from_mins(2)).relaxed();
    Flood::start(&site.client, "eth0", frames.collect(), plan)
}

/// Whether somebody with this secret said so, and when: seconds since 1970.
fn verified(posted: &Posted, secret: &str) -> Result<Option<u64>> {
    let header = posted.header("weir-signature").context("it is not signed")?;
    let (time, sum) = header
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v1="))
        .with_context(|| format!("no signature: {header}"))?;
    let bytes = (0..sum.len())
        .step_by(2)
        .map(|at| {
            Ok(u8::from_str_radix(
                sum.get(at..at + 2).context("half a byte")?,
                16,
            )?)
        })
        .collect::<Result<Vec<u8>>>()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(&posted.body);
    Ok(mac.verify_slice(&bytes).is_ok().then_some(time.parse()?))
}

fn json(posted: &Posted) -> Result<Value> {
    Ok(serde_json::from_slice(&posted.body)?)
}

fn delivery(posted: &Posted) -> Result<&str> {
    posted.header("weir-delivery").context("no Weir-Delivery")
}

fn lost(weir: &Daemon<'_>) -> Result<u64> {
    Ok(weir.metrics()?.sum("weir_lost_total", &[("what", "webhook")]) as u64)
}

/// What `weir status` says is wrong.
fn problems(weir: &Daemon<'_>) -> Result<String> {
    let status = weir.cli(&["status", "--json"])?.json()?;
    Ok(status["problems"].to_string())
}

fn until(weir: &Daemon<'_>, within: Duration, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > patience(within) {
            bail!("{what} is not so within {within:?}\n{}", weir.log());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Nothing that may be read shows the address's token or the secret.
fn nothing_is_given_away(weir: &Daemon<'_>) -> Result<()> {
    let status = weir.cli(&["status", "--json"])?.stdout + &weir.cli(&["status"])?.stdout;
    let events = weir.cli(&["events", "--limit", "1000", "--json"])?.stdout;
    let metrics = format!("{:?}", weir.metrics()?);
    for text in [status, events, metrics, weir.log()] {
        ensure!(!text.contains(TOKEN) && !text.contains(SECRET), "{text}");
    }
    Ok(())
}

fn once(log: &str, words: &str) -> bool {
    log.matches(words).count() == 1
}

/// Writes a file that is its owner's alone.
fn write_secret(weir: &Daemon<'_>) -> Result<()> {
    let path = weir.dir().join("hook.secret");
    fs::write(&path, format!("{SECRET}\n"))?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?)
}

#[test]
fn an_attack_is_told_signed_and_again_until_it_is_taken() -> Result<()> {
    let site = Site::new()?;
    let _storefront = Storefront::open(&site.node, ([10, 77, 0, 2], 80).into(), Size::default())?;
    let receiver = Receiver::open(&site.node, loopback(0), &[500, 302])?;
    let text = policy(receiver.address().port(), "secret_file = \"hook.secret\"");
    let mut weir = Daemon::prepare(&site.node, &["eth0"], &text)?;
    write_secret(&weir)?;
    weir.start()?;
    let begun = Instant::now();
    let attack = flood(&site)?;

    // Neither an error nor a redirect is an answer. Between the second try and the third a second passes at least.
    let tries = receiver.wait(2, SOON)?;
    println!("the first message came {:?} after the flood", tries[0].at - begun);
    let named = problems(&weir)?;
    ensure!(
        named.contains("the webhook http://127.0.0.1:")
            && named.contains("a redirect (302), and redirects are not followed"),
        "{named}\n{}",
        weir.log()
    );
    let tries = receiver.wait(3, SOON)?;
    let (first, told) = (&tries[0], json(&tries[0])?);
    ensure!(
        first
            .head
            .starts_with(&format!("POST /hook/{TOKEN} HTTP/1.1\r\n"))
            && first.header("content-type") == Some("application/json"),
        "{}",
        first.head
    );
    let present = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    for posted in &tries[..3] {
        ensure!(delivery(posted)? == delivery(first)? && posted.body == first.body);
        let at =
            verified(posted, SECRET)?.with_context(|| format!("not signed with the secret: {posted:?}"))?;
        ensure!(present.abs_diff(at) < 60, "{at} and {present}");
        ensure!(verified(posted, "correct horse battery stapler")?.is_none());
        let mut other = posted.clone();
        other.body[0] ^= 1;
        ensure!(verified(&other, SECRET)?.is_none(), "the body is signed");
    }
    let (one, two) = (tries[1].at - tries[0].at, tries[2].at - tries[1].at);
    println!("again after {one:?}, and then after {two:?}");
    ensure!(
        one >= Duration::from_millis(500) && two >= Duration::from_secs(1),
        "{one:?}, {two:?}"
    );
    ensure!(
        told["schema"] == 1
            && told["event"] == "began"
            && told["service"] == "web"
            && told["verdict"] == "attack",
        "{told}"
    );
    ensure!(
        told["kind"] == "syn_flood"
            && told["delivery"] == delivery(first)?
            && told["packets_per_second"].is_number(),
        "{told}"
    );
    until(&weir, SOON, "that it works again", || {
        Ok(!problems(&weir)?.contains("webhook"))
    })?;

    attack.end()?;
    let last = |posted: &[Posted]| posted.last().map(json).transpose();
    until(&weir, OVER, "that the end is told", || {
        Ok(last(&receiver.posted())?.is_some_and(|told| told["event"] == "ended"))
    })?;
    let all = receiver.posted();
    let ended = last(&all)?.context("nothing came")?;
    ensure!(
        ended["id"] == told["id"]
            && ended["verdict"] == "attack"
            && ended["duration_seconds"].as_u64() > Some(0),
        "{ended}"
    );
    let again = all[3..].iter().map(delivery).collect::<Result<Vec<_>>>()?;
    ensure!(!again.contains(&delivery(first)?), "it was taken, and came again");
    ensure!(lost(&weir)? == 0);
    let log = weir.log();
    ensure!(once(&log, "the webhook cannot be told"), "{log}");
    nothing_is_given_away(&weir)
}

#[test]
fn a_receiver_that_is_not_there_misses_messages_counted_and_told_once() -> Result<()> {
    let site = Site::new()?;
    let _storefront = Storefront::open(&site.node, ([10, 77, 0, 2], 80).into(), Size::default())?;
    // A port that is free, and stays so: nothing else runs in the namespace.
    let port = Receiver::open(&site.node, loopback(0), &[])?.address().port();
    let mut weir =
        Daemon::prepare(&site.node, &["eth0"], &policy(port, ""))?.with_args(&["--webhook-for", "4"]);
    weir.start()?;
    let attack = flood(&site)?;
    until(&weir, SOON + Duration::from_secs(4), "a loss", || {
        Ok(lost(&weir)? == 1)
    })?;
    let named = problems(&weir)?;
    ensure!(named.contains("refused"), "{named}");
    attack.end()?;
    // The end of it is lost, too, and nothing more is said of that.
    until(&weir, OVER, "another loss", || Ok(lost(&weir)? == 2))?;
    let log = weir.log();
    ensure!(
        once(&log, "the webhook cannot be told") && once(&log, "a message of the webhook is lost"),
        "{log}"
    );
    ensure!(log.contains("it was tried for 4 s"), "{log}");
    nothing_is_given_away(&weir)?;

    // One that comes later hears of what comes later.
    let receiver = Receiver::open(&site.node, loopback(port), &[])?;
    let attack = flood(&site)?;
    let posted = receiver.wait(1, SOON)?;
    let told = json(&posted[0])?;
    ensure!(told["event"] == "began" && told["verdict"] == "attack", "{told}");
    ensure!(posted[0].header("weir-signature").is_none(), "there is no secret");
    until(&weir, SOON, "that it works again", || {
        Ok(!problems(&weir)?.contains("webhook"))
    })?;
    ensure!(lost(&weir)? == 2);
    attack.end()?;
    Ok(())
}

#[test]
fn what_waits_goes_to_another_place_as_soon_as_the_policy_names_it() -> Result<()> {
    let site = Site::new()?;
    let _storefront = Storefront::open(&site.node, ([10, 77, 0, 2], 80).into(), Size::default())?;
    let closed = Receiver::open(&site.node, loopback(0), &[])?.address().port();
    let weir = site.weir(&policy(closed, ""))?;
    let _attack = flood(&site)?;
    until(&weir, SOON, "that it fails", || {
        Ok(problems(&weir)?.contains("cannot be told"))
    })?;
    let receiver = Receiver::open(&site.node, loopback(0), &[])?;
    weir.apply(&policy(receiver.address().port(), ""))?.ok()?;
    let told = json(&receiver.wait(1, SOON)?[0])?;
    ensure!(told["event"] == "began" && told["verdict"] == "attack", "{told}");
    nothing_is_given_away(&weir)
}

#[test]
fn a_secret_that_everybody_may_read_is_refused() -> Result<()> {
    let site = Site::new()?;
    let signed = policy(9, "secret_file = \"hook.secret\"");
    let weir = site.weir(&policy(9, ""))?;
    weir.apply(&signed)?.failed(2, "anomaly.webhook.secret_file")?;
    write_secret(&weir)?;
    let path = weir.dir().join("hook.secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    weir.apply(&signed)?.failed(2, "chmod o-rwx")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    weir.apply(&signed)?.ok()?;
    nothing_is_given_away(&weir)
}

/// A database of one node: what begins with a zero bit is in this country, and nothing is known of the rest.
fn database(country: &str) -> Vec<u8> {
    let text = |text: &str| [&[0x40 | text.len() as u8], text.as_bytes()].concat();
    let map = |entries: &[(&str, Vec<u8>)]| {
        let mut bytes = vec![0xe0 | entries.len() as u8];
        for (key, value) in entries {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        bytes
    };
    // Two records of 24 bits: the data's first entry, behind one node and sixteen zeros; and the number of nodes, for nothing.
    let mut file = vec![0, 0, 17, 0, 0, 1];
    file.extend([0; 16]);
    file.extend(map(&[("country", map(&[("iso_code", text(country))]))]));
    file.extend(b"\xab\xcd\xefMaxMind.com");
    file.extend(map(&[
        ("binary_format_major_version", vec![0xa1, 2]),
        ("binary_format_minor_version", vec![0xa0]),
        ("build_epoch", vec![0x04, 0x02, 0x6a, 0xfd, 0x4c, 0xc0]),
        ("database_type", text("Test-Country")),
        ("description", map(&[("en", text("of a test"))])),
        ("ip_version", vec![0xa1, 4]),
        ("languages", [&[0x01, 0x04][..], &text("en")].concat()),
        ("node_count", vec![0xc1, 1]),
        ("record_size", vec![0xa1, 24]),
    ]));
    file
}

#[test]
fn a_database_of_countries_must_be_one_and_the_old_one_stays() -> Result<()> {
    let site = Site::new()?;
    let plain = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n";
    let with = format!("{plain}[geo]\ndatabase = \"country.mmdb\"\n");
    let weir = site.weir(plain)?;
    let revision = || -> Result<Value> {
        let status = weir.cli(&["status", "--json"])?.json()?;
        Ok(status["policy"]["revision"].clone())
    };
    let before = revision()?;
    let path = weir.dir().join("country.mmdb");
    // What is not there, what is something else, and what says nothing of countries.
    weir.apply(&with)?.failed(2, "geo.database: the database")?;
    fs::write(&path, "no database")?;
    weir.apply(&with)?
        .failed(2, "is no MaxMind database (.mmdb, unpacked), or is damaged")?;
    let check = weir.cli(&["policy", "check", &weir.policy_path().to_string_lossy()])?;
    check.failed(2, "country.mmdb: geo.database: ")?;
    fs::write(&path, database("??"))?;
    weir.apply(&with)?.failed(
        2,
        "(Test-Country) has no countries; take a country or city database",
    )?;
    ensure!(revision()? == before, "nothing has changed");
    ensure!(!weir.log().contains("countries are looked up"), "{}", weir.log());

    fs::write(&path, database("NL"))?;
    weir.apply(&with)?.ok()?;
    let looked_up = |count: usize| weir.log().matches("countries are looked up").count() == count;
    until(&weir, SOON, "that countries are looked up", || Ok(looked_up(1)))?;
    let before = revision()?;

    // A reload with one that is broken changes nothing, and says so.
    fs::write(&path, "broken")?;
    weir.signal(Signal::SIGHUP)?;
    until(&weir, SOON, "that it is refused", || {
        Ok(weir.log().contains("is no MaxMind database"))
    })?;
    ensure!(revision()? == before);

    // A new one, as updaters bring it, is taken in at the next reload.
    let fresh = weir.dir().join("fresh.mmdb");
    fs::write(&fresh, database("BE"))?;
    fs::rename(&fresh, &path)?;
    weir.signal(Signal::SIGHUP)?;
    until(&weir, SOON, "that the new one is looked into", || {
        Ok(looked_up(2))
    })?;
    ensure!(!problems(&weir)?.contains("database"), "{}", problems(&weir)?);
    Ok(())
}
