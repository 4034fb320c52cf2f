//! Tests of the queue against a plain model, and under threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Wake,
    time::SystemTime,
};

use proptest::prelude::*;

use super::*;
use crate::{
    failure::{Failure, Kind},
    quota::{Answer, Closing, Limits, MemoryStore, Reply},
    rate_limit::window::{GRAIN, WINDOW},
};

#[derive(Clone, Debug)]
enum QueueStep {
    Wait(u64),
    Come {
        requests: u64,
        tokens: u64,
        may_move: bool,
    },
    /// A call that was admitted from the queue is sent.
    Send(usize),
    /// A call that was admitted from the queue is dropped instead.
    Drop(usize),
    Leave(usize),
    Settle(usize, u64),
    /// A call that was sent did not arrive.
    Refund(usize),
    Refuse {
        which: usize,
        secs: u64,
        named: Option<u64>,
    },
}

/// Makes the claim of a minute's quota; `None` of one that is back at once.
fn minute(secs: u64) -> Option<Claim> {
    let failure = Failure::local(Kind::QuotaMinute, "").with_hint(Duration::from_secs(secs));
    Claim::of(&failure).filter(|_| secs > 0)
}

fn steps() -> impl Strategy<Value = Vec<QueueStep>> {
    let named = prop_oneof![3 => Just(None), 1 => (1u64..9).prop_map(Some)];
    let step = prop_oneof![
        5 => (0u64..9_000).prop_map(QueueStep::Wait),
        2 => (0u64..90_000).prop_map(QueueStep::Wait),
        1 => (0u64..40_000_000).prop_map(QueueStep::Wait),
        14 => (prop_oneof![3 => Just(1u64), 1 => 2u64..6], 0u64..120, any::<bool>())
            .prop_map(|(requests, tokens, may_move)| QueueStep::Come { requests, tokens, may_move }),
        6 => (0usize..9).prop_map(QueueStep::Send),
        2 => (0usize..9).prop_map(QueueStep::Drop),
        3 => (0usize..40).prop_map(QueueStep::Leave),
        3 => (0usize..40, 0u64..150).prop_map(|(which, tokens)| QueueStep::Settle(which, tokens)),
        2 => (0usize..40).prop_map(QueueStep::Refund),
        1 => (0usize..40, 0u64..70, named).prop_map(|(which, secs, named)| QueueStep::Refuse { which, secs, named }),
    ];
    proptest::collection::vec(step, 1..200)
}

/// A waker that remembers that it was used.
#[derive(Debug)]
struct Flag {
    woken: AtomicBool,
    wakes: AtomicUsize,
}

impl Flag {
    fn new() -> Arc<Self> {
        // A future is polled once without having been woken.
        Arc::new(Self { woken: AtomicBool::new(true), wakes: AtomicUsize::new(0) })
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waiter in the queue with its simulated task: it is polled when it was woken or when its timer fires, and not
/// otherwise.
struct SimulatedWaiter {
    waiter: WaiterId,
    requests: u64,
    tokens: u64,
    may_move: bool,
    flag: Arc<Flag>,
    timer: Option<Instant>,
    looked_at: Instant,
}

impl SimulatedWaiter {
    fn amount(&self) -> Amount {
        Amount { requests: self.requests, tokens: self.tokens }
    }
}

/// A call whose amount counts.
#[derive(Clone, Copy, Debug)]
struct Charged {
    charge: Charge,
    /// The time at which it was sent; `None` while its amount is held.
    sent: Option<Instant>,
    /// The end of the day in which it was admitted from the queue or sent.
    day: Instant,
    requests: u64,
    tokens: u64,
    open: bool,
}

/// The plain model: a list of all calls there ever were, counted again each time.
struct Model {
    queue: ScopeQueue,
    now: Instant,
    waiters: Vec<SimulatedWaiter>,
    charged: Vec<Charged>,
    blocked: Option<Instant>,
    last_admitted: Option<u64>,
    polls: usize,
    came: usize,
    day_ends: Instant,
}

impl Model {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let calendar = PacificCalendar::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_247_999 - 40_000), now);
        let queue = ScopeQueue::new(Scope::new("p", "m"), Account::new(limits, None, calendar, now), calendar);
        let day_ends = calendar.day_end(now);
        Self {
            queue,
            now,
            waiters: Vec::new(),
            charged: Vec::new(),
            blocked: None,
            last_admitted: None,
            polls: 0,
            came: 0,
            day_ends,
        }
    }

    fn limit(&self, dimension: Dimension, at: Instant) -> u64 {
        self.queue.read(self.now, |account, _| account.limit(dimension, at)).unwrap_or(u64::MAX)
    }

    /// Returns the requests and tokens of the last `since`, held amounts included.
    fn counting(&self, since: Duration) -> (u64, u64) {
        let counts = self.charged.iter().filter(|charged| charged.sent.is_none_or(|at| at + since > self.now));
        counts.fold((0, 0), |(requests, tokens), charged| (requests + charged.requests, tokens + charged.tokens))
    }

    fn today(&self) -> u64 {
        let today = |charged: &&Charged| charged.sent.is_none() || charged.day == self.day_ends;
        self.charged.iter().filter(today).map(|charged| charged.requests).sum()
    }

    fn fits(&self, amount: Amount, since: Duration) -> bool {
        self.fits_under(self.now, amount, since)
    }

    /// Returns whether a call fits under the limits as they were `at` a time: a lowered limit grows back, and that
    /// wakes no waiter.
    fn fits_under(&self, at: Instant, amount: Amount, since: Duration) -> bool {
        let Amount { requests: more, tokens } = amount;
        let (requests, used) = self.counting(since);
        let rpm = self.limit(Dimension::RequestsPerMinute, at);
        let tpm = self.limit(Dimension::InputTokensPerMinute, at);
        requests + more.min(rpm) <= rpm
            && used + tokens.min(tpm) <= tpm
            && self.today() + more <= self.limit(Dimension::RequestsPerDay, at)
            && self.blocked.is_none_or(|until| until <= self.now)
    }

    fn admitted(&mut self, charge: Charge, amount: Amount, sent: bool) {
        assert!(self.fits(amount, Duration::from_secs(60)), "one too many");
        let Amount { requests, tokens } = amount;
        let requests = requests.min(self.limit(Dimension::RequestsPerMinute, self.now));
        let tokens = tokens.min(self.limit(Dimension::InputTokensPerMinute, self.now));
        let sent = sent.then_some(self.now);
        self.charged.push(Charged { charge, sent, day: self.day_ends, requests, tokens, open: true });
    }

    fn come(&mut self, requests: u64, tokens: u64, may_move: bool) {
        self.came += 1;
        let amount = Amount { requests, tokens };
        match self.queue.admit(self.now, requests as u32, TokenCost::estimate(tokens), false, Claimant::default()) {
            QueueAdmission::Taken(charge) => {
                assert!(self.waiters.is_empty(), "it passed those who wait");
                self.admitted(charge, amount, true);
            }
            QueueAdmission::Later(at) => {
                assert!(!self.waiters.is_empty() || !self.fits(amount, WINDOW + GRAIN), "there was room");
                assert!(at > self.now || !self.waiters.is_empty());
                let waiter = self.queue.join(self.now, amount, may_move, false, Claimant::default(), None);
                self.waiters.push(SimulatedWaiter {
                    waiter,
                    requests,
                    tokens,
                    may_move,
                    flag: Flag::new(),
                    timer: None,
                    looked_at: self.now,
                });
            }
            QueueAdmission::Shut(_) | QueueAdmission::Ask(..) => unreachable!("a minute's, and without a store"),
            // The tokens are an estimate, which proves nothing.
            QueueAdmission::TooLarge(dimension, limit) => {
                assert!(requests > 1 && requests > limit && dimension != Dimension::InputTokensPerMinute);
            }
        }
    }

    /// Polls all waiters that were woken or whose time has come, until none is left.
    fn run(&mut self) {
        loop {
            let now = self.now;
            let due = self.waiters.iter().position(|waiting| {
                waiting.flag.woken.load(Ordering::SeqCst) || waiting.timer.is_some_and(|timer| timer <= now)
            });
            let Some(at) = due else { break };
            self.poll(at);
        }
        // The first waiter has a timer, or it would wait forever; and it waits for a reason.
        if let Some(first) = self.waiters.first() {
            assert!(first.timer.is_some_and(|timer| timer > self.now), "nobody will wake the first");
            let room = self.fits_under(first.looked_at, first.amount(), WINDOW + GRAIN);
            assert!(!room, "it waits although there is room");
        }
        let (ahead, waiting) = {
            let state = self.queue.state.lock();
            (state.ahead(), state.line.iter().flat_map(|line| line.numbers()).collect::<Vec<_>>())
        };
        assert!(ahead.requests <= self.waiters.iter().map(|waiting| waiting.requests).sum());
        assert!(ahead.requests as usize >= self.waiters.len());
        assert_eq!(waiting, self.waiters.iter().map(|waiting| waiting.waiter.0).collect::<Vec<_>>());
        let used = self.queue.read(self.now, |account, _| account.used(Dimension::RequestsPerDay));
        assert_eq!(used, self.today());
    }

    fn poll(&mut self, at: usize) {
        self.polls += 1;
        let waiting = &mut self.waiters[at];
        waiting.timer = None;
        waiting.looked_at = self.now;
        waiting.flag.woken.store(false, Ordering::SeqCst);
        let waker = Waker::from(waiting.flag.clone());
        match self.queue.poll_grant(waiting.waiter, self.now, &waker) {
            Grant::Taken(charge) => {
                assert_eq!(at, 0, "first come, first served");
                let waiting = self.waiters.remove(0);
                assert!(self.last_admitted < Some(waiting.waiter.0));
                self.last_admitted = Some(waiting.waiter.0);
                self.admitted(charge, waiting.amount(), false);
                // It is passed to the inner service.
                self.queue.leave(waiting.waiter);
            }
            Grant::At(when) => {
                assert!(at == 0 && when > self.now);
                self.waiters[0].timer = Some(when);
            }
            Grant::NotYet => assert!(at > 0),
            Grant::Ask(..) | Grant::HeldBack(_) => unreachable!("without a store"),
            Grant::SentAway(_) => {
                let waiting = self.waiters.remove(at);
                assert!(waiting.may_move);
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        let target = self.now + Duration::from_millis(ms);
        loop {
            let next = self.waiters.iter().filter_map(|waiting| waiting.timer).min();
            let next = next.filter(|next| *next < target).unwrap_or(target);
            self.now = next;
            while self.day_ends <= self.now {
                self.day_ends += Duration::from_secs(24 * 3600);
            }
            self.run();
            if next == target {
                return;
            }
        }
    }

    /// Returns the `nth` of those that are so.
    fn pick(&self, nth: usize, is_so: impl Fn(&Charged) -> bool) -> Option<usize> {
        let some: Vec<usize> = (0..self.charged.len()).filter(|at| is_so(&self.charged[*at])).collect();
        some.get(nth.checked_rem(some.len())?).copied()
    }

    fn step(&mut self, step: QueueStep) {
        match step {
            QueueStep::Wait(ms) => self.wait(ms),
            QueueStep::Come { requests, tokens, may_move } => self.come(requests, tokens, may_move),
            QueueStep::Leave(nth) => {
                if let Some(at) = nth.checked_rem(self.waiters.len()) {
                    let left = self.waiters.remove(at);
                    self.queue.leave(left.waiter);
                }
            }
            QueueStep::Send(nth) => {
                if let Some(at) = self.pick(nth, |charged| charged.sent.is_none()) {
                    let charged = &mut self.charged[at];
                    charged.charge = self.queue.send(self.now, charged.charge);
                    (charged.sent, charged.day) = (Some(self.now), self.day_ends);
                }
            }
            QueueStep::Drop(nth) => {
                if let Some(at) = self.pick(nth, |charged| charged.sent.is_none()) {
                    let dropped = self.charged.remove(at);
                    self.queue.refund(dropped.charge);
                }
            }
            QueueStep::Settle(nth, tokens) => {
                if let Some(at) = self.pick(nth, |charged| charged.sent.is_some() && charged.open) {
                    let charged = &mut self.charged[at];
                    self.queue.settle(charged.charge, tokens);
                    (charged.tokens, charged.open) = (tokens, false);
                }
            }
            QueueStep::Refund(nth) => {
                if let Some(at) = self.pick(nth, |charged| charged.sent.is_some() && charged.open) {
                    let refunded = self.charged.remove(at);
                    self.queue.refund(refunded.charge);
                }
            }
            QueueStep::Refuse { which, secs, named } => {
                if let Some(at) = self.pick(which, |charged| charged.sent.is_some() && charged.open) {
                    let refused = self.charged.remove(at);
                    let until = self.now + Duration::from_secs(secs);
                    let refusal = UpstreamRefusal {
                        claim: minute(secs),
                        grounded: false,
                        dimension: Some(Dimension::RequestsPerMinute),
                        named,
                    };
                    self.queue.refused(self.now, refused.charge, refusal);
                    self.blocked = Some(self.blocked.map_or(until, |blocked| blocked.max(until)));
                }
            }
        }
        self.run();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_desk_is_its_plain_model(
        steps in steps(),
        rpm in proptest::option::of(1u64..9),
        tpm in proptest::option::of(60u64..250),
        rpd in proptest::option::of(5u64..40),
    ) {
        let mut limits = Limits::new();
        if let Some(rpm) = rpm { limits = limits.requests_per_minute(rpm); }
        if let Some(tpm) = tpm { limits = limits.input_tokens_per_minute(tpm); }
        if let Some(rpd) = rpd { limits = limits.requests_per_day(rpd); }
        let mut model = Model::new(limits);
        let (begun, steps_made) = (model.now, steps.len());
        for step in steps {
            model.step(step);
        }
        // A waiter is polled when it arrives, when its turn comes and at each change, and the first one once a minute
        // while held amounts keep it from knowing its time: not in between.
        let minutes = (model.now - begun).as_secs() as usize / 60;
        prop_assert!(model.polls <= 3 * model.came + 2 * steps_made + minutes, "{} polls", model.polls);
        // No waiter stays once all admitted calls are sent.
        while let Some(at) = model.pick(0, |charged| charged.sent.is_none()) {
            let held = model.charged.remove(at);
            model.queue.refund(held.charge);
            model.run();
        }
        for _ in 0..400 {
            if model.waiters.is_empty() { break }
            model.wait(24 * 3600 * 1000);
            while let Some(at) = model.pick(0, |charged| charged.sent.is_none()) {
                let held = model.charged.remove(at);
                model.queue.refund(held.charge);
                model.run();
            }
        }
        prop_assert!(model.waiters.is_empty(), "{} still wait", model.waiters.len());
    }
}

fn queue(limits: Limits) -> ScopeQueue {
    let now = Instant::now();
    let calendar = PacificCalendar::new(SystemTime::UNIX_EPOCH, now);
    ScopeQueue::new(Scope::new("p", "m"), Account::new(limits, None, calendar, now), calendar)
}

#[tokio::test(start_paused = true)]
async fn the_computed_wait_is_never_too_long_and_for_equal_calls_exact() {
    for (cost, limits) in [
        (1, Limits::new().requests_per_minute(7)),
        (50, Limits::new().input_tokens_per_minute(350)),
        (50, Limits::new().requests_per_minute(7).input_tokens_per_minute(100_000)),
    ] {
        let queue = queue(limits);
        let begun = Instant::now();
        let mut now = begun;
        let mut promised = Vec::new();
        for nth in 0..50u64 {
            now = begun + Duration::from_millis(nth * 300);
            match queue.admit(now, 1, TokenCost::estimate(cost), false, Claimant::default()) {
                QueueAdmission::Taken(_) => {}
                QueueAdmission::Later(at) => promised.push((
                    queue.join(now, Amount { requests: 1, tokens: cost }, false, false, Claimant::default(), None),
                    at,
                )),
                QueueAdmission::Shut(_) | QueueAdmission::Ask(..) | QueueAdmission::TooLarge(..) => unreachable!(),
            }
        }
        assert_eq!(promised.len(), 43);
        for (waiter, promise) in promised {
            let charge = loop {
                match queue.poll_grant(waiter, now, Waker::noop()) {
                    Grant::Taken(charge) => break charge,
                    Grant::At(at) => now = at,
                    turn => panic!("{turn:?}"),
                }
            };
            queue.send(now, charge);
            queue.leave(waiter);
            assert_eq!(now, promise);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_behind_a_block_is_reckoned_from_its_end() {
    let queue = queue(Limits::new().requests_per_minute(2));
    let now = Instant::now();
    let QueueAdmission::Taken(charge) = queue.admit(now, 1, TokenCost::estimate(0), false, Claimant::default()) else {
        panic!()
    };
    queue.refused(now, charge, UpstreamRefusal { claim: minute(40), grounded: false, dimension: None, named: None });
    for secs in [40.0, 40.0, 100.25, 100.25, 160.5] {
        let QueueAdmission::Later(at) = queue.admit(now, 1, TokenCost::estimate(0), false, Claimant::default()) else {
            panic!()
        };
        assert_eq!(at, now + Duration::from_secs_f64(secs));
        queue.join(now, Amount { requests: 1, tokens: 0 }, false, false, Claimant::default(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn estimates_beyond_the_limit_wait_in_line_as_what_they_will_be_charged() {
    let queue = queue(Limits::new().input_tokens_per_minute(100));
    let now = Instant::now();
    let huge = TokenCost::estimate(1_000_000);
    assert!(matches!(queue.admit(now, 1, huge, false, Claimant::default()), QueueAdmission::Taken(_)));
    for turns in 1..5u32 {
        assert_eq!(queue.admit(now, 1, huge, false, Claimant::default()), QueueAdmission::Later(now + WINDOW * turns));
        queue.join(now, Amount { requests: 1, tokens: huge.tokens }, false, false, Claimant::default(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_for_hours_still_counts_and_counts_a_minute_from_its_sending() {
    let queue = queue(Limits::new().requests_per_minute(2));
    let begun = Instant::now();
    let amount = Amount { requests: 1, tokens: 0 };
    let cost = TokenCost::estimate(0);
    let waiter = queue.join(begun, amount, false, false, Claimant::default(), None);
    let Grant::Taken(held) = queue.poll_grant(waiter, begun, Waker::noop()) else { panic!() };
    queue.leave(waiter);
    let later = begun + Duration::from_secs(7200);
    assert!(matches!(queue.admit(later, 1, cost, false, Claimant::default()), QueueAdmission::Taken(_)));
    assert!(matches!(queue.admit(later, 1, cost, false, Claimant::default()), QueueAdmission::Later(_)));
    let sent_at = later + Duration::from_secs(30);
    let sent = queue.send(sent_at, held);
    assert_eq!(queue.send(sent_at + WINDOW, sent), sent, "once is enough");
    assert!(matches!(queue.admit(later + WINDOW, 1, cost, false, Claimant::default()), QueueAdmission::Taken(_)));
    assert_eq!(
        queue.admit(later + WINDOW, 1, cost, false, Claimant::default()),
        QueueAdmission::Later(sent_at + WINDOW)
    );
}

/// Ten thousand calls wait, half of them leave at random, and the others go in order, with a handful of polls each.
#[tokio::test(start_paused = true)]
async fn ten_thousand_waiters_cost_two_polls_each_whoever_leaves() {
    const ALL: usize = 10_000;
    let mut model = Model::new(Limits::new().requests_per_minute(100));
    for _ in 0..ALL + 100 {
        model.come(1, 10, false);
    }
    assert_eq!(model.waiters.len(), ALL);
    while model.waiters.iter().any(|waiting| waiting.flag.woken.load(Ordering::SeqCst)) {
        let at = model.waiters.iter().position(|waiting| waiting.flag.woken.load(Ordering::SeqCst)).unwrap();
        model.poll(at);
    }
    assert_eq!(model.polls, ALL);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..ALL / 2 {
        let left = model.waiters.remove(rng.usize(..model.waiters.len()));
        model.queue.leave(left.waiter);
    }
    let (counted, waiting) = {
        let state = model.queue.state.lock();
        (state.ahead(), state.line.as_deref().map_or(0, Turns::len))
    };
    assert_eq!((counted, waiting), (Amount { requests: 5_000, tokens: 50_000 }, 5_000));
    let mut went = 0;
    while !model.waiters.is_empty() {
        // An admitted call is sent at once.
        let first = &model.waiters[0];
        let (waiter, flag) = (first.waiter, first.flag.clone());
        model.polls += 1;
        match model.queue.poll_grant(waiter, model.now, &Waker::from(flag)) {
            Grant::Taken(charge) => {
                model.queue.send(model.now, charge);
                model.waiters.remove(0);
                went += 1;
                let woken = |waiting: &SimulatedWaiter| waiting.flag.woken.load(Ordering::SeqCst);
                assert!(!model.waiters.first().is_some_and(woken), "before this one is handed on");
                model.queue.leave(waiter);
                // The next waiter was woken, and no other.
                assert!(model.waiters.first().is_none_or(|next| next.flag.woken.swap(false, Ordering::SeqCst)));
            }
            Grant::At(at) => model.now = at,
            turn => panic!("{turn:?}"),
        }
    }
    assert_eq!(went, ALL / 2);
    let wakes_of_those_who_left = ALL / 2;
    assert!(model.polls <= ALL + ALL / 2 + 2 * ALL / 100 + wakes_of_those_who_left, "{} polls", model.polls);
    assert_eq!(model.queue.state.lock().ahead(), Amount::default());
    // As the module's documentation says.
    let size = Turns::<Waiter>::size_of_waiter();
    assert!(size <= 96, "{size}");
}

/// Runs real threads with a clock that they advance when none of them is between reading it and sending: no minute
/// holds more than the limit, and no waiter is left behind.
#[test]
fn threads_share_a_desk_without_one_too_many_and_without_a_lost_wake_up() {
    const LIMIT: usize = 50;
    const THREADS: usize = 8;
    const EACH: usize = 200;
    let queue = queue(Limits::new().requests_per_minute(LIMIT as u64));
    let clock = parking_lot::RwLock::new(Instant::now());
    let sent = Mutex::new(Vec::new());
    let amount = Amount { requests: 1, tokens: 1 };
    let send = |rng: &mut fastrand::Rng, now: Instant, charge: Charge| match rng.u8(..8) {
        0 => queue.refund(charge),
        _ => {
            queue.send(now, charge);
            sent.lock().push(now);
        }
    };
    let one = |rng: &mut fastrand::Rng| {
        let now = clock.read();
        let waiter = match queue.admit(*now, 1, TokenCost::estimate(1), false, Claimant::default()) {
            QueueAdmission::Taken(charge) => return send(rng, *now, charge),
            _ => queue.join(*now, amount, false, false, Claimant::default(), None),
        };
        drop(now);
        if rng.u8(..4) == 0 {
            return queue.leave(waiter);
        }
        let flag = Flag::new();
        let waker = Waker::from(flag.clone());
        loop {
            while !flag.woken.swap(false, Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let now = clock.read();
            match queue.poll_grant(waiter, *now, &waker) {
                Grant::Taken(charge) => {
                    send(rng, *now, charge);
                    return queue.leave(waiter);
                }
                Grant::At(at) => {
                    drop(now);
                    let mut now = clock.write();
                    *now = now.max(at);
                    flag.woken.store(true, Ordering::SeqCst);
                }
                Grant::NotYet => {}
                Grant::SentAway(_) | Grant::Ask(..) | Grant::HeldBack(_) => unreachable!(),
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let one = &one;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread as u64);
                (0..EACH).for_each(|_| one(&mut rng));
            });
        }
    });
    assert!(!queue.state.lock().has_waiters() && queue.state.lock().ahead() == Amount::default());
    let mut sent = sent.into_inner();
    sent.sort();
    assert!(sent.len() > THREADS * EACH / 2);
    for some in sent.windows(LIMIT + 1) {
        assert!(some[LIMIT] - some[0] >= Duration::from_secs(60), "{:?}", some[LIMIT] - some[0]);
    }
}

#[test]
fn a_scope_is_as_large_as_the_documentation_says() {
    // Its names with two counters each, its place in the map and the first entries are a few hundred bytes more.
    assert!(size_of::<ScopeQueue>() <= 608, "{}", size_of::<ScopeQueue>());
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_a_whole_limit_is_told_so_and_a_smaller_one_waits() {
    let queue = queue(Limits::new().requests_per_minute(100).requests_per_day(120));
    let (now, none) = (Instant::now(), TokenCost::estimate(0));
    assert_eq!(
        queue.admit(now, 101, none, false, Claimant::default()),
        QueueAdmission::TooLarge(Dimension::RequestsPerMinute, 100)
    );
    assert_eq!(
        queue.admit(now, u32::MAX, none, false, Claimant::default()),
        QueueAdmission::TooLarge(Dimension::RequestsPerMinute, 100)
    );
    let QueueAdmission::Taken(charge) = queue.admit(now, 60, none, false, Claimant::default()) else { panic!() };
    assert_eq!(queue.admit(now, 41, none, false, Claimant::default()), QueueAdmission::Later(now + WINDOW));
    assert_eq!(queue.headroom(now, Amount { requests: 40, tokens: 0 }, Claimant::default()), Duration::ZERO);
    // It is refunded as a whole.
    queue.refund(charge);
    assert!(matches!(queue.admit(now, 100, none, false, Claimant::default()), QueueAdmission::Taken(_)));
    // The day has room for twenty more, and no minute has room for more than it has.
    let QueueAdmission::Later(at) = queue.admit(now + WINDOW, 21, none, false, Claimant::default()) else { panic!() };
    assert!(at > now + Duration::from_secs(3_600), "{:?}", at - now);
    assert!(matches!(queue.admit(now + WINDOW, 20, none, false, Claimant::default()), QueueAdmission::Taken(_)));

    let day = ScopeQueue::new(
        Scope::new("p", "m"),
        Account::new(Limits::new().requests_per_day(50), None, queue.calendar, now),
        queue.calendar,
    );
    assert_eq!(
        day.admit(now, 51, none, false, Claimant::default()),
        QueueAdmission::TooLarge(Dimension::RequestsPerDay, 50)
    );
}

// === with a store ===

fn with_store(limits: Limits, store: impl QuotaStore + 'static) -> ScopeQueue {
    queue(limits).with_store(Some(Arc::new(store)))
}

/// Joins a waiter of one request.
fn waiter(queue: &ScopeQueue, now: Instant, caller: &Arc<str>) -> WaiterId {
    let claimant = Claimant { caller: Some(caller), ..Claimant::default() };
    queue.join(now, Amount { requests: 1, tokens: 0 }, false, false, claimant, None)
}

fn asks(queue: &ScopeQueue, id: WaiterId, now: Instant, waker: &Waker) -> (Charge, Question) {
    match queue.poll_grant(id, now, waker) {
        Grant::Ask(charge, question) => (charge, question),
        grant => panic!("{grant:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_asks_is_first_until_its_answer_and_is_charged_for_its_turn_by_a_grant_only() {
    let now = Instant::now();
    let queue = with_store(Limits::new().requests_per_minute(9), MemoryStore::new());
    let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
    let first = waiter(&queue, now, &one);
    let (charge, question) = asks(&queue, first, now, Waker::noop());
    assert_eq!((question.requests, question.limits.get(Dimension::RequestsPerMinute)), (1, Some(9)));
    // Two of a caller that were alone so far count as one turn ahead: the other caller would be next.
    let (second, of_other) = (waiter(&queue, now, &one), waiter(&queue, now, &other));
    // No other passes it, and no newcomer.
    let flag = Flag::new();
    flag.woken.store(false, Ordering::SeqCst);
    assert_eq!(queue.poll_grant(of_other, now, &Waker::from(flag.clone())), Grant::NotYet);
    assert_eq!(queue.poll_grant(first, now, Waker::noop()), Grant::NotYet, "it has asked");
    let none = TokenCost::estimate(0);
    assert!(matches!(queue.admit(now, 1, none, false, Claimant::default()), QueueAdmission::Later(_)));
    // It is refused: the order decides again, and whoever is first remembers the refusal until it may ask again.
    let full = Answer::Full { dimension: Some(Dimension::RequestsPerMinute), wait: Duration::from_secs(7) };
    queue.denied(now, Some(first), charge, full);
    queue.refund(charge);
    assert!(flag.woken.load(Ordering::SeqCst));
    assert_eq!(queue.poll_grant(first, now, Waker::noop()), Grant::NotYet);
    let Grant::HeldBack(held_back) = queue.poll_grant(of_other, now, Waker::noop()) else { panic!() };
    let again = held_back.again;
    assert_eq!(held_back.at, now + Duration::from_secs(7));
    assert!((800..=1_200).contains(&(again - now).as_millis()), "{:?}", again - now);
    // It is granted, and leaves the turn to the others, in their order.
    let (charge, question) = asks(&queue, of_other, again, Waker::noop());
    let Reply::Now(Answer::Granted(grant)) = queue.ask(question) else { panic!() };
    queue.granted(again, Some(of_other), charge, grant);
    assert_eq!(queue.poll_grant(first, again, Waker::noop()), Grant::NotYet);
    queue.leave(of_other);
    assert_eq!(queue.poll_grant(second, again, Waker::noop()), Grant::NotYet);
    asks(&queue, first, again, Waker::noop());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_while_it_asks_wakes_the_next() {
    let now = Instant::now();
    let queue = with_store(Limits::new().requests_per_minute(1), MemoryStore::new());
    let caller: Arc<str> = "one".into();
    let ids = [0; 2].map(|_| waiter(&queue, now, &caller));
    let flag = Flag::new();
    flag.woken.store(false, Ordering::SeqCst);
    assert_eq!(queue.poll_grant(ids[1], now, &Waker::from(flag.clone())), Grant::NotYet);
    let (charge, _) = asks(&queue, ids[0], now, Waker::noop());
    queue.leave(ids[0]);
    assert!(flag.woken.load(Ordering::SeqCst));
    // The amount that it held is given back after that.
    assert!(matches!(queue.poll_grant(ids[1], now, &Waker::from(flag.clone())), Grant::HeldBack(_)));
    flag.woken.store(false, Ordering::SeqCst);
    queue.refund(charge);
    assert!(flag.woken.load(Ordering::SeqCst));
    asks(&queue, ids[1], now, Waker::noop());
}

#[tokio::test(start_paused = true)]
async fn a_long_closing_by_others_sends_all_waiters_away_and_a_short_one_those_that_may_move() {
    for (ends, moves_only) in [(Duration::from_secs(7_200), false), (Duration::from_secs(60), true)] {
        let now = Instant::now();
        let queue = with_store(Limits::new().requests_per_minute(9), MemoryStore::new());
        let amount = Amount { requests: 1, tokens: 0 };
        let join = |may_move| queue.join(now, amount, may_move, false, Claimant::default(), None);
        let ids = [join(false), join(true), join(false)];
        let (charge, _) = asks(&queue, ids[0], now, Waker::noop());
        queue.denied(now, Some(ids[0]), charge, Answer::Closed(Closing::of(ends).look(Duration::from_secs(50))));
        queue.refund(charge);
        let sent_away = ids.map(|id| matches!(queue.poll_grant(id, now, Waker::noop()), Grant::SentAway(_)));
        assert_eq!(sent_away, [!moves_only, true, !moves_only]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pace_loses_no_turn_by_a_refusal_of_the_store() {
    let now = Instant::now();
    let calendar = PacificCalendar::new(SystemTime::UNIX_EPOCH, now);
    let pacer =
        crate::rate_limit::pacing::Pacer::new(crate::rate_limit::Pacing::Smooth { burst: std::num::NonZeroU32::MIN });
    let account = Account::new(Limits::new().requests_per_minute(6), pacer, calendar, now);
    let queue = ScopeQueue::new(Scope::new("p", "m"), account, calendar).with_store(Some(Arc::new(MemoryStore::new())));
    let none = TokenCost::estimate(0);
    let mut now = now;
    for _ in 0..5 {
        let QueueAdmission::Ask(charge, ..) = queue.admit(now, 1, none, false, Claimant::default()) else { panic!() };
        queue.denied(now, None, charge, Answer::Full { dimension: None, wait: Duration::from_millis(500) });
        queue.refund(charge);
        tokio::time::advance(Duration::from_millis(500)).await;
        now = Instant::now();
    }
    let QueueAdmission::Ask(charge, question, _) = queue.admit(now, 1, none, false, Claimant::default()) else {
        panic!()
    };
    let Reply::Now(Answer::Granted(grant)) = queue.ask(question) else { panic!() };
    queue.granted(now, None, charge, grant);
    assert!(matches!(queue.admit(now, 1, none, false, Claimant::default()), QueueAdmission::Later(_)));
}

#[tokio::test(start_paused = true)]
async fn a_block_ends_here_once_the_store_says_that_the_scope_is_open_for_all() {
    let now = Instant::now();
    let queue = with_store(Limits::new().requests_per_minute(9), MemoryStore::new());
    let none = TokenCost::estimate(0);
    let admit = |now| queue.admit(now, 1, none, false, Claimant::default());
    let QueueAdmission::Ask(charge, ..) = admit(now) else { panic!() };
    let claim = Claim::of(&Failure::local(Kind::QuotaDay, ""));
    let sent = queue.send(now, charge);
    queue.refused(now, sent, UpstreamRefusal { claim, grounded: false, dimension: None, named: None });
    assert!(matches!(admit(now), QueueAdmission::Shut(_)));
    let later = now + Duration::from_secs(15);
    for is_look in [true, false] {
        let QueueAdmission::Ask(charge, ..) = admit(later) else { panic!() };
        let grant = crate::quota::Grant::new(crate::quota::StoreCharge(1, 1));
        queue.granted(later, None, charge, if is_look { grant.looking() } else { grant });
        // While it looks for all, the others stay out.
        assert_eq!(matches!(admit(later), QueueAdmission::Ask(..)), !is_look);
        queue.refund(charge);
    }
}
