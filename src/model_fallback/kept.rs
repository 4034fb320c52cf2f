//! The failure that goes back if no model answers.

use http::Response;

use crate::context::BoxError;

/// A failure as it came, and the number of its model. Its body, where it has one, is an error that has been read
/// already.
pub(super) struct KeptFailure<R> {
    pub(super) at: usize,
    pub(super) result: Result<Response<R>, BoxError>,
    worth: Worth,
}

/// The value of a failure to the caller, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// A model that the caller did not ask for does not take the request.
    Unsuited,
    /// A model that the caller did not ask for has failed.
    Other,
    /// The model that was asked for has failed.
    Asked,
}

/// Keeps the first failure of the highest worth.
pub(super) fn keep<R>(
    kept: &mut Option<Box<KeptFailure<R>>>,
    at: usize,
    result: Result<Response<R>, BoxError>,
    worth: Worth,
) {
    if kept.as_ref().is_none_or(|kept| kept.worth < worth) {
        *kept = Some(Box::new(KeptFailure { at, result, worth }));
    }
}
