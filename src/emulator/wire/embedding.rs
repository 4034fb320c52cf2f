//! A request to embed texts, and the vectors that it gets.

use serde_json::Value;

use super::{
    errors::ApiError,
    json::{elements, elements_of, member},
    prompt::{Prompt, tokens_of},
};
use crate::emulator::seeded::seeded;

/// The texts that are to be embedded, and the form of their vectors.
#[derive(Debug)]
pub(crate) struct EmbeddingRequest {
    pub(crate) texts: Vec<String>,
    pub(crate) dimensions: usize,
    /// The vectors are written as base64 of little-endian floats.
    pub(crate) base64: bool,
    pub(crate) tokens: u64,
    /// The requests of quota that it costs: one for each of `batchEmbedContents`, else one in all.
    pub(crate) charged: u64,
}

/// The length of `gemini-embedding-001`'s vectors.
const DIMENSIONS: usize = 3_072;
/// Google's limits are 100 texts a batch, 250 on Vertex, and 2,048 on the OpenAI-compatible surface; this is the
/// largest.
const MAX_TEXTS: usize = 2_048;

// === impl EmbeddingRequest ===

impl EmbeddingRequest {
    /// Parses `{content}`, or `{requests: [{content}, …]}` of a batch.
    pub(crate) fn from_contents(body: &Value) -> Result<Self, ApiError> {
        let requests = match body.get("requests") {
            Some(requests) => elements(requests),
            None => std::slice::from_ref(body),
        };
        let texts = requests.iter().map(|request| Prompt::text_of(request.get("content").unwrap_or(&Value::Null)));
        let dimensions = requests.first().and_then(|first| {
            let config = first.get("embedContentConfig").unwrap_or(first);
            member(config, "outputDimensionality", "output_dimensionality")
        });
        let is_batch = body.get("requests").is_some();
        let embedding = Self::new(texts.collect(), dimensions, false)?;
        let charged = if is_batch { embedding.texts.len() as u64 } else { 1 };
        Ok(Self { charged, ..embedding })
    }

    /// Parses the body of Vertex's `predict`.
    pub(crate) fn from_instances(body: &Value) -> Result<Self, ApiError> {
        let texts = elements_of(body, "instances", "instances")
            .iter()
            .map(|instance| instance.get("content").and_then(Value::as_str).unwrap_or_default().to_owned());
        let parameters = body.get("parameters").unwrap_or(&Value::Null);
        Self::new(texts.collect(), member(parameters, "outputDimensionality", "output_dimensionality"), false)
    }

    /// Parses OpenAI's `input`.
    pub(crate) fn from_input(body: &Value) -> Result<Self, ApiError> {
        let texts = match body.get("input") {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let base64 = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
        Self::new(texts, body.get("dimensions"), base64)
    }

    /// Returns the tokens of the longest text.
    pub(crate) fn largest(&self) -> u64 {
        self.texts.iter().map(|text| tokens_of(text)).max().unwrap_or(0)
    }

    /// Returns the vector of each text.
    pub(crate) fn vectors(&self, seed: u64) -> impl Iterator<Item = Vec<f32>> {
        self.texts.iter().map(move |text| vector(text, self.dimensions, seed))
    }

    fn new(texts: Vec<String>, dimensions: Option<&Value>, base64: bool) -> Result<Self, ApiError> {
        if texts.is_empty() || texts.iter().all(String::is_empty) {
            return Err(ApiError::invalid_argument("* EmbedContentRequest.content: content is not specified\n"));
        }
        if texts.len() > MAX_TEXTS {
            let what =
                format!("* BatchEmbedContentsRequest.requests: at most {MAX_TEXTS} requests can be in one batch\n");
            return Err(ApiError::invalid_argument(what));
        }
        let dimensions = dimensions.and_then(Value::as_u64).map_or(DIMENSIONS, |wanted| wanted as usize);
        let tokens = texts.iter().map(|text| tokens_of(text)).sum();
        Ok(Self { texts, dimensions: dimensions.clamp(1, DIMENSIONS), base64, tokens, charged: 1 })
    }
}

/// Returns the vector of one text, in the length that a request gets which names none.
pub(crate) fn vector_of(text: &str, seed: u64) -> Vec<f32> {
    vector(text, DIMENSIONS, seed)
}

/// Returns a vector of length 1: the same for the same text and seed.
fn vector(text: &str, dimensions: usize, seed: u64) -> Vec<f32> {
    let mut rng = seeded(seed, text);
    let mut values: Vec<f32> = (0..dimensions).map(|_| rng.f32() * 2.0 - 1.0).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    values.iter_mut().for_each(|value| *value /= length);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_has_length_one_and_stays_the_same() {
        let one = vector("text", 768, 7);
        let length: f32 = one.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-3);
        assert_eq!(one, vector("text", 768, 7));
        assert_ne!(one, vector("other", 768, 7));
    }
}
