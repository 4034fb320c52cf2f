//! The findings of a call's earlier attempts.

use std::{sync::Arc, time::Duration};

use crate::failure::Kind;

/// The findings of the earlier attempts of a call, for those that follow.
#[derive(Clone, Debug, Default)]
pub(super) struct EarlierAttempts {
    /// Set if one of them has failed in a way that counts against the upstream.
    pub(super) failed: bool,
    /// The number of those that an attempt's clock has ended.
    pub(super) timed_out: u32,
    pub(super) tried: Vec<Tried>,
    pub(super) retried: Option<Retried>,
}

/// A key or project that an attempt has used up for the rest of its call, unless a wait has cured it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tried {
    /// The key of that fingerprint: the upstream has refused it.
    Key(Arc<str>),
    /// That project: it has no quota left for this model, or its keys are refused together.
    Project(Arc<str>),
}

/// The reason for an attempt that is not the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retried {
    /// The kind of failure of the attempt before.
    pub(crate) after: Kind,
    /// The time between that failure and the beginning of this attempt.
    pub(crate) waited: Duration,
}
