//! What the limiter says when it refuses: what happened, what it was measured against, and what to do.

use std::{fmt::Write as _, time::Duration};

use tokio::time::Instant;

use super::{
    NAME,
    account::{Account, DIMENSIONS},
    queue::ScopeQueue,
};
use crate::{
    context::{BoxError, Error, RetryAdvice},
    failure::{Failure, Kind},
    quota::{Dimension, Scope},
};

/// A wait that no setting makes worthwhile.
const LONG: Duration = Duration::from_secs(300);

/// It may wait for so long, and why not longer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allowed {
    MaxWait(Duration),
    Deadline(Duration),
}

/// It would have to wait for longer than it may.
pub(super) fn would_wait(
    queue: &ScopeQueue,
    now: Instant,
    needed: Duration,
    allowed: Allowed,
    may_move: bool,
) -> BoxError {
    let (allowed, cure) = match allowed {
        Allowed::Deadline(remaining) => (remaining, "its deadline comes before; allow it more time"),
        Allowed::MaxWait(allowed) if needed > LONG => (allowed, "ask another model"),
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

/// It has waited for as long as it may, and still would have to.
pub(super) fn waited_in_vain(
    queue: &ScopeQueue,
    now: Instant,
    waited: Duration,
    at: Option<Instant>,
    may_move: bool,
) -> BoxError {
    let needed = at.map_or_else(|| queue.headroom(now, super::Amount { requests: 1, tokens: 0 }), |at| at - now);
    let message = format!(
        "waited {waited:.1?} for its turn in vain, {needed:.1?} more are needed: {} for {}; raise max_wait, allow it \
         more time, or add a project",
        queue.read(now, |account, waiting| describe(account, waiting, now)),
        queue.scope(),
    );
    limited(message, needed, may_move)
}

/// It waited, and then the upstream refused somebody else.
pub(super) fn sent_away(queue: &ScopeQueue, until: Duration) -> BoxError {
    let message = format!(
        "the upstream has refused for another {until:.1?}: {}; another project may take the call at once",
        queue.scope()
    );
    limited(message, until, true)
}

/// Its turn has come, and the key that was chosen for it has turned out bad meanwhile.
pub(super) fn choice_lost(queue: &ScopeQueue) -> BoxError {
    let message =
        format!("the key that was chosen for it was taken out while it waited: {}; another may take it", queue.scope());
    limited(message, Duration::ZERO, true)
}

/// It is proven to be larger than a whole minute's quota. Going elsewhere is the caller's decision.
pub(super) fn too_large(scope: &Scope, tokens: u64, limit: u64) -> BoxError {
    let message = format!(
        "the request has {tokens} input tokens or more, and the quota is {limit} {} for {scope}: it would never be \
         admitted; shorten it, or ask another model or project",
        Dimension::InputTokensPerMinute,
    );
    Error::refusal(NAME, Failure::local(Kind::LargerThanQuota, message)).into()
}

/// Its turn may come, but nobody is let through there. Another project of the same model is no way around it.
pub(super) fn gate_closed(scope: &Scope, closed: Duration) -> BoxError {
    let message =
        format!("no room, and the circuit is open for another {closed:.1?}: {scope}; wait, or ask another model");
    Error::refusal(NAME, Failure::local(Kind::CircuitOpen, message).with_hint(closed)).into()
}

/// A future was polled after it had been ready: a mistake of whoever polls.
pub(super) fn polled_again() -> BoxError {
    "the rate limiter's future was polled after it had been ready".into()
}

fn limited(message: String, needed: Duration, may_move: bool) -> BoxError {
    let error = Error::refusal(NAME, Failure::local(Kind::RateLimited, message).with_hint(needed));
    if may_move { error.map_outcome(|outcome| outcome.with_retry(RetryAdvice::Now)).into() } else { error.into() }
}

/// A scope's state in words.
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

/// Whether there is room for more, and only the pace has it wait.
fn keeps_pace(account: &Account, now: Instant) -> bool {
    let has_room =
        |dimension: Dimension| account.limit(dimension, now).is_none_or(|limit| account.used(dimension) < limit);
    account.interval(now).is_some() && account.blocked_until(now).is_none() && DIMENSIONS.into_iter().all(has_room)
}
