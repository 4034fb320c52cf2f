//! Calls on the things that belong to a project, parsed from their requests: files, cached contents, batches, stores,
//! agents, and what else the API keeps.

use std::time::Duration;

use http::{Method, request::Parts};
use serde_json::{Map, Value};

use super::{
    batch_call::NewBatch,
    cut::cut,
    errors::ApiError,
    json::{elements_of, json_object, member},
    openai_resources,
    page::PageRequest,
    path::is_on_vertex,
    prompt::Prompt,
    resource_path::{Collection, ResourcePath, resource_in},
    upload_call::{NAME, UploadCall},
};
use crate::call::{Call, Surface};

/// A call on things of a project.
#[derive(Debug)]
pub(crate) enum ResourceCall {
    Upload(UploadCall),
    CreateCache(NewCache),
    CreateBatch(NewBatch),
    Create(NewResource),
    /// `files:register`: files that lie in Google Cloud Storage.
    Register {
        uris: Vec<String>,
    },
    /// `importFile`: a file goes into a store.
    Import {
        store: String,
        file: Option<String>,
    },
    /// `predictLongRunning`: a video of a model, from another video where one is named.
    Predict {
        model: String,
        video: Option<String>,
    },
    List {
        collection: Collection,
        within: Option<String>,
        page: PageRequest,
    },
    Get {
        name: String,
    },
    Update {
        name: String,
        members: Map<String, Value>,
    },
    Delete {
        name: String,
    },
    Cancel {
        name: String,
    },
    Download {
        name: String,
    },
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

/// A thing that is to be made of the members that its caller names.
#[derive(Clone, Debug)]
pub(crate) struct NewResource {
    pub(crate) collection: Collection,
    /// The resource that it is made in, for a collection within one.
    pub(crate) within: Option<String>,
    /// The id that the caller chose.
    pub(crate) id: Option<String>,
    pub(crate) members: Map<String, Value>,
    /// The resources that the members name.
    pub(crate) resources: Vec<String>,
}

/// Google's page sizes for files and cached contents: 10, and 100 at most.
const PAGE_SIZE: usize = 10;
const MAX_PAGE_SIZE: usize = 100;
/// Google's `ttl` for a cached content that names none.
const CACHE_LIFE: Duration = Duration::from_secs(3600);
/// The bytes of a body whose members are kept. Of a larger one, only its name and size are.
const KEPT_BODY: usize = 8 * 1024;

// === impl ResourceCall ===

impl ResourceCall {
    /// Parses a call. `None` is a path that belongs to none of these calls.
    pub(crate) fn read(call: &Call, head: &Parts, body: &[u8]) -> Option<Result<Self, ApiError>> {
        let path = head.uri.path();
        if call.surface() == Surface::OpenAi {
            return openai_resources::read(head, body);
        }
        if is_on_vertex(path) {
            return None;
        }
        if let Some((_, method)) = path.rsplit_once(':').filter(|_| head.method == Method::POST)
            && let Some(model) = call.model()
            && matches!(method, "batchGenerateContent" | "asyncBatchEmbedContent" | "predictLongRunning")
        {
            return Some(json_object(body).and_then(|body| match method {
                "predictLongRunning" => Ok(Self::predict(model, &body)),
                _ => NewBatch::read(model, method == "asyncBatchEmbedContent", &body).map(Self::CreateBatch),
            }));
        }
        let ResourcePath { collection, name, within, method, is_upload } =
            ResourcePath::parse(path).filter(|path| path.collection != Collection::Interactions)?;
        let below = |name: &str| within.map(|within| format!("{name}/{within}"));
        Some(match (&head.method, name, method) {
            (&Method::POST, name, None | Some("uploadToFileSearchStore")) if is_upload => {
                UploadCall::read(head, body, name).map(Self::Upload)
            }
            _ if is_upload => return None,
            (&Method::GET, Some(name), Some("download")) if collection == Collection::Files => {
                Ok(Self::Download { name })
            }
            (&Method::GET, None, None) => Self::list(head, collection, None),
            (&Method::GET, Some(name), None) if within.is_some() => Self::list(head, collection, below(&name)),
            (&Method::GET, Some(name), None) => Ok(Self::Get { name }),
            (&Method::DELETE, Some(name), None) if within.is_none() => Ok(Self::Delete { name }),
            (&Method::POST, Some(name), Some("cancel")) => Ok(Self::Cancel { name }),
            (&Method::POST, Some(store), Some("importFile")) => json_object(body).map(|body| {
                let file = member(&body, "fileName", "file_name").and_then(Value::as_str);
                Self::Import { store, file: file.and_then(resource_in) }
            }),
            (&Method::POST, None, Some("register")) if collection == Collection::Files => {
                json_object(body).map(|body| {
                    let uris = elements_of(&body, "uris", "uris").iter().filter_map(Value::as_str);
                    Self::Register { uris: uris.map(|uri| cut(uri, NAME)).collect() }
                })
            }
            (&Method::PATCH, Some(name), _) if within.is_none() => {
                json_object(body).map(|json| Self::Update { name, members: kept(body, json) })
            }
            (&Method::POST, None, None) => match collection {
                Collection::CachedContents => NewCache::read(body).map(Self::CreateCache),
                Collection::Files | Collection::Batches | Collection::Operations | Collection::Videos => return None,
                _ => NewResource::read(collection, None, body).map(Self::Create),
            },
            (&Method::POST, Some(name), None) if within.is_some() => {
                NewResource::read(collection, below(&name), body).map(Self::Create)
            }
            _ => return None,
        })
    }

    /// Returns the names of the resources that the body names.
    pub(crate) fn resources(&self) -> &[String] {
        match self {
            Self::CreateBatch(batch) => batch.resources(),
            Self::Import { file: Some(file), .. } => std::slice::from_ref(file),
            Self::Predict { video: Some(video), .. } => std::slice::from_ref(video),
            Self::Create(new) => &new.resources,
            _ => &[],
        }
    }

    /// Returns the upload that the call continues.
    pub(crate) fn continued_upload(&self) -> Option<&str> {
        match self {
            Self::Upload(upload) => upload.continued(),
            _ => None,
        }
    }

    fn list(head: &Parts, collection: Collection, within: Option<String>) -> Result<Self, ApiError> {
        let page = PageRequest::of(head.uri.query(), PAGE_SIZE, MAX_PAGE_SIZE)?;
        Ok(Self::List { collection, within, page })
    }

    fn predict(model: &str, body: &Value) -> Self {
        let video = elements_of(body, "instances", "instances").iter().find_map(|instance| {
            let uri = instance.get("video").and_then(|video| video.get("uri"))?;
            uri.as_str().and_then(resource_in)
        });
        Self::Predict { model: cut(model, NAME), video }
    }
}

// === impl NewCache ===

impl NewCache {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let json = json_object(body)?;
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

// === impl NewResource ===

impl NewResource {
    fn read(collection: Collection, within: Option<String>, body: &[u8]) -> Result<Self, ApiError> {
        let json = if body.is_empty() { Value::Object(Map::new()) } else { json_object(body)? };
        let id = json.get("id").and_then(Value::as_str).filter(|id| !id.is_empty() && !id.contains('/'));
        // A trigger runs an interaction, and an agent has an environment.
        let mut resources = Vec::new();
        for place in [Some(&json), json.get("interaction")].into_iter().flatten() {
            for (member, collection) in
                [("agent", "agents"), ("environment", "environments"), ("base_environment", "environments")]
            {
                let named = place.get(member).and_then(Value::as_str);
                resources.extend(named.map(|named| cut(&qualified(named, collection), NAME)));
            }
        }
        let id = id.map(|id| cut(id, NAME));
        Ok(Self { collection, within, id, members: kept(body, json), resources })
    }
}

/// Returns a resource's full name where a body may have its id alone.
pub(super) fn qualified(name: &str, collection: &str) -> String {
    match name.strip_prefix(collection).is_some_and(|rest| rest.starts_with('/')) {
        true => name.to_owned(),
        false => format!("{collection}/{name}"),
    }
}

/// Returns the members of a body that are kept: none of a large one.
fn kept(body: &[u8], json: Value) -> Map<String, Value> {
    match json {
        Value::Object(members) if body.len() <= KEPT_BODY => members,
        _ => Map::new(),
    }
}
