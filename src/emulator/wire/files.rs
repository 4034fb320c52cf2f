//! The shapes of answers about files, uploads and cached contents.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, request::Parts};
use serde::Serialize;

use super::{
    files_call::Collection,
    json::{pretty, with_line_end},
    page::page_token,
};

/// A file or a cached content, as the API writes it.
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
}

/// The members that files and cached contents have in common.
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
    pub(crate) fn file(common: CommonMembers, mime_type: String, bytes: u64) -> Self {
        let made = timestamp(common.made);
        Self::File {
            uri: format!("{GOOGLE}/v1beta/{}", common.name),
            name: common.name,
            display_name: common.display_name,
            mime_type,
            size_bytes: bytes.to_string(),
            create_time: made.clone(),
            update_time: made,
            expiration_time: timestamp(common.expires),
            state: "ACTIVE",
            source: "UPLOADED",
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

/// Writes a time as protobuf's JSON does.
fn timestamp(time: SystemTime) -> String {
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

/// Writes a page of a list; `next` is the index of the entry behind it.
pub(crate) fn page(collection: Collection, resources: Vec<ResourceJson>, next: Option<usize>) -> Bytes {
    let next_page_token = next.map(page_token);
    with_line_end(match collection {
        Collection::Files => pretty(&FilePage { files: resources, next_page_token }),
        Collection::CachedContents => pretty(&CachePage { cached_contents: resources, next_page_token }),
    })
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
struct FilePage {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<ResourceJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CachePage {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cached_contents: Vec<ResourceJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CachedTokens {
    total_token_count: u64,
}
