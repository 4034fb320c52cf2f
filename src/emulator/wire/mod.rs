//! The HTTP shapes of the API: requests parsed, answers and errors written. Nothing here knows what the emulator does
//! with them.

pub(super) mod answer;
pub(super) mod batch_call;
pub(super) mod batches;
pub(super) mod credentials;
pub(super) mod cut;
pub(super) mod decisions;
pub(super) mod embedding;
mod error_details;
pub(super) mod errors;
pub(super) mod gemini;
pub(super) mod interaction_call;
pub(super) mod interactions;
pub(super) mod json;
pub(super) mod lists;
pub(super) mod openai;
pub(super) mod openai_resources;
pub(super) mod page;
pub(super) mod path;
pub(super) mod prompt;
pub(super) mod quota_names;
pub(super) mod request;
pub(super) mod resource_call;
pub(super) mod resource_path;
pub(super) mod resources;
pub(super) mod tier;
pub(super) mod upload_call;
