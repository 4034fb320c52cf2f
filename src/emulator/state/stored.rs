//! The things that belong to a project.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};

use crate::emulator::wire::{
    answer::GeneratedAnswer, batch_call::NewBatch, interaction_call::Called, upload_call::PieceSize,
};

/// A thing of a project.
#[derive(Clone, Debug)]
pub(crate) struct StoredResource {
    /// The full name: `files/abc`, `cachedContents/abc`, `fileSearchStores/s/documents/d`.
    pub(crate) name: String,
    pub(crate) project: Arc<str>,
    pub(crate) display_name: Option<String>,
    /// The time from which on it exists, which may lie ahead.
    pub(crate) made: Duration,
    pub(crate) expires: Duration,
    pub(crate) kind: ResourceKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ResourceKind {
    File {
        mime_type: String,
        size: PieceSize,
        source: FileSource,
    },
    Cache {
        model: String,
        tokens: u64,
    },
    Batch(Box<StoredBatch>),
    Interaction(Box<StoredInteraction>),
    /// A token to go on with an answer that was not finished, and the text of its prompt.
    Continuation {
        prompt: String,
    },
    /// The members that the caller named, of a thing that the emulator only keeps.
    Plain(Map<String, Value>),
    /// An operation that has ended, with its response.
    Operation(Value),
}

/// The origin of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileSource {
    Uploaded,
    Registered,
    /// The file has the results of a batch or an operation.
    Results {
        of: String,
    },
}

/// A batch of requests.
#[derive(Clone, Debug)]
pub(crate) struct StoredBatch {
    pub(crate) new: NewBatch,
    pub(crate) requests: u64,
    /// The time at which its results are there.
    pub(crate) ready: Duration,
    pub(crate) cancelled: bool,
    /// The file with its results, if its requests stood in one.
    pub(crate) results: Option<String>,
}

/// An interaction that can be read and continued.
#[derive(Clone, Debug)]
pub(crate) struct StoredInteraction {
    pub(crate) called: Called,
    pub(crate) answer: GeneratedAnswer,
    pub(crate) previous: Option<String>,
    /// The beginning of the prompt's last turn.
    pub(crate) prompt: String,
    /// The time at which its answer is there.
    pub(crate) ready: Duration,
    pub(crate) cancelled: bool,
}

// === impl StoredResource ===

impl StoredResource {
    /// Returns whether the thing belongs to the project, and exists at that time.
    pub(crate) fn is_of(&self, project: &str, now: Duration) -> bool {
        *self.project == *project && self.made <= now && self.expires > now
    }
}

// === impl FileSource ===

impl FileSource {
    /// Returns Google's name for the source.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Uploaded => "UPLOADED",
            Self::Registered => "REGISTERED",
            Self::Results { .. } => "GENERATED",
        }
    }
}
