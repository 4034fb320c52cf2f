//! Random numbers that depend on a seed and a text alone.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Returns a generator of random numbers: the same numbers for the same seed and text.
pub(crate) fn seeded(seed: u64, text: &str) -> fastrand::Rng {
    let mut hasher = DefaultHasher::new();
    (seed, text).hash(&mut hasher);
    fastrand::Rng::with_seed(hasher.finish())
}
