//! A batch of requests that is to be made, parsed from its request.

use serde_json::Value;

use super::{
    cut::cut,
    errors::ApiError,
    json::{elements_of, member},
    prompt::Prompt,
    resource_path::resource_in,
    upload_call::NAME,
};

/// A batch that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewBatch {
    /// The model's name, without `models/`.
    pub(crate) model: String,
    pub(crate) embeds: bool,
    pub(crate) display_name: Option<String>,
    pub(crate) input: BatchInput,
}

/// The requests of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BatchInput {
    /// The requests stand in the batch itself.
    Inline(Vec<BatchItem>),
    /// The requests stand in a file, one on each line.
    File(String),
}

/// A request within a batch, as far as its answer depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchItem {
    /// The caller's own name for the request.
    pub(crate) key: Option<String>,
    /// The beginning of the prompt's last turn.
    pub(crate) text: String,
}

/// The bytes that are kept of each prompt.
const PROMPT: usize = 256;
/// The largest number of requests within a batch itself; more have to stand in a file.
const INLINE: usize = 1_000;

// === impl NewBatch ===

impl NewBatch {
    /// Parses `{batch: {displayName, inputConfig: {requests | fileName}}}`.
    pub(super) fn read(model: &str, embeds: bool, body: &Value) -> Result<Self, ApiError> {
        let batch = body.get("batch").unwrap_or(body);
        let config = member(batch, "inputConfig", "input_config").unwrap_or(&Value::Null);
        let display_name = member(batch, "displayName", "display_name").and_then(Value::as_str);
        let file = member(config, "fileName", "file_name").and_then(Value::as_str);
        let input = match (file, config.get("requests")) {
            (Some(file), _) => BatchInput::File(resource_in(file).unwrap_or_else(|| cut(file, NAME))),
            (None, Some(requests)) => BatchInput::inline(requests)?,
            (None, None) => {
                return Err(ApiError::invalid_argument(
                    "* BatchGenerateContentRequest.batch.input_config: either requests or file_name must be set\n",
                ));
            }
        };
        Ok(Self { model: cut(model, NAME), embeds, display_name: display_name.map(|name| cut(name, NAME)), input })
    }

    /// Returns the names of the resources that the batch names.
    pub(super) fn resources(&self) -> &[String] {
        match &self.input {
            BatchInput::File(name) => std::slice::from_ref(name),
            BatchInput::Inline(_) => &[],
        }
    }
}

// === impl BatchInput ===

impl BatchInput {
    fn inline(requests: &Value) -> Result<Self, ApiError> {
        // The list stands within a member of the same name, or, from some callers, by itself.
        let requests = match requests {
            Value::Array(requests) => requests,
            _ => elements_of(requests, "requests", "requests"),
        };
        if requests.is_empty() || requests.len() > INLINE {
            return Err(ApiError::invalid_argument(format!(
                "* BatchGenerateContentRequest.batch.input_config.requests: from 1 to {INLINE} requests can be inline\n"
            )));
        }
        let items = requests.iter().map(|each| {
            let request = each.get("request").unwrap_or(each);
            let key = each.get("metadata").and_then(|metadata| metadata.get("key")).and_then(Value::as_str);
            let text = match request.get("content") {
                Some(content) => Prompt::text_of(content),
                None => Prompt::of(request).last_turn().to_owned(),
            };
            BatchItem { key: key.map(|key| cut(key, NAME)), text: cut(&text, PROMPT) }
        });
        Ok(Self::Inline(items.collect()))
    }
}

impl Default for BatchInput {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}
