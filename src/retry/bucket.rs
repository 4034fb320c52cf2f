//! The tokens of one model, and the line of those who wait for one. Pure: it is told the time.
//!
//! Callers take turns, and each one's calls have their tokens in the order of arrival: who calls seldom does not wait
//! behind another's hundreds, and who comes later never overtakes the first. Only the first of the line knows the time of
//! the next token, and who leaves the front wakes the next: a waiter is polled when it arrives, when it is first, when a
//! success has given a token back, and not in between.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

/// The most calls that wait for tokens of one model. Past that, a call is told at once that there is none.
pub(super) const MAX_LINE: usize = 16_384;

/// The name of a caller. Calls without one count as those of one caller.
pub(super) type CallerName = Option<Arc<str>>;

/// The size of a bucket, and the time in which one token grows back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refill {
    pub(super) capacity: u32,
    pub(super) interval: Duration,
}

/// The tokens of one model, and the calls that wait for one.
#[derive(Debug)]
pub(super) struct Bucket {
    level: TokenLevel,
    line: TokenLine,
}

/// The calls that wait for a token, in the order in which they get one.
#[derive(Debug, Default)]
struct TokenLine {
    /// The callers by turn. Each has one turn, whose number is in its [`CallerLine`].
    turns: BTreeMap<u64, CallerName>,
    callers: HashMap<CallerName, CallerLine>,
    len: usize,
    /// The next number of a turn, and of a waiter.
    next: u64,
}

/// The waiters of one caller, of whom there is at least one.
#[derive(Debug, Default)]
struct CallerLine {
    turn: u64,
    /// The waiters by number, in the order of arrival, each with the waker of its task.
    waiters: BTreeMap<u64, Option<Waker>>,
}

/// The answer to a waiter that asks for its token.
#[derive(Debug)]
pub(super) enum TokenTurn {
    /// It has taken one and has left the line. The waker is that of the new first.
    Taken(Option<Waker>),
    /// It is first, and the next token grows back at that time.
    At(Instant),
    /// Another waiter is first.
    NotYet,
}

/// A number of whole tokens at an instant. A fraction of a token is kept as time: the instant lies that much earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TokenLevel {
    tokens: u32,
    at: Instant,
}

impl Bucket {
    pub(super) fn full(refill: Refill, now: Instant) -> Self {
        let level = TokenLevel { tokens: refill.capacity, at: now };
        Self { level, line: TokenLine::default() }
    }

    /// Returns the number of tokens.
    pub(super) fn tokens(&self, refill: Refill, now: Instant) -> u32 {
        self.level.grown(refill, now).tokens
    }

    /// Returns whether any call waits.
    pub(super) fn has_line(&self) -> bool {
        self.line.len > 0
    }

    /// Returns whether a new bucket would be the same.
    pub(super) fn is_forgettable(&self, refill: Refill, now: Instant) -> bool {
        !self.has_line() && self.tokens(refill, now) == refill.capacity
    }

    /// Takes a token, if there is one and nobody waits for it.
    pub(super) fn try_take(&mut self, refill: Refill, now: Instant) -> bool {
        !self.has_line() && self.level.take(refill, now)
    }

    /// Adds a waiter behind the others of its caller. `None`: the line is full.
    pub(super) fn join(&mut self, caller: &CallerName) -> Option<u64> {
        if self.line.len >= MAX_LINE {
            return None;
        }
        Some(self.line.join(caller))
    }

    /// Gives a token to a waiter that is first, if there is one. Otherwise `waker` is woken when there may be, but for
    /// the time in [`TokenTurn::At`].
    pub(super) fn poll(
        &mut self,
        caller: &CallerName,
        number: u64,
        refill: Refill,
        now: Instant,
        waker: &Waker,
    ) -> TokenTurn {
        let is_first = self.line.is_first(caller, number);
        if is_first && self.level.take(refill, now) {
            self.line.remove(caller, number);
            self.line.end_turn(caller);
            return TokenTurn::Taken(self.line.take_first_waker());
        }
        let Some(known) = self.line.waker(caller, number) else { return TokenTurn::NotYet };
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        if is_first { TokenTurn::At(self.level.at + refill.interval) } else { TokenTurn::NotYet }
    }

    /// Takes a waiter out of the line. Returns the waker of the new first, if the first has left.
    pub(super) fn leave(&mut self, caller: &CallerName, number: u64) -> Option<Waker> {
        let was_first = self.line.is_first(caller, number);
        self.line.remove(caller, number);
        if was_first { self.line.take_first_waker() } else { None }
    }

    /// Gives a token back. Returns the waker of the first waiter.
    pub(super) fn deposit(&mut self, refill: Refill, now: Instant) -> Option<Waker> {
        self.level.give(refill, now);
        self.line.take_first_waker()
    }
}

impl TokenLine {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn join(&mut self, caller: &CallerName) -> u64 {
        let number = self.number();
        let line = self.callers.entry(caller.clone()).or_default();
        if line.waiters.is_empty() {
            line.turn = number;
            self.turns.insert(number, caller.clone());
        }
        line.waiters.insert(number, None);
        self.len += 1;
        number
    }

    fn is_first(&self, caller: &CallerName, number: u64) -> bool {
        self.turns.first_key_value().is_some_and(|(_, first)| first == caller)
            && self.callers.get(caller).and_then(|line| line.waiters.first_key_value()).map(|(first, _)| *first)
                == Some(number)
    }

    fn waker(&mut self, caller: &CallerName, number: u64) -> Option<&mut Option<Waker>> {
        self.callers.get_mut(caller)?.waiters.get_mut(&number)
    }

    /// Removes a waiter, and its caller with the last one. One that gives up does not cost its caller the turn.
    fn remove(&mut self, caller: &CallerName, number: u64) {
        let Some(line) = self.callers.get_mut(caller) else { return };
        self.len -= usize::from(line.waiters.remove(&number).is_some());
        if line.waiters.is_empty() {
            self.turns.remove(&line.turn);
            self.callers.remove(caller);
        }
    }

    /// Puts a caller that has had its token behind all others.
    fn end_turn(&mut self, caller: &CallerName) {
        let turn = self.number();
        if let Some(line) = self.callers.get_mut(caller)
            && let Some(caller) = self.turns.remove(&line.turn)
        {
            line.turn = turn;
            self.turns.insert(turn, caller);
        }
    }

    fn take_first_waker(&mut self) -> Option<Waker> {
        let (_, caller) = self.turns.first_key_value()?;
        self.callers.get_mut(caller)?.waiters.first_entry()?.get_mut().take()
    }
}

impl TokenLevel {
    /// Returns the level as it is at `now`, with the tokens that have grown.
    fn grown(self, refill: Refill, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let missing = refill.capacity.saturating_sub(self.tokens);
        let grown = passed / refill.interval.as_nanos().max(1);
        match u32::try_from(grown) {
            Ok(grown) if grown < missing => Self { tokens: self.tokens + grown, at: self.at + refill.interval * grown },
            _ => Self { tokens: refill.capacity, at: now },
        }
    }

    fn take(&mut self, refill: Refill, now: Instant) -> bool {
        *self = self.grown(refill, now);
        let taken = self.tokens.checked_sub(1);
        self.tokens = taken.unwrap_or(0);
        taken.is_some()
    }

    fn give(&mut self, refill: Refill, now: Instant) {
        *self = self.grown(refill, now);
        self.tokens = self.tokens.saturating_add(1).min(refill.capacity);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::Wake,
    };

    use proptest::prelude::*;

    use super::*;

    /// A waker that remembers that it was woken.
    #[derive(Default)]
    struct WakeFlag(AtomicBool);

    impl Wake for WakeFlag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[derive(Clone, Debug)]
    enum BucketEvent {
        Take,
        Deposit,
        Wait(u64),
        /// A call of this caller comes.
        Join(u8),
        /// The `n`th waiter asks, woken or not.
        Ask(usize),
        /// The `n`th waiter leaves.
        Leave(usize),
        /// All waiters that have been woken, or whose time has come, ask.
        Run,
    }

    fn events() -> impl Strategy<Value = Vec<BucketEvent>> {
        use BucketEvent::*;
        let event = prop_oneof![
            3 => Just(Take),
            2 => Just(Deposit),
            2 => (0u64..3_000).prop_map(Wait),
            3 => (0u8..4).prop_map(Join),
            1 => (0usize..8).prop_map(Ask),
            1 => (0usize..8).prop_map(Leave),
            3 => Just(Run),
        ];
        proptest::collection::vec(event, 0..200)
    }

    /// A waiter as its task sees it.
    struct TestWaiter {
        caller: CallerName,
        number: u64,
        woken: Arc<WakeFlag>,
        /// The time to which it sleeps, if it was first when it asked last.
        timer: Option<Instant>,
    }

    /// The plain model: the milliseconds of tokens in one number, and a list of callers, each with a list of who waits.
    struct PlainBucket {
        millis: u64,
        most: u64,
        line: VecDeque<(CallerName, VecDeque<u64>)>,
    }

    impl PlainBucket {
        fn take(&mut self) -> bool {
            let has = self.millis >= 1000;
            self.millis -= if has { 1000 } else { 0 };
            has
        }

        fn first(&self) -> Option<u64> {
            self.line.front().and_then(|(_, waiters)| waiters.front()).copied()
        }

        fn join(&mut self, caller: &CallerName, number: u64) {
            match self.line.iter_mut().find(|(known, _)| known == caller) {
                Some((_, waiters)) => waiters.push_back(number),
                None => self.line.push_back((caller.clone(), [number].into())),
            }
        }

        /// The first has its token: its caller's next call waits behind all other callers.
        fn serve(&mut self) {
            if let Some((caller, mut waiters)) = self.line.pop_front() {
                waiters.pop_front();
                self.line.push_back((caller, waiters));
            }
            self.line.retain(|(_, waiters)| !waiters.is_empty());
        }

        fn leave(&mut self, number: u64) {
            self.line.iter_mut().for_each(|(_, waiters)| waiters.retain(|other| *other != number));
            self.line.retain(|(_, waiters)| !waiters.is_empty());
        }

        /// A full bucket keeps no fraction.
        fn add(&mut self, millis: u64) {
            self.millis = (self.millis + millis).min(self.most);
        }
    }

    /// Asks for a waiter, and compares. Returns whether it has its token.
    fn ask(
        bucket: &mut Bucket,
        plain: &mut PlainBucket,
        waiter: &mut TestWaiter,
        refill: Refill,
        now: Instant,
    ) -> bool {
        waiter.woken.0.store(false, Ordering::Relaxed);
        let is_first = plain.first() == Some(waiter.number);
        match bucket.poll(&waiter.caller, waiter.number, refill, now, &Waker::from(waiter.woken.clone())) {
            TokenTurn::Taken(next) => {
                assert!(is_first && plain.take(), "first, and there was one");
                plain.serve();
                next.into_iter().for_each(Waker::wake);
                true
            }
            TokenTurn::At(at) => {
                assert!(is_first && plain.millis < 1000);
                assert_eq!(at, now + Duration::from_millis(1000 - plain.millis));
                waiter.timer = Some(at);
                false
            }
            TokenTurn::NotYet => {
                assert!(!is_first);
                waiter.timer = None;
                false
            }
        }
    }

    proptest! {
        /// Whatever comes in whatever order: tokens are as many as in the plain model, go to the first, and whoever can
        /// have one has been woken or has the time of it.
        #[test]
        fn a_bucket_is_its_plain_model(capacity in 1u32..20, events in events()) {
            let refill = Refill { capacity, interval: Duration::from_secs(1) };
            let mut now = Instant::now();
            let mut bucket = Bucket::full(refill, now);
            let most = u64::from(capacity) * 1000;
            let mut plain = PlainBucket { millis: most, most, line: VecDeque::new() };
            let mut waiters: Vec<TestWaiter> = Vec::new();
            for event in events {
                match event {
                    BucketEvent::Wait(millis) => {
                        now += Duration::from_millis(millis);
                        plain.add(millis);
                    }
                    BucketEvent::Take => {
                        let expected = plain.line.is_empty() && plain.take();
                        prop_assert_eq!(bucket.try_take(refill, now), expected, "nobody overtakes");
                    }
                    BucketEvent::Deposit => {
                        plain.add(1000);
                        bucket.deposit(refill, now).into_iter().for_each(Waker::wake);
                    }
                    BucketEvent::Join(caller) => {
                        let caller = (caller > 0).then(|| caller.to_string().into());
                        let number = bucket.join(&caller).unwrap();
                        plain.join(&caller, number);
                        let mut waiter = TestWaiter { caller, number, woken: Arc::default(), timer: None };
                        // A task asks as soon as it waits.
                        if !ask(&mut bucket, &mut plain, &mut waiter, refill, now) {
                            waiters.push(waiter);
                        }
                    }
                    BucketEvent::Ask(nth) => {
                        if let Some(waiter) = waiters.get_mut(nth)
                            && ask(&mut bucket, &mut plain, waiter, refill, now)
                        {
                            waiters.remove(nth);
                        }
                    }
                    BucketEvent::Leave(nth) => {
                        if nth < waiters.len() {
                            let TestWaiter { caller, number, .. } = waiters.remove(nth);
                            plain.leave(number);
                            bucket.leave(&caller, number).into_iter().for_each(Waker::wake);
                            prop_assert!(bucket.line.waker(&caller, number).is_none(), "gone");
                        }
                    }
                    BucketEvent::Run => {
                        let due = |waiter: &TestWaiter| {
                            waiter.woken.0.load(Ordering::Relaxed) || waiter.timer.is_some_and(|at| at <= now)
                        };
                        while let Some(nth) = waiters.iter().position(due) {
                            waiters[nth].timer = None;
                            if ask(&mut bucket, &mut plain, &mut waiters[nth], refill, now) {
                                waiters.remove(nth);
                            }
                        }
                        prop_assert!(plain.line.is_empty() || plain.millis < 1000, "a token that nobody takes");
                        let first = waiters.iter().find(|waiter| plain.first() == Some(waiter.number));
                        prop_assert_eq!(first.is_some(), !plain.line.is_empty());
                        prop_assert!(first.is_none_or(|first| first.timer.is_some()), "the first sleeps to no time");
                    }
                }
                prop_assert_eq!(u64::from(bucket.tokens(refill, now)), plain.millis / 1000);
                prop_assert_eq!(bucket.has_line(), !plain.line.is_empty());
                prop_assert_eq!(bucket.line.callers.len(), plain.line.len());
                prop_assert_eq!(bucket.line.turns.len(), plain.line.len());
                prop_assert_eq!(bucket.is_forgettable(refill, now), plain.line.is_empty() && plain.millis == most);
            }
        }
    }

    #[test]
    fn the_line_is_bounded() {
        let refill = Refill { capacity: 1, interval: Duration::from_secs(1) };
        let mut bucket = Bucket::full(refill, Instant::now());
        let caller = |nth: usize| Some(nth.to_string().into());
        let numbers: Vec<_> = (0..MAX_LINE).map(|nth| bucket.join(&caller(nth % 3)).unwrap()).collect();
        assert_eq!(bucket.join(&caller(4)), None);
        bucket.leave(&caller(0), numbers[0]);
        assert!(bucket.join(&caller(4)).is_some());
        assert_eq!(bucket.join(&caller(4)), None);
    }
}
