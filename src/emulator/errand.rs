//! What is asked about files and cached contents, and what comes of it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use serde::Serialize;
use serde_json::Value;

use super::{
    Shared,
    answer::with_line_end,
    asked::{Prompt, member, page_of, page_token},
    errors::{ApiError, pretty},
    journal::cut,
    judge::{Caller, Case, version},
    plan::Plan,
    storage::{Kind, NewFile, Progress, Refused, Thing},
    trouble::Trouble,
};
use crate::call::Surface;

/// Something to do with files, uploads or cached contents.
#[derive(Debug)]
pub(super) enum Errand {
    Start(NewFile),
    Piece { upload: String, offset: Option<u64>, bytes: u64, is_last: bool },
    Query { upload: String },
    Cancel { upload: String },
    Cache { model: String, tokens: u64, display_name: Option<String>, life: Duration },
    List { collection: &'static str, page_size: usize, from: usize },
    Get { name: String },
    Delete { name: String },
}

/// Longer names are cut: nothing that a caller makes up is kept at full length.
const NAME: usize = 512;
/// Google's own.
const PAGE_SIZE: usize = 10;
const MAX_PAGE_SIZE: usize = 100;
const CACHE_LIFE: Duration = Duration::from_secs(3600);
const GRANULARITY: &str = "262144";

const UPLOAD_URL: HeaderName = HeaderName::from_static("x-goog-upload-url");
const CONTROL_URL: HeaderName = HeaderName::from_static("x-goog-upload-control-url");
const UPLOAD_STATUS: HeaderName = HeaderName::from_static("x-goog-upload-status");
const UPLOAD_GRANULARITY: HeaderName = HeaderName::from_static("x-goog-upload-chunk-granularity");
const SIZE_RECEIVED: HeaderName = HeaderName::from_static("x-goog-upload-size-received");

// === impl Errand ===

impl Errand {
    /// `None` is a path that is none of these.
    pub(super) fn read(surface: Surface, head: &Parts, body: &[u8]) -> Option<Result<Self, ApiError>> {
        if surface != Surface::Developer {
            return None;
        }
        let (before, rest) = around_version(head.uri.path())?;
        let mut segments = rest.trim_end_matches('/').split('/');
        let collection = match segments.next()? {
            "files" => "files",
            "cachedContents" => "cachedContents",
            _ => return None,
        };
        let name = segments.next().map(|id| format!("{collection}/{}", cut(id, NAME)));
        let is_upload = before.ends_with("/upload");
        if segments.next().is_some() || name.as_ref().is_some_and(|name| name.contains(':') || is_upload) {
            return None;
        }
        Some(match (&head.method, name) {
            (&Method::POST, None) if is_upload && collection == "files" => Self::upload(head, body),
            (&Method::POST, None) if !is_upload && collection == "cachedContents" => Self::cache(body),
            (&Method::GET, None) if !is_upload => page_of(head.uri.query(), PAGE_SIZE, MAX_PAGE_SIZE)
                .map(|(page_size, from)| Self::List { collection, page_size, from }),
            (&Method::GET, Some(name)) => Ok(Self::Get { name }),
            (&Method::DELETE, Some(name)) => Ok(Self::Delete { name }),
            _ => return None,
        })
    }

    fn upload(head: &Parts, body: &[u8]) -> Result<Self, ApiError> {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let number = |name: &str| match header(name).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(ApiError::invalid_argument(format!("Invalid value in the header {name}."))),
        };
        let command = header("x-goog-upload-command").unwrap_or_default();
        let mut commands = command.split(',').map(str::trim).filter(|command| !command.is_empty());
        let upload = upload_id(head.uri.query());
        match (commands.next(), commands.next(), upload) {
            (Some("start"), None, None) if header("x-goog-upload-protocol") == Some("resumable") => {
                let json = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap_or_default() };
                let file = json.get("file").unwrap_or(&Value::Null);
                let text = |camel, snake| {
                    let text = member(file, camel, snake).and_then(Value::as_str);
                    text.filter(|text| !text.is_empty()).map(|text| cut(text, NAME))
                };
                let mime_type = header("x-goog-upload-header-content-type").map(|kind| cut(kind, NAME));
                Ok(Self::Start(NewFile {
                    name: text("name", "name").map(|name| match name.starts_with("files/") {
                        true => name,
                        false => format!("files/{name}"),
                    }),
                    display_name: text("displayName", "display_name"),
                    mime_type: mime_type
                        .or_else(|| text("mimeType", "mime_type"))
                        .unwrap_or_else(|| "application/octet-stream".to_owned()),
                    size: number("x-goog-upload-header-content-length")?,
                }))
            }
            (Some(first @ ("upload" | "finalize")), second @ (None | Some("finalize")), Some(upload)) => {
                let (bytes, is_last) = (body.len() as u64, first == "finalize" || second.is_some());
                Ok(Self::Piece { upload, offset: number("x-goog-upload-offset")?, bytes, is_last })
            }
            (Some("query"), None, Some(upload)) => Ok(Self::Query { upload }),
            (Some("cancel"), None, Some(upload)) => Ok(Self::Cancel { upload }),
            _ => Err(ApiError::invalid_argument(
                "The emulator takes resumable uploads only: X-Goog-Upload-Protocol: resumable with \
                 X-Goog-Upload-Command: start, then upload, and finalize, at the address in X-Goog-Upload-URL.",
            )),
        }
    }

    fn cache(body: &[u8]) -> Result<Self, ApiError> {
        let json: Value = serde_json::from_slice(body)
            .map_err(|_| ApiError::invalid_argument("Invalid JSON payload received. Unexpected token."))?;
        let text = |camel, snake| member(&json, camel, snake).and_then(Value::as_str).map(|text| cut(text, NAME));
        let model = text("model", "model").ok_or_else(|| {
            ApiError::invalid_argument("* CreateCachedContentRequest.model: model must be specified.\n")
        })?;
        let life = text("ttl", "ttl").and_then(|ttl| ttl.strip_suffix('s')?.parse::<f64>().ok());
        let life = life.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(CACHE_LIFE);
        let model = model.strip_prefix("models/").unwrap_or(&model).to_owned();
        let tokens = Prompt::of(&json).tokens;
        Ok(Self::Cache { model, tokens, display_name: text("displayName", "display_name"), life })
    }

    /// The upload that it goes on with. Its address is a secret: who has it needs no key.
    pub(super) fn upload_under_way(&self) -> Option<&str> {
        match self {
            Self::Piece { upload, .. } | Self::Query { upload } | Self::Cancel { upload } => Some(upload),
            _ => None,
        }
    }
}

/// What stands before the version segment, and what behind it.
fn around_version(path: &str) -> Option<(&str, &str)> {
    path.split_once(&format!("/{}/", version(path)))
}

fn upload_id(query: Option<&str>) -> Option<String> {
    let id = query?.split('&').find_map(|pair| pair.strip_prefix("upload_id="))?;
    Some(cut(id, NAME))
}

// === impl Case ===

impl Case<'_> {
    /// Does it, at once: whatever was to go wrong instead has been looked at.
    pub(super) fn run(&self, errand: &Errand, caller: &Caller<'_>, trouble: Option<&Trouble>) -> Plan {
        let done = self.done(errand, caller);
        done.map_or_else(
            |error| self.refuse(&error, Duration::ZERO),
            |(headers, body)| self.whole(body, self.shared.settings.before_headers, trouble).with_headers(headers),
        )
    }

    fn done(&self, errand: &Errand, caller: &Caller<'_>) -> Result<(HeaderMap, Bytes), ApiError> {
        let now = self.shared.elapsed();
        let project = &*caller.project;
        let mut state = self.shared.state.lock();
        let storage = &mut state.storage;
        let json = |value| (HeaderMap::new(), value);
        Ok(match errand {
            Errand::Start(file) => {
                let upload = storage.start(file.clone(), caller.project.clone(), now).map_err(refusal)?;
                (self.upload_headers(&upload), Bytes::new())
            }
            Errand::Piece { upload, offset, bytes, is_last } => {
                match storage.receive(upload, project, *offset, *bytes, *is_last, now).map_err(refusal)? {
                    Progress::Active(received) => (status("active", received), Bytes::new()),
                    Progress::Final(file) => {
                        let file = View::new(&file, self.shared);
                        (status("final", *bytes), with_line_end(pretty(&Uploaded { file })))
                    }
                }
            }
            Errand::Query { upload } => {
                (status("active", storage.received(upload, project).map_err(refusal)?), Bytes::new())
            }
            Errand::Cancel { upload } => {
                storage.cancel(upload, project).map_err(refusal)?;
                (status("cancelled", 0), Bytes::new())
            }
            Errand::Cache { model, tokens, display_name, life } => {
                let name = display_name.clone();
                let cached = storage.cache(model.clone(), *tokens, name, *life, caller.project.clone(), now);
                json(with_line_end(pretty(&View::new(&cached, self.shared))))
            }
            Errand::List { collection, page_size, from } => {
                let mut all = storage.list(collection, project, now).skip(*from);
                let page = all.by_ref().take(*page_size).map(|thing| View::new(thing, self.shared)).collect();
                let next = all.next().is_some().then(|| page_token(from + page_size));
                json(with_line_end(match *collection {
                    "files" => pretty(&Files { files: page, next_page_token: next }),
                    _ => pretty(&CachedContents { cached_contents: page, next_page_token: next }),
                }))
            }
            Errand::Get { name } => {
                let thing = storage.get(name, project, now).ok_or_else(|| ApiError::not_yours(name))?;
                json(with_line_end(pretty(&View::new(thing, self.shared))))
            }
            Errand::Delete { name } => match storage.delete(name, project, now) {
                true => json(Bytes::from_static(b"{}\n")),
                false => return Err(ApiError::not_yours(name)),
            },
        })
    }

    /// Where the upload goes on: here, as the caller knows this place.
    fn upload_headers(&self, upload: &str) -> HeaderMap {
        let uri = &self.head.uri;
        let host = self.head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = uri.authority().map(|authority| authority.as_str()).or(host);
        let base = match authority {
            Some(authority) => format!("{}://{authority}", uri.scheme_str().unwrap_or("http")),
            None => GOOGLE.to_owned(),
        };
        let url = format!("{base}{}?upload_id={upload}&upload_protocol=resumable", uri.path());
        let mut headers = status("active", 0);
        headers.insert(UPLOAD_GRANULARITY, HeaderValue::from_static(GRANULARITY));
        // An address that came in a request fits into a header.
        if let Ok(url) = HeaderValue::from_str(&url) {
            headers.insert(UPLOAD_URL, url.clone());
            headers.insert(CONTROL_URL, url);
        }
        headers
    }
}

fn status(status: &'static str, received: u64) -> HeaderMap {
    let status = (UPLOAD_STATUS, HeaderValue::from_static(status));
    HeaderMap::from_iter([status, (SIZE_RECEIVED, received.into())])
}

fn refusal(refused: Refused) -> ApiError {
    match refused {
        Refused::Unknown => ApiError::new(404, "NOT_FOUND", "Requested entity was not found."),
        Refused::Misplaced { received } => ApiError::invalid_argument(format!(
            "The upload does not fit: {received} bytes of it have arrived, and this is not what was to come next."
        )),
        Refused::Taken => ApiError::new(409, "ALREADY_EXISTS", "Requested entity already exists"),
        Refused::Full => ApiError::bare_quota(),
    }
}

// === shapes ===

const GOOGLE: &str = "https://generativelanguage.googleapis.com";

#[derive(Serialize)]
struct Uploaded {
    file: View,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Files {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<View>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CachedContents {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cached_contents: Vec<View>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum View {
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
    Cache {
        name: String,
        model: String,
        create_time: String,
        update_time: String,
        expire_time: String,
        display_name: String,
        usage_metadata: CachedTokens,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CachedTokens {
    total_token_count: u64,
}

impl View {
    fn new(thing: &Thing, shared: &Shared) -> Self {
        let time = |since_start| timestamp(shared.wall(since_start));
        let (name, display_name) = (thing.name.clone(), thing.display_name.clone());
        let (made, expires) = (time(thing.made), time(thing.expires));
        match &thing.kind {
            Kind::File { mime_type, bytes } => Self::File {
                uri: format!("{GOOGLE}/v1beta/{name}"),
                name,
                display_name,
                mime_type: mime_type.clone(),
                size_bytes: bytes.to_string(),
                create_time: made.clone(),
                update_time: made,
                expiration_time: expires,
                state: "ACTIVE",
                source: "UPLOADED",
            },
            Kind::Cache { model, tokens } => Self::Cache {
                name,
                model: format!("models/{model}"),
                create_time: made.clone(),
                update_time: made,
                expire_time: expires,
                display_name: display_name.unwrap_or_default(),
                usage_metadata: CachedTokens { total_token_count: *tokens },
            },
        }
    }
}

/// As protobuf's JSON has it.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}
