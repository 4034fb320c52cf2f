//! The shapes of batches and of their results.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::batch_call::NewBatch;

/// A batch, as it is to be written.
#[derive(Debug)]
pub(crate) struct BatchView<'a> {
    pub(crate) name: &'a str,
    pub(crate) new: &'a NewBatch,
    pub(crate) requests: u64,
    pub(crate) state: BatchState,
    pub(crate) created: String,
    /// The time of the end, or the present one.
    pub(crate) updated: String,
    /// The results, once there are some.
    pub(crate) results: Option<BatchResults>,
}

/// The state of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchState {
    Pending,
    Running,
    Succeeded,
    Cancelled,
}

/// The results of a batch: in the batch itself, or the name of the file with them.
#[derive(Debug)]
pub(crate) enum BatchResults {
    Inline(Vec<Value>),
    File(String),
}

const PACKAGE: &str = "type.googleapis.com/google.ai.generativelanguage.v1main";

// === impl BatchState ===

impl BatchState {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "BATCH_STATE_PENDING",
            Self::Running => "BATCH_STATE_RUNNING",
            Self::Succeeded => "BATCH_STATE_SUCCEEDED",
            Self::Cancelled => "BATCH_STATE_CANCELLED",
        }
    }

    fn is_last(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cancelled)
    }
}

// === impl BatchView ===

impl BatchView<'_> {
    /// Returns the batch as the operation that the API writes it as.
    pub(crate) fn json(&self) -> Value {
        let kind = if self.new.embeds { "EmbedContent" } else { "GenerateContent" };
        let count = |state: bool| if state { self.requests } else { 0 };
        let mut stats = Map::new();
        stats.insert("requestCount".to_owned(), self.requests.to_string().into());
        for (name, requests) in [
            ("pendingRequestCount", count(!self.state.is_last())),
            ("successfulRequestCount", count(self.state == BatchState::Succeeded)),
        ] {
            // As protobuf's JSON does, zeros are left out.
            if requests > 0 {
                stats.insert(name.to_owned(), requests.to_string().into());
            }
        }
        let mut metadata = json!({
            "@type": format!("{PACKAGE}.{kind}Batch"),
            "model": format!("models/{}", self.new.model),
            "createTime": self.created,
            "updateTime": self.updated,
            "batchStats": stats,
            "state": self.state.name(),
            "name": self.name,
        });
        if let Some(display_name) = &self.new.display_name {
            metadata["displayName"] = display_name.as_str().into();
        }
        if self.state.is_last() {
            metadata["endTime"] = self.updated.as_str().into();
        }
        let mut json = json!({ "name": self.name });
        if let Some(results) = &self.results {
            let output = results.json(self.new.embeds);
            metadata["output"] = output.clone();
            let mut response = output;
            response["@type"] = format!("{PACKAGE}.{kind}BatchOutput").into();
            json["response"] = response;
        }
        if self.state.is_last() {
            json["done"] = true.into();
        }
        json["metadata"] = metadata;
        json
    }
}

// === impl BatchResults ===

impl BatchResults {
    fn json(&self, embeds: bool) -> Value {
        match self {
            Self::File(name) => json!({ "responsesFile": name }),
            Self::Inline(results) if embeds => {
                json!({ "inlinedEmbedContentResponses": { "inlinedResponses": results } })
            }
            Self::Inline(results) => json!({ "inlinedResponses": { "inlinedResponses": results } }),
        }
    }
}

/// Writes the result of one request.
pub(crate) fn result(key: Option<&str>, response: Value) -> Value {
    match key {
        Some(key) => json!({ "response": response, "metadata": { "key": key } }),
        None => json!({ "response": response }),
    }
}

/// Writes a file of results, one on each line.
pub(crate) fn results_file(responses: impl Iterator<Item = (String, Value)>) -> Bytes {
    let lines = responses.map(|(key, response)| format!("{}\n", json!({ "key": key, "response": response })));
    lines.collect::<String>().into()
}
