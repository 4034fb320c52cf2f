//! Calls on batches, files and videos of the OpenAI-compatible surface, and the shapes of their answers.

use std::time::SystemTime;

use http::{Method, request::Parts};
use serde_json::{Map, Value, json};

use super::{
    batch_call::{BatchInput, NewBatch},
    batches::BatchState,
    cut::cut,
    errors::ApiError,
    json::{json_object, member},
    page::PageRequest,
    path::around_version,
    resource_call::{NewResource, ResourceCall, qualified},
    resource_path::Collection,
    upload_call::NAME,
};
use crate::call::percent_decoded;

/// OpenAI's page sizes for batches: 20, and 100 at most.
const PAGE_SIZE: usize = 20;
const MAX_PAGE_SIZE: usize = 100;

/// Parses a call. `None` is a path that belongs to none of these calls.
pub(super) fn read(head: &Parts, body: &[u8]) -> Option<Result<ResourceCall, ApiError>> {
    let (_, rest) = around_version(head.uri.path())?;
    let rest = percent_decoded(rest.strip_prefix("openai/")?.trim_end_matches('/'));
    let (collection, rest) = rest.split_once('/').map_or((&*rest, None), |(collection, rest)| (collection, Some(rest)));
    let collection = match collection {
        "batches" => Collection::Batches,
        "files" => Collection::Files,
        "videos" => Collection::Videos,
        _ => return None,
    };
    let (id, method) = match rest.and_then(|rest| rest.rsplit_once('/')) {
        Some((id, method @ ("cancel" | "content"))) => (Some(id), Some(method)),
        _ => (rest, None),
    };
    // An id may have the name of its collection before it.
    let name = id.map(|id| cut(&qualified(id, collection.name()), NAME));
    Some(match (&head.method, name, method) {
        (&Method::POST, None, None) if collection == Collection::Batches => {
            json_object(body).and_then(|body| new_batch(&body)).map(ResourceCall::CreateBatch)
        }
        (&Method::POST, None, None) if collection == Collection::Videos => json_object(body).map(|json| {
            let members = json.as_object().cloned().unwrap_or_default();
            let (id, within, resources) = (None, None, Vec::new());
            ResourceCall::Create(NewResource { collection, within, id, members, resources })
        }),
        (&Method::GET, None, None) => {
            let page = PageRequest::of(None, PAGE_SIZE, MAX_PAGE_SIZE);
            page.map(|page| ResourceCall::List { collection, within: None, page })
        }
        (&Method::GET, Some(name), None) => Ok(ResourceCall::Get { name }),
        (&Method::GET, Some(name), Some("content")) => Ok(ResourceCall::Download { name }),
        (&Method::DELETE, Some(name), None) => Ok(ResourceCall::Delete { name }),
        (&Method::POST, Some(name), Some("cancel")) => Ok(ResourceCall::Cancel { name }),
        _ => return None,
    })
}

fn new_batch(body: &Value) -> Result<NewBatch, ApiError> {
    let file = member(body, "input_file_id", "input_file_id").and_then(Value::as_str).unwrap_or_default();
    if file.is_empty() {
        return Err(ApiError::invalid_argument("Missing required parameter: 'input_file_id'."));
    }
    let input = BatchInput::File(cut(&qualified(file, "files"), NAME));
    Ok(NewBatch { input, ..NewBatch::default() })
}

// === shapes ===

/// Shapes a batch; `results` is its file of results.
pub(crate) fn batch(name: &str, new: &NewBatch, state: BatchState, results: Option<&str>, made: SystemTime) -> Value {
    let status = match state {
        BatchState::Pending => "validating",
        BatchState::Running => "in_progress",
        BatchState::Succeeded => "completed",
        BatchState::Cancelled => "cancelled",
    };
    let input = match &new.input {
        BatchInput::File(file) => Some(bare(file)),
        BatchInput::Inline(_) => None,
    };
    json!({
        "id": bare(name),
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "status": status,
        "input_file_id": input,
        "output_file_id": results.map(bare),
        "created_at": seconds(made),
    })
}

/// Shapes a file.
pub(crate) fn file(name: &str, display_name: Option<&str>, bytes: u64, made: SystemTime) -> Value {
    json!({
        "id": bare(name),
        "object": "file",
        "bytes": bytes,
        "created_at": seconds(made),
        "filename": display_name.unwrap_or(name),
        "purpose": "batch",
        "status": "processed",
    })
}

/// Shapes anything else, which has the members that its caller named.
pub(crate) fn plain(name: &str, collection: Collection, mut members: Map<String, Value>, made: SystemTime) -> Value {
    let object = collection.name().trim_end_matches('s');
    if let Value::Object(own) =
        json!({ "id": bare(name), "object": object, "status": "completed", "created_at": seconds(made) })
    {
        members.extend(own);
    }
    Value::Object(members)
}

/// Shapes a list.
pub(crate) fn list(entries: &[Value], has_more: bool) -> Value {
    json!({ "object": "list", "data": entries, "has_more": has_more })
}

/// Shapes the answer to a call that deleted something.
pub(crate) fn deleted(name: &str) -> Value {
    json!({ "id": bare(name), "deleted": true })
}

fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
