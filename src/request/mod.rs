//! The scanner of a request's body: one pass that finds the texts that count, the media, and what a check has to judge.
//!
//! It stands on the ground floor because two modules need it: `tokenizer`, which counts the texts, and
//! `token_precheck`, which judges what stands beside them.

mod malformed;
pub(crate) mod media;
pub(crate) mod scan;

#[cfg(fuzzing)]
pub(crate) use self::scan::fuzzing;
