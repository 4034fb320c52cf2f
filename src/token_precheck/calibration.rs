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

/// So many models are calibrated; callers invent models.
const MAX_MODELS: usize = 256;

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
        if estimate < 100 {
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
            } else if factors.len() < MAX_MODELS {
                factors.insert(model.clone(), seen);
            }
            false
        });
    }
}
