//! What a packet costs by the kernel's own test-run: every row in every round.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use gateway_core::verdict::Verdict;
use weir::{
    kernel::{BanEntry, Dataplane, ListContents, TestProgram},
    policy,
};
use weir_tests::{
    bpf::{
        asm::Helper,
        program::{DROP, Kind, PASS, Program, Size, held},
    },
    bpffs::BpffsDir,
    frame::{ACK, Frame, seeded},
};

use crate::{
    Turns,
    cases::{self, Case},
    programs,
    table::{Cell, Figures, Table},
};

/// The least nanoseconds of each row, by table and name.
pub(crate) type Leasts = BTreeMap<(&'static str, String), f64>;

/// The tables, in the order in which they are printed.
const GROUPS: [(&str, &str); 7] = [
    ("yardsticks", "Per packet: yardsticks"),
    (
        "stages",
        "Per packet: each stage over those before it; one source, passed",
    ),
    ("services", "Per packet: full policies of more services"),
    ("frames", "Per packet: framings and verdicts, one bucket a source"),
    (
        "sources",
        "Per packet: random sources over their limit, beside minimal limiters",
    ),
    (
        "lists",
        "Per packet: a drop list, the source in none of its prefixes",
    ),
    ("profiles", "Per packet: profiles, times and samples"),
];

/// What is run.
enum Subject {
    Own(Program),
    Weir(TestProgram),
    Leaving(TestProgram),
}

/// A policy in force in maps of its own, kept as long as its program.
struct Place {
    _dataplane: Dataplane,
    _bpffs: BpffsDir,
}

/// A program with its maps, as they lie in memory.
struct Placed {
    subject: Subject,
    size: Size,
    verified: u32,
    _place: Option<Place>,
}

/// For so many rounds programs and maps stay where they are, and then every row is loaded anew, so that none keeps for a whole run the pages that it
/// happened to get: rows of many sources that did the same work differed by up to 30 % when they did.
const STAYS: usize = 4;

/// So many parts of a turn are one call where sources are drawn: between calls the kernel rests for milliseconds, and a neighbour takes the cache over.
const JOINED: usize = 4;

struct Row {
    group: &'static str,
    name: String,
    frame: Vec<u8>,
    load: Box<dyn Fn() -> Result<Placed>>,
    placed: Placed,
    /// Runs that fill the tables before anything is measured.
    warm: u32,
    /// Runs that take about as long as a turn's part does.
    runs: u32,
    times: Figures,
}

impl Row {
    /// Of `bits` of the source that are drawn.
    fn new(
        group: &'static str,
        name: String,
        frame: Vec<u8>,
        bits: u32,
        load: impl Fn() -> Result<Placed> + 'static,
    ) -> Result<Self> {
        Ok(Self {
            group,
            name,
            frame,
            placed: load()?,
            load: Box::new(load),
            warm: 4 << bits,
            runs: 0,
            times: Figures::default(),
        })
    }

    /// How many nanoseconds a run takes: whole ones, as the kernel tells them. (No clock around the call knows the rest: the kernel takes tens of
    /// milliseconds to begin and end one, and a third of a millisecond of the caller's time, which is a nanosecond a run.)
    fn run(&self, repeat: u32) -> Result<f64> {
        let frame = seeded(&self.frame);
        let time = match &self.placed.subject {
            Subject::Own(program) => program.run(&frame, repeat)?.1,
            Subject::Weir(program) => program.run(&frame, repeat)?.1,
            Subject::Leaving(program) => program.leaves(&frame, repeat)?,
        };
        Ok(time.as_nanos() as f64)
    }

    fn warm_up(&self) -> Result<()> {
        self.run(self.warm.max(1_000)).map(drop)
    }

    /// Loads it anew before it lets go of what it had, or it would get the same pages.
    fn move_on(&mut self) -> Result<()> {
        self.placed = (self.load)()?;
        self.warm_up()
    }

    /// One turn.
    fn turn(&mut self, parts: usize) -> Result<()> {
        let (mut calls, mut runs) = (parts, self.runs);
        if self.warm > 4 {
            // The rounds of other rows are a pause: what is measured is a flood that goes on, two packets a source later.
            self.run(self.warm / 2)?;
            (calls, runs) = (parts.div_ceil(JOINED), runs * parts.min(JOINED) as u32);
        }
        for _ in 0..calls {
            let time = self.run(runs)?;
            self.times.push(time);
        }
        Ok(())
    }
}

/// Opens maps of their own and puts a policy in force.
pub(crate) fn place(text: &str, listed: u32) -> Result<(Dataplane, BpffsDir)> {
    let parsed = policy::parse(text, Path::new("bench.toml"))?.policy;
    let bpffs = BpffsDir::create()?;
    let (mut dataplane, _) = Dataplane::open(&bpffs.path().join("weir"), &parsed.source)?;
    let mut lists: ListContents = policy::lists::contents(&parsed, Path::new("/"))?;
    if let Some(list) = lists.get_mut("bad") {
        *list = cases::prefixes(listed);
    }
    dataplane.apply(&parsed, text, &lists, &[])?;
    Ok((dataplane, bpffs))
}

/// The sizes of the program that `load` adds, which has one of these names.
fn sized<T>(names: &[&str], load: impl FnOnce() -> Result<T>) -> Result<(T, Size)> {
    let all = || -> Result<BTreeMap<u32, Size>> {
        let held: Result<Vec<_>> = names.iter().map(|name| held(name)).collect();
        Ok(held?.into_iter().flatten().collect())
    };
    let before = all()?;
    let loaded = load()?;
    let after = all()?;
    let size = after.iter().find(|(id, _)| !before.contains_key(id));
    Ok((loaded, size.map(|(_, size)| *size).unwrap_or_default()))
}

/// A case of Weir's, loaded.
fn load(case: &Case) -> Result<Placed> {
    let (mut dataplane, bpffs) = place(&case.policy, case.listed)?;
    let bans: Vec<BanEntry> = cases::prefixes(case.banned)
        .into_iter()
        .map(|prefix| BanEntry {
            prefix,
            service: None,
            until_ns: u64::MAX,
        })
        .collect();
    if !bans.is_empty() {
        dataplane.change_bans(&bans, &[])?;
    }
    let counted: &[&str] = if case.leaves {
        &["weir_egress"]
    } else {
        &["weir", "weir_full", "weir_base", "weir_lean"]
    };
    let (program, size) = sized(counted, || {
        Ok(if case.bits == 0 {
            dataplane.test_program(false)?
        } else {
            dataplane.spread_program(((1_u32 << case.bits) - 1).to_be(), false)?
        })
    })?;
    if !case.leaves && case.bits == 0 {
        let dropped = program.run(&case.frame, 3)?.0 == Verdict::Drop;
        ensure!(dropped == case.drops, "{}: dropped: {dropped}", case.name);
    }
    let verified = if case.leaves { 0 } else { program.complexity() };
    Ok(Placed {
        subject: if case.leaves {
            Subject::Leaving(program)
        } else {
            Subject::Weir(program)
        },
        size,
        verified,
        _place: Some(Place {
            _dataplane: dataplane,
            _bpffs: bpffs,
        }),
    })
}

fn ready(case: Case) -> Result<Row> {
    let (group, name, frame, bits) = (case.group, case.name.clone(), case.frame.clone(), case.bits);
    Row::new(group, name, frame, bits, move || load(&case))
}

/// A row that is not Weir's. `kind`: what the kernel calls its program.
fn own(
    group: &'static str,
    name: &str,
    kind: &'static str,
    bits: u32,
    load: impl Fn() -> Result<Program> + 'static,
) -> Result<Row> {
    let frame = Frame::new().ip("20.0.0.1", "203.0.113.10").tcp(40_000, 80, ACK);
    Row::new(group, name.to_owned(), frame.build(), bits, move || {
        let (program, size) = sized(&[kind], &load)?;
        Ok(Placed {
            subject: Subject::Own(program),
            size,
            verified: 0,
            _place: None,
        })
    })
}

/// The rows that are not Weir's and that are asked for.
fn others(asked: impl Fn(&str, &str) -> bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, answer) in [("bare drop", DROP), ("bare pass", PASS)] {
        rows.push(own("yardsticks", name, "bench_bare", 0, move || {
            programs::bare(answer)
        })?);
    }
    for (name, helper) in [
        ("a clock read", Helper::Clock),
        ("a coarse clock read", Helper::CoarseClock),
        ("a read of the tick count", Helper::Ticks),
    ] {
        rows.push(own("yardsticks", name, "bench_call", 0, move || {
            programs::call(helper)
        })?);
    }
    let draw = "the draw of a source";
    rows.push(own("yardsticks", draw, "bench_draw", 0, programs::drawing)?);
    for (name, bits) in cases::SOURCES {
        for (kind, called) in [(Kind::LruHash, "LRU_HASH"), (Kind::Array, "array")] {
            let spread = ((1_u32 << bits) - 1).to_be();
            let name = format!("minimal limiter, {called}, {name}");
            if asked("sources", &name) {
                rows.push(own("sources", &name, "bench_limiter", bits, move || {
                    programs::limiter(kind, 21, spread)
                })?);
            }
        }
    }
    Ok(rows)
}

/// Measures all rows of these turns, or those whose table or name has one of these texts in it.
pub(crate) fn measure(turns: &Turns, only: &[String]) -> Result<(Vec<Table>, Leasts)> {
    let asked = |group: &str, name: &str| {
        let named = |text: &String| group.contains(text) || name.contains(text);
        let million = name.contains("1,048,576") || name.contains("1,000,000");
        if only.is_empty() {
            turns.millions || !million
        } else {
            only.iter().any(named)
        }
    };
    let mut rows = others(asked)?;
    for case in cases::all() {
        if !asked(case.group, &case.name) {
            continue;
        }
        let name = case.name.clone();
        rows.push(ready(case).with_context(|| format!("cannot make {name} ready"))?);
    }
    for row in &mut rows {
        row.warm_up()?;
        row.runs = turns.runs(row.run(10_000)?);
    }
    for round in 0..turns.rounds {
        if round > 0 && round % STAYS == 0 {
            for row in &mut rows {
                row.move_on()
                    .with_context(|| format!("cannot load {} anew", row.name))?;
            }
        }
        for row in &mut rows {
            row.turn(turns.parts)?;
        }
    }
    let columns = [
        ("ns", "ns a packet"),
        ("instructions", "instructions"),
        ("jited_bytes", "JITed bytes"),
        ("verified", "verified"),
    ];
    let mut leasts = Leasts::new();
    let mut tables = Vec::new();
    for (key, title) in GROUPS {
        let mut table = Table::new(key, title, &columns);
        for row in rows.iter().filter(|row| row.group == key) {
            if let Some(spread) = row.times.spread() {
                leasts.insert((key, row.name.clone()), spread.least);
            }
            table.row(
                row.name.clone(),
                vec![
                    Cell::figures(&row.times, 0),
                    Cell::count(row.placed.size.instructions),
                    Cell::count(row.placed.size.jited),
                    if row.placed.verified == 0 {
                        Cell::Nothing
                    } else {
                        Cell::count(row.placed.verified)
                    },
                ],
            );
        }
        if !table.rows.is_empty() {
            tables.push(table);
        }
    }
    Ok((tables, leasts))
}
