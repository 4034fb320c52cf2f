//! Composable tower layers for HTTP services that talk to the Gemini API.

pub mod body;
pub mod call;
pub mod classify;
#[cfg(feature = "client")]
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
pub mod replay;
pub mod retry;
pub mod status;
pub mod timeout;

pub use crate::{
    context::{Context, Outcome},
    error::{BoxError, ConfigError, Error},
};
