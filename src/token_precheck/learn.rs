//! Learning from answers: the factor by which estimates are off, and the input limit that the upstream really applies.

use std::sync::{Arc, OnceLock};

use http::Response;

use super::{later::CountedCost, settings::Settings};
use crate::{
    context::{BoxError, Outcome},
    failure::{Failure, Kind},
};

/// The beginnings of the upstream's refusals that name a limit. Other refusals repeat text of the caller's (names of
/// fields, MIME types), and one caller's text must not become the limit of all.
const NAMES_A_LIMIT: [&str; 2] = ["the input token count", "unable to submit request because the input token count"];

/// A call whose answer is awaited.
#[derive(Debug)]
pub(super) struct Learner {
    settings: Arc<Settings>,
    model: Arc<str>,
    taught: Taught,
}

/// The estimate that an answer puts to the test.
#[derive(Debug)]
pub(super) enum Taught {
    Nothing,
    Estimate(u64),
    /// That of a cost which is computed when somebody asks. The learner lives until the answer, and must not hold the body
    /// for that long.
    Later(Arc<OnceLock<CountedCost>>),
}

impl Taught {
    fn estimate(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Estimate(estimate) => Some(*estimate),
            // A cost for which nobody has asked was not estimated.
            Self::Later(cost) => cost.get()?.taught,
        }
    }
}

impl Learner {
    pub(super) fn new(settings: Arc<Settings>, model: Arc<str>, taught: Taught) -> Self {
        Self { settings, model, taught }
    }

    /// Learns from the call's result.
    pub(super) fn learn<R>(self, result: &Result<Response<R>, BoxError>) {
        match result {
            Ok(response) => {
                let Some(outcome) = response.extensions().get::<Outcome>() else { return };
                match (outcome.failure(), outcome.usage()) {
                    (Some(failure), _) => self.learn_limit(failure),
                    (None, Some(usage)) => {
                        if let Some(estimate) = self.taught.estimate() {
                            self.settings.calibration.expect(&self.model, estimate, usage.clone());
                        }
                    }
                    (None, None) => {}
                }
            }
            Err(error) => {
                if let Some(failure) = Outcome::of_error(error).failure() {
                    self.learn_limit(failure);
                }
            }
        }
    }

    fn learn_limit(&self, failure: &Failure) {
        // A failure without an upstream status is a refusal of this crate, which teaches nothing.
        if failure.kind() == Kind::ContextTooLong
            && failure.status().is_some()
            && names_a_limit(failure.message())
            && let Some(limit) = failure.token_limit()
        {
            self.settings.models.learn_input_limit(&self.model, limit);
        }
    }
}

fn names_a_limit(message: &str) -> bool {
    let begins =
        |words: &&str| message.get(..words.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(words));
    NAMES_A_LIMIT.iter().any(begins)
}
