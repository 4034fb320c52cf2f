//! Tests of the state machine.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::circuit_breaker::Window;

const RULES: Rules = Rules {
    trip: Trip::Consecutive { failures: 3 },
    open: Duration::from_secs(2),
    max_open: Duration::from_secs(10),
    probes: 2,
    lease: Duration::from_secs(60),
};

const FAILS: CountedFailure = CountedFailure { repeated: false, timed_out: false, hint: None };

/// A machine and its clock.
struct Bench {
    machine: Machine,
    now: Instant,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self { machine: Machine::new(rules), now: Instant::now() }
    }

    /// Creates a machine that has opened, for 3 s.
    fn open(rules: Rules) -> Self {
        let mut bench = Self::new(rules);
        (0..rules.trip.requests_needed()).for_each(|_| bench.fails());
        if bench.state() == State::Closed {
            // The silence has to last.
            bench.wait(10);
            bench.fails();
        }
        assert_eq!(bench.state(), State::Open);
        bench
    }

    /// Creates a machine that waits for its probes.
    fn half_open(rules: Rules) -> Self {
        let mut bench = Self::open(rules);
        bench.wait(3);
        bench
    }

    fn wait(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    fn state(&self) -> State {
        self.machine.state(self.now)
    }

    fn admit(&mut self) -> Option<Admission> {
        self.machine.admit(self.now, 0.5).ok()
    }

    fn succeed(&mut self, admission: Admission) {
        self.machine.succeed(admission, self.now);
    }

    fn fail(&mut self, admission: Admission) {
        self.machine.fail(admission, FAILS, self.now, 0.5);
    }

    fn release(&mut self, admission: Admission) {
        self.machine.release(admission, self.now);
    }

    fn fails(&mut self) {
        if let Some(admission) = self.admit() {
            self.fail(admission);
        }
    }
}

#[test]
fn an_outage_after_ten_thousand_successes_opens_it_within_ten_seconds_in_each_mode() {
    let window = Window::Calls(100);
    for (trip, within) in [
        (Trip::silence(), 10),
        (Trip::failure_rate(0.5, window), 5),
        (Trip::failure_rate(0.5, Window::Time(Duration::from_secs(60))), 4),
        (Trip::consecutive(5), 0),
    ] {
        let mut bench = Bench::new(Rules { trip, ..RULES });
        for second in 0..1_000 {
            for _ in 0..10 {
                let call = bench.admit().unwrap();
                bench.succeed(call);
            }
            bench.wait(u64::from(second % 10 == 0));
        }
        bench.wait(60);
        let mut secs = 0;
        // Ten calls come in a second, as before.
        while bench.state() == State::Closed {
            assert!(secs <= within, "{trip:?}");
            (0..10).for_each(|_| bench.fails());
            bench.wait(1);
            secs += 1;
        }
    }
}

#[test]
fn half_of_the_calls_failing_is_no_silence() {
    let mut bench = Bench::new(Rules { trip: Trip::silence(), ..RULES });
    for second in 0..100_000u32 {
        let call = bench.admit().unwrap();
        if second % 2 == 0 {
            bench.fail(call)
        } else {
            bench.succeed(call)
        }
        bench.wait(1);
    }
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn what_was_let_in_before_it_opened_neither_closes_it_nor_takes_a_probes_place() {
    for fails in [false, true] {
        let mut bench = Bench::new(RULES);
        let old: Vec<_> = (0..20).map(|_| bench.admit().unwrap()).collect();
        (0..3).for_each(|_| bench.fails());
        let mut old = old.into_iter();
        let mut late = |bench: &mut Bench| {
            let before = format!("{:?}", bench.machine);
            let old = old.next().unwrap();
            if fails {
                bench.fail(old)
            } else {
                bench.succeed(old)
            }
            assert_eq!(format!("{:?}", bench.machine), before);
        };
        late(&mut bench);
        bench.wait(3);
        late(&mut bench);
        let probe = bench.admit().unwrap();
        late(&mut bench);
        assert_eq!(bench.state(), State::HalfOpen);
        bench.succeed(probe);
        (0..10).for_each(|_| late(&mut bench));
        assert_eq!(bench.state(), State::Ramping);
    }
}

#[test]
fn one_answered_probe_closes_it_and_all_have_to_fail_to_open_it_again() {
    let mut bench = Bench::half_open(RULES);
    let (one, other) = (bench.admit().unwrap(), bench.admit().unwrap());
    assert_eq!(bench.admit(), None);
    bench.fail(one);
    assert_eq!(bench.admit(), None, "its place is taken");
    bench.succeed(other);
    assert_eq!(bench.state(), State::Ramping);

    let mut bench = Bench::half_open(RULES);
    (0..2).for_each(|_| bench.fails());
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_probe_that_says_nothing_gives_its_place_back() {
    let mut bench = Bench::half_open(RULES);
    for _ in 0..100 {
        let (one, other) = (bench.admit().unwrap(), bench.admit().unwrap());
        assert_eq!(bench.admit(), None);
        bench.release(one);
        bench.release(other);
        // The second release changes nothing.
        bench.release(other);
    }
    assert_eq!(bench.state(), State::HalfOpen);
}

#[test]
fn a_probe_that_hangs_gives_its_place_back_after_its_lease_and_its_failure_is_stale_then() {
    let mut bench = Bench::half_open(RULES);
    let hung: Vec<_> = (0..2).map(|_| bench.admit().unwrap()).collect();
    bench.wait(59);
    assert_eq!(bench.admit(), None);
    bench.wait(1);
    let probe = bench.admit().unwrap();
    hung.iter().for_each(|hung| bench.fail(*hung));
    assert_eq!(bench.state(), State::HalfOpen);
    bench.succeed(probe);
    assert_eq!(bench.state(), State::Ramping);
}

#[test]
fn a_late_failure_is_stale_even_if_nobody_has_come_since() {
    let mut bench = Bench::half_open(RULES);
    let hung: Vec<_> = (0..2).map(|_| bench.admit().unwrap()).collect();
    bench.wait(60);
    hung.iter().for_each(|hung| bench.fail(*hung));
    assert_eq!(bench.state(), State::HalfOpen);
    assert!(bench.admit().is_some() && bench.admit().is_some());
}

#[test]
fn answers_that_take_longer_than_a_lease_close_it_too() {
    for others in [0, 2] {
        let mut bench = Bench::half_open(RULES);
        let slow = bench.admit().unwrap();
        bench.wait(100);
        (0..others).for_each(|_| assert!(bench.admit().is_some()));
        bench.succeed(slow);
        assert_eq!(bench.state(), State::Ramping);
    }
    // It does not, if the breaker has opened again since.
    let mut bench = Bench::half_open(RULES);
    let slow = bench.admit().unwrap();
    bench.wait(100);
    (0..2).for_each(|_| bench.fails());
    bench.succeed(slow);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_lease_is_as_long_as_slow_answers_need() {
    let mut bench = Bench::new(RULES);
    let slow = bench.admit().unwrap();
    bench.wait(40);
    bench.succeed(slow);
    (0..3).for_each(|_| bench.fails());
    bench.wait(5);
    let probe = bench.admit().unwrap();
    bench.wait(150);
    bench.succeed(probe);
    assert_eq!(bench.state(), State::Ramping);
}

#[test]
fn each_opening_is_longer_up_to_the_longest_and_by_chance() {
    for (roll, lasts) in [(0.0, [2.0, 4.0, 5.0, 5.0]), (0.5, [3.0, 6.0, 7.5, 7.5]), (1.0, [4.0, 8.0, 10.0, 10.0])] {
        let mut machine = Machine::new(RULES);
        let mut now = Instant::now();
        for lasts in lasts {
            while machine.closed_for(now).is_none() {
                let call = machine.admit(now, roll).unwrap();
                machine.fail(call, FAILS, now, roll);
            }
            assert_eq!(machine.closed_for(now).unwrap().as_secs_f64(), lasts, "{roll}");
            now += machine.closed_for(now).unwrap();
        }
    }
}

#[test]
fn no_opening_is_shorter_than_the_shortest() {
    let mut machine = Machine::new(Rules { open: Duration::from_secs(8), ..RULES });
    let now = Instant::now();
    for _ in 0..3 {
        let call = machine.admit(now, 0.0).unwrap();
        machine.fail(call, FAILS, now, 0.0);
    }
    assert_eq!(machine.closed_for(now), Some(Duration::from_secs(8)), "though half of the longest is less");
}

#[test]
fn one_slow_answer_in_twenty_is_no_measure() {
    let mut latencies = Latencies::default();
    (0..19).for_each(|_| latencies.add(Duration::from_secs(1)));
    latencies.add(Duration::from_secs(100));
    assert_eq!(latencies.p95(), Some(Duration::from_secs(1)));
    latencies.add(Duration::from_secs(100));
    assert_eq!(latencies.p95(), Some(Duration::from_secs(100)));
}

#[test]
fn it_stays_open_for_as_long_as_the_upstream_asks_within_reason() {
    for (hint, lasts) in [(1, 3), (45, 45), (86_400, 300)] {
        let mut bench = Bench::new(RULES);
        let calls: Vec<_> = (0..3).map(|_| bench.admit().unwrap()).collect();
        for (call, hint) in calls.into_iter().zip([None, Some(Duration::from_secs(hint)), None]) {
            bench.machine.fail(call, CountedFailure { hint, ..FAILS }, bench.now, 0.5);
        }
        assert_eq!(bench.machine.closed_for(bench.now), Some(Duration::from_secs(lasts)), "{hint}");
    }
}

#[test]
fn a_success_takes_the_upstreams_wish_back() {
    let mut bench = Bench::new(RULES);
    let (one, other) = (bench.admit().unwrap(), bench.admit().unwrap());
    bench.machine.fail(one, CountedFailure { hint: Some(Duration::from_secs(200)), ..FAILS }, bench.now, 0.5);
    bench.succeed(other);
    (0..3).for_each(|_| bench.fails());
    assert_eq!(bench.machine.closed_for(bench.now), Some(Duration::from_secs(3)));
}

#[test]
fn a_reset_forgets_the_upstreams_wish_and_how_often_it_has_opened() {
    let mut bench = Bench::new(RULES);
    for _ in 0..2 {
        (0..2).for_each(|_| bench.fails());
        let call = bench.admit().unwrap();
        bench.machine.fail(call, CountedFailure { hint: Some(Duration::from_secs(200)), ..FAILS }, bench.now, 0.5);
        assert_eq!(bench.machine.closed_for(bench.now), Some(Duration::from_secs(200)));
        bench.machine.reset();
    }
    (0..3).for_each(|_| bench.fails());
    assert_eq!(bench.machine.closed_for(bench.now), Some(Duration::from_secs(3)), "as the first time");
}

#[test]
fn those_who_wait_are_spread() {
    let waits = |bench: &mut Bench| [0.0, 0.5, 1.0].map(|roll| bench.machine.admit(bench.now, roll).unwrap_err());
    let mut bench = Bench::open(RULES);
    assert_eq!(waits(&mut bench), [3_000, 3_100, 3_200].map(Duration::from_millis), "until its time is over");
    bench.wait(3);
    assert!(bench.admit().is_some() && bench.admit().is_some());
    assert_eq!(waits(&mut bench), [500, 750, 1_000].map(Duration::from_millis), "while the probes are out");
}

/// Opens the breaker at this rate, and answers its probe.
fn ramping(rate: u32) -> Bench {
    let mut bench = Bench::half_open(Rules { trip: Trip::consecutive(rate), ..RULES });
    let probe = bench.admit().unwrap();
    bench.succeed(probe);
    assert_eq!(bench.state(), State::Ramping);
    bench.machine.take_change();
    bench
}

#[test]
fn it_fills_again_by_its_answers_and_is_well_once_it_holds_nobody_back() {
    let mut bench = ramping(3);
    let mut allowed = 3;
    for _ in 0..8 {
        let admitted: Vec<_> = std::iter::from_fn(|| bench.admit()).collect();
        assert_eq!(admitted.len(), allowed, "in flight at once, within a second");
        admitted.into_iter().for_each(|call| bench.succeed(call));
        allowed *= 2;
    }
    for _ in 0..9 {
        bench.wait(1);
        assert_eq!(bench.state(), State::Ramping);
    }
    bench.wait(1);
    assert_eq!(bench.state(), State::Closed);
    assert!((0..10_000).all(|_| bench.admit().is_some()));
    let Some(StateChange { from: State::Ramping, to: State::Closed, reason: Reason::Recovered, .. }) =
        bench.machine.take_change()
    else {
        panic!("nobody was told")
    };
}

#[test]
fn whoever_makes_one_call_after_the_other_is_never_held_back_however_long_they_take() {
    for millis in [0, 1, 50, 300, 999, 1_000, 1_500, 5_000, 30_000, 60_000] {
        let mut bench = ramping(1);
        for nth in 0..20 {
            let call = bench.admit().unwrap_or_else(|| panic!("call {nth} of {millis} ms"));
            bench.now += Duration::from_millis(millis);
            bench.succeed(call);
        }
    }
}

#[test]
fn a_slow_model_gets_no_more_than_double_in_two_seconds_and_nobody_is_let_loose_at_once() {
    let mut bench = ramping(10);
    let (mut in_flight, mut herds) = (Vec::new(), Vec::new());
    for second in 0..60 {
        let comes: Vec<_> = std::iter::from_fn(|| bench.admit()).take(1_000).collect();
        herds.push(comes.len());
        in_flight.extend(comes);
        // There are a thousand callers, who come back every second.
        if in_flight.len() >= 1_000 {
            assert!(second > 8, "{herds:?}");
            break;
        }
        bench.wait(1);
    }
    let two = |second: usize| herds[..second].iter().sum::<usize>();
    assert!((2..herds.len()).all(|second| two(second) <= 2 * two(second.saturating_sub(2)) + 10), "{herds:?}");
    assert!(in_flight.len() >= 1_000 && herds[0] == 10, "{herds:?}");
    // Those whom it turns away leave no place behind.
    in_flight.drain(..).for_each(|call| bench.release(call));
    let held = std::iter::from_fn(|| bench.admit()).count();
    assert_eq!(held, 10);
}

#[test]
fn as_long_as_it_holds_calls_back_it_is_not_well() {
    let mut bench = ramping(3);
    for _ in 0..30 {
        let calls: Vec<_> = (0..3).map(|_| bench.admit().unwrap()).collect();
        assert!(bench.admit().is_none());
        calls.into_iter().for_each(|call| bench.release(call));
        bench.wait(1);
        assert_eq!(bench.state(), State::Ramping);
    }
    bench.wait(9);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn a_relapse_opens_it_at_once_and_for_longer() {
    let rules = Rules { trip: Trip::silence(), ..RULES };
    let mut bench = Bench::half_open(rules);
    let probe = bench.admit().unwrap();
    bench.succeed(probe);
    let mut secs = 0;
    while bench.state() == State::Ramping {
        (0..5).for_each(|_| bench.fails());
        bench.wait(1);
        secs += 1;
    }
    assert!(secs <= 4, "{secs}");
    let change = bench.machine.take_change().unwrap();
    assert!(matches!(change.reason, Reason::Relapsed { failed: 10, .. }), "{change:?}");
    assert_eq!(change.open_for, Some(Duration::from_secs(6)));
}

#[test]
fn after_another_answer_it_takes_as_long_as_ever_to_open_again() {
    let rules = Rules { trip: Trip::silence(), ..RULES };
    let mut bench = Bench::half_open(rules);
    for _ in 0..2 {
        let call = bench.admit().unwrap();
        bench.succeed(call);
    }
    for _ in 0..9 {
        (0..5).for_each(|_| bench.fails());
        assert_eq!(bench.state(), State::Ramping);
        bench.wait(1);
    }
    bench.wait(1);
    bench.fails();
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn failures_on_the_ramp_say_nothing_while_most_calls_may_still_be_answered() {
    let rules = Rules { trip: Trip::silence(), ..RULES };
    let mut bench = Bench::half_open(rules);
    let probe = bench.admit().unwrap();
    bench.succeed(probe);
    let mut under_way = Vec::new();
    for _ in 0..6 {
        while let Some(call) = bench.admit() {
            if under_way.len() % 2 == 0 {
                under_way.push(call)
            } else {
                under_way.push(call);
                bench.fail(call)
            }
        }
        bench.wait(1);
    }
    assert_eq!(bench.state(), State::Ramping);
}

/// Lets five hundred callers come to an upstream whose failures take so long, and which answers one probe by luck.
/// Returns the attempts from that answer until it opens again, and the time that it takes.
fn attempts_of_a_herd(failure: Duration) -> (usize, Duration) {
    const STEP: Duration = Duration::from_millis(100);
    let mut bench = Bench::new(Rules { trip: Trip::silence(), ..RULES });
    let mut callers = vec![(bench.now, None::<Admission>); 500];
    let (mut lucky, mut attempts) = (None, 0);
    loop {
        for (next, sent) in &mut callers {
            if bench.now < *next {
                continue;
            }
            if let Some(sent) = sent.take() {
                if bench.state() == State::HalfOpen && lucky.is_none() {
                    bench.succeed(sent);
                    lucky = Some(bench.now);
                } else {
                    bench.fail(sent);
                }
                *next = bench.now + Duration::from_secs(1);
                continue;
            }
            *sent = bench.admit();
            attempts += usize::from(sent.is_some() && lucky.is_some());
            *next = bench.now + if sent.is_some() { failure } else { Duration::from_secs(1) };
        }
        if let Some(lucky) = lucky
            && bench.state() == State::Open
        {
            return (attempts, bench.now - lucky);
        }
        bench.now += STEP;
    }
}

#[test]
fn a_lucky_probe_lets_no_herd_loose_on_an_upstream_whose_failures_are_slow() {
    for failure in [3_000, 10_000, 30_000] {
        let (attempts, took) = attempts_of_a_herd(Duration::from_millis(failure));
        println!("failures of {failure} ms: {attempts} attempts in {took:?}");
        assert!(attempts <= 400, "failures of {failure} ms: {attempts} in {took:?}");
        assert!(took <= Duration::from_secs(91), "failures of {failure} ms: {took:?}");
    }
}

#[test]
fn calls_that_hang_after_a_lucky_probe_hold_its_relapse_back_for_a_minute_at_most() {
    let mut bench = Bench::half_open(Rules { trip: Trip::silence(), probes: 40, ..RULES });
    let slow = bench.admit().unwrap();
    bench.wait(30);
    bench.fail(slow);
    let probe = bench.admit().unwrap();
    bench.succeed(probe);
    let mut hanging = Vec::new();
    for second in 0..60 {
        // One in a second fails at last.
        if second >= 35 {
            bench.fail(hanging.pop().unwrap());
        }
        assert_eq!(bench.state(), State::Ramping, "after {second} s");
        hanging.extend(std::iter::from_fn(|| bench.admit()).take(100));
        bench.wait(1);
    }
    bench.machine.take_change();
    bench.fail(hanging.pop().unwrap());
    let change = bench.machine.take_change().unwrap();
    assert!(matches!(change.reason, Reason::Relapsed { failed: 26, .. }), "{change:?}");
}

#[test]
fn a_slow_failure_of_the_past_holds_no_later_ramp_back() {
    let mut bench = Bench::new(RULES);
    let slow = bench.admit().unwrap();
    bench.wait(50);
    bench.fail(slow);
    let call = bench.admit().unwrap();
    bench.succeed(call);
    (0..3).for_each(|_| bench.fails());
    bench.wait(3);
    let probe = bench.admit().unwrap();
    bench.succeed(probe);
    let first = std::iter::from_fn(|| bench.admit()).count();
    bench.wait(2);
    assert_eq!(std::iter::from_fn(|| bench.admit()).count(), 2 * first);
}

#[test]
fn a_force_lasts_until_it_is_reset_and_what_was_under_way_is_of_the_past() {
    let mut bench = Bench::new(RULES);
    let old = bench.admit().unwrap();
    bench.machine.force(true);
    bench.wait(100_000);
    assert_eq!((bench.admit(), bench.state()), (None, State::ForcedOpen));
    bench.succeed(old);
    assert_eq!((bench.admit(), bench.state()), (None, State::ForcedOpen));
    bench.machine.force(false);
    (0..1_000).for_each(|_| bench.fails());
    assert_eq!(bench.state(), State::ForcedClosed);
    bench.machine.reset();
    assert_eq!(bench.state(), State::Closed);
    (0..3).for_each(|_| bench.fails());
    assert_eq!(bench.state(), State::Open);
    bench.machine.reset();
    assert!((0..100).all(|_| bench.admit().is_some()));
}

#[test]
fn what_stays_as_it_is_is_no_news() {
    let mut bench = Bench::new(RULES);
    bench.machine.reset();
    assert_eq!(bench.machine.take_change(), None);
    for (open, state) in [(true, State::ForcedOpen), (false, State::ForcedClosed)] {
        bench.machine.force(open);
        assert_eq!(bench.machine.take_change().map(|change| change.to), Some(state));
        bench.machine.force(open);
        assert_eq!(bench.machine.take_change(), None);
    }
}

#[test]
fn it_is_calm_once_it_knows_how_long_successes_take_and_until_something_fails() {
    let mut bench = Bench::new(Rules { trip: Trip::silence(), ..RULES });
    for _ in 0..16 {
        assert!(!bench.machine.is_calm());
        let call = bench.admit().unwrap();
        bench.succeed(call);
    }
    assert!(bench.machine.is_calm());
    bench.fails();
    assert!(!bench.machine.is_calm());
    let call = bench.admit().unwrap();
    bench.succeed(call);
    assert!(bench.machine.is_calm());
    bench.machine.force(false);
    assert!(bench.machine.is_calm());
    bench.machine.force(true);
    assert!(!bench.machine.is_calm());
}

#[test]
fn it_may_be_forgotten_only_when_there_is_nothing_to_remember() {
    let mut bench = Bench::new(RULES);
    let forgettable = |bench: &Bench| bench.machine.is_forgettable(bench.now);
    assert!(forgettable(&bench));
    let call = bench.admit().unwrap();
    assert!(!forgettable(&bench), "one is under way");
    bench.fail(call);
    assert!(!forgettable(&bench));
    bench.wait(600);
    assert!(forgettable(&bench), "that was long ago");
    for (open, days) in [(true, 0), (false, 0), (true, 100), (false, 100)] {
        bench.machine.force(open);
        bench.wait(days * 86_400);
        assert!(!forgettable(&bench), "forced");
    }
    let mut bench = Bench::open(RULES);
    bench.wait(100_000);
    assert!(!forgettable(&bench), "open, whatever the time");
}

// === ordinary days ===

/// Simulates half an hour of calls at `rate` a second, each tried up to 20 times with the default backoff, of which the
/// model turns away one attempt in two after 0.2 s and answers the others after `service`. Returns the openings.
fn half_hour(seed: u64, rate: f64, service: u64) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bench = Bench::new(Rules { trip: Trip::silence(), ..RULES });
    let begun = bench.now;
    /// The attempts of a call so far, and the admission and the outcome of one that is under way.
    type SimulatedCall = (u32, Option<(Admission, bool)>);
    // By the time in milliseconds and a number.
    let mut events: BTreeMap<(u64, u64), SimulatedCall> = BTreeMap::new();
    let (mut arrival, mut number) = (0.0, 0);
    while arrival < 1_800.0 {
        arrival += -(1.0 - rng.f64()).ln() / rate;
        number += 1;
        events.insert(((arrival * 1_000.0) as u64, number), (0, None));
    }
    let mut openings = 0;
    while let Some(((at, number), (attempts, under_way))) = events.pop_first() {
        bench.now = begun + Duration::from_millis(at);
        match under_way {
            None => match bench.machine.admit(bench.now, rng.f64()) {
                Ok(admission) => {
                    let answers = rng.bool();
                    let ends = at + if answers { service * 1_000 } else { 200 };
                    events.insert((ends, number), (attempts + 1, Some((admission, answers))));
                }
                Err(wait) => drop(events.insert((at + wait.as_millis() as u64 + 1, number), (attempts, None))),
            },
            Some((admission, true)) => bench.succeed(admission),
            Some((admission, false)) => {
                let failure = CountedFailure { repeated: attempts > 1, ..FAILS };
                bench.machine.fail(admission, failure, bench.now, rng.f64());
                let ceiling = (500 << (attempts - 1).min(10)).min(20_000);
                if attempts < 20 {
                    events.insert((at + rng.u64(0..ceiling), number), (attempts, None));
                }
            }
        }
        openings += usize::from(bench.machine.take_change().is_some_and(|change| change.to == State::Open));
    }
    openings
}

#[test]
fn no_half_hour_of_a_model_that_sheds_half_of_its_load_opens_it_however_few_call() {
    for (rate, service) in [(0.02, 5), (0.02, 30), (0.1, 1), (0.1, 5), (0.1, 30), (0.3, 5), (0.3, 30)] {
        let openings: usize = (0..100).map(|seed| half_hour(seed, rate, service)).sum();
        assert_eq!(openings, 0, "{rate} a second, {service} s an answer");
    }
}

// === the whole machine and a plain model of it ===

#[derive(Clone, Debug)]
enum MachineStep {
    Wait(u64),
    Admit,
    /// The number of an admitted call, and its outcome.
    Succeed(prop::sample::Index),
    /// The same; whether it is repeated, and whether it is a time-out of our own.
    Fail(prop::sample::Index, bool, bool),
    Release(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<MachineStep>> {
    let step = prop_oneof![
        2 => (0u64..4_000).prop_map(MachineStep::Wait),
        6 => Just(MachineStep::Admit),
        1 => any::<prop::sample::Index>().prop_map(MachineStep::Succeed),
        4 => (any::<prop::sample::Index>(), any::<bool>(), any::<bool>())
            .prop_map(|(which, repeated, timed_out)| MachineStep::Fail(which, repeated, timed_out)),
        1 => any::<prop::sample::Index>().prop_map(MachineStep::Release),
    ];
    proptest::collection::vec(step, 0..300)
}

/// The plain model: a clock in milliseconds, the list of all calls, and everything else counted anew from it.
struct Model {
    now: u64,
    /// The present state, and when it began.
    since: u64,
    /// The time of the last refusal on the ramp, or of its beginning.
    refused: u64,
    is: State,
    lasts: u64,
    openings: u32,
    calls: Vec<SimulatedCall>,
    /// The outcomes since the present state began, in order: the time of a success, or a failure.
    came: Vec<Result<u64, SimulatedFailure>>,
    rate: f64,
    /// The times that the successes took.
    took: Vec<u64>,
    /// The time of the slowest failure since the last success in the closed state.
    longest: u64,
    /// The age from which on, and from twice which at the latest, a call on the ramp counts as answered.
    step: u64,
}

#[derive(Clone, Copy)]
struct SimulatedFailure {
    repeated: bool,
    timed_out: bool,
    sent: u64,
    at: u64,
}

struct SimulatedCall {
    /// The state that admitted it, by its beginning and name.
    of: (u64, State, usize),
    at: u64,
    lease: u64,
    done: bool,
}

impl Model {
    fn moves(&mut self, to: State, lasts: u64) {
        (self.is, self.since, self.refused, self.lasts) = (to, self.now, self.now, lasts);
        self.came.clear();
    }

    fn opens(&mut self) {
        let ceiling = (4_000u64 << self.openings.min(10)).min(10_000);
        self.openings += 1;
        self.moves(State::Open, ceiling * 3 / 4);
    }

    fn out(&self, number: usize) -> usize {
        let live = |call: &&SimulatedCall| call.of.2 == number && !call.done && self.now - call.at < call.lease;
        self.calls.iter().filter(live).count()
    }

    fn ends_ramp(&mut self) {
        if self.is == State::Ramping && self.now - self.refused >= 10_000 {
            (self.is, self.openings) = (State::Closed, 0);
        }
    }

    fn p95(&self) -> u64 {
        let mut last = self.took[self.took.len().saturating_sub(64)..].to_vec();
        last.sort_unstable();
        let p95 = (last.len() as f64 * 0.95).ceil() as usize;
        p95.checked_sub(1).map_or(0, |at| last[at])
    }

    fn lease(&self) -> u64 {
        (self.p95() * 4).max(60_000)
    }

    fn fails(&self) -> usize {
        self.came.iter().filter(|came| came.is_err()).count()
    }

    /// Returns the failures in a row that count.
    fn row(&self) -> Vec<SimulatedFailure> {
        let row = self.came.iter().rev().map_while(|came| came.err()).filter(|failure| !failure.repeated);
        let mut row: Vec<_> = row.collect();
        let answered = self.came.iter().filter_map(|came| came.ok()).next_back();
        if row.iter().all(|failure| failure.timed_out) {
            row.retain(|failure| answered.is_none_or(|answered| answered < failure.sent));
        }
        row
    }

    fn admits(&mut self, number: &mut usize) -> bool {
        self.ends_ramp();
        if self.is == State::Open && self.now - self.since >= self.lasts {
            self.moves(State::HalfOpen, 0);
            *number += 1;
        }
        match self.is {
            State::Open => false,
            State::HalfOpen => self.out(*number) + self.fails() < 2,
            State::Ramping => {
                let step = |at: u64| (at - self.since) / self.step;
                let in_flight = self.calls.iter().filter(|call| call.of.2 == *number && !call.done);
                let (young, old): (Vec<_>, Vec<_>) = in_flight.partition(|call| step(self.now) - step(call.at) <= 1);
                let answers = self.came.len() - self.fails();
                let admits = (young.len() as f64) < self.rate.max(2.0) + (old.len() + answers) as f64;
                if !admits {
                    self.refused = self.now;
                }
                admits
            }
            _ => true,
        }
    }
}

proptest! {
    #[test]
    fn the_machine_is_its_plain_model(steps in steps()) {
        let begun = Instant::now();
        let mut machine = Machine::new(RULES);
        let mut model = Model {
            now: 0, since: 0, refused: 0, is: State::Closed, lasts: 0, openings: 0, calls: Vec::new(), came: Vec::new(),
            rate: 0.0, took: Vec::new(), longest: 0, step: 0,
        };
        let mut number = 0;
        let mut admitted: Vec<Admission> = Vec::new();
        for step in steps {
            let now = begun + Duration::from_millis(model.now);
            match step {
                MachineStep::Wait(ms) => model.now += ms,
                MachineStep::Admit => {
                    let expected = model.admits(&mut number);
                    let got = machine.admit(now, 0.5);
                    prop_assert_eq!(got.is_ok(), expected);
                    if let Ok(got) = got {
                        admitted.push(got);
                        let (of, lease) = ((model.since, model.is, number), model.lease());
                        model.calls.push(SimulatedCall { of, at: model.now, lease, done: false });
                    }
                }
                MachineStep::Succeed(which) | MachineStep::Fail(which, ..) | MachineStep::Release(which)
                    if !admitted.is_empty() =>
                {
                    let at = which.index(admitted.len());
                    // A call ends once; the machine's callers ensure that.
                    if model.calls[at].done {
                        continue;
                    }
                    match step {
                        MachineStep::Succeed(_) => machine.succeed(admitted[at], now),
                        MachineStep::Fail(_, repeated, timed_out) => {
                            machine.fail(admitted[at], CountedFailure { repeated, timed_out, hint: None }, now, 0.5)
                        },
                        _ => machine.release(admitted[at], now),
                    }
                    let call = &mut model.calls[at];
                    let is_late = call.of.1 == State::HalfOpen && model.now - call.at >= call.lease;
                    let expired = is_late && !matches!(step, MachineStep::Succeed(_));
                    let (sent, took) = (call.at, model.now - call.at);
                    let counts = !expired && call.of.2 == number;
                    call.done = true;
                    if !counts {
                        continue;
                    }
                    match step {
                        MachineStep::Succeed(_) => {
                            model.came.push(Ok(model.now));
                            model.took.push(took);
                            if model.is == State::HalfOpen {
                                model.moves(State::Ramping, 0);
                                model.step = model.longest.clamp(1_000, 60_000);
                                number += 1;
                            } else if model.is == State::Closed {
                                model.longest = 0;
                            } else {
                                model.ends_ramp();
                            }
                        }
                        MachineStep::Fail(_, repeated, timed_out) => {
                            model.came.push(Err(SimulatedFailure { repeated, timed_out, sent, at: model.now }));
                            model.longest = model.longest.max(took);
                            let row = model.row();
                            let under_way = model.calls.iter().filter(|call| call.of.2 == number && !call.done).count();
                            let fails = model.fails();
                            let is_late = model.now - model.since >= (model.p95() * 2).max(60_000);
                            let relapses = model.is == State::Ramping
                                && fails >= 3 && (under_way <= fails / 4 || is_late) && fails == model.came.len();
                            let opens = match model.is {
                                State::HalfOpen => fails >= 2,
                                _ => relapses || row.len() >= 3,
                            };
                            if opens {
                                if model.is != State::HalfOpen && !relapses {
                                    // The last is the first: the row was read backwards.
                                    let over = (model.now - row.last().unwrap().at) as f64 / 1000.0;
                                    model.rate = row.len() as f64 / over.max(1.0);
                                }
                                model.opens();
                                number += 1;
                            }
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
            let now = begun + Duration::from_millis(model.now);
            let expected = match model.is {
                State::Open if model.now - model.since >= model.lasts => State::HalfOpen,
                State::Ramping if model.now - model.refused >= 10_000 => State::Closed,
                is => is,
            };
            prop_assert_eq!(machine.state(now), expected);
        }
    }
}
