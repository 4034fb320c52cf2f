//! A snapshot of the table, for a status page.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Limit, Model, ModelTable};

/// A snapshot of a [`ModelTable`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelTableReport {
    /// All known models, sorted by name.
    pub models: Vec<ModelReport>,
    /// The limits that were learned from refusals and still hold, in tokens, sorted by name. The models need not be
    /// known.
    pub learned: Vec<(Box<str>, u64)>,
    /// The time since the upstream was asked for the list. `None` where it is still the built-in one.
    pub age: Option<Duration>,
    /// A flag: names can be refused by the list.
    pub is_fresh: bool,
    /// The number of refreshes that have failed since the last good one.
    pub failures: u32,
    /// The error of the last one, redacted.
    pub last_failure: Option<Box<str>>,
}

/// One model of a [`ModelTableReport`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelReport {
    /// The model.
    pub model: Arc<Model>,
    /// The input limit in force.
    pub input_limit: Option<Limit>,
}

impl ModelTable {
    /// Takes a snapshot for a status page.
    pub fn snapshot(&self) -> ModelTableReport {
        let (now, lasts) = (Instant::now(), self.shared.settings.learned_for);
        let state = self.shared.state.read();
        let report = |model: &Arc<Model>| {
            let input_limit = state.limit(model.name(), lasts);
            ModelReport { model: model.clone(), input_limit }
        };
        let mut report = ModelTableReport {
            models: state.names.values().map(report).collect(),
            learned: state.learned.iter(now, lasts).map(|(name, tokens)| (name.into(), tokens)).collect(),
            age: state.listed_at.map(|at| now.saturating_duration_since(at)),
            is_fresh: self.is_fresh_in(&state),
            failures: state.failures,
            last_failure: state.last_failure.clone(),
        };
        drop(state);
        report.models.sort_unstable_by(|one, other| one.model.name().cmp(other.model.name()));
        report.learned.sort_unstable();
        report
    }
}
