//! The operator's word that a refusal no longer holds: a bill was paid, a tier was granted, a quota was reset.

use std::collections::BTreeSet;

use humantime::format_duration;
use tower_gemini::{
    key_pool::{KeyState, Part},
    stack::GeminiLayer,
};

/// Forgets what refusals have said of quota, money and closed models, for all projects, in the limiter and in the pool.
/// Calls that wait for it go at once, as far as the limits allow. Returns what was parked, a line each.
///
/// Keys that were refused stay disabled, and limits that were learned stay: neither is a park.
pub(crate) fn lift(gemini: &GeminiLayer) -> Vec<String> {
    let mut parked = BTreeSet::new();
    if let Some(limiter) = gemini.limiter() {
        let mut projects = BTreeSet::new();
        for report in limiter.snapshot() {
            let (project, model) = (report.scope.project(), report.scope.model());
            if let Some(left) = report.blocked_for {
                parked.insert(line(project, model, "blocked", left));
            }
            projects.insert(project.to_owned());
        }
        projects.iter().for_each(|project| limiter.lift(project));
    }
    if let Some(pool) = gemini.keys() {
        for key in pool.snapshot() {
            let project = &*key.project;
            for model in &key.models {
                let left = match model.state {
                    KeyState::Cooling { left } | KeyState::Exhausted { left } if model.part != Part::Closed => left,
                    _ => model.look,
                };
                parked.insert(line(project, &model.model, model.reason.as_str(), left));
            }
            if let Some(spending) = &key.spending {
                parked.insert(line(project, "all models", spending.reason.as_str(), spending.look));
            }
            // All keys of a project share what is known of it.
            pool.lift(&key.fingerprint);
        }
    }
    parked.into_iter().collect()
}

fn line(project: &str, model: &str, reason: &str, left: std::time::Duration) -> String {
    let left = format_duration(std::time::Duration::from_secs(left.as_secs().max(1)));
    format!("{project}, {model}: {} for another {left}", reason.replace('_', " "))
}
