//! What programs cost without running: their size, what the verifier looked at, and their stack. Counts, the same on every run
//! of one kernel, so that budgets can hold them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya::{Ebpf, programs::ProgramInfo};
use aya_obj::{Object, generated::bpf_insn};

use super::{Dataplane, KernelError, object};

/// What a program costs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProgramCost {
    /// The program.
    pub name: String,
    /// Instructions, as the kernel has them after its own rewriting; 0 where it does not say.
    pub instructions: u32,
    /// Bytes of machine code; 0 without JIT.
    pub jited_bytes: u32,
    /// Instructions that the verifier looked at to admit it (kernel 5.16; 0 where it does not say), of a million at most.
    pub verified_instructions: u32,
    /// Bytes of stack of the deepest chain of calls, as the verifier counts them: each function's rounded up to 32, of 512 at
    /// most (`check_max_stack_depth` in kernel/bpf/verifier.c, 6.1).
    pub stack_bytes: u32,
}

impl Dataplane {
    /// Loads every program of the object, attaches none, and says what each costs.
    pub fn program_costs(&self) -> Result<Vec<ProgramCost>, KernelError> {
        let mut loaded = object::prepare(&self.set, &self.constants)?;
        let names = object::load_all(&mut loaded)?;
        let stacks = stacks(object::bytes()).map_err(|why| KernelError::Load { why })?;
        let cost = |name: String| {
            let info = info(&loaded, &name)?;
            Ok(ProgramCost {
                // Of eight bytes each (include/uapi/linux/bpf.h).
                instructions: info.size_translated().unwrap_or(0) / 8,
                jited_bytes: info.size_jitted(),
                verified_instructions: info.verified_instruction_count().unwrap_or(0),
                stack_bytes: stacks.get(&name).copied().unwrap_or(0),
                name,
            })
        };
        names.into_iter().map(cost).collect()
    }
}

fn info(object: &Ebpf, name: &str) -> Result<ProgramInfo, KernelError> {
    let missing = || KernelError::Load {
        why: format!("the object has no program {name}"),
    };
    let program = object.program(name).ok_or_else(missing)?;
    program.info().map_err(|error| KernelError::Load {
        why: object::chain(&error),
    })
}

/// The stack of each of the object's programs.
fn stacks(bytes: &[u8]) -> Result<BTreeMap<String, u32>, String> {
    let mut object = Object::parse(bytes).map_err(|error| error.to_string())?;
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_calls(&sections)
        .map_err(|error| error.to_string())?;
    let mut stacks = BTreeMap::new();
    for (name, program) in &object.programs {
        let function = object
            .functions
            .get(&program.function_key())
            .ok_or_else(|| format!("the object has no code of {name}"))?;
        stacks.insert(name.clone(), deepest(&function.instructions));
    }
    Ok(stacks)
}

/// `BPF_JMP | BPF_CALL` with this source register calls another function of the program (include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;
/// `BPF_LD | BPF_DW | BPF_IMM` takes two places; with this source register, of a function's address.
const LOAD_WIDE: u8 = 0x18;
const PSEUDO_FUNC: u8 = 4;
/// The frame pointer.
const FRAME: u8 = 10;
/// What each function's stack is rounded up to.
const ROUNDED: u32 = 32;

/// The stack of the deepest chain of calls that begins with the first instruction.
fn deepest(code: &[bpf_insn]) -> u32 {
    let calls = |at: usize, one: &bpf_insn| {
        let called = one.code == CALL && one.src_reg() == PSEUDO_CALL
            || one.code == LOAD_WIDE && one.src_reg() == PSEUDO_FUNC;
        called.then(|| (at as i64 + 1 + i64::from(one.imm)).max(0) as usize)
    };
    let mut begins: BTreeSet<usize> = BTreeSet::from([0]);
    begins.extend(code.iter().enumerate().filter_map(|(at, one)| calls(at, one)));
    let begins: Vec<usize> = begins.into_iter().collect();
    let ends = begins.iter().skip(1).copied().chain([code.len()]);
    let functions: BTreeMap<usize, (u32, BTreeSet<usize>)> = begins
        .iter()
        .zip(ends)
        .map(|(&from, to)| {
            let body = code.get(from..to).unwrap_or_default();
            let called = body.iter().enumerate();
            let called = called.filter_map(|(at, one)| calls(from + at, one)).collect();
            (from, (own(body), called))
        })
        .collect();
    depth(&functions, 0, functions.len())
}

/// A function's stack and the deepest of those that it calls. There is no recursion in BPF; `left` bounds it anyway.
fn depth(functions: &BTreeMap<usize, (u32, BTreeSet<usize>)>, at: usize, left: usize) -> u32 {
    let Some((own, called)) = functions.get(&at).filter(|_| left > 0) else {
        return 0;
    };
    let below = called.iter().map(|at| depth(functions, *at, left - 1)).max();
    own.max(&1).next_multiple_of(ROUNDED) + below.unwrap_or(0)
}

/// How far below its frame pointer a function goes: by what it reads and writes there, and by the addresses that it makes.
fn own(body: &[bpf_insn]) -> u32 {
    /// Classes of instructions, and `BPF_ALU64 | BPF_MOV | BPF_X` and `BPF_ALU64 | BPF_ADD | BPF_K`.
    const CLASS: u8 = 0x07;
    const LOAD: u8 = 0x01;
    const STORE: u8 = 0x02;
    const STORE_X: u8 = 0x03;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let mut furthest = 0;
    // Which registers hold the frame pointer as it is: the compiler adds the offset in the instruction after the move.
    let mut frames = [false; 16];
    for one in body {
        let (to, from) = (usize::from(one.dst_reg()), one.src_reg());
        let offset = match one.code & CLASS {
            LOAD if from == FRAME => i32::from(one.off),
            STORE | STORE_X if one.dst_reg() == FRAME => i32::from(one.off),
            _ if one.code == ADD && frames[to] => one.imm,
            _ => 0,
        };
        furthest = furthest.max(offset.min(0).unsigned_abs());
        match one.code & CLASS {
            STORE | STORE_X => {}
            _ => frames[to] = one.code == MOVE && from == FRAME,
        }
    }
    furthest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
        let mut one = bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off,
            imm,
        };
        one.set_dst_reg(to);
        one.set_src_reg(from);
        one
    }

    #[test]
    fn the_deepest_chain_counts() {
        const EXIT: u8 = 0x95;
        let code = [
            // 0: *(u64 *)(r10 - 40) = r1; two calls, of which the second goes deeper.
            instruction(0x7b, FRAME, 1, -40, 0),
            instruction(CALL, 0, PSEUDO_CALL, 0, 2),
            instruction(CALL, 0, PSEUDO_CALL, 0, 3),
            instruction(EXIT, 0, 0, 0, 0),
            // 4: no stack of its own.
            instruction(0xb7, 0, 0, 0, 7),
            instruction(EXIT, 0, 0, 0, 0),
            // 6: r2 = r10; r2 += -96; r3 += -500, which is no frame pointer; a helper.
            instruction(0xbf, 2, FRAME, 0, 0),
            instruction(0x07, 2, 0, 0, -96),
            instruction(0x07, 3, 0, 0, -500),
            instruction(CALL, 0, 0, 0, 1),
            instruction(EXIT, 0, 0, 0, 0),
        ];
        assert_eq!(own(&code[..4]), 40);
        assert_eq!(own(&code[6..]), 96);
        assert_eq!(deepest(&code), 64 + 96);
        assert_eq!(deepest(&code[4..6]), 32);
    }

    #[test]
    fn the_objects_programs_stay_within_the_kernels_stack() {
        let stacks = stacks(object::bytes()).unwrap();
        for name in [
            "weir",
            "weir_frags",
            "weir_full",
            "weir_base",
            "weir_lean",
            "weir_egress",
            "weir_connections",
        ] {
            let stack = stacks[name];
            assert!((64..=512).contains(&stack), "{name}: {stack}");
        }
    }
}
