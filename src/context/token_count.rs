//! The number of a request's input tokens, which may be counted when somebody asks for it.

use std::{fmt, sync::Arc};

use crate::quota::TokenCost;

/// The number of a request's input tokens.
#[derive(Clone, Debug)]
pub(crate) enum TokenCount {
    Known(TokenCost),
    /// It is counted when it is asked for.
    Later(Arc<dyn CountLater>),
}

/// A count that is made once, when it is asked for first.
pub(crate) trait CountLater: fmt::Debug + Send + Sync {
    /// Counts, or returns what was counted before.
    fn cost(&self) -> TokenCost;

    /// Returns what was counted before, or a guess for which the body is not read.
    fn guess(&self) -> TokenCost;
}

impl TokenCount {
    pub(crate) fn cost(&self) -> TokenCost {
        match self {
            Self::Known(cost) => *cost,
            Self::Later(count) => count.cost(),
        }
    }

    /// Returns the number if something depends on it, else a guess where it was not counted yet.
    pub(crate) fn cost_if(&self, matters: impl FnOnce() -> bool) -> TokenCost {
        match self {
            Self::Known(cost) => *cost,
            Self::Later(count) if matters() => count.cost(),
            Self::Later(count) => count.guess(),
        }
    }
}
