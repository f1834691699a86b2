//! The webhook of a real controller: what a receiver on its machine gets, and what happens when there is none.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;
use weir_tests::{
    command::patience,
    daemon::Daemon,
    flood::Flood,
    frame::{Frame, SYN, scattered_sources},
    http::{Size, Storefront},
    sender::Plan,
    site::Site,
};

const SECRET: &[u8] = b"a secret of more than sixteen bytes";
/// Part of the address, and nobody's business.
const TOKEN: &str = "T0KEN";
/// What is told must come within this, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(20);

/// A message as it came.
#[derive(Debug)]
struct Post {
    first: String,
    delivery: String,
    signature: String,
    body: Vec<u8>,
}

impl Post {
    fn json(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Whether it was signed with the secret, lately.
    fn is_signed(&self) -> Result<bool> {
        let (time, sum) = self.signature.split_once(",v1=").context("no v1")?;
        let time = time.strip_prefix("t=").context("no t")?;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET)?;
        mac.update(format!("{time}.").as_bytes());
        mac.update(&self.body);
        let bytes = mac.finalize().into_bytes();
        let expected: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(sum == expected && now.abs_diff(time.parse()?) < 60)
    }
}

/// Listens on the node's loopback and gives each message the next of these answers, the last one for ever.
fn receiver(site: &Site, answers: &'static [u16]) -> Result<(u16, Receiver<Post>)> {
    let listener = site.node.run(|| TcpListener::bind("127.0.0.1:0"))??;
    let port = listener.local_addr()?.port();
    let (tell, posts) = channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let answer = answers.get(number).or(answers.last()).copied().unwrap_or(200);
            let Some(post) = read(&stream) else { continue };
            let _ = write!(stream, "HTTP/1.1 {answer} x\r\ncontent-length: 0\r\n\r\n");
            if tell.send(post).is_err() {
                return;
            }
        }
    });
    Ok((port, posts))
}

fn read(stream: &std::net::TcpStream) -> Option<Post> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let header = |name: &str| {
        let of = |line: &String| {
            let (held, value) = line.split_once(": ")?;
            held.eq_ignore_ascii_case(name).then(|| value.to_owned())
        };
        lines.iter().find_map(of).unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Post {
        first: lines.first()?.clone(),
        delivery: header("weir-delivery"),
        signature: header("weir-signature"),
        body,
    })
}

fn secret() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("webhook.secret");
    fs::write(&path, SECRET)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok((folder, path))
}

fn policy(port: u16, secret: &std::path::Path) -> String {
    format!(
        "version = 1\n[sampling]\none_in = 20\n[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nports = [80]\n\
         [anomaly.webhook]\nurl = \"http://127.0.0.1:{port}/hook?key={TOKEN}\"\nsecret_file = \"{}\"\n",
        secret.display()
    )
}

/// SYNs that nobody will complete.
fn flood(site: &Site) -> Result<Flood> {
    let sources = scattered_sources(7, 20_000);
    let frames = sources.into_iter().zip(1_024_u16..).map(|(source, port)| {
        let frame = Frame::new().ip(&source.to_string(), "10.77.0.2");
        frame.tcp(port, 80, SYN).build()
    });
    let plan = Plan::rate(10_000, Duration::from_mins(2)).relaxed();
    Flood::start(&site.client, "eth0", frames.collect(), plan)
}

fn next(posts: &Receiver<Post>, weir: &Daemon<'_>) -> Result<Post> {
    posts
        .recv_timeout(patience(SOON))
        .with_context(|| format!("nothing came\n{}", weir.log()))
}

/// Nothing that may be read shows the address's token or the secret.
fn nothing_is_given_away(weir: &Daemon<'_>) -> Result<()> {
    let status = weir.cli(&["status", "--json"])?.stdout + &weir.cli(&["status"])?.stdout;
    let events = weir.cli(&["events", "--limit", "1000", "--json"])?.stdout;
    let metrics = format!("{:?}", weir.metrics()?);
    for text in [status, events, metrics, weir.log()] {
        let secret = String::from_utf8_lossy(SECRET);
        ensure!(!text.contains(TOKEN) && !text.contains(&*secret), "{text}");
    }
    Ok(())
}

#[test]
fn an_attack_is_told_signed_and_again_until_it_is_taken() -> Result<()> {
    let site = Site::new()?;
    let _storefront = Storefront::open(&site.node, ([10, 77, 0, 2], 80).into(), Size::default())?;
    let (port, posts) = receiver(&site, &[500, 302, 204])?;
    let (_folder, secret) = secret()?;
    let weir = site.weir(&policy(port, &secret))?;
    let flood = flood(&site)?;

    let first = next(&posts, &weir)?;
    ensure!(
        first.first == format!("POST /hook?key={TOKEN} HTTP/1.1"),
        "{first:?}"
    );
    let said = first.json()?;
    ensure!(
        said["schema"] == 1
            && said["event"] == "began"
            && said["service"] == "web"
            && said["verdict"] == "attack"
            && said["kind"] == "syn_flood"
            && said["delivery"] == first.delivery.as_str(),
        "{said}"
    );
    ensure!(first.is_signed()?, "{first:?}");
    // Neither an error nor a redirect is an answer: the same message comes again, signed anew.
    for _ in 0..2 {
        let again = next(&posts, &weir)?;
        ensure!(
            again.body == first.body && again.delivery == first.delivery,
            "{again:?}"
        );
        ensure!(again.is_signed()?, "{again:?}");
    }
    let begun = Instant::now();
    while !weir.log().contains("takes messages again") {
        ensure!(begun.elapsed() < patience(SOON), "{}", weir.log());
        thread::sleep(Duration::from_millis(50));
    }
    let log = weir.log();
    ensure!(log.matches("cannot be told of an anomaly").count() == 1, "{log}");

    flood.end()?;
    // What changes meanwhile is told under the same name.
    let ended = loop {
        let post = posts
            .recv_timeout(patience(Duration::from_mins(2)))
            .with_context(|| format!("no end\n{}", weir.log()))?;
        let ended = post.json()?;
        ensure!(ended["id"] == said["id"] && post.is_signed()?, "{ended}");
        if ended["event"] == "ended" {
            break ended;
        }
    };
    ensure!(
        ended["kind"] == "syn_flood" && ended["duration_seconds"].as_u64() >= Some(1),
        "{ended}"
    );
    let lost = weir.metrics()?.sum("weir_lost_total", &[("what", "webhook")]);
    ensure!(lost.abs() < 0.5, "{lost}");
    nothing_is_given_away(&weir)
}

#[test]
fn a_receiver_that_is_not_there_hinders_nothing_and_another_takes_over() -> Result<()> {
    let site = Site::new()?;
    let _storefront = Storefront::open(&site.node, ([10, 77, 0, 2], 80).into(), Size::default())?;
    let (_folder, secret) = secret()?;
    // Nobody listens on it: it was taken and let go.
    let closed = site.node.run(|| TcpListener::bind("127.0.0.1:0"))??;
    let port = closed.local_addr()?.port();
    drop(closed);
    let weir = site.weir(&policy(port, &secret))?;
    let _flood = flood(&site)?;
    let begun = Instant::now();
    loop {
        let status = weir.cli(&["status"])?;
        if status.stdout.contains("cannot be told") {
            ensure!(
                status.code == 1 && status.stdout.contains("127.0.0.1"),
                "{status:?}"
            );
            break;
        }
        if begun.elapsed() > patience(SOON) {
            bail!("nothing is said of it: {status:?}\n{}", weir.log());
        }
        thread::sleep(Duration::from_millis(100));
    }
    nothing_is_given_away(&weir)?;
    // What waits goes to the new place as soon as the policy names it.
    let (port, posts) = receiver(&site, &[200])?;
    weir.apply(&policy(port, &secret))?.ok()?;
    let post = next(&posts, &weir)?;
    ensure!(post.json()?["event"] == "began" && post.is_signed()?, "{post:?}");
    nothing_is_given_away(&weir)
}

#[test]
fn files_that_cannot_be_used_are_named_and_change_nothing() -> Result<()> {
    let site = Site::new()?;
    let (folder, secret) = secret()?;
    let weir = site.weir(&policy(9, &secret))?;
    let revision =
        || -> Result<Value> { Ok(weir.cli(&["status", "--json"])?.json()?["policy"]["revision"].clone()) };
    let before = revision()?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644))?;
    weir.apply(&policy(9, &secret))?.failed(2, "chmod o-rwx")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let database = folder.path().join("country.mmdb");
    let geo = format!(
        "{}[geo]\ndatabase = \"{}\"\n",
        policy(9, &secret),
        database.display()
    );
    weir.apply(&geo)?.failed(2, "geo.database")?;
    fs::write(&database, b"no database at all")?;
    weir.apply(&geo)?.failed(2, "no MaxMind database")?;
    ensure!(before.is_u64() && revision()? == before, "{before}");
    Ok(())
}
