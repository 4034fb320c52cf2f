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

    /// Returns what was counted before.
    fn known(&self) -> Option<TokenCost>;
}

impl TokenCount {
    pub(crate) fn cost(&self) -> TokenCost {
        match self {
            Self::Known(cost) => *cost,
            Self::Later(count) => count.cost(),
        }
    }

    pub(crate) fn known(&self) -> Option<TokenCost> {
        match self {
            Self::Known(cost) => Some(*cost),
            Self::Later(count) => count.known(),
        }
    }
}
