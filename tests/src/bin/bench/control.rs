//! The controller's work, by the command line that users have: policies, scrapes and bans; and the memory that it takes.

use std::{fmt::Write as _, fs, time::Instant};

use anyhow::{Context as _, Result};
use weir_tests::{daemon::Daemon, site::Site};

use crate::{
    cases,
    table::{Cell, Figures, Table},
};

/// A policy of so many services with two limits each, and an empty list.
fn services(count: u32, rate: u32) -> String {
    let mut text = String::from(
        "version = 1\n[lists.feed]\naction = \"drop\"\nmax_prefixes = 1_000_000\nprefixes = []\n",
    );
    for at in 0..count {
        let _ = write!(
            text,
            "[[service]]\nname = \"s{at}\"\nprotocol = \"tcp\"\nports = [{}]\n[service.per_source]\npackets = {{ rate = {rate}, burst = 2000 }}\n[service.total]\npackets = {{ rate = 100_000, burst = 100_000 }}\n",
            1_000 + at
        );
    }
    text
}

/// What is measured of policies of so many services.
#[derive(Clone, Default)]
struct OfServices {
    new: Figures,
    changed: Figures,
    scrape: Figures,
}

/// Measures all of it.
pub(crate) fn measure(rounds: usize, quick: bool) -> Result<Vec<Table>> {
    let mut times = Table::new(
        "control",
        "Control: time of a command, with the start of the program",
        &[("ms", "ms")],
    );
    let mut memory = Table::new(
        "memory",
        "Memory",
        &[("controller", "controller, MB"), ("maps", "maps, MB")],
    );
    let site = Site::new()?;
    let counts: &[u32] = if quick {
        &[1, 100]
    } else {
        &[1, 10, 100, 1_000, 10_000]
    };
    let mut figures = vec![OfServices::default(); counts.len()];
    for round in 0..rounds {
        for (count, figures) in counts.iter().zip(&mut figures) {
            // A controller that knows none of them yet.
            let weir = site.weir("version = 1\n")?;
            let applied = weir.apply(&services(*count, 1_000))?.ok()?;
            figures.new.push(applied.took.as_secs_f64() * 1e3);
            let applied = weir.apply(&services(*count, 2_000))?.ok()?;
            figures.changed.push(applied.took.as_secs_f64() * 1e3);
            // The first answer after an apply is made anew.
            weir.http("GET", "/metrics")?;
            let start = Instant::now();
            let (code, _) = weir.http("GET", "/metrics")?;
            anyhow::ensure!(code == 200, "/metrics answered {code}");
            figures.scrape.push(start.elapsed().as_secs_f64() * 1e3);
            if round == 0 {
                memory.row(noun(*count), used(&weir)?);
            }
        }
    }
    for (what, of) in [
        (
            "policy apply, new:",
            (|figures| &figures.new) as fn(&OfServices) -> &Figures,
        ),
        ("policy apply, every rate changed:", |figures| &figures.changed),
        ("scrape of /metrics:", |figures| &figures.scrape),
    ] {
        for (count, figures) in counts.iter().zip(&figures) {
            times.row(
                format!("{what} {}", noun(*count)),
                vec![Cell::figures(of(figures), 1)],
            );
        }
    }
    let weir = site.weir(&services(1, 1_000))?;
    if quick {
        bans(&weir, rounds, &mut times)?;
        memory.row("1 service, and 10,001 bans", used(&weir)?);
    } else {
        lists(&weir, rounds, &mut times)?;
        memory.row("1 service, a list of 1,000,000 prefixes", used(&weir)?);
        bans(&weir, rounds, &mut times)?;
        memory.row("the same, and 10,001 bans", used(&weir)?);
    }
    memory.notes.push(
        "Controller: resident set, which keeps some of what an apply took. Maps: what the kernel says that everything pinned takes; both generations of a policy, and the source table of a policy that \
         does not speak of it."
            .into(),
    );
    Ok(vec![times, memory])
}

fn noun(count: u32) -> String {
    format!("{count} {}", if count == 1 { "service" } else { "services" })
}

/// A feed of a million prefixes, and policies applied while it is there.
fn lists(weir: &Daemon<'_>, rounds: usize, times: &mut Table) -> Result<()> {
    let feed = |first: usize| {
        let prefixes = cases::prefixes(1_000_000);
        prefixes
            .iter()
            .skip(first)
            .fold(String::new(), |mut text, prefix| {
                let _ = writeln!(text, "{prefix}");
                text
            })
    };
    let path = weir.dir().join("feed.txt");
    let name = path.to_string_lossy();
    let (mut from_file, mut replace, mut unchanged) =
        (Figures::default(), Figures::default(), Figures::default());
    // One prefix less each time, so that there is something to change.
    for round in 0..rounds {
        fs::write(&path, feed(round))?;
        let file =
            format!("[lists.file]\naction = \"drop\"\nmax_prefixes = 1_000_000\nfiles = [\"{name}\"]\n");
        let policy = services(1, 2_000).replacen("[[service]]", &format!("{file}[[service]]"), 1);
        from_file.push(weir.apply(&policy)?.ok()?.took.as_secs_f64() * 1e3);
        weir.apply(&services(1, 2_000))?.ok()?;
    }
    for round in 0..rounds {
        fs::write(&path, feed(round))?;
        let output = weir.cli(&["list", "replace", "feed", &name, "--force"])?.ok()?;
        replace.push(output.took.as_secs_f64() * 1e3);
        let output = weir.apply(&services(1, 3_000 + round as u32))?.ok()?;
        unchanged.push(output.took.as_secs_f64() * 1e3);
    }
    for (what, figures) in [
        ("policy apply, 1,000,000 prefixes from a file", &from_file),
        ("list replace, 1,000,000 prefixes", &replace),
        ("policy apply, 1 service, that list unchanged", &unchanged),
    ] {
        times.row(what, vec![Cell::figures(figures, 1)]);
    }
    Ok(())
}

fn bans(weir: &Daemon<'_>, rounds: usize, times: &mut Table) -> Result<()> {
    let mut feed = String::new();
    for at in 0..10_000_u32 {
        let _ = writeln!(feed, "10.{}.{}.{}", 128 + at / 65_536, at / 256 % 256, at % 256);
    }
    let (mut one, mut many) = (Figures::default(), Figures::default());
    for _ in 0..rounds {
        let output = weir.cli(&["ban", "198.51.100.7", "--for", "1h"])?.ok()?;
        one.push(output.took.as_secs_f64() * 1e3);
        let output = weir.cli_with_input(&["ban", "-", "--for", "1h"], &feed)?.ok()?;
        many.push(output.took.as_secs_f64() * 1e3);
    }
    times.row("a ban", vec![Cell::figures(&one, 1)]);
    times.row("10,000 bans", vec![Cell::figures(&many, 1)]);
    Ok(())
}

/// Megabytes of the controller and of the maps.
fn used(weir: &Daemon<'_>) -> Result<Vec<Cell>> {
    let pid = weir.pid().context("the controller does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<f64>().ok())
        .context("the kernel does not say how much memory the controller has")?;
    let maps = weir_tests::bpf::memory_of_pinned(&weir.bpffs_path())? as f64;
    Ok(vec![
        Cell::Number(resident * 1_024.0 / 1e6, 1),
        Cell::Number(maps / 1e6, 1),
    ])
}
