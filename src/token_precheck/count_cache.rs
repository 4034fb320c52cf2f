//! What the upstream has counted, by the content: nobody asks twice for the same request.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;

/// So many counts are kept, the oldest go first: 48 bytes each.
const KEPT: usize = 1_024;

/// A request and the model it is for, as a number that nobody can aim at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ContentHash(u64, u64);

#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Shared>);

#[derive(Default)]
struct Shared {
    // Two hashes with keys of their own make 128 bits.
    hashers: [RandomState; 2],
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    tokens: HashMap<ContentHash, u64>,
    order: VecDeque<ContentHash>,
}

impl Asked {
    pub(super) fn hash(&self, model: &str, body: &[u8]) -> ContentHash {
        let [one, other] = &self.0.hashers;
        ContentHash(one.hash_one((model, body)), other.hash_one((model, body)))
    }

    pub(super) fn get(&self, content: ContentHash) -> Option<u64> {
        self.0.counts.lock().tokens.get(&content).copied()
    }

    pub(super) fn keep(&self, content: ContentHash, tokens: u64) {
        let mut counts = self.0.counts.lock();
        if counts.tokens.insert(content, tokens).is_some() {
            return;
        }
        counts.order.push_back(content);
        if counts.order.len() > KEPT
            && let Some(oldest) = counts.order.pop_front()
        {
            counts.tokens.remove(&oldest);
        }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("kept", &self.0.counts.lock().tokens.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let asked = Asked::default();
        let hash = |number: u64| asked.hash("m", &number.to_be_bytes());
        for number in 0..2 * KEPT as u64 {
            asked.keep(hash(number), number);
            asked.keep(hash(number), number + 1);
        }
        assert_eq!((asked.get(hash(KEPT as u64 - 1)), asked.get(hash(KEPT as u64))), (None, Some(KEPT as u64 + 1)));
        let counts = asked.0.counts.lock();
        assert_eq!((counts.tokens.len(), counts.order.len()), (KEPT, KEPT));
        drop(counts);
        assert_ne!(asked.hash("m", b"x"), asked.hash("n", b"x"));
        assert_ne!(asked.hash("ma", b"x"), asked.hash("m", b"ax"));
    }
}
