//! The decision after a failure: again or not, and after how long. Pure: it is told everything it has to know.

use std::time::Duration;

use http::StatusCode;

use super::policy::{Cause, OnOpen, RetryPolicy};
use crate::{
    call::Resend,
    context::Retry,
    failure::{Failure, Fault, Kind},
};

/// Added to a hint that the upstream has cut to whole seconds.
const CUT_SECOND: Duration = Duration::from_secs(1);

/// Spreads those who wait for the same hint, in seconds.
const HINT_JITTER: f64 = 0.5;

/// The shortest wait for a refusal of a layer inside, so that two layers that disagree cannot spin.
const MIN_REFUSAL_WAIT: Duration = Duration::from_millis(10);

/// The longest wait for refusals in all, where no deadline is set: the total clock's default.
const MAX_REFUSAL_WAIT: Duration = Duration::from_secs(285);

/// What has happened in this call so far.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Attempts that were made, those at other models before included.
    attempts: u32,
    /// Attempts that were made here.
    here: u32,
    /// Failures so far, by row: a call meets few kinds.
    causes: Vec<(Cause, u32)>,
    free_used: bool,
    /// Refusals by layers inside.
    refusals: u32,
    refusal_wait: Duration,
    last_500: Option<Failure>,
}

/// What the decision depends on besides the failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub(super) resend: Resend,
    pub(super) models_left: u32,
    /// What is left until the deadline.
    pub(super) remaining: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// The failure goes back.
    GiveUp,
    /// It would have been tried again, but not before the deadline: it goes back with the wait it would have needed.
    TooLate(Duration),
    /// Tried again after `wait`. Where it spends the budget, an empty budget means to give up.
    Again { wait: Duration, spends_budget: bool },
}

impl History {
    pub(super) fn new(attempts_before: u32) -> Self {
        Self { attempts: attempts_before, ..Self::default() }
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether anything went wrong before.
    pub(super) fn is_first(&self) -> bool {
        self.here <= 1 && !self.free_used && self.refusals == 0
    }

    pub(super) fn attempt_begins(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        self.here = self.here.saturating_add(1);
    }

    fn attempt_never_was(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.here = self.here.saturating_sub(1);
    }

    fn count(&mut self, cause: Cause) -> u32 {
        let at = self.causes.iter().position(|(known, _)| *known == cause).unwrap_or_else(|| {
            self.causes.push((cause, 0));
            self.causes.len() - 1
        });
        self.causes[at].1 += 1;
        self.causes[at].1
    }

    /// Marks the same 500 coming twice for the same request: the content may be what breaks it.
    pub(super) fn suspect_content(&mut self, failure: &mut Failure) {
        if failure.kind() != Kind::ServerError {
            return;
        }
        if self.last_500.as_ref().is_some_and(|last| last.same_as(failure)) {
            failure.mark_content_suspected();
        }
        self.last_500 = Some(failure.clone());
    }
}

/// Decides after a failure. `roll` is a number from 0 to 1, by chance.
pub(super) fn decide(
    policy: &RetryPolicy,
    history: &mut History,
    failure: &Failure,
    said: Option<Retry>,
    situation: Situation,
    roll: f64,
) -> Decision {
    if said == Some(Retry::Never) {
        return Decision::GiveUp;
    }
    if matches!(failure.kind(), Kind::CircuitOpen | Kind::RateLimited) {
        return refused(policy, history, failure, said, situation);
    }
    if !may_resend(failure, situation.resend) {
        return Decision::GiveUp;
    }
    let cause = Cause::of(failure);
    let nth = history.count(cause);
    if cause == Cause::NotSent && !std::mem::replace(&mut history.free_used, true) && policy.max_attempts > 1 {
        history.attempt_never_was();
        return Decision::Again { wait: Duration::ZERO, spends_budget: false };
    }
    let reserved = situation.models_left.saturating_mul(2);
    if history.attempts >= policy.max_attempts.saturating_sub(reserved).max(1) {
        return Decision::GiveUp;
    }
    match said {
        Some(Retry::Now | Retry::Queued) => return Decision::Again { wait: Duration::ZERO, spends_budget: false },
        // Whoever says so knows better than the table.
        Some(Retry::After(wait)) => return within(situation, wait, failure.counts_against_upstream()),
        Some(Retry::Never) | None => {}
    }
    // What a layer here has refused for good, it will refuse again.
    let hopeless = failure.fault() == Fault::Local
        || matches!(failure.kind(), Kind::QuotaDay | Kind::QuotaZero | Kind::ContentBlocked);
    if hopeless || !(failure.same_key_may_help() || policy.is_explicit(cause)) {
        return Decision::GiveUp;
    }
    let rule = policy.rule(cause);
    if nth >= rule.attempts_here(situation.models_left) {
        return Decision::GiveUp;
    }
    let backoff = rule.ceiling(nth).mul_f64(roll);
    if failure.hint().is_some_and(|hint| hint.delay() > policy.max_hint) {
        return Decision::GiveUp;
    }
    let hint = failure.hint().map(|hint| {
        let cut = if hint.is_exact() { Duration::ZERO } else { CUT_SECOND };
        hint.delay().saturating_add(cut).saturating_add(Duration::from_secs_f64(HINT_JITTER * roll))
    });
    let wait = hint.map_or(backoff, |hint| hint.max(backoff));
    // Waiting for one's own quota takes nothing from an upstream that is down.
    let spends_budget = !(failure.fault() == Fault::Quota && hint.is_some());
    within(situation, wait, spends_budget)
}

/// A layer inside refused for now: nothing was sent, and no attempt was made.
fn refused(
    policy: &RetryPolicy,
    history: &mut History,
    failure: &Failure,
    said: Option<Retry>,
    situation: Situation,
) -> Decision {
    history.attempt_never_was();
    history.refusals = history.refusals.saturating_add(1);
    if matches!(said, Some(Retry::Now | Retry::Queued)) && history.refusals < policy.max_attempts {
        return Decision::Again { wait: Duration::ZERO, spends_budget: false };
    }
    let hint = match said {
        Some(Retry::After(wait)) => Some(wait),
        _ => failure.hint().map(|hint| hint.delay()),
    };
    let Some(wait) = hint.filter(|_| policy.on_open == OnOpen::Wait) else { return Decision::GiveUp };
    let wait = wait.max(MIN_REFUSAL_WAIT);
    history.refusal_wait = history.refusal_wait.saturating_add(wait);
    if situation.remaining.is_none() && history.refusal_wait > MAX_REFUSAL_WAIT {
        return Decision::TooLate(wait);
    }
    within(situation, wait, false)
}

fn within(situation: Situation, wait: Duration, spends_budget: bool) -> Decision {
    match situation.remaining {
        Some(remaining) if wait >= remaining => Decision::TooLate(wait),
        _ => Decision::Again { wait, spends_budget },
    }
}

/// Whether sending this kind of call again could do something twice.
fn may_resend(failure: &Failure, resend: Resend) -> bool {
    let turned_away = matches!(failure.code(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    match resend {
        Resend::Safe | Resend::Billed => true,
        Resend::Unsafe => failure.never_sent() || turned_away && failure.has_error_body(),
    }
}
