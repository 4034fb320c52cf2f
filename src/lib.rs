//! Composable tower layers for HTTP services that talk to the Gemini API.

pub mod body;
pub mod call;
pub mod classify;
pub mod clock;
pub mod context;
pub mod error;
pub mod failure;
mod macros;
pub mod quota;
mod ready;
mod redact;
pub mod status;

pub use crate::{
    context::{Context, Outcome},
    error::{BoxError, Error},
};
