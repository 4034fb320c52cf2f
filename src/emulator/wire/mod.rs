//! The HTTP shapes of the API: requests parsed, answers and errors written. Nothing here knows what the emulator does
//! with them.

pub(super) mod answer;
pub(super) mod credentials;
pub(super) mod cut;
pub(super) mod embedding;
pub(super) mod errors;
pub(super) mod files;
pub(super) mod files_call;
pub(super) mod gemini;
pub(super) mod json;
pub(super) mod lists;
pub(super) mod openai;
pub(super) mod page;
pub(super) mod path;
pub(super) mod prompt;
pub(super) mod quota_names;
pub(super) mod request;
