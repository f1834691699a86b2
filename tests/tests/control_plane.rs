//! Who may connect to the running controller, what they may do, and what happens without it.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{sys::signal::Signal, unistd::Group};
use weir_tests::{
    daemon::Daemon,
    site::{Site, counts, datagram},
};

/// Users that no machine has.
const MEMBER: u32 = 64_998;
const STRANGER: u32 = 64_997;

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\npackets = { rate = 1, burst = 10 }\n";

/// A group that every machine has, beside root's.
fn some_group() -> Result<Group> {
    for name in ["adm", "daemon", "nogroup", "nobody"] {
        if let Some(group) = Group::from_name(name)? {
            return Ok(group);
        }
    }
    anyhow::bail!("this machine has none of the usual groups")
}

/// Weir, with its binary and socket in a folder that everybody may enter.
fn weir<'n>(site: &'n Site, policy: &str) -> Result<Daemon<'n>> {
    let mut weir = Daemon::prepare(&site.node, &["eth0"], policy)?.for_all()?;
    weir.start()?;
    Ok(weir)
}

#[test]
fn members_of_the_group_read_root_changes_and_strangers_stay_out() -> Result<()> {
    let site = Site::new()?;
    let group = some_group()?;
    let gid = group.gid.as_raw();
    let named = format!("{POLICY}[controller]\nsocket_group = \"{}\"\n", group.name);
    let weir = weir(&site, &named)?;
    let socket = fs::metadata(weir.socket_path())?;
    ensure!(
        socket.mode() & 0o7777 == 0o660 && socket.gid() == gid,
        "{socket:?}"
    );

    for command in [&["status"][..], &["bans"], &["list", "show"], &["policy", "show"]] {
        weir.cli_as(MEMBER, &[gid], command)?.ok()?;
    }
    for command in [
        &["ban", "192.0.2.1"][..],
        &["unban", "192.0.2.1"],
        &["policy", "rollback"],
        &["scale", "web", "50%", "--for", "1m"],
        &["lever", "clear"],
    ] {
        weir.cli_as(MEMBER, &[gid], command)?
            .failed(1, "uid 64998 may read here, and not change anything")?;
    }
    ensure!(
        weir.log().contains("a change was refused") && weir.log().contains("uid 64998"),
        "{}",
        weir.log()
    );
    let bans = weir.cli(&["bans", "--json"])?.ok()?.json()?;
    ensure!(bans["bans"].as_array().is_some_and(Vec::is_empty), "{bans}");
    weir.cli_as(STRANGER, &[], &["status"])?.failed(1, "")?;
    weir.cli(&["ban", "192.0.2.1"])?.ok()?;

    // Without the key the group is the controller's own, at once; with one that is no group only the owner is let in.
    weir.apply(POLICY)?.ok()?;
    weir.cli_as(MEMBER, &[gid], &["status"])?.failed(1, "")?;
    let nowhere = format!("{POLICY}[controller]\nsocket_group = \"no-such-group\"\n");
    let applied = weir.apply(&nowhere)?.ok()?;
    let told = format!("{}{}", applied.stdout, applied.stderr);
    ensure!(told.contains("there is no group no-such-group"), "{told}");
    ensure!(fs::metadata(weir.socket_path())?.mode() & 0o7777 == 0o600);
    weir.cli(&["status"])?.failed(1, "")?;
    Ok(())
}

/// Connects so often as another user, with that group, and keeps the connections.
fn connect_as(user: u32, group: u32, socket: &Path, times: usize) -> Result<Vec<UnixStream>> {
    let connect = || -> io::Result<Vec<UnixStream>> {
        let id = |number: u32| libc::c_long::from(number);
        // SAFETY: the raw calls change the ids of this thread alone, which ends with this function; they take numbers.
        let done = unsafe {
            libc::syscall(libc::SYS_setresgid, id(group), id(group), id(group)) == 0
                && libc::syscall(libc::SYS_setresuid, id(user), id(user), id(user)) == 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
        (0..times).map(|_| UnixStream::connect(socket)).collect()
    };
    thread::scope(|scope| scope.spawn(connect).join())
        .map_err(|_| anyhow::anyhow!("the thread panicked"))?
        .context("cannot connect as another user")
}

#[test]
fn a_thousand_idle_connections_keep_neither_root_nor_others_out() -> Result<()> {
    let site = Site::new()?;
    let group = some_group()?;
    let policy = format!("{POLICY}[controller]\nsocket_group = \"{}\"\n", group.name);
    let weir = weir(&site, &policy)?;
    let socket = weir.socket_path();
    let gid = group.gid.as_raw();
    let members = connect_as(MEMBER, gid, &socket, 400)?;
    let others = connect_as(STRANGER, gid, &socket, 400)?;
    let own: Vec<_> = (0..200)
        .map(|_| UnixStream::connect(&socket))
        .collect::<io::Result<_>>()?;
    let descriptors = || -> Result<usize> {
        let pid = weir.pid().context("it runs")?;
        Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    };
    let began = Instant::now();
    weir.cli(&["status"])?.ok()?;
    weir.cli_as(MEMBER, &[gid], &["status"])?.ok()?;
    weir.cli_as(STRANGER, &[gid], &["status"])?.ok()?;
    weir.metrics()?;
    ensure!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let open = descriptors()?;
    ensure!(
        open < 250,
        "{open} descriptors for {} connections",
        members.len() + others.len() + own.len()
    );
    Ok(())
}

#[test]
fn metrics_are_for_this_machine_unless_it_is_said() -> Result<()> {
    let site = Site::new()?;
    let public = ([10, 77, 0, 2], 9464).into();
    let mut refused = Daemon::prepare(&site.node, &["eth0"], POLICY)?.listening_at(public);
    refused
        .start_failing()?
        .failed(2, "add --listen-public if that is meant")?;
    ensure!(site.node.xdp("eth0")?.is_none(), "nothing was attached");
    let mut weir = Daemon::prepare(&site.node, &["eth0"], POLICY)?
        .listening_at(public)
        .with_args(&["--listen-public"]);
    weir.start()?;
    for (method, path) in [
        ("POST", "/metrics"),
        ("DELETE", "/v1/bans"),
        ("GET", "/v1/status"),
    ] {
        let (code, _) = weir.http(method, path)?;
        ensure!((404..=405).contains(&code), "{method} {path}: {code}");
    }
    let (code, _) = weir.http("GET", "/healthz")?;
    ensure!(code == 200);
    Ok(())
}

#[test]
fn a_lost_controller_opens_the_node_after_its_time_and_a_new_one_closes_it() -> Result<()> {
    let site = Site::new()?;
    let policy = format!("{POLICY}[controller]\non_loss = \"open\"\nafter = \"10s\"\n");
    let mut weir = site.weir(&policy)?;
    let flood = |source: &str| site.send(&[datagram(source, 60)], 50);
    // A controller that lives is not lost.
    thread::sleep(Duration::from_secs(11));
    flood("192.0.2.1")?;
    let alive = counts(&weir.metrics()?, "web", &[]);
    ensure!(alive.drop >= 38 && alive.would == 0, "{alive:?}");
    let status = weir.cli(&["status", "--json"])?.ok()?.json()?;
    ensure!(
        status["controller"]["on_loss"] == "open" && status["controller"]["after_seconds"] == 10,
        "{status}"
    );

    weir.stop_with(Signal::SIGKILL)?;
    let lost = Instant::now();
    flood("192.0.2.2")?;
    ensure!(
        lost.elapsed() < Duration::from_secs(5),
        "this machine is too slow for this test"
    );
    thread::sleep(Duration::from_secs(11));
    flood("192.0.2.3")?;

    let bpffs = weir.bpffs_path();
    let doctor = weir.cli(&["doctor", "--bpffs", &bpffs.to_string_lossy()])?;
    ensure!(
        doctor.code == 1 && doctor.stdout.contains("the node has been open for"),
        "{doctor:?}"
    );

    weir.start()?;
    ensure!(weir.log().contains("the node was open"), "{}", weir.log());
    let after = counts(&weir.metrics()?, "web", &[]).since(alive);
    ensure!(after.drop >= 38, "it enforced until its time was over: {after:?}");
    ensure!(after.would >= 38, "and then only counted: {after:?}");
    flood("192.0.2.4")?;
    let closed = counts(&weir.metrics()?, "web", &[]).since(alive);
    ensure!(
        closed.drop >= after.drop + 38 && closed.would == after.would,
        "{closed:?} after {after:?}"
    );

    // Under hold nothing opens, and the policy's change counts at once.
    weir.apply(POLICY)?.ok()?;
    weir.stop_with(Signal::SIGTERM)?;
    thread::sleep(Duration::from_secs(11));
    flood("192.0.2.5")?;
    weir.start()?;
    let held = counts(&weir.metrics()?, "web", &[]).since(alive);
    ensure!(
        held.drop >= closed.drop + 38 && held.would == closed.would,
        "{held:?} after {closed:?}"
    );
    Ok(())
}
