//! What the breaker says when it refuses: why it is open, in numbers, and what to do.

use super::{NAME, Reason, Target};
use crate::{
    context::{BoxError, Error},
    failure::{Failure, Kind},
};

/// It has opened by itself.
pub(super) fn open(scope: &Target, reason: Reason) -> Failure {
    let message = format!("the circuit is open, nothing was sent: {reason}, {scope}; wait, or ask another model");
    Failure::local(Kind::CircuitOpen, message)
}

/// Somebody has opened it.
pub(super) fn forced(scope: &Target) -> Failure {
    let message = format!("the circuit is held open until it is reset, nothing was sent: {scope}; ask another model");
    Failure::local(Kind::CircuitOpen, message)
}

/// The one allocation of a refusal.
pub(super) fn error(failure: Failure) -> BoxError {
    Error::refusal(NAME, failure).into()
}

/// A future was polled after it had been ready: a mistake of whoever polls.
pub(super) fn polled_again() -> BoxError {
    "the circuit breaker's future was polled after it had been ready".into()
}
