//! `cargo xtask demo`: a storefront, its shoppers and a botnet in network namespaces, with the real
//! `weir` between them, in three phases: calm, the flood only watched, the flood held.

mod interrupt;
mod lab;
mod report;
mod story;

use std::process::ExitCode;

use weir_tests::tcp;

const HELP: &str = "\
Shows Weir at work in a laboratory of network namespaces, in about a minute.

Usage: demo [--keep]

  --keep   leave everything running afterwards, with commands to try, until Ctrl-C
  --help   print this

It must run as root. `weir` is taken from WEIR_BIN, or from the target directory beside this program.";

fn main() -> ExitCode {
    let mut keep = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--keep" => keep = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("demo: there is no argument {other:?}\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!(
            "demo: it makes network namespaces and attaches XDP programs: run it as root (`cargo xtask demo` does)"
        );
        return ExitCode::FAILURE;
    }
    let told = tcp::allow_many_sockets()
        .map_err(anyhow::Error::from)
        .and_then(|()| interrupt::Interrupt::listen())
        .and_then(|interrupt| story::tell(&interrupt, keep));
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
