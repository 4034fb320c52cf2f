//! Bodies that the rooms share: a beginning that was read and put back, a request that can be sent twice, a guard that
//! lives to the end, and the one scan of an answer.

mod guarded;
mod prefixed;
mod replay;
pub(crate) mod scan;
pub(crate) mod sse;

pub(crate) use {
    prefixed::Prefix,
    replay::{clone_request, in_memory, too_large},
};

pub use {
    guarded::GuardedBody,
    prefixed::PrefixedBody,
    replay::{ReplayBody, Resend},
};
