//! Resources that belong to one project: files, cached contents, tuned models, uploads under way, interactions, agents.
//!
//! Another project's key gets 403 or 404 for them, so that a call which names one has to go to the project that made
//! it, and to no other. The name stands in the path, in the query of an upload, or in the JSON body.
//!
//! The [key pool](crate::key_pool) finds the project of a call by them. A program that serves several callers can tell
//! by them whose things a call is about: [`Resource::all_in_uri`] and [`Resource::all_in_body`] name those of a request,
//! and an [`AnswerReader`] those that an answer has made.
//!
//! ```
//! use tower_gemini::resource::Resource;
//!
//! let body = br#"{"contents": [{"parts": [{"fileData": {"fileUri": "https://host/v1beta/files/abc"}}]}]}"#;
//! let named: Vec<_> = Resource::all_in_body(body).collect();
//! assert_eq!(named[0].as_str(), "files/abc");
//! ```

mod answer;
mod continuation;
mod mentions;

use std::fmt;

use http::Uri;
use memchr::memchr2;

pub use self::answer::{AnswerReader, Described, described};
pub(crate) use self::{
    continuation::{TokenFinder, TokenHash},
    mentions::{Mentions, naming},
};
use crate::{
    bounded::MAX_NAME,
    call::{is_version, percent_decoded},
};

/// The most names of one call that are looked up: a caller who writes down more has not created them all.
pub(crate) const MAX_NAMED: usize = 4_096;

/// The collections whose members belong to the project that made them.
const COLLECTIONS: [&str; 18] = [
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
    "videos",
    "voices",
    "webhooks",
];

/// Uploads under way, which are named by the query.
const UPLOADS: &str = "upload_id";

/// Answers that go on, which are named by a hash of their token.
const CONTINUATIONS: &str = "continuation";

/// Objects in Cloud Storage, which are everybody's that may read them, unless a project has registered them.
const OBJECTS: &str = "gs";

/// The name of a resource of one project: `files/abc`, `cachedContents/x`, `upload_id/…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(Box<str>);

impl Resource {
    /// Reads a name as [`as_str`](Self::as_str) has written it, which [`in_name`](Self::in_name) does not for all: an object
    /// in storage has no such name in bodies.
    pub fn parse(name: &str) -> Option<Self> {
        let (collection, id) = name.split_once('/')?;
        (!collection.is_empty() && !id.is_empty() && name.len() <= 2 * MAX_NAME).then(|| Self(name.into()))
    }

    /// Returns the name, which begins with the collection: `files/abc`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Lists every resource that a request's URI may name, more than one where a server could read it in more than one
    /// way.
    pub fn all_in_uri(uri: &Uri) -> Vec<Self> {
        let path = percent_decoded(uri.path());
        let mut all = Vec::new();
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let mut last = segments.next();
        for segment in segments {
            all.extend(last.and_then(collection).and_then(|collection| Self::new(collection, segment)));
            // A file of an environment has a name of its own.
            if last == Some("environments") {
                break;
            }
            last = Some(segment);
        }
        let query = uri.query().unwrap_or_default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = percent_decoded(value);
            all.extend(if name == UPLOADS { Self::new(UPLOADS, &value) } else { Self::in_name(&value) });
        }
        all
    }

    /// Finds every resource that a JSON body names, or may name, in its order.
    pub fn all_in_body(body: &[u8]) -> impl Iterator<Item = Self> + '_ {
        Mentions::new(body).map(|mention| mention.resource)
    }

    /// Finds the collection whose members a path would list.
    pub fn listed_at(path: &str) -> Option<&'static str> {
        let path = percent_decoded(path);
        Self::collection_in_path(path.trim_end_matches(['/', ':']))
    }

    /// Names a member of a collection. An id ends where a verb, a path below it, or a query begins.
    pub(crate) fn new(collection: &str, id: &str) -> Option<Self> {
        let end = id.find(['/', ':', '?', '#']).unwrap_or(id.len());
        let id = &id[..end];
        (!id.is_empty() && id.len() <= MAX_NAME).then(|| Self(format!("{collection}/{id}").into()))
    }

    /// Returns the collection that it is in.
    pub fn collection(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(collection, _)| collection)
    }

    /// Names an answer that goes on.
    fn continuation(hash: u64) -> Self {
        Self(format!("{CONTINUATIONS}/{hash:016x}").into())
    }

    /// Finds the collection that a path leads to: the answer describes a member of it, or lists them. A collection
    /// below a resource belongs where that resource is.
    pub(crate) fn collection_in_path(path: &str) -> Option<&'static str> {
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let (name, verb) = last.split_once(':').map_or((last, None), |(name, verb)| (name, Some(verb)));
        let known = collection(name).filter(|_| matches!(verb, None | Some("create" | "createStream" | "register")))?;
        Self::in_path(path).is_none().then_some(known)
    }

    /// Finds the collection to which an id in the answer belongs: that of the whole, or of
    /// the member to which a path leads.
    pub fn asked_collection(path: &str) -> Option<&'static str> {
        let of_member = || {
            let mut segments = path.trim_end_matches('/').rsplit('/');
            segments.next().filter(|id| !id.contains(':'))?;
            collection(segments.next()?)
        };
        Self::collection_in_path(path).or_else(of_member)
    }

    /// Returns whether a path leads to a whole collection: what is created or listed there belongs to a project.
    pub(crate) fn is_collection(path: &str) -> bool {
        // An interaction costs a model's quota like any other call, and is found again by its id.
        Self::collection_in_path(path).is_some_and(|name| !matches!(name, "interactions" | "responses"))
    }

    /// Finds the first resource that a path names: `…/files/abc:download`, `models/m/operations/o`.
    pub(crate) fn in_path(path: &str) -> Option<Self> {
        // Nearly all paths name a model, and nothing behind it.
        let model = ["/v1beta/models/", "/v1/models/"].into_iter().find_map(|start| path.strip_prefix(start));
        if model.is_some_and(|model| memchr2(b'/', b'%', model.as_bytes()).is_none()) {
            return None;
        }
        let path = percent_decoded(path);
        let mut segments = path.split('/').skip_while(|segment| !is_version(segment)).skip(1).peekable();
        while let Some(segment) = segments.next() {
            if let (Some(collection), Some(id)) = (collection(segment), segments.peek())
                && let Some(resource) = Self::new(collection, id)
            {
                return Some(resource);
            }
        }
        None
    }

    /// Reads a resource's own name, as bodies and answers have it: `files/abc`,
    /// `projects/p/locations/l/cachedContents/x`, or the whole URL of one of the API's resources.
    ///
    /// The name has to begin with a collection, or with its parents: a path of somebody's own, such as
    /// `src/files/main.rs`, names nothing.
    pub fn in_name(name: &str) -> Option<Self> {
        if let Some((scheme, rest)) = name.split_once("://") {
            return match &*scheme.to_ascii_lowercase() {
                "https" | "http" => Self::in_path(rest.split(['?', '#']).next()?),
                // A project may have registered it as a file of its own.
                "gs" => (rest.len() <= MAX_NAME).then(|| Self(format!("{OBJECTS}/{rest}").into())),
                _ => None,
            };
        }
        let mut segments = name.strip_prefix('/').unwrap_or(name).split('/').peekable();
        segments.next_if(|segment| is_version(segment));
        let in_project = segments.peek() == Some(&"projects");
        loop {
            let (kind, id) = (segments.next()?, segments.next()?);
            if let Some(collection) = collection(kind) {
                return Self::new(collection, id);
            }
            if !in_project && !matches!(kind, "models" | "publishers" | "locations") {
                return None;
            }
        }
    }

    /// Finds an upload under way, by the `upload_id` in its query.
    pub fn in_query(query: &str) -> Option<Self> {
        let id = query.split('&').find_map(|pair| pair.strip_prefix("upload_id="))?;
        Self::new(UPLOADS, &percent_decoded(id))
    }

    /// Finds the resource that a request's URI names.
    pub(crate) fn in_uri(uri: &Uri) -> Option<Self> {
        uri.query().and_then(Self::in_query).or_else(|| Self::in_path(uri.path()))
    }

    /// Returns the batch whose results a file has: `batches/b` of `files/batch-b`.
    pub fn batch_of_results(&self) -> Option<Self> {
        Self::new("batches", self.0.strip_prefix("files/batch-")?)
    }

    /// Returns whether it is an object in Cloud Storage.
    pub(crate) fn is_object(&self) -> bool {
        self.collection() == OBJECTS
    }

    /// Returns whether it is an answer that goes on.
    pub(crate) fn is_continuation(&self) -> bool {
        self.collection() == CONTINUATIONS
    }

    /// Returns whether Google has public ones beside those of the projects, under names that look the same.
    pub(crate) fn may_be_public(&self) -> bool {
        matches!(self.collection(), "agents" | "voices")
    }

    /// Returns whether it is one of many that come with ordinary calls, and is soon of no use any more.
    pub fn is_passing(&self) -> bool {
        matches!(self.collection(), "interactions" | "responses" | UPLOADS | CONTINUATIONS)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A resource that a body names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) resource: Resource,
    /// False if the name may as well be one of Google's public things, or only look like a name.
    pub(crate) is_certain: bool,
}

/// Returns the collection of that name.
fn collection(name: &str) -> Option<&'static str> {
    // Vertex AI has interactions at two addresses.
    let name = if name == "interactionsHttp" { "interactions" } else { name };
    COLLECTIONS.iter().find(|known| **known == name).copied()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod surface;
