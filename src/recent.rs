//! The values that recent calls have used: found again without a look into the map of all, and without a write to memory
//! that other threads write to.
//!
//! Most callers repeat a request. A map that all threads share costs a call two hashes and a lock, and the counter of an
//! `Arc` that all of them hold moves from core to core with every call. So a thread keeps a short list of its own, and
//! each entry has a counter of its own.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

/// The number of lists. Where there are more threads, some share one.
const LISTS: usize = 16;

/// The most entries of a list. A new one takes the place of any, so that calls which come round in a longer circle find
/// some.
const KEPT: usize = 16;

/// Short lists of values and of the keys by which calls find them. They stay alive while they are listed.
pub(crate) struct Recent<K, V>([List<K, V>; LISTS]);

/// The list of one thread, on cache lines of its own.
#[repr(align(128))]
struct List<K, V>(Mutex<Vec<(K, Held<V>)>>);

/// A value that a call holds. Its clones share a counter with those of one list only.
#[derive(Debug)]
#[expect(
    clippy::redundant_allocation,
    reason = "the outer counter is the list's own, and the inner one is shared by all"
)]
pub(crate) struct Held<V>(Arc<Arc<V>>);

impl<K, V> Recent<K, V> {
    /// Returns the first value that `is_it` recognises.
    #[inline]
    pub(crate) fn find(&self, is_it: impl Fn(&K, &V) -> bool) -> Option<Held<V>> {
        let list = self.of_this_thread().lock();
        list.iter().find(|(key, value)| is_it(key, value)).map(|(_, value)| value.clone())
    }

    /// Adds a value that was not found, in place of another where there are too many.
    pub(crate) fn insert(&self, key: K, value: Arc<V>) -> Held<V> {
        let held = Held::new(value);
        let mut list = self.of_this_thread().lock();
        let entry = (key, held.clone());
        let old = if list.len() < KEPT {
            list.push(entry);
            None
        } else {
            Some(std::mem::replace(&mut list[fastrand::usize(..KEPT)], entry))
        };
        // The old value may be the last of its kind, and is dropped while no other call waits for the list.
        drop(list);
        drop(old);
        held
    }

    #[inline]
    fn of_this_thread(&self) -> &Mutex<Vec<(K, Held<V>)>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static LIST: usize = THREADS.fetch_add(1, Ordering::Relaxed) % LISTS;
        }
        &self.0[LIST.with(|list| *list)].0
    }
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| List(Mutex::default())))
    }
}

impl<V> Held<V> {
    /// Holds a value that is in no list.
    pub(crate) fn new(value: Arc<V>) -> Self {
        Self(Arc::new(value))
    }
}

impl<V> Clone for Held<V> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Deref for Held<V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_bounded_and_what_is_held_stays_alive() {
        let recent = Recent::default();
        let first = Arc::new(0);
        let held = recent.insert(0, first.clone());
        let mut last = 0;
        while Arc::strong_count(&first) > 2 || recent.find(|key, _| *key == 0).is_some() {
            last += 1;
            assert_eq!(*recent.insert(last, Arc::new(last)), last);
            assert_eq!(recent.find(|key, value| key == value && *key == last).as_deref(), Some(&last));
            assert!(recent.of_this_thread().lock().len() <= KEPT);
        }
        assert_eq!((*held, Arc::strong_count(&first)), (0, 2));
        drop(held);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
