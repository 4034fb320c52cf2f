//! Bodies that the rooms share: one whose beginning was read and put back, a request body that can be sent twice, the
//! request that is kept for it, a body with a guard that lives to its end, a read into memory with a cap, and the delivery
//! of a stream's last words.

mod capped;
pub(crate) mod delivery;
mod guarded;
mod kept;
mod prefixed;
mod replay;

pub(crate) use capped::{CappedRead, Extent};
pub(crate) use {
    kept::KeptRequest,
    prefixed::Prefix,
    replay::{in_memory, too_large},
};

pub use {
    guarded::GuardedBody,
    prefixed::PrefixedBody,
    replay::{ReplayBody, Resend},
};
