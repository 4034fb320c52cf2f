//! Bodies that the rooms share: one whose beginning was read and put back, a request body that can be sent twice, one
//! with a guard that lives to its end, a read into memory with a cap, and the delivery of a stream's last words.

mod capped;
pub(crate) mod delivery;
mod guarded;
mod prefixed;
mod replay;

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
