//! A cache of the upstream's counts by content, so that the same request is counted upstream only once.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::bounded::ByAge;

/// The most counts that are kept, 48 bytes each. The oldest are dropped first.
const MAX_COUNTS: usize = 1_024;

/// A hash of a model and a request. Its keys are random, so that a caller cannot produce a collision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ContentHash(u64, u64);

/// The cached counts. A cheap handle: clones share them.
#[derive(Clone)]
pub(super) struct CountCache(Arc<Shared>);

struct Shared {
    // Two hashes with keys of their own make 128 bits.
    hashers: [RandomState; 2],
    counts: Mutex<ByAge<ContentHash, u64>>,
}

impl CountCache {
    pub(super) fn hash(&self, model: &str, body: &[u8]) -> ContentHash {
        let [one, other] = &self.0.hashers;
        ContentHash(one.hash_one((model, body)), other.hash_one((model, body)))
    }

    pub(super) fn get(&self, content: ContentHash) -> Option<u64> {
        self.0.counts.lock().get(&content).copied()
    }

    pub(super) fn insert(&self, content: ContentHash, tokens: u64) {
        self.0.counts.lock().insert(content, tokens);
    }
}

impl Default for CountCache {
    fn default() -> Self {
        Self(Arc::new(Shared { hashers: Default::default(), counts: Mutex::new(ByAge::new(MAX_COUNTS)) }))
    }
}

impl fmt::Debug for CountCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountCache").field("kept", &self.0.counts.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let cache = CountCache::default();
        let hash = |number: u64| cache.hash("m", &number.to_be_bytes());
        for number in 0..2 * MAX_COUNTS as u64 {
            cache.insert(hash(number), number);
            cache.insert(hash(number), number + 1);
        }
        assert_eq!(
            (cache.get(hash(MAX_COUNTS as u64 - 1)), cache.get(hash(MAX_COUNTS as u64))),
            (None, Some(MAX_COUNTS as u64 + 1))
        );
        assert_eq!(cache.0.counts.lock().len(), MAX_COUNTS);
        assert_ne!(cache.hash("m", b"x"), cache.hash("n", b"x"));
        assert_ne!(cache.hash("ma", b"x"), cache.hash("m", b"ax"));
    }
}
