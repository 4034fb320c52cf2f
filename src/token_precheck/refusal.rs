//! The errors of this room.

use crate::{
    context::{BoxError, Error},
    failure::Failure,
};

/// Wraps a failure of a request that was not sent.
pub(super) fn refusal(failure: Failure) -> BoxError {
    Error::refusal(super::NAME, failure).map_outcome(|outcome| outcome.with_sent(false)).into()
}

/// A future was polled after it had been ready: a mistake of whoever polls.
pub(super) fn polled_again() -> BoxError {
    "the token check's future was polled after it had been ready".into()
}
