//! The cost of a request whose length alone shows that it fits: it is computed when somebody asks for it.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::{question::Question, settings::Settings};
use crate::{context::CountLater, quota::TokenCost};

/// The cost of a request, computed once, when it is asked for first.
pub(super) struct LaterCost {
    settings: Arc<Settings>,
    question: Question,
    known: OnceLock<CountedCost>,
}

struct CountedCost {
    cost: TokenCost,
    taught: Option<u64>,
}

impl LaterCost {
    pub(super) fn new(settings: Arc<Settings>, question: Question) -> Self {
        Self { settings, question, known: OnceLock::new() }
    }

    /// Returns the estimate that the call's answer puts to the test. A cost for which nobody has asked was not estimated.
    pub(super) fn taught(&self) -> Option<u64> {
        self.known.get()?.taught
    }
}

impl CountLater for LaterCost {
    fn cost(&self) -> TokenCost {
        let count = || {
            let count = self.question.count_inline(&self.settings);
            let cost = self.question.cost(&self.settings, count);
            CountedCost { cost, taught: self.question.taught(cost, count) }
        };
        self.known.get_or_init(count).cost
    }

    fn known(&self) -> Option<TokenCost> {
        self.known.get().map(|known| known.cost)
    }
}

impl fmt::Debug for LaterCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The question is left out, because it has the body in it.
        f.debug_struct("LaterCost").field("known", &self.known()).finish_non_exhaustive()
    }
}
