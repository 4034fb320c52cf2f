//! The state of a limiter, as [`Limiter::snapshot`](super::Limiter::snapshot) returns it.

use std::{sync::Arc, time::Duration};

use super::blocks::BlockReport;
use crate::{
    context::Priority,
    quota::{Dimension, Scope},
};

/// The state of one scope at a moment, from [`Limiter::snapshot`](super::Limiter::snapshot).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScopeReport {
    /// The project and the model.
    pub scope: Scope,
    /// Requests a minute, input tokens a minute and requests a day, in this order.
    pub dimensions: [DimensionReport; 3],
    /// The time until the upstream's block ends by itself, where there is one; of a short block, until the next look.
    pub blocked_for: Option<Duration>,
    /// The blocks that have not ended, those included whose look is due.
    pub blocks: Vec<BlockReport>,
    /// The quota as all who ask the [store](super::LimiterBuilder::store) use it, where one is set.
    pub shared: Option<SharedReport>,
    /// The number of calls in the queue.
    pub waiting: usize,
    /// The numbers of those whose turn has not come yet: interactive, normal and batch.
    pub waiting_by_priority: [usize; 3],
}

/// The state of a quota that others use through the same store, as this limiter was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedReport {
    /// The usage of all in the order of the dimensions.
    pub used: [u64; 3],
    /// The age of these numbers. `None`: no call was granted yet.
    pub age: Option<Duration>,
    /// The time for which the store has refused a call for want of room.
    pub full_for: Option<Duration>,
    /// The time for which the scope is closed, because the upstream has refused a call of another.
    pub closed_for: Option<Duration>,
}

/// The state of one dimension of a scope at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DimensionReport {
    /// The dimension.
    pub dimension: Dimension,
    /// The usage that currently counts.
    pub used: u64,
    /// The limit in force, if there is one: the configured or the learned one, lowered while others use the same quota.
    pub limit: Option<u64>,
    /// The limit that the upstream has named in a 429, if it has.
    pub learned: Option<u64>,
}

/// The calls of one caller and priority that wait for their turn, from [`Limiter::waiting`](super::Limiter::waiting).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingReport {
    /// The name of the caller, if it has one.
    pub caller: Option<Arc<str>>,
    /// The priority of its calls.
    pub priority: Priority,
    /// The number of calls.
    pub waiting: usize,
}
