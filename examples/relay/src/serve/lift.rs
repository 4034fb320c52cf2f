//! The operator's word that a refusal no longer holds: a bill was paid, a tier was granted, a quota was reset.

use std::{collections::BTreeMap, time::Duration};

use humantime::format_duration;
use serde::Deserialize;
use tower_gemini::{
    key_pool::{KeyState, Part},
    stack::GeminiLayer,
};

/// The part of what is parked that is lifted. The default is all of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lift {
    /// The only project.
    pub(crate) project: Option<String>,
    /// The only model. The rest of a whole project is about no model, and stays then.
    pub(crate) model: Option<String>,
}

impl Lift {
    fn covers(&self, project: &str, model: &str) -> bool {
        self.project.as_deref().is_none_or(|only| only == project)
            && self.model.as_deref().is_none_or(|only| only == model)
    }
}

/// The refusals that were believed, by project, model and kind, each with the time that it had left.
type Parked = BTreeMap<(String, String, String), Duration>;

/// Forgets what refusals have said of quota, money and closed models, as far as `which` says, in the limiter and in the
/// pool. Calls that wait in the limiter's queue go at once, as far as the limits allow; those that sleep before their next
/// attempt, as long as a refusal has told them, end their sleep first. Returns what was parked, a line each.
///
/// Keys that were refused stay disabled, and limits that were learned stay: neither is a park.
pub(crate) fn lift(gemini: &GeminiLayer, which: &Lift) -> Vec<String> {
    let mut parked = Parked::new();
    let mut add = |project: &str, model: &str, kind: &str, left: Duration| {
        // The limiter and the pool have seen the same refusal.
        let known = parked.entry((project.to_owned(), model.to_owned(), kind.replace('_', " "))).or_default();
        *known = left.max(*known);
    };
    if let Some(limiter) = gemini.limiter() {
        for report in limiter.snapshot() {
            let (project, model) = (report.scope.project(), report.scope.model());
            if which.covers(project, model) {
                report.blocks.iter().for_each(|block| add(project, model, block.kind.as_str(), block.ends));
                limiter.lift_scope(&report.scope);
            }
        }
    }
    if let Some(pool) = gemini.keys() {
        for key in pool.snapshot() {
            for model in key.models.iter().filter(|model| which.covers(&key.project, &model.model)) {
                let left = match model.state {
                    KeyState::Cooling { left } | KeyState::Exhausted { left } if model.part != Part::Closed => left,
                    _ => model.look,
                };
                add(&key.project, &model.model, model.reason.as_str(), left);
                if which.model.is_some() {
                    pool.lift_model(&key.project, &model.model);
                }
            }
            if which.model.is_none() && which.covers(&key.project, "") {
                if let Some(spending) = &key.spending {
                    add(&key.project, "all models", spending.reason.as_str(), spending.look);
                }
                // All keys of a project share what is known of it.
                pool.lift_project(&key.project);
            }
        }
    }
    let line = |((project, model, kind), left): ((String, String, String), Duration)| {
        let left = format_duration(Duration::from_secs(left.as_secs().max(1)));
        format!("{project}, {model}: {kind} for another {left}")
    };
    parked.into_iter().map(line).collect()
}
