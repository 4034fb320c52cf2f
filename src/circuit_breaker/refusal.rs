//! The errors of the breaker. Each says why it is open, in numbers, and what to do.

use super::{NAME, Reason, Target};
use crate::{
    context::{BoxError, Error},
    failure::{Failure, Kind},
};

/// Returns the refusal of a call by a breaker that has opened by itself.
pub(super) fn open(scope: &Target, reason: Reason) -> Failure {
    let message = format!("the circuit is open, nothing was sent: {reason}, {scope}; wait, or use another model");
    Failure::local(Kind::CircuitOpen, message)
}

/// Returns the refusal of a call by a breaker that the program holds open.
pub(super) fn forced(scope: &Target) -> Failure {
    let message = format!("the circuit is held open until it is reset, nothing was sent: {scope}; use another model");
    Failure::local(Kind::CircuitOpen, message)
}

/// Boxes a failure as the layer's error: the one allocation of a refusal.
pub(super) fn error(failure: Failure) -> BoxError {
    Error::refusal(NAME, failure).into()
}
