//! Token counts, embeddings and models, in the shapes of the Developer API and Vertex.

use bytes::Bytes;
use serde::Serialize;

use super::{
    embedding::EmbeddingRequest,
    gemini::ModalityTokens,
    json::{pretty, with_line_end},
    prompt::tokens_of,
};

/// The shape of embeddings: that of `embedContent`, of `batchEmbedContents`, or of Vertex's `predict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EmbeddingShape {
    One,
    Batch,
    Predictions,
}

/// A model, as an entry of the Developer API's list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListedModel {
    pub(crate) name: String,
    pub(crate) version: &'static str,
    pub(crate) display_name: String,
    pub(crate) description: &'static str,
    pub(crate) input_token_limit: u64,
    pub(crate) output_token_limit: u64,
    pub(crate) supported_generation_methods: &'static [&'static str],
    #[serde(flatten)]
    pub(crate) sampling: Option<Sampling>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sampling {
    pub(crate) temperature: u32,
    pub(crate) top_p: f64,
    pub(crate) top_k: u32,
    pub(crate) max_temperature: u32,
    pub(crate) thinking: bool,
}

pub(crate) fn token_count(tokens: u64) -> Bytes {
    with_line_end(pretty(&TokenCount {
        total_tokens: tokens,
        prompt_tokens_details: [ModalityTokens::of_text(tokens)],
    }))
}

pub(crate) fn embeddings(request: &EmbeddingRequest, shape: EmbeddingShape, seed: u64) -> Bytes {
    let mut all = request.vectors(seed).map(|values| Values { values });
    with_line_end(match shape {
        EmbeddingShape::One => pretty(&OneEmbedding { embedding: all.next() }),
        EmbeddingShape::Batch => pretty(&BatchOfEmbeddings { embeddings: all.collect() }),
        EmbeddingShape::Predictions => {
            let predictions = all.zip(&request.texts).map(|(values, text)| Prediction {
                embeddings: PredictedEmbedding {
                    values: values.values,
                    statistics: Statistics { truncated: false, token_count: tokens_of(text) },
                },
            });
            pretty(&Predictions { predictions: predictions.collect() })
        }
    })
}

pub(crate) fn model_page(models: Vec<ListedModel>, next_page_token: Option<String>) -> Bytes {
    with_line_end(pretty(&ListedModels { models, next_page_token }))
}

pub(crate) fn one_model(model: &ListedModel) -> Bytes {
    with_line_end(pretty(model))
}

/// Writes a page of Vertex's list.
pub(crate) fn publisher_model_page<'a>(names: impl Iterator<Item = &'a str>, next_page_token: Option<String>) -> Bytes {
    let publisher_models = names.map(PublisherModel::new).collect();
    with_line_end(pretty(&PublisherModelPage { publisher_models, next_page_token }))
}

/// Writes one model as Vertex does.
pub(crate) fn one_publisher_model(name: &str) -> Bytes {
    with_line_end(pretty(&PublisherModel::new(name)))
}

// === shapes ===

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenCount {
    total_tokens: u64,
    prompt_tokens_details: [ModalityTokens; 1],
}

#[derive(Serialize)]
struct Values {
    values: Vec<f32>,
}

#[derive(Serialize)]
struct OneEmbedding {
    embedding: Option<Values>,
}

#[derive(Serialize)]
struct BatchOfEmbeddings {
    embeddings: Vec<Values>,
}

#[derive(Serialize)]
struct Predictions {
    predictions: Vec<Prediction>,
}

#[derive(Serialize)]
struct Prediction {
    embeddings: PredictedEmbedding,
}

#[derive(Serialize)]
struct PredictedEmbedding {
    statistics: Statistics,
    values: Vec<f32>,
}

#[derive(Serialize)]
struct Statistics {
    truncated: bool,
    token_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedModels {
    models: Vec<ListedModel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublisherModelPage {
    publisher_models: Vec<PublisherModel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublisherModel {
    name: String,
    version_id: &'static str,
    open_source_category: &'static str,
    launch_stage: &'static str,
}

impl PublisherModel {
    fn new(name: &str) -> Self {
        Self {
            name: format!("publishers/google/models/{name}"),
            version_id: "default",
            open_source_category: "PROPRIETARY",
            launch_stage: "GA",
        }
    }
}
