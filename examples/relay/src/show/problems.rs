//! The problems, the worst first, each with what to do about it: the first thing that a page should say on a bad day.

use serde::Serialize;

use crate::show::view::{ChainView, FailureView, KeyView, ModelView};

/// The time for which failures are news, in seconds.
const NEWS: f64 = 300.0;

/// The share of a limit, in percent, from which it is nearly used up.
const NEARLY: u64 = 90;

/// Something that is wrong, and what to do about it.
#[derive(Serialize)]
pub(crate) struct Problem {
    pub(crate) level: Level,
    pub(crate) what: String,
    pub(crate) what_to_do: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Callers get errors that are not their fault.
    Bad,
    /// Callers may get such errors soon.
    Warn,
    /// Callers get errors by their own fault.
    Note,
}

/// Returns all problems, the worst first.
pub(crate) fn problems(
    models: &[ModelView],
    keys: &[KeyView],
    chains: &[ChainView],
    failures: &[FailureView],
) -> Vec<Problem> {
    let mut all = Vec::new();
    all.extend(models.iter().filter(|model| model.is_down()).map(|model| down(model, chains)));
    of_keys(keys, &mut all);
    all.extend(models.iter().filter_map(nearly_used));
    of_failures(failures, &mut all);
    all.sort_by_key(|problem| problem.level);
    all
}

fn down(model: &ModelView, chains: &[ChainView]) -> Problem {
    let name = &model.model;
    let state = model.breaker.unwrap_or_default().replace('_', " ");
    let away = chains.iter().find(|chain| chain.model == *name && chain.current != *name);
    match away {
        Some(chain) => Problem {
            level: Level::Warn,
            what: format!("{name} is down (breaker {state}); {} answers in its place.", chain.current),
            what_to_do: "Nothing: calls go back by themselves once it is up.".to_owned(),
        },
        None => Problem {
            level: Level::Bad,
            what: format!("{name} is down (breaker {state}): calls to it wait, or are refused."),
            what_to_do: match chains.iter().any(|chain| chain.model == *name) {
                true => {
                    "Wait: the relay probes it until it recovers; calls try the models under [fallback] before that."
                        .to_owned()
                }
                false => {
                    "Wait: the relay probes it until it recovers. A model under [fallback] would answer meanwhile."
                        .to_owned()
                }
            },
        },
    }
}

/// Adds the keys that are disabled, and the models for which no key has quota.
fn of_keys(keys: &[KeyView], all: &mut Vec<Problem>) {
    let disabled: Vec<_> = keys.iter().filter(|key| key.state == "disabled").collect();
    let everything = disabled.len() == keys.len();
    for key in &disabled {
        let (level, all_of_them) = if everything { (Level::Bad, ", as are all others") } else { (Level::Warn, "") };
        let reason = key.reason.as_deref().unwrap_or_default().replace('_', " ");
        let tail = if keys.len() > 1 { all_of_them } else { ", and there is no other" };
        all.push(Problem {
            level,
            what: format!("The key {} of {} is disabled ({reason}){tail}.", key.label(), key.project),
            what_to_do: key.what_to_do.unwrap_or_default().to_owned(),
        });
    }
    if everything {
        return;
    }
    // Models for which every key that serves is out of quota.
    let serving: Vec<_> = keys.iter().filter(|key| key.state != "disabled").collect();
    let Some(first) = serving.first() else { return };
    for out in &first.models {
        let back = serving.iter().map(|key| key.models.iter().find(|each| each.model == out.model));
        let Some(back) = back.collect::<Option<Vec<_>>>() else { continue };
        let soonest = back.iter().filter_map(|out| out.back_in_s).fold(f64::INFINITY, f64::min);
        all.push(Problem {
            level: Level::Bad,
            what: format!("No key has quota left for {}; the first is back in {}.", out.model, time(soonest)),
            what_to_do: "Add a key of another project, or a model under [fallback].".to_owned(),
        });
    }
}

/// Returns the limit of a model that is used most, if it is nearly used up.
fn nearly_used(model: &ModelView) -> Option<Problem> {
    let dimensions = model.limits.iter().flat_map(|limit| limit.dimensions.iter().map(move |each| (limit, each)));
    let full = dimensions.filter_map(|(limit, each)| Some((limit, each, each.percent()?)));
    let (limit, fullest, percent) =
        full.max_by_key(|(.., percent)| *percent).filter(|(.., percent)| *percent >= NEARLY)?;
    let waiting: usize = model.limits.iter().map(|limit| limit.waiting).sum();
    let tail = if waiting > 0 { format!("; {waiting} calls wait for their turn") } else { String::new() };
    let (name, project, used, of) = (&model.model, &limit.project, fullest.used, fullest.of);
    let max = fullest.max.unwrap_or_default();
    Some(Problem {
        level: Level::Warn,
        what: format!("{name}: {used} of {max} {of} are used in project {project} ({percent} %){tail}."),
        what_to_do: "Add a key of another project, or let callers send fewer calls.".to_owned(),
    })
}

/// Adds the failures that are news, by kind.
fn of_failures(failures: &[FailureView], all: &mut Vec<Problem>) {
    let news: Vec<_> = failures.iter().take_while(|failed| failed.ago_s <= NEWS).collect();
    let mut kinds: Vec<&str> = Vec::new();
    for failed in &news {
        if !kinds.contains(&failed.kind) {
            kinds.push(failed.kind);
        }
    }
    for kind in kinds {
        let of_kind: Vec<_> = news.iter().filter(|failed| failed.kind == kind).collect();
        let Some(last) = of_kind.first() else { continue };
        let calls = if of_kind.len() == 1 { "1 call".to_owned() } else { format!("{} calls", of_kind.len()) };
        let callers = last.fault == "caller" || matches!(kind, "body_too_large" | "bad_request" | "request_body");
        let (level, whose) =
            if callers { (Level::Note, "callers' fault") } else { (Level::Bad, "not the callers' fault") };
        all.push(Problem {
            level,
            what: format!(
                "{calls} failed in the last 5 minutes: {}, {whose}; last {} ago, {}.",
                kind.replace('_', " "),
                time(last.ago_s),
                if last.model.is_empty() { "no model" } else { &last.model },
            ),
            what_to_do: last.what_to_do.to_string(),
        });
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        0.0..120.0 => format!("{seconds:.0} s"),
        120.0..7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}
