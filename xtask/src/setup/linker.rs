//! The `bpf-linker` in `PATH`, and the LLVM it was built for. It reads the compiler's bitcode, which
//! only an LLVM of the same major version is sure to understand.

use std::{fs, path::Path};

use super::facts::{find_program, major_minor};
use crate::call::Call;

/// The version of `bpf-linker` that set-up installs; an older one is replaced.
pub(crate) const VERSION: &str = "0.13.0";
/// The LLVM major versions that it can be built for.
pub(crate) const LLVM_SUPPORTED: std::ops::RangeInclusive<u32> = 21..=23;

/// An installed `bpf-linker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    /// Whether it runs and is as new as [`VERSION`].
    pub(crate) current: bool,
    /// Major version of its LLVM, where it can be told.
    pub(crate) llvm: Option<u32>,
}

impl Linker {
    /// Whether it links what a compiler with this LLVM makes.
    pub(crate) fn fits(self, llvm: u32) -> bool {
        self.current && self.llvm == Some(llvm)
    }
}

/// The `bpf-linker` that cargo will run, if there is one.
pub(crate) fn find() -> Option<Linker> {
    let path = find_program("bpf-linker")?;
    let printed = Call::new(path.to_string_lossy(), ["--version"]).probe();
    Some(Linker {
        current: printed.is_some_and(|text| is_current(&text)),
        llvm: llvm_of(&path),
    })
}

fn is_current(printed: &str) -> bool {
    let version = printed.split_whitespace().nth(1).and_then(major_minor);
    version.is_some() && version >= major_minor(VERSION)
}

/// A linker built against a shared LLVM says so to the dynamic loader; one that carries LLVM within
/// it holds the name that LLVM writes into every bitcode file.
fn llvm_of(path: &Path) -> Option<u32> {
    let libraries = Call::new("ldd", [path.to_string_lossy()])
        .probe()
        .unwrap_or_default();
    shared_llvm(&libraries).or_else(|| fs::read(path).ok().and_then(|binary| embedded_llvm(&binary)))
}

/// `libLLVM.so.22.1` or `libLLVM-18.so.1` in the list of shared libraries.
fn shared_llvm(libraries: &str) -> Option<u32> {
    libraries.lines().find_map(|line| {
        let name = line.trim().strip_prefix("libLLVM")?;
        leading_number(
            name.strip_prefix(".so.")
                .or_else(|| name.strip_prefix('-'))?
                .as_bytes(),
        )
    })
}

/// `LLVM22.1.8` anywhere in the binary: the producer name of the bitcode writer.
fn embedded_llvm(binary: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"LLVM";
    binary.windows(NAME.len() + 3).find_map(|window| {
        let digits = window.strip_prefix(NAME)?;
        (digits[2] == b'.')
            .then(|| leading_number(&digits[..2]))
            .flatten()
            .filter(|major| *major >= 10)
    })
}

fn leading_number(text: &[u8]) -> Option<u32> {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_linker_is_not_current() {
        assert!(is_current("bpf-linker 0.13.0\n"));
        assert!(is_current("bpf-linker 0.14.2\n"));
        assert!(is_current("bpf-linker 1.0.0\n"));
        assert!(!is_current("bpf-linker 0.9.15\n"));
        assert!(!is_current("segmentation fault\n"));
    }

    #[test]
    fn the_shared_library_tells_the_version() {
        let text =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7f)\n";
        assert_eq!(shared_llvm(text), Some(22));
        assert_eq!(shared_llvm("\tlibLLVM-18.so.1 => not found\n"), Some(18));
        assert_eq!(shared_llvm("\tlibc.so.6 => /lib/libc.so.6\n"), None);
    }

    #[test]
    fn an_embedded_library_tells_the_version() {
        assert_eq!(embedded_llvm(b"\0LLVM0700\0LLVM23.1.0-rust-1.98.0\0"), Some(23));
        assert_eq!(embedded_llvm(b"LLVM0700 LLVMContext LLVM2"), None);
    }

    #[test]
    fn only_the_same_llvm_fits() {
        let linker = Linker {
            current: true,
            llvm: Some(22),
        };
        assert!(linker.fits(22));
        assert!(!linker.fits(23));
        assert!(!Linker { llvm: None, ..linker }.fits(22));
        assert!(
            !Linker {
                current: false,
                ..linker
            }
            .fits(22)
        );
    }
}
