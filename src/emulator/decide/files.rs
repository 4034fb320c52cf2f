//! Calls on files, uploads and cached contents: carried out on the storage, and answered.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;

use super::exchange::{ApiCaller, Exchange};
use crate::emulator::{
    script::{plan::ResponsePlan, trouble::Trouble},
    state::storage::{ResourceKind, Storage, StorageError, StoredResource, UploadProgress},
    wire::{
        errors::ApiError,
        files::{self, CommonMembers, ResourceJson, upload_started, upload_status},
        files_call::{Collection, FilesCall},
        page::PageRequest,
    },
};

/// The result of a call, before it has an HTTP shape.
enum FilesResult {
    UploadStarted { upload: String },
    UploadActive { received: u64 },
    UploadCancelled,
    Uploaded { file: StoredResource, last_piece: u64 },
    One(StoredResource),
    List { collection: Collection, resources: Vec<StoredResource>, next: Option<usize> },
    Deleted,
}

impl Exchange<'_> {
    /// Carries out a call and plans its answer. Troubles that replace the answer have been ruled out before.
    pub(super) fn respond_to_files(
        &self,
        call: &FilesCall,
        caller: &ApiCaller<'_>,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let now = self.shared.elapsed();
        let result = carry_out(call, &mut self.shared.state.lock().storage, &caller.project, now);
        match result {
            Ok(result) => {
                let (headers, body) = self.files_answer(result);
                self.whole(body, self.shared.settings.before_headers, trouble).with_headers(headers)
            }
            Err(error) => self.refuse(&error, Duration::ZERO),
        }
    }

    fn files_answer(&self, result: FilesResult) -> (HeaderMap, Bytes) {
        let json = |resource| self.resource_json(resource);
        match result {
            FilesResult::UploadStarted { upload } => (upload_started(self.head, &upload), Bytes::new()),
            FilesResult::UploadActive { received } => (upload_status("active", received), Bytes::new()),
            FilesResult::UploadCancelled => (upload_status("cancelled", 0), Bytes::new()),
            FilesResult::Uploaded { file, last_piece } => {
                (upload_status("final", last_piece), files::uploaded(json(file)))
            }
            FilesResult::One(resource) => (HeaderMap::new(), files::one(&json(resource))),
            FilesResult::List { collection, resources, next } => {
                (HeaderMap::new(), files::page(collection, resources.into_iter().map(json).collect(), next))
            }
            FilesResult::Deleted => (HeaderMap::new(), files::deleted()),
        }
    }

    fn resource_json(&self, resource: StoredResource) -> ResourceJson {
        let StoredResource { name, display_name, made, expires, kind, .. } = resource;
        let (made, expires) = (self.shared.wall(made), self.shared.wall(expires));
        let common = CommonMembers { name, display_name, made, expires };
        match kind {
            ResourceKind::File { mime_type, bytes } => ResourceJson::file(common, mime_type, bytes),
            ResourceKind::Cache { model, tokens } => ResourceJson::cached_content(common, &model, tokens),
        }
    }
}

/// Carries out a call of a project on the storage.
fn carry_out(
    call: &FilesCall,
    storage: &mut Storage,
    project: &Arc<str>,
    now: Duration,
) -> Result<FilesResult, ApiError> {
    match call {
        FilesCall::StartUpload(file) => {
            let upload = storage.start(file.clone(), project.clone(), now).map_err(api_error)?;
            Ok(FilesResult::UploadStarted { upload })
        }
        FilesCall::UploadPiece { upload, offset, bytes, is_last } => {
            let progress = storage.receive(upload, project, *offset, *bytes, *is_last, now).map_err(api_error)?;
            Ok(match progress {
                UploadProgress::Active(received) => FilesResult::UploadActive { received },
                UploadProgress::Final(file) => FilesResult::Uploaded { file, last_piece: *bytes },
            })
        }
        FilesCall::QueryUpload { upload } => {
            let received = storage.received(upload, project).map_err(api_error)?;
            Ok(FilesResult::UploadActive { received })
        }
        FilesCall::CancelUpload { upload } => {
            storage.cancel(upload, project).map_err(api_error)?;
            Ok(FilesResult::UploadCancelled)
        }
        FilesCall::CreateCache(cache) => Ok(FilesResult::One(storage.cache(cache.clone(), project.clone(), now))),
        FilesCall::List { collection, page } => Ok(list(storage, *collection, *page, project, now)),
        FilesCall::Get { name } => {
            let resource = storage.get(name, project, now).cloned();
            resource.map(FilesResult::One).ok_or_else(|| ApiError::not_yours(name))
        }
        FilesCall::Delete { name } => match storage.delete(name, project, now) {
            true => Ok(FilesResult::Deleted),
            false => Err(ApiError::not_yours(name)),
        },
    }
}

fn list(storage: &Storage, collection: Collection, page: PageRequest, project: &str, now: Duration) -> FilesResult {
    let mut all = storage.list(collection, project, now).skip(page.from);
    let resources = all.by_ref().take(page.size).cloned().collect();
    let next = all.next().is_some().then(|| page.from + page.size);
    FilesResult::List { collection, resources, next }
}

fn api_error(error: StorageError) -> ApiError {
    match error {
        StorageError::Unknown => ApiError::new(404, "NOT_FOUND", "Requested entity was not found."),
        StorageError::Misplaced { received } => ApiError::invalid_argument(format!(
            "The upload does not fit: {received} bytes of it have arrived, and this piece does not continue there, or its \
             size is not the announced one."
        )),
        StorageError::Taken => ApiError::new(409, "ALREADY_EXISTS", "Requested entity already exists"),
        StorageError::Full => ApiError::bare_quota(),
    }
}
