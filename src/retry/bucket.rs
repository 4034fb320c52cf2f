//! The tokens of one model, and the line of those who wait for one. Pure: it is told the time.
//!
//! Tokens are given in the order of arrival, so that nobody who comes later overtakes. Only the first of the line knows
//! the time of the next token, and who leaves the front wakes the next: a waiter is polled when it arrives, when it is
//! first, when a success has given a token back, and not in between.

use std::{collections::BTreeMap, task::Waker, time::Duration};

use tokio::time::Instant;

/// The most calls that wait for tokens of one model. Past that, a call is told at once that there is none.
pub(super) const MAX_LINE: usize = 16_384;

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
    /// The waiters by number, in the order of arrival, each with the waker of its task.
    line: BTreeMap<u64, Option<Waker>>,
    next: u64,
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
        Self { level, line: BTreeMap::new(), next: 0 }
    }

    /// Returns the number of tokens.
    pub(super) fn tokens(&self, refill: Refill, now: Instant) -> u32 {
        self.level.grown(refill, now).tokens
    }

    /// Returns whether any call waits.
    pub(super) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// Returns whether a new bucket would be the same.
    pub(super) fn is_forgettable(&self, refill: Refill, now: Instant) -> bool {
        !self.has_line() && self.tokens(refill, now) == refill.capacity
    }

    /// Takes a token, if there is one and nobody waits for it.
    pub(super) fn try_take(&mut self, refill: Refill, now: Instant) -> bool {
        !self.has_line() && self.level.take(refill, now)
    }

    /// Adds a waiter at the end of the line. `None`: the line is full.
    pub(super) fn join(&mut self) -> Option<u64> {
        if self.line.len() >= MAX_LINE {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.line.insert(number, None);
        Some(number)
    }

    /// Gives a token to a waiter that is first, if there is one. Otherwise `waker` is woken when there may be, but for
    /// the time in [`TokenTurn::At`].
    pub(super) fn poll(&mut self, number: u64, refill: Refill, now: Instant, waker: &Waker) -> TokenTurn {
        let is_first = self.line.first_key_value().is_some_and(|(first, _)| *first == number);
        if is_first && self.level.take(refill, now) {
            return TokenTurn::Taken(self.leave(number));
        }
        let Some(known) = self.line.get_mut(&number) else { return TokenTurn::NotYet };
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        if is_first { TokenTurn::At(self.level.at + refill.interval) } else { TokenTurn::NotYet }
    }

    /// Takes a waiter out of the line. Returns the waker of the new first, if the first has left.
    pub(super) fn leave(&mut self, number: u64) -> Option<Waker> {
        let was_first = self.line.first_key_value().is_some_and(|(first, _)| *first == number);
        self.line.remove(&number);
        if was_first { self.take_first_waker() } else { None }
    }

    /// Gives a token back. Returns the waker of the first waiter.
    pub(super) fn deposit(&mut self, refill: Refill, now: Instant) -> Option<Waker> {
        self.level.give(refill, now);
        self.take_first_waker()
    }

    fn take_first_waker(&mut self) -> Option<Waker> {
        self.line.first_entry().and_then(|mut first| first.get_mut().take())
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
        Join,
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
            3 => Just(Join),
            1 => (0usize..8).prop_map(Ask),
            1 => (0usize..8).prop_map(Leave),
            3 => Just(Run),
        ];
        proptest::collection::vec(event, 0..200)
    }

    /// A waiter as its task sees it.
    struct TestWaiter {
        number: u64,
        woken: Arc<WakeFlag>,
        /// The time to which it sleeps, if it was first when it asked last.
        timer: Option<Instant>,
    }

    /// The plain model: the milliseconds of tokens in one number, and a list of who waits.
    struct PlainBucket {
        millis: u64,
        most: u64,
        line: VecDeque<u64>,
    }

    impl PlainBucket {
        fn take(&mut self) -> bool {
            let has = self.millis >= 1000;
            self.millis -= if has { 1000 } else { 0 };
            has
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
        let is_first = plain.line.front() == Some(&waiter.number);
        match bucket.poll(waiter.number, refill, now, &Waker::from(waiter.woken.clone())) {
            TokenTurn::Taken(next) => {
                assert!(is_first && plain.take(), "first, and there was one");
                plain.line.pop_front();
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
                    BucketEvent::Join => {
                        let number = bucket.join().unwrap();
                        plain.line.push_back(number);
                        let mut waiter = TestWaiter { number, woken: Arc::default(), timer: None };
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
                            let number = waiters.remove(nth).number;
                            plain.line.retain(|other| *other != number);
                            bucket.leave(number).into_iter().for_each(Waker::wake);
                            prop_assert!(bucket.leave(number).is_none(), "once");
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
                        let first = waiters.first();
                        prop_assert!(first.is_none_or(|first| first.timer.is_some()), "the first sleeps to no time");
                    }
                }
                prop_assert_eq!(u64::from(bucket.tokens(refill, now)), plain.millis / 1000);
                prop_assert_eq!(bucket.has_line(), !plain.line.is_empty());
                prop_assert_eq!(bucket.is_forgettable(refill, now), plain.line.is_empty() && plain.millis == most);
            }
        }
    }

    #[test]
    fn the_line_is_bounded() {
        let refill = Refill { capacity: 1, interval: Duration::from_secs(1) };
        let mut bucket = Bucket::full(refill, Instant::now());
        for number in 0..MAX_LINE as u64 {
            assert_eq!(bucket.join(), Some(number));
        }
        assert_eq!(bucket.join(), None);
        bucket.leave(0);
        assert_eq!(bucket.join(), Some(MAX_LINE as u64));
    }
}
