//! Composable tower layers for HTTP services that talk to the Gemini API.

pub mod call;
pub mod clock;
pub mod quota;

pub mod body;
