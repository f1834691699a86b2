//! Programs for tests and benchmarks: judged frames without an interface, on a clock that the test sets.

use std::time::Duration;

use aya::{Ebpf, programs::Xdp};
use gateway_core::{image::Control, verdict::Verdict};

use super::{
    Counter, Dataplane, KernelError, fit, handshakes,
    object::{self, Constants},
    pins::io_error,
    sys,
};

/// The name under which a test program counts.
const INTERFACE: &str = "test";

/// A loaded program that is attached nowhere.
#[derive(Debug)]
pub struct TestProgram {
    object: Ebpf,
    name: &'static str,
}

impl Dataplane {
    /// Loads the program with the clock of [`Self::set_test_clock`] (`on_test_clock`) or the real one. A policy must be in
    /// force; the program is made for it, and for no other that needs more.
    pub fn test_program(&mut self, on_test_clock: bool) -> Result<TestProgram, KernelError> {
        // On the test's clock it agrees with the twin, which is one CPU.
        let cpus = if on_test_clock { 1 } else { self.constants.cpus };
        self.test_program_of(cpus, on_test_clock)
    }

    /// As [`Self::test_program`], with leases of totals as one of so many CPUs takes them: none with 1.
    pub fn test_program_of(&mut self, cpus: u32, on_test_clock: bool) -> Result<TestProgram, KernelError> {
        let interface = self.interface_number(INTERFACE)?;
        let constants = Constants {
            cpus,
            interface,
            test_clock: on_test_clock,
            uses: self.needed()?,
            ..self.constants
        };
        let mut object = object::prepare(&self.set, &constants)?;
        let name = fit::fitting(constants.uses).single;
        object::load(&mut object, name)?;
        object::load(&mut object, handshakes::EGRESS)?;
        Ok(TestProgram { object, name })
    }

    /// Asks the kernel's verifier about every program of the object, attaches none, and returns their names.
    pub fn load_every_program(&self) -> Result<Vec<String>, KernelError> {
        let mut object = object::prepare(&self.set, &self.constants)?;
        object::load_all(&mut object)
    }

    /// Loads the program with the real clock, to be run on sources whose bits in `spread` are random each time: of an IPv4
    /// source as they lie in the packet, of an IPv6 one in the second word of its /64. They are drawn
    /// from the frame's Ethernet source, which must not be zeros, and be another for every call. `lru`: with an `LRU_HASH` in
    /// place of the source table.
    #[cfg(feature = "lru")]
    pub fn spread_program(&mut self, spread: u32, lru: bool) -> Result<TestProgram, KernelError> {
        let interface = self.interface_number(INTERFACE)?;
        let constants = Constants {
            interface,
            spread,
            lru,
            uses: self.needed()?,
            ..self.constants
        };
        let mut object = object::prepare(&self.set, &constants)?;
        let name = fit::fitting(constants.uses).single;
        object::load(&mut object, name)?;
        Ok(TestProgram { object, name })
    }

    /// Sets the clock of test programs, in nanoseconds.
    pub fn set_test_clock(&self, now_ns: u64) -> Result<(), KernelError> {
        self.set_control(Control::TestClock, now_ns)
    }

    /// The hash key of the source table and its lines, for a host twin that must agree to the cell.
    pub fn placement(&self) -> ([u64; 4], u32) {
        (self.constants.key, self.constants.lines)
    }

    /// Runs a program on one frame; the verdict and reason are read from its counters.
    pub fn judge(&self, program: &TestProgram, frame: &[u8]) -> Result<(Counter, bool), KernelError> {
        let before = self.counters()?;
        let (action, _) = program.run(frame, 1)?;
        let after = self.counters()?;
        let key = |counter: &Counter| {
            (
                counter.interface.clone(),
                counter.service.clone(),
                counter.class.clone(),
                counter.verdict,
                counter.reason,
            )
        };
        let changed = after.into_iter().find(|now| {
            now.interface == INTERFACE
                && before
                    .iter()
                    .find(|then| key(then) == key(now))
                    .is_none_or(|then| then.packets != now.packets)
        });
        let counter = changed.ok_or_else(|| KernelError::Other("the frame was not counted".into()))?;
        Ok((counter, action == Verdict::Drop))
    }
}

impl TestProgram {
    /// Which of the programs it is: the smallest that serves the policy.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many instructions the verifier looked at to admit the program (kernel 5.16; 0 where it does not say).
    pub fn complexity(&self) -> u32 {
        let program: Option<&Xdp> = self
            .object
            .program(self.name)
            .and_then(|program| program.try_into().ok());
        program
            .and_then(|program| program.info().ok())
            .and_then(|info| info.verified_instruction_count())
            .unwrap_or(0)
    }

    /// Shows a frame of at least 14 bytes `repeat` times to the program that sees what leaves; the time it takes each.
    pub fn leaves(&self, frame: &[u8], repeat: u32) -> Result<Duration, KernelError> {
        let missing = || KernelError::Load {
            why: "the object has no program for what leaves".into(),
        };
        let program = self.object.program(handshakes::EGRESS).ok_or_else(missing)?;
        let fd = program.fd().map_err(|_| missing())?;
        sys::test_run(std::os::fd::AsFd::as_fd(fd), frame, repeat)
            .map(|(_, ns)| Duration::from_nanos(u64::from(ns)))
            .map_err(|source| io_error("cannot test-run the program".into(), source))
    }

    /// Runs the program `repeat` times on a frame of at least 14 bytes; the verdict of the last run and the time a run.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<(Verdict, Duration), KernelError> {
        /// `XDP_DROP` (include/uapi/linux/bpf.h).
        const XDP_DROP: u32 = 1;
        let program: &Xdp = self
            .object
            .program(self.name)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| KernelError::Load {
                why: format!("the object has no program {}", self.name),
            })?;
        let fd = program.fd().map_err(|error| KernelError::Load {
            why: object::chain(&error),
        })?;
        let (action, ns) = sys::test_run(std::os::fd::AsFd::as_fd(fd), frame, repeat)
            .map_err(|source| io_error("cannot test-run the program".into(), source))?;
        let verdict = if action == XDP_DROP {
            Verdict::Drop
        } else {
            Verdict::Pass
        };
        Ok((verdict, Duration::from_nanos(u64::from(ns))))
    }
}
