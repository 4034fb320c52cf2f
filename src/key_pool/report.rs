//! The reports of a pool on its keys.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use super::Fingerprint;
use crate::failure::Kind;

/// The state of one key at the time of the report. Times are those left, or those passed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyReport {
    /// The part of the key that may be shown.
    pub fingerprint: Fingerprint,
    /// The name that it was given.
    pub name: Option<Arc<str>>,
    /// The project whose quota it uses.
    pub project: Arc<str>,
    /// Its share of the load, relative to other keys.
    pub weight: NonZeroU32,
    /// Its state. Out of quota means for at least one model: see `models`. A key whose project rests for grounded calls
    /// only is active: others are served.
    pub state: KeyState,
    /// The models that its project currently has no quota for, by name; of one model, what concerns all of its calls
    /// goes before what concerns grounded ones.
    pub models: Vec<KeyModelReport>,
    /// The rest of its whole project, which has spent what it may: nothing that costs money is sent there.
    pub spending: Option<KeySpendingReport>,
    /// The refusals of the key in a row, since the last answer. At 3 the key is disabled.
    pub strikes: u32,
    /// A flag: an answer has come with the key since it was added or enabled.
    pub proven: bool,
    /// The number of calls that were sent with it.
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
    /// The part of the project that rests.
    pub part: Part,
    /// The kind of the refusal that is believed.
    pub reason: Kind,
    /// The time until one call may look whether it still holds; until the end, where that is sooner.
    pub look: Duration,
}

/// The rest of a project that has spent what it may.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySpendingReport {
    /// [`Cooling`](KeyState::Cooling) or [`Exhausted`](KeyState::Exhausted). No upstream says when such a rest ends.
    pub state: KeyState,
    /// The kind of the refusal that is believed.
    pub reason: Kind,
    /// The time until one call may look whether it still holds.
    pub look: Duration,
}

/// The part of a project that a refusal is about, and that rests for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The quota of a model.
    Model,
    /// The quota of a model's calls that search the web or maps. Its other calls are served.
    Grounded,
    /// A model that is closed for the project.
    Closed,
    /// All that costs money, whatever the model.
    Spending,
}

impl Part {
    pub(super) const ALL: [Self; 4] = [Self::Model, Self::Grounded, Self::Closed, Self::Spending];

    /// Returns the name in reports: `model`, `grounded_calls`, `closed_model`, `spending`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Grounded => "grounded_calls",
            Self::Closed => "closed_model",
            Self::Spending => "spending",
        }
    }
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// The key serves calls.
    Active,
    /// The upstream has refused a call for a minute's quota, or for one that it did not name.
    Cooling {
        /// The time until the project is asked again.
        left: Duration,
    },
    /// The day's quota is used up or zero, the model is closed for the project, or the project cannot pay.
    Exhausted {
        /// The time until it is believed to be back: until midnight Pacific, or as long as the upstream says. One call may
        /// look before.
        left: Duration,
    },
    /// The key serves no calls.
    Disabled {
        /// The reason.
        reason: DisabledReason,
        /// The time that has passed since then.
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

/// The reason for which a key is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisabledReason {
    /// [`KeyPool::disable`](super::KeyPool::disable) was called. The key is not checked again.
    ByHand,
    /// The upstream has refused the key, with a failure of this kind.
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
