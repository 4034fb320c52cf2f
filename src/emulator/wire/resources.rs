//! The shapes of answers about the things of a project, and about uploads.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    json::{pretty, with_line_end},
    page::page_token,
    resource_path::Collection,
};

/// A thing of a project, as the API writes it.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum ResourceJson {
    #[serde(rename_all = "camelCase")]
    File {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        display_name: Option<String>,
        mime_type: String,
        size_bytes: String,
        create_time: String,
        update_time: String,
        expiration_time: String,
        uri: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        download_uri: Option<String>,
        state: &'static str,
        source: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    CachedContent {
        name: String,
        model: String,
        create_time: String,
        update_time: String,
        expire_time: String,
        display_name: String,
        usage_metadata: CachedTokens,
    },
    Other(Value),
}

/// The members that all things have in common.
pub(crate) struct CommonMembers {
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) made: SystemTime,
    pub(crate) expires: SystemTime,
}

const GOOGLE: &str = "https://generativelanguage.googleapis.com";
/// Google's own: pieces of an upload but the last are multiples of it.
const GRANULARITY: &str = "262144";

const UPLOAD_URL: HeaderName = HeaderName::from_static("x-goog-upload-url");
const CONTROL_URL: HeaderName = HeaderName::from_static("x-goog-upload-control-url");
const UPLOAD_STATUS: HeaderName = HeaderName::from_static("x-goog-upload-status");
const UPLOAD_GRANULARITY: HeaderName = HeaderName::from_static("x-goog-upload-chunk-granularity");
const SIZE_RECEIVED: HeaderName = HeaderName::from_static("x-goog-upload-size-received");

// === impl ResourceJson ===

impl ResourceJson {
    /// Shapes a file; `source` is UPLOADED, GENERATED or REGISTERED. Only a generated one can be downloaded.
    pub(crate) fn file(common: CommonMembers, mime_type: String, bytes: u64, source: &'static str) -> Self {
        let made = timestamp(common.made);
        let uri = format!("{GOOGLE}/v1beta/{}", common.name);
        Self::File {
            download_uri: (source == "GENERATED").then(|| download_address(&common.name)),
            uri,
            name: common.name,
            display_name: common.display_name,
            mime_type,
            size_bytes: bytes.to_string(),
            create_time: made.clone(),
            update_time: made,
            expiration_time: timestamp(common.expires),
            state: "ACTIVE",
            source,
        }
    }

    pub(crate) fn cached_content(common: CommonMembers, model: &str, tokens: u64) -> Self {
        let made = timestamp(common.made);
        Self::CachedContent {
            name: common.name,
            model: format!("models/{model}"),
            create_time: made.clone(),
            update_time: made,
            expire_time: timestamp(common.expires),
            display_name: common.display_name.unwrap_or_default(),
            usage_metadata: CachedTokens { total_token_count: tokens },
        }
    }
}

impl ResourceJson {
    /// Shapes a thing that has the members that its caller named: with an `id` in the collections of the Interactions
    /// API, and with a `name` in all others.
    pub(crate) fn plain(common: CommonMembers, collection: Collection, mut members: Map<String, Value>) -> Self {
        let made = Value::from(timestamp(common.made));
        let id = common.name.rsplit('/').next().unwrap_or_default().to_owned();
        let own = match collection {
            Collection::Credentials | Collection::Triggers | Collection::Webhooks => {
                json!({ "id": id, "create_time": made, "update_time": made })
            }
            _ if collection.has_ids() => json!({ "id": id, "created": made }),
            _ => json!({ "name": common.name, "createTime": made, "updateTime": made }),
        };
        if let Value::Object(own) = own {
            members.extend(own);
        }
        Self::Other(Value::Object(members))
    }

    /// Shapes an operation that takes long, and has ended.
    pub(crate) fn operation(name: String, response: Value) -> Self {
        Self::Other(json!({ "name": name, "done": true, "response": response }))
    }
}

/// Returns the address at which a generated file can be downloaded.
pub(crate) fn download_address(name: &str) -> String {
    format!("{GOOGLE}/v1beta/{name}:download?alt=media")
}

/// Writes a time as protobuf's JSON does.
pub(crate) fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}

// === bodies ===

pub(crate) fn one(resource: &ResourceJson) -> Bytes {
    with_line_end(pretty(resource))
}

/// Writes the body that ends an upload.
pub(crate) fn uploaded(file: ResourceJson) -> Bytes {
    with_line_end(pretty(&Uploaded { file }))
}

/// Writes the files that were registered.
pub(crate) fn registered(files: &[ResourceJson]) -> Bytes {
    with_line_end(pretty(&json!({ "files": files })))
}

/// Writes a page of a list, whose entries stand in the member `entries`; `next` is the index of the entry behind it.
pub(crate) fn page(
    collection: Collection,
    within: Option<&str>,
    resources: &[ResourceJson],
    next: Option<usize>,
) -> Bytes {
    let entries = match (collection, within.and_then(|within| within.rsplit('/').next())) {
        (Collection::Batches, None) => "operations",
        (Collection::Triggers, Some("executions")) => "trigger_executions",
        (_, within) => within.unwrap_or(collection.name()),
    };
    let token = if collection.has_ids() { "next_page_token" } else { "nextPageToken" };
    let mut page = Map::new();
    if !resources.is_empty() {
        page.insert(entries.to_owned(), json!(resources));
    }
    if let Some(next) = next {
        page.insert(token.to_owned(), page_token(next).into());
    }
    with_line_end(pretty(&page))
}

pub(crate) fn deleted() -> Bytes {
    Bytes::from_static(b"{}\n")
}

// === headers ===

/// Returns the headers of an upload's state, with the bytes received.
pub(crate) fn upload_status(status: &'static str, received: u64) -> HeaderMap {
    let status = (UPLOAD_STATUS, HeaderValue::from_static(status));
    HeaderMap::from_iter([status, (SIZE_RECEIVED, received.into())])
}

/// Returns the headers of an upload that has started: it continues at an address on the host that the request named.
pub(crate) fn upload_started(head: &Parts, upload: &str) -> HeaderMap {
    let mut headers = upload_status("active", 0);
    headers.insert(UPLOAD_GRANULARITY, HeaderValue::from_static(GRANULARITY));
    let base = base_address(&head.uri, &head.headers);
    let url = format!("{base}{}?upload_id={upload}&upload_protocol=resumable", head.uri.path());
    // An address that came in a request fits into a header.
    if let Ok(url) = HeaderValue::from_str(&url) {
        headers.insert(UPLOAD_URL, url.clone());
        headers.insert(CONTROL_URL, url);
    }
    headers
}

/// Returns the scheme and host under which the caller knows the emulator: by the URI, else by `Host`, else Google's.
fn base_address(uri: &Uri, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match uri.authority().map(|authority| authority.as_str()).or(host) {
        Some(authority) => format!("{}://{authority}", uri.scheme_str().unwrap_or("http")),
        None => GOOGLE.to_owned(),
    }
}

// === shapes ===

#[derive(Serialize)]
struct Uploaded {
    file: ResourceJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CachedTokens {
    total_token_count: u64,
}
