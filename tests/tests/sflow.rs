//! sFlow, as others read it: the datagrams of a running Weir are decoded by tshark and taken in by `FastNetMon`.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weir_tests::{
    command::{finish, patience},
    frame::Frame,
    pcap::{Sent, pcap},
    sender::Plan,
    site::Site,
};

/// The port that both know sFlow by.
const PORT: u16 = 6343;

fn policy(collector: &str, one_in: u32) -> String {
    format!(
        "version = 1\n[sampling]\none_in = {one_in}\n[export.sflow]\ncollector = \"{collector}\"\nagent = \"192.0.2.9\"\n\
         [[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n\
         [[service]]\nname = \"tight\"\nprotocol = \"udp\"\nports = [81]\n[service.per_source]\npackets = {{ rate = 1, burst = 1 }}\n"
    )
}

fn datagram(port: u16) -> Vec<u8> {
    let frame = Frame::new().ip("10.77.0.1", "10.77.0.2").udp(4_000, port);
    frame.payload(&[0; 458]).build()
}

/// What tshark says of datagrams, in full.
fn dissected(datagrams: &[Vec<u8>]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("sflow.pcap");
    let frames: Vec<Sent> = datagrams
        .iter()
        .map(|datagram| {
            let frame = Frame::new().ip("10.77.0.2", "10.77.0.1").udp(40_000, PORT);
            Sent::arrived(0, frame.payload(datagram).build())
        })
        .collect();
    fs::write(&file, pcap(&frames))?;
    let mut command = Command::new("tshark");
    command
        .args(["-n", "-V", "-d", &format!("udp.port=={PORT},sflow"), "-r"])
        .arg(&file);
    Ok(finish(&mut command, None, Duration::from_mins(1))?.ok()?.stdout)
}

/// What comes until nothing has come for three seconds.
fn collect(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let mut buffer = [0; 2_000];
    let deadline = Instant::now() + patience(Duration::from_secs(20));
    let mut quiet = 0;
    while Instant::now() < deadline && (datagrams.is_empty() || quiet < 3) {
        if let Ok(length) = socket.recv(&mut buffer) {
            datagrams.push(buffer[..length].to_vec());
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    datagrams
}

#[test]
fn tshark_reads_what_was_sampled() -> Result<()> {
    let site = Site::new()?;
    let collector = site.node.run(|| UdpSocket::bind(("127.0.0.1", PORT)))??;
    collector.set_read_timeout(Some(Duration::from_secs(1)))?;
    let hearing = collector.try_clone()?;
    // A thread of its own: a socket holds less than is exported meanwhile.
    let collecting = thread::spawn(move || collect(&hearing));
    let weir = site.weir(&policy(&format!("127.0.0.1:{PORT}"), 10))?;
    // The exporter learns of its collector within a second.
    thread::sleep(patience(Duration::from_millis(1_500)));
    // Slowly: the samples stay below the cap, so that N is what the policy says.
    let plan = Plan::rate(4_000, Duration::from_secs(2)).relaxed();
    let sent = site.send_by(&[datagram(80), datagram(81)], &plan)?;

    let datagrams = collecting.join().map_err(|_| anyhow!("the collector panicked"))?;
    ensure!(!datagrams.is_empty(), "no datagram came; {}", weir.log());
    let text = dissected(&datagrams)?;
    let lines = |is: &str| text.lines().filter(|line| line.trim() == is).count();
    let starting = |with: &str| {
        text.lines()
            .filter(|line| line.trim_start().starts_with(with))
            .count()
    };
    let samples = starting("Sampling rate: ");
    let (web, tight) = (lines("Destination Port: 80"), lines("Destination Port: 81"));
    println!(
        "{} packets, {} datagrams, {samples} samples: {web} to one service, {tight} to the other; the controller read {}",
        sent.frames,
        datagrams.len(),
        weir.metrics()?.sum("weir_samples_total", &[])
    );
    // 400 each on average, deviation 19.
    ensure!(
        (300..500).contains(&web) && (300..500).contains(&tight),
        "{web} and {tight} in {text}"
    );
    ensure!(
        web + tight == samples,
        "{samples} samples, {web} and {tight} packets in them"
    );
    ensure!(!text.contains("Malformed"), "{text}");
    ensure!(starting("Agent address: 192.0.2.9") == datagrams.len(), "{text}");
    ensure!(lines("Sampling rate: 1 out of 10 packets") == samples, "{text}");
    // 500 bytes, and the check sequence that counts with them.
    ensure!(lines("Frame Length: 504") == samples, "{text}");
    let shaped = text.matches("traffic shaping/rate limiting (261)").count();
    ensure!(
        shaped.abs_diff(tight) <= 1,
        "{shaped} of {tight} were dropped by a limit"
    );
    let metrics = weir.metrics()?;
    ensure!(metrics.sum("weir_lost_total", &[("what", "sflow")]) < 0.5);

    // Another policy exports nothing, and nothing more comes.
    let text = policy("127.0.0.1:1", 10).replace(
        "[export.sflow]\ncollector = \"127.0.0.1:1\"\nagent = \"192.0.2.9\"\n",
        "",
    );
    weir.apply(&text)?.ok()?;
    thread::sleep(patience(Duration::from_millis(2_500)));
    let mut buffer = [0; 2_000];
    while collector.recv(&mut buffer).is_ok() {}
    site.send(&[datagram(80)], 2_000)?;
    ensure!(collector.recv(&mut buffer).is_err(), "it still exports");
    Ok(())
}

#[test]
fn a_collector_that_is_not_there_is_told_once_and_loses_nothing_here() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&policy("127.0.0.1:6344", 10))?;
    thread::sleep(patience(Duration::from_millis(1_500)));
    for _ in 0..4 {
        // One in ten of these is below the most samples of a hundredth of a second.
        let plan = Plan::count(4_000).at(20_000).on_cpu(0);
        site.send_by(&[datagram(80)], &plan)?;
        thread::sleep(patience(Duration::from_millis(600)));
    }
    let metrics = weir.metrics()?;
    ensure!(
        metrics.sum("weir_lost_total", &[("what", "sflow")]) > 0.5,
        "{}",
        weir.log()
    );
    ensure!(metrics.sum("weir_samples_total", &[]) > 1_000.0);
    let told = weir.log().matches("cannot be reached").count();
    ensure!(told == 1, "told {told} times: {}", weir.log());
    let status = weir.cli(&["status"])?;
    ensure!(
        status.code == 1 && status.stdout.contains("127.0.0.1:6344"),
        "{status:?}"
    );
    Ok(())
}

/// A running `FastNetMon`.
struct FastNetMon(Child);

impl Drop for FastNetMon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

impl FastNetMon {
    fn start(site: &Site, dir: &Path) -> Result<Self> {
        let file = |name: &str| dir.join(name).display().to_string();
        fs::write(file("networks"), "10.77.0.0/24\n")?;
        fs::write(file("white"), "")?;
        let lines = [
            "logging_level = info".to_owned(),
            "disable_usage_report = on".to_owned(),
            "enable_ban = off".to_owned(),
            "process_incoming_traffic = on".to_owned(),
            "process_outgoing_traffic = on".to_owned(),
            format!("networks_list_path = {}", file("networks")),
            format!("white_list_path = {}", file("white")),
            "sflow = on".to_owned(),
            format!("sflow_port = {PORT}"),
            "sflow_host = 127.0.0.1".to_owned(),
            "average_calculation_time = 5".to_owned(),
            "speed_calculation_delay = 1".to_owned(),
            "enable_api = off".to_owned(),
            "prometheus = on".to_owned(),
            "prometheus_host = 127.0.0.1".to_owned(),
            "prometheus_port = 9209".to_owned(),
            format!("pid_path = {}", file("pid")),
            format!("cli_stats_file_path = {}", file("stats")),
            format!("cli_stats_ipv6_file_path = {}", file("stats6")),
        ];
        fs::write(file("conf"), lines.join("\n") + "\n")?;
        let out = File::create(file("out"))?;
        let mut command = site.node.command("fastnetmon");
        command.args([
            "--disable_pid_logic",
            "--configuration_file",
            &file("conf"),
            "--log_file",
            &file("log"),
        ]);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command
            .spawn()
            .context("cannot start fastnetmon; `cargo xtask setup` installs it")?;
        Ok(Self(child))
    }
}

/// What it counts, by its own Prometheus endpoint; nothing while that does not answer.
fn counted(site: &Site) -> Result<String> {
    let asked = site.node.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", 9209))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    Ok(asked.unwrap_or_default())
}

/// What it says of the traffic within its own network, IPv4.
fn internal(text: &str, what: &str) -> f64 {
    let line = text.lines().find(|line| {
        line.starts_with(&format!("fastnetmon_total_traffic_{what}{{"))
            && line.contains("\"internal\"")
            && line.contains("\"ipv4\"")
    });
    line.and_then(|line| line.rsplit([' ', '}']).next()?.parse().ok())
        .unwrap_or(0.0)
}

#[test]
fn a_real_collector_takes_the_datagrams() -> Result<()> {
    let site = Site::new()?;
    let dir = tempfile::tempdir()?;
    let _collector = FastNetMon::start(&site, dir.path())?;
    let deadline = Instant::now() + patience(Duration::from_secs(30));
    while counted(&site)?.is_empty() {
        let said = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        ensure!(Instant::now() < deadline, "FastNetMon does not answer: {said}");
        thread::sleep(Duration::from_millis(200));
    }
    let _weir = site.weir(&policy(&format!("127.0.0.1:{PORT}"), 100))?;
    thread::sleep(patience(Duration::from_millis(1_500)));
    // Long enough for its averages over five seconds.
    let plan = Plan::rate(20_000, Duration::from_secs(8)).relaxed();
    site.send_by(&[datagram(80)], &plan)?;
    let text = counted(&site)?;
    let (packets, bits) = (internal(&text, "packets"), internal(&text, "bits"));
    println!("it says {packets} packets a second, {bits} bits");
    // Its averages have not quite reached the rate after eight seconds, and the samples have an error of their own.
    ensure!(
        (8_000.0..26_000.0).contains(&packets),
        "{packets} packets a second of 20,000: {text}"
    );
    ensure!(
        (bits / packets / 8.0 - 504.0).abs() < 2.0,
        "{bits} bits in {packets} packets"
    );
    Ok(())
}
