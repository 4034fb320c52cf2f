//! The state of a model in honest words: no model is "up" whose calls fail, or for which no key has quota.

use serde::Serialize;
use tower_gemini::{circuit_breaker::State, key_pool::Part};

use crate::show::{
    history::Lately,
    view::{KeyView, LimitView},
};

/// The failures from which a model is said to fail.
const FEW: u64 = 3;

/// The time without an answer after which failures in a row are no chance, in seconds.
const SILENCE: u64 = 30;

/// The share of failures, in percent, from which calls are said to fail in part.
const PART: u64 = 10;

/// The urgency of something that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Callers get errors that are not their fault.
    Bad,
    /// Callers may get such errors soon.
    Warn,
    /// Callers get errors by their own fault, or nothing is known.
    Note,
    /// All is well.
    Good,
}

/// The state of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum ModelState {
    /// The breaker lets no call pass, or only a trial.
    Down { breaker: &'static str },
    /// Every key is disabled.
    NoKey,
    /// No key that serves has quota for it.
    NoQuota,
    /// It is closed to the projects of all keys that serve.
    Closed,
    /// All of its calls fail: those of the last five minutes, or the last ones in a row.
    Failing { calls: u64 },
    /// A part of its calls fails, in percent of the last five minutes.
    FailingInPart { percent: u64 },
    /// Its last one or two calls have failed, and none was answered in the last five minutes.
    LastFailed,
    /// It is back after an outage, and more and more calls pass.
    ComingBack,
    /// It answers.
    Up,
    /// Callers have made nothing but mistakes in the last five minutes.
    Mistakes,
    /// All callers of the last five minutes have left before the end, but for those that made mistakes.
    AllLeft,
    /// Nobody has called it in the last five minutes.
    Quiet,
    /// It is in use, but too many others are used more for its calls to be followed.
    NotFollowed,
}

impl ModelState {
    /// Derives the state of a model from its breaker, its limits, the keys, and its last calls, which are known unless
    /// too many others are used more.
    pub(crate) fn of(
        model: &str,
        breaker: Option<&'static str>,
        limits: &[LimitView],
        keys: &[KeyView],
        lately: Option<&Lately>,
    ) -> Self {
        let is_one_of =
            |states: &[State]| breaker.filter(|breaker| states.iter().any(|each| each.as_str() == *breaker));
        if let Some(breaker) = is_one_of(&[State::Open, State::HalfOpen, State::ForcedOpen]) {
            return Self::Down { breaker };
        }
        if !keys.is_empty() && keys.iter().all(|key| key.state == "disabled") {
            return Self::NoKey;
        }
        if let Some(out) = out_of_quota(model, limits, keys) {
            return out;
        }
        let recently = lately.map_or_else(|| Self::unfollowed(limits), Self::by_calls);
        match recently {
            Self::Up | Self::Quiet if is_one_of(&[State::Ramping]).is_some() => Self::ComingBack,
            other => other,
        }
    }

    fn by_calls(lately: &Lately) -> Self {
        let Lately { answered, failed, by_callers, left, in_a_row, answered_ago } = lately;
        let is_silent = answered_ago.is_none_or(|ago| ago.as_secs() >= SILENCE);
        match (*answered, *failed) {
            (0, 0) if *left > 0 => Self::AllLeft,
            (0, 0) if *by_callers > 0 => Self::Mistakes,
            (0, 0) => Self::Quiet,
            (0, failed) if failed < FEW => Self::LastFailed,
            (0, failed) => Self::Failing { calls: failed },
            (_, failed) if failed >= FEW && *in_a_row >= FEW && is_silent => Self::Failing { calls: *in_a_row },
            (answered, failed) => match failed * 100 / (answered + failed) {
                percent @ PART.. if failed >= FEW => Self::FailingInPart { percent },
                _ => Self::Up,
            },
        }
    }

    fn unfollowed(limits: &[LimitView]) -> Self {
        let is_used = |limit: &LimitView| {
            limit.waiting > 0 || limit.dimensions.iter().any(|each| each.is_of_a_minute() && each.used > 0)
        };
        if limits.iter().any(is_used) { Self::NotFollowed } else { Self::Quiet }
    }

    pub(crate) fn level(&self) -> Level {
        match self {
            Self::Down { .. } | Self::NoKey | Self::NoQuota | Self::Closed | Self::Failing { .. } => Level::Bad,
            Self::FailingInPart { percent: 50.. } => Level::Bad,
            Self::FailingInPart { .. } | Self::LastFailed | Self::ComingBack | Self::AllLeft => Level::Warn,
            Self::Mistakes | Self::Quiet | Self::NotFollowed => Level::Note,
            Self::Up => Level::Good,
        }
    }

    /// Returns the words for people.
    pub(crate) fn says(&self) -> String {
        match self {
            Self::Down { breaker } => format!("breaker {}", breaker.replace('_', " ")),
            Self::NoKey => "every key is disabled".to_owned(),
            Self::NoQuota => "no key has quota".to_owned(),
            Self::Closed => "closed to all projects".to_owned(),
            Self::Failing { calls } => format!("all calls fail: the last {calls}"),
            Self::FailingInPart { percent } => format!("{percent} % of calls fail"),
            Self::LastFailed => "the last call failed".to_owned(),
            Self::ComingBack => "coming back".to_owned(),
            Self::Up => "up".to_owned(),
            Self::Mistakes => "only callers' mistakes lately".to_owned(),
            Self::AllLeft => "callers leave before the end".to_owned(),
            Self::Quiet => "no calls lately".to_owned(),
            Self::NotFollowed => "in use".to_owned(),
        }
    }
}

/// Returns the state of a model for which none of the keys that serve has quota.
fn out_of_quota(model: &str, limits: &[LimitView], keys: &[KeyView]) -> Option<ModelState> {
    let enabled: Vec<_> = keys.iter().filter(|key| key.state != "disabled").collect();
    let parts = enabled.iter().map(|key| {
        if key.project_rests {
            return Some(Part::Spending);
        }
        let of_pool = key.models.iter().filter(|out| out.model == model).map(|out| out.part);
        let of_limits = limits.iter().filter(|limit| limit.project == key.project);
        let of_limits = of_limits.flat_map(|limit| limit.parked.iter().map(|park| park.part));
        of_pool.chain(of_limits).find(|part| *part != Part::Grounded)
    });
    let parts = parts.collect::<Option<Vec<_>>>().filter(|parts| !parts.is_empty())?;
    let is_closed = parts.iter().all(|part| *part == Part::Closed);
    Some(if is_closed { ModelState::Closed } else { ModelState::NoQuota })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::show::view::tests::{key, out};

    fn calls(answered: u64, failed: u64, by_callers: u64, in_a_row: u64, answered_ago: u64) -> Lately {
        let answered_ago = (answered > 0).then(|| Duration::from_secs(answered_ago));
        Lately { answered, failed, by_callers, left: 0, in_a_row, answered_ago }
    }

    fn state(breaker: Option<State>, keys: &[KeyView], lately: &Lately) -> ModelState {
        ModelState::of("flash", breaker.map(State::as_str), &[], keys, Some(lately))
    }

    #[test]
    fn a_model_all_of_whose_calls_fail_is_not_up() {
        let keys = [key("p0", Vec::new())];
        for (lately, expected, level) in [
            (calls(0, 0, 0, 0, 0), ModelState::Quiet, Level::Note),
            (calls(0, 0, 4, 0, 0), ModelState::Mistakes, Level::Note),
            // It may hang for longer than callers wait.
            (Lately { left: 9, ..calls(0, 0, 4, 0, 0) }, ModelState::AllLeft, Level::Warn),
            (Lately { left: 9, ..calls(0, 3, 0, 3, 0) }, ModelState::Failing { calls: 3 }, Level::Bad),
            (Lately { left: 9, ..calls(9, 0, 0, 0, 0) }, ModelState::Up, Level::Good),
            (calls(9, 0, 4, 0, 0), ModelState::Up, Level::Good),
            (calls(0, 1, 0, 1, 0), ModelState::LastFailed, Level::Warn),
            (calls(0, 3, 0, 3, 0), ModelState::Failing { calls: 3 }, Level::Bad),
            (calls(0, 3, 9, 70, 0), ModelState::Failing { calls: 3 }, Level::Bad),
            // Many answers, but none of late.
            (calls(900, 12, 0, 12, 30), ModelState::Failing { calls: 12 }, Level::Bad),
            (calls(900, 12, 0, 12, 29), ModelState::Up, Level::Good),
            (calls(900, 2, 0, 2, 200), ModelState::Up, Level::Good),
            (calls(90, 10, 0, 1, 2), ModelState::FailingInPart { percent: 10 }, Level::Warn),
            (calls(10, 30, 0, 2, 2), ModelState::FailingInPart { percent: 75 }, Level::Bad),
            (calls(1, 1, 0, 0, 2), ModelState::Up, Level::Good),
        ] {
            let state = state(Some(State::Closed), &keys, &lately);
            assert_eq!((&state, state.level()), (&expected, level), "{lately:?}");
        }
    }

    #[test]
    fn a_model_for_which_no_key_has_quota_is_not_up() {
        let answered = calls(9, 0, 0, 0, 1);
        let with = |parts: &[&[Part]]| -> Vec<_> {
            let key = |(nth, parts): (usize, &&[Part])| {
                key(&format!("p{nth}"), parts.iter().map(|part| out(*part)).collect())
            };
            parts.iter().enumerate().map(key).collect()
        };
        for (parts, expected) in [
            (&[&[Part::Model][..]][..], ModelState::NoQuota),
            (&[&[Part::Model], &[Part::Closed]], ModelState::NoQuota),
            (&[&[Part::Closed], &[Part::Closed]], ModelState::Closed),
            (&[&[Part::Model], &[]], ModelState::Up),
            (&[&[Part::Grounded], &[Part::Grounded]], ModelState::Up),
            (&[&[Part::Model, Part::Grounded], &[Part::Model]], ModelState::NoQuota),
        ] {
            assert_eq!(state(Some(State::Closed), &with(parts), &answered), expected, "{parts:?}");
        }
        // A disabled key serves nobody, and neither does a project that has spent all.
        let mut keys = with(&[&[Part::Model], &[], &[]]);
        (keys[1].state, keys[2].project_rests) = ("disabled", true);
        assert_eq!(state(None, &keys, &answered), ModelState::NoQuota);
        keys.iter_mut().for_each(|key| key.state = "disabled");
        assert_eq!(state(None, &keys, &answered), ModelState::NoKey);
    }

    #[test]
    fn an_open_breaker_goes_before_all_and_one_that_ramps_up_is_said_unless_calls_fail() {
        let keys = [key("p0", vec![out(Part::Model)])];
        let up = calls(9, 0, 0, 0, 1);
        for open in [State::Open, State::HalfOpen, State::ForcedOpen] {
            assert_eq!(state(Some(open), &keys, &up), ModelState::Down { breaker: open.as_str() });
        }
        let keys = [key("p0", Vec::new())];
        assert_eq!(state(Some(State::Ramping), &keys, &up), ModelState::ComingBack);
        assert_eq!(state(Some(State::Ramping), &keys, &calls(0, 9, 0, 9, 0)), ModelState::Failing { calls: 9 });
        assert_eq!(state(None, &keys, &up), ModelState::Up);
    }
}
