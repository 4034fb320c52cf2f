//! Composable tower layers for HTTP services that talk to the Gemini API.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
pub mod call;
pub mod classify;
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
pub mod clock;
pub mod context;
#[cfg(feature = "emulator")]
#[cfg_attr(docsrs, doc(cfg(feature = "emulator")))]
pub mod emulator;
pub mod error;
pub mod error_response;
pub mod failure;
mod macros;
pub mod quota;
mod ready;
mod redact;
pub mod replay;
pub mod retry;
pub mod status;
pub mod timeout;

pub use crate::{
    classify::ClassifyLayer,
    context::{Context, Outcome},
    error::{BoxError, ConfigError, Error},
    error_response::ErrorResponseLayer,
    replay::ReplayLayer,
    retry::{RetryBudget, RetryLayer, RetryPolicy},
    timeout::TimeoutLayer,
};
