//! The scanner of a request's body: one pass that finds the texts that count, the media, and what a check has to judge.
//! And the threads on which large bodies are read.
//!
//! It stands on the ground floor because several modules need it: `tokenizer`, which counts the texts, `token_precheck`,
//! which judges what stands beside them, and `replay`, which reads what the call is.

mod malformed;
pub(crate) mod media;
pub(crate) mod readers;
pub(crate) mod scan;

#[cfg(fuzzing)]
pub(crate) use self::scan::fuzzing;
