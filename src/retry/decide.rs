//! The decision after a failure: whether to send the request again, and after how long. Pure: it is told all that it
//! needs.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::policy::{Cause, OnOpen, RetryPolicy};
use crate::{
    call::Idempotency,
    context::{Deadline, GaveUp, Retried, RetryAdvice, Tried},
    failure::{Failure, Fault, Kind},
};

/// The jitter that spreads the calls that wait for the same hint, in seconds.
const HINT_JITTER: f64 = 0.5;

/// The shortest wait for a refusal of a layer inside, so that two layers that disagree cannot spin.
const MIN_REFUSAL_WAIT: Duration = Duration::from_millis(10);

/// The longest wait in all for refusals, and for tokens of the budget, if no deadline is set: the default of the total
/// time-out.
const MAX_REFUSAL_WAIT: Duration = Duration::from_secs(285);

/// The time before the deadline at which a wait for a token ends at the latest, so that the caller gets the upstream's
/// failure before the total clock's.
const MARGIN: Duration = Duration::from_millis(100);

/// The history of a call.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The attempts of the call, at all models.
    attempts: u32,
    /// The attempts at this model.
    here: u32,
    /// The refusals by layers inside.
    refusals: u32,
    /// Set once the one attempt that is not counted was made.
    free_used: bool,
    /// Set once a failure counted against the upstream.
    upstream_failed: bool,
    /// The failures by cause. A list, because a call meets few causes.
    causes: Vec<(Cause, u32)>,
    /// The kind of the last failure, and when it happened.
    failed: Option<(Kind, Instant)>,
    /// The rest, in a box because few calls have any of it.
    rare: Option<Box<RareHistory>>,
}

/// The part of a call's history that few calls have.
#[derive(Debug, Default)]
struct RareHistory {
    /// The waits for refusals in all.
    refusal_wait: Duration,
    /// The waits for tokens of the budget in all.
    token_wait: Duration,
    last_500: Option<Failure>,
    /// The keys and projects that attempts have used up for the rest of the call.
    tried: Vec<Tried>,
}

/// The state of a call on which the decision depends, besides the failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub(super) idempotency: Idempotency,
    /// Set if any error answer shows that nothing was made.
    pub(super) repeatable_on_error: bool,
    /// Set if the request was sent.
    pub(super) sent: bool,
    pub(super) models_left: u32,
    /// The time left until the deadline.
    pub(super) remaining: Option<Duration>,
    /// The time of the quickest of this model's last answers, where that is known.
    pub(super) quick: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// The failure goes back: for this reason, or because no attempt could change it.
    GiveUp(Option<GaveUp>),
    /// The failure goes back, because the wait for a further attempt, which a layer or the upstream has asked for, would
    /// pass the deadline.
    TooLate(Duration),
    /// The request is sent again after `wait`. If that spends budget, it waits for its token then.
    Again { wait: Duration, spends_budget: bool },
}

impl History {
    pub(super) fn new(attempts_before: u32) -> Self {
        Self { attempts: attempts_before, ..Self::default() }
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns whether this is the first attempt, and nothing was refused before it.
    pub(super) fn is_first(&self) -> bool {
        self.here <= 1 && !self.free_used && self.refusals == 0
    }

    pub(super) fn attempt_begins(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        self.here = self.here.saturating_add(1);
    }

    /// Returns whether an attempt has failed in a way that counts against the upstream.
    pub(super) fn upstream_has_failed(&self) -> bool {
        self.upstream_failed
    }

    /// Returns the number of attempts that a clock has ended.
    pub(super) fn timed_out(&self) -> u32 {
        self.causes.iter().find(|(cause, _)| *cause == Cause::Timeout).map_or(0, |(_, attempts)| *attempts)
    }

    /// Takes back an attempt that was never sent.
    fn uncount_attempt(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.here = self.here.saturating_sub(1);
    }

    /// Returns the keys and projects that attempts have used up.
    pub(super) fn tried(&self) -> &[Tried] {
        self.rare.as_ref().map_or(&[], |rare| &rare.tried)
    }

    /// Notes a key or project that an attempt has used up.
    pub(super) fn note_tried(&mut self, tried: &Tried) {
        let all = &mut self.rare.get_or_insert_default().tried;
        if !all.contains(tried) {
            all.push(tried.clone());
        }
    }

    /// Returns the time at which a token of the budget can no longer help, at `now`.
    pub(super) fn give_up_at(&self, now: Instant, deadline: Option<Deadline>, quick: Option<Duration>) -> Instant {
        match deadline {
            Some(deadline) => {
                let needed = quick.unwrap_or_default().max(MARGIN);
                now + deadline.remaining(now).saturating_sub(needed)
            }
            None => {
                let waited = self.rare.as_ref().map_or(Duration::ZERO, |rare| rare.token_wait);
                now + MAX_REFUSAL_WAIT.saturating_sub(waited)
            }
        }
    }

    /// Notes a wait for a token of the budget.
    pub(super) fn note_token_wait(&mut self, waited: Duration) {
        let all = &mut self.rare.get_or_insert_default().token_wait;
        *all = all.saturating_add(waited);
    }

    /// Notes the failure after which a further attempt will be made.
    pub(super) fn note_failed(&mut self, kind: Kind, now: Instant) {
        self.failed = Some((kind, now));
    }

    /// Returns why there is a further attempt.
    pub(super) fn retried(&self, now: Instant) -> Option<Retried> {
        self.failed.map(|(after, at)| Retried { after, waited: now.saturating_duration_since(at) })
    }

    /// Counts a failure, and returns how many of its cause there have been.
    fn count(&mut self, cause: Cause) -> u32 {
        let at = self.causes.iter().position(|(known, _)| *known == cause).unwrap_or_else(|| {
            self.causes.push((cause, 0));
            self.causes.len() - 1
        });
        self.causes[at].1 += 1;
        self.causes[at].1
    }

    /// Marks a 500 that came twice for the same request: the content may be its cause.
    pub(super) fn suspect_content(&mut self, failure: &mut Failure) {
        if failure.kind() != Kind::ServerError {
            return;
        }
        let last = &mut self.rare.get_or_insert_default().last_500;
        if last.as_ref().is_some_and(|last| last.same_as(failure)) {
            failure.mark_content_suspected();
        }
        *last = Some(failure.clone());
    }
}

/// Decides after a failure. `roll` is a random number from 0 to 1.
pub(super) fn decide(
    policy: &RetryPolicy,
    history: &mut History,
    failure: &Failure,
    advice: Option<RetryAdvice>,
    situation: Situation,
    roll: f64,
) -> Decision {
    history.upstream_failed |= failure.counts_against_upstream();
    if failure.fault() == Fault::Local && !situation.sent {
        return refused(policy, history, failure, advice, situation);
    }
    if advice == Some(RetryAdvice::Never) || !may_resend(failure, situation) {
        return Decision::GiveUp(None);
    }
    let cause = Cause::of(failure);
    if cause == Cause::NotSent && policy.max_attempts > 1 && !std::mem::replace(&mut history.free_used, true) {
        history.uncount_attempt();
        return at_once(situation);
    }
    let nth = history.count(cause);
    // A layer that has refused permanently will refuse again.
    let hopeless = failure.fault() == Fault::Local
        || matches!(failure.kind(), Kind::QuotaDay | Kind::QuotaZero | Kind::ModelClosed | Kind::ContentBlocked);
    let curable = advice.is_some() || !hopeless && (failure.same_key_may_help() || policy.is_explicit(cause));
    let reserved = situation.models_left.saturating_mul(2);
    if history.attempts >= policy.max_attempts.saturating_sub(reserved).max(1) {
        return Decision::GiveUp(curable.then_some(GaveUp::Attempts));
    }
    match advice {
        Some(RetryAdvice::Now | RetryAdvice::Queued) => return at_once(situation),
        // The layer that gives the advice knows more than the table; but no call sleeps until midnight for it.
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
    // A wait for one's own quota puts no load on an upstream that is down.
    let spends_budget = !(failure.fault() == Fault::Quota && hint.is_some());
    match within(situation, wait, spends_budget) {
        // A backoff is a roll of dice: nobody is told of it as the time that is needed.
        Decision::TooLate(_) if hint.is_none() => Decision::GiveUp(Some(GaveUp::Wait)),
        decision => decision,
    }
}

/// Decides after a refusal by a layer inside: nothing was sent, and no attempt was made.
fn refused(
    policy: &RetryPolicy,
    history: &mut History,
    failure: &Failure,
    advice: Option<RetryAdvice>,
    situation: Situation,
) -> Decision {
    history.uncount_attempt();
    // A layer that has refused permanently will refuse again; and another model's circuit may be closed.
    let elsewhere = failure.kind() == Kind::CircuitOpen && situation.models_left > 0;
    if !failure.kind().is_refused_for_now() || elsewhere {
        return Decision::GiveUp(None);
    }
    history.refusals = history.refusals.saturating_add(1);
    if matches!(advice, Some(RetryAdvice::Now | RetryAdvice::Queued)) && history.refusals < policy.max_attempts {
        return at_once(situation);
    }
    // The hint is the time at which one call may look; the quota itself will hardly be back by then.
    if failure.is_lasting() && !matches!(advice, Some(RetryAdvice::After(_))) {
        return Decision::GiveUp(Some(GaveUp::Wait));
    }
    let hint = match advice {
        Some(RetryAdvice::Never) => None,
        Some(RetryAdvice::After(wait)) => Some(wait),
        _ => failure.hint().map(|hint| hint.delay()),
    };
    let is_circuit = failure.kind() == Kind::CircuitOpen;
    let waits = if is_circuit { policy.on_open == OnOpen::Wait } else { policy.ever_resends() };
    let Some(wait) = hint.filter(|_| waits) else { return Decision::GiveUp(None) };
    let wait = wait.max(MIN_REFUSAL_WAIT);
    // The quota that a limiter or a pool waits for is the upstream's: its time is a hint like the upstream's own.
    if !is_circuit && wait > policy.max_hint {
        return Decision::TooLate(wait);
    }
    let waited = &mut history.rare.get_or_insert_default().refusal_wait;
    *waited = waited.saturating_add(wait);
    if situation.remaining.is_none() && *waited > MAX_REFUSAL_WAIT {
        return Decision::TooLate(wait);
    }
    within(situation, wait, false)
}

/// Decides to send again after `wait`, unless that would pass the deadline, or leave less time than the model has lately
/// needed at the least.
fn within(situation: Situation, wait: Duration, spends_budget: bool) -> Decision {
    match situation.remaining {
        Some(remaining) if wait >= remaining || is_too_short(remaining - wait, situation.quick) => {
            Decision::TooLate(wait)
        }
        _ => Decision::Again { wait, spends_budget },
    }
}

/// Decides to send again at once, unless less time is left than the model has lately needed at the least.
fn at_once(situation: Situation) -> Decision {
    match situation.remaining {
        Some(remaining) if is_too_short(remaining, situation.quick) => Decision::GiveUp(Some(GaveUp::Wait)),
        _ => Decision::Again { wait: Duration::ZERO, spends_budget: false },
    }
}

/// Returns whether an attempt that has so much time left can hardly be answered: it would cost quota, and the upstream's
/// work, for nobody.
fn is_too_short(left: Duration, quick: Option<Duration>) -> bool {
    quick.is_some_and(|quick| left < quick)
}

/// Returns whether this kind of call can be sent again without doing something twice.
fn may_resend(failure: &Failure, situation: Situation) -> bool {
    // A refusal of the key or for quota came before anything was made.
    let turned_away = matches!(failure.code(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        || matches!(failure.fault(), Fault::Key | Fault::Quota)
        || situation.repeatable_on_error;
    match situation.idempotency {
        Idempotency::Safe | Idempotency::Billed => true,
        Idempotency::Unsafe => failure.never_sent() || turned_away && failure.has_error_body(),
    }
}

/// Returns whether another attempt follows where a clock ends the present one, as far as that is known before.
pub(super) fn repeats_timeouts(policy: &RetryPolicy, history: &History, models_left: u32) -> bool {
    let reserved = models_left.saturating_mul(2);
    let rule = policy.rule(Cause::Timeout);
    history.attempts < policy.max_attempts.saturating_sub(reserved)
        && history.timed_out() + 1 < rule.attempts_here(models_left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{failure::TimeoutKind, retry::Rule};

    const KINDS: [Kind; 31] = [
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
        Kind::ModelClosed,
        Kind::BillingRequired,
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

    fn advice() -> impl Strategy<Value = Option<RetryAdvice>> {
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
            failures in proptest::collection::vec((failures(), advice(), 0.0f64..1.0), 1..80),
            idempotency in idempotencies(),
            repeatable_on_error in any::<bool>(),
            models_left in 0u32..5,
            before in 0u32..6,
            deadline in proptest::option::of(0u64..400_000),
            quick in proptest::option::of(0u64..60_000),
        ) {
            let [deadline, quick] = [deadline, quick].map(|millis| millis.map(Duration::from_millis));
            let mut history = History::new(before);
            let mut now = Duration::ZERO;
            let (mut sent, mut at_once, mut refusal_wait) = (0u32, 0u32, Duration::ZERO);
            history.attempt_begins();
            for (failure, advice, roll) in failures {
                let remaining = deadline.map(|deadline| deadline.saturating_sub(now));
                let refused = failure.fault() == Fault::Local;
                let situation =
                    Situation { idempotency, repeatable_on_error, sent: !refused, models_left, remaining, quick };
                let is_circuit = failure.kind() == Kind::CircuitOpen;
                let free = failure.kind() == Kind::NotSent && !history.free_used;
                sent += u32::from(!refused);
                let decision = decide(&policy, &mut history, &failure, advice, situation, roll);
                prop_assert_eq!(history.attempts(), before + sent - u32::from(history.free_used));
                let Decision::Again { wait, spends_budget } = decision else {
                    if let Decision::TooLate(wait) = decision {
                        let asked = if refused { !is_circuit } else { advice == Some(RetryAdvice::After(wait)) };
                        let too_long = asked && wait > policy.max_hint;
                        let needed = wait.saturating_add(quick.unwrap_or_default());
                        prop_assert!(too_long || remaining.is_none_or(|left| wait >= left || needed > left));
                        let in_all = refusal_wait.saturating_add(wait);
                        prop_assert!(too_long || remaining.is_some() || in_all > MAX_REFUSAL_WAIT);
                    }
                    break;
                };
                // No advice and no row may override these.
                prop_assert!(advice != Some(RetryAdvice::Never));
                prop_assert!(policy.max_attempts > 1 || refused);
                prop_assert!(policy.ever_resends());
                // No sleep that cannot end in time.
                prop_assert!(wait.is_zero() || remaining.is_none_or(|remaining| wait < remaining), "{wait:?}");
                // No attempt that can hardly be answered in time.
                let left = remaining.map(|remaining| remaining.saturating_sub(wait));
                prop_assert!(left.zip(quick).is_none_or(|(left, quick)| left >= quick));
                // Never twice what must not happen twice.
                let before = matches!(failure.fault(), Fault::Key | Fault::Quota);
                let before = before || repeatable_on_error;
                let turned_away = failure.has_error_body() && (before || matches!(failure.code().as_u16(), 429 | 503));
                prop_assert!(idempotency != Idempotency::Unsafe || failure.never_sent() || turned_away || refused);
                if refused {
                    prop_assert!(failure.kind().is_refused_for_now());
                    prop_assert!(failure.kind() != Kind::CircuitOpen || models_left == 0);
                    prop_assert!(!spends_budget, "nothing was sent");
                    match advice {
                        Some(RetryAdvice::Now | RetryAdvice::Queued) => {
                            at_once += u32::from(wait.is_zero());
                            prop_assert!(at_once < policy.max_attempts);
                        }
                        _ if is_circuit => prop_assert!(wait >= MIN_REFUSAL_WAIT && policy.on_open == OnOpen::Wait),
                        // A quota is waited for whatever holds for open circuits.
                        _ => prop_assert!(wait >= MIN_REFUSAL_WAIT && wait <= policy.max_hint),
                    }
                    refusal_wait = refusal_wait.saturating_add(wait);
                    prop_assert!(deadline.is_some() || refusal_wait <= MAX_REFUSAL_WAIT);
                } else if free {
                    prop_assert_eq!((wait, spends_budget), (Duration::ZERO, false));
                } else {
                    // Never more than allowed, and two are kept for each other model.
                    prop_assert!(history.attempts() < policy.max_attempts);
                    prop_assert!(history.attempts() + 2 * models_left < policy.max_attempts || models_left == 0);
                    match advice {
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
                        Some(RetryAdvice::After(advised)) => {
                            prop_assert_eq!(wait, advised);
                            prop_assert!(advised <= policy.max_hint);
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
        fn more_room_is_never_less(failure in failures(), advice in advice(), roll in 0.0f64..1.0, remaining in 0u64..100_000) {
            let policy = RetryPolicy::default();
            let decide = |idempotency, models_left, remaining| {
                let mut history = History::new(0);
                history.attempt_begins();
                let sent = failure.fault() != Fault::Local;
                let situation = Situation { idempotency, repeatable_on_error: false, sent, models_left, remaining, quick: None };
                decide(&policy, &mut history, &failure, advice, situation, roll)
            };
            let goes_on = |decision| matches!(decision, Decision::Again { .. });
            let short = Some(Duration::from_millis(remaining));
            prop_assert!(!goes_on(decide(Idempotency::Unsafe, 0, short)) || goes_on(decide(Idempotency::Safe, 0, short)));
            prop_assert!(!goes_on(decide(Idempotency::Safe, 3, short)) || goes_on(decide(Idempotency::Safe, 0, short)));
            prop_assert!(!goes_on(decide(Idempotency::Safe, 0, short)) || goes_on(decide(Idempotency::Safe, 0, None)));
            prop_assert_eq!(decide(Idempotency::Safe, 0, None), decide(Idempotency::Billed, 0, None));
        }
    }

    #[test]
    fn a_token_is_awaited_as_long_as_it_can_help() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut history = History::new(0);
        let at = |history: &History, left: u32, quick: Option<Duration>| {
            history.give_up_at(now, Some(Deadline::at(now + second * left)), quick) - now
        };
        assert_eq!(at(&history, 60, None), second * 60 - MARGIN);
        assert_eq!(at(&history, 60, Some(second * 5)), second * 55);
        assert_eq!(at(&history, 60, Some(Duration::ZERO)), second * 60 - MARGIN);
        assert_eq!(at(&history, 3, Some(second * 5)), Duration::ZERO);
        // Without a deadline all such waits together are bounded.
        assert_eq!(history.give_up_at(now, None, Some(second)), now + MAX_REFUSAL_WAIT);
        history.note_token_wait(second * 200);
        assert_eq!(history.give_up_at(now, None, None), now + second * 85);
        history.note_token_wait(second * 200);
        assert_eq!(history.give_up_at(now, None, None), now);
    }
}
