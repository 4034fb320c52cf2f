//! The desk against a plain model, and under threads.

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
    quota::{Limits, until_pacific_midnight},
    rate_limit::window::{GRAIN, WINDOW},
};

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Come {
        tokens: u64,
        may_move: bool,
    },
    /// One that was admitted from the queue is sent.
    Send(usize),
    /// One that was admitted from the queue is dropped instead.
    Drop(usize),
    Leave(usize),
    Settle(usize, u64),
    /// One that was sent did not get there.
    Refund(usize),
    Refuse {
        which: usize,
        secs: u64,
        named: Option<u64>,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let named = prop_oneof![3 => Just(None), 1 => (1u64..9).prop_map(Some)];
    let step = prop_oneof![
        5 => (0u64..9_000).prop_map(Step::Wait),
        2 => (0u64..90_000).prop_map(Step::Wait),
        1 => (0u64..40_000_000).prop_map(Step::Wait),
        14 => (0u64..120, any::<bool>()).prop_map(|(tokens, may_move)| Step::Come { tokens, may_move }),
        6 => (0usize..9).prop_map(Step::Send),
        2 => (0usize..9).prop_map(Step::Drop),
        3 => (0usize..40).prop_map(Step::Leave),
        3 => (0usize..40, 0u64..150).prop_map(|(which, tokens)| Step::Settle(which, tokens)),
        2 => (0usize..40).prop_map(Step::Refund),
        1 => (0usize..40, 0u64..70, named).prop_map(|(which, secs, named)| Step::Refuse { which, secs, named }),
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

/// One in the queue, and the executor's view of it: polled when it was woken or when its timer rings, and not otherwise.
struct Waiting {
    ticket: Ticket,
    tokens: u64,
    may_move: bool,
    flag: Arc<Flag>,
    timer: Option<Instant>,
    looked_at: Instant,
}

/// One that counts.
#[derive(Clone, Copy, Debug)]
struct Charged {
    receipt: Receipt,
    /// `None` while it is set aside.
    sent: Option<Instant>,
    /// Admitted from the queue, or at the moment that it was sent.
    day: Instant,
    tokens: u64,
    open: bool,
}

/// The plain model: everything that ever was, counted again each time.
struct Model {
    desk: Desk,
    now: Instant,
    queue: Vec<Waiting>,
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
        let calendar = Calendar { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_247_999 - 40_000), at: now };
        let desk = Desk::new(Scope::new("p", "m"), Account::new(limits, None, calendar, now), calendar);
        let day_ends = now + until_pacific_midnight(calendar.wall);
        Self {
            desk,
            now,
            queue: Vec::new(),
            charged: Vec::new(),
            blocked: None,
            last_admitted: None,
            polls: 0,
            came: 0,
            day_ends,
        }
    }

    fn limit(&self, dimension: Dimension, at: Instant) -> u64 {
        self.desk.read(self.now, |account, _| account.limit(dimension, at)).unwrap_or(u64::MAX)
    }

    /// Requests and tokens of the last so long, what is set aside included.
    fn counting(&self, since: Duration) -> (u64, u64) {
        let counts = self.charged.iter().filter(|charged| charged.sent.is_none_or(|at| at + since > self.now));
        counts.fold((0, 0), |(requests, tokens), charged| (requests + 1, tokens + charged.tokens))
    }

    fn today(&self) -> u64 {
        let today = |charged: &&Charged| charged.sent.is_none() || charged.day == self.day_ends;
        self.charged.iter().filter(today).count() as u64
    }

    fn fits(&self, tokens: u64, since: Duration) -> bool {
        self.fits_under(self.now, tokens, since)
    }

    /// Under the limits as they were `at` a moment: a lowered limit grows back, and that wakes nobody.
    fn fits_under(&self, at: Instant, tokens: u64, since: Duration) -> bool {
        let (requests, used) = self.counting(since);
        let rpm = self.limit(Dimension::RequestsPerMinute, at);
        let tpm = self.limit(Dimension::InputTokensPerMinute, at);
        requests < rpm
            && used + tokens.min(tpm) <= tpm
            && self.today() < self.limit(Dimension::RequestsPerDay, at)
            && self.blocked.is_none_or(|until| until <= self.now)
    }

    fn admitted(&mut self, receipt: Receipt, tokens: u64, sent: bool) {
        assert!(self.fits(tokens, Duration::from_secs(60)), "one too many");
        let tokens = tokens.min(self.limit(Dimension::InputTokensPerMinute, self.now));
        let sent = sent.then_some(self.now);
        self.charged.push(Charged { receipt, sent, day: self.day_ends, tokens, open: true });
    }

    fn come(&mut self, tokens: u64, may_move: bool) {
        self.came += 1;
        match self.desk.admit(self.now, TokenCost::estimate(tokens)) {
            Admission::Taken(receipt) => {
                assert!(self.queue.is_empty(), "it passed those who wait");
                self.admitted(receipt, tokens, true);
            }
            Admission::Later(at) => {
                assert!(!self.queue.is_empty() || !self.fits(tokens, WINDOW + GRAIN), "there was room");
                assert!(at > self.now || !self.queue.is_empty());
                let ticket = self.desk.join(self.now, Amount { requests: 1, tokens }, may_move);
                self.queue.push(Waiting {
                    ticket,
                    tokens,
                    may_move,
                    flag: Flag::new(),
                    timer: None,
                    looked_at: self.now,
                });
            }
            Admission::TooLarge(_) => unreachable!("an estimate"),
        }
    }

    /// Polls whoever was woken, or whose time has come, until nobody is left.
    fn run(&mut self) {
        loop {
            let now = self.now;
            let due = self.queue.iter().position(|waiting| {
                waiting.flag.woken.load(Ordering::SeqCst) || waiting.timer.is_some_and(|timer| timer <= now)
            });
            let Some(at) = due else { break };
            self.poll(at);
        }
        // Who is first knows a time, or it would wait for ever; and waits for a reason.
        if let Some(first) = self.queue.first() {
            assert!(first.timer.is_some_and(|timer| timer > self.now), "nobody will wake the first");
            let room = self.fits_under(first.looked_at, first.tokens, WINDOW + GRAIN);
            assert!(!room, "it waits although there is room");
        }
        let (ahead, waiting) = {
            let state = self.desk.state.lock();
            let ahead = state.waiting.values().fold(Amount::default(), |sum, waiter| sum.plus(waiter.counted));
            assert_eq!(state.ahead, ahead);
            (ahead, state.waiting.keys().copied().collect::<Vec<_>>())
        };
        assert_eq!(ahead.requests as usize, self.queue.len());
        assert_eq!(waiting, self.queue.iter().map(|waiting| waiting.ticket.0).collect::<Vec<_>>());
        let used = self.desk.read(self.now, |account, _| account.used(Dimension::RequestsPerDay));
        assert_eq!(used, self.today());
    }

    fn poll(&mut self, at: usize) {
        self.polls += 1;
        let waiting = &mut self.queue[at];
        waiting.timer = None;
        waiting.looked_at = self.now;
        waiting.flag.woken.store(false, Ordering::SeqCst);
        let waker = Waker::from(waiting.flag.clone());
        match self.desk.turn(waiting.ticket, self.now, &waker) {
            Turn::Taken(receipt) => {
                assert_eq!(at, 0, "first come, first served");
                let waiting = self.queue.remove(0);
                assert!(self.last_admitted < Some(waiting.ticket.0));
                self.last_admitted = Some(waiting.ticket.0);
                self.admitted(receipt, waiting.tokens, false);
                // Handed on.
                self.desk.leave(waiting.ticket);
            }
            Turn::At(when) => {
                assert!(at == 0 && when > self.now);
                self.queue[0].timer = Some(when);
            }
            Turn::NotYet => assert!(at > 0),
            Turn::SentAway(_) => {
                let waiting = self.queue.remove(at);
                assert!(waiting.may_move);
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        let target = self.now + Duration::from_millis(ms);
        loop {
            let next = self.queue.iter().filter_map(|waiting| waiting.timer).min();
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

    /// The `nth` of those that are so.
    fn pick(&self, nth: usize, is_so: impl Fn(&Charged) -> bool) -> Option<usize> {
        let some: Vec<usize> = (0..self.charged.len()).filter(|at| is_so(&self.charged[*at])).collect();
        some.get(nth.checked_rem(some.len())?).copied()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.wait(ms),
            Step::Come { tokens, may_move } => self.come(tokens, may_move),
            Step::Leave(nth) => {
                if let Some(at) = nth.checked_rem(self.queue.len()) {
                    let left = self.queue.remove(at);
                    self.desk.leave(left.ticket);
                }
            }
            Step::Send(nth) => {
                if let Some(at) = self.pick(nth, |charged| charged.sent.is_none()) {
                    let charged = &mut self.charged[at];
                    charged.receipt = self.desk.send(self.now, charged.receipt);
                    (charged.sent, charged.day) = (Some(self.now), self.day_ends);
                }
            }
            Step::Drop(nth) => {
                if let Some(at) = self.pick(nth, |charged| charged.sent.is_none()) {
                    let dropped = self.charged.remove(at);
                    self.desk.refund(dropped.receipt);
                }
            }
            Step::Settle(nth, tokens) => {
                if let Some(at) = self.pick(nth, |charged| charged.sent.is_some() && charged.open) {
                    let charged = &mut self.charged[at];
                    self.desk.settle(charged.receipt, tokens);
                    (charged.tokens, charged.open) = (tokens, false);
                }
            }
            Step::Refund(nth) => {
                if let Some(at) = self.pick(nth, |charged| charged.sent.is_some() && charged.open) {
                    let refunded = self.charged.remove(at);
                    self.desk.refund(refunded.receipt);
                }
            }
            Step::Refuse { which, secs, named } => {
                if let Some(at) = self.pick(which, |charged| charged.sent.is_some() && charged.open) {
                    let refused = self.charged.remove(at);
                    let until = self.now + Duration::from_secs(secs);
                    let refusal =
                        Refusal { until: Until::At(until), dimension: Some(Dimension::RequestsPerMinute), named };
                    self.desk.refused(self.now, refused.receipt, refusal);
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
        // Looked at when it came, when its turn came, at each change, and the first one once a minute while what is set
        // aside keeps it from knowing its time: not in between.
        let minutes = (model.now - begun).as_secs() as usize / 60;
        prop_assert!(model.polls <= 3 * model.came + 2 * steps_made + minutes, "{} polls", model.polls);
        // Nobody stays, once all that was taken is sent.
        while let Some(at) = model.pick(0, |charged| charged.sent.is_none()) {
            let held = model.charged.remove(at);
            model.desk.refund(held.receipt);
            model.run();
        }
        for _ in 0..400 {
            if model.queue.is_empty() { break }
            model.wait(24 * 3600 * 1000);
            while let Some(at) = model.pick(0, |charged| charged.sent.is_none()) {
                let held = model.charged.remove(at);
                model.desk.refund(held.receipt);
                model.run();
            }
        }
        prop_assert!(model.queue.is_empty(), "{} still wait", model.queue.len());
    }
}

fn desk(limits: Limits) -> Desk {
    let now = Instant::now();
    let calendar = Calendar { wall: SystemTime::UNIX_EPOCH, at: now };
    Desk::new(Scope::new("p", "m"), Account::new(limits, None, calendar, now), calendar)
}

#[tokio::test(start_paused = true)]
async fn the_computed_wait_is_never_too_long_and_for_equal_calls_exact() {
    for (cost, limits) in [
        (1, Limits::new().requests_per_minute(7)),
        (50, Limits::new().input_tokens_per_minute(350)),
        (50, Limits::new().requests_per_minute(7).input_tokens_per_minute(100_000)),
    ] {
        let desk = desk(limits);
        let begun = Instant::now();
        let mut now = begun;
        let mut promised = Vec::new();
        for nth in 0..50u64 {
            now = begun + Duration::from_millis(nth * 300);
            match desk.admit(now, TokenCost::estimate(cost)) {
                Admission::Taken(_) => {}
                Admission::Later(at) => {
                    promised.push((desk.join(now, Amount { requests: 1, tokens: cost }, false), at))
                }
                Admission::TooLarge(_) => unreachable!(),
            }
        }
        assert_eq!(promised.len(), 43);
        for (ticket, promise) in promised {
            let receipt = loop {
                match desk.turn(ticket, now, Waker::noop()) {
                    Turn::Taken(receipt) => break receipt,
                    Turn::At(at) => now = at,
                    turn => panic!("{turn:?}"),
                }
            };
            desk.send(now, receipt);
            desk.leave(ticket);
            assert_eq!(now, promise);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_behind_a_block_is_reckoned_from_its_end() {
    let desk = desk(Limits::new().requests_per_minute(2));
    let now = Instant::now();
    let Admission::Taken(receipt) = desk.admit(now, TokenCost::estimate(0)) else { panic!() };
    let until = Until::At(now + Duration::from_secs(40));
    desk.refused(now, receipt, Refusal { until, dimension: None, named: None });
    for secs in [40.0, 40.0, 100.25, 100.25, 160.5] {
        let Admission::Later(at) = desk.admit(now, TokenCost::estimate(0)) else { panic!() };
        assert_eq!(at, now + Duration::from_secs_f64(secs));
        desk.join(now, Amount { requests: 1, tokens: 0 }, false);
    }
}

#[tokio::test(start_paused = true)]
async fn estimates_beyond_the_limit_wait_in_line_as_what_they_will_be_charged() {
    let desk = desk(Limits::new().input_tokens_per_minute(100));
    let now = Instant::now();
    let huge = TokenCost::estimate(1_000_000);
    assert!(matches!(desk.admit(now, huge), Admission::Taken(_)));
    for turns in 1..5u32 {
        assert_eq!(desk.admit(now, huge), Admission::Later(now + WINDOW * turns));
        desk.join(now, Amount { requests: 1, tokens: huge.tokens }, false);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_set_aside_for_hours_still_counts_and_counts_a_minute_from_its_sending() {
    let desk = desk(Limits::new().requests_per_minute(2));
    let begun = Instant::now();
    let amount = Amount { requests: 1, tokens: 0 };
    let cost = TokenCost::estimate(0);
    let ticket = desk.join(begun, amount, false);
    let Turn::Taken(held) = desk.turn(ticket, begun, Waker::noop()) else { panic!() };
    desk.leave(ticket);
    let later = begun + Duration::from_secs(7200);
    assert!(matches!(desk.admit(later, cost), Admission::Taken(_)));
    assert!(matches!(desk.admit(later, cost), Admission::Later(_)));
    let sent_at = later + Duration::from_secs(30);
    let sent = desk.send(sent_at, held);
    assert_eq!(desk.send(sent_at + WINDOW, sent), sent, "once is enough");
    assert!(matches!(desk.admit(later + WINDOW, cost), Admission::Taken(_)));
    assert_eq!(desk.admit(later + WINDOW, cost), Admission::Later(sent_at + WINDOW));
}

/// Ten thousand wait, half of them leave at random, and the others go in order: a handful of looks for each.
#[tokio::test(start_paused = true)]
async fn ten_thousand_waiters_cost_two_polls_each_whoever_leaves() {
    const ALL: usize = 10_000;
    let mut model = Model::new(Limits::new().requests_per_minute(100));
    for _ in 0..ALL + 100 {
        model.come(10, false);
    }
    assert_eq!(model.queue.len(), ALL);
    while model.queue.iter().any(|waiting| waiting.flag.woken.load(Ordering::SeqCst)) {
        let at = model.queue.iter().position(|waiting| waiting.flag.woken.load(Ordering::SeqCst)).unwrap();
        model.poll(at);
    }
    assert_eq!(model.polls, ALL);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..ALL / 2 {
        let left = model.queue.remove(rng.usize(..model.queue.len()));
        model.desk.leave(left.ticket);
    }
    let (counted, waiting) = {
        let state = model.desk.state.lock();
        (state.ahead, state.waiting.len())
    };
    assert_eq!((counted, waiting), (Amount { requests: 5_000, tokens: 50_000 }, 5_000));
    let mut went = 0;
    while !model.queue.is_empty() {
        // What is admitted is sent at once.
        let first = &model.queue[0];
        let (ticket, flag) = (first.ticket, first.flag.clone());
        model.polls += 1;
        match model.desk.turn(ticket, model.now, &Waker::from(flag)) {
            Turn::Taken(receipt) => {
                model.desk.send(model.now, receipt);
                model.queue.remove(0);
                went += 1;
                let woken = |waiting: &Waiting| waiting.flag.woken.load(Ordering::SeqCst);
                assert!(!model.queue.first().is_some_and(woken), "before this one is handed on");
                model.desk.leave(ticket);
                // The next one, and nobody else, was woken.
                assert!(model.queue.first().is_none_or(|next| next.flag.woken.swap(false, Ordering::SeqCst)));
            }
            Turn::At(at) => model.now = at,
            turn => panic!("{turn:?}"),
        }
    }
    assert_eq!(went, ALL / 2);
    let wakes_of_those_who_left = ALL / 2;
    assert!(model.polls <= ALL + ALL / 2 + 2 * ALL / 100 + wakes_of_those_who_left, "{} polls", model.polls);
    assert_eq!(model.desk.state.lock().ahead, Amount::default());
    // As the module's documentation says.
    assert!(size_of::<Waiter>() <= 80, "{}", size_of::<Waiter>());
}

/// Real threads, and a clock that they push on when none of them is between looking at it and sending: no more than the
/// limit in any minute, and nobody is left behind.
#[test]
fn threads_share_a_desk_without_one_too_many_and_without_a_lost_wake_up() {
    const LIMIT: usize = 50;
    const THREADS: usize = 8;
    const EACH: usize = 200;
    let desk = desk(Limits::new().requests_per_minute(LIMIT as u64));
    let clock = parking_lot::RwLock::new(Instant::now());
    let sent = Mutex::new(Vec::new());
    let amount = Amount { requests: 1, tokens: 1 };
    let send = |rng: &mut fastrand::Rng, now: Instant, receipt: Receipt| match rng.u8(..8) {
        0 => desk.refund(receipt),
        _ => {
            desk.send(now, receipt);
            sent.lock().push(now);
        }
    };
    let one = |rng: &mut fastrand::Rng| {
        let now = clock.read();
        let ticket = match desk.admit(*now, TokenCost::estimate(1)) {
            Admission::Taken(receipt) => return send(rng, *now, receipt),
            _ => desk.join(*now, amount, false),
        };
        drop(now);
        if rng.u8(..4) == 0 {
            return desk.leave(ticket);
        }
        let flag = Flag::new();
        let waker = Waker::from(flag.clone());
        loop {
            while !flag.woken.swap(false, Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let now = clock.read();
            match desk.turn(ticket, *now, &waker) {
                Turn::Taken(receipt) => {
                    send(rng, *now, receipt);
                    return desk.leave(ticket);
                }
                Turn::At(at) => {
                    drop(now);
                    let mut now = clock.write();
                    *now = now.max(at);
                    flag.woken.store(true, Ordering::SeqCst);
                }
                Turn::NotYet => {}
                Turn::SentAway(_) => unreachable!(),
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
    assert!(desk.state.lock().waiting.is_empty() && desk.state.lock().ahead == Amount::default());
    let mut sent = sent.into_inner();
    sent.sort();
    assert!(sent.len() > THREADS * EACH / 2);
    for some in sent.windows(LIMIT + 1) {
        assert!(some[LIMIT] - some[0] >= Duration::from_secs(60), "{:?}", some[LIMIT] - some[0]);
    }
}

#[test]
fn a_scope_is_as_large_as_the_documentation_says() {
    // With its keys in the map, two counters each, and the first entries: a few hundred bytes more.
    assert!(size_of::<Desk>() <= 536, "{}", size_of::<Desk>());
}
