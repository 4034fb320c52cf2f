//! The scanners of an answer: of its JSON, and of the events that carry it in a stream.
//!
//! Both are pushed: they take the bytes of a body as they pass, cut anywhere, and neither copy nor delay them. They
//! know the syntax and the names of the members that matter, and leave it to `classify` to judge what they found.

mod ends;
mod findings;
pub(crate) mod media;
mod members;
pub(crate) mod repeat;
pub(crate) mod scan;
pub(crate) mod sse;
mod tokens;

pub(crate) use self::{
    findings::{ErrorFound, Findings},
    tokens::{Modalities, TokenSide},
};
