//! The list of what `tests/loom/run` proves. It exists under `cfg(gemini_loom)` only, and is not part of the API.
//!
//! A proof stands beside the state that it is about, where it can see the inside; here they are only listed.

/// A sentence, and a program that panics if it is not true.
pub type Proof = (&'static str, fn());

/// Returns all proofs.
pub fn all() -> impl Iterator<Item = Proof> {
    let rooms = [crate::rate_limit::PROOFS, crate::circuit_breaker::PROOFS, crate::retry::PROOFS];
    rooms.into_iter().flatten().copied()
}
