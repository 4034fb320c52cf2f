//! The errors of the limiter. Each says what happened, what it was measured against, and what to do: in one message for
//! operators, and in one for callers, which does not name the project. Both are written when they are read.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use super::{
    Amount, NAME,
    account::{Account, DIMENSIONS},
    blocks::Shut,
    queue::ScopeQueue,
};
use crate::{
    context::{BoxError, Claimant, Error, GaveUp, RetryAdvice},
    failure::{Failure, Kind, Reader, Words},
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
    let state = queue.read(now, |account, waiting| ScopeState::of(account, waiting, now));
    let (allowed, cure) = match allowed {
        Allowed::Deadline(remaining) => (remaining, "its deadline comes before; allow it more time"),
        Allowed::MaxWait(allowed) if needed > LONG => (allowed, "use another model"),
        Allowed::MaxWait(allowed) if state.keeps_pace() => (allowed, "raise max_wait or the pacing's burst"),
        Allowed::MaxWait(allowed) => (allowed, "raise max_wait"),
    };
    let words = for_both(queue.scope(), move |f, scope| {
        write!(f, "waited 0 s of {needed:.1?} needed, ")?;
        // A limit of zero has no unit that anybody would read.
        match allowed {
            Duration::ZERO => f.write_str("and nobody waits")?,
            allowed => write!(f, "{allowed:.1?} are allowed")?,
        }
        write!(f, ": {state} for {scope}; {cure}, or add a project")
    });
    limited(words, needed, may_move, is_final)
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
    let state = queue.read(now, |account, waiting| ScopeState::of(account, waiting, now));
    let words = for_both(queue.scope(), move |f, scope| {
        write!(
            f,
            "waited {waited:.1?} in the queue, {needed:.1?} more are needed: {state} for {scope}; raise max_wait, allow the call \
             more time, or add a project",
        )
    });
    limited(words, needed, may_move, true)
}

/// Returns the refusal of a call whose scope the upstream has blocked: before it has joined the queue, or since.
pub(super) fn blocked(queue: &ScopeQueue, now: Instant, shut: Shut, may_move: bool) -> BoxError {
    let (ends, look) = (shut.ends.saturating_duration_since(now), shut.look_at.saturating_duration_since(now));
    let calls = if shut.grounded { " calls that search the web or maps" } else { "" };
    let whom =
        queue.read(now, |account, _| account.closed_by_others(now)).map_or("", |_| " another who shares the quota,");
    let cure = match (may_move, shut.grounded) {
        (true, _) => "another project may take the call at once",
        (false, true) => "leave the search out, or add a project",
        (false, false) => "use another model, or add a project",
    };
    let words = for_both(queue.scope(), move |f, scope| {
        write!(f, "the upstream has refused{calls}{whom} for another {ends:.1?}")?;
        if look < ends {
            write!(f, ", and is asked again in {look:.1?}")?;
        }
        write!(f, ": {scope}; {cure}")
    });
    // One call may look then, and no other waits for that.
    let mut failure = Failure::in_words(Kind::RateLimited, words).with_hint(look);
    if shut.grounded {
        failure = failure.into_grounded();
    }
    if look < ends {
        failure = failure.into_lasting();
    }
    refusal(failure, may_move, false)
}

/// Returns the refusal of a waiting call whose turn has come, but whose key has been taken out meanwhile.
pub(super) fn choice_lost(queue: &ScopeQueue) -> BoxError {
    let words = for_both(queue.scope(), |f, scope| {
        write!(f, "the key chosen for the call was taken out while it waited: {scope}; another key may take it")
    });
    limited(words, Duration::ZERO, true, false)
}

/// Returns the refusal of a request that is proven to be larger than a whole minute's or day's quota. Another model or
/// project is the caller's decision.
pub(super) fn too_large(scope: &Scope, amount: Amount, dimension: Dimension, limit: u64) -> BoxError {
    let Amount { requests, tokens } = amount;
    let words = for_both(scope, move |f, scope| {
        let cure = match dimension {
            Dimension::InputTokensPerMinute => {
                write!(f, "the request has {tokens} input tokens or more")?;
                "shorten it"
            }
            _ => {
                write!(f, "the batch has {requests} items, which are charged as a request each")?;
                "split the batch"
            }
        };
        write!(
            f,
            ", and the quota is {limit} {dimension} for {scope}: it would never be admitted; {cure}, or use another model or \
             project",
        )
    });
    Error::refusal(NAME, Failure::in_words(Kind::LargerThanQuota, words)).into()
}

/// Returns the refusal of a call that would have to wait for a model whose circuit is open. Another project of the same
/// model does not help.
pub(super) fn gate_closed(scope: &Scope, closed: Duration) -> BoxError {
    let words = for_both(scope, move |f, scope| {
        write!(f, "no room, and the circuit is open for another {closed:.1?}: {scope}; wait, or use another model")
    });
    Error::refusal(NAME, Failure::in_words(Kind::CircuitOpen, words).with_hint(closed)).into()
}

/// Makes the refusal of a call that would have to wait. `is_final`: it may not wait as long as it would have to, here or in
/// a layer outside.
fn limited(words: impl Words + 'static, needed: Duration, may_move: bool, is_final: bool) -> BoxError {
    refusal(Failure::in_words(Kind::RateLimited, words).with_hint(needed), may_move, is_final)
}

fn refusal(failure: Failure, may_move: bool, is_final: bool) -> BoxError {
    let error = Error::refusal(NAME, failure);
    if !may_move && !is_final {
        return error.into();
    }
    let advised = error.map_outcome(|outcome| {
        let outcome = if may_move { outcome.with_retry(RetryAdvice::Now) } else { outcome };
        if is_final { outcome.with_gave_up(GaveUp::Wait) } else { outcome }
    });
    advised.into()
}

/// Makes words that name the whole scope for operators, and for callers not its project.
fn for_both<W>(scope: &Scope, write: W) -> impl Words + use<W>
where
    W: Fn(&mut fmt::Formatter<'_>, &dyn fmt::Display) -> fmt::Result + Send + Sync,
{
    let scope = scope.clone();
    move |f: &mut fmt::Formatter<'_>, reader: Reader| match reader {
        Reader::Operator => write(f, &scope),
        Reader::Caller => write(f, &format_args!("model {}", scope.model())),
    }
}

/// The state of a scope at the time of a refusal. It is shown in words.
#[derive(Clone, Copy)]
struct ScopeState {
    /// The usage of each limit that there is, and that limit.
    used: [Option<(u64, u64)>; 3],
    /// The dimension that others have used up, if it is known, and for how long.
    used_up: Option<(Option<Dimension>, Duration)>,
    /// The time for which the upstream has refused the scope, and whether another has told so.
    refused: Option<(Duration, bool)>,
    interval: Option<Duration>,
    waiting: usize,
}

impl ScopeState {
    fn of(account: &Account, waiting: usize, now: Instant) -> Self {
        let by_others = account.closed_by_others(now);
        Self {
            used: DIMENSIONS
                .map(|dimension| account.limit(dimension, now).map(|limit| (account.used(dimension), limit))),
            used_up: account.used_up(now).map(|(dimension, until)| (dimension, until - now)),
            refused: by_others.or_else(|| account.blocked_until(now)).map(|until| (until - now, by_others.is_some())),
            interval: account.interval(now),
            waiting,
        }
    }

    /// Returns whether every dimension has room, so that only the pace makes a call wait.
    fn keeps_pace(&self) -> bool {
        let has_room = self.used.iter().flatten().all(|(used, limit)| used < limit);
        self.interval.is_some() && self.refused.is_none() && has_room
    }
}

impl fmt::Display for ScopeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (used, dimension) in self.used.iter().zip(DIMENSIONS) {
            if let Some((used, limit)) = used {
                write!(f, "{used} of {limit} {dimension} are used, ")?;
            }
        }
        if let Some((dimension, left)) = self.used_up {
            let of = dimension.map_or("quota", Dimension::as_str);
            // All may have used it up, or a store that cannot ask them leaves the rest to them.
            write!(f, "others share the quota, and leave no room in its {of} for another {left:.1?}, ")?;
        }
        if let Some((left, by_others)) = self.refused {
            let whom = if by_others { " another who shares the quota," } else { "" };
            write!(f, "the upstream has refused{whom} for another {left:.1?}, ")?;
        }
        if let Some(interval) = self.interval {
            write!(f, "the pacing is one request in {interval:.1?} after its burst, ")?;
        }
        write!(f, "{} calls wait", self.waiting)
    }
}
