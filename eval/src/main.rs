//! Measures the detectors: delays, false alarms and confusion over a model of traffic and over captures, and the scores of
//! public benchmarks. `cargo xtask eval` runs it.

mod nab;

fn main() -> anyhow::Result<()> {
    nab::run()
}
