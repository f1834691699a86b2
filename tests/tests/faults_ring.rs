//! The ring that tells of started blocks, full: what is lost is counted, and no verdict depends on it.

use anyhow::{Result, ensure};
use gateway_core::judge::Event;
use nix::sys::signal::Signal;
use weir_tests::{
    bpf,
    frame::{Frame, SYN, scattered_sources},
    sender::Plan,
    site::{Site, counts, reason},
};

const POLICY: &str = r#"
version = 1
[[service]]
name = "web"
protocol = "tcp"
ports = [80]
[service.per_source]
connections = { rate = 1, burst = 1 }
block = { for = "1h", drops = 2, within = "1h" }
"#;

/// More blocks than the ring has room for, with nobody to read it.
const SOURCES: usize = 8_000;
/// So many fit, whatever a record's header takes.
const FEW: usize = 1_000;

#[test]
fn a_full_ring_loses_notices_and_no_verdict() -> Result<()> {
    let site = Site::new()?;
    let mut weir = site.weir(POLICY)?;
    let seen = weir.bpffs_path().join("set-1/EVENTS_SEEN");
    let event = |event: Event| bpf::sum_of_words(&seen, event as u32);
    weir.stop_with(Signal::SIGKILL)?;
    // Four each: admitted, refused, refused with the start of a block, blocked.
    let frames: Vec<Vec<u8>> = scattered_sources(5, SOURCES)
        .into_iter()
        .flat_map(|source| {
            let frame = Frame::new().ips(source.into(), [10, 77, 0, 2].into());
            vec![frame.tcp(4000, 80, SYN).build(); 4]
        })
        .collect();
    let (few, many) = frames.split_at(4 * FEW);
    // In portions that the link's own queue holds, whoever else wants the CPU.
    let send = |frames: &[Vec<u8>]| {
        let plan = Plan::count(frames.len() as u64).at(40_000).relaxed();
        site.send_by(frames, &plan.on_cpu(0))
    };
    send(few)?;
    ensure!(
        event(Event::Unnoticed)? == 0,
        "room for the first: {}",
        event(Event::Unnoticed)?
    );
    let first = event(Event::Blocked)?;
    send(many)?;
    let (blocked, lost) = (event(Event::Blocked)?, event(Event::Unnoticed)?);
    weir.start()?;
    let metrics = weir.metrics()?;
    let web = counts(&metrics, "web", &[]);
    println!("{first} of {FEW}, {blocked} of {SOURCES} blocked, {lost} notices lost; {web:?}");
    ensure!(
        web.pass + web.drop == frames.len() as u64,
        "every packet counted: {web:?}"
    );
    let records = (gateway_core::image::NOTICES as usize / size_of::<gateway_core::image::Notice>()) as u64;
    ensure!(
        lost >= blocked.saturating_sub(records) && lost < blocked - FEW as u64,
        "{lost} of {blocked} notices lost"
    );
    // The last ones are judged as the first were: one admitted, two refused, one blocked. A few share a line with so many
    // others that no cell was left for their block; their bucket refuses them too.
    let each = SOURCES as u64;
    ensure!(
        web.pass == each
            && reason(&metrics, "web", "block") == blocked
            && blocked > each * 99 / 100
            && reason(&metrics, "web", "source_connections") == 3 * each - blocked,
        "{web:?}, {} refused, {} blocked",
        reason(&metrics, "web", "source_connections"),
        reason(&metrics, "web", "block")
    );
    Ok(())
}
