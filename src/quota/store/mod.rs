//! The seam between a limiter and the place where several limiters count one quota.
//!
//! A store is asked one question for each call, with all dimensions in it, and answers with all or nothing. Several processes
//! that ask the same store share the quota; [`MemoryStore`] is a store for several limiters of one process.
//!
//! A store never fails: one that cannot ask the others answers for its own share, which it knows best itself.

mod memory;
mod shared;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;

pub use self::memory::MemoryStore;
use super::{Dimension, Limits, Scope};

/// A place that counts the quota of projects and models for all who ask it.
///
/// A [`Limiter`](crate::rate_limit::Limiter) asks it for each call that its own account would admit. The limiter's fair turns,
/// paces and beliefs in refusals are its own; the store adds only that all who ask it together stay within the limits.
///
/// Nothing here waits in `poll_ready`, and no method blocks.
pub trait QuotaStore: fmt::Debug + Send + Sync {
    /// Takes the amount in all dimensions, or nothing. A call that is charged and then dropped stays charged unless it is
    /// [corrected](Self::correct); a [`Reply::Later`] that is dropped before its answer takes nothing, or gives it back.
    fn take(&self, scope: &Scope, question: Question) -> Reply;

    /// Corrects a charge that was granted. One whose minute or day is over is ignored.
    fn correct(&self, scope: &Scope, charge: StoreCharge, by: Correction);

    /// Closes a scope for all who ask, because the upstream has refused a call for quota.
    fn close(&self, scope: &Scope, closing: Closing);

    /// Opens a scope that was closed, because the upstream has served a call, or an operator knows that it will.
    fn open(&self, scope: &Scope);
}

/// A question: may a call of this amount go under these limits?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Question {
    /// The requests that it is charged, which are more than one for a batch.
    pub requests: u64,
    /// The input tokens that it is charged.
    pub tokens: u64,
    /// The limits in force for the asker. What is not set is not limited, and counted all the same. No amount is larger than
    /// its limit of a minute.
    pub limits: Limits,
}

impl Question {
    /// Creates a question without limits.
    pub fn new(requests: u64, tokens: u64) -> Self {
        Self { requests, tokens, limits: Limits::new() }
    }

    /// Sets the limits in force.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// The reply to a question.
#[non_exhaustive]
pub enum Reply {
    /// It is known at once.
    Now(Answer),
    /// It is known after a round trip.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// An answer that is awaited.
// A lock that nobody takes: the future need not be `Sync`, and those of this crate are.
pub(crate) struct AwaitedAnswer(Mutex<Pin<Box<dyn Future<Output = Answer> + Send>>>);

impl AwaitedAnswer {
    pub(crate) fn new(answer: Pin<Box<dyn Future<Output = Answer> + Send>>) -> Self {
        Self(Mutex::new(answer))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        self.0.get_mut().as_mut().poll(cx)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(answer) => f.debug_tuple("Now").field(answer).finish(),
            Self::Later(_) => f.debug_tuple("Later").finish_non_exhaustive(),
        }
    }
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The call may go; all of it is charged.
    Granted(Grant),
    /// The amount does not fit, and nothing is charged.
    Full {
        /// The dimension in which it fits last. `None`: in none yet, because the store is learning what was charged before.
        dimension: Option<Dimension>,
        /// The time after which it will fit, if nothing else is charged.
        wait: Duration,
    },
    /// The upstream has refused the scope, and nothing is charged.
    Closed(Closing),
}

/// A grant: the charge that it made, and what is used with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The name of the charge, for [`QuotaStore::correct`].
    pub charge: StoreCharge,
    /// The requests of the last minute, of all who ask.
    pub requests: u64,
    /// The input tokens of the last minute, of all who ask.
    pub tokens: u64,
    /// The requests since midnight Pacific, of all who ask.
    pub today: u64,
    /// True if the call looks for all others whether a closed scope is open again: its success has to
    /// [open](QuotaStore::open) it, a further refusal to [close](QuotaStore::close) it. One that is refunded was no look; one
    /// that shows nothing keeps the others out for half a minute at most.
    pub is_look: bool,
}

impl Grant {
    /// Creates the grant of a charge.
    pub fn new(charge: StoreCharge) -> Self {
        Self { charge, requests: 0, tokens: 0, today: 0, is_look: false }
    }

    /// Says how much is used with it, by all who ask: in the last minute, and today.
    #[must_use]
    pub fn used(mut self, requests: u64, tokens: u64, today: u64) -> Self {
        (self.requests, self.tokens, self.today) = (requests, tokens, today);
        self
    }

    /// Says that the call looks for all others.
    #[must_use]
    pub fn looking(mut self) -> Self {
        self.is_look = true;
        self
    }
}

/// The name of a charge, which means something to its own store only: two numbers of the store's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreCharge(pub u64, pub u64);

/// A correction of a charge: what is given back, or charged after all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Correction {
    /// The requests that are given back.
    pub requests_back: u64,
    /// The tokens that were charged.
    pub tokens_before: u64,
    /// The tokens that are charged instead.
    pub tokens_after: u64,
}

impl Correction {
    /// Gives a whole charge back: its call never reached the upstream, or does not count there.
    pub fn refund(requests: u64, tokens: u64) -> Self {
        Self { requests_back: requests, tokens_before: tokens, tokens_after: 0 }
    }

    /// Corrects the tokens to what the call has really cost.
    pub fn settle(before: u64, after: u64) -> Self {
        Self { requests_back: 0, tokens_before: before, tokens_after: after }
    }
}

/// The time for which a scope is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closing {
    /// The time until one call may look.
    pub look: Duration,
    /// The time until it ends by itself: no less than `look`.
    pub ends: Duration,
}

impl Closing {
    /// Creates a closing of that time, in which nobody looks.
    pub fn of(time: Duration) -> Self {
        Self { look: time, ends: time }
    }

    /// Lets one call look after that time.
    #[must_use]
    pub fn look(mut self, look: Duration) -> Self {
        self.look = look.min(self.ends);
        self
    }
}
