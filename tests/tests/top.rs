//! `weir top` on a terminal of its own, over a real daemon.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    signal::Signal,
    wait::{WaitPidFlag, WaitStatus, waitpid},
};
use weir_tests::{
    command::{finish, patience},
    daemon::Daemon,
    screen::Screen,
    site::{Site, datagram},
};

const POLICY: &str = r#"version = 1
[[protect]]
sources = ["10.9.0.0/28"]
[[service]]
name = "storefront"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 10, burst = 20 }
"#;

fn top(site: &Site, weir: &Daemon<'_>) -> Command {
    let mut command = site.node.command(weir.binary());
    command.args(["top", "--interval", "200ms", "--socket"]);
    command.arg(weir.socket_path());
    for variable in ["NO_COLOR", "LC_ALL", "LC_CTYPE", "COLUMNS", "LINES"] {
        command.env_remove(variable);
    }
    command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
    command
}

fn start(site: &Site, weir: &Daemon<'_>) -> Result<Screen> {
    let screen = Screen::start(top(site, weir), (80, 24))?;
    screen.wait_for("storefront")?;
    ensure!(screen.is_alternate() && screen.hides_cursor() && !screen.echoes()?);
    Ok(screen)
}

/// The terminal is as a shell expects it.
fn restored(screen: &Screen) -> Result<()> {
    screen.wait("the shell's screen", |_| {
        !screen.is_alternate() && !screen.hides_cursor()
    })?;
    ensure!(screen.echoes()?, "the terminal is still raw");
    Ok(())
}

#[test]
fn services_are_shown_in_every_size_and_bans_are_made_and_taken_back() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let mut screen = start(&site, &weir)?;
    let text = screen.wait_for("ENFORCE")?;
    ensure!(text.contains("eth0") && text.contains("revision 1"), "{text}");

    site.send(&[datagram("10.77.0.1", 100)], 500)?;
    screen.wait_for("source_packets")?;
    screen.resize(120, 40)?;
    screen.wait("the foot of the larger screen", |text| {
        text.lines().count() == 40 && text.contains("space pause")
    })?;
    screen.resize(30, 8)?;
    screen.wait_for("has 30x8")?;
    screen.resize(80, 24)?;
    screen.wait_for("storefront")?;

    // The event of a ban by somebody else names its source; b on it would do nothing and says so.
    weir.cli(&["ban", "192.0.2.9", "--for", "1h", "--reason", "ticket 7"])?
        .ok()?;
    screen.press("7")?;
    screen.wait_for("192.0.2.9/32")?;
    screen.press("u")?;
    screen.wait_for("Take the ban of 192.0.2.9/32 back?")?;
    ensure!(
        weir.cli(&["bans"])?.ok()?.stdout.contains("192.0.2.9/32"),
        "nothing was confirmed yet"
    );
    screen.press("\r")?;
    screen.wait_for("unbanned 192.0.2.9/32")?;
    screen.wait_for("nobody is banned")?;
    ensure!(weir.cli(&["bans"])?.ok()?.stdout.contains("nobody"));

    screen.press("q")?;
    ensure!(screen.end()?.success());
    restored(&screen)
}

#[test]
fn the_selected_source_is_banned_after_a_confirmation() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    weir.cli(&["ban", "192.0.2.9", "--for", "1s"])?.ok()?;
    let mut screen = start(&site, &weir)?;
    // The events name sources, too; the newest is the first.
    screen.press("6/192.0.2.9\r")?;
    screen.wait_for("banned 192.0.2.9/32")?;
    thread::sleep(patience(Duration::from_millis(1500)));
    screen.press("b")?;
    screen.wait_for("Ban 192.0.2.9/32 from all services?")?;
    screen.press("\u{1b}")?;
    screen.wait("the end of the question", |text| {
        !text.contains("from all services?")
    })?;
    ensure!(
        !weir.cli(&["bans"])?.ok()?.stdout.contains("192.0.2.9"),
        "Esc banned"
    );
    screen.press("b2\r")?;
    screen.wait_for("banned 192.0.2.9/32 for 1 h")?;
    let bans = weir.cli(&["bans", "--json"])?.ok()?.json()?;
    ensure!(
        bans["bans"][0]["prefix"] == "192.0.2.9/32" && bans["bans"][0]["reason"] == "weir top",
        "{bans}"
    );
    // The controller has the last word, and says it.
    screen.press("b1\r")?;
    screen.wait_for("refused: ")?;
    Ok(())
}

#[test]
fn the_terminal_is_given_back_by_signals_and_across_a_stop() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut screen = start(&site, &weir)?;
        screen.signal(signal)?;
        ensure!(screen.end()?.success(), "{signal}");
        restored(&screen)?;
    }
    let mut screen = start(&site, &weir)?;
    screen.press("\u{1a}")?;
    let stopped = waitpid(screen.pid(), Some(WaitPidFlag::WUNTRACED))?;
    ensure!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    restored(&screen)?;
    screen.signal(Signal::SIGCONT)?;
    screen.wait("the view", |text| {
        screen.is_alternate() && text.contains("storefront")
    })?;
    screen.press("\u{3}")?;
    ensure!(screen.end()?.success());
    restored(&screen)
}

#[test]
fn a_terminal_that_goes_away_ends_it() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    let mut screen = start(&site, &weir)?;
    screen.close();
    let status = screen.end()?;
    ensure!(status.success(), "{status}");
    // Without the signal that a broken connection brings: there is only the end of the terminal to go by.
    let mut command = Command::new("env");
    command.arg("--ignore-signal=HUP");
    let inner = top(&site, &weir);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env("TERM", "xterm").env("LANG", "C.UTF-8");
    let mut screen = Screen::start(command, (80, 24))?;
    screen.wait_for("storefront")?;
    let before = processor_time(&screen)?;
    thread::sleep(Duration::from_secs(1));
    let spent = processor_time(&screen)? - before;
    ensure!(spent < 50, "an idle view took {spent} hundredths of a second");
    screen.close();
    let status = screen.end()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Processor time of the program, in hundredths of a second.
fn processor_time(screen: &Screen) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", screen.pid()))?;
    let (_, after) = stat.rsplit_once(')').context("no name in stat")?;
    let mut fields = after.split_whitespace().skip(11);
    let mut next = || -> Result<u64> { Ok(fields.next().context("stat is short")?.parse()?) };
    Ok(next()? + next()?)
}

#[test]
fn a_controller_that_goes_is_said_and_waited_for() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    let mut screen = start(&site, &weir)?;
    weir.stop_with(Signal::SIGTERM)?;
    let text = screen.wait_for("controller does not answer")?;
    ensure!(text.contains("storefront"), "what was known is gone:\n{text}");
    // Keys work meanwhile.
    screen.press("?")?;
    screen.wait_for("all about it")?;
    screen.press(" ")?;
    weir.start()?;
    screen.wait("the controller", |text| !text.contains("does not answer"))?;
    screen.press("q")?;
    ensure!(screen.end()?.success());
    Ok(())
}

#[test]
fn who_may_not_change_is_told_so() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?.for_all()?;
    weir.cli(&["ban", "192.0.2.9"])?.ok()?;
    std::os::unix::fs::chown(weir.socket_path(), None, Some(4711))?;
    let inner = top(&site, &weir);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=4711", "--regid=4711", "--clear-groups", "--"]);
    // The namespace is entered first, while that is still allowed.
    let mut arguments = inner.get_args();
    let enter: Vec<_> = arguments.by_ref().take(2).collect();
    let mut outer = Command::new(inner.get_program());
    outer
        .args(enter)
        .arg(command.get_program())
        .args(command.get_args())
        .args(arguments);
    outer.env("TERM", "xterm").env("LANG", "C.UTF-8");
    let mut screen = Screen::start(outer, (80, 24))?;
    screen.wait_for("storefront")?;
    screen.press("7u\r")?;
    screen.wait_for("refused: ")?;
    ensure!(weir.cli(&["bans"])?.ok()?.stdout.contains("192.0.2.9"));
    drop(screen);
    weir.stop_with(Signal::SIGTERM)?;
    Ok(())
}

#[test]
fn what_is_no_terminal_gets_a_frame_or_an_explanation() -> Result<()> {
    let site = Site::new()?;
    let weir = site.weir(POLICY)?;
    weir.cli(&["top"])?
        .failed(2, "standard output is not a terminal")?;
    weir.cli(&["top", "--json"])?.failed(2, "weir status --json")?;
    weir.cli(&["top", "--interval", "1ms"])?.failed(2, "200ms")?;
    let frame = weir.cli(&["top", "--once"])?.ok()?.stdout;
    ensure!(
        frame.contains("storefront") && !frame.contains('\u{1b}'),
        "{frame}"
    );

    let mut dumb = top(&site, &weir);
    dumb.env("TERM", "dumb");
    let mut screen = Screen::start(dumb, (80, 24))?;
    ensure!(screen.end()?.code() == Some(2));
    screen.wait_for("weir top --once")?;

    drop(screen);
    let mut nobody = Command::new(weir.binary());
    nobody
        .args(["top", "--once", "--socket"])
        .arg(weir.dir().join("none.sock"));
    finish(&mut nobody, None, Duration::from_secs(20))?.failed(1, "no controller answers")?;
    Ok(())
}
