//! The shares of callers in the memory for kept bodies: numbers, which are told the time.
//!
//! One caller must not take the memory of all, with bodies that it never ends. A fixed share of a half would not do: two
//! callers would have everything. So a caller keeps no more than it leaves free, as a port of a switch gets no more of the
//! packet buffer (Choudhury and Hahne, "Dynamic queue length thresholds", 1998): one caller alone has half of the memory,
//! of `n` greedy ones each has one part of `n + 1`, and one such part stays free for the next.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::report::{ReplayReport, UnkeptCounts};
use crate::context::Unkept;

/// The most callers that are told apart. Those beyond are one caller, together with the calls without one.
pub(super) const MOST_CALLERS: usize = 4_096;

/// The least time between two warnings.
const QUIET: Duration = Duration::from_secs(60);

/// A caller, or `None` for all calls without one.
pub(super) type Caller = Option<Arc<str>>;

/// The caps on bytes that are kept at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caps {
    pub(super) total: usize,
    pub(super) per_caller: Option<usize>,
}

/// The bytes that are kept, in all and of each caller.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) caps: Caps,
    used: usize,
    callers: CallerShares,
    /// Set with the first caller that has a name. Until then there is nobody to share with.
    tells_callers_apart: bool,
    unkept: UnkeptCounts,
    last_without_room: Option<Instant>,
    warned: Option<Instant>,
}

/// The part of one caller.
#[derive(Debug)]
struct Share {
    bytes: usize,
    bodies: usize,
}

/// The part of each caller that has a byte. That of the calls without one is found without a hash: in most programs there
/// are no others.
#[derive(Debug, Default)]
struct CallerShares {
    unnamed: Option<Share>,
    named: HashMap<Arc<str>, Share>,
}

impl Shares {
    pub(super) fn new(caps: Caps) -> Self {
        Self {
            caps,
            used: 0,
            callers: CallerShares::default(),
            tells_callers_apart: false,
            unkept: UnkeptCounts::default(),
            last_without_room: None,
            warned: None,
        }
    }

    /// Takes `bytes` more for a body that has `held` already. Its first byte decides as whose it is counted.
    pub(super) fn grow(&mut self, caller: &mut Caller, held: usize, bytes: usize) -> Result<(), Unkept> {
        self.tells_callers_apart |= caller.is_some();
        let Caps { total, per_caller } = self.caps;
        let used = self.used.checked_add(bytes).filter(|used| *used <= total).ok_or(Unkept::NoRoom)?;
        if bytes == 0 {
            return Ok(());
        }
        if held == 0 && self.callers.len() >= MOST_CALLERS && self.callers.get_mut(caller).is_none() {
            *caller = None;
        }
        // Each piece of a body comes here, so that a caller that is known is looked up once.
        let known = self.callers.get_mut(caller);
        let own = known.as_ref().map_or(0, |share| share.bytes) + bytes;
        let leaves_too_little = self.tells_callers_apart && own > total - used;
        if leaves_too_little || per_caller.is_some_and(|most| own > most) {
            return Err(Unkept::CallerShare);
        }
        self.used = used;
        match known {
            Some(share) => (share.bytes, share.bodies) = (own, share.bodies + usize::from(held == 0)),
            None => self.callers.insert(caller, Share { bytes: own, bodies: 1 }),
        }
        Ok(())
    }

    /// Gives back all bytes of a body.
    pub(super) fn give_back(&mut self, caller: &Caller, bytes: usize) {
        let Some(share) = self.callers.get_mut(caller).filter(|_| bytes > 0) else { return };
        self.used -= bytes;
        share.bytes -= bytes;
        share.bodies -= 1;
        if share.bodies == 0 {
            self.callers.remove(caller);
        }
    }

    /// Counts a body that is not kept. Returns whether it is time for a warning.
    pub(super) fn note_unkept(&mut self, why: Unkept, now: Instant) -> bool {
        self.unkept.count(why);
        if why == Unkept::TooLarge {
            return false;
        }
        self.last_without_room = Some(now);
        let is_due = self.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= QUIET);
        if is_due {
            self.warned = Some(now);
        }
        is_due
    }

    pub(super) fn report(&self, now: Instant) -> ReplayReport {
        let largest = self.callers.iter().max_by_key(|(_, share)| share.bytes);
        ReplayReport {
            used: self.used,
            max: self.caps.total,
            max_per_caller: self.caps.per_caller,
            bodies: self.callers.iter().map(|(_, share)| share.bodies).sum(),
            callers: self.callers.len(),
            largest: largest.map(|(caller, share)| (caller.cloned(), share.bytes)),
            unkept: self.unkept,
            last_without_room: self.last_without_room.map(|last| now.saturating_duration_since(last)),
        }
    }
}

impl CallerShares {
    fn len(&self) -> usize {
        self.named.len() + usize::from(self.unnamed.is_some())
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get_mut(&mut self, caller: &Caller) -> Option<&mut Share> {
        match caller {
            None => self.unnamed.as_mut(),
            Some(caller) => self.named.get_mut(caller),
        }
    }

    fn insert(&mut self, caller: &Caller, share: Share) {
        match caller {
            None => self.unnamed = Some(share),
            Some(caller) => drop(self.named.insert(caller.clone(), share)),
        }
    }

    fn remove(&mut self, caller: &Caller) {
        match caller {
            None => self.unnamed = None,
            Some(caller) => drop(self.named.remove(caller)),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Option<&Arc<str>>, &Share)> {
        let unnamed = self.unnamed.iter().map(|share| (None, share));
        unnamed.chain(self.named.iter().map(|(caller, share)| (Some(caller), share)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(total: usize, per_caller: Option<usize>) -> Shares {
        Shares::new(Caps { total, per_caller })
    }

    fn named(name: &str) -> Caller {
        Some(name.into())
    }

    /// Takes one byte after the other for one body, and returns how many were taken.
    fn take_all(shares: &mut Shares, caller: &str) -> usize {
        (0..).find(|held| shares.grow(&mut named(caller), *held, 1).is_err()).unwrap()
    }

    #[test]
    fn a_caller_alone_has_half_and_greedy_ones_leave_a_part_to_the_next() {
        let mut shares = shares(600, None);
        assert_eq!(take_all(&mut shares, "a"), 300);
        assert_eq!(take_all(&mut shares, "b"), 150, "half of what is free");
        assert_eq!(take_all(&mut shares, "c"), 75);
        assert_eq!(shares.grow(&mut named("a"), 0, 1), Err(Unkept::CallerShare));
        assert_eq!(shares.grow(&mut named("d"), 0, 30), Ok(()));
        // As they begin anew, the parts become equal.
        shares.give_back(&named("a"), 300);
        shares.give_back(&named("d"), 30);
        assert_eq!(take_all(&mut shares, "a"), (600 - 225) / 2);
    }

    #[test]
    fn a_share_that_is_set_holds_as_well() {
        let mut shares = shares(600, Some(100));
        assert_eq!(take_all(&mut shares, "a"), 100);
        assert_eq!(shares.grow(&mut None, 0, 101), Err(Unkept::CallerShare));
        assert_eq!(shares.grow(&mut None, 0, 100), Ok(()));
        shares.caps = Caps { total: 200, per_caller: None };
        assert_eq!(shares.grow(&mut named("b"), 0, 1), Err(Unkept::NoRoom));
        shares.caps = Caps { total: 100, per_caller: None };
        assert_eq!(shares.grow(&mut named("b"), 0, 1), Err(Unkept::NoRoom), "more is used than there is now");
        assert_eq!(shares.grow(&mut named("b"), 0, usize::MAX), Err(Unkept::NoRoom));
    }

    #[test]
    fn calls_without_a_caller_have_all_until_one_has_a_name() {
        let mut shares = shares(100, None);
        assert_eq!(shares.grow(&mut None, 0, 100), Ok(()));
        shares.give_back(&None, 100);
        assert_eq!(shares.grow(&mut named("a"), 0, 1), Ok(()));
        assert_eq!(shares.grow(&mut None, 0, 50), Err(Unkept::CallerShare));
        assert_eq!(shares.grow(&mut None, 0, 49), Ok(()));
    }

    #[test]
    fn callers_beyond_the_most_are_counted_together_and_leave_nothing() {
        let mut shares = shares(1 << 20, None);
        let mut callers: Vec<_> = (0..MOST_CALLERS + 10).map(|nth| named(&nth.to_string())).collect();
        callers.iter_mut().for_each(|caller| shares.grow(caller, 0, 1).unwrap());
        assert_eq!(callers.iter().filter(|caller| caller.is_none()).count(), 10);
        assert_eq!(shares.callers.len(), MOST_CALLERS + 1);
        // Those that are known stay apart.
        let mut known = named("0");
        shares.grow(&mut known, 0, 1).unwrap();
        assert_eq!(known, named("0"));
        shares.give_back(&known, 1);
        callers.iter().for_each(|caller| shares.give_back(caller, 1));
        assert_eq!((shares.callers.len(), shares.used), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_warning_comes_once_a_minute_and_not_for_large_bodies() {
        let (mut shares, now) = (shares(1, None), Instant::now());
        assert!(!shares.note_unkept(Unkept::TooLarge, now));
        assert_eq!(shares.report(now).last_without_room, None);
        assert!(shares.note_unkept(Unkept::NoRoom, now));
        assert!(!shares.note_unkept(Unkept::CallerShare, now + QUIET / 2));
        assert_eq!(shares.report(now + QUIET).last_without_room, Some(QUIET / 2));
        assert!(shares.note_unkept(Unkept::CallerShare, now + QUIET));
        let unkept = shares.report(now).unkept;
        assert_eq!((unkept.too_large, unkept.no_room, unkept.caller_share), (1, 1, 2));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin { caller: u8, bytes: usize },
        More { body: usize, bytes: usize },
        End { body: usize },
        Resize { total: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u8, 0..400_usize).prop_map(|(caller, bytes)| Step::Begin { caller, bytes }),
            4 => (any::<usize>(), 0..400_usize).prop_map(|(body, bytes)| Step::More { body, bytes }),
            3 => any::<usize>().prop_map(|body| Step::End { body }),
            1 => (0..2_000_usize).prop_map(|total| Step::Resize { total }),
        ]
    }

    proptest! {
        /// Callers come, grow and go in any order; caller 0 has no name.
        #[test]
        fn nobody_takes_more_than_it_leaves_and_all_comes_back(steps in proptest::collection::vec(step(), 1..200)) {
            let mut shares = shares(1_000, None);
            let mut bodies: Vec<(Caller, usize)> = Vec::new();
            let name = |caller: u8| (caller > 0).then(|| Arc::from(caller.to_string()));
            for step in steps {
                let grown = match step {
                    Step::Begin { caller, bytes } => {
                        bodies.push((name(caller), 0));
                        Some((bodies.len() - 1, bytes))
                    }
                    Step::More { body, bytes } if !bodies.is_empty() => Some((body % bodies.len(), bytes)),
                    Step::End { body } if !bodies.is_empty() => {
                        let (caller, bytes) = bodies.swap_remove(body % bodies.len());
                        shares.give_back(&caller, bytes);
                        None
                    }
                    Step::Resize { total } => {
                        shares.caps.total = total;
                        None
                    }
                    _ => None,
                };
                let of = |bodies: &[(Caller, usize)], caller: &Caller| -> usize {
                    bodies.iter().filter(|(other, _)| other == caller).map(|(_, bytes)| bytes).sum()
                };
                if let Some((body, bytes)) = grown {
                    let (caller, held) = &mut bodies[body];
                    let (result, total) = (shares.grow(caller, *held, bytes), shares.caps.total);
                    if result.is_ok() {
                        *held += bytes;
                    }
                    let caller = caller.clone();
                    let used: usize = bodies.iter().map(|(_, bytes)| bytes).sum();
                    let own = of(&bodies, &caller);
                    if result.is_ok() && bytes > 0 {
                        prop_assert!(used <= total);
                        prop_assert!(own <= total - used || !shares.tells_callers_apart);
                    } else if bytes > 0 {
                        // No refusal without need: room was short, or the caller would leave too little.
                        prop_assert!(used + bytes > total || own + bytes > total - used - bytes);
                    }
                }
                let report = shares.report(Instant::now());
                prop_assert_eq!(report.used, bodies.iter().map(|(_, bytes)| bytes).sum::<usize>());
                prop_assert_eq!(report.bodies, bodies.iter().filter(|(_, bytes)| *bytes > 0).count());
                let most = bodies.iter().map(|(caller, _)| of(&bodies, caller)).max().unwrap_or(0);
                prop_assert_eq!(report.largest.map_or(0, |(_, bytes)| bytes), most);
            }
            bodies.iter().for_each(|(caller, bytes)| shares.give_back(caller, *bytes));
            prop_assert!(shares.callers.is_empty() && shares.used == 0);
        }
    }
}
