//! Calls on the things of a project: carried out on the storage, and answered.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::exchange::{ApiCaller, Exchange};
use crate::{
    call::Surface,
    emulator::{
        script::{plan::ResponsePlan, trouble::Trouble},
        state::{
            storage::{Storage, StorageError, UploadProgress},
            stored::{FileSource, ResourceKind, StoredBatch, StoredResource},
        },
        wire::{
            answer::GeneratedAnswer,
            batch_call::{BatchInput, BatchItem, NewBatch},
            batches::{self, BatchResults, BatchState, BatchView},
            embedding::vector_of,
            errors::ApiError,
            gemini,
            json::line,
            openai_resources,
            page::PageRequest,
            prompt::Prompt,
            resource_call::{NewResource, ResourceCall},
            resource_path::Collection,
            resources::{self, CommonMembers, ResourceJson, timestamp, upload_started, upload_status},
            upload_call::UploadCall,
        },
    },
};

/// The result of a call, before it has an HTTP shape.
enum ResourceResult {
    UploadStarted { upload: String },
    UploadActive { received: u64 },
    UploadCancelled,
    Uploaded { file: StoredResource, last_piece: u64 },
    Made(StoredResource),
    One(StoredResource),
    Registered(Vec<StoredResource>),
    List { collection: Collection, within: Option<String>, resources: Vec<StoredResource>, next: Option<usize> },
    Download(StoredResource),
    Cancelled(StoredResource),
    Done,
}

/// The life of things that the API keeps until they are deleted.
const FOR_EVER: Duration = Duration::MAX;

impl Exchange<'_> {
    /// Carries out a call and plans its answer. Troubles that replace the answer have been ruled out before.
    pub(super) fn respond_to_resource(
        &self,
        call: &ResourceCall,
        caller: &ApiCaller<'_>,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let now = self.shared.elapsed();
        let background = self.shared.settings.background;
        let result = carry_out(call, &mut self.shared.state.lock().storage, &caller.project, now, background);
        match result.and_then(|result| self.resource_answer(result, caller)) {
            Ok((headers, body)) => self.whole(body, self.shared.settings.before_headers, trouble).with_headers(headers),
            Err(error) => self.refuse(&error, Duration::ZERO),
        }
    }

    fn resource_answer(&self, result: ResourceResult, caller: &ApiCaller<'_>) -> Result<(HeaderMap, Bytes), ApiError> {
        if self.call.surface() == Surface::OpenAi && !matches!(result, ResourceResult::Download(_)) {
            return Ok((HeaderMap::new(), self.open_ai_answer(result)));
        }
        let shape = |resource| self.resource_json(resource, false);
        let plain = HeaderMap::new();
        Ok(match result {
            ResourceResult::UploadStarted { upload } => (upload_started(self.head, &upload), Bytes::new()),
            ResourceResult::UploadActive { received } => (upload_status("active", received), Bytes::new()),
            ResourceResult::UploadCancelled => (upload_status("cancelled", 0), Bytes::new()),
            ResourceResult::Uploaded { file, last_piece } => {
                let body = match file.name.split_once("/documents/") {
                    Some((store, id)) => {
                        let response = json!({ "parent": store, "documentName": file.name });
                        resources::one(&ResourceJson::operation(format!("{store}/operations/{id}"), response))
                    }
                    None => resources::uploaded(shape(file)),
                };
                (upload_status("final", last_piece), body)
            }
            ResourceResult::Made(resource) => (plain, resources::one(&self.resource_json(resource, true))),
            ResourceResult::One(resource) => (plain, resources::one(&shape(resource))),
            ResourceResult::Registered(files) => {
                (plain, resources::registered(&files.into_iter().map(shape).collect::<Vec<_>>()))
            }
            ResourceResult::List { collection, within, resources, next } => {
                let all: Vec<_> = resources.into_iter().map(shape).collect();
                (plain, resources::page(collection, within.as_deref(), &all, next))
            }
            ResourceResult::Download(file) => return self.download(&file, caller),
            ResourceResult::Cancelled(_) | ResourceResult::Done => (plain, resources::deleted()),
        })
    }

    /// Shapes a thing; one that was `made` right now shows nothing that comes later.
    fn resource_json(&self, resource: StoredResource, made: bool) -> ResourceJson {
        let StoredResource { name, display_name, made: at, expires, kind, .. } = resource;
        let collection = Collection::of(&name).unwrap_or(Collection::Files);
        let (created, expires) = (self.shared.wall(at), self.shared.wall(expires));
        let common = CommonMembers { name, display_name, made: created, expires };
        match kind {
            ResourceKind::File { mime_type, size, source } => {
                ResourceJson::file(common, mime_type, size.bytes, source.name())
            }
            ResourceKind::Cache { model, tokens } => ResourceJson::cached_content(common, &model, tokens),
            ResourceKind::Batch(batch) => ResourceJson::Other(self.batch_json(&common.name, &batch, at, made)),
            ResourceKind::Operation(response) => ResourceJson::operation(common.name, response),
            ResourceKind::Plain(members) => ResourceJson::plain(common, collection, members),
            ResourceKind::Interaction(_) | ResourceKind::Continuation { .. } => ResourceJson::Other(Value::Null),
        }
    }

    /// Answers in OpenAI's shapes.
    fn open_ai_answer(&self, result: ResourceResult) -> Bytes {
        let body = match result {
            ResourceResult::Made(resource) => self.open_ai_json(resource, true),
            ResourceResult::One(resource) | ResourceResult::Cancelled(resource) => self.open_ai_json(resource, false),
            ResourceResult::List { resources, next, .. } => {
                let all: Vec<_> = resources.into_iter().map(|each| self.open_ai_json(each, false)).collect();
                openai_resources::list(&all, next.is_some())
            }
            _ => openai_resources::deleted(self.head.uri.path()),
        };
        line(&body).into()
    }

    fn open_ai_json(&self, resource: StoredResource, made: bool) -> Value {
        let StoredResource { name, display_name, made: at, kind, .. } = resource;
        let wall = self.shared.wall(at);
        match kind {
            ResourceKind::Batch(batch) => {
                let state = self.state_of(&batch, made);
                let results = batch.results.as_deref().filter(|_| state == BatchState::Succeeded);
                openai_resources::batch(&name, &batch.new, state, results, wall)
            }
            ResourceKind::File { size, .. } => openai_resources::file(&name, display_name.as_deref(), size.bytes, wall),
            ResourceKind::Plain(members) => openai_resources::plain(&name, Collection::Videos, members, wall),
            _ => Value::Null,
        }
    }

    // --- batches ---

    /// Returns a batch's state; one that was `made` right now has not begun.
    fn state_of(&self, batch: &StoredBatch, made: bool) -> BatchState {
        match batch.cancelled {
            true => BatchState::Cancelled,
            false if made => BatchState::Pending,
            false if self.shared.elapsed() < batch.ready => BatchState::Running,
            false => BatchState::Succeeded,
        }
    }

    fn batch_json(&self, name: &str, batch: &StoredBatch, created: Duration, made: bool) -> Value {
        let now = self.shared.elapsed();
        let state = self.state_of(batch, made);
        let results = || match (&batch.results, &batch.new.input) {
            (Some(file), _) => BatchResults::File(file.clone()),
            (None, BatchInput::Inline(items)) => {
                let result =
                    |item: &BatchItem| batches::result(item.key.as_deref(), self.result(&batch.new, &item.text));
                BatchResults::Inline(items.iter().map(result).collect())
            }
            (None, BatchInput::File(_)) => BatchResults::Inline(Vec::new()),
        };
        let time = |time| timestamp(self.shared.wall(time));
        let view = BatchView {
            name,
            new: &batch.new,
            requests: batch.requests,
            state,
            created: time(created),
            updated: time(if state == BatchState::Succeeded { batch.ready } else { now }),
            results: (state == BatchState::Succeeded).then(results),
        };
        view.json()
    }

    /// Returns the result of one request of a batch.
    fn result(&self, batch: &NewBatch, text: &str) -> Value {
        let settings = &self.shared.settings;
        if batch.embeds {
            return json!({ "embedding": { "values": vector_of(text, settings.seed) } });
        }
        let prompt = Prompt::of_text(text);
        let reply = settings.reply.text(&prompt, settings.seed);
        gemini::response_value(&GeneratedAnswer::new(&reply, 1, &prompt, &batch.model, &batch.model))
    }

    /// Writes the content of a file that the API has made; what callers have uploaded cannot be downloaded.
    fn download(&self, file: &StoredResource, caller: &ApiCaller<'_>) -> Result<(HeaderMap, Bytes), ApiError> {
        let ResourceKind::File { size, source: FileSource::Results { of }, mime_type } = &file.kind else {
            return Err(ApiError::invalid_argument("Only generated files can be downloaded."));
        };
        let now = self.shared.elapsed();
        let made_by = self.shared.state.lock().storage.get(of, &caller.project, now).cloned();
        let body = match made_by.map(|made_by| made_by.kind) {
            Some(ResourceKind::Batch(batch)) => {
                let result = |line: u64| (format!("request-{line}"), self.result(&batch.new, &format!("line {line}")));
                batches::results_file((1..=size.lines()).map(result))
            }
            _ => Bytes::from_static(b"an emulated video"),
        };
        let mut headers = HeaderMap::new();
        if let Ok(mime_type) = HeaderValue::from_str(mime_type) {
            headers.insert(HeaderName::from_static("content-type"), mime_type);
        }
        Ok((headers, body))
    }
}

/// Carries out a call of a project on the storage. What takes time is done after `background`.
fn carry_out(
    call: &ResourceCall,
    storage: &mut Storage,
    project: &Arc<str>,
    now: Duration,
    background: Duration,
) -> Result<ResourceResult, ApiError> {
    match call {
        ResourceCall::Upload(upload) => carry_out_upload(upload, storage, project, now),
        ResourceCall::CreateCache(cache) => Ok(ResourceResult::One(storage.cache(cache.clone(), project.clone(), now))),
        ResourceCall::CreateBatch(new) => {
            create_batch(new, storage, project, now, background).map(ResourceResult::Made)
        }
        ResourceCall::Create(NewResource { collection, within, id, members, .. }) => {
            own_parent(storage, within.as_deref(), project, now)?;
            let kind = ResourceKind::Plain(members.clone());
            let collection = within.as_deref().unwrap_or(collection.name());
            let made = storage.make(collection, id.clone(), project, kind, now, FOR_EVER).map_err(api_error)?;
            Ok(ResourceResult::Made(made))
        }
        ResourceCall::Register { uris } => Ok(ResourceResult::Registered(storage.register(uris, project, now))),
        ResourceCall::Import { store, file } => {
            let documents = format!("{store}/documents");
            own_parent(storage, Some(&documents), project, now)?;
            let Some(_) = file else { return Err(ApiError::invalid_argument("The file_name must be set.")) };
            let kind = ResourceKind::Plain(serde_json::Map::new());
            let document = storage.make(&documents, None, project, kind, now, FOR_EVER).map_err(api_error)?;
            let response = json!({ "parent": store, "documentName": document.name });
            operation(storage, store, response, project, now)
        }
        ResourceCall::Predict { model, .. } => {
            let model = format!("models/{model}");
            let id = storage.new_id(12);
            let ready = now.saturating_add(background);
            let file = storage.keep_results(&format!("{model}/operations/{id}"), "video/mp4", project, 0, now, ready);
            let uri = resources::download_address(&file);
            let samples = json!({ "generatedSamples": [{ "video": { "uri": uri } }] });
            operation(storage, &model, json!({ "generateVideoResponse": samples }), project, now)
        }
        ResourceCall::List { collection, within, page } => {
            own_parent(storage, within.as_deref(), project, now)?;
            Ok(list(storage, *collection, within.clone(), *page, project, now))
        }
        ResourceCall::Get { name } => Ok(ResourceResult::One(own(storage, name, project, now)?.clone())),
        ResourceCall::Download { name } => Ok(ResourceResult::Download(own(storage, name, project, now)?.clone())),
        ResourceCall::Update { name, members } => {
            let own = storage.get_mut(name, project, now).ok_or_else(|| ApiError::not_yours(name))?;
            match &mut own.kind {
                ResourceKind::Plain(known) => known.extend(members.clone()),
                ResourceKind::Cache { .. } => {}
                _ => return Err(ApiError::not_found()),
            }
            Ok(ResourceResult::One(own.clone()))
        }
        ResourceCall::Delete { name } => match storage.delete(name, project, now) {
            true => Ok(ResourceResult::Done),
            false => Err(ApiError::not_yours(name)),
        },
        ResourceCall::Cancel { name } => {
            let own = storage.get_mut(name, project, now).ok_or_else(|| ApiError::not_yours(name))?;
            let ResourceKind::Batch(batch) = &mut own.kind else { return Err(ApiError::not_found()) };
            // A batch that has ended stays as it is.
            batch.cancelled |= now < batch.ready;
            Ok(ResourceResult::Cancelled(own.clone()))
        }
    }
}

fn carry_out_upload(
    call: &UploadCall,
    storage: &mut Storage,
    project: &Arc<str>,
    now: Duration,
) -> Result<ResourceResult, ApiError> {
    match call {
        UploadCall::Start(file) => {
            if let Some(parent) = &file.parent {
                own(storage, parent, project, now)?;
            }
            let upload = storage.start(file.clone(), project.clone(), now).map_err(api_error)?;
            Ok(ResourceResult::UploadStarted { upload })
        }
        UploadCall::Piece { upload, offset, size, is_last } => {
            let progress = storage.receive(upload, project, *offset, *size, *is_last, now).map_err(api_error)?;
            Ok(match progress {
                UploadProgress::Active(received) => ResourceResult::UploadActive { received },
                UploadProgress::Final(file) => ResourceResult::Uploaded { file, last_piece: size.bytes },
            })
        }
        UploadCall::Query { upload } => {
            let received = storage.received(upload, project).map_err(api_error)?;
            Ok(ResourceResult::UploadActive { received })
        }
        UploadCall::Cancel { upload } => {
            storage.cancel(upload, project).map_err(api_error)?;
            Ok(ResourceResult::UploadCancelled)
        }
    }
}

fn create_batch(
    new: &NewBatch,
    storage: &mut Storage,
    project: &Arc<str>,
    now: Duration,
    background: Duration,
) -> Result<StoredResource, ApiError> {
    let (id, ready) = (storage.new_id(36), now.saturating_add(background));
    let (requests, results) = match &new.input {
        BatchInput::Inline(items) => (items.len() as u64, None),
        BatchInput::File(name) => {
            let requests = match &own(storage, name, project, now)?.kind {
                ResourceKind::File { size, .. } => size.lines(),
                _ => 0,
            };
            let batch = format!("batches/{id}");
            let file = storage.keep_results(&batch, "application/jsonl", project, requests, now, ready);
            (requests, Some(file))
        }
    };
    let batch = StoredBatch { new: new.clone(), requests, ready, cancelled: false, results };
    storage.make("batches", Some(id), project, ResourceKind::Batch(Box::new(batch)), now, FOR_EVER).map_err(api_error)
}

/// Keeps an operation below the thing that it works on, and answers with it.
fn operation(
    storage: &mut Storage,
    of: &str,
    response: Value,
    project: &Arc<str>,
    now: Duration,
) -> Result<ResourceResult, ApiError> {
    let kind = ResourceKind::Operation(response);
    let made = storage.make(&format!("{of}/operations"), None, project, kind, now, FOR_EVER).map_err(api_error)?;
    Ok(ResourceResult::Made(made))
}

fn own<'a>(storage: &'a Storage, name: &str, project: &str, now: Duration) -> Result<&'a StoredResource, ApiError> {
    storage.get(name, project, now).ok_or_else(|| ApiError::not_yours(name))
}

/// Checks that the thing that a collection stands in is the project's.
fn own_parent(storage: &Storage, within: Option<&str>, project: &str, now: Duration) -> Result<(), ApiError> {
    match within.and_then(|within| within.rsplit_once('/')) {
        Some((parent, _)) => own(storage, parent, project, now).map(|_| ()),
        None => Ok(()),
    }
}

fn list(
    storage: &Storage,
    collection: Collection,
    within: Option<String>,
    page: PageRequest,
    project: &str,
    now: Duration,
) -> ResourceResult {
    let path = within.clone().unwrap_or_else(|| collection.name().to_owned());
    let mut all = storage.list(&path, project, now).skip(page.from);
    let resources = all.by_ref().take(page.size).cloned().collect();
    let next = all.next().is_some().then(|| page.from + page.size);
    ResourceResult::List { collection, within, resources, next }
}

fn api_error(error: StorageError) -> ApiError {
    match error {
        StorageError::Unknown => ApiError::not_found(),
        StorageError::Misplaced { received } => ApiError::invalid_argument(format!(
            "The upload does not fit: {received} bytes of it have arrived, and this piece does not continue there, or its \
             size is not the announced one."
        )),
        StorageError::Taken => ApiError::new(409, "ALREADY_EXISTS", "Requested entity already exists"),
        StorageError::Full => ApiError::bare_quota(),
    }
}
