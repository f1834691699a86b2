//! The whole of Weir in a minute, on any kernel and however slow its processor: started on an interface, a limit held,
//! another policy, a ban, a controller killed and started again, and taken off.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use weir_tests::{
    command::patience,
    daemon::Daemon,
    site::{Counts, Site, counts, datagram, reason},
};

const BURST: u64 = 100;
const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\nprotocol = \"udp\"\nports = [80]\n[service.per_source]\n\
    packets = { rate = 1, burst = 100 }\n";
/// Frames at once: fewer than the interface queues, so that none is lost before Weir where the receiver falls behind.
const FEW: u64 = 150;

#[test]
fn from_the_start_to_the_detach() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    let begun = Instant::now();
    // One source at a rate of one a second: whatever happens, no more than its burst and a packet for every second.
    let hold = |all: Counts| -> Result<()> {
        let most = BURST + begun.elapsed().as_secs() + 1;
        ensure!(
            (BURST..=most).contains(&all.pass),
            "at most {most} to pass: {all:?}"
        );
        Ok(())
    };
    let (limited, banned) = ([datagram("192.0.2.1", 60)], [datagram("192.0.2.9", 60)]);
    site.send(&limited, FEW)?;
    hold(all_of(&weir, FEW)?)?;
    weir.apply(&format!(
        "{POLICY}[[service]]\nname = \"other\"\nprotocol = \"tcp\"\n"
    ))?
    .ok()?;
    site.send(&limited, FEW)?;
    hold(all_of(&weir, 2 * FEW)?)?;

    weir.cli(&["ban", "192.0.2.9"])?.ok()?;
    weir.stop_with(Signal::SIGKILL)?;
    site.send(&limited, 100)?;
    site.send(&banned, 20)?;
    weir.start()?;
    site.send(&banned, 20)?;
    hold(all_of(&weir, 2 * FEW + 140)?)?;
    let bans = reason(&weir.metrics()?, "web", "ban");
    ensure!(
        bans == 40,
        "{bans} of 40 dropped for the ban, half of them without a controller"
    );

    weir.cli(&["status"])?.ok()?;
    weir.cli(&["detach"])?.ok()?;
    ensure!(site.node.xdp("eth0")?.is_none(), "taken off");
    Ok(())
}

/// What became of all packets, once so many were counted.
fn all_of(weir: &Daemon<'_>, sent: u64) -> Result<Counts> {
    let deadline = Instant::now() + patience(Duration::from_secs(2));
    loop {
        let all = counts(&weir.metrics()?, "web", &[]);
        if all.pass + all.drop == sent {
            return Ok(all);
        }
        ensure!(
            all.pass + all.drop < sent && Instant::now() < deadline,
            "{sent} sent, and counted {all:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
