//! The guides: longer texts, whose examples compile.

#[doc = include_str!("ordering.md")]
pub mod ordering {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("streaming.md")]
pub mod streaming {}

/// The README's examples, run with the other doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub mod readme {}
