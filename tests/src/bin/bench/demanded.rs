//! The ratios that the project asks of itself, beside those of this run.

use std::collections::BTreeMap;

use crate::{
    packet::Leasts,
    table::{Cell, Table},
    wire::Medians,
};

/// What is known of a run; parts that were not measured are empty.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) leasts: Leasts,
    pub(crate) medians: Medians,
    pub(crate) two_cpus: BTreeMap<&'static str, f64>,
}

impl Known {
    fn packet(&self, over: (&'static str, &str), under: (&'static str, &str)) -> Option<f64> {
        let least = |(group, name): (&'static str, &str)| self.leasts.get(&(group, name.to_owned()));
        Some(least(over)? / least(under)?)
    }

    fn wire(&self, limit: &'static str, sources: &'static str, under: &'static str) -> Option<f64> {
        let median = |filter| self.medians.get(&(limit, filter, sources));
        Some(median("Weir")? / median(under)?)
    }
}

/// The last table.
pub(crate) fn table(known: &Known) -> Table {
    let columns = [("demanded", "demanded"), ("measured", "measured"), ("met", "met")];
    let mut table = Table::new(
        "demanded",
        "How good: the ratios demanded, and those of this run",
        &columns,
    );
    let bare = ("yardsticks", "bare drop");
    let (one, million) = (
        ("sources", "Weir, IPv4, 1 source"),
        ("sources", "Weir, IPv4, 1,048,576 sources"),
    );
    let nft = "nftables, netdev ingress";
    let at_most = [
        (
            "one source, a bucket of packets a source, over bare drop",
            3.6,
            known.packet(one, bare),
        ),
        ("1,048,576 sources, the same", 9.0, known.packet(million, bare)),
        (
            "one source, over a minimal limiter with LRU_HASH",
            1.1,
            known.packet(one, ("sources", "minimal limiter, LRU_HASH, 1 source")),
        ),
        (
            "1,048,576 sources, over a minimal limiter with LRU_HASH",
            0.55,
            known.packet(
                million,
                ("sources", "minimal limiter, LRU_HASH, 1,048,576 sources"),
            ),
        ),
        (
            "the full policy over a single bucket, one source, passed",
            2.0,
            known.packet(
                ("stages", "+ sampling: the full policy"),
                ("frames", "IPv4, passed"),
            ),
        ),
        (
            "end to end, all dropped, over nftables netdev ingress, one source",
            0.33,
            known.wire("dropped", "1", nft),
        ),
        (
            "the same, 1,048,576 sources",
            0.40,
            known.wire("dropped", "1,048,576", nft),
        ),
        (
            "end to end, 1,024 sources, all passed, over no filter",
            1.25,
            known.wire("passed", "1,024", "no filter"),
        ),
        (
            "a full policy of 1,000 services over one of 1",
            1.05,
            known.packet(("services", "1000 services"), ("services", "1 service")),
        ),
        (
            "1,000,000 prefixes in a drop list over none, one source in none of them",
            1.25,
            known.packet(
                ("lists", "1,000,000 prefixes, one source"),
                ("lists", "empty, one source"),
            ),
        ),
        (
            "the same, 1,048,576 sources in none of them",
            1.25,
            known.packet(
                ("lists", "1,000,000 prefixes, 1,048,576 sources"),
                ("lists", "empty, 1,048,576 sources"),
            ),
        ),
    ];
    for (name, most, measured) in at_most {
        row(&mut table, name, format!("at most {most}"), measured, |ratio| {
            ratio <= most
        });
    }
    let least = 1.7;
    let measured = known.two_cpus.get("one total, passed").copied();
    let name = "two CPUs on one total, packets a second over one CPU";
    row(&mut table, name, format!("at least {least}"), measured, |ratio| {
        ratio >= least
    });
    let others = ["bare drop", "two totals, one of each CPU, passed"].map(|name| known.two_cpus.get(name));
    if let [Some(bare), Some(apart)] = others {
        table.notes.push(format!(
            "Two CPUs that only drop do {bare:.2} times what one does on this machine, and {apart:.2} times with a total of their own each."
        ));
    }
    table.notes.push(
        "Per packet: the least of the rounds. End to end: medians of CPU time. Two CPUs: the least of the rounds on each CPU.".into(),
    );
    table
}

fn row(table: &mut Table, name: &str, demanded: String, measured: Option<f64>, meets: impl Fn(f64) -> bool) {
    let (ratio, met) = match measured {
        None => (Cell::Nothing, "not measured"),
        Some(ratio) if meets(ratio) => (Cell::Number(ratio, 2), "yes"),
        Some(ratio) => (Cell::Number(ratio, 2), "no"),
    };
    table.row(name, vec![Cell::Text(demanded), ratio, Cell::Text(met.into())]);
}
