//! Maps with a bound, for state that is kept by names which callers and upstreams choose.
//!
//! Callers invent models, and upstreams invent names; a map that grows with either can run a program out of memory.
//! There are three ways to stay within a bound, by what is lost when an entry has to go:
//!
//! - [`ByAge`] forgets the oldest entry. For caches: what is forgotten is computed again.
//! - [`ByScope`] forgets only entries that would not be missed, and otherwise counts new scopes together in one
//!   overflow entry. For state that must not be lost: a limit or an open circuit that is forgotten is lifted.
//! - [`make_room`] forgets what no longer matters, else the entry that is worth least.
//!
//! All of them are told the time, and have no lock: the rooms lock and shard as their traffic needs.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

// === names and texts ===

/// The longest name that is kept, of a model, a scope or a resource: Google's have at most some hundreds of bytes, and
/// callers invent longer ones.
pub(crate) const MAX_NAME: usize = 512;

/// Returns the first `most` bytes of a text, or less where a character would be cut.
pub(crate) fn start_of(text: &str, most: usize) -> &str {
    // `str::floor_char_boundary` is younger than this crate's oldest compiler.
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

// === by age ===

/// A map of at most `most` entries, of which the oldest goes first. An entry is as old as its key: a new value for a
/// known key makes it no younger.
#[derive(Clone, Debug)]
pub(crate) struct ByAge<K, V> {
    values: HashMap<K, V>,
    /// The keys, the oldest first.
    order: VecDeque<K>,
    most: usize,
}

impl<K: Clone + Eq + Hash, V> ByAge<K, V> {
    /// Creates an empty map, which allocates nothing. It holds one entry at least.
    pub(crate) fn new(most: usize) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), most: most.max(1) }
    }

    /// Returns the value of a key.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.values.get(key)
    }

    /// Returns the value of a key, to be changed.
    pub(crate) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.values.get_mut(key)
    }

    /// Sets the value of a key. Where the key is new and the map full, the oldest entry goes.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if let Some(known) = self.values.get_mut(&key) {
            *known = value;
            return;
        }
        if self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.values.insert(key, value);
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

// === by scope ===

/// An entry of a [`ByScope`].
pub(crate) trait Scoped {
    /// Returns the scope's two names: the model, and the endpoint or the project.
    fn names(&self) -> (&str, &str);

    /// Returns whether the entry says no more than a new one would.
    fn is_forgettable(&self, now: Instant) -> bool;
}

/// Shared entries by the two names of their scope: the model, and the endpoint or the project.
///
/// It keeps at most `most` scopes apart. A full map is swept of entries that no call holds and that would not be
/// missed; where that frees nothing, new scopes share the overflow entry, until there is room again. A scope that the
/// program itself has named (in its settings, or by an operator's order) gets an entry of its own in any case, so that
/// no name invented by a caller can take its place; there are no more of them than the program knows.
pub(crate) struct ByScope<V> {
    scopes: HashSet<Slot<V>>,
    /// The entries of each model, where the room asks for them.
    by_model: Option<HashMap<Box<str>, Vec<Arc<V>>>>,
    most: usize,
    overflow: Arc<V>,
    has_overflowed: bool,
    swept: Option<Instant>,
}

/// The least time between two sweeps of a full map, so that a caller who invents models does not pay for a sweep with
/// each.
const SWEEP: Duration = Duration::from_secs(1);

impl<V: Scoped> ByScope<V> {
    /// Creates an empty map. Maps that are shards of one may share their overflow entry.
    pub(crate) fn new(most: usize, overflow: Arc<V>) -> Self {
        Self { scopes: HashSet::new(), by_model: None, most, overflow, has_overflowed: false, swept: None }
    }

    /// Keeps the entries of each model together, too, for [`of_model`](Self::of_model).
    pub(crate) fn with_models(self) -> Self {
        Self { by_model: Some(HashMap::new()), ..self }
    }

    /// Returns the scope's own entry.
    pub(crate) fn get(&self, model: &str, second: &str) -> Option<&Arc<V>> {
        self.scopes.get(&(model, second) as &dyn ScopeNames).map(|slot| &slot.0)
    }

    /// Returns the overflow entry for a scope whose names are too long to be kept for it.
    pub(crate) fn shared_if_long(&self, model: &str, second: &str) -> Option<&Arc<V>> {
        is_too_long(model, second).then_some(&self.overflow)
    }

    /// Returns all entries of a model, in no order: none, unless the map was made [`with_models`](Self::with_models).
    pub(crate) fn of_model(&self, model: &str) -> &[Arc<V>] {
        self.by_model.as_ref().and_then(|models| models.get(model)).map_or(&[], Vec::as_slice)
    }

    /// Returns the entry that a scope would meet that the program has not named: its own, or the overflow entry.
    /// `None`: it would get a new one.
    pub(crate) fn find(&self, model: &str, second: &str) -> Option<&Arc<V>> {
        let shares = self.scopes.len() >= self.most || is_too_long(model, second);
        self.get(model, second).or_else(|| shares.then_some(&self.overflow))
    }

    /// Returns the scope's entry; a new one where there is none and there is room, else the overflow entry.
    ///
    /// `make` gets the overflow entry where the scope may have been counted there so far, so that the new one can go on
    /// from it. The names of what it makes must be the scope's.
    pub(crate) fn find_or_insert(
        &mut self,
        (model, second): (&str, &str),
        is_named: bool,
        now: Instant,
        make: impl FnOnce(Option<&V>) -> V,
    ) -> Arc<V> {
        if let Some(known) = self.get(model, second) {
            return known.clone();
        }
        if !is_named && is_too_long(model, second) {
            return self.overflow.clone();
        }
        if self.scopes.len() >= self.most && !self.make_room(now) && !is_named {
            self.has_overflowed = true;
            return self.overflow.clone();
        }
        let entry = Arc::new(make(Some(&*self.overflow).filter(|_| self.has_overflowed && !is_named)));
        debug_assert_eq!(entry.names(), (model, second));
        if let Some(models) = &mut self.by_model {
            // Most models have one entry.
            models.entry(model.into()).or_insert_with(|| Vec::with_capacity(1)).push(entry.clone());
        }
        self.scopes.insert(Slot(entry.clone()));
        entry
    }

    /// Returns all entries but the overflow entry, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<V>> {
        self.scopes.iter().map(|slot| &slot.0)
    }

    /// Returns the number of entries, without the overflow entry.
    pub(crate) fn len(&self) -> usize {
        self.scopes.len()
    }

    /// Forgets the entries that no call holds and that would not be missed, and returns whether there is room now.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return false;
        }
        self.swept = Some(now);
        // The map itself holds one, or one in each index.
        let own = 1 + usize::from(self.by_model.is_some());
        let stays = |entry: &Arc<V>| Arc::strong_count(entry) > own || !entry.is_forgettable(now);
        if let Some(models) = &mut self.by_model {
            models.retain(|_, entries| {
                entries.retain(|entry| {
                    let stays = stays(entry);
                    if !stays {
                        self.scopes.remove(&entry.names() as &dyn ScopeNames);
                    }
                    stays
                });
                !entries.is_empty()
            });
        } else {
            self.scopes.retain(|slot| stays(&slot.0));
        }
        self.scopes.len() < self.most
    }
}

fn is_too_long(model: &str, second: &str) -> bool {
    model.len() + second.len() > MAX_NAME
}

/// An entry in the set. It is found by borrowed names, so that looking one up allocates nothing.
struct Slot<V>(Arc<V>);

/// A value that has the two names of a scope.
trait ScopeNames {
    fn names(&self) -> (&str, &str);
}

impl ScopeNames for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

impl<V: Scoped> ScopeNames for Slot<V> {
    fn names(&self) -> (&str, &str) {
        self.0.names()
    }
}

impl<'a, V: Scoped + 'a> Borrow<dyn ScopeNames + 'a> for Slot<V> {
    fn borrow(&self) -> &(dyn ScopeNames + 'a) {
        self
    }
}

impl Hash for dyn ScopeNames + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for dyn ScopeNames + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn ScopeNames + '_ {}

impl<V: Scoped> Hash for Slot<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl<V: Scoped> PartialEq for Slot<V> {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl<V: Scoped> Eq for Slot<V> {}

impl<V> fmt::Debug for ByScope<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByScope").field("len", &self.scopes.len()).field("most", &self.most).finish_non_exhaustive()
    }
}

// === by worth ===

/// Makes room for one more entry in a map of at most `most`: forgets what no longer matters, and where that is nothing,
/// the entry that is worth least.
///
/// A full map is looked through at each call, so that it suits small bounds only.
pub(crate) fn make_room<K, V, W>(
    map: &mut HashMap<K, V>,
    most: usize,
    matters: impl Fn(&V) -> bool,
    worth: impl Fn(&V) -> W,
) where
    K: Clone + Eq + Hash,
    W: Ord,
{
    if map.len() < most {
        return;
    }
    map.retain(|_, value| matters(value));
    while map.len() >= most {
        let Some((least, _)) = map.iter().min_by_key(|(_, value)| worth(value)) else { return };
        let least = least.clone();
        map.remove(&least);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;

    struct TestEntry {
        model: String,
        second: String,
        number: usize,
        forgettable: AtomicBool,
        /// The number of the entry from which it goes on.
        heir_of: Option<usize>,
    }

    impl Scoped for TestEntry {
        fn names(&self) -> (&str, &str) {
            (&self.model, &self.second)
        }

        fn is_forgettable(&self, _: Instant) -> bool {
            self.forgettable.load(Ordering::Relaxed)
        }
    }

    const OVERFLOW: usize = usize::MAX;

    fn entry(model: &str, second: &str, number: usize, heir_of: Option<usize>) -> TestEntry {
        TestEntry { model: model.into(), second: second.into(), number, forgettable: AtomicBool::new(false), heir_of }
    }

    /// A scope of the plain model.
    struct PlainScope {
        names: (String, String),
        number: usize,
        forgettable: bool,
        held: bool,
    }

    #[derive(Clone, Debug)]
    enum Action {
        /// A scope is asked for, by its two names, and whether the program has named it.
        Ask(String, String, bool),
        /// The `n`th scope says no more than a new one would.
        Settle(usize),
        /// The `n`th scope is held by a call, or no longer.
        Hold(usize, bool),
        Wait(Duration),
    }

    fn action() -> impl Strategy<Value = Action> {
        let model = prop_oneof![9 => "[abc]", 1 => Just("m".repeat(MAX_NAME))];
        prop_oneof![
            6 => (model, "[xyz]", prop::bool::weighted(0.1)).prop_map(|(model, second, named)| Action::Ask(model, second, named)),
            3 => (0..8usize).prop_map(Action::Settle),
            2 => (0..8usize, any::<bool>()).prop_map(|(nth, held)| Action::Hold(nth, held)),
            2 => prop_oneof![Just(SWEEP), Just(SWEEP / 2)].prop_map(Action::Wait),
        ]
    }

    proptest! {
    #[test]
        fn scopes_are_kept_apart_as_a_plain_list_would(
            most in 1..5usize,
            has_models: bool,
            actions in prop::collection::vec(action(), 1..80),
        ) {
            let overflow = Arc::new(entry("others", "others", OVERFLOW, None));
            let mut map = ByScope::new(most, overflow.clone());
            if has_models {
                map = map.with_models();
            }
            let (mut plain, mut held, mut now): (Vec<PlainScope>, HashMap<usize, Arc<TestEntry>>, _) = Default::default();
            let (mut swept, mut has_overflowed, mut made) = (None, false, 0);
            let began = Instant::now();
            for action in actions {
                match action {
                    Action::Wait(time) => now += time,
                    Action::Settle(nth) => {
                        if let Some(scope) = plain.get_mut(nth) {
                            scope.forgettable = true;
                            let entry = map.get(&scope.names.0, &scope.names.1).unwrap();
                            entry.forgettable.store(true, Ordering::Relaxed);
                        }
                    }
                    Action::Hold(nth, holds) => {
                        if let Some(scope) = plain.get_mut(nth) {
                            scope.held = holds;
                            let entry = map.get(&scope.names.0, &scope.names.1).unwrap().clone();
                            if holds { held.insert(scope.number, entry) } else { held.remove(&scope.number) };
                        }
                    }
                    Action::Ask(model, second, named) => {
                        let is_long = model.len() + second.len() > MAX_NAME;
                        let known = plain.iter().find(|scope| scope.names == (model.clone(), second.clone()));
                        let met = match known {
                            Some(scope) => Some(scope.number),
                            None if is_long || plain.len() >= most => Some(OVERFLOW),
                            None => None,
                        };
                        prop_assert_eq!(map.find(&model, &second).map(|entry| entry.number), met);
                        let is_new = known.is_none();
                        let expected = match known {
                            Some(scope) => (scope.number, None),
                            None => {
                                let mut shares = is_long && !named;
                                if !shares && plain.len() >= most {
                                    if swept.is_none_or(|swept| now - swept >= SWEEP) {
                                        swept = Some(now);
                                        plain.retain(|scope| scope.held || !scope.forgettable);
                                    }
                                    shares = !named && plain.len() >= most;
                                    has_overflowed |= shares;
                                }
                                if shares {
                                    (OVERFLOW, None)
                                } else {
                                    made += 1;
                                    let names = (model.clone(), second.clone());
                                    plain.push(PlainScope { names, number: made, forgettable: false, held: false });
                                    (made, (has_overflowed && !named).then_some(OVERFLOW))
                                }
                            }
                        };
                        let make = |heir_of: Option<&TestEntry>| entry(&model, &second, made, heir_of.map(|from| from.number));
                        let found = map.find_or_insert((&model, &second), named, began + now, make);
                        prop_assert_eq!(found.number, expected.0);
                        if is_new && found.number != OVERFLOW {
                            prop_assert_eq!(found.heir_of, expected.1);
                        }
                    }
                }
                let mut kept: Vec<usize> = map.iter().map(|entry| entry.number).collect();
                kept.sort_unstable();
                prop_assert_eq!((map.len(), kept), (plain.len(), plain.iter().map(|scope| scope.number).collect()));
                for model in ["a", "b", "c"] {
                    let of_model = plain.iter().filter(|scope| has_models && scope.names.0 == model);
                    let of_model: Vec<usize> = of_model.map(|scope| scope.number).collect();
                    let mut found: Vec<usize> = map.of_model(model).iter().map(|entry| entry.number).collect();
                    found.sort_unstable();
                    prop_assert_eq!(found, of_model);
                }
            }
        }

        #[test]
        fn the_oldest_go_first_as_in_a_plain_list(
            most in 0..6usize,
            writes in prop::collection::vec((0..10u8, any::<u16>()), 0..60),
        ) {
            let (mut map, mut plain) = (ByAge::new(most), Vec::<(u8, u16)>::new());
            for (key, value) in writes {
                map.insert(key, value);
                match plain.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, known)) => *known = value,
                    None => plain.push((key, value)),
                }
                if plain.len() > most.max(1) {
                    plain.remove(0);
                }
                prop_assert_eq!(map.len(), plain.len());
                prop_assert_eq!(map.order.len(), plain.len());
                for key in 0..10 {
                    let known = plain.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
                    prop_assert_eq!((map.get(&key).copied(), map.get_mut(&key).copied()), (known, known));
                }
            }
        }

        #[test]
        fn what_is_worth_least_makes_room(
            most in 1..6usize,
            values in prop::collection::vec((any::<bool>(), 0..100u8), 0..10),
        ) {
            let all: HashMap<usize, (bool, u8)> = values.into_iter().enumerate().collect();
            let mut map = all.clone();
            make_room(&mut map, most, |(matters, _)| *matters, |(_, worth)| *worth);
            if all.len() < most {
                prop_assert_eq!(map, all);
                return Ok(());
            }
            prop_assert!(map.len() < most);
            let mut kept: Vec<u8> = map.values().map(|(_, worth)| *worth).collect();
            let mut best: Vec<u8> = all.values().filter(|(matters, _)| *matters).map(|(_, worth)| *worth).collect();
            kept.sort_unstable();
            best.sort_unstable();
            let best = best.split_off(best.len().saturating_sub(most - 1));
            prop_assert_eq!(kept, best);
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(start_of("h\u{e9}llo", 2), "h");
        assert_eq!((start_of("abc", 9), start_of("", 3), start_of("abc", 0)), ("abc", "", ""));
    }
}
