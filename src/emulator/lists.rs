//! What is no generated text: counts, embeddings, and the models.

use bytes::Bytes;
use serde::Serialize;

use super::{
    answer::{ModalityTokens, seeded, with_line_end},
    asked::{Embedding, tokens_of},
    errors::pretty,
    model::{ListedModel, Model},
};
use crate::call::Surface;

pub(super) fn token_count(tokens: u64) -> Bytes {
    with_line_end(pretty(&TokenCount {
        total_tokens: tokens,
        prompt_tokens_details: [ModalityTokens::of_text(tokens)],
    }))
}

/// What an `embedContent`, a `batchEmbedContents` or a Vertex `predict` is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EmbeddingShape {
    One,
    Batch,
    Predictions,
}

pub(super) fn embeddings(asked: &Embedding, shape: EmbeddingShape, seed: u64) -> Bytes {
    let mut all = asked.texts.iter().map(|text| Values { values: vector(text, asked.dimensions, seed) });
    let json = match shape {
        EmbeddingShape::One => pretty(&OneEmbedding { embedding: all.next() }),
        EmbeddingShape::Batch => pretty(&BatchOfEmbeddings { embeddings: all.collect() }),
        EmbeddingShape::Predictions => {
            let predictions = all.zip(&asked.texts).map(|(values, text)| Prediction {
                embeddings: PredictedEmbedding {
                    values: values.values,
                    statistics: Statistics { truncated: false, token_count: tokens_of(text) },
                },
            });
            pretty(&Predictions { predictions: predictions.collect() })
        }
    };
    with_line_end(json)
}

/// A direction of length 1, always the same for the same text.
pub(super) fn vector(text: &str, dimensions: usize, seed: u64) -> Vec<f32> {
    let mut rng = seeded(seed, text);
    let mut values: Vec<f32> = (0..dimensions).map(|_| rng.f32() * 2.0 - 1.0).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    values.iter_mut().for_each(|value| *value /= length);
    values
}

pub(super) fn model_list(models: &[Model], next_page_token: Option<String>, surface: Surface) -> Bytes {
    with_line_end(match surface {
        Surface::Vertex => {
            let publisher_models = models.iter().map(publisher_model).collect();
            pretty(&PublisherModels { publisher_models, next_page_token })
        }
        _ => pretty(&Models { models: models.iter().map(Model::listed).collect(), next_page_token }),
    })
}

pub(super) fn one_model(model: &Model, surface: Surface) -> Bytes {
    with_line_end(match surface {
        Surface::Vertex => pretty(&publisher_model(model)),
        _ => pretty(&model.listed()),
    })
}

fn publisher_model(model: &Model) -> PublisherModel {
    let name = format!("publishers/google/models/{}", model.name);
    PublisherModel { name, version_id: "default", open_source_category: "PROPRIETARY", launch_stage: "GA" }
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
struct Models<'a> {
    models: Vec<ListedModel<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublisherModels {
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
