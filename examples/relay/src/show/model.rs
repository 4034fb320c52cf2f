//! The views of a model and of its last hour.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::show::{
    history::{Hour, Lately},
    state::{Level, ModelState},
    view::{DimensionView, KeyView, LimitView, seconds},
};

/// A model that is in use or in trouble.
#[derive(Serialize)]
pub(crate) struct ModelView {
    pub(crate) model: String,
    #[serde(flatten)]
    pub(crate) state: ModelState,
    /// The state in words, and its urgency.
    pub(crate) says: String,
    pub(crate) level: Level,
    /// The breaker's state, if there are breakers.
    pub(crate) breaker: Option<&'static str>,
    /// The calls of the last five minutes, unless too many other models are used more.
    pub(crate) last_5_min: Option<LatelyView>,
    pub(crate) limits: Vec<LimitView>,
    pub(crate) history: Option<HourView>,
}

impl ModelView {
    /// Makes a view of a model without the state of its breaker, its limits and its calls.
    pub(crate) fn named(model: String) -> Self {
        let state = ModelState::Quiet;
        let (says, level) = (state.says(), state.level());
        Self { model, state, says, level, breaker: None, last_5_min: None, limits: Vec::new(), history: None }
    }

    /// Derives the state from the rest of the view, the keys and the last calls.
    pub(crate) fn derive(&mut self, keys: &[KeyView], lately: Option<&Lately>) {
        self.state = ModelState::of(&self.model, self.breaker, &self.limits, keys, lately);
        (self.says, self.level) = (self.state.says(), self.state.level());
    }

    /// Returns whether the breaker refuses calls to the model for now.
    pub(crate) fn is_down(&self) -> bool {
        matches!(self.state, ModelState::Down { .. })
    }

    /// Returns how urgent it is that a person looks at the model: 2000 for one that is down, 1000 for one that does not
    /// answer else, 500 for one in doubt, 200 for one that is blocked, and up to 100 more for the share of its quota
    /// that is used.
    pub(crate) fn trouble(&self) -> u64 {
        let limits = self.limits.iter().map(|limit| {
            let fullest = limit.dimensions.iter().filter_map(DimensionView::percent).max().unwrap_or(0);
            fullest.min(100) + if limit.blocked_for_s.is_some() { 200 } else { 0 }
        });
        let state = match self.level {
            _ if self.is_down() => 2_000,
            Level::Bad => 1_000,
            Level::Warn => 500,
            Level::Note | Level::Good => 0,
        };
        limits.max().unwrap_or(0) + state
    }
}

/// The calls of a model in the last five minutes.
#[derive(Serialize)]
pub(crate) struct LatelyView {
    pub(crate) answered: u64,
    /// The failures that are not the callers' fault.
    pub(crate) failed: u64,
    pub(crate) failed_by_callers: u64,
    /// The calls whose callers have left before the end.
    pub(crate) left: u64,
    /// The failures since the last answer.
    pub(crate) failed_in_a_row: u64,
    pub(crate) answered_ago_s: Option<f64>,
}

impl LatelyView {
    pub(crate) fn of(lately: &Lately) -> Self {
        Self {
            answered: lately.answered,
            failed: lately.failed,
            failed_by_callers: lately.by_callers,
            left: lately.left,
            failed_in_a_row: lately.in_a_row,
            answered_ago_s: lately.answered_ago.map(seconds),
        }
    }
}

/// The last hour, minute by minute, the oldest first; the last minute is under way.
#[derive(Serialize)]
pub(crate) struct HourView {
    pub(crate) calls: Vec<u64>,
    /// The failures that are not the callers' fault.
    pub(crate) failed: Vec<u64>,
    pub(crate) failed_by_callers: Vec<u64>,
    /// The times of answers to their end, in milliseconds; `null` in a minute without answers.
    pub(crate) p50_ms: Vec<Option<u64>>,
    pub(crate) p95_ms: Vec<Option<u64>>,
    /// The same of the whole hour.
    pub(crate) hour_p50_ms: Option<u64>,
    pub(crate) hour_p95_ms: Option<u64>,
    /// The failures of the hour by whose fault they are.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// The calls of the hour by the service tier that they asked for, where that is known.
    pub(crate) tiers: BTreeMap<&'static str, u64>,
}

impl HourView {
    pub(crate) fn of(hour: Hour) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let column = |times: Vec<Option<Duration>>| times.into_iter().map(|time| time.map(millis)).collect();
        Self {
            calls: hour.calls,
            failed: hour.failed,
            failed_by_callers: hour.by_callers,
            p50_ms: column(hour.p50),
            p95_ms: column(hour.p95),
            hour_p50_ms: hour.p50_of_all.map(millis),
            hour_p95_ms: hour.p95_of_all.map(millis),
            faults: hour.faults.iter().map(|(fault, calls)| (fault.as_str(), *calls)).collect(),
            tiers: hour.tiers.iter().map(|(tier, calls)| (tier.as_str(), *calls)).collect(),
        }
    }
}
