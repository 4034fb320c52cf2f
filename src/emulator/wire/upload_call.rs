//! The calls of an upload, parsed from their requests: the resumable protocol of Google's upload servers.

use http::{HeaderMap, request::Parts};
use serde_json::Value;

use super::{cut::cut, errors::ApiError, json::member};

/// A call of a resumable upload.
#[derive(Debug)]
pub(crate) enum UploadCall {
    Start(NewFile),
    Piece { upload: String, offset: Option<u64>, size: PieceSize, is_last: bool },
    Query { upload: String },
    Cancel { upload: String },
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
    /// The resource that the file goes into, if it goes into one: `fileSearchStores/s`, `environments/e`.
    pub(crate) parent: Option<String>,
}

/// The size of a piece, which is all that is kept of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PieceSize {
    pub(crate) bytes: u64,
    /// The number of line ends: a file of requests has one on each line.
    pub(crate) line_ends: u64,
    /// The piece ends within a line.
    pub(crate) ends_in_line: bool,
}

/// The bytes kept of a name. Nothing that a caller chooses is kept at full length.
pub(super) const NAME: usize = 512;

// === impl UploadCall ===

impl UploadCall {
    /// Parses a call to an upload's address; `parent` is the resource that its path names.
    pub(super) fn read(head: &Parts, body: &[u8], parent: Option<String>) -> Result<Self, ApiError> {
        let headers = UploadHeaders(&head.headers);
        let command = headers.text("x-goog-upload-command").unwrap_or_default();
        let mut commands = command.split(',').map(str::trim).filter(|command| !command.is_empty());
        match (commands.next(), commands.next(), upload_id(head.uri.query())) {
            (Some("start"), None, None) if headers.text("x-goog-upload-protocol") == Some("resumable") => {
                NewFile::read(headers, body, parent).map(Self::Start)
            }
            (Some(first @ ("upload" | "finalize")), second @ (None | Some("finalize")), Some(upload)) => {
                let is_last = first == "finalize" || second.is_some();
                let offset = headers.number("x-goog-upload-offset")?;
                Ok(Self::Piece { upload, offset, size: PieceSize::of(body), is_last })
            }
            (Some("query"), None, Some(upload)) => Ok(Self::Query { upload }),
            (Some("cancel"), None, Some(upload)) => Ok(Self::Cancel { upload }),
            _ => Err(ApiError::invalid_argument(
                "The emulator takes resumable uploads only: X-Goog-Upload-Protocol: resumable with \
                 X-Goog-Upload-Command: start, then upload, and finalize, at the address in X-Goog-Upload-URL.",
            )),
        }
    }

    /// Returns the upload that the call continues. Its id is a secret: a caller that has it needs no key.
    pub(crate) fn continued(&self) -> Option<&str> {
        match self {
            Self::Piece { upload, .. } | Self::Query { upload } | Self::Cancel { upload } => Some(upload),
            Self::Start(_) => None,
        }
    }
}

fn upload_id(query: Option<&str>) -> Option<String> {
    let id = query?.split('&').find_map(|pair| pair.strip_prefix("upload_id="))?;
    Some(cut(id, NAME))
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
    fn read(headers: UploadHeaders<'_>, body: &[u8], parent: Option<String>) -> Result<Self, ApiError> {
        let json = serde_json::from_slice(body).unwrap_or(Value::Null);
        let file = json.get("file").unwrap_or(&json);
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
            parent,
        })
    }
}

// === impl PieceSize ===

impl PieceSize {
    pub(crate) fn of(piece: &[u8]) -> Self {
        Self {
            bytes: piece.len() as u64,
            line_ends: memchr::memchr_iter(b'\n', piece).count() as u64,
            ends_in_line: piece.last().is_some_and(|last| *last != b'\n'),
        }
    }

    /// Returns the size of a piece together with the next.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(next.bytes),
            line_ends: self.line_ends.saturating_add(next.line_ends),
            ends_in_line: if next.bytes == 0 { self.ends_in_line } else { next.ends_in_line },
        }
    }

    /// Returns the number of lines, the last of which may have no end.
    pub(crate) fn lines(self) -> u64 {
        self.line_ends + u64::from(self.ends_in_line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_across_pieces() {
        let whole = b"{\"key\": 1}\n{\"key\": 2}\n{\"key\": 3}";
        for at in 0..=whole.len() {
            let (first, second) = whole.split_at(at);
            let size = PieceSize::of(first).then(PieceSize::of(second));
            assert_eq!((size.bytes, size.lines()), (whole.len() as u64, 3), "cut at {at}");
        }
        assert_eq!(PieceSize::of(b"").lines(), 0);
        assert_eq!(PieceSize::of(b"a\n").lines(), 1);
    }
}
