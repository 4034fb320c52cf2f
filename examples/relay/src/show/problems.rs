//! The problems, the worst first, each with what to do about it: the first thing that a page should say on a bad day.
//!
//! The same trouble is one box: models that are down for one reason, keys that were refused for one, models without
//! quota. Each box takes along the failures that come of it, and what is left is said by kind.

use std::collections::BTreeSet;

use serde::Serialize;
use tower_gemini::key_pool::Part;

pub(crate) use crate::show::state::Level;
use crate::show::{
    model::ModelView,
    state::ModelState,
    view::{ChainView, FailureView, KeyView},
};

/// The share of a limit, in percent, from which it is nearly used up.
const NEARLY: u64 = 90;

/// The most names that one box tells.
const NAMES: usize = 5;

/// The operator's way to have everything asked again.
const LIFT: &str =
    "If it is good again, lift it under Parked, or send the relay SIGUSR1 (kill -USR1): it asks at once.";

/// Something that is wrong, and what to do about it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) level: Level,
    pub(crate) what: String,
    pub(crate) what_to_do: String,
}

/// Returns all problems, the worst first.
pub(crate) fn problems(
    models: &[ModelView],
    keys: &[KeyView],
    chains: &[ChainView],
    failures: &[FailureView],
) -> Vec<Problem> {
    let mut all = Vec::new();
    let mut news = News(failures.iter().filter(|failed| failed.calls_in_5_min > 0).collect());
    of_down(models, chains, &mut news, &mut all);
    of_keys(keys, &mut news, &mut all);
    of_failing(models, &mut news, &mut all);
    of_limits(models, &mut news, &mut all);
    of_rest(&news, &mut all);
    all.sort_by_key(|problem| problem.level);
    all
}

/// The failures of the last five minutes that no box has taken yet, the newest first.
struct News<'a>(Vec<&'a FailureView>);

impl News<'_> {
    /// Takes those that come of a trouble, and says how many they are; nothing if there are none.
    fn take(&mut self, is_of_it: impl Fn(&FailureView) -> bool) -> String {
        let (taken, left) = self.0.iter().copied().partition::<Vec<_>, _>(|failed| is_of_it(failed));
        self.0 = left;
        let Some(last) = taken.first() else { return String::new() };
        let kinds: BTreeSet<_> = taken.iter().map(|failed| failed.kind).collect();
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.replace('_', " ")).collect();
        let calls = taken.iter().map(|failed| failed.calls_in_5_min).sum();
        format!(
            " {} failed because of it in the last 5 minutes ({}), the last {} ago.",
            count(calls),
            kinds.join(", "),
            time(last.ago_s)
        )
    }
}

/// Adds the models whose breakers are open: those in one state, with one way on, are one box.
fn of_down(models: &[ModelView], chains: &[ChainView], news: &mut News<'_>, all: &mut Vec<Problem>) {
    let mut groups = Vec::<((&str, Option<&str>, bool), Vec<&str>)>::new();
    for model in models.iter().filter(|model| model.is_down()) {
        let chain = chains.iter().find(|chain| chain.model == model.model);
        let other = chain.map(|chain| &*chain.current).filter(|current| *current != model.model);
        put(&mut groups, (model.breaker.unwrap_or_default(), other, chain.is_some()), &*model.model);
    }
    for ((breaker, other, has_chain), names) in groups {
        let (breaker, listed) = (breaker.replace('_', " "), list(&names));
        let (are, them, they) =
            if names.len() == 1 { ("is", "it", "it recovers") } else { ("are", "them", "they recover") };
        let (level, what, what_to_do) = match other {
            Some(other) => (
                Level::Warn,
                format!("{listed} {are} down (breaker {breaker}); {other} answers instead."),
                "Nothing: calls go back by themselves once it is up.".to_owned(),
            ),
            None => (
                Level::Bad,
                format!("{listed} {are} down (breaker {breaker}): calls to {them} wait, or are refused."),
                match has_chain {
                    true => format!(
                        "Wait: the relay probes until {they}; calls try the models under [fallback] before that."
                    ),
                    false => {
                        format!("Wait: the relay probes until {they}. A model under [fallback] would answer meanwhile.")
                    }
                },
            ),
        };
        let comes_of_it = |failed: &FailureView| {
            let of_outage = matches!(failed.fault, "model" | "service" | "transport") || failed.kind == "circuit_open";
            // The halves of an answer are lost, whatever comes after.
            of_outage && !failed.in_the_answer && names.contains(&&*failed.model)
        };
        all.push(Problem { level, what: what + &news.take(comes_of_it), what_to_do });
    }
}

/// Adds the keys that are disabled, the projects that rest as a whole, and the models for which no key has quota.
fn of_keys(keys: &[KeyView], news: &mut News<'_>, all: &mut Vec<Problem>) {
    let disabled: Vec<_> = keys.iter().filter(|key| key.state == "disabled").collect();
    let everything = disabled.len() == keys.len();
    let mut groups = Vec::<((&str, &str), Vec<&KeyView>)>::new();
    for key in &disabled {
        put(&mut groups, (key.reason.as_deref().unwrap_or_default(), key.what_to_do.unwrap_or_default()), *key);
    }
    let several = groups.len() > 1;
    for ((reason, what_to_do), group) in groups {
        let names: Vec<_> = group.iter().map(|key| format!("{} of {}", key.label(), key.project)).collect();
        let names = list(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let tail = match keys.len() {
            _ if !everything => "",
            1 => ", and there is no other",
            _ if several => ", as are all others",
            _ => ": there is no other",
        };
        let what = match group.len() {
            1 => format!("The key {names} is disabled ({}){tail}.", reason.replace('_', " ")),
            count => format!("{count} keys are disabled ({}): {names}{tail}.", reason.replace('_', " ")),
        };
        let comes_of_it = |failed: &FailureView| {
            let by_key =
                failed.kind == reason && group.iter().any(|key| failed.key.as_deref() == Some(&*key.fingerprint));
            by_key || everything && failed.kind == "keys_disabled"
        };
        let level = if everything { Level::Bad } else { Level::Warn };
        all.push(Problem { level, what: what + &news.take(comes_of_it), what_to_do: what_to_do.to_owned() });
    }
    if everything {
        return;
    }
    let enabled: Vec<_> = keys.iter().filter(|key| key.state != "disabled").collect();
    let (spent, serving): (Vec<_>, Vec<_>) = enabled.into_iter().partition(|key| key.project_rests);
    of_spent(&spent, serving.is_empty(), news, all);
    let Some(first) = serving.first() else { return };
    let mut names: Vec<_> = first.models.iter().map(|out| &*out.model).collect();
    names.dedup();
    let mut groups = Vec::<((bool, Vec<&str>), Vec<OutEverywhere<'_>>)>::new();
    for out in names.into_iter().filter_map(|model| OutEverywhere::of(model, &serving)) {
        put(&mut groups, (out.is_grounded, out.closed.clone()), out);
    }
    all.extend(groups.into_iter().map(|(_, group)| OutEverywhere::problem(&group, news)));
}

/// Adds the projects that rest as a whole, those for one reason as one box.
fn of_spent(spent: &[&KeyView], are_last: bool, news: &mut News<'_>, all: &mut Vec<Problem>) {
    let mut groups = Vec::<(&str, Vec<&KeyView>)>::new();
    for key in spent {
        let known = groups.iter().flat_map(|(_, keys)| keys).any(|known| known.project == key.project);
        if !known {
            put(&mut groups, key.reason.as_deref().unwrap_or_default(), *key);
        }
    }
    for (reason, keys) in groups {
        let names = list(&keys.iter().map(|key| &*key.project).collect::<Vec<_>>());
        let looks = keys.iter().filter_map(|key| key.back_in_s).min_by(f64::total_cmp);
        let (subject, it) = if keys.len() == 1 {
            (format!("Project {names} has spent what it may"), "it is")
        } else {
            (format!("Projects {names} have spent what they may"), "the first is")
        };
        let look = looks.map(|seconds| format!("; {it} asked again in {}", time(seconds))).unwrap_or_default();
        let tail = if are_last { ", and no other serves" } else { "" };
        let comes_of_it = |failed: &FailureView| failed.kind == reason || are_last && failed.kind == "keys_exhausted";
        all.push(Problem {
            level: if are_last { Level::Bad } else { Level::Warn },
            what: format!("{subject} ({}){tail}{look}.{}", reason.replace('_', " "), news.take(comes_of_it)),
            what_to_do: format!("{} {LIFT}", keys[0].what_to_do.unwrap_or_default()),
        });
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

/// A model of which no key that serves can take all calls.
struct OutEverywhere<'a> {
    model: &'a str,
    /// Some project takes all but grounded calls.
    is_grounded: bool,
    /// The projects to which the model is closed.
    closed: Vec<&'a str>,
    soonest: f64,
    look: f64,
}

impl<'a> OutEverywhere<'a> {
    fn of(model: &'a str, serving: &[&'a KeyView]) -> Option<Self> {
        // A line about all calls stands before one about grounded calls.
        let outs = serving.iter().map(|key| Some((*key, key.models.iter().find(|out| out.model == model)?)));
        let outs = outs.collect::<Option<Vec<_>>>()?;
        let mut closed: Vec<_> =
            outs.iter().filter(|(_, out)| out.part == Part::Closed).map(|(key, _)| &*key.project).collect();
        closed.dedup();
        Some(Self {
            model,
            is_grounded: outs.iter().any(|(_, out)| out.part == Part::Grounded),
            closed,
            soonest: outs.iter().filter_map(|(_, out)| out.back_in_s).fold(f64::INFINITY, f64::min),
            look: outs.iter().map(|(_, out)| out.asked_again_in_s).fold(f64::INFINITY, f64::min),
        })
    }

    /// Describes models that are out in the same way.
    fn problem(group: &[Self], news: &mut News<'_>) -> Problem {
        let names: Vec<_> = group.iter().map(|out| out.model).collect();
        let listed = list(&names);
        let soonest = group.iter().map(|out| out.soonest).fold(f64::INFINITY, f64::min);
        let look = group.iter().map(|out| out.look).fold(f64::INFINITY, f64::min);
        let back = back(look, soonest);
        let is_grounded = group[0].is_grounded;
        let failed = news.take(|failed| {
            let for_quota =
                failed.fault == "quota" || matches!(failed.kind, "keys_exhausted" | "rate_limited" | "model_closed");
            for_quota && names.contains(&&*failed.model)
        });
        if is_grounded {
            return Problem {
                level: Level::Warn,
                what: format!(
                    "No key has quota left for grounded calls of {listed}; {back}. Others are served.{failed}"
                ),
                what_to_do: format!("Ask without search or maps until then, or add a key of another project. {LIFT}"),
            };
        }
        let closed = match &group[0].closed[..] {
            [] => String::new(),
            [project] => format!("closed to project {project}"),
            projects => format!("closed to projects {}", projects.join(", ")),
        };
        if soonest.is_infinite() {
            let are = if names.len() == 1 { "is" } else { "are" };
            return Problem {
                level: Level::Bad,
                what: format!("{listed} {are} {closed}; {back}.{failed}"),
                what_to_do: format!(
                    "Ask another model, or add a key of a project that may use it, or a model under [fallback]. {LIFT}"
                ),
            };
        }
        let closed = if closed.is_empty() { closed } else { format!(" ({closed})") };
        Problem {
            level: Level::Bad,
            what: format!("No key has quota left for {listed}{closed}; {back}.{failed}"),
            what_to_do: format!("Add a key of another project, or a model under [fallback]. {LIFT}"),
        }
    }
}

/// Adds the models all of whose calls fail: those that mostly fail alike are one box. Other failures of theirs are other
/// troubles, with other remedies.
fn of_failing(models: &[ModelView], news: &mut News<'_>, all: &mut Vec<Problem>) {
    let mut groups = Vec::<((&str, &str), Vec<&str>)>::new();
    for model in models.iter().filter(|model| matches!(model.state, ModelState::Failing { .. })) {
        let of_model = news.0.iter().rev().filter(|failed| failed.model == model.model && !failed.by_caller);
        // Of equals, the newest.
        if let Some(most) = of_model.max_by_key(|failed| failed.calls_in_5_min) {
            put(&mut groups, (most.kind, &*most.what_to_do), &*model.model);
        }
    }
    for ((kind, what_to_do), names) in groups {
        let failed = news.take(|failed| failed.kind == kind && !failed.by_caller && names.contains(&&*failed.model));
        all.push(Problem {
            level: Level::Bad,
            what: format!(
                "All calls to {} fail: {}, not the callers' fault.{failed}",
                list(&names),
                kind.replace('_', " ")
            ),
            what_to_do: what_to_do.to_owned(),
        });
    }
}

/// Adds the limits of models that are nearly used up.
fn of_limits(models: &[ModelView], news: &mut News<'_>, all: &mut Vec<Problem>) {
    // That no key has quota is said already.
    let models = models.iter().filter(|model| !matches!(model.state, ModelState::NoQuota | ModelState::Closed));
    for (model, mut problem) in models.filter_map(|model| Some((model, nearly_used(model)?))) {
        problem.what += &news.take(|failed| failed.kind == "rate_limited" && failed.model == model.model);
        all.push(problem);
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

/// Adds the failures that no box has taken, by kind.
fn of_rest(news: &News<'_>, all: &mut Vec<Problem>) {
    let mut kinds = Vec::<((&str, bool), Vec<&FailureView>)>::new();
    for failed in &news.0 {
        put(&mut kinds, (failed.kind, failed.by_caller), *failed);
    }
    for ((kind, by_caller), of_kind) in kinds {
        let last = of_kind[0];
        let calls = of_kind.iter().map(|failed| failed.calls_in_5_min).sum();
        let mut names = Vec::new();
        for failed in &of_kind {
            let name = if failed.model.is_empty() { "no model" } else { &*failed.model };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let (level, whose) =
            if by_caller { (Level::Note, "callers' fault") } else { (Level::Bad, "not the callers' fault") };
        all.push(Problem {
            level,
            what: format!(
                "{} failed in the last 5 minutes: {}, {whose}; last {} ago, {}.",
                count(calls),
                kind.replace('_', " "),
                time(last.ago_s),
                list(&names),
            ),
            what_to_do: last.what_to_do.to_string(),
        });
    }
}

/// Adds a member to its group, which is made if there is none.
fn put<K: PartialEq, V>(groups: &mut Vec<(K, Vec<V>)>, group: K, member: V) {
    match groups.iter_mut().find(|(of, _)| *of == group) {
        Some((_, members)) => members.push(member),
        None => groups.push((group, vec![member])),
    }
}

/// Lists names, not too many of them.
fn list(names: &[&str]) -> String {
    match names.split_at_checked(NAMES) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => names.join(", "),
    }
}

fn count(calls: u64) -> String {
    if calls == 1 { "1 call".to_owned() } else { format!("{calls} calls") }
}

/// Writes a time as short as a person needs it.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        0.0..120.0 => format!("{seconds:.0} s"),
        120.0..7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::view::tests::{key, out};

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

    fn failed(model: &str, kind: &'static str, fault: &'static str, calls: u64) -> FailureView {
        FailureView {
            time: String::new(),
            ago_s: 3.0,
            calls,
            calls_in_5_min: calls,
            caller: None,
            model: model.to_owned(),
            fault,
            kind,
            by_caller: fault == "caller",
            code: 503,
            message: String::new(),
            attempts: 1,
            key: None,
            in_the_answer: false,
            what_to_do: format!("Do something about {kind}.").into(),
        }
    }

    fn model(name: &str, state: ModelState) -> ModelView {
        let breaker = match state {
            ModelState::Down { breaker } => Some(breaker),
            _ => None,
        };
        ModelView { state, breaker, ..ModelView::named(name.to_owned()) }
    }

    fn boxes(models: &[ModelView], keys: &[KeyView], failures: &[FailureView]) -> Vec<(Level, String)> {
        let all = problems(models, keys, &[], failures);
        all.into_iter().map(|problem| (problem.level, problem.what)).collect()
    }

    #[test]
    fn the_same_trouble_is_one_box_with_the_failures_that_come_of_it() {
        let keys = [key("p0", Vec::new())];
        let down = || ModelState::Down { breaker: "open" };
        let failures = [
            failed("pro", "circuit_open", "local", 4),
            failed("pro", "overloaded", "model", 8),
            failed("lite", "overloaded", "model", 1),
            failed("other", "overloaded", "model", 1),
            failed("pro", "model_not_found", "caller", 1),
        ];
        let said = boxes(&[model("pro", down()), model("lite", down())], &keys, &failures);
        assert_eq!(said, [
            (Level::Bad, "pro, lite are down (breaker open): calls to them wait, or are refused. 13 calls failed because of it in the last 5 minutes (circuit open, overloaded), the last 3 s ago.".to_owned()),
            (Level::Bad, "1 call failed in the last 5 minutes: overloaded, not the callers' fault; last 3 s ago, other.".to_owned()),
            (Level::Note, "1 call failed in the last 5 minutes: model not found, callers' fault; last 3 s ago, pro.".to_owned()),
        ]);

        let failures = [failed("flash", "quota_day", "quota", 2), failed("flash", "keys_exhausted", "local", 20)];
        let keys = [key("p0", vec![out(Part::Model)])];
        let said = boxes(&[model("flash", ModelState::NoQuota)], &keys, &failures);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].1.ends_with(
            "22 calls failed because of it in the last 5 minutes (keys exhausted, quota day), the last 3 s ago."
        ));
    }

    #[test]
    fn models_all_of_whose_calls_fail_alike_are_one_box() {
        let keys = [key("p0", Vec::new())];
        let models = [
            model("pro", ModelState::Failing { calls: 7 }),
            model("lite", ModelState::Failing { calls: 3 }),
            model("flash", ModelState::FailingInPart { percent: 20 }),
        ];
        let failures = ["lite", "pro", "flash"].map(|model| failed(model, "server_error", "service", 3));
        assert_eq!(boxes(&models, &keys, &failures), [
            (Level::Bad, "All calls to pro, lite fail: server error, not the callers' fault. 6 calls failed because of it in the last 5 minutes (server error), the last 3 s ago.".to_owned()),
            (Level::Bad, "3 calls failed in the last 5 minutes: server error, not the callers' fault; last 3 s ago, flash.".to_owned()),
        ]);
    }

    #[test]
    fn keys_that_are_refused_for_one_reason_are_one_box() {
        let refused = |project: &str, reason: &str| KeyView {
            state: "disabled",
            reason: Some(reason.to_owned()),
            what_to_do: Some("Revoke it."),
            ..key(project, Vec::new())
        };
        let two = [refused("p0", "key_leaked"), refused("p1", "key_leaked")];
        let said = "2 keys are disabled (key leaked): of-p0 of p0, of-p1 of p1: there is no other.";
        assert_eq!(boxes(&[], &two, &[]), [(Level::Bad, said.to_owned())]);
        let [one, other] = two;
        let said = boxes(&[], &[one, other, key("p2", Vec::new())], &[]);
        assert_eq!(said, [(Level::Warn, "2 keys are disabled (key leaked): of-p0 of p0, of-p1 of p1.".to_owned())]);
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<_> = (0..90).map(|nth| format!("m{nth}")).collect();
        let failures: Vec<_> = names.iter().map(|name| failed(name, "model_not_found", "caller", 1)).collect();
        let all = boxes(&[], &[key("p0", Vec::new())], &failures);
        assert!(all[0].1.ends_with("m0, m1, m2, m3, m4 and 85 more."), "{all:?}");
        assert_eq!(all.len(), 1);
    }
}
