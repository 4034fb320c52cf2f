//! The rows of the table: a scenario, the figures that it yields, and their means over its seeds.

use std::{fmt, future::Future, pin::Pin};

use crate::caller::{Contestant, Preset};

/// A scenario of the table.
pub(crate) struct Row {
    /// The name by which the command line chooses it.
    pub(crate) name: &'static str,
    /// The scenario, as the table describes it.
    pub(crate) scenario: &'static str,
    pub(crate) preset: Preset,
    pub(crate) seeds: u64,
    pub(crate) figures: &'static [Figure],
    /// The optimum, where it is not what attempts at once and without end achieve.
    pub(crate) optimum: Option<&'static [f64]>,
    /// The bars that this crate's figures have to reach, each with the number of the figure.
    pub(crate) bars: &'static [(usize, Bar)],
    pub(crate) run: Scenario,
}

/// A scenario: it begins with the clock at zero, and ends with a value for each figure.
pub(crate) type Scenario = fn(Run) -> Pin<Box<dyn Future<Output = Vec<Value>>>>;

/// The contestant and the seed of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) contestant: Contestant,
    pub(crate) preset: Preset,
    pub(crate) seed: u64,
}

/// A figure of a row.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    /// The digits after the point.
    pub(crate) digits: usize,
}

/// A bar for a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    /// At most the optimum multiplied by this.
    TimesOptimum(f64),
}

impl Bar {
    /// Returns whether a figure reaches it. Not a number reaches none.
    pub(crate) fn is_reached(self, value: f64, optimum: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::TimesOptimum(times) => value <= times * optimum,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::TimesOptimum(times) => write!(f, "≤ {times} × optimum"),
        }
    }
}

impl Figure {
    pub(crate) const fn share(name: &'static str) -> Self {
        Self { name, digits: 4 }
    }

    pub(crate) const fn seconds(name: &'static str) -> Self {
        Self { name, digits: 1 }
    }

    pub(crate) const fn ratio(name: &'static str) -> Self {
        Self { name, digits: 2 }
    }
}

/// A figure of one run: a sum, and the number of things that it is a sum of. Over several runs both are added up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    sum: f64,
    of: f64,
}

impl Value {
    /// Creates a value that is `sum` of `of` things.
    pub(crate) fn of(sum: usize, of: usize) -> Self {
        Self { sum: sum as f64, of: of as f64 }
    }

    /// Creates a value of this one run. Not a number: this run has none.
    pub(crate) fn one(value: f64) -> Self {
        if value.is_nan() { Self { sum: 0.0, of: 0.0 } } else { Self { sum: value, of: 1.0 } }
    }
}

impl Row {
    /// Runs the scenario with each seed, and returns the figures. Each run has a runtime of its own, with its clock at zero.
    pub(crate) fn measure(&self, contestant: Contestant, seeds: u64) -> Vec<f64> {
        if let (Contestant::Optimum, Some(optimum)) = (contestant, self.optimum) {
            return optimum.to_vec();
        }
        let mut sums = vec![Value { sum: 0.0, of: 0.0 }; self.figures.len()];
        for seed in 1..=seeds {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            fastrand::seed(seed);
            let values =
                runtime.expect("a runtime").block_on((self.run)(Run { contestant, preset: self.preset, seed }));
            assert_eq!(values.len(), sums.len(), "{}: as many values as figures", self.name);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = Value { sum: sum.sum + value.sum, of: sum.of + value.of };
            }
        }
        sums.into_iter().map(|value| value.sum / value.of).collect()
    }
}
