//! A simulated outage in virtual time: Poisson arrivals, an upstream that is down for three minutes or sheds a part of its load,
//! and the results behind a deadline, retries and a breaker. Everything is seeded, jitter included.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::{
    CircuitBreakerLayer, RetryLayer, TimeoutLayer,
    circuit_breaker::{CircuitBreakers, State},
};

const DEADLINE: Duration = secs(120);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The scenario of a run.
#[derive(Clone, Copy, Debug)]
struct Story {
    seed: u64,
    arrivals: usize,
    /// The arrivals a second.
    rate: f64,
    /// The time that an answer takes. A 503 takes 0.2 s.
    service: Duration,
    /// The part of the calls that is turned away outside of the outage.
    shed: f64,
    outage: Option<(Duration, Duration)>,
}

const ORDINARY: Story =
    Story { seed: 1, arrivals: 1800, rate: 1.0, service: secs(5), shed: 0.0, outage: Some((secs(600), secs(180))) };

/// The caller's retry policy.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Ours,
    /// google-genai's own policy: 5 attempts, 1 s doubling to at most 60 s, and up to 1 s at random.
    GoogleGenai,
}

/// The results of a run.
#[derive(Debug)]
struct Outcome {
    goodput: f64,
    optimum: f64,
    /// The attempts that failed while the upstream was down.
    wasted: usize,
    openings: usize,
    /// The times from the end of the outage to the beginning and the end of the first call that was answered.
    recovery: (Duration, Duration),
    /// The attempts in the first second after the outage, and in the first second after the breaker had closed.
    herd: (usize, usize),
}

#[derive(Default)]
struct Log {
    /// The time of each attempt, and whether it was answered.
    attempts: Vec<(Duration, bool)>,
    answered: usize,
    openings: usize,
    closed: Option<Duration>,
}

/// Runs one scenario from its beginning to its end, in a few seconds.
fn tell(story: Story, caller: Caller) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    fastrand::seed(story.seed);
    runtime.block_on(run(story, caller))
}

async fn run(story: Story, caller: Caller) -> Outcome {
    let begun = Instant::now();
    let log = Arc::new(Mutex::new(Log::default()));
    let chance = Arc::new(Mutex::new(fastrand::Rng::with_seed(story.seed)));
    let seen = log.clone();
    let upstream = service_fn(move |_: Request<Full<Bytes>>| {
        let at = begun.elapsed();
        let down = story.outage.is_some_and(|(from, length)| (from..from + length).contains(&at));
        let answers = !down && chance.lock().f64() >= story.shed;
        seen.lock().attempts.push((at, answers));
        async move {
            sleep(if answers { story.service } else { Duration::from_millis(200) }).await;
            let status = if answers { 200 } else { 503 };
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
        }
    });

    let breakers = CircuitBreakers::new();
    let mut transitions = breakers.subscribe();
    let watching = log.clone();
    let watch = tokio::spawn(async move {
        while let Some(transition) = transitions.next().await {
            if std::env::var_os("STORY").is_some() {
                println!("{:?} {transition} {:?}", begun.elapsed(), transition.open_for);
            }
            let mut log = watching.lock();
            log.openings += usize::from(transition.to == State::Open);
            if transition.from == State::HalfOpen && transition.to == State::Ramping {
                log.closed = Some(begun.elapsed());
            }
        }
    });
    let ours = ServiceBuilder::new()
        .layer(TimeoutLayer::total(DEADLINE))
        .layer(RetryLayer::default())
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .service(upstream.clone());

    let mut arrivals = fastrand::Rng::with_seed(!story.seed);
    let (mut at, mut can_be_answered) = (0.0, 0);
    let mut calls = JoinSet::new();
    for _ in 0..story.arrivals {
        at += -(1.0 - arrivals.f64()).ln() / story.rate;
        let arrives = Duration::from_secs_f64(at);
        let last = arrives + DEADLINE - story.service;
        can_be_answered +=
            usize::from(story.outage.is_none_or(|(from, length)| arrives < from || last >= from + length));
        sleep_until(begun + arrives).await;
        let request = || {
            let uri = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:generateContent";
            Request::post(uri).body(Full::<Bytes>::default()).unwrap()
        };
        let (ours, theirs, log) = (ours.clone(), upstream.clone(), log.clone());
        calls.spawn(async move {
            let answered = match caller {
                Caller::Ours => ours.oneshot(request()).await.is_ok_and(|response| response.status() == 200),
                Caller::GoogleGenai => {
                    let mut delay = 1.0f64;
                    let mut nth = 1;
                    loop {
                        let response = theirs.clone().oneshot(request()).await.unwrap();
                        if response.status() == 200 || nth == 5 {
                            break response.status() == 200;
                        }
                        sleep(Duration::from_secs_f64(delay.min(60.0) + fastrand::f64())).await;
                        (nth, delay) = (nth + 1, delay * 2.0);
                    }
                }
            };
            log.lock().answered += usize::from(answered);
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    watch.abort();
    let log = log.lock();
    let (from, until) = story.outage.map_or_else(Default::default, |(from, length)| (from, from + length));
    let within =
        |from: Duration, until: Duration| log.attempts.iter().filter(move |(at, _)| (from..until).contains(at));
    let first =
        log.attempts.iter().find(|(at, answers)| *at >= until && *answers).map_or(Duration::MAX, |(at, _)| *at - until);
    let closed = log.closed.unwrap_or(until);
    Outcome {
        goodput: log.answered as f64 / story.arrivals as f64,
        optimum: can_be_answered as f64 / story.arrivals as f64,
        wasted: within(from, until).filter(|(_, answers)| !answers).count(),
        openings: log.openings,
        recovery: (first, first.saturating_add(story.service)),
        herd: (within(until, until + secs(1)).count(), within(closed, closed + secs(1)).count()),
    }
}

/// The allowed waste: 15 % of what google-genai's own policy wastes in the same outage, which is 944 in the mean of many seeds.
const WASTE: usize = 141;

#[test]
fn google_genais_own_policy_hammers_a_model_that_is_down() {
    for seed in 1..=3 {
        let outcome = tell(Story { seed, ..ORDINARY }, Caller::GoogleGenai);
        assert!((700..=1_000).contains(&outcome.wasted), "{seed}: {outcome:?}");
        assert!(outcome.goodput < 0.97 * outcome.optimum, "{seed}: {outcome:?}");
    }
}

#[test]
fn an_outage_of_three_minutes_costs_little_and_ends_without_a_herd() {
    const SEEDS: u64 = 10;
    let mut parts = 0.0;
    for seed in 1..=SEEDS {
        let outcome = tell(Story { seed, ..ORDINARY }, Caller::Ours);
        assert!(outcome.wasted <= WASTE, "{seed}: {outcome:?}");
        assert!(outcome.goodput >= 0.985 * outcome.optimum, "{seed}: {outcome:?}");
        assert!(outcome.recovery.0 <= secs(10), "{seed}: {outcome:?}");
        assert!(outcome.herd.0 <= 2 && outcome.herd.1 <= 2, "{seed}: {outcome:?}");
        parts += outcome.goodput / outcome.optimum;
    }
    assert!(parts / SEEDS as f64 >= 0.99, "{parts}");
}

#[test]
fn a_model_that_sheds_up_to_half_of_its_load_is_not_down() {
    for seed in 1..=3 {
        for shed in [0.1, 0.3, 0.5] {
            for (rate, service) in [(0.1, 5), (1.0, 5), (20.0, 5), (0.1, 30), (1.0, 30), (20.0, 30)] {
                let story = Story { seed, shed, rate, service: secs(service), outage: None, ..ORDINARY };
                let outcome = tell(story, Caller::Ours);
                assert_eq!(outcome.openings, 0, "{story:?}: {outcome:?}");
                // With hundreds of calls in flight before the first is answered, the budget of the retries runs dry instead.
                assert!(rate > 1.0 || outcome.goodput >= 0.99, "{story:?}: {outcome:?}");
            }
        }
    }
}

/// The seconds of arrivals that wait for the recovery: the last opening, a probe's answer, and the ramp.
#[test]
fn it_is_the_same_with_few_callers_many_or_slow_answers() {
    for seed in 1..=3 {
        for (rate, service) in [(0.1, 5), (1.0, 5), (20.0, 5), (0.1, 30), (1.0, 30), (20.0, 30)] {
            let arrivals = (rate * 1_200.0) as usize;
            let story = Story { seed, rate, service: secs(service), arrivals, ..ORDINARY };
            let outcome = tell(story, Caller::Ours);
            let lost = (outcome.optimum - outcome.goodput) * arrivals as f64 / rate;
            // Until ten callers have come, none waits, and all attempts are spent.
            let unnoticed = (10.0 / rate - 10.0).min(60.0);
            assert!(lost <= 20.0 + service as f64 * 1.5 + unnoticed.max(0.0), "{lost} s: {story:?}: {outcome:?}");
            assert!(outcome.recovery.0 <= secs(11), "{story:?}: {outcome:?}");
            let herd = (2.0 * rate).max(2.0) as usize;
            assert!(outcome.herd.0 <= herd && outcome.herd.1 <= herd, "{story:?}: {outcome:?}");
        }
    }
}

#[test]
fn an_outage_on_top_of_a_bad_day_ends_as_well() {
    for seed in 1..=3 {
        let story = Story { seed, shed: 0.3, ..ORDINARY };
        let outcome = tell(story, Caller::Ours);
        assert!(outcome.wasted <= WASTE, "{story:?}: {outcome:?}");
        assert!(outcome.goodput >= 0.98 * outcome.optimum, "{story:?}: {outcome:?}");
    }
}
