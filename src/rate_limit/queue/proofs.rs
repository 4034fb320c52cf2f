//! Proofs of the queue in every order in which threads can reach it: small programs for loom, which `tests/loom/run`
//! runs.
//!
//! A waiter has a timer here only where a comment says so: a waiter that can be admitted has to be woken. A lost
//! wake-up leaves all threads asleep, which loom reports as a deadlock.

#![allow(clippy::unwrap_used, reason = "a proof that fails panics")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Wake,
    time::SystemTime,
};

use loom::{model::Builder, sync::Notify, thread::spawn};

use super::*;
use crate::{
    context::Priority,
    failure::{Failure, Kind},
    proofs::Proof,
    quota::{Answer, Limits},
    rate_limit::window::WINDOW,
};

pub(crate) const PROOFS: &[Proof] = &[
    ("no minute holds more than the limit", no_minute_holds_more_than_the_limit),
    ("a held amount counts, wherever its call waits", a_held_amount_counts),
    ("a refund goes to the next, one at a time", a_refund_goes_to_the_next_one_at_a_time),
    ("a waiter that leaves the queue wakes the next", a_waiter_that_leaves_wakes_the_next),
    ("settling lets all go that fit, in order", settling_lets_all_go_that_fit_in_order),
    ("a refusal sends away, and the first of the others knows its time", a_refusal_sends_away),
    ("a refusal gives its place to the next", a_refusal_gives_its_place_to_the_next),
    ("one call looks whether a block still holds, and lets the others go", one_call_looks_for_the_others),
    ("dropped between its turn and its call, it passes both on", dropped_between_its_turn_and_its_call),
    ("a newcomer overtakes no waiter, and is not forgotten", a_newcomer_overtakes_no_waiter),
    ("one that takes the first place, and leaves it, forgets nobody", one_that_takes_the_first_place),
    ("calls that come together for a new scope share one queue", calls_that_come_together_share_one_queue),
    ("a waiter that asks the store and is refused, or leaves, forgets nobody", one_that_asks_forgets_nobody),
    ("a waiter that asks holds its place, and a newcomer its order", one_that_asks_holds_its_place),
];

/// Checks all orders, or those with at most `preemptions` preemptions: three threads with many steps have too many
/// orders.
fn check(preemptions: Option<usize>, program: impl Fn(Instant) + Sync + Send + 'static) {
    // The caller passes the time, so that it stands still.
    let now = Instant::now();
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.check(move || program(now));
}

fn queue(now: Instant, limits: Limits) -> Arc<ScopeQueue> {
    let calendar = PacificCalendar::new(SystemTime::UNIX_EPOCH, now);
    Arc::new(ScopeQueue::new(Scope::new("p", "m"), Account::new(limits, None, calendar, now), calendar))
}

fn requests(limit: u64) -> Limits {
    Limits::new().requests_per_minute(limit)
}

fn tokens(limit: u64) -> Limits {
    Limits::new().input_tokens_per_minute(limit)
}

fn refusal(claim: Option<Claim>) -> UpstreamRefusal {
    UpstreamRefusal { claim, grounded: false, dimension: None, named: None }
}

fn take(queue: &ScopeQueue, now: Instant, tokens: u64) -> Charge {
    match queue.admit(now, 1, TokenCost::estimate(tokens), false, Claimant::default()) {
        QueueAdmission::Taken(charge) => charge,
        admission => panic!("{admission:?}"),
    }
}

/// A waker that wakes a thread.
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// A waiter in the queue: a future and its task.
struct QueuedCaller {
    queue: Arc<ScopeQueue>,
    waiter: WaiterId,
    bell: Arc<Bell>,
}

impl QueuedCaller {
    fn join(queue: &Arc<ScopeQueue>, now: Instant, tokens: u64, may_move: bool) -> Self {
        Self::join_as(queue, now, tokens, may_move, Claimant::default())
    }

    fn join_as(queue: &Arc<ScopeQueue>, now: Instant, tokens: u64, may_move: bool, claimant: Claimant<'_>) -> Self {
        let waiter = queue.join(now, Amount { requests: 1, tokens }, may_move, false, claimant, None);
        Self { queue: queue.clone(), waiter, bell: Arc::new(Bell(Notify::new())) }
    }

    /// Polls once.
    fn poll(&self, now: Instant) -> Grant {
        self.queue.poll_grant(self.waiter, now, &Waker::from(self.bell.clone()))
    }

    /// Polls, sleeps until it is woken and polls again, until a grant `ends` the wait.
    fn wait(&self, now: Instant, ends: impl Fn(&Grant) -> bool) -> Grant {
        loop {
            let turn = self.poll(now);
            if ends(&turn) {
                return turn;
            }
            self.bell.0.wait();
        }
    }

    /// Waits for its turn.
    fn turn(&self, now: Instant) -> Charge {
        match self.wait(now, |turn| matches!(turn, Grant::Taken(_))) {
            Grant::Taken(charge) => charge,
            turn => panic!("{turn:?}"),
        }
    }

    fn leave(self) {
        self.queue.leave(self.waiter);
    }
}

/// Checks that no call waits, and that no amount counts that is not charged.
fn is_at_rest(queue: &ScopeQueue) {
    let state = queue.state.lock();
    assert!(!state.has_waiters() && state.ahead() == Amount::default());
}

fn no_minute_holds_more_than_the_limit() {
    check(None, |now| {
        let queue = queue(now, requests(1));
        let sent = Arc::new(std::sync::Mutex::new(Vec::new()));
        let call = {
            let (queue, sent) = (queue.clone(), sent.clone());
            move || {
                let at = come_and_go(&queue, now);
                sent.lock().unwrap().push(at);
            }
        };
        let others = [spawn(call.clone()), spawn(call.clone())];
        call();
        others.into_iter().for_each(|other| other.join().unwrap());
        let mut sent = sent.lock().unwrap();
        sent.sort();
        assert!(sent.windows(2).all(|two| two[1] - two[0] >= Duration::from_secs(60)), "{sent:?}");
        is_at_rest(&queue);
    });
}

/// Makes a whole call, with a timer, and returns when it was sent.
fn come_and_go(queue: &Arc<ScopeQueue>, mut now: Instant) -> Instant {
    let caller = match queue.admit(now, 1, TokenCost::estimate(0), false, Claimant::default()) {
        QueueAdmission::Taken(_) => return now,
        _ => QueuedCaller::join(queue, now, 0, false),
    };
    loop {
        match caller.wait(now, |turn| *turn != Grant::NotYet) {
            Grant::Taken(charge) => {
                queue.send(now, charge);
                caller.leave();
                return now;
            }
            // Its timer fires.
            Grant::At(at) => now = at,
            turn => panic!("{turn:?}"),
        }
    }
}

fn a_held_amount_counts() {
    check(None, |now| {
        let queue = queue(now, requests(1));
        let charge = take(&queue, now, 0);
        let (first, second) = (QueuedCaller::join(&queue, now, 0, false), QueuedCaller::join(&queue, now, 0, false));
        let has_left = Arc::<AtomicBool>::default();
        let leaves = has_left.clone();
        // The inner service is not ready for it, so that it leaves before it is sent.
        let is_not_ready = spawn(move || {
            let (queue, charge) = (first.queue.clone(), first.turn(now));
            leaves.store(true, SeqCst);
            first.leave();
            queue.send(now, charge);
        });
        let waits = spawn(move || {
            let turn = second.wait(now, |turn| *turn != Grant::NotYet && has_left.load(SeqCst));
            assert_eq!(turn, Grant::At(now + WINDOW), "one too many");
        });
        queue.refund(charge);
        is_not_ready.join().unwrap();
        waits.join().unwrap();
    });
}

fn a_refund_goes_to_the_next_one_at_a_time() {
    check(Some(4), |now| {
        let queue = queue(now, requests(1));
        let under_way = Arc::<AtomicUsize>::default();
        let call = {
            let queue = queue.clone();
            move || {
                let (charge, caller) = match queue.admit(now, 1, TokenCost::estimate(0), false, Claimant::default()) {
                    QueueAdmission::Taken(charge) => (charge, None),
                    _ => {
                        let caller = QueuedCaller::join(&queue, now, 0, false);
                        (caller.turn(now), Some(caller))
                    }
                };
                assert_eq!(under_way.fetch_add(1, SeqCst), 0, "one too many");
                let charge = if caller.is_some() { queue.send(now, charge) } else { charge };
                caller.into_iter().for_each(QueuedCaller::leave);
                under_way.fetch_sub(1, SeqCst);
                queue.refund(charge);
            }
        };
        let others = [spawn(call.clone()), spawn(call.clone())];
        call();
        others.into_iter().for_each(|other| other.join().unwrap());
        is_at_rest(&queue);
        assert_eq!(queue.headroom(now, Amount { requests: 1, tokens: 0 }, Claimant::default()), Duration::ZERO);
    });
}

fn a_waiter_that_leaves_wakes_the_next() {
    check(None, |now| {
        let queue = queue(now, requests(1));
        let charge = take(&queue, now, 0);
        let (first, second) = (QueuedCaller::join(&queue, now, 0, false), QueuedCaller::join(&queue, now, 0, false));
        assert_eq!((first.poll(now), second.poll(now)), (Grant::At(now + WINDOW), Grant::NotYet));
        let gives_up = spawn(move || first.leave());
        let waits = spawn(move || {
            second.turn(now);
            second.leave();
        });
        queue.refund(charge);
        gives_up.join().unwrap();
        waits.join().unwrap();
        is_at_rest(&queue);
    });
}

fn settling_lets_all_go_that_fit_in_order() {
    check(None, |now| {
        let queue = queue(now, tokens(100));
        let charge = take(&queue, now, 100);
        let went = Arc::<AtomicUsize>::default();
        let waiting = [0, 1].map(|nth| {
            let (caller, went) = (QueuedCaller::join(&queue, now, 50, false), went.clone());
            spawn(move || {
                let charge = caller.turn(now);
                caller.queue.send(now, charge);
                assert_eq!(went.fetch_add(1, SeqCst), nth, "first come, first served");
                caller.leave();
            })
        });
        queue.settle(charge, 0);
        waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
        assert_eq!(went.load(SeqCst), 2);
        is_at_rest(&queue);
    });
}

fn a_refusal_sends_away() {
    check(None, |now| {
        let queue = queue(now, requests(1));
        let charge = take(&queue, now, 0);
        let until = now + Duration::from_secs(20);
        let shut = Shut { look_at: until, ends: until, grounded: false };
        let (first, second) = (QueuedCaller::join(&queue, now, 0, true), QueuedCaller::join(&queue, now, 0, false));
        let moves = spawn(move || {
            assert_eq!(first.wait(now, |turn| matches!(turn, Grant::SentAway(_))), Grant::SentAway(shut));
            first.leave();
        });
        // Its timer is set to the time in the grant.
        let stays = spawn(move || drop(second.wait(now, |turn| *turn == Grant::At(until))));
        let failure = Failure::local(Kind::QuotaMinute, "").with_hint(Duration::from_secs(20));
        queue.refused(now, charge, refusal(Claim::of(&failure)));
        moves.join().unwrap();
        stays.join().unwrap();
        assert_eq!(queue.read(now, |_, waiting| waiting), 1);
    });
}

fn a_refusal_gives_its_place_to_the_next() {
    check(None, |now| {
        let queue = queue(now, requests(1));
        let charge = take(&queue, now, 0);
        let waiting = [true, false].map(|may_move| {
            let caller = QueuedCaller::join(&queue, now, 0, may_move);
            spawn(move || {
                let charge = caller.turn(now);
                let queue = caller.queue.clone();
                caller.leave();
                queue.refund(charge);
            })
        });
        queue.refused(now, charge, refusal(None));
        waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
        is_at_rest(&queue);
    });
}

fn one_call_looks_for_the_others() {
    check(None, |now| {
        let queue = queue(now, requests(9));
        let failure = Failure::local(Kind::QuotaMinute, "").with_hint(Duration::from_secs(9_999));
        queue.refused(now, take(&queue, now, 0), refusal(Claim::of(&failure)));
        let later = now + Duration::from_secs(120);
        let looks = Arc::new(AtomicUsize::new(0));
        let callers = [(); 2].map(|()| {
            let (caller, looks) = (QueuedCaller::join(&queue, later, 0, false), looks.clone());
            spawn(move || {
                let charge = caller.turn(later);
                let queue = caller.queue.clone();
                let charge = queue.send(later, charge);
                caller.leave();
                if charge.is_look() {
                    looks.fetch_add(1, SeqCst);
                    queue.succeeded(charge);
                }
            })
        });
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(looks.load(SeqCst), 1);
        assert!(matches!(
            queue.admit(later, 1, TokenCost::estimate(0), false, Claimant::default()),
            QueueAdmission::Taken(_)
        ));
    });
}

fn dropped_between_its_turn_and_its_call() {
    check(None, |now| {
        let queue = queue(now, requests(1));
        let charge = take(&queue, now, 0);
        let (first, second) = (QueuedCaller::join(&queue, now, 0, false), QueuedCaller::join(&queue, now, 0, false));
        let dropped = spawn(move || {
            let (queue, charge) = (first.queue.clone(), first.turn(now));
            first.leave();
            queue.refund(charge);
        });
        let waits = spawn(move || {
            second.turn(now);
            second.leave();
        });
        queue.refund(charge);
        dropped.join().unwrap();
        waits.join().unwrap();
        is_at_rest(&queue);
    });
}

fn a_newcomer_overtakes_no_waiter() {
    check(None, |now| {
        let queue = queue(now, tokens(2));
        let charge = take(&queue, now, 2);
        let went = Arc::<AtomicUsize>::default();
        let (caller, goes_first) = (QueuedCaller::join(&queue, now, 1, false), went.clone());
        let waits = spawn(move || {
            caller.turn(now);
            assert_eq!(goes_first.fetch_add(1, SeqCst), 0, "it was passed");
            caller.leave();
        });
        let comes = spawn({
            let queue = queue.clone();
            move || {
                let caller = match queue.admit(now, 1, TokenCost::estimate(1), false, Claimant::default()) {
                    QueueAdmission::Taken(_) => None,
                    _ => Some(QueuedCaller::join(&queue, now, 1, false)),
                };
                if let Some(caller) = &caller {
                    caller.turn(now);
                }
                assert_eq!(went.fetch_add(1, SeqCst), 1, "it passed");
                caller.into_iter().for_each(QueuedCaller::leave);
            }
        });
        queue.refund(charge);
        waits.join().unwrap();
        comes.join().unwrap();
        is_at_rest(&queue);
    });
}

fn one_that_takes_the_first_place() {
    for gives_up in [true, false] {
        check(None, move |now| {
            let queue = queue(now, tokens(2));
            let charge = take(&queue, now, 2);
            let caller = QueuedCaller::join(&queue, now, 1, false);
            let waits = spawn(move || {
                caller.turn(now);
                caller.leave();
            });
            let comes = spawn({
                let queue = queue.clone();
                move || {
                    let urgent = Claimant { priority: Priority::Interactive, ..Claimant::default() };
                    let caller = QueuedCaller::join_as(&queue, now, 1, false, urgent);
                    if gives_up {
                        caller.poll(now);
                    } else {
                        caller.turn(now);
                    }
                    caller.leave();
                }
            });
            queue.refund(charge);
            waits.join().unwrap();
            comes.join().unwrap();
            is_at_rest(&queue);
        });
    }
}

fn calls_that_come_together_share_one_queue() {
    check(None, |now| {
        let limiter = crate::rate_limit::Limiter::builder().limits(requests(1)).build();
        let ask = |limiter: crate::rate_limit::Limiter| {
            move || {
                let queue = limiter.queue("p", "m", now);
                let went = matches!(
                    queue.admit(now, 1, TokenCost::estimate(0), false, Claimant::default()),
                    QueueAdmission::Taken(_)
                );
                (queue, went)
            }
        };
        let other = spawn(ask(limiter.clone()));
        let (queue, went) = ask(limiter.clone())();
        let (same, other_went) = other.join().unwrap();
        assert!(std::ptr::eq(&raw const *queue, &raw const *same) && went != other_went);
        assert!(limiter.headroom(queue.scope(), 1, 0) > Duration::ZERO);
    });
}

/// A store of one request at a time, which is given back.
#[derive(Debug)]
struct OneAtATime(AtomicBool);

impl QuotaStore for OneAtATime {
    fn take(&self, _: &Scope, _: Question) -> crate::quota::Reply {
        let answer = match self.0.swap(true, SeqCst) {
            false => Answer::Granted(crate::quota::Grant::new(crate::quota::StoreCharge(1, 1))),
            true => Answer::Full { dimension: None, wait: Duration::from_secs(9) },
        };
        crate::quota::Reply::Now(answer)
    }

    fn correct(&self, _: &Scope, _: crate::quota::StoreCharge, _: crate::quota::Correction) {
        self.0.store(false, SeqCst);
    }

    fn close(&self, _: &Scope, _: crate::quota::Closing) {}

    fn open(&self, _: &Scope) {}
}

fn queue_with_store(now: Instant, limits: Limits, taken: bool) -> Arc<ScopeQueue> {
    let calendar = PacificCalendar::new(SystemTime::UNIX_EPOCH, now);
    let queue = ScopeQueue::new(Scope::new("p", "m"), Account::new(limits, None, calendar, now), calendar);
    Arc::new(queue.with_store(Some(Arc::new(OneAtATime(AtomicBool::new(taken))))))
}

impl QueuedCaller {
    /// Waits until it may ask, and asks. Returns whether it was granted.
    fn ask(&self, now: Instant) -> bool {
        let ends = |turn: &Grant| matches!(turn, Grant::Ask(..) | Grant::HeldBack(_));
        let (charge, question) = match self.wait(now, ends) {
            Grant::Ask(charge, question) => (charge, question),
            // Its timer is set to the time in the grant.
            _ => return false,
        };
        match self.queue.ask(question) {
            crate::quota::Reply::Now(Answer::Granted(grant)) => {
                self.queue.granted(now, Some(self.waiter), charge, grant);
                self.queue.send(now, charge);
                true
            }
            crate::quota::Reply::Now(answer) => {
                self.queue.denied(now, Some(self.waiter), charge, answer);
                self.queue.refund(charge);
                false
            }
            reply => panic!("{reply:?}"),
        }
    }
}

fn one_that_asks_forgets_nobody() {
    check(Some(3), |now| {
        // There is room for one here, and for one in the store.
        let queue = queue_with_store(now, requests(9), false);
        let (first, second) = (QueuedCaller::join(&queue, now, 0, false), QueuedCaller::join(&queue, now, 0, false));
        let leaves = spawn(move || {
            // It is first, asks, and is dropped before the answer.
            if let Grant::Ask(charge, _) = first.poll(now) {
                first.leave_held(charge);
            } else {
                first.leave();
            }
        });
        let stays = spawn(move || {
            assert!(second.ask(now), "the store has room, and it is woken for it");
            second.leave();
        });
        leaves.join().unwrap();
        stays.join().unwrap();
        is_at_rest(&queue);
        assert_eq!(queue.read(now, |account, _| account.used(Dimension::RequestsPerMinute)), 1);
    });
}

fn one_that_asks_holds_its_place() {
    check(Some(3), |now| {
        let queue = queue_with_store(now, requests(9), true);
        let (first, second) = (QueuedCaller::join(&queue, now, 0, false), QueuedCaller::join(&queue, now, 0, false));
        let went = Arc::new(AtomicUsize::new(0));
        let waiting = [first, second].map(|caller| {
            let went = went.clone();
            spawn(move || {
                // Refused, it leaves: the other is first then, and knows of the refusal.
                assert!(!caller.ask(now));
                went.fetch_add(1, SeqCst);
                caller.leave();
            })
        });
        waiting.into_iter().for_each(|waiting| waiting.join().unwrap());
        assert_eq!(went.load(SeqCst), 2);
        is_at_rest(&queue);
        assert_eq!(queue.read(now, |account, _| account.used(Dimension::RequestsPerMinute)), 0);
    });
}

impl QueuedCaller {
    /// Is dropped while the store is asked: what is held is given back, and its place.
    fn leave_held(self, charge: Charge) {
        self.queue.refund(charge);
        self.leave();
    }
}
