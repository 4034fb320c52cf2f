//! The models that were known when this crate was built.

use std::sync::Arc;

use super::{Model, Source};

/// The month of the list below.
pub(super) const DATE: &str = "2026-10";

const MILLION: u64 = 1_048_576;

/// The models with their input and output limits in tokens, from Google's model pages. `None` where the page does not
/// confirm one.
const LIMITS: [(&str, Option<u64>, Option<u64>); 20] = [
    ("gemini-3.8-flash", Some(MILLION), Some(65_536)),
    ("gemini-3.7-flash", Some(MILLION), Some(65_536)),
    ("gemini-3.6-flash", None, None),
    ("gemini-3.5-flash", Some(MILLION), Some(65_536)),
    ("gemini-3.5-flash-lite", None, None),
    ("gemini-3.1-pro-preview", Some(MILLION), Some(65_536)),
    ("gemini-3.1-flash-lite", Some(MILLION), Some(65_536)),
    ("gemini-3-flash-preview", Some(MILLION), Some(65_536)),
    ("gemini-3-pro-image", Some(131_072), Some(32_768)),
    ("gemini-2.5-pro", Some(MILLION), Some(65_536)),
    ("gemini-2.5-flash", Some(MILLION), Some(65_536)),
    ("gemini-2.5-flash-lite", Some(MILLION), Some(65_536)),
    ("gemini-2.5-flash-image", Some(32_768), Some(32_768)),
    ("gemini-2.0-flash", Some(MILLION), Some(8_192)),
    ("gemini-flash-latest", Some(MILLION), Some(65_536)),
    ("gemini-flash-lite-latest", Some(MILLION), Some(65_536)),
    ("gemini-4-argon", Some(MILLION), None),
    ("gemini-4-carbon", Some(MILLION), None),
    ("gemini-4-hydrogen", None, None),
    ("gemini-embedding-001", Some(2_048), None),
];

/// The models whose input limit is a budget for input and output together. The upstream's list does not say so.
const SHARED: [&str; 2] = ["gemini-4-argon", "gemini-4-carbon"];

pub(super) fn shares_limit(name: &str) -> bool {
    SHARED.contains(&name)
}

pub(super) fn models() -> impl Iterator<Item = Arc<Model>> {
    LIMITS.into_iter().map(|(name, input, output)| {
        let model = Model::new(name).with_source(Source::Seed);
        let model = input.into_iter().fold(model, Model::with_input_limit);
        let model = output.into_iter().fold(model, Model::with_output_limit);
        Arc::new(if shares_limit(name) { model.with_shared_limit() } else { model })
    })
}
