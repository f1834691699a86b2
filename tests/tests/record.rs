//! `weir record` on real packets, read back by Weir's own reader and by tshark.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weir::capture::{Direction, Reader};
use weir_tests::{
    command::{finish, patience},
    daemon::Daemon,
    frame::Frame,
    sender::Plan,
    site::Site,
};

const POLICY: &str = r#"
version = 1
[sampling]
one_in = 10
[[service]]
name = "web"
protocol = "udp"
ports = [80]
[[service]]
name = "tight"
protocol = "udp"
ports = [81]
[service.per_source]
packets = { rate = 1, burst = 1 }
"#;

/// Frames a second of which one in ten is far less than the most samples that a hundredth of a second may take.
const BELOW_THE_CAP: u64 = 20_000;

fn frames() -> Vec<Vec<u8>> {
    let frame = |source: &str, target: u16| {
        let frame = Frame::new().ip(source, "10.77.0.2").udp(2_000, target);
        frame.payload(&[7; 158]).build()
    };
    vec![frame("10.77.0.1", 80), frame("10.77.0.66", 81)]
}

/// Starts `weir record` in the background, with its output in files beside `name`.
fn record(weir: &Daemon<'_>, name: &str, args: &[&str]) -> Result<Child> {
    let errors = File::create(weir.dir().join(format!("{name}.err")))?;
    let child = Command::new(weir.binary())
        .args(["record", "--socket"])
        .arg(weir.socket_path())
        .args(args)
        .arg(weir.dir().join(name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()?;
    // The file is there once the controller keeps samples for it.
    let deadline = Instant::now() + patience(Duration::from_secs(10));
    while fs::metadata(weir.dir().join(name)).map_or(0, |file| file.len()) == 0 {
        ensure!(Instant::now() < deadline, "{name} is not begun");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}

/// Its exit code and what it said on standard error.
fn ended(weir: &Daemon<'_>, name: &str, mut child: Child) -> Result<(Option<i32>, String)> {
    let deadline = Instant::now() + patience(Duration::from_secs(10));
    loop {
        if let Some(status) = child.try_wait()? {
            let errors = fs::read_to_string(weir.dir().join(format!("{name}.err")))?;
            return Ok((status.code(), errors));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("weir record goes on");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// How many packets a whole file has; each looked at.
fn packets(file: &Path) -> Result<usize> {
    let mut reader = Reader::new(File::open(file)?)?;
    let mut count = 0;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_nanos() as u64;
    while let Some(packet) = reader.next()? {
        count += 1;
        ensure!(packet.data.len() == 128 && packet.wire_len == 200, "{packet:?}");
        ensure!(packet.direction == Some(Direction::In), "{packet:?}");
        let age = now.saturating_sub(packet.time_ns.context("no time")?);
        ensure!(age < 60_000_000_000, "{age} ns old");
    }
    Ok(count)
}

fn tshark(file: &Path) -> Result<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields"]);
    for field in ["ip.src", "frame.len", "frame.interface_name", "frame.comment"] {
        command.args(["-e", field]);
    }
    let output = finish(&mut command, None, Duration::from_mins(1))?;
    ensure!(output.code == 0, "{output:?}");
    Ok(output.stdout.lines().map(str::to_owned).collect())
}

#[test]
fn dropped_packets_are_recorded_with_their_reasons() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let file = weir.dir().join("dropped");
    let child = record(&weir, "dropped", &["--dropped", "--count", "20"])?;
    site.send(&frames(), 10_000)?;
    let (code, errors) = ended(&weir, "dropped", child)?;
    ensure!(code == Some(0), "{errors}");
    ensure!(packets(&file)? == 20);
    let lines = tshark(&file)?;
    ensure!(lines.len() == 20, "{lines:?}");
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        ensure!(fields[..3] == ["10.77.0.66", "200", "eth0"], "{line}");
        let comment = fields[3];
        ensure!(
            comment.starts_with("verdict=drop reason=source_packets service=tight one_in="),
            "{line}"
        );
    }
    // What is there is not replaced unasked.
    let name = file.to_string_lossy().into_owned();
    let again = weir.cli(&["record", "--count", "1", &name])?;
    again.failed(1, "--force")?;
    ensure!(packets(&file)? == 20);
    Ok(())
}

#[test]
fn a_recording_ends_whole_by_size_time_signal_and_without_its_controller() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    let path = |weir: &Daemon<'_>, name: &str| weir.dir().join(name);

    let child = record(&weir, "size", &["--max-size", "4kB"])?;
    site.send_by(&frames(), &Plan::count(5_000).at(BELOW_THE_CAP).on_cpu(0))?;
    let (code, errors) = ended(&weir, "size", child)?;
    ensure!(code == Some(0), "{errors}");
    let length = fs::metadata(path(&weir, "size"))?.len();
    ensure!((3_500..=4_000).contains(&length), "{length}");
    ensure!(packets(&path(&weir, "size"))? > 10);

    let child = record(
        &weir,
        "time",
        &["--for", "1s", "--service", "web", "--source", "10.77.0.66"],
    )?;
    site.send(&frames(), 2_000)?;
    let (code, errors) = ended(&weir, "time", child)?;
    ensure!(code == Some(0), "{errors}");
    ensure!(packets(&path(&weir, "time"))? == 0, "nothing is of both");

    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let name = signal.as_str();
        let child = record(
            &weir,
            name,
            &["--interface", "eth0", "--reason", "source_packets"],
        )?;
        site.send_by(&frames(), &Plan::count(5_000).at(BELOW_THE_CAP).on_cpu(0))?;
        thread::sleep(patience(Duration::from_millis(500)));
        kill(Pid::from_raw(child.id() as i32), signal)?;
        let (code, errors) = ended(&weir, name, child)?;
        ensure!(code == Some(0), "{signal}: {errors}");
        ensure!(packets(&path(&weir, name))? > 100, "{signal}");
    }

    for (signal, why) in [
        (Signal::SIGTERM, "the controller is stopping"),
        (Signal::SIGKILL, "controller"),
    ] {
        let name = format!("controller-{}", signal.as_str());
        let child = record(&weir, &name, &[])?;
        site.send_by(&frames(), &Plan::count(5_000).at(BELOW_THE_CAP).on_cpu(0))?;
        thread::sleep(patience(Duration::from_millis(500)));
        weir.stop_with(signal)?;
        let (code, errors) = ended(&weir, &name, child)?;
        ensure!(
            code == Some(1) && errors.contains(why),
            "{signal}: {code:?} {errors}"
        );
        ensure!(errors.contains("what came before is there"), "{errors}");
        ensure!(packets(&path(&weir, &name))? > 100, "{signal}");
        weir.start()?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_recorded_says_why() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(&POLICY.replace("one_in = 10", "one_in = 0"))?;
    let file = weir.dir().join("none").to_string_lossy().into_owned();
    weir.cli(&["record", &file])?.failed(1, "one_in")?;
    weir.cli(&["record", "--service", "nobody", &file])?
        .failed(1, "nobody")?;
    weir.cli(&["record", "--interface", "nowhere0", &file])?
        .failed(1, "not attached to nowhere0")?;
    weir.cli(&["record", "--reason", "because", &file])?
        .failed(2, "source_packets")?;
    weir.cli(&["record", "--json", "-"])?.failed(2, "--json")?;
    ensure!(!Path::new(&file).exists(), "nothing was begun");
    ensure!(weir.apply(POLICY)?.code == 0);
    weir.cli(&["record", "--force", "--count", "1", "/dev/full"])?
        .failed(1, "cannot write /dev/full")?;
    Ok(())
}
