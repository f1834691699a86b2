//! An assembler of BPF, as much as the small programs of the benchmark take: what they do is then exactly what is
//! written, whatever compiler the machine has. For little-endian machines.

use std::os::fd::AsRawFd as _;

use super::program::Map;

/// A register; 0 has results, 1 to 5 arguments, 6 to 9 survive calls, 10 is the end of the stack.
pub type Register = u8;

/// Widths of memory accesses, as the kernel encodes them.
#[derive(Clone, Copy, Debug)]
pub enum Width {
    /// A byte.
    One = 0x10,
    /// Two bytes.
    Two = 0x08,
    /// Four bytes.
    Four = 0x00,
    /// Eight bytes.
    Eight = 0x18,
}

/// Arithmetic on 64 bits: the destination is the left operand.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// `+`
    Add = 0x00,
    /// `-`
    Subtract = 0x10,
    /// `*`
    Multiply = 0x20,
    /// `&`
    And = 0x50,
    /// `<<`
    Left = 0x60,
    /// `>>`, zeros coming in
    Right = 0x70,
    /// `^`
    Xor = 0xa0,
    /// `=`
    Move = 0xb0,
}

/// When a jump is taken; comparisons are unsigned.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// `==`
    Equal = 0x10,
    /// `>`
    Greater = 0x20,
    /// `>=`
    AtLeast = 0x30,
    /// `!=`
    Different = 0x50,
}

/// Functions of the kernel, by their numbers in include/uapi/linux/bpf.h.
#[derive(Clone, Copy, Debug)]
pub enum Helper {
    /// `bpf_map_lookup_elem`
    Lookup = 1,
    /// `bpf_map_update_elem`
    Update = 2,
    /// `bpf_ktime_get_ns`
    Clock = 5,
    /// `bpf_get_prandom_u32`
    Random = 7,
    /// `bpf_redirect`
    Redirect = 23,
    /// `bpf_jiffies64`
    Ticks = 118,
    /// `bpf_ktime_get_coarse_ns`
    CoarseClock = 160,
}

/// A place to jump to, which may come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// A program as it is written.
#[derive(Debug, Default)]
pub struct Code {
    words: Vec<u64>,
    /// Where each label is.
    places: Vec<Option<usize>>,
    /// Jumps: where they are and what they mean.
    jumps: Vec<(usize, Label)>,
}

impl Code {
    /// Starts one.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, code: u8, to: Register, from: Register, offset: i16, value: i32) -> &mut Self {
        let registers = (from << 4) | to;
        let offset = u64::from(offset as u16);
        let value = u64::from(value as u32);
        self.words
            .push(u64::from(code) | (u64::from(registers) << 8) | (offset << 16) | (value << 32));
        self
    }

    /// `to = to op value`.
    pub fn with(&mut self, op: Op, to: Register, value: i32) -> &mut Self {
        self.push(0x07 | op as u8, to, 0, 0, value)
    }

    /// `to = to op from`.
    pub fn by(&mut self, op: Op, to: Register, from: Register) -> &mut Self {
        self.push(0x0f | op as u8, to, from, 0, 0)
    }

    /// `to = value`, of 64 bits.
    pub fn wide(&mut self, to: Register, value: u64) -> &mut Self {
        self.push(0x18, to, 0, 0, value as i32)
            .push(0, 0, 0, 0, (value >> 32) as i32)
    }

    /// `to` is a map, which must live until the program is loaded.
    pub fn map(&mut self, to: Register, map: &Map) -> &mut Self {
        /// `BPF_PSEUDO_MAP_FD`.
        const BY_DESCRIPTOR: Register = 1;
        self.push(0x18, to, BY_DESCRIPTOR, 0, map.fd().as_raw_fd())
            .push(0, 0, 0, 0, 0)
    }

    /// The low bits of `to` in network order, the others gone.
    pub fn network_order(&mut self, to: Register, bits: i32) -> &mut Self {
        self.push(0xdc, to, 0, 0, bits)
    }

    /// `to = *(from + offset)`.
    pub fn load(&mut self, width: Width, to: Register, from: Register, offset: i16) -> &mut Self {
        self.push(0x61 | width as u8, to, from, offset, 0)
    }

    /// `*(to + offset) = from`.
    pub fn store(&mut self, width: Width, to: Register, offset: i16, from: Register) -> &mut Self {
        self.push(0x63 | width as u8, to, from, offset, 0)
    }

    /// Calls a function of the kernel.
    pub fn call(&mut self, helper: Helper) -> &mut Self {
        self.push(0x85, 0, 0, 0, helper as i32)
    }

    /// Returns this value.
    pub fn answer(&mut self, value: i32) -> &mut Self {
        self.with(Op::Move, 0, value).exit()
    }

    /// Returns what register 0 has.
    pub fn exit(&mut self) -> &mut Self {
        self.push(0x95, 0, 0, 0, 0)
    }

    /// Makes a label, which [`Code::here`] places.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Places a label before what comes next.
    pub fn here(&mut self, label: Label) -> &mut Self {
        self.places[label.0] = Some(self.words.len());
        self
    }

    /// Jumps when `left` compares so with a value.
    pub fn jump(&mut self, when: When, left: Register, value: i32, label: Label) -> &mut Self {
        self.jumps.push((self.words.len(), label));
        self.push(0x05 | when as u8, left, 0, 0, value)
    }

    /// Jumps when `left` compares so with another register.
    pub fn jump_by(&mut self, when: When, left: Register, right: Register, label: Label) -> &mut Self {
        self.jumps.push((self.words.len(), label));
        self.push(0x0d | when as u8, left, right, 0, 0)
    }

    /// The instructions, with every jump at its label.
    ///
    /// # Panics
    /// When a label was never placed.
    pub fn words(&self) -> Vec<u64> {
        let mut words = self.words.clone();
        for (at, label) in &self.jumps {
            let place = self.places[label.0].unwrap_or_else(|| panic!("{label:?} was never placed"));
            let offset = place as i64 - *at as i64 - 1;
            words[*at] |= u64::from(offset as i16 as u16) << 16;
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let mut code = Code::new();
        let out = code.label();
        code.with(Op::Move, 0, 2)
            .jump(When::Equal, 1, 7, out)
            .load(Width::Two, 2, 1, 12)
            .here(out)
            .exit();
        assert_eq!(code.words(), [0x2_0000_00b7, 0x7_0001_0115, 0x000c_1269, 0x95]);
        let mut wide = Code::new();
        wide.wide(3, 0x1122_3344_5566_7788);
        assert_eq!(wide.words(), [0x5566_7788_0000_0318, 0x1122_3344_0000_0000]);
    }
}
