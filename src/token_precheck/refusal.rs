//! The errors of this room.

use crate::{
    context::{self, BoxError, Error},
    failure::Failure,
};

/// Wraps a failure of a request that was not sent.
pub(super) fn refusal(failure: Failure) -> BoxError {
    Error::refusal(super::NAME, failure).map_outcome(|outcome| outcome.with_sent(false)).into()
}

/// Returns the error of a future that was polled again after it had been ready.
pub(super) fn polled_again() -> BoxError {
    context::polled_again(super::NAME)
}
