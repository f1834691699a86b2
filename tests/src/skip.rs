//! What a test does on a machine that cannot run it: a skip is said aloud, so that the test runner
//! can count it, and is only allowed where the kernel lacks the feature.

/// Ends the test unless it runs as root: these tests make namespaces and load programs, and a run
/// without the rights proves nothing.
///
/// # Panics
/// When the effective user is not root.
pub fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces and loads BPF programs: run it as root (`cargo xtask test` does)"
    );
}

/// Says that the test `name` is skipped, in the form that `cargo xtask test` counts. The line goes
/// past the test harness's capture, so that it is seen also when the test passes.
pub fn skip(name: &str, why: &str) {
    use std::io::Write as _;
    // A direct handle: `println!` is captured by the harness while the test passes.
    let _ = writeln!(std::io::stdout().lock(), "SKIP {name}: {why}");
}

/// Skips the enclosing test (it must return `Result<(), _>`) when the kernel cannot make interfaces
/// of a type that the test needs. It tries; it does not guess from versions.
#[macro_export]
macro_rules! skip_unless_link_type {
    ($test:expr, $kind:expr) => {
        if !$crate::link::supports($kind)? {
            $crate::skip::skip(
                $test,
                concat!("this kernel cannot make interfaces of type ", $kind),
            );
            return Ok(());
        }
    };
}
