//! One policy in the kernel (by test-run, attached nowhere) and in the host's twin, on one clock.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use gateway_core::verdict::Verdict;
use weir::{
    kernel::{BanEntry, Counter, Dataplane, TestProgram},
    policy::{self, model::Policy},
    twin::Twin,
};

use crate::bpffs::BpffsDir;

/// Packets by service, class, verdict and reason.
pub type Tally = BTreeMap<(String, String, &'static str, &'static str), u64>;

/// What was said of one frame: verdict, reason, service and class.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    /// `pass`, `drop` or `would_drop`.
    pub verdict: &'static str,
    /// The reason.
    pub reason: &'static str,
    /// The service.
    pub service: String,
    /// The class.
    pub class: String,
}

/// The kernel and its twin.
#[derive(Debug)]
pub struct Both {
    /// The kernel's half.
    pub kernel: Dataplane,
    /// The host's.
    pub twin: Twin,
    program: TestProgram,
    counted: Vec<Counter>,
    _bpffs: BpffsDir,
}

impl Both {
    /// Puts a policy in force on both, with the clock at `now_ns`.
    pub fn new(text: &str, now_ns: u64) -> Result<Self> {
        let policy = parse(text)?;
        let bpffs = BpffsDir::create()?;
        let (mut kernel, _) = Dataplane::open(&bpffs.path().join("weir"), &policy.source)?;
        let lists = policy::lists::contents(&policy, std::path::Path::new("/"))?;
        kernel.apply(&policy, text, &lists, &[])?;
        kernel.set_test_clock(now_ns)?;
        let program = kernel.test_program(true)?;
        let (key, lines) = kernel.placement();
        let mut twin = Twin::new(&policy, &lists, key, lines)?;
        twin.set_clock(now_ns);
        Ok(Self {
            kernel,
            twin,
            program,
            counted: Vec::new(),
            _bpffs: bpffs,
        })
    }

    /// Moves both clocks.
    pub fn set_clock(&mut self, now_ns: u64) -> Result<()> {
        self.twin.set_clock(now_ns);
        Ok(self.kernel.set_test_clock(now_ns)?)
    }

    /// Bans a prefix on both until a time on their clock.
    pub fn ban(&mut self, prefix: &str, service: Option<&str>, until_ns: u64) -> Result<()> {
        let prefix = prefix.parse()?;
        self.twin.ban(prefix, service, until_ns)?;
        Ok(self.kernel.change_bans(
            &[BanEntry {
                prefix,
                service: service.map(str::to_owned),
                until_ns,
            }],
            &[],
        )?)
    }

    /// Which of Weir's programs judges in the kernel.
    pub fn program(&self) -> &'static str {
        self.program.name()
    }

    /// The twin.
    pub fn twin(&self) -> &Twin {
        &self.twin
    }

    /// A frame leaves, on both.
    pub fn leaves(&mut self, frame: &[u8]) -> Result<()> {
        self.twin.leaves(frame);
        self.program.leaves(frame, 1)?;
        Ok(())
    }

    /// Judges one frame in the kernel alone, for those who look at something else than its verdict.
    pub fn judge_quietly(&self, frame: &[u8]) -> Result<()> {
        self.program.run(frame, 1)?;
        Ok(())
    }

    /// Judges one frame on both, which must agree; says what they said.
    pub fn judge(&mut self, frame: &[u8]) -> Result<Said> {
        let judgement = self.twin.judge(frame);
        let (service, class) = self.twin.owner(judgement);
        let twin = Said {
            verdict: judgement.verdict.name(),
            reason: judgement.reason.name(),
            service,
            class,
        };
        let (action, _) = self.program.run(frame, 1)?;
        let now = self.kernel.counters()?;
        let same = |a: &Counter, b: &Counter| {
            (&a.service, &a.class, a.verdict, a.reason) == (&b.service, &b.class, b.verdict, b.reason)
        };
        let mut changed = now.iter().filter(|counter| {
            self.counted
                .iter()
                .find(|before| same(before, counter))
                .is_none_or(|before| before.packets != counter.packets)
        });
        let counter = changed
            .next()
            .context("the kernel counted the frame nowhere")?
            .clone();
        ensure!(changed.next().is_none(), "the kernel counted the frame twice");
        let before = self
            .counted
            .iter()
            .find(|before| same(before, &counter))
            .map_or((0, 0), |c| (c.packets, c.bytes));
        ensure!(
            counter.packets == before.0 + 1,
            "the kernel counted the frame {} times",
            counter.packets - before.0
        );
        ensure!(
            counter.bytes == before.1 + frame.len() as u64,
            "{} bytes counted",
            counter.bytes - before.1
        );
        let kernel = Said {
            verdict: counter.verdict,
            reason: counter.reason,
            service: counter.service.clone(),
            class: counter.class.clone(),
        };
        self.counted = now;
        ensure!(
            (action == Verdict::Drop) == (kernel.verdict == "drop"),
            "counted {kernel:?}, did {action:?}"
        );
        ensure!(kernel == twin, "the kernel said {kernel:?}, its twin {twin:?}");
        Ok(kernel)
    }

    /// Judges many frames on both; every verdict must agree, and so must the counts by service, class and reason at the
    /// end. Returns the counts.
    pub fn judge_all<'a>(&mut self, frames: impl IntoIterator<Item = &'a [u8]>) -> Result<Tally> {
        let before = tally(&self.kernel.counters()?);
        let mut twin = Tally::new();
        for (at, frame) in frames.into_iter().enumerate() {
            let judgement = self.twin.judge(frame);
            let (service, class) = self.twin.owner(judgement);
            *twin
                .entry((service, class, judgement.verdict.name(), judgement.reason.name()))
                .or_default() += 1;
            let (action, _) = self.program.run(frame, 1)?;
            ensure!(
                (action == Verdict::Drop) == (judgement.verdict == Verdict::Drop),
                "frame {at}: the kernel did {action:?}, its twin says {judgement:?}; the frame is {frame:02x?}"
            );
        }
        self.counted = self.kernel.counters()?;
        let mut kernel = tally(&self.counted);
        for (key, count) in before {
            if let Some(now) = kernel.get_mut(&key) {
                *now -= count;
            }
        }
        kernel.retain(|_, count| *count != 0);
        ensure!(kernel == twin, "the kernel counted {kernel:?}, its twin {twin:?}");
        Ok(twin)
    }
}

fn tally(counters: &[Counter]) -> Tally {
    let key = |c: &Counter| (c.service.clone(), c.class.clone(), c.verdict, c.reason);
    counters
        .iter()
        .map(|counter| (key(counter), counter.packets))
        .collect()
}

fn parse(text: &str) -> Result<Policy> {
    Ok(policy::parse(text, std::path::Path::new("test.toml"))?.policy)
}
