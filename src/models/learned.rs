//! Input limits that the upstream itself has named in refusals. A pure state machine, which is told the time.
//!
//! The limit that is really served can be lower than the published one, and changes without notice. The newest refusal
//! that names it holds, whether the limit learned before was lower or higher. And it is forgotten after `learned_for`,
//! because the upstream does not say when it raises a limit.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::nearest::MAX_NAME;
use crate::bounded::make_room;

/// The most names whose limit is remembered. Past that, the oldest makes room.
pub(super) const MAX_LEARNED: usize = 1_024;

/// The least number that can be a limit: the least of any listed model is 480 (Imagen's), so a lower one was misread.
pub(super) const MIN_LIMIT: u64 = 256;

#[derive(Debug, Default)]
pub(super) struct Learned {
    limits: HashMap<Box<str>, LearnedLimit>,
}

#[derive(Clone, Copy, Debug)]
struct LearnedLimit {
    limit: u64,
    at: Instant,
}

impl Learned {
    /// Remembers a limit. Returns `false` where the number cannot be one.
    pub(super) fn learn(&mut self, name: &str, limit: u64, now: Instant, lasts: Duration) -> bool {
        if name.is_empty() || name.len() > MAX_NAME || limit < MIN_LIMIT {
            return false;
        }
        let learned = LearnedLimit { limit, at: now };
        if let Some(known) = self.limits.get_mut(name) {
            *known = learned;
            return true;
        }
        make_room(&mut self.limits, MAX_LEARNED, |learned| learned.holds(now, lasts), |learned| learned.at);
        self.limits.insert(name.into(), learned);
        true
    }

    /// Returns the limit learned for this model, as long as it holds. It calls `now` only where there is one.
    pub(super) fn get(&self, name: &str, now: impl FnOnce() -> Instant, lasts: Duration) -> Option<u64> {
        let learned = self.limits.get(name)?;
        learned.holds(now(), lasts).then_some(learned.limit)
    }

    /// Returns all limits that hold.
    pub(super) fn iter(&self, now: Instant, lasts: Duration) -> impl Iterator<Item = (&str, u64)> {
        let holding = self.limits.iter().filter(move |(_, learned)| learned.holds(now, lasts));
        holding.map(|(name, learned)| (&**name, learned.limit))
    }
}

impl LearnedLimit {
    fn holds(self, now: Instant, lasts: Duration) -> bool {
        now.saturating_duration_since(self.at) < lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_newest_word_holds_for_its_time() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        let hour = Duration::from_secs(3_600);
        assert!(learned.learn("m", 65_536, now, DAY));
        assert!(learned.learn("m", 131_072, now + hour, DAY));
        assert_eq!(learned.get("m", || now + DAY, DAY), Some(131_072));
        assert_eq!(learned.get("m", || now + hour + DAY, DAY), None);
        assert_eq!(learned.iter(now + hour + DAY, DAY).count(), 0);
        assert_eq!(learned.get("other", || now, DAY), None);
    }

    #[test]
    fn numbers_that_cannot_be_limits_are_not_remembered() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        assert!(!learned.learn("m", 255, now, DAY) && learned.learn("m", 256, now, DAY));
        assert!(!learned.learn("", 4_096, now, DAY) && !learned.learn(&"m".repeat(129), 4_096, now, DAY));
        assert!(learned.learn(&"m".repeat(128), 4_096, now, DAY));
    }

    #[test]
    fn a_full_memory_forgets_what_it_learned_first() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        for at in 0..MAX_LEARNED as u64 + 10 {
            learned.learn(&format!("m{at}"), 4_096, now + Duration::from_secs(at), DAY);
            // Learnt again each time, so never the oldest.
            learned.learn("m0", 8_192, now + Duration::from_secs(at), DAY);
        }
        assert_eq!(learned.limits.len(), MAX_LEARNED);
        let end = now + Duration::from_secs(MAX_LEARNED as u64 + 10);
        let knows = |name: &str| learned.get(name, || end, DAY).is_some();
        assert!(knows("m0") && !knows("m1") && !knows("m10") && knows("m11") && knows("m1033"));
    }

    #[test]
    fn what_no_longer_holds_makes_room_first() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        for at in 0..MAX_LEARNED {
            let at_once = if at < 500 { now } else { now + DAY };
            learned.learn(&format!("m{at}"), 4_096, at_once, DAY);
        }
        learned.learn("new", 4_096, now + DAY, DAY);
        assert_eq!(learned.limits.len(), MAX_LEARNED - 500 + 1);
    }
}
