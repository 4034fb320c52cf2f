//! The memory of who has made what: pure, and bounded for each caller, so that none can make it forget another's things.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use tower_gemini::resource::Resource;

/// The most things of each sort that are remembered for a caller; its oldest are forgotten first.
const MOST: usize = 16_384;

/// The collection of uploads under way.
const UPLOADS: &str = "upload_id";

/// The most things that are kept over a restart, of all callers: about 13 MB in the state's file.
const MOST_KEPT: usize = 131_072;

/// The things of each caller, the oldest first: what is kept of them over a restart.
pub(crate) type ThingsByMaker = BTreeMap<String, Vec<String>>;

/// The caller that has made each thing.
#[derive(Debug)]
pub(crate) struct Makers {
    things: HashMap<Resource, Made>,
    makers: HashMap<Arc<str>, Maker>,
    /// The number of things in each collection, of all callers.
    in_all: HashMap<Box<str>, usize>,
    /// The number of the next thing, by which a name that was made again is told from the first of its kind.
    next: u64,
    most: usize,
}

#[derive(Debug)]
struct Made {
    maker: Arc<str>,
    nth: u64,
}

/// The things of one caller. Interactions, uploads and the like come with ordinary calls, and do not make it forget files.
#[derive(Debug, Default)]
struct Maker {
    lasting: VecDeque<(u64, Resource)>,
    passing: VecDeque<(u64, Resource)>,
    by_collection: HashMap<Box<str>, usize>,
}

impl Default for Makers {
    fn default() -> Self {
        Self::with_most(MOST)
    }
}

impl Makers {
    fn with_most(most: usize) -> Self {
        Self { things: HashMap::new(), makers: HashMap::new(), in_all: HashMap::new(), next: 0, most }
    }

    /// Returns the caller that has made a thing, if that is known. The results of a batch are its maker's.
    pub(crate) fn of(&self, thing: &Resource) -> Option<&Arc<str>> {
        let made = self.things.get(thing).or_else(|| self.things.get(&thing.batch_of_results()?))?;
        Some(&made.maker)
    }

    /// Returns whether callers beside this one are known to have something.
    pub(crate) fn others_have(&self, caller: &str) -> bool {
        let own = self.makers.get(caller).map_or(0, |maker| maker.by_collection.values().sum());
        self.things.len() > own
    }

    /// Returns whether callers beside this one are known to have something in the collection of a thing.
    pub(crate) fn others_have_like(&self, thing: &Resource, caller: &str) -> bool {
        let has = |collection: &str| {
            let own = self.makers.get(caller).and_then(|maker| maker.by_collection.get(collection));
            self.in_all.get(collection).copied().unwrap_or(0) > own.copied().unwrap_or(0)
        };
        has(thing.collection()) || thing.batch_of_results().is_some_and(|batch| has(batch.collection()))
    }

    /// Remembers who has just made a thing; an earlier one of that name is gone.
    pub(crate) fn made(&mut self, thing: Resource, maker: &Arc<str>) {
        if self.things.get(&thing).is_some_and(|made| made.maker == *maker) {
            return;
        }
        self.forget(&thing);
        let nth = self.next;
        self.next += 1;
        let counts = self.makers.entry(maker.clone()).or_default();
        *counts.by_collection.entry(thing.collection().into()).or_default() += 1;
        *self.in_all.entry(thing.collection().into()).or_default() += 1;
        counts.of_sort(&thing).push_back((nth, thing.clone()));
        self.things.insert(thing.clone(), Made { maker: maker.clone(), nth });
        self.shorten(&thing, maker);
    }

    /// Remembers who has shown a thing as its own, unless its maker is known.
    pub(crate) fn shown(&mut self, thing: Resource, maker: &Arc<str>) {
        if self.of(&thing).is_none() {
            self.made(thing, maker);
        }
    }

    /// Forgets a thing, which is gone.
    pub(crate) fn forget(&mut self, thing: &Resource) {
        let Some(made) = self.things.remove(thing) else { return };
        // Its place in the order stays, and is passed over: it has another number than whatever has the name next.
        let own = self.makers.get_mut(&made.maker).map(|maker| &mut maker.by_collection);
        for counts in own.into_iter().chain([&mut self.in_all]) {
            if let Some(count) = counts.get_mut(thing.collection()) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(thing.collection());
                }
            }
        }
    }

    /// Forgets the oldest things of a caller, of the sort of this one, where they are too many.
    fn shorten(&mut self, like: &Resource, maker: &Arc<str>) {
        let Some(order) = self.makers.get_mut(maker).map(|maker| maker.of_sort(like)) else { return };
        if order.len() <= self.most {
            return;
        }
        let things = &self.things;
        order.retain(|(nth, thing)| things.get(thing).is_some_and(|made| made.nth == *nth));
        // Some more at once, so that the next thing need not look through all of them again.
        let excess = if order.len() <= self.most { 0 } else { order.len() - self.most + self.most / 16 };
        let oldest: Vec<_> = order.drain(..excess).collect();
        oldest.iter().for_each(|(_, thing)| self.forget(thing));
    }

    /// Copies all things, for [`by_maker`].
    pub(crate) fn all(&self) -> Vec<MadeThing> {
        let things = self.things.iter();
        things.map(|(thing, Made { maker, nth })| (*nth, thing.clone(), maker.clone())).collect()
    }

    /// Remembers what was kept, except for what has been learned since.
    pub(crate) fn restore(&mut self, kept: &ThingsByMaker) {
        for (maker, things) in kept {
            let maker = Arc::from(&**maker);
            things.iter().filter_map(|thing| Resource::parse(thing)).for_each(|thing| self.shown(thing, &maker));
        }
    }
}

/// A thing, its number, by which the older one is told, and its maker.
pub(crate) type MadeThing = (u64, Resource, Arc<str>);

/// Lists the names of things by their makers, for [`Makers::restore`]. Uploads under way are left out: whoever knows the
/// name of one may write it.
pub(crate) fn by_maker(mut all: Vec<MadeThing>) -> ThingsByMaker {
    all.retain(|(_, thing, _)| thing.collection() != UPLOADS);
    let is_too_much = all.len() > MOST_KEPT;
    all.sort_unstable_by_key(|(nth, ..)| *nth);
    let mut by_maker = ThingsByMaker::new();
    for (_, thing, maker) in all {
        by_maker.entry(maker.to_string()).or_default().push(thing.as_str().to_owned());
    }
    if is_too_much {
        let share = MOST_KEPT / by_maker.len();
        by_maker.values_mut().for_each(|things| drop(things.drain(..things.len().saturating_sub(share))));
    }
    by_maker
}

impl Maker {
    fn of_sort(&mut self, thing: &Resource) -> &mut VecDeque<(u64, Resource)> {
        if thing.is_passing() { &mut self.passing } else { &mut self.lasting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(name: &str) -> Resource {
        Resource::in_name(name).unwrap()
    }

    #[test]
    fn the_oldest_things_of_a_caller_are_forgotten_first_and_nobody_elses() {
        let (mut makers, a, b) = (Makers::with_most(100), Arc::from("a"), Arc::from("b"));
        makers.made(thing("files/of-b"), &b);
        (0..10).for_each(|nth| makers.made(thing(&format!("files/{nth}")), &a));
        (0..1_000).for_each(|nth| makers.made(thing(&format!("interactions/{nth}")), &a));
        assert!((0..10).all(|nth| makers.of(&thing(&format!("files/{nth}"))).is_some()), "another sort");
        (10..1_000).for_each(|nth| makers.made(thing(&format!("files/{nth}")), &a));
        assert!(makers.of(&thing("files/0")).is_none() && makers.of(&thing("files/999")).is_some());
        assert_eq!(makers.of(&thing("files/of-b")), Some(&b));
        assert!(makers.things.len() <= 201, "{}", makers.things.len());
    }

    #[test]
    fn names_that_come_and_go_take_no_memory() {
        let (mut makers, a) = (Makers::with_most(100), Arc::from("a"));
        makers.made(thing("files/stays"), &a);
        for nth in 0..10_000 {
            let name = thing(&format!("files/{}", nth % 3));
            makers.made(name.clone(), &a);
            makers.forget(&name);
        }
        assert!(makers.makers["a"].lasting.len() <= 101, "{}", makers.makers["a"].lasting.len());
        assert_eq!(makers.of(&thing("files/stays")), Some(&a));
        assert!(!makers.others_have("a") && makers.others_have("b"));
        assert!(makers.others_have_like(&thing("files/x"), "b") && !makers.others_have_like(&thing("agents/x"), "b"));
        makers.forget(&thing("files/stays"));
        assert!(!makers.others_have("b") && !makers.others_have_like(&thing("files/x"), "b"));
    }

    #[test]
    fn who_makes_a_thing_anew_has_it_and_who_shows_it_only_if_nobody_does() {
        let (mut makers, a, b) = (Makers::default(), Arc::from("a"), Arc::from("b"));
        makers.made(thing("batches/x"), &a);
        makers.shown(thing("batches/x"), &b);
        makers.shown(thing("files/batch-x"), &b);
        assert_eq!((makers.of(&thing("batches/x")), makers.of(&thing("files/batch-x"))), (Some(&a), Some(&a)));
        makers.made(thing("batches/x"), &b);
        assert_eq!(makers.of(&thing("batches/x")), Some(&b));
        assert!(!makers.others_have("b") && makers.others_have("a"));
    }

    #[test]
    fn all_but_uploads_under_way_is_kept() {
        let (mut makers, a, b) = (Makers::default(), Arc::from("a"), Arc::from("b"));
        makers.made(thing("files/2"), &a);
        makers.made(thing("files/1"), &a);
        makers.made(thing("batches/1"), &b);
        makers.made(thing("upload_id/u"), &b);
        let mut kept = by_maker(makers.all());
        assert_eq!(kept["a"], ["files/2", "files/1"]);
        assert_eq!(kept["b"], ["batches/1"]);
        kept.insert("c".to_owned(), vec!["nothing".to_owned(), "/".to_owned()]);
        let mut again = Makers::default();
        again.made(thing("files/1"), &b);
        again.restore(&kept);
        assert_eq!(again.of(&thing("files/1")), Some(&b), "learned since");
        assert_eq!((again.of(&thing("files/2")), again.of(&thing("batches/1"))), (Some(&a), Some(&b)));
        assert_eq!(again.things.len(), 3);
    }

    #[test]
    fn of_too_much_each_caller_keeps_a_share_its_newest() {
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let of = |maker: &Arc<str>, number: usize| -> Vec<MadeThing> {
            let made = |nth: usize| (nth as u64, thing(&format!("files/{maker}{nth}")), maker.clone());
            (0..number).map(made).collect()
        };
        let kept = by_maker([of(&a, MOST_KEPT), of(&b, 3)].concat());
        assert_eq!((kept["a"].len(), kept["b"].len()), (MOST_KEPT / 2, 3));
        assert_eq!(kept["a"].last(), Some(&format!("files/a{}", MOST_KEPT - 1)));
        assert_eq!(by_maker(of(&a, MOST_KEPT))["a"].len(), MOST_KEPT);
    }
}
