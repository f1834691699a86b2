//! The control socket against its own description: a property-based API tester (schemathesis) makes requests from the
//! `OpenAPI` document that the controller serves, valid and invalid ones, and holds every answer against it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    bridge::Bridge,
    command::{Output, finish},
    daemon::Daemon,
    site::Site,
};

/// How long one run may take.
const PATIENCE: Duration = Duration::from_mins(8);
/// What every answer is held against.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,unsupported_method";

/// The names of the description's examples.
const POLICY: &str = r#"
version = 1
[lists.blocklist]
action = "drop"
prefixes = ["198.51.100.0/24"]
[[service]]
name = "storefront"
protocol = "udp"
ports = [80]
[service.per_source]
packets = { rate = 1, burst = 10 }
"#;

/// The tester, as `cargo xtask setup` installs it in the target directory.
fn tester() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_SCHEMATHESIS") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    exe.ancestors()
        .map(|dir| dir.join("schemathesis/bin/schemathesis"))
        .find(|path| path.is_file())
        .context("there is no schemathesis in the target directory: run `cargo xtask setup`")
}

/// Tests the paths that `which` selects.
fn run(site: &Site, weir: &Daemon<'_>, which: &[&str]) -> Result<Output> {
    let bridge = Bridge::open(&site.node, &weir.socket_path())?;
    let mut command = site.node.command(tester()?);
    command
        .arg("run")
        .arg(format!("http://{}/v1/openapi.json", bridge.address()))
        .args(["--checks", CHECKS])
        .args(["--phases", "examples,coverage,fuzzing"])
        // The same requests every time.
        .args(["--seed", "20261127", "--generation-deterministic"])
        .args(["--max-examples", "60", "--continue-on-failure", "--no-color"])
        .args(["--request-timeout", "30", "--suppress-health-check", "all"])
        .args(which)
        .current_dir(weir.dir());
    finish(&mut command, None, PATIENCE)
}

#[test]
fn every_answer_is_what_the_description_says() -> Result<()> {
    let site = Site::new()?;
    let weir = Daemon::run(&site.node, &["eth0"], POLICY)?;
    // Taking enforcement off comes last: after it there is nothing left to change.
    for which in [["--exclude-path", "/v1/detach"], ["--include-path", "/v1/detach"]] {
        let tested = run(&site, &weir, &which)?;
        println!("{}", tested.stdout);
        ensure!(
            tested.code == 0,
            "{which:?}: {}{}\n{}",
            tested.stdout,
            tested.stderr,
            weir.log()
        );
    }
    // It is not worn out by it.
    let status = weir.cli(&["status", "--json"])?.json()?;
    ensure!(status["schema"] == 1, "{status}");
    Ok(())
}
