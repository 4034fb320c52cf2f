//! The problems, the worst first, each with what to do about it: the first thing that a page should say on a bad day.

use serde::Serialize;
use tower_gemini::key_pool::Part;

use crate::show::view::{ChainView, FailureView, KeyView, ModelView};

/// The share of a limit, in percent, from which it is nearly used up.
const NEARLY: u64 = 90;

/// The operator's way to have everything asked again.
const LIFT: &str = "If it is good again, send the relay SIGUSR1 (kill -USR1): it asks at once.";

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

/// Adds the keys that are disabled, the projects that rest as a whole, and the models for which no key has quota.
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
    let enabled: Vec<_> = keys.iter().filter(|key| key.state != "disabled").collect();
    let (spent, serving): (Vec<_>, Vec<_>) = enabled.into_iter().partition(|key| key.project_rests);
    all.extend(
        spent.chunk_by(|one, other| one.project == other.project).map(|keys| of_spent(keys[0], serving.is_empty())),
    );
    let Some(first) = serving.first() else { return };
    let mut names: Vec<_> = first.models.iter().map(|out| &*out.model).collect();
    names.dedup();
    all.extend(names.into_iter().filter_map(|model| out_everywhere(model, &serving)));
}

/// Describes a project that rests as a whole, by one of its keys.
fn of_spent(key: &KeyView, is_last: bool) -> Problem {
    let reason = key.reason.as_deref().unwrap_or_default().replace('_', " ");
    let look = key.back_in_s.map(|seconds| format!("; it is asked again in {}", time(seconds))).unwrap_or_default();
    let tail = if is_last { ", and no other serves" } else { "" };
    Problem {
        level: if is_last { Level::Bad } else { Level::Warn },
        what: format!("Project {} has spent what it may ({reason}){tail}{look}.", key.project),
        what_to_do: format!("{} {LIFT}", key.what_to_do.unwrap_or_default()),
    }
}

/// Says when a refusal is doubted, and when it ends; both in seconds, and infinite where nobody knows.
fn back(look: f64, end: f64) -> String {
    match (look, end) {
        (look, end) if end.is_infinite() => format!("it is asked again in {}", time(look)),
        // Nobody looks before its end.
        (look, end) if look >= end => format!("the first is back in {}", time(end)),
        (look, end) => format!("the first is asked again in {}, and back by itself in {}", time(look), time(end)),
    }
}

/// Returns the problem with a model, if no key that serves can take all of its calls.
fn out_everywhere(model: &str, serving: &[&KeyView]) -> Option<Problem> {
    // A line about all calls stands before one about grounded calls.
    let outs = serving.iter().map(|key| Some((*key, key.models.iter().find(|out| out.model == model)?)));
    let outs = outs.collect::<Option<Vec<_>>>()?;
    let soonest = outs.iter().filter_map(|(_, out)| out.back_in_s).fold(f64::INFINITY, f64::min);
    let look = outs.iter().map(|(_, out)| out.asked_again_in_s).fold(f64::INFINITY, f64::min);
    let back = back(look, soonest);
    if outs.iter().any(|(_, out)| out.part == Part::Grounded) {
        return Some(Problem {
            level: Level::Warn,
            what: format!("No key has quota left for grounded calls of {model}; {back}. Others are served."),
            what_to_do: format!("Ask without search or maps until then, or add a key of another project. {LIFT}"),
        });
    }
    let mut closed: Vec<_> =
        outs.iter().filter(|(_, out)| out.part == Part::Closed).map(|(key, _)| &*key.project).collect();
    closed.dedup();
    let closed = match &closed[..] {
        [] => String::new(),
        [project] => format!("closed to project {project}"),
        projects => format!("closed to projects {}", projects.join(", ")),
    };
    if soonest.is_infinite() {
        return Some(Problem {
            level: Level::Bad,
            what: format!("{model} is {closed}; {back}."),
            what_to_do: format!(
                "Ask another model, or add a key of a project that may use it, or a model under [fallback]. {LIFT}"
            ),
        });
    }
    let closed = if closed.is_empty() { closed } else { format!(" ({closed})") };
    Some(Problem {
        level: Level::Bad,
        what: format!("No key has quota left for {model}{closed}; {back}."),
        what_to_do: format!("Add a key of another project, or a model under [fallback]. {LIFT}"),
    })
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
    let news: Vec<_> = failures.iter().filter(|failed| failed.calls_in_5_min > 0).collect();
    let mut kinds: Vec<&str> = Vec::new();
    for failed in &news {
        if !kinds.contains(&failed.kind) {
            kinds.push(failed.kind);
        }
    }
    for kind in kinds {
        let of_kind: Vec<_> = news.iter().filter(|failed| failed.kind == kind).collect();
        let Some(last) = of_kind.first() else { continue };
        let calls: u64 = of_kind.iter().map(|failed| failed.calls_in_5_min).sum();
        let calls = if calls == 1 { "1 call".to_owned() } else { format!("{calls} calls") };
        let callers = last.fault == "caller"
            || matches!(kind, "body_too_large" | "bad_request" | "request_body" | "caller_limited");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::view::OutOfQuota;

    fn key(project: &str, models: Vec<OutOfQuota>) -> KeyView {
        KeyView {
            fingerprint: format!("of-{project}"),
            name: None,
            project: project.to_owned(),
            state: "active",
            reason: None,
            project_rests: false,
            back_in_s: None,
            disabled_for_s: None,
            what_to_do: None,
            models,
            calls: 1,
        }
    }

    fn spent(project: &str) -> KeyView {
        KeyView {
            state: "exhausted",
            reason: Some("billing_required".to_owned()),
            project_rests: true,
            back_in_s: Some(3_600.0),
            what_to_do: Some("Pay."),
            ..key(project, Vec::new())
        }
    }

    fn out(part: Part) -> OutOfQuota {
        OutOfQuota {
            model: "flash".to_owned(),
            part,
            state: "exhausted",
            reason: "",
            back_in_s: Some(40_000.0).filter(|_| part != Part::Closed),
            asked_again_in_s: 60.0,
        }
    }

    fn said(keys: &[KeyView]) -> Vec<(Level, String)> {
        problems(&[], keys, &[], &[]).into_iter().map(|problem| (problem.level, problem.what)).collect()
    }

    #[test]
    fn a_model_out_of_quota_is_said_with_the_part_that_is_out() {
        let whole = "No key has quota left for flash; the first is asked again in 60 s, and back by itself in 11.1 h.";
        let grounded = "No key has quota left for grounded calls of flash; the first is asked again in 60 s, and back by itself in 11.1 h. Others are served.";
        for (parts, level, what) in [
            (&[&[Part::Model][..]][..], Level::Bad, whole),
            (&[&[Part::Grounded]], Level::Warn, grounded),
            (&[&[Part::Grounded], &[Part::Grounded]], Level::Warn, grounded),
            (&[&[Part::Model], &[Part::Grounded]], Level::Warn, grounded),
            (&[&[Part::Model, Part::Grounded]], Level::Bad, whole),
            (&[&[Part::Closed]], Level::Bad, "flash is closed to project p0; it is asked again in 60 s."),
            (
                &[&[Part::Closed], &[Part::Closed]],
                Level::Bad,
                "flash is closed to projects p0, p1; it is asked again in 60 s.",
            ),
            (
                &[&[Part::Closed], &[Part::Model]],
                Level::Bad,
                "No key has quota left for flash (closed to project p0); the first is asked again in 60 s, and back by itself in 11.1 h.",
            ),
        ] {
            let keys = parts
                .iter()
                .enumerate()
                .map(|(nth, parts)| key(&format!("p{nth}"), parts.iter().map(|part| out(*part)).collect()));
            let mut keys: Vec<_> = keys.collect();
            assert_eq!(said(&keys), [(level, what.to_owned())]);
            // A project without money does not serve, and one that has all serves.
            keys.push(spent("p9"));
            assert_eq!(said(&keys).len(), 2);
            keys.push(key("p5", Vec::new()));
            assert!(!said(&keys).iter().any(|(_, what)| what.contains("flash")), "{parts:?}");
        }
    }

    #[test]
    fn a_project_that_has_spent_what_it_may_is_said_once() {
        let line = |tail: &str| {
            format!("Project p1 has spent what it may (billing required){tail}; it is asked again in 60 min.")
        };
        let two = [spent("p1"), spent("p1")];
        assert_eq!(said(&two), [(Level::Bad, line(", and no other serves"))]);
        assert_eq!(said(&[spent("p1"), key("p2", Vec::new())]), [(Level::Warn, line(""))]);
    }
}
