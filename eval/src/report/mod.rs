//! What came of an evaluation: the table (`text`), and the same as JSON (`object`); `line` is what both say of trials.

mod line;
mod object;
mod text;

use std::time::Duration;

pub(crate) use self::{object::json, text::text};
use crate::{
    model::frames::Captured,
    run::{
        crowds::{Modelled, Recorded},
        injected::Trial,
        normal::Weeks,
        steps::Step,
    },
};

/// What came of a service.
#[derive(Debug)]
pub(crate) struct ServiceResults {
    pub(crate) weeks: Weeks,
    pub(crate) attacks: Vec<Trial>,
    pub(crate) cold: Vec<Trial>,
    pub(crate) steps: Vec<Step>,
    pub(crate) crowds: Vec<Modelled>,
    pub(crate) captures: Vec<Trial>,
}

/// What came of it all.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) seed: u64,
    pub(crate) weeks: f64,
    pub(crate) quick: bool,
    pub(crate) one_in: f64,
    pub(crate) services: Vec<ServiceResults>,
    pub(crate) recorded: Option<Recorded>,
    /// The score of the benchmark in its standard profile, and its own table.
    pub(crate) benchmark: Option<(f64, String)>,
    pub(crate) captures: Vec<Captured>,
    pub(crate) took: Duration,
}
