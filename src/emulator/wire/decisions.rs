//! Decisions: questions about one input, and their answers in numbers.

use bytes::Bytes;
use http::{Method, request::Parts};
use serde_json::{Map, Value, json};

use super::{
    answer::GeneratedAnswer,
    errors::ApiError,
    interactions::usage,
    json::{elements_of, json_object, line},
    path::around_version,
    prompt::Prompt,
};
use crate::emulator::seeded::seeded;

/// A request for decisions.
#[derive(Debug)]
pub(crate) struct DecisionRequest {
    /// The model's name, without `models/`.
    pub(crate) model: String,
    pub(crate) prompt: Prompt,
    questions: Map<String, Value>,
}

// === impl DecisionRequest ===

impl DecisionRequest {
    /// Returns whether a path is that of decisions.
    pub(crate) fn is_at(path: &str) -> bool {
        around_version(path).is_some_and(|(_, rest)| rest.trim_end_matches('/') == "decisions")
    }

    /// Parses a request. `None` is another path.
    pub(super) fn read(head: &Parts, body: &[u8]) -> Option<Result<Self, ApiError>> {
        let is_one = head.method == Method::POST && Self::is_at(head.uri.path());
        is_one.then(|| json_object(body).and_then(|body| Self::of(&body)))
    }

    fn of(body: &Value) -> Result<Self, ApiError> {
        let model = body.get("model").and_then(Value::as_str).unwrap_or_default();
        if model.is_empty() {
            return Err(ApiError::invalid_argument("The model of the decision must be set."));
        }
        let Some(Value::Object(questions)) = body.get("questions") else {
            return Err(ApiError::invalid_argument("The questions of the decision must be set."));
        };
        let model = model.rsplit('/').next().unwrap_or(model).to_owned();
        Ok(Self { model, prompt: Prompt::for_interaction(body)?, questions: questions.clone() })
    }

    /// Writes the answers, which are the same for the same questions and seed.
    pub(crate) fn answer(&self, answer: &GeneratedAnswer, seed: u64) -> Bytes {
        let answers = self.questions.iter().map(|(name, question)| (name.clone(), decide(name, question, seed)));
        line(&json!({ "answers": answers.collect::<Map<_, _>>(), "usage": usage(answer) })).into()
    }
}

fn decide(name: &str, question: &Value, seed: u64) -> Value {
    let mut rng = seeded(seed, name);
    let options: Vec<String> = match question.get("criteria") {
        Some(Value::Object(choices)) => choices.keys().cloned().collect(),
        _ => elements_of(question, "criteria", "criteria").iter().map(|level| level.to_string()).collect(),
    };
    let weights: Vec<f64> = options.iter().map(|_| rng.f64() + 0.01).collect();
    let sum: f64 = weights.iter().sum();
    let probabilities: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    let best = probabilities.iter().copied().fold(0.0, f64::max);
    let keyed = |key: &dyn Fn(usize) -> String| {
        let pairs = probabilities.iter().enumerate().map(|(at, probability)| (key(at), json!(probability)));
        pairs.collect::<Map<_, _>>()
    };
    match question.get("type").and_then(Value::as_str) {
        Some("choice") => {
            let choice = probabilities.iter().position(|probability| *probability == best).unwrap_or(0);
            json!({
                "type": "choice",
                "choice": options.get(choice),
                "confidence": best,
                "probabilities": keyed(&|at| options[at].clone()),
            })
        }
        Some("score") => {
            let score: f64 =
                probabilities.iter().enumerate().map(|(level, probability)| level as f64 * probability).sum();
            let legend = elements_of(question, "criteria", "criteria").iter().enumerate();
            json!({
                "type": "score",
                "score": score,
                "confidence": best,
                "probabilities": keyed(&|at| at.to_string()),
                "legend": legend.map(|(at, level)| (at.to_string(), level.clone())).collect::<Map<_, _>>(),
            })
        }
        _ => {
            let noul = rng.f64();
            json!({ "type": "noul", "noul": noul, "confidence": noul.max(1.0 - noul) })
        }
    }
}
