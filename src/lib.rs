//! Composable tower layers for HTTP services that talk to the Gemini API.

pub mod failure;
pub mod status;
