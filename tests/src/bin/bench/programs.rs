//! The benchmark's own programs: the yardsticks, the limiters that Weir is compared with, and the source of frames.

use anyhow::Result;
use weir_tests::bpf::{
    asm::{Code, Helper, Op, Register, When, Width},
    program::{DROP, Kind, Map, PASS, Program},
};

/// Fields of `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
/// Where things are in an untagged IPv4 frame.
const ETHERTYPE: i16 = 12;
const VERSION: i16 = 14;
const PROTOCOL: i16 = 23;
const CHECKSUM: i16 = 24;
const SOURCE: i16 = 26;
const PORT: i16 = 36;
const HEADERS: i32 = 42;

const CONTEXT: Register = 6;
const FRAME: Register = 7;
const STACK: Register = 10;

/// A program that answers at once.
pub(crate) fn bare(answer: i32) -> Result<Program> {
    Program::load("bench_bare", &Code::new().answer(answer).words())
}

/// A program that calls one function of the kernel and drops.
pub(crate) fn call(helper: Helper) -> Result<Program> {
    Program::load("bench_call", &Code::new().call(helper).answer(DROP).words())
}

/// A program that draws a source, as those of random sources do, and drops.
pub(crate) fn drawing() -> Result<Program> {
    let mut code = Code::new();
    let out = code.label();
    begin(&mut code, out);
    draw(&mut code, 0);
    code.here(out).answer(DROP);
    Program::load("bench_draw", &code.words())
}

/// The frame into its register, after a check that it has all headers; else to `out`.
fn begin(code: &mut Code, out: weir_tests::bpf::asm::Label) {
    code.by(Op::Move, CONTEXT, 1)
        .load(Width::Four, FRAME, CONTEXT, DATA)
        .load(Width::Four, 2, CONTEXT, DATA_END)
        .by(Op::Move, 3, FRAME)
        .with(Op::Add, 3, HEADERS)
        .jump_by(When::Greater, 3, 2, out);
}

/// A number that looks random into a register: the same draw as Weir's own program makes in a benchmark (`PacketFrame::draw`).
fn draw(code: &mut Code, to: Register) {
    const STATE: i16 = 6;
    const LAST: Register = 5;
    code.load(Width::Four, to, FRAME, STATE);
    for (op, bits) in [(Op::Left, 13), (Op::Right, 17), (Op::Left, 5)] {
        code.by(Op::Move, LAST, to)
            .with(op, LAST, bits)
            .by(Op::Xor, to, LAST)
            // Of 32 bits: what was moved out above them goes.
            .with(Op::Left, to, 32)
            .with(Op::Right, to, 32);
    }
    code.store(Width::Four, FRAME, STATE, to);
}

/// Sends every frame out of an interface, as from a source drawn from `base` and as many more as `mask` has bits for.
/// The frame must have the source 0.0.0.0 and the header's checksum as if it had none, zero.
pub(crate) fn generator(ifindex: u32, base: u32, mask: u32, frame: &[u8]) -> Result<Program> {
    // What the header adds up to, in ones' complement, without checksum and source.
    let header = &frame[14..34];
    let sum: u32 = header
        .chunks_exact(2)
        .enumerate()
        .filter(|(at, _)| !matches!(at, 5..=7))
        .map(|(_, pair)| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let mut code = Code::new();
    let out = code.label();
    begin(&mut code, out);
    if mask == 0 {
        code.with(Op::Move, 0, 0);
    } else {
        code.call(Helper::Random).with(Op::And, 0, mask as i32);
    }
    code.wide(1, u64::from(base))
        .by(Op::Add, 1, 0)
        // sum = constant + both halves of the source, folded twice.
        .by(Op::Move, 2, 1)
        .with(Op::Right, 2, 16)
        .by(Op::Move, 3, 1)
        .with(Op::And, 3, 0xffff)
        .by(Op::Add, 2, 3)
        .with(Op::Add, 2, sum as i32);
    for _ in 0..2 {
        code.by(Op::Move, 3, 2)
            .with(Op::Right, 3, 16)
            .with(Op::And, 2, 0xffff)
            .by(Op::Add, 2, 3);
    }
    code.with(Op::Xor, 2, 0xffff)
        .network_order(2, 16)
        .store(Width::Two, FRAME, CHECKSUM, 2)
        .network_order(1, 32)
        .store(Width::Four, FRAME, SOURCE, 1)
        .with(Op::Move, 1, ifindex as i32)
        .with(Op::Move, 2, 0)
        .call(Helper::Redirect)
        .exit();
    code.here(out).answer(DROP);
    Program::load("bench_frames", &code.words())
}

/// A minimal limiter: IPv4, TCP or UDP to port 80, a packet a second and source with a burst of one; the time at which a
/// source is out of debt in an `LRU_HASH`, or in an array indexed by a hash, without a tag. It counts nothing and does not
/// mind that two processors may admit one packet each at the same moment. `spread` are the bits of the source that are drawn in every run.
pub(crate) fn limiter(kind: Kind, bits: u32, spread: u32) -> Result<Program> {
    /// Nanoseconds a packet costs.
    const COST: i32 = 1_000_000_000;
    const KEY: i16 = -8;
    const VALUE: i16 = -16;
    const ENTRY: Register = 8;
    const NOW: Register = 9;
    let map = Map::create(kind, 4, 8, 1 << bits)?;
    let mut code = Code::new();
    let (out, drop, missing) = (code.label(), code.label(), code.label());
    let transport = code.label();
    begin(&mut code, out);
    code.load(Width::Two, 1, FRAME, ETHERTYPE)
        .jump(When::Different, 1, i32::from(0x0800_u16.to_be()), out)
        .load(Width::One, 1, FRAME, VERSION)
        .jump(When::Different, 1, 0x45, out)
        .load(Width::One, 1, FRAME, PROTOCOL)
        .jump(When::Equal, 1, 6, transport)
        .jump(When::Different, 1, 17, out);
    code.here(transport)
        .load(Width::Two, 1, FRAME, PORT)
        .jump(When::Different, 1, i32::from(80_u16.to_be()), out)
        .load(Width::Four, ENTRY, FRAME, SOURCE);
    if spread != 0 {
        draw(&mut code, 0);
        code.wide(1, u64::from(spread))
            .by(Op::And, 0, 1)
            .by(Op::Xor, ENTRY, 0);
    }
    if matches!(kind, Kind::Array) {
        code.wide(1, 0x9e37_79b9_7f4a_7c15)
            .by(Op::Multiply, ENTRY, 1)
            .with(Op::Right, ENTRY, 64 - bits as i32);
    }
    code.store(Width::Four, STACK, KEY, ENTRY)
        .call(Helper::Clock)
        .by(Op::Move, NOW, 0)
        .map(1, &map)
        .by(Op::Move, 2, STACK)
        .with(Op::Add, 2, i32::from(KEY))
        .call(Helper::Lookup)
        .jump(When::Equal, 0, 0, missing)
        .load(Width::Eight, 1, 0, 0)
        // In debt: a burst of one admits nothing before it is paid.
        .jump_by(When::Greater, 1, NOW, drop)
        .with(Op::Add, NOW, COST)
        .store(Width::Eight, 0, 0, NOW)
        .answer(PASS);
    code.here(missing)
        .with(Op::Add, NOW, COST)
        .store(Width::Eight, STACK, VALUE, NOW)
        .map(1, &map)
        .by(Op::Move, 2, STACK)
        .with(Op::Add, 2, i32::from(KEY))
        .by(Op::Move, 3, STACK)
        .with(Op::Add, 3, i32::from(VALUE))
        .with(Op::Move, 4, 0)
        .call(Helper::Update);
    code.here(out).answer(PASS);
    code.here(drop).answer(DROP);
    // The program keeps its map.
    Program::load("bench_limiter", &code.words())
}
