//! The last word on each thing that instances tell each other of. Pure: it is told the time.
//!
//! Of two words on one thing the one that was found later counts, wherever it comes from, and in whatever order they are
//! read. So all instances come to the same, a word that is told twice changes nothing, and one that was lost can be told
//! again by whoever has heard it.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::key_pool::{PoolSubject, Standing};

/// The most things that are known. Beyond that, and while none can be forgotten, no new ones are told or heard.
pub(super) const MOST: usize = 4096;

/// The least time that a block has to last to be worth telling: what is shorter is over before others gain by it.
const WORTH: Duration = Duration::from_secs(5);

/// The time for which it is remembered that a key is good again, against an instance that has not heard that.
const REMEMBERED: i64 = 25 * 3_600 * 1_000;

/// The age in milliseconds of what is older than anything else.
const OLD: u64 = 40 * 86_400 * 1_000;

/// The difference of times of finding, in milliseconds, that says nothing: it may come from the way to the server. Of two such
/// words all believe the stricter one.
const AT_ONCE: Found = 25;

/// The longest time until something is told again that is no longer on the stream: the first to do so tells it for all.
const AGAIN: Duration = Duration::from_secs(2);

/// The id of an event: the server's time in milliseconds, and a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventId(pub(super) u64, pub(super) u64);

/// A time in milliseconds since the register was made; negative before.
type Found = i64;

/// The knowledge of one thing.
#[derive(Clone, Debug)]
struct Word {
    /// The standing in this instance's pool when it was last read.
    local: Standing,
    /// The last word of all instances.
    last: Standing,
    found: Found,
    /// The event that tells it. `None`: none on the stream does.
    told: Option<EventId>,
    /// The time at which it is to be told.
    due: Option<Instant>,
}

/// The word to be told of one thing.
#[derive(Clone, Debug)]
pub(super) struct NewsTelling {
    pub(super) subject: PoolSubject,
    pub(super) standing: Standing,
    found: Found,
}

#[derive(Debug)]
pub(super) struct Register {
    began: Instant,
    words: HashMap<PoolSubject, Word>,
}

impl Register {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, words: HashMap::new() }
    }

    pub(super) fn subjects(&self) -> Vec<PoolSubject> {
        self.words.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// Forgets things that are not in the pool any more.
    pub(super) fn forget(&mut self, gone: &[PoolSubject]) {
        for subject in gone {
            self.words.remove(subject);
        }
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let oldest = self.found(now, 0) - REMEMBERED;
        self.words.retain(|_, word| match word.last {
            Standing::Good => word.found > oldest || word.due.is_some(),
            last => !last.is_over(now),
        });
    }

    /// Takes note of the standing of a thing in this instance's pool. A change is news, and any that others have told is not.
    /// `is_kept`: it may be from before a restart, and older than anything that was told.
    pub(super) fn noticed(&mut self, subject: &PoolSubject, local: Standing, is_kept: bool, now: Instant) {
        let found = match local.since() {
            Some(since) if !is_kept => self.found(since.min(now), 0),
            _ => self.found(now, if is_kept { OLD } else { 0 }),
        };
        if let Some(word) = self.words.get_mut(subject) {
            if !word.local.is_same(&local) {
                *word = Word { local, last: local, found, told: None, due: Some(now) };
            }
            return;
        }
        let is_worth = match local {
            Standing::Good => false,
            Standing::Disabled(_) => true,
            Standing::Blocked(_) => local.left(now).is_some_and(|left| left >= WORTH),
        };
        if is_worth && self.has_room() {
            self.words.insert(subject.clone(), Word { local, last: local, found, told: None, due: Some(now) });
        }
    }

    /// Returns what is to be told now, what was found first first, and at most so many.
    pub(super) fn due(&self, now: Instant, most: usize) -> Vec<NewsTelling> {
        let due = self.words.iter().filter(|(_, word)| word.due.is_some_and(|due| due <= now));
        let mut all: Vec<_> = due
            .map(|(subject, word)| NewsTelling { subject: subject.clone(), standing: word.last, found: word.found })
            .collect();
        all.sort_by_key(|telling| telling.found);
        all.truncate(most);
        all
    }

    /// Returns the milliseconds since something was found.
    pub(super) fn age(&self, telling: &NewsTelling, now: Instant) -> u64 {
        u64::try_from(self.found(now, 0) - telling.found).unwrap_or_default()
    }

    /// Takes note that an event tells it, unless something newer has been found meanwhile.
    pub(super) fn told(&mut self, telling: &NewsTelling, id: EventId) {
        if let Some(word) = self.words.get_mut(&telling.subject).filter(|word| word.found == telling.found) {
            (word.told, word.due) = (Some(id), None);
        }
    }

    /// Takes note of the word of another instance, found `age` milliseconds ago. Returns whether it is the last word, and is
    /// to be taken up.
    pub(super) fn heard(
        &mut self,
        subject: &PoolSubject,
        told: Standing,
        age: u64,
        id: EventId,
        now: Instant,
        roll: f64,
    ) -> bool {
        let found = self.found(now, age);
        let Some(word) = self.words.get_mut(subject) else {
            let is_news = !matches!(told, Standing::Good);
            if self.has_room() {
                let word = Word { local: Standing::Good, last: told, found, told: Some(id), due: None };
                self.words.insert(subject.clone(), word);
                return is_news;
            }
            return false;
        };
        if word.last.is_alike(&told) {
            (word.told, word.due) = (word.told.max(Some(id)), None);
            word.found = word.found.max(found);
            return false;
        }
        let (is_newer, is_older) = match found - word.found {
            gap if gap > AT_ONCE => (true, false),
            gap if gap < -AT_ONCE => (false, true),
            _ => (told.outranks(&word.last), word.last.outranks(&told)),
        };
        if !is_newer {
            // Somebody did not know better when that was told. Of those who do, one says so.
            if is_older && word.told.is_none_or(|told| told < id) {
                word.due = word.due.or(Some(now + AGAIN.mul_f64(roll)));
            }
            return false;
        }
        *word = Word { local: word.local, last: told, found, told: Some(id), due: None };
        true
    }

    /// Takes note of the standing in this instance's pool after something was taken up there.
    pub(super) fn taken_up(&mut self, subject: &PoolSubject, local: Standing) {
        if let Some(word) = self.words.get_mut(subject) {
            word.local = local;
        }
    }

    /// Takes note of the oldest event that is still on the stream: what older ones told is to be told again, after a time at
    /// random. That a key is good again is told only against a word to the contrary.
    pub(super) fn oldest(&mut self, oldest: Option<EventId>, now: Instant, mut roll: impl FnMut() -> f64) {
        let is_gone = |told: EventId| oldest.is_none_or(|oldest| told < oldest);
        for word in self.words.values_mut().filter(|word| word.told.is_some_and(is_gone)) {
            word.told = None;
            if !matches!(word.last, Standing::Good) {
                word.due = Some(now + AGAIN.mul_f64(roll()));
            }
        }
    }

    /// Returns the last word on a thing.
    pub(super) fn last(&self, subject: &PoolSubject) -> Option<Standing> {
        Some(self.words.get(subject)?.last)
    }

    /// Makes room by forgetting what is good again.
    fn has_room(&mut self) -> bool {
        if self.words.len() >= MOST {
            self.words.retain(|_, word| !matches!(word.last, Standing::Good) || word.due.is_some());
        }
        self.words.len() < MOST
    }

    fn found(&self, now: Instant, age: u64) -> Found {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let since = match now.checked_duration_since(self.began) {
            Some(since) => millis(since),
            None => -millis(self.began - now),
        };
        since.saturating_sub(i64::try_from(age.min(10 * OLD)).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests;
