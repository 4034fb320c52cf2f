//! Calls on files, uploads and cached contents, parsed from their requests.

use std::time::Duration;

use http::{HeaderMap, Method, request::Parts};
use serde_json::Value;

use super::{cut::cut, errors::ApiError, json::member, page::PageRequest, path::around_version, prompt::Prompt};
use crate::call::Surface;

/// A call on files, uploads or cached contents.
#[derive(Debug)]
pub(crate) enum FilesCall {
    StartUpload(NewFile),
    UploadPiece { upload: String, offset: Option<u64>, bytes: u64, is_last: bool },
    QueryUpload { upload: String },
    CancelUpload { upload: String },
    CreateCache(NewCache),
    List { collection: Collection, page: PageRequest },
    Get { name: String },
    Delete { name: String },
}

/// A collection of resources, by the name that its paths and resource names have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collection {
    Files,
    CachedContents,
}

/// The metadata of a file that is going to be uploaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewFile {
    /// The name that the caller chose; without it, one is generated.
    pub(crate) name: Option<String>,
    pub(crate) display_name: Option<String>,
    pub(crate) mime_type: String,
    /// The size that was announced, in bytes.
    pub(crate) size: Option<u64>,
}

/// A cached content that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewCache {
    /// The model's name, without `models/`.
    pub(crate) model: String,
    pub(crate) tokens: u64,
    pub(crate) display_name: Option<String>,
    pub(crate) life: Duration,
}

/// The bytes kept of a name. Nothing that a caller chooses is kept at full length.
const NAME: usize = 512;
/// Google's page sizes for files and cached contents: 10, and 100 at most.
const PAGE_SIZE: usize = 10;
const MAX_PAGE_SIZE: usize = 100;
/// Google's `ttl` for a cached content that names none.
const CACHE_LIFE: Duration = Duration::from_secs(3600);

// === impl FilesCall ===

impl FilesCall {
    /// Parses a call. `None` is a path that belongs to none of these calls.
    pub(crate) fn read(surface: Surface, head: &Parts, body: &[u8]) -> Option<Result<Self, ApiError>> {
        if surface != Surface::Developer {
            return None;
        }
        let FilesPath { collection, name, is_upload } = FilesPath::parse(head.uri.path())?;
        Some(match (&head.method, collection, name) {
            (&Method::POST, Collection::Files, None) if is_upload => Self::read_upload(head, body),
            (&Method::POST, Collection::CachedContents, None) if !is_upload => {
                NewCache::read(body).map(Self::CreateCache)
            }
            (&Method::GET, _, None) if !is_upload => {
                let page = PageRequest::of(head.uri.query(), PAGE_SIZE, MAX_PAGE_SIZE);
                page.map(|page| Self::List { collection, page })
            }
            (&Method::GET, _, Some(name)) => Ok(Self::Get { name }),
            (&Method::DELETE, _, Some(name)) => Ok(Self::Delete { name }),
            _ => return None,
        })
    }

    fn read_upload(head: &Parts, body: &[u8]) -> Result<Self, ApiError> {
        let headers = UploadHeaders(&head.headers);
        let command = headers.text("x-goog-upload-command").unwrap_or_default();
        let mut commands = command.split(',').map(str::trim).filter(|command| !command.is_empty());
        match (commands.next(), commands.next(), upload_id(head.uri.query())) {
            (Some("start"), None, None) if headers.text("x-goog-upload-protocol") == Some("resumable") => {
                NewFile::read(headers, body).map(Self::StartUpload)
            }
            (Some(first @ ("upload" | "finalize")), second @ (None | Some("finalize")), Some(upload)) => {
                let is_last = first == "finalize" || second.is_some();
                let offset = headers.number("x-goog-upload-offset")?;
                Ok(Self::UploadPiece { upload, offset, bytes: body.len() as u64, is_last })
            }
            (Some("query"), None, Some(upload)) => Ok(Self::QueryUpload { upload }),
            (Some("cancel"), None, Some(upload)) => Ok(Self::CancelUpload { upload }),
            _ => Err(ApiError::invalid_argument(
                "The emulator takes resumable uploads only: X-Goog-Upload-Protocol: resumable with \
                 X-Goog-Upload-Command: start, then upload, and finalize, at the address in X-Goog-Upload-URL.",
            )),
        }
    }

    /// Returns the upload that the call continues. Its id is a secret: a caller that has it needs no key.
    pub(crate) fn continued_upload(&self) -> Option<&str> {
        match self {
            Self::UploadPiece { upload, .. } | Self::QueryUpload { upload } | Self::CancelUpload { upload } => {
                Some(upload)
            }
            _ => None,
        }
    }
}

fn upload_id(query: Option<&str>) -> Option<String> {
    let id = query?.split('&').find_map(|pair| pair.strip_prefix("upload_id="))?;
    Some(cut(id, NAME))
}

// === impl Collection ===

impl Collection {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::CachedContents => "cachedContents",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Files, Self::CachedContents].into_iter().find(|collection| collection.name() == name)
    }
}

/// The path of a collection, or of one resource in it.
struct FilesPath {
    collection: Collection,
    /// The resource's full name, such as `files/abc`.
    name: Option<String>,
    /// The path begins with `/upload`.
    is_upload: bool,
}

impl FilesPath {
    fn parse(path: &str) -> Option<Self> {
        let (before, rest) = around_version(path)?;
        let mut segments = rest.trim_end_matches('/').split('/');
        let collection = Collection::named(segments.next()?)?;
        let name = segments.next().map(|id| format!("{}/{}", collection.name(), cut(id, NAME)));
        let is_upload = before.ends_with("/upload");
        let is_other_method = name.as_ref().is_some_and(|name| name.contains(':') || is_upload);
        let is_longer = segments.next().is_some();
        (!is_longer && !is_other_method).then_some(Self { collection, name, is_upload })
    }
}

/// The headers of the resumable upload protocol.
#[derive(Clone, Copy)]
struct UploadHeaders<'a>(&'a HeaderMap);

impl<'a> UploadHeaders<'a> {
    fn text(self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
    }

    fn number(self, name: &str) -> Result<Option<u64>, ApiError> {
        let number = self.text(name).map(str::parse).transpose();
        number.map_err(|_| ApiError::invalid_argument(format!("Invalid value in the header {name}.")))
    }
}

// === impl NewFile ===

impl NewFile {
    /// Parses `{file}`, and the announced type and size. A body that is not JSON counts as empty.
    fn read(headers: UploadHeaders<'_>, body: &[u8]) -> Result<Self, ApiError> {
        let json = serde_json::from_slice(body).unwrap_or(Value::Null);
        let file = json.get("file").unwrap_or(&Value::Null);
        let text = |camel, snake| {
            let text = member(file, camel, snake).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(|text| cut(text, NAME))
        };
        let announced_type = headers.text("x-goog-upload-header-content-type").map(|mime_type| cut(mime_type, NAME));
        Ok(Self {
            name: text("name", "name").map(|name| match name.starts_with("files/") {
                true => name,
                false => format!("files/{name}"),
            }),
            display_name: text("displayName", "display_name"),
            mime_type: announced_type
                .or_else(|| text("mimeType", "mime_type"))
                .unwrap_or_else(|| "application/octet-stream".to_owned()),
            size: headers.number("x-goog-upload-header-content-length")?,
        })
    }
}

// === impl NewCache ===

impl NewCache {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let json: Value = serde_json::from_slice(body)
            .map_err(|_| ApiError::invalid_argument("Invalid JSON payload received. Unexpected token."))?;
        let text = |camel, snake| member(&json, camel, snake).and_then(Value::as_str).map(|text| cut(text, NAME));
        let model = text("model", "model").ok_or_else(|| {
            ApiError::invalid_argument("* CreateCachedContentRequest.model: model must be specified.\n")
        })?;
        let seconds = text("ttl", "ttl").and_then(|ttl| ttl.strip_suffix('s')?.parse::<f64>().ok());
        let life = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(CACHE_LIFE);
        Ok(Self {
            model: model.strip_prefix("models/").unwrap_or(&model).to_owned(),
            tokens: Prompt::of(&json).tokens,
            display_name: text("displayName", "display_name"),
            life,
        })
    }
}
