//! The errors of the limiter. Each says what happened, what it was measured against, and what to do: in one message for
//! operators, and in one for callers, which does not name the project.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Amount, NAME,
    account::{Account, DIMENSIONS},
    blocks::Shut,
    queue::ScopeQueue,
};
use crate::{
    context::{BoxError, Claimant, Error, GaveUp, RetryAdvice},
    failure::{Failure, Kind},
    quota::{Dimension, Scope},
};

/// The longest wait for which a message advises a higher `max_wait`.
const LONG: Duration = Duration::from_secs(300);

/// The longest wait that a call is allowed, by what sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allowed {
    MaxWait(Duration),
    Deadline(Duration),
}

/// Returns the refusal of a call that would have to wait for longer than it is allowed.
pub(super) fn would_wait(
    queue: &ScopeQueue,
    now: Instant,
    needed: Duration,
    allowed: Allowed,
    may_move: bool,
) -> BoxError {
    // Before a deadline nobody waits outside, either.
    let is_final = matches!(allowed, Allowed::MaxWait(_));
    let (allowed, cure) = match allowed {
        Allowed::Deadline(remaining) => (remaining, "its deadline comes before; allow it more time"),
        Allowed::MaxWait(allowed) if needed > LONG => (allowed, "use another model"),
        Allowed::MaxWait(allowed) if queue.read(now, |account, _| keeps_pace(account, now)) => {
            (allowed, "raise max_wait or the pacing's burst")
        }
        Allowed::MaxWait(allowed) => (allowed, "raise max_wait"),
    };
    // A limit of zero has no unit that anybody would read.
    let limit = if allowed.is_zero() { "and nobody waits".to_owned() } else { format!("{allowed:.1?} are allowed") };
    let state = queue.read(now, |account, waiting| describe(account, waiting, now));
    let messages = for_both(queue.scope(), |scope| {
        format!("waited 0 s of {needed:.1?} needed, {limit}: {state} for {scope}; {cure}, or add a project")
    });
    limited(messages, needed, may_move, is_final)
}

/// Returns the refusal of a call that has waited for as long as it is allowed, and has not been admitted.
pub(super) fn wait_exhausted(
    queue: &ScopeQueue,
    now: Instant,
    waited: Duration,
    at: Option<Instant>,
    claimant: Claimant<'_>,
    may_move: bool,
) -> BoxError {
    let needed = at.map_or_else(|| queue.headroom(now, Amount { requests: 1, tokens: 0 }, claimant), |at| at - now);
    let state = queue.read(now, |account, waiting| describe(account, waiting, now));
    let messages = for_both(queue.scope(), |scope| {
        format!(
            "waited {waited:.1?} in the queue, {needed:.1?} more are needed: {state} for {scope}; raise max_wait, allow the call \
             more time, or add a project",
        )
    });
    limited(messages, needed, may_move, true)
}

/// Returns the refusal of a call whose scope the upstream has blocked: before it has joined the queue, or since.
pub(super) fn blocked(queue: &ScopeQueue, now: Instant, shut: Shut, may_move: bool) -> BoxError {
    let (ends, look) = (shut.ends.saturating_duration_since(now), shut.look_at.saturating_duration_since(now));
    let calls = if shut.grounded { " calls that search the web or maps" } else { "" };
    let whom =
        queue.read(now, |account, _| account.closed_by_others(now)).map_or("", |_| " another who shares the quota,");
    let mut message = format!("the upstream has refused{calls}{whom} for another {ends:.1?}");
    if look < ends {
        let _ = write!(message, ", and is asked again in {look:.1?}");
    }
    let cure = match (may_move, shut.grounded) {
        (true, _) => "another project may take the call at once",
        (false, true) => "leave the search out, or add a project",
        (false, false) => "use another model, or add a project",
    };
    let messages = for_both(queue.scope(), |scope| format!("{message}: {scope}; {cure}"));
    // One call may look then, and no other waits for that.
    refusal(messages, look, may_move, |failure| {
        let failure = if shut.grounded { failure.into_grounded() } else { failure };
        if look < ends { failure.into_lasting() } else { failure }
    })
    .into()
}

/// Returns the refusal of a waiting call whose turn has come, but whose key has been taken out meanwhile.
pub(super) fn choice_lost(queue: &ScopeQueue) -> BoxError {
    let event = "the key chosen for the call was taken out while it waited";
    let messages = for_both(queue.scope(), |scope| format!("{event}: {scope}; another key may take it"));
    limited(messages, Duration::ZERO, true, false)
}

/// Returns the refusal of a request that is proven to be larger than a whole minute's or day's quota. Another model or
/// project is the caller's decision.
pub(super) fn too_large(scope: &Scope, amount: Amount, dimension: Dimension, limit: u64) -> BoxError {
    let Amount { requests, tokens } = amount;
    let (has, cure) = match dimension {
        Dimension::InputTokensPerMinute => (format!("request has {tokens} input tokens or more"), "shorten it"),
        _ => (format!("batch has {requests} items, which are charged as a request each"), "split the batch"),
    };
    let messages = for_both(scope, |scope| {
        format!(
            "the {has}, and the quota is {limit} {dimension} for {scope}: it would never be admitted; {cure}, or use another \
             model or project",
        )
    });
    Error::refusal(NAME, told(Kind::LargerThanQuota, messages)).into()
}

/// Returns the refusal of a call that would have to wait for a model whose circuit is open. Another project of the same
/// model does not help.
pub(super) fn gate_closed(scope: &Scope, closed: Duration) -> BoxError {
    let messages = for_both(scope, |scope| {
        format!("no room, and the circuit is open for another {closed:.1?}: {scope}; wait, or use another model")
    });
    Error::refusal(NAME, told(Kind::CircuitOpen, messages).with_hint(closed)).into()
}

/// Writes a message twice: for operators with the whole scope, and for callers without its project.
fn for_both(scope: &Scope, message: impl Fn(&dyn fmt::Display) -> String) -> [String; 2] {
    [message(scope), message(&format_args!("model {}", scope.model()))]
}

/// Makes a failure with both messages.
fn told(kind: Kind, [message, for_callers]: [String; 2]) -> Failure {
    Failure::local(kind, message).with_caller_message(for_callers)
}

/// Makes the refusal. Its messages are one for operators, and one for callers. `is_final`: the call may not wait as long as it would have to, here or in a layer outside.
fn limited(messages: [String; 2], needed: Duration, may_move: bool, is_final: bool) -> BoxError {
    let error = refusal(messages, needed, may_move, |failure| failure);
    if is_final { error.map_outcome(|outcome| outcome.with_gave_up(GaveUp::Wait)).into() } else { error.into() }
}

fn refusal(messages: [String; 2], needed: Duration, may_move: bool, mark: impl FnOnce(Failure) -> Failure) -> Error {
    let error = Error::refusal(NAME, mark(told(Kind::RateLimited, messages).with_hint(needed)));
    if may_move { error.map_outcome(|outcome| outcome.with_retry(RetryAdvice::Now)) } else { error }
}

/// Describes a scope's state in words.
fn describe(account: &Account, waiting: usize, now: Instant) -> String {
    let mut text = String::new();
    for dimension in DIMENSIONS {
        if let Some(limit) = account.limit(dimension, now) {
            let _ = write!(text, "{} of {limit} {dimension} are used, ", account.used(dimension));
        }
    }
    if let Some((dimension, until)) = account.used_up(now) {
        let of = dimension.map_or("", Dimension::as_str);
        let (of, left) = (if of.is_empty() { "quota" } else { of }, until - now);
        // All may have used it up, or a store that cannot ask them leaves the rest to them.
        let _ = write!(text, "others share the quota, and leave no room in its {of} for another {left:.1?}, ");
    }
    if let Some(until) = account.closed_by_others(now) {
        let _ =
            write!(text, "the upstream has refused another who shares the quota, for another {:.1?}, ", until - now);
    } else if let Some(until) = account.blocked_until(now) {
        let _ = write!(text, "the upstream has refused for another {:.1?}, ", until - now);
    }
    if let Some(interval) = account.interval(now) {
        let _ = write!(text, "the pacing is one request in {interval:.1?} after its burst, ");
    }
    let _ = write!(text, "{waiting} calls wait");
    text
}

/// Returns whether every dimension has room, so that only the pace makes a call wait.
fn keeps_pace(account: &Account, now: Instant) -> bool {
    let has_room =
        |dimension: Dimension| account.limit(dimension, now).is_none_or(|limit| account.used(dimension) < limit);
    account.interval(now).is_some() && account.blocked_until(now).is_none() && DIMENSIONS.into_iter().all(has_room)
}
