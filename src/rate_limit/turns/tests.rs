//! Tests of the order: against a plain model, its bounds, and what it costs.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const ALL: [Priority; PRIORITIES] = [Priority::Interactive, Priority::Normal, Priority::Batch];

/// A minute of 1,000 tokens.
const LIMITS: Amount = Amount { requests: u64::MAX, tokens: 1_000 };

fn tokens(tokens: u64) -> Amount {
    Amount { requests: 1, tokens }
}

fn claimant(caller: Option<&Arc<str>>, priority: Priority) -> Claimant<'_> {
    Claimant { caller, priority, deadline: None }
}

fn name(nth: usize) -> Arc<str> {
    format!("caller-{nth}").into()
}

/// Gives the next turn, and lets its waiter go.
fn turn<W>(turns: &mut Turns<W>, now: Instant) -> Option<W> {
    turns.elect(now);
    let id = turns.first()?;
    let waiter = turns.grant(LIMITS);
    turns.remove(id);
    waiter
}

fn order<W>(turns: &mut Turns<W>, now: Instant) -> Vec<W> {
    std::iter::from_fn(|| turn(turns, now)).collect()
}

// === the plain model ===

#[derive(Clone, Debug)]
enum TurnStep {
    Join { caller: usize, priority: usize, tokens: u64, deadline: Option<u64> },
    Give,
    Leave(usize),
    Pass(u64),
}

fn turn_steps() -> impl Strategy<Value = Vec<TurnStep>> {
    // The first caller has no name, and comes the most often.
    let caller = prop_oneof![3 => Just(0usize), 2 => 1usize..5];
    let priority = prop_oneof![1 => Just(0usize), 4 => Just(1), 2 => Just(2)];
    let deadline = prop_oneof![3 => Just(None), 1 => (0u64..400).prop_map(Some)];
    let join = (caller, priority, 1u64..400, deadline)
        .prop_map(|(caller, priority, tokens, deadline)| TurnStep::Join { caller, priority, tokens, deadline });
    let step = prop_oneof![
        6 => join,
        4 => Just(TurnStep::Give),
        1 => (0usize..30).prop_map(TurnStep::Leave),
        1 => (0u64..25_000).prop_map(TurnStep::Pass),
    ];
    proptest::collection::vec(step, 1..150)
}

/// The order as its documentation says it: a list that is searched each time.
#[derive(Default)]
struct PlainTurns {
    waiting: Vec<PlainWaiter>,
    levels: [PlainLevel; PRIORITIES],
    reached: u64,
}

struct PlainWaiter {
    id: WaiterId,
    caller: usize,
    since: Instant,
    due: u64,
    tokens: u64,
}

#[derive(Default)]
struct PlainLevel {
    start: u64,
    reached: u64,
    given: u64,
    /// The start tag, the number of the last turn and the arrival of each caller.
    callers: HashMap<usize, (u64, u64, u64)>,
}

impl PlainTurns {
    fn waits(&self, level: usize, caller: usize) -> bool {
        self.waiting.iter().any(|waiter| waiter.id.1 as usize == level && waiter.caller == caller)
    }

    fn join(&mut self, waiter: PlainWaiter) {
        let at = waiter.id.1 as usize;
        if !self.waiting.iter().any(|other| other.id.1 as usize == at) {
            self.levels[at].start = self.levels[at].start.max(self.reached);
        }
        if !self.waits(at, waiter.caller) {
            let others: Vec<_> = self.waiting.iter().filter(|other| other.id.1 as usize == at).collect();
            let level = &mut self.levels[at];
            let is_alone = others.len() > 1 && others.iter().all(|other| other.caller == others[0].caller);
            if level.given == 0 && is_alone {
                // The one that was alone has used the quota up.
                let amount = others.iter().map(|other| tokens(other.tokens)).fold(Amount::default(), Amount::plus);
                level.given = 1;
                let alone = level.callers.get_mut(&others[0].caller).unwrap();
                (alone.0, alone.1) = (cost(amount, LIMITS) / others.len() as u64, 1);
            }
            let known = level.callers.get(&waiter.caller).filter(|known| known.0 > level.reached);
            let (start, last, _) = known.copied().unwrap_or((level.reached, 0, 0));
            level.callers.insert(waiter.caller, (start, last, waiter.id.0));
        }
        self.waiting.push(waiter);
    }

    fn taking_part(&self, now: Instant) -> Vec<usize> {
        let oldest = |at: usize| {
            self.waiting.iter().filter(|waiter| waiter.id.1 as usize == at).map(|waiter| waiter.since).min()
        };
        let oldest = [oldest(0), oldest(1), oldest(2)];
        let Some(top) = oldest.iter().position(Option::is_some) else { return Vec::new() };
        let takes_part = |at: usize| {
            oldest[at].is_some_and(|since| at == top || now - since >= PATIENCE * u32::try_from(at - top).unwrap())
        };
        (0..PRIORITIES).filter(|at| takes_part(*at)).collect()
    }

    fn first(&self, now: Instant) -> Option<usize> {
        let level = self.taking_part(now).into_iter().min_by_key(|at| (self.levels[*at].start, *at))?;
        let callers = &self.levels[level].callers;
        let here = |waiter: &&PlainWaiter| waiter.id.1 as usize == level;
        let caller = self.waiting.iter().filter(here).map(|waiter| waiter.caller).min_by_key(|of| callers[of])?;
        let own = self.waiting.iter().enumerate().filter(|(_, waiter)| here(waiter) && waiter.caller == caller);
        own.min_by_key(|(_, waiter)| (waiter.due, waiter.id.0)).map(|(at, _)| at)
    }

    fn give(&mut self, now: Instant) -> Option<WaiterId> {
        let (waiter, taking_part) = (self.first(now)?, self.taking_part(now));
        let waiter = self.waiting.remove(waiter);
        let at = waiter.id.1 as usize;
        let cost = cost(tokens(waiter.tokens), LIMITS);
        let level = &mut self.levels[at];
        level.given += 1;
        let tag = level.callers.get_mut(&waiter.caller)?;
        level.reached = tag.0;
        (tag.0, tag.1) = (tag.0 + cost, level.given);
        self.reached = level.start;
        level.start += cost << at;
        for other in (0..PRIORITIES).filter(|other| !taking_part.contains(other)) {
            let here = |waiter: &&PlainWaiter| waiter.id.1 as usize == other;
            let (count, all) = self.waiting.iter().filter(here).fold((0, 0), |(n, all), one| (n + 1, all + one.tokens));
            let amount = Amount { requests: count, tokens: all };
            let turn = super::cost(amount, LIMITS).checked_div(count).unwrap_or(0) << other;
            self.levels[other].start = self.levels[other].start.max(self.reached + turn);
        }
        self.end();
        Some(waiter.id)
    }

    fn leave(&mut self, at: usize) -> WaiterId {
        let id = self.waiting.remove(at).id;
        self.end();
        id
    }

    fn end(&mut self) {
        for at in 0..PRIORITIES {
            if !self.waiting.iter().any(|waiter| waiter.id.1 as usize == at) {
                let start = self.levels[at].start;
                self.levels[at] = PlainLevel { start, ..PlainLevel::default() };
            }
        }
        if self.waiting.is_empty() {
            *self = Self::default();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_turns_are_those_of_the_plain_model(steps in turn_steps()) {
        let began = Instant::now();
        let (mut turns, mut model, mut now) = (Turns::new(began), PlainTurns::default(), began);
        let names: Vec<Option<Arc<str>>> = (0..5).map(|nth| (nth > 0).then(|| name(nth))).collect();
        for step in steps {
            match step {
                TurnStep::Join { caller, priority, tokens: amount, deadline } => {
                    let deadline = deadline.map(|secs| now + Duration::from_secs(secs));
                    let claimant = Claimant { caller: names[caller].as_ref(), priority: ALL[priority], deadline };
                    let id = turns.join(now, claimant, tokens(amount), LIMITS, ());
                    let due = deadline.map_or(now + HORIZON, |deadline| deadline.min(now + HORIZON));
                    let due = (due - began).as_secs();
                    model.join(PlainWaiter { id, caller, since: now, due, tokens: amount });
                }
                TurnStep::Give => {
                    turns.elect(now);
                    let first = turns.first();
                    prop_assert_eq!(first, model.give(now));
                    if let Some(first) = first {
                        prop_assert!(turns.grant(LIMITS).is_some());
                        // It stays first until it leaves.
                        prop_assert_eq!(turns.elect(now), None);
                        prop_assert_eq!(turns.first(), Some(first));
                        turns.remove(first);
                    }
                }
                TurnStep::Leave(nth) => {
                    if let Some(at) = nth.checked_rem(model.waiting.len()) {
                        turns.elect(now);
                        turns.remove(model.leave(at));
                    }
                }
                TurnStep::Pass(millis) => now += Duration::from_millis(millis),
            }
            let amount: u64 = model.waiting.iter().map(|waiter| waiter.tokens).sum();
            prop_assert_eq!((turns.len(), turns.amount().tokens), (model.waiting.len(), amount));
            turns.elect_again();
        }
    }
}

// === fairness ===

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// The bound of the Virtual Token Counter: over any time in which two callers both have waiters, what they are given
    /// differs by at most twice the largest call, whoever else comes and goes.
    #[test]
    fn two_callers_that_both_wait_are_given_the_same_but_for_twice_the_largest_call(
        // Each step is the caller of the next call, the call's size, and the number of turns given then.
        steps in proptest::collection::vec((0usize..6, 1u64..1_000, 0usize..3), 50..400),
        sizes in (1u64..1_000, 1u64..1_000),
    ) {
        let now = Instant::now();
        let mut turns = Turns::new(now);
        let names: Vec<_> = (0..6).map(name).collect();
        let join = |turns: &mut Turns<(usize, u64)>, caller: usize, size: u64| {
            turns.join(now, claimant(Some(&names[caller]), Priority::Normal), tokens(size), LIMITS, (caller, size));
        };
        // The callers 0 and 1 always have waiters: small ones or large ones, as it happens.
        let most = |one: u64, size: u64| 1 + (size * one) / 1_000;
        let (mut given, mut least, mut largest) = ([0i64; 2], 0i64, 0i64);
        let mut greatest = 0i64;
        for caller in [0, 1] {
            (0..3).for_each(|_| join(&mut turns, caller, 1 + caller as u64));
        }
        for (caller, size, times) in steps {
            join(&mut turns, caller, size);
            for _ in 0..times {
                let Some((caller, size)) = turn(&mut turns, now) else { break };
                if caller < 2 {
                    let cost = i64::try_from(cost(tokens(size), LIMITS)).unwrap();
                    (given[caller], largest) = (given[caller] + cost, largest.max(cost));
                    let size = if caller == 0 { most(sizes.0, size) } else { most(sizes.1, size) };
                    join(&mut turns, caller, size);
                    let ahead = given[0] - given[1];
                    (least, greatest) = (least.min(ahead), greatest.max(ahead));
                    prop_assert!(greatest - least <= 2 * largest, "{} of {largest}", greatest - least);
                }
            }
        }
    }

    /// Whatever comes, and however urgent it is: a call goes within a time that its own queue alone decides.
    #[test]
    fn nothing_starves(
        before in 0usize..20,
        priority in 0usize..PRIORITIES,
        own in any::<bool>(),
        steps in proptest::collection::vec((0usize..5, 0usize..PRIORITIES, 50u64..100), 2_500),
    ) {
        let mut now = Instant::now();
        let mut turns = Turns::new(now);
        let names: Vec<_> = (0..5).map(name).collect();
        for _ in 0..before {
            turns.join(now, claimant(Some(&names[0]), ALL[priority]), tokens(100), LIMITS, false);
        }
        turns.join(now, claimant(Some(&names[usize::from(!own)]), ALL[priority]), tokens(100), LIMITS, true);
        let came = now;
        let mut went = None;
        // The others have always waiters of all kinds: each turn brings two new ones.
        for (caller, level, size) in steps {
            for (caller, level) in [(caller, level), (4 - caller, 0)] {
                turns.join(now, claimant(Some(&names[caller]), ALL[level]), tokens(size), LIMITS, false);
            }
            if turn(&mut turns, now) == Some(true) {
                went = Some(now - came);
                break;
            }
            now += Duration::from_secs(1);
        }
        // After 60 s its priority has a seventh of the turns at least, and there a fifth is its caller's, of which as
        // many as were before it go first. The smallest calls of others are half as large.
        let bound = Duration::from_secs(60 + 2 * 7 * 5 * (before as u64 + 2));
        prop_assert!(went.is_some_and(|went| went <= bound), "{went:?} of {bound:?}");
    }
}

#[test]
fn a_light_caller_goes_next_beside_a_heavy_one_however_old_its_calls_are() {
    let begun = Instant::now();
    let mut turns = Turns::new(begun);
    let (heavy, light) = (name(0), name(1));
    for nth in 0..200 {
        turns.join(begun, claimant(Some(&heavy), Priority::Normal), tokens(400), LIMITS, nth);
    }
    let now = begun + PATIENCE * 3;
    assert_eq!(turn(&mut turns, now), Some(0));
    for nth in 1..20 {
        turns.join(now, claimant(Some(&light), Priority::Normal), tokens(10), LIMITS, 1_000 + nth);
        assert_eq!(turn(&mut turns, now), Some(1_000 + nth));
    }
}

#[test]
fn the_more_urgent_goes_first_and_the_less_urgent_takes_part_once_it_is_old() {
    let begun = Instant::now();
    let mut turns = Turns::new(begun);
    for (priority, name) in ALL.into_iter().zip(["i", "n", "b"]).rev() {
        for _ in 0..40 {
            turns.join(begun, claimant(None, priority), tokens(1), LIMITS, name);
        }
    }
    let shares = |given: Vec<&str>| ["i", "n", "b"].map(|name| given.iter().filter(|of| **of == name).count());
    let seven = |turns: &mut Turns<&'static str>, now| shares((0..7).filter_map(|_| turn(turns, now)).collect());
    assert_eq!(seven(&mut turns, begun), [7, 0, 0]);
    assert_eq!(seven(&mut turns, begun + PATIENCE - Duration::from_millis(1)), [7, 0, 0]);
    // Those that take part have saved nothing up: they share from now on.
    let shared = seven(&mut turns, begun + PATIENCE);
    assert!(shared[0] >= 4 && shared[1] >= 2 && shared[2] == 0, "{shared:?}");
    assert_eq!(seven(&mut turns, begun + PATIENCE * 2), [4, 2, 1]);
    assert_eq!(seven(&mut turns, begun + PATIENCE * 2), [4, 2, 1]);
}

#[test]
fn calls_of_one_caller_go_by_deadline_and_those_of_one_second_by_arrival() {
    let now = Instant::now();
    let at = |secs| Some(now + Duration::from_secs_f64(secs));
    for (deadlines, expected) in [
        ([None, None, None, None], [0, 1, 2, 3]),
        ([at(60.7), at(60.2), at(60.5), at(60.1)], [0, 1, 2, 3]),
        ([at(60.0), at(30.0), None, at(90.0)], [1, 0, 3, 2]),
        // Nobody waits longer because it may.
        ([at(3_600.0), None, at(100_000.0), at(285.0)], [0, 1, 2, 3]),
    ] {
        let mut turns = Turns::new(now);
        for (nth, deadline) in deadlines.into_iter().enumerate() {
            turns.join(now, Claimant { deadline, ..Claimant::default() }, tokens(1), LIMITS, nth);
        }
        assert_eq!(order(&mut turns, now), expected);
    }
}

#[test]
fn a_name_longer_than_any_is_none() {
    let now = Instant::now();
    let mut turns = Turns::new(now);
    let (long, longer): (Arc<str>, Arc<str>) = ("x".repeat(MAX_NAME + 1).into(), "x".repeat(MAX_NAME + 2).into());
    for (nth, caller) in [Some(&long), None, Some(&longer)].into_iter().enumerate() {
        turns.join(now, claimant(caller, Priority::Normal), tokens(1), LIMITS, nth);
    }
    assert!(turns.levels[1].callers.is_none(), "all are one caller");
    assert_eq!(order(&mut turns, now), [0, 1, 2]);
}

// === what it keeps and what it costs ===

#[test]
fn callers_that_went_are_forgotten() {
    let now = Instant::now();
    let mut turns = Turns::new(now);
    let stays = name(0);
    for _ in 0..9_000 {
        turns.join(now, claimant(Some(&stays), Priority::Normal), tokens(1), LIMITS, 0);
    }
    for nth in 1..8_000 {
        // Each is as large as a minute, so that all are ahead for long.
        turns.join(now, claimant(Some(&name(nth)), Priority::Normal), tokens(1_000), LIMITS, nth);
    }
    while turns.levels[1].waiting.len() > 500 {
        turn(&mut turns, now).unwrap();
    }
    let callers = turns.levels[1].callers.as_deref().unwrap();
    assert!(callers.remembered() <= 1_024 + 2, "{}", callers.remembered());
    order(&mut turns, now);
    assert!(turns.levels[1].callers.is_none() && turns.is_empty());
}

#[test]
fn an_order_that_is_that_of_arrival_has_no_index() {
    let begun = Instant::now();
    let mut turns = Turns::new(begun);
    let caller = name(0);
    for nth in 0..100 {
        let now = begun + Duration::from_secs(nth);
        let deadline = Some(now + Duration::from_secs(60));
        turns.join(
            now,
            Claimant { caller: Some(&caller), priority: Priority::Normal, deadline },
            tokens(9),
            LIMITS,
            nth,
        );
        assert!(turns.levels[1].callers.is_none());
    }
    assert_eq!(order(&mut turns, begun), (0..100).collect::<Vec<_>>());
}

/// The amount before a new call is told from its own part, so that nobody is refused for the wait of another.
#[test]
fn a_light_caller_is_not_told_the_wait_of_a_heavy_one() {
    let now = Instant::now();
    let mut turns = Turns::new(now);
    let (heavy, light, second) = (name(0), name(1), name(2));
    for _ in 0..100 {
        turns.join(now, claimant(Some(&heavy), Priority::Normal), tokens(400), LIMITS, ());
    }
    turn(&mut turns, now);
    let ahead = |turns: &Turns<()>, caller, priority| {
        turns.ahead_of(now, claimant(caller, priority), tokens(10), LIMITS).tokens
    };
    assert_eq!(ahead(&turns, Some(&light), Priority::Normal), 0);
    assert_eq!(ahead(&turns, Some(&light), Priority::Batch), 99 * 400);
    assert_eq!(ahead(&turns, Some(&heavy), Priority::Normal), 99 * 400);
    assert_eq!(ahead(&turns, Some(&heavy), Priority::Interactive), 0);
    turns.join(now, claimant(Some(&light), Priority::Normal), tokens(10), LIMITS, ());
    assert_eq!(ahead(&turns, Some(&second), Priority::Normal), 10);
    // With 800 tokens of its own before it, it lets the other have as many, and the call that is begun.
    turns.join(now, claimant(Some(&second), Priority::Normal), tokens(800), LIMITS, ());
    let told = ahead(&turns, Some(&second), Priority::Normal);
    assert!((1_210..=1_700).contains(&told), "{told}");
}

#[test]
fn ten_thousand_callers_are_no_heap_of_work() {
    const CALLERS: usize = 10_000;
    let begun = Instant::now();
    let mut turns = Turns::new(begun);
    let names: Vec<_> = (0..CALLERS).map(name).collect();
    for round in 0..3 {
        for caller in &names {
            turns.join(begun, claimant(Some(caller), Priority::Normal), tokens(1), LIMITS, round);
            turns.ahead_of(begun, claimant(Some(caller), Priority::Normal), tokens(1), LIMITS);
            turns.elect(begun);
        }
    }
    // Each has its turn before anybody has two.
    assert_eq!(order(&mut turns, begun), (0..3).flat_map(|round| vec![round; CALLERS]).collect::<Vec<_>>());
}

#[test]
fn calls_that_are_due_later_are_not_counted_before_a_call_that_is_due_sooner() {
    let now = Instant::now();
    let of = |secs| Claimant { deadline: Some(now + Duration::from_secs(secs)), ..Claimant::default() };
    // Of one caller, with an index and without one; of more waiters than are counted one by one, too.
    for (has_index, waiters) in [(false, 200), (true, 200), (false, 600), (true, 600)] {
        let mut turns = Turns::new(now);
        if has_index {
            turns.join(now, of(284), tokens(1), LIMITS, 0);
        }
        for nth in 0..waiters {
            let secs = if nth < 100 { 50 } else { 200 };
            turns.join(now, of(secs), tokens(1), LIMITS, nth);
        }
        assert_eq!(turns.levels[1].callers.is_some(), has_index);
        let told = |turns: &Turns<u64>, secs| turns.ahead_of(now, of(secs), tokens(1), LIMITS).requests;
        let all = waiters + u64::from(has_index);
        assert_eq!([60, 40, 285].map(|secs| told(&turns, secs)), [100, 0, all], "{has_index} {waiters}");
        turns.join(now, of(60), tokens(1), LIMITS, u64::MAX);
        let place = order(&mut turns, now).into_iter().position(|nth| nth == u64::MAX);
        assert_eq!(place, Some(100));
    }
    // If neither end is near, they are taken to be spread evenly.
    let mut turns = Turns::new(now);
    for nth in 0..2_800u64 {
        turns.join(now, of(nth / 10), tokens(1), LIMITS, nth);
    }
    let told = turns.ahead_of(now, of(140), tokens(1), LIMITS).requests;
    assert!((1_390..=1_430).contains(&told), "{told}");
}

#[test]
fn a_first_call_is_told_the_turns_before_it_however_many_callers_wait() {
    let now = Instant::now();
    let new = name(9_999);
    for callers in [60, 64, 65, 66, 200, 3_000] {
        let mut turns = Turns::new(now);
        for nth in 0..5 {
            for caller in 0..callers {
                turns.join(now, claimant(Some(&name(caller)), Priority::Normal), tokens(1), LIMITS, (caller, nth));
            }
        }
        let told = turns.ahead_of(now, claimant(Some(&new), Priority::Normal), tokens(1), LIMITS).requests;
        turns.join(now, claimant(Some(&new), Priority::Normal), tokens(1), LIMITS, (9_999, 0));
        let before = order(&mut turns, now).into_iter().position(|(caller, _)| caller == 9_999).unwrap() as u64;
        assert!(told.abs_diff(before) <= 1, "{callers}: told {told}, really {before}");
    }
}

// === a waiter that asks ===

#[tokio::test(start_paused = true)]
async fn a_pinned_waiter_stays_first_and_pays_for_its_turn_only_with_its_grant() {
    let now = Instant::now();
    let (one, other) = (name(1), name(2));
    let mut turns = Turns::new(now);
    let batch = turns.join(now, claimant(Some(&one), Priority::Batch), tokens(100), LIMITS, "batch");
    assert_eq!(turns.elect(now), Some(batch));
    turns.pin();
    // Nobody urgent passes it while it asks.
    let urgent = turns.join(now, claimant(Some(&other), Priority::Interactive), tokens(100), LIMITS, "urgent");
    assert_eq!((turns.elect(now), turns.first(), turns.len()), (None, Some(batch), 2));
    // It is refused: the order decides again.
    turns.unpin(batch);
    assert_eq!(turns.elect(now), Some(urgent));
    turns.pin();
    assert_eq!(turns.grant(LIMITS), Some("urgent"));
    assert!(!turns.is_pinned(urgent));
    assert_eq!((turns.elect(now), turns.first()), (None, Some(urgent)));
    turns.remove(urgent);
    assert_eq!(turns.elect(now), Some(batch));
    // One that leaves while it asks makes room for the next.
    turns.pin();
    let next = turns.join(now, claimant(Some(&one), Priority::Batch), tokens(100), LIMITS, "next");
    turns.remove(batch);
    assert_eq!((turns.elect(now), turns.len()), (Some(next), 1));
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_waiter_was_refused_is_given_as_much_as_before() {
    let now = Instant::now();
    let (one, other) = (name(1), name(2));
    let given = |refusals: usize| {
        let mut turns = Turns::new(now);
        for nth in 0..6 {
            let caller = if nth % 2 == 0 { &one } else { &other };
            turns.join(now, claimant(Some(caller), Priority::Normal), tokens(100), LIMITS, nth);
        }
        for _ in 0..refusals {
            turns.elect(now);
            let first = turns.first().unwrap();
            turns.pin();
            turns.unpin(first);
        }
        order(&mut turns, now)
    };
    assert_eq!(given(5), given(0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_joins_late_has_the_place_at_which_it_came() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    for apart in [Duration::ZERO, second] {
        let mut turns = Turns::new(now);
        let places = [turns.place(now), turns.place(now + apart)];
        let late = claimant(None, Priority::Normal);
        turns.join(now + apart * 2, late, tokens(1), LIMITS, "third");
        turns.join_at(places[1], late, tokens(1), LIMITS, "second");
        turns.join_at(places[0], late, tokens(1), LIMITS, "first");
        assert_eq!(order(&mut turns, now + apart * 2), ["first", "second", "third"]);
    }
    // An earlier deadline goes before an earlier arrival, late or not.
    let mut turns = Turns::new(now);
    let place = turns.place(now);
    let due = |secs| Claimant { deadline: Some(now + second * secs), ..Claimant::default() };
    turns.join(now, due(10), tokens(1), LIMITS, "soon");
    turns.join_at(place, due(60), tokens(1), LIMITS, "later");
    assert_eq!(order(&mut turns, now), ["soon", "later"]);
    // Nor does one that joins late among others go before its time.
    let mut turns = Turns::new(now);
    let place = turns.place(now);
    turns.join(now, due(10), tokens(1), LIMITS, "soon");
    turns.join(now, due(60), tokens(1), LIMITS, "later");
    turns.join_at(place, due(60), tokens(1), LIMITS, "first of the later");
    assert_eq!(order(&mut turns, now), ["soon", "first of the later", "later"]);
}
