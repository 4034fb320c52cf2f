//! The errors of the limiter. Each says what happened, what it was measured against, and what to do.

use std::{fmt::Write as _, time::Duration};

use tokio::time::Instant;

use super::{
    NAME,
    account::{Account, DIMENSIONS},
    blocks::Shut,
    queue::ScopeQueue,
};
use crate::{
    context::{BoxError, Error, RetryAdvice},
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
    let (allowed, cure) = match allowed {
        Allowed::Deadline(remaining) => (remaining, "its deadline comes before; allow it more time"),
        Allowed::MaxWait(allowed) if needed > LONG => (allowed, "use another model"),
        Allowed::MaxWait(allowed) if queue.read(now, |account, _| keeps_pace(account, now)) => {
            (allowed, "raise max_wait or the pacing's burst")
        }
        Allowed::MaxWait(allowed) => (allowed, "raise max_wait"),
    };
    let message = format!(
        "waited 0 s of {needed:.1?} needed, {allowed:.1?} are allowed: {} for {}; {cure}, or add a project",
        queue.read(now, |account, waiting| describe(account, waiting, now)),
        queue.scope(),
    );
    limited(message, needed, may_move)
}

/// Returns the refusal of a call that has waited for as long as it is allowed, and has not been admitted.
pub(super) fn wait_exhausted(
    queue: &ScopeQueue,
    now: Instant,
    waited: Duration,
    at: Option<Instant>,
    may_move: bool,
) -> BoxError {
    let needed = at.map_or_else(|| queue.headroom(now, super::Amount { requests: 1, tokens: 0 }), |at| at - now);
    let message = format!(
        "waited {waited:.1?} in the queue, {needed:.1?} more are needed: {} for {}; raise max_wait, allow the call more time, \
         or add a project",
        queue.read(now, |account, waiting| describe(account, waiting, now)),
        queue.scope(),
    );
    limited(message, needed, may_move)
}

/// Returns the refusal of a call whose scope the upstream has blocked: before it has joined the queue, or since.
pub(super) fn blocked(queue: &ScopeQueue, now: Instant, shut: Shut, may_move: bool) -> BoxError {
    let (ends, look) = (shut.ends.saturating_duration_since(now), shut.look_at.saturating_duration_since(now));
    let calls = if shut.grounded { " calls that search the web or maps" } else { "" };
    let mut message = format!("the upstream has refused{calls} for another {ends:.1?}");
    if look < ends {
        let _ = write!(message, ", and is asked again in {look:.1?}");
    }
    let _ = write!(message, ": {}; ", queue.scope());
    message.push_str(match (may_move, shut.grounded) {
        (true, _) => "another project may take the call at once",
        (false, true) => "leave the search out, or add a project",
        (false, false) => "use another model, or add a project",
    });
    // One call may look then, and no other waits for that.
    refusal(message, look, may_move, |failure| {
        let failure = if shut.grounded { failure.into_grounded() } else { failure };
        if look < ends { failure.into_lasting() } else { failure }
    })
}

/// Returns the refusal of a waiting call whose turn has come, but whose key has been taken out meanwhile.
pub(super) fn choice_lost(queue: &ScopeQueue) -> BoxError {
    let message = format!(
        "the key chosen for the call was taken out while it waited: {}; another key may take it",
        queue.scope()
    );
    limited(message, Duration::ZERO, true)
}

/// Returns the refusal of a request that is proven to be larger than a whole minute's quota. Another model or project
/// is the caller's decision.
pub(super) fn too_large(scope: &Scope, tokens: u64, limit: u64) -> BoxError {
    let message = format!(
        "the request has {tokens} input tokens or more, and the quota is {limit} {} for {scope}: it would never be \
         admitted; shorten it, or use another model or project",
        Dimension::InputTokensPerMinute,
    );
    Error::refusal(NAME, Failure::local(Kind::LargerThanQuota, message)).into()
}

/// Returns the refusal of a call that would have to wait for a model whose circuit is open. Another project of the same
/// model does not help.
pub(super) fn gate_closed(scope: &Scope, closed: Duration) -> BoxError {
    let message =
        format!("no room, and the circuit is open for another {closed:.1?}: {scope}; wait, or use another model");
    Error::refusal(NAME, Failure::local(Kind::CircuitOpen, message).with_hint(closed)).into()
}

fn limited(message: String, needed: Duration, may_move: bool) -> BoxError {
    refusal(message, needed, may_move, |failure| failure)
}

fn refusal(message: String, needed: Duration, may_move: bool, mark: impl FnOnce(Failure) -> Failure) -> BoxError {
    let error = Error::refusal(NAME, mark(Failure::local(Kind::RateLimited, message).with_hint(needed)));
    if may_move { error.map_outcome(|outcome| outcome.with_retry(RetryAdvice::Now)).into() } else { error.into() }
}

/// Describes a scope's state in words.
fn describe(account: &Account, waiting: usize, now: Instant) -> String {
    let mut text = String::new();
    for dimension in DIMENSIONS {
        if let Some(limit) = account.limit(dimension, now) {
            let _ = write!(text, "{} of {limit} {dimension} are used, ", account.used(dimension));
        }
    }
    if let Some(until) = account.blocked_until(now) {
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
