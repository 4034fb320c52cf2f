//! What the pool tells of its keys.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use super::Fingerprint;
use crate::failure::Kind;

/// One key, as it stands at the moment of asking. Times are what is left, or what has passed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyReport {
    /// What may be shown of the key.
    pub fingerprint: Fingerprint,
    /// What it was called.
    pub name: Option<Arc<str>>,
    /// Whose quota it uses.
    pub project: Arc<str>,
    /// How much of the load it takes.
    pub weight: NonZeroU32,
    /// How it stands. Out of quota means so for at least one model: see `models`.
    pub state: KeyState,
    /// The models that its project has no quota for just now.
    pub models: Vec<KeyModelReport>,
    /// Refusals of the key in a row, since the last answer. It is disabled at 3.
    pub strikes: u32,
    /// Whether an answer has ever come with it.
    pub proven: bool,
    /// How many calls have been sent with it.
    pub uses: u64,
}

/// A model that a project has no quota for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyModelReport {
    /// The model's name.
    pub model: Arc<str>,
    /// [`Cooling`](KeyState::Cooling) or [`Exhausted`](KeyState::Exhausted).
    pub state: KeyState,
}

/// How a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// It serves.
    Active,
    /// The upstream has refused for a minute's quota, or without saying which.
    Cooling {
        /// Until it may be asked again.
        left: Duration,
    },
    /// The day's quota is used up, or there is none.
    Exhausted {
        /// Until midnight Pacific, or longer where the upstream says so.
        left: Duration,
    },
    /// It serves nobody.
    Disabled {
        /// Why.
        reason: DisabledReason,
        /// For how long it has been so.
        since: Duration,
    },
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: &Duration| time.as_secs_f64().round();
        match self {
            Self::Active => f.write_str("active"),
            Self::Cooling { left } => write!(f, "cooling for another {} s", seconds(left)),
            Self::Exhausted { left } => write!(f, "exhausted for another {} s", seconds(left)),
            Self::Disabled { reason, since } => write!(f, "disabled for {} s: {reason}", seconds(since)),
        }
    }
}

/// Why a key is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisabledReason {
    /// Somebody has said so. Nobody looks whether it is good again.
    ByHand,
    /// The upstream has refused it, in that way.
    Refused(Kind),
}

impl fmt::Display for DisabledReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByHand => f.write_str("by hand"),
            Self::Refused(kind) => fmt::Display::fmt(kind, f),
        }
    }
}
