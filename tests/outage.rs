//! A simulated outage in virtual time: Poisson arrivals, an upstream that is down for three minutes or sheds a part of
//! its load, and the results behind a deadline, retries and a breaker. Everything is seeded, jitter included.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::{
    CircuitBreakerLayer, RetryLayer, RetryPolicy, TimeoutLayer,
    circuit_breaker::{CircuitBreakers, State, Target, Trip},
    retry::RetryBudget,
};

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
    deadline: Duration,
    /// The most attempts of a call.
    attempts: u32,
    /// The retries that all calls share; `None`: any number.
    budget: Option<u32>,
}

const ORDINARY: Story = Story {
    seed: 1,
    arrivals: 1800,
    rate: 1.0,
    service: secs(5),
    shed: 0.0,
    outage: Some((secs(600), secs(180))),
    deadline: secs(120),
    attempts: RetryPolicy::MAX_ATTEMPTS,
    budget: Some(RetryBudget::CAPACITY),
};

/// The clock and the attempts of a relay, and three minutes of outage among ordinary ones.
const RELAYED: Story = Story {
    outage: Some((secs(300), secs(180))),
    deadline: secs(285),
    attempts: 20,
    budget: None,
    arrivals: 780,
    ..ORDINARY
};

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
    /// Of the calls that came in the outage: those that could be answered in time, and those that were.
    caught: (usize, usize),
    /// The time in which 99 of 100 of the calls that came in the outage had ended.
    p99: Duration,
}

#[derive(Default)]
struct Log {
    /// The time of each attempt, and whether it was answered.
    attempts: Vec<(Duration, bool)>,
    answered: usize,
    /// The times that the calls took which came in the outage, and of those that were answered in spite of it.
    took: Vec<Duration>,
    caught: usize,
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
    let policy = RetryPolicy::default().max_attempts(story.attempts).budget(story.budget.map(RetryBudget::new));
    let ours = ServiceBuilder::new()
        .layer(TimeoutLayer::total(story.deadline))
        .layer(RetryLayer::new(policy))
        .layer(CircuitBreakerLayer::new(breakers.clone()))
        .service(upstream.clone());

    let mut arrivals = fastrand::Rng::with_seed(!story.seed);
    let (mut at, mut can_be_answered, mut can_be_caught) = (0.0, 0, 0);
    let mut calls = JoinSet::new();
    for _ in 0..story.arrivals {
        at += -(1.0 - arrivals.f64()).ln() / story.rate;
        let arrives = Duration::from_secs_f64(at);
        let last = arrives + story.deadline - story.service;
        let down = story.outage.map(|(from, length)| (arrives >= from, from + length));
        let comes_in_it = down.is_some_and(|(begun, end)| begun && arrives < end);
        let can_be = down.is_none_or(|(begun, end)| !begun || last >= end);
        can_be_answered += usize::from(can_be);
        can_be_caught += usize::from(can_be && comes_in_it);
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
            let mut log = log.lock();
            log.answered += usize::from(answered);
            if comes_in_it {
                log.caught += usize::from(answered);
                log.took.push(begun.elapsed() - arrives);
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    watch.abort();
    let mut log = log.lock();
    log.took.sort();
    let log = log;
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
        caught: (can_be_caught, log.caught),
        p99: log.took.get(log.took.len() * 99 / 100).copied().unwrap_or_default(),
    }
}

/// The allowed waste: 15 % of what google-genai's own policy wastes in the same outage, which is 944 in the mean of
/// many seeds.
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
                // With hundreds of calls in flight before the first is answered, the budget of the retries runs dry
                // instead.
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

/// Runs an outage with as many callers as a relay of this rate has, and adds up its calls over the seeds.
fn relayed(rate: f64, seeds: u64) -> (f64, f64) {
    let (mut can_be, mut were, mut wasted) = (0, 0, 0);
    for seed in 1..=seeds {
        let outcome = tell(Story { seed, rate, arrivals: (rate * 780.0) as usize, ..RELAYED }, Caller::Ours);
        can_be += outcome.caught.0;
        were += outcome.caught.1;
        wasted += outcome.wasted;
    }
    (were as f64 / can_be as f64, wasted as f64 / seeds as f64)
}

#[test]
fn an_outage_loses_hardly_anything_whether_many_call_or_few() {
    for (rate, seeds, least) in [(0.02, 200, 0.95), (0.1, 20, 0.99), (0.3, 10, 0.99), (1.0, 5, 0.99), (10.0, 1, 0.99)] {
        let (answered, wasted) = relayed(rate, seeds);
        assert!(answered >= least, "{rate}: {answered}");
        // Of few callers each notices for itself that the model is down.
        assert!(rate > 1.0 || wasted <= 95.0, "{rate}: {wasted}");
    }
}

/// The last opening, a probe's answer, and the ramp, after which the answer itself takes its time.
#[test]
fn nobody_waits_long_for_the_recovery() {
    for (rate, service, outage) in
        [(0.1, 1, 180), (0.1, 30, 180), (1.0, 5, 30), (1.0, 30, 30), (1.0, 1, 180), (1.0, 30, 180), (20.0, 5, 30)]
    {
        let arrivals = (rate * (240 + outage) as f64) as usize;
        let outage = (secs(120), secs(outage));
        let story = Story { rate, service: secs(service), outage: Some(outage), arrivals, ..RELAYED };
        let outcome = tell(story, Caller::Ours);
        assert!(outcome.p99 <= outage.1 + 2 * secs(service) + secs(20), "{story:?}: {outcome:?}");
        assert!(outcome.caught.0 <= outcome.caught.1, "{story:?}: {outcome:?}");
    }
}

/// Makes calls at `rate` to a model that is down for the time of `outage`, then twenty calls one after the other, and
/// counts the refusals of these.
async fn refused_after_recovery(rate: f64, service: Duration, outage: Duration) -> usize {
    let begun = Instant::now();
    let upstream = service_fn(move |_: Request<Full<Bytes>>| async move {
        let answers = begun.elapsed() >= outage;
        sleep(if answers { service } else { Duration::from_millis(200) }).await;
        let status = if answers { 200 } else { 503 };
        Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
    });
    let trip = Trip::silence().minimum_requests(2);
    let breakers = CircuitBreakers::builder().trip(trip).build().unwrap();
    let ours = CircuitBreakerLayer::new(breakers.clone()).layer(upstream);
    let request = || Request::post("/v1beta/models/m:generateContent").body(Full::<Bytes>::default()).unwrap();
    let mut nth = 0;
    while begun.elapsed() < outage {
        nth += 1;
        tokio::spawn(ours.clone().oneshot(request()));
        sleep_until(begun + Duration::from_secs_f64(f64::from(nth) / rate)).await;
    }
    let model = Target::new("m", "");
    assert!(matches!(breakers.state(&model), State::Open | State::HalfOpen), "{:?}", breakers.state(&model));
    while breakers.state(&model) != State::Ramping {
        let _ = ours.clone().oneshot(request()).await;
        sleep(Duration::from_millis(100)).await;
    }
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(ours.clone().oneshot(request()).await.is_err());
    }
    refused
}

#[test]
fn whoever_calls_after_the_recovery_one_by_one_is_never_refused() {
    for rate in [0.1, 1.0, 20.0] {
        for service in [1, 5, 30] {
            for outage in [30, 180, 600] {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
                let refused = runtime.block_on(refused_after_recovery(rate, secs(service), secs(outage)));
                assert_eq!(refused, 0, "{rate} a second, {service} s an answer, {outage} s down");
            }
        }
    }
}
