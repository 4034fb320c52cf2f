//! Bodies that the rooms share: a beginning that was read and put back, a request that can be sent twice, and a guard that
//! lives to the end.

mod guarded;
mod prefixed;
mod replay;

pub(crate) use {
    prefixed::Prefix,
    replay::{clone_request, in_memory, too_large},
};

pub use {
    guarded::GuardedBody,
    prefixed::PrefixedBody,
    replay::{ReplayBody, Resend},
};
