//! Resources that belong to one project: files, cached contents, tuned models, uploads under way.
//!
//! Another project's key gets 403 or 404 for them, so that a call which names one has to go to the project that made
//! it, and to no other. The name stands in the path, in the query of an upload, or in a few members of the JSON body,
//! which are looked for at memory speed: their names cannot stand in a JSON string without a backslash before the
//! quotes.

use http::Uri;
use memchr::{memchr, memchr_iter};

use crate::call::is_version;

/// The collections whose members belong to the project that made them.
const COLLECTIONS: [&str; 19] = [
    "agents",
    "batches",
    "cachedContents",
    "corpora",
    "credentials",
    "environments",
    "fileSearchStores",
    "files",
    "generatedFiles",
    "interactions",
    "operations",
    "ragStores",
    "responses",
    "triggers",
    "tunedModels",
    "upload_id",
    "videos",
    "voices",
    "webhooks",
];

/// The longest name that is kept: Google's have at most some dozens of characters, and callers invent longer ones.
const MAX_NAME: usize = 512;

/// The name of a resource of one project: `files/abc`, `cachedContents/x`, `upload_id/…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Resource(Box<str>);

impl Resource {
    fn new(collection: &str, id: &str) -> Option<Self> {
        let end = id.find(['/', ':', '?', '#', '%']).unwrap_or(id.len());
        let id = &id[..end];
        (!id.is_empty() && id.len() <= MAX_NAME).then(|| Self(format!("{collection}/{id}").into()))
    }

    /// Returns whether a path leads to a whole collection: what is created or listed there belongs to a project.
    pub(crate) fn is_collection(path: &str) -> bool {
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let (name, verb) = last.split_once(':').map_or((last, None), |(name, verb)| (name, Some(verb)));
        // An interaction costs a model's quota like any other call, and is found again by its id. A collection below a
        // resource belongs where that resource is.
        !matches!(name, "interactions" | "responses")
            && matches!(verb, None | Some("create" | "register"))
            && COLLECTIONS.contains(&name)
            && Self::in_path(path).is_none()
    }

    /// Finds the first resource that a path names: `…/files/abc:download`, `models/m/operations/o`.
    pub(crate) fn in_path(path: &str) -> Option<Self> {
        let mut segments = path.split('/').skip_while(|segment| !is_version(segment)).skip(1).peekable();
        while let Some(segment) = segments.next() {
            if let (Some(collection), Some(id)) = (COLLECTIONS.iter().find(|known| **known == segment), segments.peek())
                && let Some(resource) = Self::new(collection, id)
            {
                return Some(resource);
            }
        }
        None
    }

    /// Reads a resource's own name, as bodies and answers have it: `files/abc`,
    /// `projects/p/locations/l/cachedContents/x`, or the whole URL of one of the API's files.
    pub(crate) fn in_name(name: &str) -> Option<Self> {
        if name.contains("://") {
            return Self::in_path(name.split(['?', '#']).next()?);
        }
        let mut segments = name.split('/').peekable();
        while let Some(segment) = segments.next() {
            if let (Some(collection), Some(id)) = (COLLECTIONS.iter().find(|known| **known == segment), segments.peek())
            {
                return Self::new(collection, id);
            }
        }
        None
    }

    /// Finds an upload under way, by the `upload_id` in its query.
    pub(crate) fn in_query(query: &str) -> Option<Self> {
        let id = query.split('&').find_map(|pair| pair.strip_prefix("upload_id="))?;
        Self::new("upload_id", id)
    }

    /// Finds the resource that a request's URI names.
    pub(crate) fn in_uri(uri: &Uri) -> Option<Self> {
        uri.query().and_then(Self::in_query).or_else(|| Self::in_path(uri.path()))
    }

    /// Finds the resources that a JSON body names, in its order.
    pub(crate) fn in_body(body: &[u8]) -> impl Iterator<Item = Self> {
        // One pass, from quote to quote: the large parts of large bodies, media and prose, have hardly any.
        memchr_iter(b'"', body).filter_map(|at| {
            let rest = &body[at + 1..];
            // The first letter rules out most strings.
            matches!(rest.first(), Some(b'a' | b'c' | b'e' | b'f' | b'i' | b'p' | b'u' | b'v')).then_some(())?;
            MEMBERS.iter().find_map(|member| member.resource(rest.strip_prefix(member.name)?))
        })
    }
}

/// A member of a JSON body that names a resource.
struct Member {
    /// The name, with the quotes that end it.
    name: &'static [u8],
    /// The collection in which the value is an id, where it is not a full name.
    collection: Option<&'static str>,
}

const MEMBERS: [Member; 22] = [
    Member { name: b"fileUri\"", collection: None },
    Member { name: b"file_uri\"", collection: None },
    // An item of an interaction's input; the video that another one extends.
    Member { name: b"uri\"", collection: None },
    Member { name: b"cachedContent\"", collection: None },
    Member { name: b"cached_content\"", collection: None },
    Member { name: b"fileSearchStoreNames\"", collection: None },
    Member { name: b"file_search_store_names\"", collection: None },
    // The input of a batch, and a file that is imported.
    Member { name: b"fileName\"", collection: None },
    Member { name: b"file_name\"", collection: None },
    Member { name: b"inputFileId\"", collection: Some("files") },
    Member { name: b"input_file_id\"", collection: Some("files") },
    Member { name: b"file_id\"", collection: Some("files") },
    Member { name: b"previousInteractionId\"", collection: Some("interactions") },
    Member { name: b"previous_interaction_id\"", collection: Some("interactions") },
    Member { name: b"previousResponseId\"", collection: Some("responses") },
    Member { name: b"previous_response_id\"", collection: Some("responses") },
    Member { name: b"agent\"", collection: Some("agents") },
    Member { name: b"environment\"", collection: Some("environments") },
    Member { name: b"environment_id\"", collection: Some("environments") },
    Member { name: b"voice\"", collection: None },
    Member { name: b"corpus\"", collection: None },
    Member { name: b"ragStore\"", collection: None },
];

impl Member {
    /// Reads the value behind the member's name: a string, or the first of a list of strings. Any other value is
    /// skipped.
    fn resource(&self, rest: &[u8]) -> Option<Resource> {
        let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let rest = rest.strip_prefix(b"[").unwrap_or(rest).trim_ascii_start().strip_prefix(b"\"")?;
        let value = std::str::from_utf8(&rest[..memchr(b'"', rest)?]).ok()?;
        match self.collection {
            Some(collection) if !value.contains('/') => Resource::new(collection, value),
            // A slash may be escaped.
            _ if value.contains('\\') => Resource::in_name(&value.replace("\\/", "/")),
            _ => Resource::in_name(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_body(body: &str) -> Vec<String> {
        Resource::in_body(body.as_bytes()).map(|resource| resource.0.into()).collect()
    }

    #[test]
    fn what_a_path_names() {
        for (path, expected) in [
            ("/v1beta/files/abc", Some("files/abc")),
            ("/relay/v1beta/files/abc:download?alt=media", Some("files/abc")),
            ("/download/v1beta/files/abc:download", Some("files/abc")),
            ("/v1beta/tunedModels/t:generateContent", Some("tunedModels/t")),
            ("/v1beta/models/veo-3/operations/op", Some("operations/op")),
            ("/v1beta/openai/files/f", Some("files/f")),
            ("/v1beta/interactions/i1", Some("interactions/i1")),
            ("/v1beta/fileSearchStores/s/documents/d", Some("fileSearchStores/s")),
            ("/upload/v1beta/files?upload_id=AB_1&upload_protocol=resumable", Some("upload_id/AB_1")),
            ("/upload/v1beta/files", None),
            ("/v1beta/files", None),
            ("/v1beta/files/", None),
            ("/v1beta/models/files:generateContent", None),
            ("/v1beta/models/gemini-2.5-pro:generateContent", None),
            ("/files/abc", None),
        ] {
            let found = Resource::in_uri(&path.parse().unwrap()).map(|resource| resource.0);
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn what_a_body_names() {
        let uri = "https://generativelanguage.googleapis.com/v1beta/files/abc";
        assert_eq!(in_body(&format!(r#"{{"fileData": {{"fileUri" : "{uri}"}}}}"#)), ["files/abc"]);
        assert_eq!(in_body(r#"{"file_uri":"http:\/\/localhost\/v1\/files\/a?x"}"#), ["files/a"]);
        assert_eq!(in_body(r#"{"cachedContent": "cachedContents/x"}"#), ["cachedContents/x"]);
        assert_eq!(in_body(r#"{"cached_content": "projects/p/locations/l/cachedContents/x"}"#), ["cachedContents/x"]);
        assert_eq!(in_body(r#"{"file_search_store_names": [ "fileSearchStores/s", "t"]}"#), ["fileSearchStores/s"]);
        assert_eq!(in_body(r#"{"previous_interaction_id": "v1_x"}"#), ["interactions/v1_x"]);
        assert_eq!(in_body(r#"[{"fileUri": "files/a"}, {"fileUri": "files/b"}]"#), ["files/a", "files/b"]);
    }

    #[test]
    fn what_is_nobodys_or_only_text_names_nothing() {
        for body in [
            r#"{"fileUri": "https://www.youtube.com/watch?v=files/abc"}"#,
            r#"{"fileUri": "gs://bucket/files.pdf"}"#,
            r#"{"text": "{\"fileUri\": \"files/abc\", \"cachedContent\": \"cachedContents/x\"}"}"#,
            r#"{"cachedContent": null, "fileUri": 1, "file_uri""#,
            "\"cachedContent\"",
            "",
        ] {
            assert_eq!(in_body(body), Vec::<String>::new(), "{body}");
        }
    }

    #[test]
    fn a_long_name_is_none() {
        assert_eq!(Resource::in_name(&format!("files/{}", "x".repeat(600))), None);
    }
}

#[cfg(test)]
mod surface;
