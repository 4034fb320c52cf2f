//! What the pool says when nobody is left: how each key stands, when the first is back, and what to do.

use std::{fmt::Write as _, time::Duration};

use super::{KeyState, NAME, health::Use, pool::Shared, registry::Query};
use crate::{
    context::{BoxError, Error},
    failure::{Failure, Kind},
};

/// The most keys that a message names.
const MAX_NAMED: usize = 8;

/// A key that is only being put to the test is free again after so long, as a guess.
const TRIAL: Duration = Duration::from_secs(1);

/// No key can take a call.
pub(super) fn nothing_left(shared: &Shared, ask: &Query<'_>) -> BoxError {
    let now = ask.now;
    let (mut states, mut keys, mut soonest) = (String::new(), 0, None::<Duration>);
    let registry = shared.registry.lock();
    let may = |name: &str| ask.pinned.is_none_or(|pinned| *pinned == *name);
    for project in registry.projects.iter().filter(|project| may(&project.home.name)) {
        let mark = project.marks.iter(now).find(|(model, _)| ask.pays && ***model == *ask.model).map(|(_, mark)| mark);
        for entry in &project.keys {
            let (state, back) = match (ask.usable(entry), entry.health.disabled, mark) {
                (_, Some(disabled), _) => {
                    let since = now.saturating_duration_since(disabled.since);
                    (KeyState::Disabled { reason: disabled.reason, since }.to_string(), None)
                }
                (Use::Disabled, None, _) => ("refused in this call".to_owned(), None),
                (_, None, Some(mark)) => {
                    let left = mark.until - now;
                    let state = if mark.exhausted { KeyState::Exhausted { left } } else { KeyState::Cooling { left } };
                    (state.to_string(), Some(left))
                }
                (_, None, None) => ("tried by one call at a time".to_owned(), Some(TRIAL)),
            };
            soonest = [soonest, back].into_iter().flatten().min();
            keys += 1;
            if keys <= MAX_NAMED {
                let name = entry.slot.name.as_deref().map(|name| format!("{name} ")).unwrap_or_default();
                let _ = write!(states, "; {name}{} of {}: {state}", entry.slot.shown, project.home.name);
            }
        }
    }
    drop(registry);
    if keys > MAX_NAMED {
        let _ = write!(states, "; and {} more", keys - MAX_NAMED);
    }
    let model = if ask.model.is_empty() { "this call" } else { ask.model };
    let place = ask.pinned.map(|project| format!(" in project {project}, which it is bound to")).unwrap_or_default();
    let failure = match soonest {
        Some(soonest) => {
            let message = format!(
                "none of {keys} keys can take {model}{place} within {soonest:.1?}{states}; wait, add a key of another \
                 project, or ask another model"
            );
            Failure::local(Kind::KeysExhausted, message).with_hint(soonest)
        }
        None => {
            let message = format!(
                "none of {keys} keys can take {model}{place}: all are disabled{states}; replace them, or enable them again"
            );
            Failure::local(Kind::KeysDisabled, message)
        }
    };
    Error::refusal(NAME, failure).into()
}
