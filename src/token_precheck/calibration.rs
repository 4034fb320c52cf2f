//! The factors by which estimates are off, one a model, learned from the usage that answers report.
//!
//! An estimate is kept together with the cell that will hold its answer's usage. The cells are read when the next
//! estimate is made, so that nothing has to follow a body to its end.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::{bounded::ByAge, context::Usage};

/// The most models that are calibrated, because callers can invent names. Past that the oldest is dropped: its factor
/// is soon learned again.
const MAX_MODELS: usize = 256;

/// The longest name that is kept, in bytes. No real model has a longer one.
const MAX_NAME: usize = 128;

/// The most calls whose answers are awaited. Past that the oldest is dropped.
const MAX_PENDING: usize = 64;

/// The weight of one answer in the moving average of the factor.
const WEIGHT: f64 = 0.1;

/// The largest factor. The smallest is its inverse.
const MAX_FACTOR: f64 = 4.0;

/// The factors of all models. A cheap handle: clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Calibration(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    factors: ByAge<Box<str>, f64>,
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    model: Box<str>,
    estimate: u64,
    usage: Usage,
}

impl Calibration {
    /// Corrects an estimate by the model's factor.
    pub(super) fn correct(&self, model: &str, estimate: u64) -> u64 {
        let mut state = self.0.lock();
        state.harvest();
        let factor = state.factors.get(model).copied().unwrap_or(1.0);
        (estimate as f64 * factor).round() as u64
    }

    /// Notes the uncorrected estimate of a call whose answer has begun.
    pub(super) fn expect(&self, model: &str, estimate: u64, usage: Usage) {
        // In small requests, the tokens that the upstream adds outweigh the texts.
        if estimate < 100 || model.len() > MAX_NAME {
            return;
        }
        let mut state = self.0.lock();
        state.harvest();
        if state.pending.len() >= MAX_PENDING {
            state.pending.pop_front();
        }
        state.pending.push_back(Pending { model: model.into(), estimate, usage });
    }
}

impl Default for State {
    fn default() -> Self {
        Self { factors: ByAge::new(MAX_MODELS), pending: VecDeque::new() }
    }
}

impl State {
    /// Learns from the answers that have ended, and drops them.
    fn harvest(&mut self) {
        let Self { factors, pending } = self;
        pending.retain(|Pending { model, estimate, usage }| {
            let Some(tokens) = usage.prompt_tokens() else { return !usage.report().ended };
            let seen = (tokens as f64 / *estimate as f64).clamp(1.0 / MAX_FACTOR, MAX_FACTOR);
            if let Some(factor) = factors.get_mut(model) {
                *factor += (seen - *factor) * WEIGHT;
            } else {
                factors.insert(model.clone(), seen);
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(tokens: u64) -> Usage {
        let usage = Usage::default();
        usage.update(|report| report.prompt_tokens = Some(tokens));
        usage
    }

    #[test]
    fn names_that_callers_invent_are_forgotten() {
        let calibration = Calibration::default();
        for number in 0..2 * MAX_MODELS {
            let model = format!("m{number}");
            calibration.expect(&model, 1_000, answered(2_000));
            assert_eq!(calibration.correct(&model, 1_000), 2_000);
        }
        let long = "m".repeat(MAX_NAME + 1);
        calibration.expect(&long, 1_000, answered(2_000));
        assert_eq!(calibration.correct(&long, 1_000), 1_000);
        assert_eq!(calibration.0.lock().factors.len(), MAX_MODELS);
    }

    #[test]
    fn no_answer_corrects_by_more_than_four() {
        let calibration = Calibration::default();
        calibration.expect("up", 1_000, answered(u64::MAX));
        calibration.expect("down", 1_000, answered(0));
        assert_eq!((calibration.correct("up", 1_000), calibration.correct("down", 1_000)), (4_000, 250));
    }
}
