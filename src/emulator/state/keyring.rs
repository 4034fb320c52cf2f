//! The keys that the emulator accepts, and their projects.

use std::{collections::HashMap, sync::Arc};

use crate::emulator::wire::credentials::KeyHash;

/// The accepted keys, by hash, and the project of each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring {
    projects: HashMap<KeyHash, Arc<str>>,
}

/// The project of keys that were not configured.
pub(crate) const DEFAULT_PROJECT: &str = "emulated-project";

// === impl Keyring ===

impl Keyring {
    pub(crate) fn insert(&mut self, key: &str, project: &str) {
        self.projects.insert(KeyHash::of(key), project.into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.projects.is_empty()
    }

    /// Returns the key's project. An empty ring accepts every key, for [`DEFAULT_PROJECT`].
    pub(crate) fn project(&self, key: &str) -> Option<Arc<str>> {
        match self.projects.is_empty() {
            true => Some(DEFAULT_PROJECT.into()),
            false => self.projects.get(&KeyHash::of(key)).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_key() {
        let mut keyring = Keyring::default();
        keyring.insert("test-key-secret", "p");
        assert!(!format!("{keyring:?}").contains("secret"));
        assert_eq!(keyring.project("test-key-secret").as_deref(), Some("p"));
        assert_eq!(keyring.project("other"), None);
        assert_eq!(Keyring::default().project("other").as_deref(), Some(DEFAULT_PROJECT));
    }
}
