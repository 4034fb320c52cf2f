//! The decision after a failure: again or not, and after how long. Pure: it is told everything it has to know.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::policy::{Cause, OnOpen, RetryPolicy};
use crate::{
    call::Idempotency,
    context::{GaveUp, Retried, RetryAdvice, Tried},
    failure::{Failure, Fault, Kind},
};

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
    /// Whether any of them counted against the upstream.
    upstream_failed: bool,
    /// Refusals by layers inside.
    refusals: u32,
    refusal_wait: Duration,
    last_500: Option<Failure>,
    /// What attempts have used up for the rest of the call.
    tried: Vec<Tried>,
    /// What the last attempt has failed of, and when.
    failed: Option<(Kind, Instant)>,
}

/// What the decision depends on besides the failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub(super) idempotency: Idempotency,
    /// Whether the upstream was asked at all.
    pub(super) sent: bool,
    pub(super) models_left: u32,
    /// What is left until the deadline.
    pub(super) remaining: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// The failure goes back: for that reason, or because nothing would change.
    GiveUp(Option<GaveUp>),
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

    /// Whether an attempt has failed in a way that counts against the upstream.
    pub(super) fn upstream_has_failed(&self) -> bool {
        self.upstream_failed
    }

    fn attempt_never_was(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.here = self.here.saturating_sub(1);
    }

    /// What attempts have used up so far.
    pub(super) fn tried(&self) -> &[Tried] {
        &self.tried
    }

    /// Notes what an attempt has used up.
    pub(super) fn note_tried(&mut self, tried: &Tried) {
        if !self.tried.contains(tried) {
            self.tried.push(tried.clone());
        }
    }

    /// Notes what an attempt has failed of, after which another will be made.
    pub(super) fn note_failed(&mut self, kind: Kind, now: Instant) {
        self.failed = Some((kind, now));
    }

    /// Why there is another attempt.
    pub(super) fn retried(&self, now: Instant) -> Option<Retried> {
        self.failed.map(|(after, at)| Retried { after, waited: now.saturating_duration_since(at) })
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
    said: Option<RetryAdvice>,
    situation: Situation,
    roll: f64,
) -> Decision {
    history.upstream_failed |= failure.counts_against_upstream();
    if failure.fault() == Fault::Local && !situation.sent {
        return refused(policy, history, failure, said, situation);
    }
    if said == Some(RetryAdvice::Never) || !may_resend(failure, situation.idempotency) {
        return Decision::GiveUp(None);
    }
    let cause = Cause::of(failure);
    if cause == Cause::NotSent && policy.max_attempts > 1 && !std::mem::replace(&mut history.free_used, true) {
        history.attempt_never_was();
        return Decision::Again { wait: Duration::ZERO, spends_budget: false };
    }
    let nth = history.count(cause);
    // What a layer here has refused for good, it will refuse again.
    let hopeless = failure.fault() == Fault::Local
        || matches!(failure.kind(), Kind::QuotaDay | Kind::QuotaZero | Kind::ContentBlocked);
    let curable = said.is_some() || !hopeless && (failure.same_key_may_help() || policy.is_explicit(cause));
    let reserved = situation.models_left.saturating_mul(2);
    if history.attempts >= policy.max_attempts.saturating_sub(reserved).max(1) {
        return Decision::GiveUp(curable.then_some(GaveUp::Attempts));
    }
    match said {
        Some(RetryAdvice::Now | RetryAdvice::Queued) => {
            return Decision::Again { wait: Duration::ZERO, spends_budget: false };
        }
        // Whoever says so knows better than the table, but nobody sleeps until midnight for it.
        Some(RetryAdvice::After(wait)) if wait > policy.max_hint => return Decision::TooLate(wait),
        Some(RetryAdvice::After(wait)) => return within(situation, wait, failure.counts_against_upstream()),
        Some(RetryAdvice::Never) | None => {}
    }
    if !curable {
        return Decision::GiveUp(None);
    }
    let rule = policy.rule(cause);
    if nth >= rule.attempts_here(situation.models_left) {
        return Decision::GiveUp(Some(GaveUp::Attempts));
    }
    let backoff = rule.ceiling(nth).mul_f64(roll);
    if failure.hint().is_some_and(|hint| hint.delay() > policy.max_hint) {
        return Decision::GiveUp(Some(GaveUp::Wait));
    }
    let jitter = Duration::from_secs_f64(HINT_JITTER * roll);
    let hint = failure.hint().map(|hint| hint.sufficient().saturating_add(jitter));
    let wait = hint.map_or(backoff, |hint| hint.max(backoff));
    // Waiting for one's own quota takes nothing from an upstream that is down.
    let spends_budget = !(failure.fault() == Fault::Quota && hint.is_some());
    within(situation, wait, spends_budget)
}

/// A layer inside refused: nothing was sent, and no attempt was made.
fn refused(
    policy: &RetryPolicy,
    history: &mut History,
    failure: &Failure,
    said: Option<RetryAdvice>,
    situation: Situation,
) -> Decision {
    history.attempt_never_was();
    // What a layer has refused for good, it will refuse again; and another model's circuit may be closed.
    let elsewhere = failure.kind() == Kind::CircuitOpen && situation.models_left > 0;
    if !failure.kind().is_refused_for_now() || elsewhere {
        return Decision::GiveUp(None);
    }
    history.refusals = history.refusals.saturating_add(1);
    if matches!(said, Some(RetryAdvice::Now | RetryAdvice::Queued)) && history.refusals < policy.max_attempts {
        return Decision::Again { wait: Duration::ZERO, spends_budget: false };
    }
    let hint = match said {
        Some(RetryAdvice::Never) => None,
        Some(RetryAdvice::After(wait)) => Some(wait),
        _ => failure.hint().map(|hint| hint.delay()),
    };
    let Some(wait) = hint.filter(|_| policy.on_open == OnOpen::Wait) else { return Decision::GiveUp(None) };
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
fn may_resend(failure: &Failure, idempotency: Idempotency) -> bool {
    let turned_away = matches!(failure.code(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    match idempotency {
        Idempotency::Safe | Idempotency::Billed => true,
        Idempotency::Unsafe => failure.never_sent() || turned_away && failure.has_error_body(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{failure::TimeoutKind, retry::Rule};

    const KINDS: [Kind; 29] = [
        Kind::KeysExhausted,
        Kind::KeysDisabled,
        Kind::Overloaded,
        Kind::Capacity,
        Kind::ServerError,
        Kind::BadGateway,
        Kind::Unavailable,
        Kind::DeadlineExceeded,
        Kind::Cancelled,
        Kind::EmptyResponse,
        Kind::EmptyMalformedFunctionCall,
        Kind::QuotaMinute,
        Kind::QuotaUnknown,
        Kind::QuotaDay,
        Kind::QuotaZero,
        Kind::Connect,
        Kind::NotSent,
        Kind::Reset,
        Kind::Transport,
        Kind::Timeout(TimeoutKind::Attempt),
        Kind::Timeout(TimeoutKind::FirstContent),
        Kind::InvalidRequest,
        Kind::ContentBlocked,
        Kind::ModelNotFound,
        Kind::AuthKeyInvalid,
        Kind::Timeout(TimeoutKind::Total),
        Kind::CircuitOpen,
        Kind::RateLimited,
        Kind::BadRequest,
    ];

    fn failures() -> impl Strategy<Value = Failure> {
        let hint = prop_oneof![
            3 => Just(None),
            3 => (0u64..700_000).prop_map(|ms| Some(Duration::from_millis(ms))),
            1 => Just(Some(Duration::MAX)),
        ];
        (0..KINDS.len(), hint).prop_map(|(kind, hint)| {
            let failure = Failure::local(KINDS[kind], "");
            hint.map_or(failure.clone(), |hint| failure.with_hint(hint))
        })
    }

    fn said() -> impl Strategy<Value = Option<RetryAdvice>> {
        prop_oneof![
            12 => Just(None),
            1 => Just(Some(RetryAdvice::Now)),
            1 => Just(Some(RetryAdvice::Queued)),
            1 => Just(Some(RetryAdvice::Never)),
            1 => (0u64..400_000).prop_map(|ms| Some(RetryAdvice::After(Duration::from_millis(ms)))),
        ]
    }

    fn idempotencies() -> impl Strategy<Value = Idempotency> {
        prop_oneof![Just(Idempotency::Safe), Just(Idempotency::Billed), Just(Idempotency::Unsafe)]
    }

    fn policies() -> impl Strategy<Value = RetryPolicy> {
        let base = prop_oneof![
            4 => Just(RetryPolicy::default()),
            1 => Just(RetryPolicy::persistent()),
            1 => Just(RetryPolicy::never()),
            1 => Just(RetryPolicy::default().on_open(OnOpen::Fail)),
            1 => Just(RetryPolicy::default().max_hint(Duration::MAX)),
        ];
        (base, proptest::option::of((0u32..12, 0u32..6))).prop_map(|(policy, set)| match set {
            Some((max, rule)) => policy.max_attempts(max).on(StatusCode::NOT_FOUND, Rule::attempts(rule)),
            None => policy,
        })
    }

    proptest! {
        /// A call as the future leads it, with time as a number: whatever is decided, the promises of the table hold.
        #[test]
        fn a_call_keeps_the_promises_of_the_table(
            policy in policies(),
            failures in proptest::collection::vec((failures(), said(), 0.0f64..1.0), 1..80),
            idempotency in idempotencies(),
            models_left in 0u32..5,
            before in 0u32..6,
            deadline in proptest::option::of(0u64..400_000),
        ) {
            let deadline = deadline.map(Duration::from_millis);
            let mut history = History::new(before);
            let mut now = Duration::ZERO;
            let (mut sent, mut at_once, mut refusal_wait) = (0u32, 0u32, Duration::ZERO);
            history.attempt_begins();
            for (failure, said, roll) in failures {
                let remaining = deadline.map(|deadline| deadline.saturating_sub(now));
                let refused = failure.fault() == Fault::Local;
                let situation = Situation { idempotency, sent: !refused, models_left, remaining };
                let free = failure.kind() == Kind::NotSent && !history.free_used;
                sent += u32::from(!refused);
                let decision = decide(&policy, &mut history, &failure, said, situation, roll);
                prop_assert_eq!(history.attempts(), before + sent - u32::from(history.free_used));
                let Decision::Again { wait, spends_budget } = decision else {
                    if let Decision::TooLate(wait) = decision {
                        let too_long = said == Some(RetryAdvice::After(wait)) && wait > policy.max_hint && !refused;
                        prop_assert!(too_long || remaining.is_none_or(|remaining| wait >= remaining));
                        let in_all = refusal_wait.saturating_add(wait);
                        prop_assert!(too_long || remaining.is_some() || in_all > MAX_REFUSAL_WAIT);
                    }
                    break;
                };
                // Nobody may say otherwise.
                prop_assert!(said != Some(RetryAdvice::Never));
                prop_assert!(policy.max_attempts > 1 || refused);
                prop_assert!(policy.ever_resends());
                // No sleep that cannot end in time.
                prop_assert!(wait.is_zero() || remaining.is_none_or(|remaining| wait < remaining), "{wait:?}");
                // Never twice what must not happen twice.
                let turned_away = failure.has_error_body() && matches!(failure.code().as_u16(), 429 | 503);
                prop_assert!(idempotency != Idempotency::Unsafe || failure.never_sent() || turned_away || refused);
                if refused {
                    prop_assert!(failure.kind().is_refused_for_now());
                    prop_assert!(failure.kind() != Kind::CircuitOpen || models_left == 0);
                    prop_assert!(!spends_budget, "nothing was sent");
                    match said {
                        Some(RetryAdvice::Now | RetryAdvice::Queued) => {
                            at_once += u32::from(wait.is_zero());
                            prop_assert!(at_once < policy.max_attempts);
                        }
                        _ => prop_assert!(wait >= MIN_REFUSAL_WAIT && policy.on_open == OnOpen::Wait),
                    }
                    refusal_wait = refusal_wait.saturating_add(wait);
                    prop_assert!(deadline.is_some() || refusal_wait <= MAX_REFUSAL_WAIT);
                } else if free {
                    prop_assert_eq!((wait, spends_budget), (Duration::ZERO, false));
                } else {
                    // Never more than allowed, and two are kept for each other model.
                    prop_assert!(history.attempts() < policy.max_attempts);
                    prop_assert!(history.attempts() + 2 * models_left < policy.max_attempts || models_left == 0);
                    match said {
                        None => {
                            prop_assert!(failure.same_key_may_help() || failure.kind() == Kind::ModelNotFound);
                            let nth = history.causes.iter().find(|(cause, _)| *cause == Cause::of(&failure)).unwrap().1;
                            let rule = policy.rule(Cause::of(&failure));
                            prop_assert!(nth < rule.attempts_here(models_left));
                            let longest = rule.ceiling(nth).max(failure.hint().map_or(Duration::ZERO, |hint| hint.delay()));
                            let spread = Duration::from_millis(500);
                            prop_assert!(wait <= longest.saturating_add(spread), "{wait:?}");
                            let hint = failure.hint().map_or(Duration::ZERO, |hint| hint.delay());
                            prop_assert!(wait >= hint && hint <= policy.max_hint);
                            // The budget, but for one's own quota.
                            let own = failure.fault() == Fault::Quota && failure.hint().is_some();
                            prop_assert_eq!(spends_budget, !own);
                        }
                        Some(RetryAdvice::After(said)) => {
                            prop_assert_eq!(wait, said);
                            prop_assert!(said <= policy.max_hint);
                        }
                        Some(_) => prop_assert_eq!((wait, spends_budget), (Duration::ZERO, false)),
                    }
                }
                now = now.saturating_add(wait);
                history.attempt_begins();
            }
        }

        /// More time, more attempts, a friendlier kind of call: never a reason to give up earlier.
        #[test]
        fn more_room_is_never_less(failure in failures(), said in said(), roll in 0.0f64..1.0, remaining in 0u64..100_000) {
            let policy = RetryPolicy::default();
            let decide = |idempotency, models_left, remaining| {
                let mut history = History::new(0);
                history.attempt_begins();
                let sent = failure.fault() != Fault::Local;
                let situation = Situation { idempotency, sent, models_left, remaining };
                decide(&policy, &mut history, &failure, said, situation, roll)
            };
            let goes_on = |decision| matches!(decision, Decision::Again { .. });
            let short = Some(Duration::from_millis(remaining));
            prop_assert!(!goes_on(decide(Idempotency::Unsafe, 0, short)) || goes_on(decide(Idempotency::Safe, 0, short)));
            prop_assert!(!goes_on(decide(Idempotency::Safe, 3, short)) || goes_on(decide(Idempotency::Safe, 0, short)));
            prop_assert!(!goes_on(decide(Idempotency::Safe, 0, short)) || goes_on(decide(Idempotency::Safe, 0, None)));
            prop_assert_eq!(decide(Idempotency::Safe, 0, None), decide(Idempotency::Billed, 0, None));
        }
    }
}
