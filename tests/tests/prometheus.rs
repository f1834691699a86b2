//! What is in `packaging/` for Prometheus and Grafana, against a real Prometheus that scrapes a running Weir.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use weir_tests::{
    command::{finish, patience},
    daemon::Daemon,
    frame::{Frame, SYN},
    sender::Plan,
    site::{Site, datagram},
    tcp,
};

/// A policy with something for every query: a list, a service that drops, one that would, one that measures time.
const POLICY: &str = r#"
version = 1
[sampling]
one_in = 10
[lists.cdn]
prefixes = ["192.0.2.0/24"]
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
time = true
[[service]]
name = "udp80"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 10, burst = 10 }
[[service]]
name = "watched"
protocol = "udp"
ports = [53]
mode = "monitor"
[service.total]
packets = { rate = 10, burst = 10 }
"#;

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(file)
}

/// A Prometheus inside the node's namespace that scrapes its Weir; it is ended when dropped.
struct Prometheus<'n> {
    site: &'n Site,
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl<'n> Prometheus<'n> {
    fn start(site: &'n Site) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("weir-prometheus-").tempdir()?;
        let config = dir.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
                 rule_files: [{}]\n\
                 scrape_configs:\n- job_name: weir\n  static_configs:\n  - targets: [\"{}\"]\n",
                serde_json::to_string(&packaging("prometheus/weir.rules.yml"))?,
                Daemon::listen_address()
            ),
        )?;
        let log = dir.path().join("log");
        let out = File::create(&log)?;
        // The namespace is the test's own, so that any port of its loopback is free.
        let address: SocketAddr = ([127, 0, 0, 1], 9090).into();
        let child = site
            .node
            .command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("cannot run prometheus; `cargo xtask setup` installs it")?;
        let prometheus = Self {
            site,
            child,
            address,
            log,
            _dir: dir,
        };
        let deadline = Instant::now() + patience(Duration::from_mins(1));
        while prometheus.get("/-/ready").is_err() {
            ensure!(
                Instant::now() < deadline,
                "prometheus is not ready:\n{}",
                fs::read_to_string(&prometheus.log)?
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok(prometheus)
    }

    /// The body of an answer with status 200.
    fn get(&self, path: &str) -> Result<String> {
        let address = self.address;
        let answer = self.site.node.run(|| -> Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(patience(Duration::from_secs(20))))?;
            // HTTP/1.0 has no chunks.
            write!(stream, "GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
            let mut answer = String::new();
            stream.take(64 << 20).read_to_string(&mut answer)?;
            Ok(answer)
        })??;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        if !head.lines().next().is_some_and(|line| line.contains(" 200 ")) {
            bail!("{path}: {answer}");
        }
        Ok(body.to_owned())
    }

    /// The series that a query has now.
    fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let answer: Value =
            serde_json::from_str(&self.get(&format!("/api/v1/query?query={}", encoded(expression)))?)?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Percent-encoded, for a query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// What Grafana would ask, with its variables filled in for a node that is scraped every second.
fn filled_in(expression: &str) -> String {
    expression
        .replace("$__rate_interval", "30s")
        .replace("$instance", ".*")
        .replace("$service", ".*")
}

/// Every query of the dashboard, by its panel's title.
fn dashboard() -> Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(packaging("grafana/weir.json"))?)?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let title = panel["title"].as_str().context("a panel without a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("a target without a query")?;
            queries.push((title.to_owned(), filled_in(expression)));
        }
    }
    Ok(queries)
}

/// Traffic of every kind that the dashboard shows.
fn traffic(site: &Site) -> Result<()> {
    for _ in 0..10 {
        site.client.run(|| {
            tcp::connect_from(
                "10.77.0.1:0".parse()?,
                "10.77.0.2:80".parse()?,
                Duration::from_secs(5),
            )
            .and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.write_all(b"hello")?;
                stream.read(&mut [0; 64])
            })
            .map_err(anyhow::Error::from)
        })??;
    }
    let frames = [
        datagram("192.0.2.1", 100),
        datagram("198.51.100.1", 700),
        Frame::new()
            .ip("198.51.100.2", "10.77.0.2")
            .udp(4000, 53)
            .payload(&[0; 64])
            .build(),
        Frame::new()
            .ip("198.51.100.3", "10.77.0.2")
            .tcp(9, 80, SYN)
            .build(),
    ];
    site.send_by(&frames, &Plan::rate(500, Duration::from_secs(1)).relaxed())?;
    // More SYNs that nobody completes than any stranger may send: an anomaly.
    let flood: Vec<Vec<u8>> = (1..=250)
        .map(|last| {
            let frame = Frame::new().ip(&format!("203.0.113.{last}"), "10.77.0.2");
            frame.tcp(9, 80, SYN).build()
        })
        .collect();
    site.send_by(&flood, &Plan::rate(4_000, Duration::from_secs(2)).relaxed())?;
    Ok(())
}

/// A service that answers what it is told, for as long as the test lives.
fn serve(site: &Site) -> Result<()> {
    let listener = site.node.run(|| std::net::TcpListener::bind("0.0.0.0:80"))??;
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let mut asked = [0; 64];
            let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
            if connection.read(&mut asked).is_ok() {
                let _ = connection.write_all(b"answer");
            }
        }
    });
    Ok(())
}

#[test]
fn the_dashboard_and_the_rules_have_data_from_a_running_weir() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    serve(&site)?;
    let prometheus = Prometheus::start(&site)?;
    let deadline = Instant::now() + patience(Duration::from_mins(1));
    let queries = dashboard()?;
    ensure!(queries.len() > 25, "{}", queries.len());
    loop {
        traffic(&site)?;
        let mut empty = Vec::new();
        for (title, query) in &queries {
            let series = prometheus.query(query)?;
            let values = series
                .iter()
                .filter_map(|one| one["value"][1].as_str()?.parse::<f64>().ok());
            if values.filter(|value| value.is_finite()).count() == 0 {
                empty.push(format!("{title}: {query}"));
            }
        }
        if empty.is_empty() {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "these have no data:\n{}\n{}",
            empty.join("\n"),
            weir.metrics()
                .map(|metrics| metrics.names().collect::<std::collections::BTreeSet<_>>().len())?
        );
    }

    // Every metric that the rules name is there, and every rule was evaluated without an error.
    let rules: Value = serde_json::from_str(&prometheus.get("/api/v1/rules")?)?;
    let rules = rules["data"]["groups"][0]["rules"]
        .as_array()
        .context("no rules")?
        .clone();
    ensure!(rules.len() >= 12, "{}", rules.len());
    for rule in &rules {
        ensure!(rule["health"] == "ok", "{rule}");
        let query = rule["query"].as_str().context("a rule without a query")?;
        for name in metrics_in(query) {
            ensure!(
                !prometheus.query(&name)?.is_empty(),
                "{name}, which {} asks for, has no data",
                rule["name"]
            );
        }
    }
    Ok(())
}

/// The metrics that an expression names.
fn metrics_in(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("weir_") || *word == "up")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_rules_pass_promtool_and_speak_when_they_should() -> Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus/weir.rules.test.yml");
    for arguments in [
        ["check", "rules"]
            .map(str::to_owned)
            .into_iter()
            .chain([packaging("prometheus/weir.rules.yml").display().to_string()])
            .collect::<Vec<_>>(),
        ["test", "rules"]
            .map(str::to_owned)
            .into_iter()
            .chain([tests.display().to_string()])
            .collect(),
    ] {
        finish(
            Command::new("promtool").args(&arguments),
            None,
            Duration::from_mins(1),
        )
        .context("`cargo xtask setup` installs promtool with prometheus")?
        .ok()?;
    }
    // Each alert is in a test: one that says nothing there could say nothing for ever.
    let rules = fs::read_to_string(packaging("prometheus/weir.rules.yml"))?;
    let tested = fs::read_to_string(tests)?;
    for alert in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        ensure!(
            tested.contains(&format!("alertname=\"{alert}\"")),
            "{alert} is not tested"
        );
    }
    Ok(())
}
