//! How far the estimates are off, model by model: learned from what the answers say they have cost.
//!
//! An estimate is remembered with the cell in which the answer's usage will stand. The cells are looked into when the next
//! estimate is made, so that nobody has to hold on to a body for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::context::Usage;

/// So many models are calibrated; callers invent models. Past that any one makes room: it is soon learned again.
const MAX_MODELS: usize = 256;

/// No model has a longer name.
const MAX_NAME: usize = 128;

/// So many calls are remembered until their answers have ended.
const MAX_PENDING: usize = 64;

/// How much one answer changes the factor.
const WEIGHT: f64 = 0.1;

/// No estimate is corrected by more than this factor, nor by less than its inverse.
const MOST: f64 = 4.0;

#[derive(Clone, Debug, Default)]
pub(super) struct Calibration(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    factors: HashMap<Box<str>, f64>,
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    model: Box<str>,
    estimate: u64,
    usage: Usage,
}

impl Calibration {
    /// The estimate as it has turned out to be for this model.
    pub(super) fn correct(&self, model: &str, estimate: u64) -> u64 {
        let mut state = self.0.lock();
        state.harvest();
        let factor = state.factors.get(model).copied().unwrap_or(1.0);
        (estimate as f64 * factor).round() as u64
    }

    /// Remembers what was estimated, uncorrected, for an answer that has begun.
    pub(super) fn expect(&self, model: &str, estimate: u64, usage: Usage) {
        // Small requests are mostly what the upstream adds.
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

impl State {
    fn harvest(&mut self) {
        let Self { factors, pending } = self;
        pending.retain(|Pending { model, estimate, usage }| {
            let Some(tokens) = usage.prompt_tokens() else { return !usage.report().ended };
            let seen = (tokens as f64 / *estimate as f64).clamp(1.0 / MOST, MOST);
            if let Some(factor) = factors.get_mut(model) {
                *factor += (seen - *factor) * WEIGHT;
            } else {
                if factors.len() >= MAX_MODELS {
                    let any = factors.keys().next().cloned();
                    any.and_then(|any| factors.remove(&any));
                }
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
