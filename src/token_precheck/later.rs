//! The cost of a request whose length alone shows that it fits: it is computed when somebody asks for it.

use std::{
    fmt,
    sync::{Arc, OnceLock, atomic::Ordering},
};

use super::{question::Question, settings::Settings};
use crate::{context::CountLater, quota::TokenCost};

/// The cost of a request, computed once, when it is asked for first.
pub(super) struct LaterCost {
    settings: Arc<Settings>,
    question: Question,
    known: Arc<OnceLock<CountedCost>>,
}

/// A cost that was computed, and the estimate that the call's answer puts to the test, if the cost is one.
#[derive(Debug)]
pub(super) struct CountedCost {
    cost: TokenCost,
    pub(super) taught: Option<u64>,
}

impl LaterCost {
    pub(super) fn new(settings: Arc<Settings>, question: Question) -> Self {
        Self { settings, question, known: Arc::default() }
    }

    /// Returns the cell in which the cost will be. It holds nothing of the request.
    pub(super) fn cell(&self) -> Arc<OnceLock<CountedCost>> {
        self.known.clone()
    }
}

impl CountLater for LaterCost {
    fn cost(&self) -> TokenCost {
        let count = || {
            self.settings.asked.store(true, Ordering::Relaxed);
            let count = self.question.count_inline(&self.settings);
            let cost = self.question.cost(&self.settings, count);
            CountedCost { cost, taught: self.question.taught(cost, count) }
        };
        self.known.get_or_init(count).cost
    }

    fn guess(&self) -> TokenCost {
        self.known.get().map_or_else(|| self.question.guess(&self.settings), |known| known.cost)
    }
}

impl fmt::Debug for LaterCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The question is left out, because it has the body in it.
        f.debug_struct("LaterCost").field("known", &self.known.get()).finish_non_exhaustive()
    }
}
