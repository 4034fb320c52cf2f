//! What the table looks like at a moment, for a status page.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Limit, Model, ModelTable};

/// What a [`ModelTable`] knows at a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelTableReport {
    /// All known models, by name.
    pub models: Vec<ModelReport>,
    /// The limits that were learnt from refusals and still hold, by name, in tokens; the names need not be known ones.
    pub learned: Vec<(Box<str>, u64)>,
    /// How long ago the upstream was asked for the list. `None`: it is still the built-in one.
    pub age: Option<Duration>,
    /// Whether names can be refused by it.
    pub is_fresh: bool,
    /// How many refreshes have failed since the last good one.
    pub failures: u32,
    /// Why the last one did.
    pub last_failure: Option<Box<str>>,
}

/// One model of a [`ModelTableReport`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelReport {
    /// What is known of it.
    pub model: Arc<Model>,
    /// Its input limit in force.
    pub input_limit: Option<Limit>,
}

impl ModelTable {
    /// What it knows at the moment.
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
