//! The reading of a whole body: pure, so that it can be done on any thread.

use bytes::Bytes;
use http::HeaderMap;

use crate::{
    body::Prefix,
    call::{Call, Operation, RequestDetails},
    context::LargeBody,
    request::readers::{INLINE, has_too_many_values},
    resource::{MAX_NAMED, Mentions},
};

/// A body in one piece, and what it says.
pub(super) struct WholeBody {
    pub(super) bytes: Bytes,
    pub(super) trailers: Option<Box<HeaderMap>>,
    pub(super) call: Call,
    /// The facts that only a record of the call names, if it is recorded.
    pub(super) details: Option<RequestDetails>,
    pub(super) large: Option<LargeBody>,
}

impl WholeBody {
    /// Joins the pieces of a body, and reads what it says of the call.
    pub(super) fn read(pieces: Prefix, call: Call, is_recorded: bool) -> Self {
        let (bytes, trailers) = pieces.into_parts();
        let mut details = is_recorded.then(RequestDetails::default);
        // A file is none of the relay's business.
        if call.operation() != Operation::Upload && has_too_many_values(&bytes) {
            return Self { bytes, trailers, call, details, large: Some(LargeBody::Unread) };
        }
        let call = call.read_body_with(&bytes, details.as_mut());
        let large = (bytes.len() > INLINE).then(|| {
            let mentions = Mentions::new(&bytes).take(MAX_NAMED).collect();
            LargeBody::Read { mentions }
        });
        Self { bytes, trailers, call, details, large }
    }
}
