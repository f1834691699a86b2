//! Bad input: one clear sentence, the right exit code, and what was in force stays in force.

use anyhow::{Result, ensure};
use weir_tests::{
    daemon::Daemon,
    frame::{ACK, Frame},
    site::{Site, counts, datagram},
};

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = { rate = 1, burst = 10 }\n";

/// Runs `weir run` that must fail, with a code and words on standard error; and no more than a few lines of it.
fn fails(site: &Site, policy: &[u8], interface: &str, code: i32, words: &[&str]) -> Result<()> {
    let mut weir = Daemon::prepare(&site.node, &[interface], "")?;
    std::fs::write(weir.policy_path(), policy)?;
    let output = weir.start_failing()?;
    let text = format!("{}{}", output.stderr, output.stdout);
    ensure!(
        output.code == code,
        "exit code {} instead of {code}: {text}",
        output.code
    );
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    ensure!(
        !text.contains("panicked") && !text.contains("backtrace"),
        "{text}"
    );
    ensure!(site.node.xdp("eth0")?.is_none(), "nothing is attached");
    Ok(())
}

#[test]
fn policies_that_cannot_be() -> Result<()> {
    let site = Site::new()?;
    fails(&site, b"", "eth0", 2, &["empty"])?;
    fails(&site, &[0, 159, 146, 150, 0, 1], "eth0", 2, &["policy.toml"])?;
    fails(&site, &vec![b'#'; 20 << 20], "eth0", 2, &["policy.toml"])?;
    fails(
        &site,
        b"version = 1\n[[service]]\nname = \"w",
        "eth0",
        2,
        &["policy.toml:3"],
    )?;
    fails(
        &site,
        b"version = 1\n[[service]]\nname = \"w\"\nprotocol = \"tcp\"\nports = [\"90-80\"]\n",
        "eth0",
        2,
        &["policy.toml:5", "ports"],
    )?;
    fails(
        &site,
        b"version = 1\n[[service]]\nname = \"w\"\nprotocol = \"tcp\"\naddresses = [\"10.0.0.1/24\", \"999.1.1.1\"]\nrate = 3\n",
        "eth0",
        2,
        &["10.0.0.0/24", "999.1.1.1", "rate"],
    )
}

#[test]
fn an_interface_that_is_not_there() -> Result<()> {
    let site = Site::new()?;
    fails(&site, POLICY.as_bytes(), "eth9", 1, &["eth9"])
}

#[test]
fn no_bpffs_and_no_rights() -> Result<()> {
    let site = Site::new()?;
    let dir = tempfile::tempdir()?;
    let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?;
    let elsewhere = dir.path().join("weir");
    let run = |program: &str, more: &[&str], bpffs: &str| {
        let mut command = site.node.command(program);
        command.args(more).args([
            "run",
            "--interface",
            "eth0",
            "--listen",
            "127.0.0.1:0",
            "--policy",
        ]);
        command
            .arg(weir.policy_path())
            .arg("--socket")
            .arg(dir.path().join("s"));
        command
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .args(["--bpffs", bpffs]);
        weir_tests::command::finish(&mut command, None, std::time::Duration::from_secs(20))
    };
    let binary = weir.binary().to_string_lossy().into_owned();
    run(&binary, &[], &elsewhere.to_string_lossy())?.failed(1, "bpf file system")?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let drop = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
        &binary,
    ];
    let denied = run("setpriv", &drop, &weir.bpffs_path().to_string_lossy())?;
    ensure!(denied.code == 1 || denied.code == 2, "{denied:?}");
    ensure!(denied.stderr.to_lowercase().contains("permi"), "{denied:?}");
    weir.start()?;
    Ok(())
}

#[test]
fn a_port_in_use_and_a_second_controller() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    let before = counts(&weir.metrics()?, "web", &[]);
    let dir = tempfile::tempdir()?;
    let second = |listen: &str, bpffs: &std::path::Path| {
        let mut command = site.node.command(weir.binary());
        command
            .args(["run", "--interface", "eth0", "--listen", listen, "--policy"])
            .arg(weir.policy_path());
        command
            .arg("--socket")
            .arg(dir.path().join("s"))
            .arg("--state-dir")
            .arg(dir.path().join("state"));
        command.arg("--bpffs").arg(bpffs);
        weir_tests::command::finish(&mut command, None, std::time::Duration::from_secs(20))
    };
    let address = Daemon::listen_address().to_string();
    second(&address, &weir.bpffs_path())?.failed(1, &address)?;
    second("127.0.0.1:0", &weir.bpffs_path())?.failed(1, "another weir")?;
    let other = weir_tests::bpffs::BpffsDir::create()?;
    second("127.0.0.1:0", &other.path().join("weir"))?.failed(1, "already has an XDP program")?;
    site.send(&[datagram("192.0.2.1", 60)], 50)?;
    let after = counts(&weir.metrics()?, "web", &[]).since(before);
    ensure!(
        after.pass <= 3 && after.pass + after.drop == 50,
        "the first goes on: {after:?}"
    );
    Ok(())
}

#[test]
fn wrong_usage_exits_with_2() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    for (arguments, words) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["ban", "192.0.2.1/99"], "192.0.2.1/99"),
        (&["ban", "2001:db8::1/200"], "2001:db8::1/200"),
        (&["ban", "nonsense"], "nonsense"),
        (&["scale", "web", "50%"], "--for"),
        (
            &["policy", "apply", "/nowhere/policy.toml"],
            "/nowhere/policy.toml",
        ),
    ] {
        weir.cli(arguments)?.failed(2, words)?;
    }
    let json = weir.cli(&["ban", "192.0.2.1", "--service", "nobody", "--json"])?;
    ensure!(
        json.code == 1 && json.stderr.contains("\"error\"") && json.stderr.contains("\"code\""),
        "{json:?}"
    );
    Ok(())
}

#[test]
fn no_controller_says_how_to_start_one() -> Result<()> {
    let site = Site::new()?;
    let weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?;
    weir.cli(&["status"])?.failed(1, "no controller")?;
    weir.cli(&["detach"])?.failed(1, "")?;
    let frame = Frame::new().ip("192.0.2.1", "10.77.0.2").tcp(1, 2, ACK).build();
    site.send(&[frame], 1)?;
    Ok(())
}
