//! Everything that outlives a request: settings, keys, models, quotas, stored files, and the journal.

pub(super) mod journal;
pub(super) mod keyring;
pub(super) mod models;
pub(super) mod quota;
pub(super) mod settings;
pub(super) mod shared;
pub(super) mod storage;
pub(super) mod stored;
pub(super) mod visit_guard;
