//! The things that callers have left with the API, and their unfinished uploads. Each belongs to one project.
//!
//! The state is pure: its caller passes the time. It keeps names, sizes and answers, and never a byte of an upload.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::stored::{FileSource, ResourceKind, StoredResource};
use crate::emulator::{
    seeded::seeded,
    wire::{
        resource_call::NewCache,
        upload_call::{NewFile, PieceSize},
    },
};

#[derive(Debug)]
pub(crate) struct Storage {
    seed: u64,
    made: u64,
    resources: VecDeque<StoredResource>,
    uploads: HashMap<String, Upload>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Upload {
    project: Arc<str>,
    file: NewFile,
    received: PieceSize,
}

/// The progress of an upload.
#[derive(Debug)]
pub(crate) enum UploadProgress {
    /// More pieces are to come after these bytes.
    Active(u64),
    /// The file is complete.
    Final(StoredResource),
}

/// The reason for which storage refuses a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StorageError {
    /// The upload does not exist, or belongs to another project.
    Unknown,
    /// The piece does not begin where the one before ended, or the size is not the announced one.
    Misplaced { received: u64 },
    /// The name is taken.
    Taken,
    /// The project's space is full.
    Full,
}

/// The largest number of resources, and that of unfinished uploads. Above it, the oldest is removed.
const CAPACITY: usize = 4_096;
/// Google's limits: 2 GiB a file, 20 GiB a project, and a life of 48 hours for a file.
const FILE_BYTES: u64 = 2 << 30;
const PROJECT_BYTES: u64 = 20 << 30;
const FILE_LIFE: Duration = Duration::from_secs(48 * 3600);
/// The length of ids that are generated.
const ID: usize = 24;

// === impl Storage ===

impl Storage {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, made: 0, resources: VecDeque::new(), uploads: HashMap::new(), order: VecDeque::new() }
    }

    /// Returns a resource, if it exists and belongs to the project.
    pub(crate) fn get(&self, name: &str, project: &str, now: Duration) -> Option<&StoredResource> {
        self.resources.iter().find(|resource| resource.name == name && resource.is_of(project, now))
    }

    /// Returns a resource whose owner was checked before.
    pub(crate) fn named(&self, name: &str) -> Option<&StoredResource> {
        self.resources.iter().find(|resource| resource.name == name)
    }

    /// Returns a project's resource, to be changed.
    pub(crate) fn get_mut(&mut self, name: &str, project: &str, now: Duration) -> Option<&mut StoredResource> {
        self.resources.iter_mut().find(|resource| resource.name == name && resource.is_of(project, now))
    }

    /// Returns a project's resources in a collection, or in the one within another resource, the youngest first.
    pub(crate) fn list(&self, collection: &str, project: &str, now: Duration) -> impl Iterator<Item = &StoredResource> {
        let (prefix, project) = (format!("{collection}/"), project.to_owned());
        let is_one = move |resource: &&StoredResource| {
            let id = resource.name.strip_prefix(&prefix);
            id.is_some_and(|id| !id.contains('/')) && resource.is_of(&project, now)
        };
        self.resources.iter().rev().filter(is_one)
    }

    /// Deletes a project's resource, and those within it. Returns whether it existed.
    pub(crate) fn delete(&mut self, name: &str, project: &str, now: Duration) -> bool {
        let is_there = self.get(name, project, now).is_some();
        if is_there {
            let within = format!("{name}/");
            self.resources.retain(|resource| {
                *resource.project != *project || (resource.name != name && !resource.name.starts_with(&within))
            });
        }
        is_there
    }

    /// Makes a cached content.
    pub(crate) fn cache(&mut self, new: NewCache, project: Arc<str>, now: Duration) -> StoredResource {
        let NewCache { model, tokens, display_name, life } = new;
        let name = format!("cachedContents/{}", self.new_id(28));
        let (expires, kind) = (now.saturating_add(life), ResourceKind::Cache { model, tokens });
        self.keep(StoredResource { name, project, display_name, made: now, expires, kind }, now)
    }

    /// Makes a resource of a kind that nothing but its life limits; without an `id`, one is generated.
    pub(crate) fn make(
        &mut self,
        collection: &str,
        id: Option<String>,
        project: &Arc<str>,
        kind: ResourceKind,
        now: Duration,
        life: Duration,
    ) -> Result<StoredResource, StorageError> {
        let name = format!("{collection}/{}", id.unwrap_or_else(|| self.new_id(ID)));
        if self.get(&name, project, now).is_some() {
            return Err(StorageError::Taken);
        }
        let (project, expires) = (project.clone(), now.saturating_add(life));
        Ok(self.keep(StoredResource { name, project, display_name: None, made: now, expires, kind }, now))
    }

    /// Keeps the file that a batch or an operation makes at its end, which is at the time `made`.
    pub(crate) fn keep_results(
        &mut self,
        of: &str,
        mime_type: &str,
        project: &Arc<str>,
        lines: u64,
        now: Duration,
        made: Duration,
    ) -> String {
        let name = format!("files/of-{}", of.rsplit('/').next().unwrap_or_default());
        let size = PieceSize { bytes: 0, line_ends: lines, ends_in_line: false };
        let source = FileSource::Results { of: of.to_owned() };
        let kind = ResourceKind::File { mime_type: mime_type.to_owned(), size, source };
        let expires = made.saturating_add(FILE_LIFE);
        let project = project.clone();
        self.keep(StoredResource { name: name.clone(), project, display_name: None, made, expires, kind }, now);
        name
    }

    /// Keeps files that lie in Google Cloud Storage.
    pub(crate) fn register(&mut self, uris: &[String], project: &Arc<str>, now: Duration) -> Vec<StoredResource> {
        let register = |uri: &String| {
            let (name, display_name) = (format!("files/{}", self.new_id(12)), Some(uri.clone()));
            let mime_type = "application/octet-stream".to_owned();
            let kind = ResourceKind::File { mime_type, size: PieceSize::default(), source: FileSource::Registered };
            let (project, expires) = (project.clone(), now.saturating_add(FILE_LIFE));
            self.keep(StoredResource { name, project, display_name, made: now, expires, kind }, now)
        };
        uris.iter().map(register).collect()
    }

    // --- uploads ---

    /// Starts an upload, and returns its id.
    pub(crate) fn start(&mut self, file: NewFile, project: Arc<str>, now: Duration) -> Result<String, StorageError> {
        let is_taken =
            |name: &String| self.resources.iter().any(|resource| resource.name == *name && resource.expires > now);
        if file.name.as_ref().is_some_and(is_taken) {
            return Err(StorageError::Taken);
        }
        if file
            .size
            .is_some_and(|size| size > FILE_BYTES || self.used(&project, now).saturating_add(size) > PROJECT_BYTES)
        {
            return Err(StorageError::Full);
        }
        if self.order.len() == CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.uploads.remove(&oldest);
        }
        let id = format!("AAANRS{}", self.new_id(48));
        self.order.push_back(id.clone());
        self.uploads.insert(id.clone(), Upload { project, file, received: PieceSize::default() });
        Ok(id)
    }

    /// Returns the project that an upload belongs to.
    pub(crate) fn uploader(&self, id: &str) -> Option<Arc<str>> {
        self.uploads.get(id).map(|upload| upload.project.clone())
    }

    /// Returns the bytes that have arrived of an upload.
    pub(crate) fn received(&self, id: &str, project: &str) -> Result<u64, StorageError> {
        let upload = self.uploads.get(id).filter(|upload| *upload.project == *project);
        upload.map(|upload| upload.received.bytes).ok_or(StorageError::Unknown)
    }

    /// Takes a piece of an upload, of which only the size counts. The last piece makes the file.
    pub(crate) fn receive(
        &mut self,
        id: &str,
        project: &str,
        offset: Option<u64>,
        size: PieceSize,
        is_last: bool,
        now: Duration,
    ) -> Result<UploadProgress, StorageError> {
        let used = self.used(project, now);
        let upload =
            self.uploads.get_mut(id).filter(|upload| *upload.project == *project).ok_or(StorageError::Unknown)?;
        let received = upload.received.bytes;
        if offset.is_some_and(|offset| offset != received) {
            return Err(StorageError::Misplaced { received });
        }
        let total = received.saturating_add(size.bytes);
        let announced = upload.file.size;
        if announced.is_some_and(|size| total > size || (is_last && total < size)) {
            return Err(StorageError::Misplaced { received });
        }
        if total > FILE_BYTES || used.saturating_add(total) > PROJECT_BYTES {
            return Err(StorageError::Full);
        }
        upload.received = upload.received.then(size);
        if !is_last {
            return Ok(UploadProgress::Active(total));
        }
        let Some(Upload { project, file, received }) = self.forget(id) else { return Err(StorageError::Unknown) };
        let name = match file.parent {
            // A store has documents, and an environment has files of its own.
            Some(parent) if parent.starts_with("fileSearchStores/") => {
                format!("{parent}/documents/{}", self.new_id(12))
            }
            Some(parent) => format!("{parent}/files/{}", self.new_id(12)),
            None => file.name.unwrap_or_else(|| format!("files/{}", self.new_id(12))),
        };
        let source = FileSource::Uploaded;
        let kind = ResourceKind::File { mime_type: file.mime_type, size: received, source };
        let (display_name, expires) = (file.display_name, now.saturating_add(FILE_LIFE));
        Ok(UploadProgress::Final(
            self.keep(StoredResource { name, project, display_name, made: now, expires, kind }, now),
        ))
    }

    /// Removes an upload without making a file.
    pub(crate) fn cancel(&mut self, id: &str, project: &str) -> Result<(), StorageError> {
        self.received(id, project)?;
        self.forget(id);
        Ok(())
    }

    fn forget(&mut self, id: &str) -> Option<Upload> {
        self.order.retain(|known| known != id);
        self.uploads.remove(id)
    }

    fn keep(&mut self, resource: StoredResource, now: Duration) -> StoredResource {
        self.resources
            .retain(|known| known.expires > now && (known.name != resource.name || known.project != resource.project));
        if self.resources.len() == CAPACITY {
            self.resources.pop_front();
        }
        self.resources.push_back(resource.clone());
        resource
    }

    fn used(&self, project: &str, now: Duration) -> u64 {
        let bytes = |resource: &StoredResource| match &resource.kind {
            ResourceKind::File { size, .. } if resource.is_of(project, now) => size.bytes,
            _ => 0,
        };
        self.resources.iter().map(bytes).sum()
    }

    /// Returns the next id. Under one seed, the sequence of ids is the same.
    pub(crate) fn new_id(&mut self, length: usize) -> String {
        self.made += 1;
        let mut rng = seeded(self.seed, &format!("thing {}", self.made));
        (0..length).map(|_| rng.alphanumeric().to_ascii_lowercase()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn upload(storage: &mut Storage, project: &str, bytes: u64, now: Duration) -> Result<StoredResource, StorageError> {
        let id = storage.start(NewFile::default(), project.into(), now)?;
        let size = PieceSize { bytes, ..PieceSize::default() };
        match storage.receive(&id, project, Some(0), size, true, now)? {
            UploadProgress::Final(file) => Ok(file),
            UploadProgress::Active(_) => panic!("it was the last piece"),
        }
    }

    #[test]
    fn a_file_belongs_to_its_project_and_lives_for_two_days() {
        let mut storage = Storage::new(0);
        let file = upload(&mut storage, "p1", 7, NOW).unwrap();
        assert!(storage.get(&file.name, "p1", NOW).is_some());
        assert!(storage.get(&file.name, "p2", NOW).is_none());
        assert!(!storage.delete(&file.name, "p2", NOW));
        assert!(storage.get(&file.name, "p1", FILE_LIFE).is_none());
        assert_eq!((storage.list("files", "p1", NOW).count(), storage.list("files", "p2", NOW).count()), (1, 0));
        assert!(storage.delete(&file.name, "p1", NOW));
        assert!(!storage.delete(&file.name, "p1", NOW));
    }

    #[test]
    fn pieces_have_to_fit_together() {
        let mut storage = Storage::new(0);
        let file = NewFile { size: Some(10), ..NewFile::default() };
        let id = storage.start(file, "p".into(), NOW).unwrap();
        let size = |bytes| PieceSize { bytes, ..PieceSize::default() };
        let mut receive =
            |offset, bytes, is_last| match storage.receive(&id, "p", Some(offset), size(bytes), is_last, NOW) {
                Ok(UploadProgress::Active(received)) => Ok(received),
                Ok(UploadProgress::Final(_)) => Ok(u64::MAX),
                Err(refused) => Err(refused),
            };
        assert_eq!(receive(0, 4, false), Ok(4));
        assert_eq!(receive(0, 4, false), Err(StorageError::Misplaced { received: 4 }));
        assert_eq!(receive(4, 7, false), Err(StorageError::Misplaced { received: 4 }), "more than was announced");
        assert_eq!(receive(4, 5, true), Err(StorageError::Misplaced { received: 4 }), "less than was announced");
        assert_eq!(receive(4, 6, true), Ok(u64::MAX));
        assert_eq!(receive(10, 0, true), Err(StorageError::Unknown), "it has ended");
    }

    #[test]
    fn an_upload_belongs_to_its_project() {
        let mut storage = Storage::new(0);
        let id = storage.start(NewFile::default(), "p1".into(), NOW).unwrap();
        assert_eq!(storage.uploader(&id).as_deref(), Some("p1"));
        assert_eq!(
            storage.receive(&id, "p2", None, PieceSize::of(b"1"), false, NOW).err(),
            Some(StorageError::Unknown)
        );
        assert_eq!(storage.cancel(&id, "p2"), Err(StorageError::Unknown));
        assert_eq!(storage.cancel(&id, "p1"), Ok(()));
        assert_eq!(storage.uploader(&id), None);
    }

    #[test]
    fn each_project_has_twenty_gibibytes() {
        let mut storage = Storage::new(0);
        for _ in 0..10 {
            upload(&mut storage, "p1", FILE_BYTES, NOW).unwrap();
        }
        assert_eq!(upload(&mut storage, "p1", 1, NOW).err(), Some(StorageError::Full));
        assert!(upload(&mut storage, "p2", 1, NOW).is_ok());
        assert!(upload(&mut storage, "p1", 1, FILE_LIFE).is_ok(), "the old ones are gone");
        assert_eq!(upload(&mut storage, "p2", FILE_BYTES + 1, NOW).err(), Some(StorageError::Full));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut storage = Storage::new(0);
        let first = upload(&mut storage, "p", 1, NOW).unwrap();
        for _ in 0..CAPACITY {
            upload(&mut storage, "p", 1, NOW).unwrap();
            storage.start(NewFile::default(), "p".into(), NOW).unwrap();
        }
        assert!(storage.get(&first.name, "p", NOW).is_none());
        let sizes = [storage.resources.len(), storage.uploads.len(), storage.order.len()];
        assert_eq!(sizes, [CAPACITY; 3]);
    }
}
