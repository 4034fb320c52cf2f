//! The failure that goes back if nobody answers.

use http::Response;

use crate::context::BoxError;

/// A failure as it came, and which model it is of. Its body, where it has one, is an error that has been read already.
pub(super) struct Kept<R> {
    pub(super) at: usize,
    pub(super) result: Result<Response<R>, BoxError>,
    worth: Worth,
}

/// How much a failure tells the caller, from the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// A model that nobody asked for does not take the request.
    NotForIt,
    /// A model that nobody asked for has failed.
    Other,
    /// The model that was asked for has failed.
    Asked,
}

/// Keeps the first of those that tell the most.
pub(super) fn keep<R>(kept: &mut Option<Kept<R>>, at: usize, result: Result<Response<R>, BoxError>, worth: Worth) {
    if kept.as_ref().is_none_or(|kept| kept.worth < worth) {
        *kept = Some(Kept { at, result, worth });
    }
}
