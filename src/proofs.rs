//! What `tests/loom/run` proves. Exists under `cfg(gemini_loom)` only, and is no part of the API.
//!
//! A proof lives beside the state that it is about, where it can see the inside; here they are only listed.

/// A sentence, and a program that panics if it is not true.
pub type Proof = (&'static str, fn());

/// All of them.
pub fn all() -> impl Iterator<Item = Proof> {
    crate::rate_limit::PROOFS.iter().chain(crate::circuit_breaker::PROOFS).copied()
}
