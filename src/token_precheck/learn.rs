//! What an answer teaches: how far the estimate was off, and the limit that is really served.

use std::sync::Arc;

use http::Response;

use super::layer::Settings;
use crate::{
    context::{BoxError, Outcome},
    failure::{Failure, Kind},
};

/// How the upstream begins when it names a limit. Other refusals repeat what the caller wrote (names of fields, MIME types),
/// and what one caller writes must not become the limit of all.
const NAMES_A_LIMIT: [&str; 2] = ["the input token count", "unable to submit request because the input token count"];

/// A call under way.
#[derive(Debug)]
pub(super) struct Watch {
    settings: Arc<Settings>,
    model: Arc<str>,
    estimate: Option<u64>,
}

impl Watch {
    pub(super) fn new(settings: Arc<Settings>, model: Arc<str>, estimate: Option<u64>) -> Self {
        Self { settings, model, estimate }
    }

    /// It has come back.
    pub(super) fn learn<R>(self, result: &Result<Response<R>, BoxError>) {
        match result {
            Ok(response) => {
                let Some(said) = response.extensions().get::<Outcome>() else { return };
                match (said.failure(), said.usage()) {
                    (Some(failure), _) => self.refused(failure),
                    (None, Some(usage)) => {
                        if let Some(estimate) = self.estimate {
                            self.settings.calibration.expect(&self.model, estimate, usage.clone());
                        }
                    }
                    (None, None) => {}
                }
            }
            Err(error) => {
                if let Some(failure) = Outcome::of_error(error).failure() {
                    self.refused(failure);
                }
            }
        }
    }

    fn refused(&self, failure: &Failure) {
        // A refusal of this crate's own teaches nothing.
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
