//! Bodies that the rooms share: a beginning that was read and put back, a request that can be sent twice, and a guard that
//! lives to the end; and a read that has a cap.

#[allow(dead_code, reason = "the rooms take it up one by one")]
mod capped;
mod guarded;
mod prefixed;
mod replay;

#[allow(unused_imports, reason = "the rooms take it up one by one")]
pub(crate) use capped::{CappedRead, Extent};
pub(crate) use {
    prefixed::Prefix,
    replay::{clone_request, in_memory, too_large},
};

pub use {
    guarded::GuardedBody,
    prefixed::PrefixedBody,
    replay::{ReplayBody, Resend},
};
