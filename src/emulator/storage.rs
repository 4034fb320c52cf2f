//! What callers have left with the API: files, cached contents, uploads under way. Each belongs to one project.
//!
//! Pure state: it is told the time, and keeps names and sizes, never a byte of what was uploaded.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::answer::seeded;

/// A file, or a cached content.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    /// `files/abc`, `cachedContents/abc`.
    pub(super) name: String,
    pub(super) project: Arc<str>,
    pub(super) display_name: Option<String>,
    pub(super) made: Duration,
    pub(super) expires: Duration,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    File { mime_type: String, bytes: u64 },
    Cache { model: String, tokens: u64 },
}

/// What a file is going to be, once its bytes have come.
#[derive(Clone, Debug, Default)]
pub(super) struct NewFile {
    /// The name that the caller wants; without it one is made.
    pub(super) name: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) mime_type: String,
    /// The size that was announced.
    pub(super) size: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Storage {
    seed: u64,
    made: u64,
    things: VecDeque<Thing>,
    uploads: HashMap<String, Upload>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Upload {
    project: Arc<str>,
    file: NewFile,
    received: u64,
}

/// How far an upload has come.
#[derive(Debug)]
pub(super) enum Progress {
    Active(u64),
    Final(Thing),
}

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No such upload, or another project's.
    Unknown,
    /// The piece does not begin where the one before ended, or what came is not what was announced.
    Misplaced { received: u64 },
    /// The name is taken.
    Taken,
    /// The project's space is full.
    Full,
}

/// Things, and uploads under way, that are kept at once; above it the oldest goes.
const THINGS: usize = 4_096;
/// Google's own limits: a file's size, a project's space, and how long a file is kept.
const FILE_BYTES: u64 = 2 << 30;
const PROJECT_BYTES: u64 = 20 << 30;
const FILE_LIFE: Duration = Duration::from_secs(48 * 3600);

// === impl Storage ===

impl Storage {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, made: 0, things: VecDeque::new(), uploads: HashMap::new(), order: VecDeque::new() }
    }

    /// That thing, if it is there and that project's.
    pub(super) fn get(&self, name: &str, project: &str, now: Duration) -> Option<&Thing> {
        self.things.iter().find(|thing| thing.name == name && *thing.project == *project && thing.expires > now)
    }

    /// All of a project's things in a collection, the youngest first.
    pub(super) fn list(&self, collection: &str, project: &str, now: Duration) -> impl Iterator<Item = &Thing> {
        let prefix = format!("{collection}/");
        let project = project.to_owned();
        let is_one =
            move |thing: &&Thing| thing.name.starts_with(&prefix) && *thing.project == *project && thing.expires > now;
        self.things.iter().rev().filter(is_one)
    }

    /// Whether it was there to be deleted.
    pub(super) fn delete(&mut self, name: &str, project: &str, now: Duration) -> bool {
        let is_there = self.get(name, project, now).is_some();
        if is_there {
            self.things.retain(|thing| thing.name != name);
        }
        is_there
    }

    pub(super) fn cache(
        &mut self,
        model: String,
        tokens: u64,
        display_name: Option<String>,
        life: Duration,
        project: Arc<str>,
        now: Duration,
    ) -> Thing {
        let name = format!("cachedContents/{}", self.new_id(28));
        let expires = now.saturating_add(life);
        self.keep(Thing { name, project, display_name, made: now, expires, kind: Kind::Cache { model, tokens } })
    }

    // --- uploads ---

    /// The upload's id.
    pub(super) fn start(&mut self, file: NewFile, project: Arc<str>, now: Duration) -> Result<String, Refused> {
        let is_taken = |name: &String| self.things.iter().any(|thing| thing.name == *name && thing.expires > now);
        if file.name.as_ref().is_some_and(is_taken) {
            return Err(Refused::Taken);
        }
        if file
            .size
            .is_some_and(|size| size > FILE_BYTES || self.used(&project, now).saturating_add(size) > PROJECT_BYTES)
        {
            return Err(Refused::Full);
        }
        if self.order.len() == THINGS
            && let Some(oldest) = self.order.pop_front()
        {
            self.uploads.remove(&oldest);
        }
        let id = format!("AAANRS{}", self.new_id(48));
        self.order.push_back(id.clone());
        self.uploads.insert(id.clone(), Upload { project, file, received: 0 });
        Ok(id)
    }

    /// Whose upload it is.
    pub(super) fn uploader(&self, id: &str) -> Option<Arc<str>> {
        self.uploads.get(id).map(|upload| upload.project.clone())
    }

    /// What has arrived of an upload.
    pub(super) fn received(&self, id: &str, project: &str) -> Result<u64, Refused> {
        let upload = self.uploads.get(id).filter(|upload| *upload.project == *project);
        upload.map(|upload| upload.received).ok_or(Refused::Unknown)
    }

    /// A piece of an upload, of which only the size matters; the last one makes the file.
    pub(super) fn receive(
        &mut self,
        id: &str,
        project: &str,
        offset: Option<u64>,
        bytes: u64,
        is_last: bool,
        now: Duration,
    ) -> Result<Progress, Refused> {
        let used = self.used(project, now);
        let upload = self.uploads.get_mut(id).filter(|upload| *upload.project == *project).ok_or(Refused::Unknown)?;
        let received = upload.received;
        if offset.is_some_and(|offset| offset != received) {
            return Err(Refused::Misplaced { received });
        }
        let total = received.saturating_add(bytes);
        let announced = upload.file.size;
        if announced.is_some_and(|size| total > size || (is_last && total < size)) {
            return Err(Refused::Misplaced { received });
        }
        if total > FILE_BYTES || used.saturating_add(total) > PROJECT_BYTES {
            return Err(Refused::Full);
        }
        upload.received = total;
        if !is_last {
            return Ok(Progress::Active(total));
        }
        let Some(Upload { project, file, received }) = self.forget(id) else { return Err(Refused::Unknown) };
        let name = file.name.unwrap_or_else(|| format!("files/{}", self.new_id(12)));
        let kind = Kind::File { mime_type: file.mime_type, bytes: received };
        let (display_name, expires) = (file.display_name, now.saturating_add(FILE_LIFE));
        Ok(Progress::Final(self.keep(Thing { name, project, display_name, made: now, expires, kind })))
    }

    /// Ends an upload without a file.
    pub(super) fn cancel(&mut self, id: &str, project: &str) -> Result<(), Refused> {
        self.received(id, project)?;
        self.forget(id);
        Ok(())
    }

    fn forget(&mut self, id: &str) -> Option<Upload> {
        self.order.retain(|known| known != id);
        self.uploads.remove(id)
    }

    fn keep(&mut self, thing: Thing) -> Thing {
        self.things.retain(|known| known.expires > thing.made && known.name != thing.name);
        if self.things.len() == THINGS {
            self.things.pop_front();
        }
        self.things.push_back(thing.clone());
        thing
    }

    fn used(&self, project: &str, now: Duration) -> u64 {
        let bytes = |thing: &Thing| match thing.kind {
            Kind::File { bytes, .. } if *thing.project == *project && thing.expires > now => bytes,
            _ => 0,
        };
        self.things.iter().map(bytes).sum()
    }

    /// Always the same, in the same order, under the same seed.
    fn new_id(&mut self, length: usize) -> String {
        self.made += 1;
        let mut rng = seeded(self.seed, &format!("thing {}", self.made));
        (0..length).map(|_| rng.alphanumeric().to_ascii_lowercase()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn upload(storage: &mut Storage, project: &str, bytes: u64, now: Duration) -> Result<Thing, Refused> {
        let id = storage.start(NewFile::default(), project.into(), now)?;
        match storage.receive(&id, project, Some(0), bytes, true, now)? {
            Progress::Final(file) => Ok(file),
            Progress::Active(_) => panic!("it was the last piece"),
        }
    }

    #[test]
    fn a_file_is_its_projects_and_lives_for_two_days() {
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
        let mut receive = |offset, bytes, is_last| match storage.receive(&id, "p", Some(offset), bytes, is_last, NOW) {
            Ok(Progress::Active(received)) => Ok(received),
            Ok(Progress::Final(_)) => Ok(u64::MAX),
            Err(refused) => Err(refused),
        };
        assert_eq!(receive(0, 4, false), Ok(4));
        assert_eq!(receive(0, 4, false), Err(Refused::Misplaced { received: 4 }));
        assert_eq!(receive(4, 7, false), Err(Refused::Misplaced { received: 4 }), "more than was announced");
        assert_eq!(receive(4, 5, true), Err(Refused::Misplaced { received: 4 }), "less than was announced");
        assert_eq!(receive(4, 6, true), Ok(u64::MAX));
        assert_eq!(receive(10, 0, true), Err(Refused::Unknown), "it has ended");
    }

    #[test]
    fn an_upload_is_its_projects() {
        let mut storage = Storage::new(0);
        let id = storage.start(NewFile::default(), "p1".into(), NOW).unwrap();
        assert_eq!(storage.uploader(&id).as_deref(), Some("p1"));
        assert_eq!(storage.receive(&id, "p2", None, 1, false, NOW).err(), Some(Refused::Unknown));
        assert_eq!(storage.cancel(&id, "p2"), Err(Refused::Unknown));
        assert_eq!(storage.cancel(&id, "p1"), Ok(()));
        assert_eq!(storage.uploader(&id), None);
    }

    #[test]
    fn a_project_has_room_for_so_much_and_its_own() {
        let mut storage = Storage::new(0);
        for _ in 0..10 {
            upload(&mut storage, "p1", FILE_BYTES, NOW).unwrap();
        }
        assert_eq!(upload(&mut storage, "p1", 1, NOW).err(), Some(Refused::Full));
        assert!(upload(&mut storage, "p2", 1, NOW).is_ok());
        assert!(upload(&mut storage, "p1", 1, FILE_LIFE).is_ok(), "the old ones are gone");
        assert_eq!(upload(&mut storage, "p2", FILE_BYTES + 1, NOW).err(), Some(Refused::Full));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut storage = Storage::new(0);
        let first = upload(&mut storage, "p", 1, NOW).unwrap();
        for _ in 0..THINGS {
            upload(&mut storage, "p", 1, NOW).unwrap();
            storage.start(NewFile::default(), "p".into(), NOW).unwrap();
        }
        assert!(storage.get(&first.name, "p", NOW).is_none());
        let sizes = [storage.things.len(), storage.uploads.len(), storage.order.len()];
        assert_eq!(sizes, [THINGS; 3]);
    }
}
