//! The part of a call that decides on its turn in a queue, and the source of waiting times.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::ConfigError;
use crate::quota::Scope;

/// The part of a call that decides on its turn, where calls have to wait for one.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Claimant<'a> {
    /// The caller, between whom turns are fair; `None`: all calls without one are those of one caller.
    pub caller: Option<&'a Arc<str>>,
    /// The priority.
    pub priority: Priority,
    /// The time by which the answer has to be there.
    pub deadline: Option<Instant>,
}

/// A source of waiting times: the limiter.
///
/// The key pool asks it before it chooses a project, so that a call goes where it waits least.
pub trait Headroom: fmt::Debug + Send + Sync {
    /// Returns the time for which a call that is charged `requests` requests and `tokens` input tokens would wait for its
    /// turn in that scope, the part of the queue included that goes before the claimant. Zero: it would go at once.
    fn headroom(&self, scope: &Scope, requests: u32, tokens: u64, claimant: Claimant<'_>) -> Duration;

    /// Returns whether the wait in that scope may depend on the input tokens. Where it does not, they may be guessed.
    /// Default: it may.
    fn depends_on_tokens(&self, scope: &Scope) -> bool {
        let _ = scope;
        true
    }
}

/// The priority of a call where calls have to wait for their turn: the more urgent goes first, and who waits for long
/// becomes more urgent, so that nobody waits forever.
///
/// ```
/// use tower_gemini::context::Priority;
///
/// assert!(Priority::Interactive < Priority::Batch, "the more urgent is the lesser");
/// assert_eq!("batch".parse::<Priority>().unwrap(), Priority::Batch);
/// assert_eq!(Priority::default().as_str(), "normal");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// A person waits for the answer.
    Interactive,
    /// A call of no special kind. The default.
    #[default]
    Normal,
    /// Work that may take its time.
    Batch,
}

impl Priority {
    /// Returns the name in settings and logs: `interactive`, `normal` or `batch`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Batch => "batch",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        [Self::Interactive, Self::Normal, Self::Batch]
            .into_iter()
            .find(|priority| priority.as_str() == name)
            .ok_or_else(|| ConfigError::new(format!("{name:?} is no priority; it is interactive, normal or batch")))
    }
}
