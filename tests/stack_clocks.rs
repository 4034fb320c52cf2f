//! The presets' clocks in virtual time: models that think, calls that hang, and models that become slower. Everything
//! is seeded, jitter included.

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use support::*;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_gemini::{GeminiLayer, body::ReplayBody, stack::GeminiBuilder};

const MODEL: &str = "gemini-2.5-pro";

/// The header of a request whose answer takes long, each time that it is asked for.
const HARD: &str = "x-hard";

/// The time of one attempt, by the share of the calls that have begun, whether the request is a hard one, and a random
/// number from 0 to 1. `None`: it hangs.
type Takes = fn(f64, bool, f64) -> Option<Duration>;

struct Scenario {
    seed: u64,
    calls: usize,
    /// The arrivals a second, or one call after the other.
    rate: Option<f64>,
    /// Each call of this number is a hard one.
    hard: usize,
    takes: Takes,
}

const ORDINARY: Scenario =
    Scenario { seed: 1, calls: 400, rate: Some(0.2), hard: usize::MAX, takes: |_, _, _| Some(secs(5)) };

#[derive(Debug, Default)]
struct Told {
    begun: usize,
    answered: usize,
    attempts: usize,
    /// The time that each call took, answered or not, in order.
    took: Vec<Duration>,
}

impl Told {
    fn percentile(&self, percent: usize) -> Duration {
        self.took[(self.took.len() * percent / 100).min(self.took.len() - 1)]
    }
}

/// Runs a scenario from its beginning to its end.
fn tell(preset: GeminiBuilder, scenario: Scenario) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    fastrand::seed(scenario.seed);
    runtime.block_on(run(preset, scenario))
}

async fn run(preset: GeminiBuilder, Scenario { seed, calls, rate, hard, takes }: Scenario) -> Told {
    let begun = Instant::now();
    let told = Arc::new(Mutex::new(Told::default()));
    let (seen, chance) = (told.clone(), Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))));
    let upstream = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        seen.lock().attempts += 1;
        let share = seen.lock().begun as f64 / calls as f64;
        let takes = takes(share, request.headers().contains_key(HARD), chance.lock().f64());
        async move {
            match takes {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(HELLO)))
        }
    });
    let service = preset.build().unwrap().layer(upstream);
    let mut arrivals = fastrand::Rng::with_seed(!seed);
    let (mut at, mut under_way) = (0.0, JoinSet::new());
    for nth in 1..=calls {
        if let Some(rate) = rate {
            at += -(1.0 - arrivals.f64()).ln() / rate;
            sleep_until(begun + Duration::from_secs_f64(at)).await;
        } else {
            under_way.join_next().await;
        }
        let mut request = post(GENERATE);
        if nth % hard == 0 {
            request.headers_mut().insert(HARD, "1".parse().unwrap());
        }
        let (service, told) = (service.clone(), told.clone());
        told.lock().begun = nth;
        under_way.spawn(async move {
            let began = Instant::now();
            let answered = service.oneshot(request).await.is_ok_and(|response| response.status() == OK);
            let mut told = told.lock();
            told.answered += usize::from(answered);
            told.took.push(began.elapsed());
        });
    }
    while under_way.join_next().await.is_some() {}
    let mut told = std::mem::take(&mut *told.lock());
    told.took.sort_unstable();
    told
}

/// A model that thinks for 60 to 120 s, and one attempt in ten of which hangs.
fn thinks(_: f64, _: bool, roll: f64) -> Option<Duration> {
    (roll >= 0.1).then(|| Duration::from_secs_f64(60.0 + (roll - 0.1) / 0.9 * 60.0))
}

/// A model that becomes three times slower in the middle of 400 calls.
fn slows_down(begun: f64, _: bool, _: f64) -> Option<Duration> {
    Some(if begun < 0.5 { secs(40) } else { secs(120) })
}

#[test]
fn a_model_that_thinks_answers_under_the_clocks_that_are_made_for_it() {
    let (mut thinking, mut relay, mut fixed) = (0, 0, 0);
    for seed in 1..=5 {
        let scenario = || Scenario { seed, takes: thinks, ..ORDINARY };
        let told = tell(GeminiLayer::thinking(), scenario());
        println!("thinking {seed}: {} in {} attempts, p99 {:?}", told.answered, told.attempts, told.percentile(99));
        thinking += told.answered;
        relay += tell(GeminiLayer::relay(), scenario()).answered;
        fixed += tell(GeminiLayer::relay().fixed_clocks(), scenario()).answered;
    }
    println!("relay {relay} of 2000, fixed {fixed}");
    assert_eq!(thinking, 2_000);
    // 285 s are enough for two attempts, of which one in a hundred hangs twice.
    assert!(relay >= 1_970 && relay > fixed, "{relay}, fixed {fixed}");
}

#[test]
fn a_person_does_not_wait_long_enough_for_a_model_that_thinks_and_is_told_so_before() {
    let interactive = || GeminiLayer::interactive().fallback(MODEL, ["gemini-2.5-flash"]);
    let told = tell(GeminiLayer::interactive(), Scenario { calls: 20, takes: thinks, ..ORDINARY });
    assert_eq!(told.answered, 0);
    let [warning] =
        interactive().build().unwrap().warnings().to_owned().try_into().unwrap_or_else(|all| panic!("{all:?}"));
    assert!(warning.starts_with("attempt is 45s and first_content is 30s, but"), "{warning}");
    assert!(warning.contains("here gemini-2.5-pro, take 60 to 120 s"), "{warning}");
    for enough in
        [interactive().total(5 * secs(60)).attempt(secs(150)).first_content(secs(150)), interactive().without_clocks()]
    {
        assert_eq!(enough.build().unwrap().warnings(), [""; 0]);
    }
    for preset in [GeminiLayer::thinking(), GeminiLayer::relay(), GeminiLayer::batch()] {
        assert_eq!(preset.fallback(MODEL, ["gemini-2.5-flash"]).build().unwrap().warnings(), [""; 0]);
    }
}

#[test]
fn a_model_that_becomes_three_times_slower_loses_no_call_but_the_first_of_who_is_alone() {
    for (seed, rate) in [(1, Some(0.2)), (2, Some(1.0)), (3, Some(0.02)), (4, None)] {
        let told = tell(GeminiLayer::relay(), Scenario { seed, rate, calls: 200, takes: slows_down, ..ORDINARY });
        println!("slower at {rate:?}: {} in {} attempts", told.answered, told.attempts);
        // Whoever calls one by one learns of it from nobody: the call's own attempts are cut until the times are in doubt.
        assert!(told.answered >= 200 - usize::from(rate.is_none()), "{rate:?}: {}", told.answered);
        // The clock learns of it: not many are cut.
        assert!(told.attempts <= 230, "{rate:?}: {}", told.attempts);
    }
}

#[test]
fn a_model_that_becomes_five_times_slower_is_soon_waited_for_again() {
    fn slows_down(begun: f64, _: bool, _: f64) -> Option<Duration> {
        Some(if begun < 0.5 { secs(30) } else { secs(150) })
    }
    for (seed, rate) in [(1, Some(0.2)), (2, Some(1.0)), (3, None)] {
        let told = tell(GeminiLayer::relay(), Scenario { seed, rate, takes: slows_down, ..ORDINARY });
        println!("five times slower at {rate:?}: {} in {} attempts", told.answered, told.attempts);
        assert!(told.answered >= 398, "{rate:?}: {}", told.answered);
    }
}

#[test]
fn a_hard_question_among_easy_ones_is_answered_and_a_hang_costs_seconds() {
    fn mixed(_: f64, is_hard: bool, _: f64) -> Option<Duration> {
        Some(if is_hard { secs(100) } else { secs(5) })
    }
    fn hangs(begun: f64, is_hard: bool, roll: f64) -> Option<Duration> {
        if roll < 0.1 { None } else { mixed(begun, is_hard, roll) }
    }
    for seed in 1..=3 {
        let told = tell(GeminiLayer::relay(), Scenario { seed, hard: 50, takes: mixed, ..ORDINARY });
        assert_eq!(told.answered, 400, "seed {seed}");
        println!("mix without hangs {seed}: {} in {}", told.answered, told.attempts);
        // A hard question is asked three times, once by each clock, until four such cuts were for nothing.
        assert!(told.attempts <= 400 + 4 * 2 + 2, "seed {seed}: {}", told.attempts);
        let told = tell(GeminiLayer::relay(), Scenario { seed, hard: 50, takes: hangs, ..ORDINARY });
        println!(
            "mix {seed}: {} in {}, p90 {:?} p95 {:?}",
            told.answered,
            told.attempts,
            told.percentile(90),
            told.percentile(95)
        );
        assert!(told.answered >= 399, "seed {seed}: {}", told.answered);
        assert!(told.percentile(95) < secs(20), "seed {seed}: {:?}", told.percentile(95));
    }
}

#[test]
fn where_all_calls_hang_for_a_while_all_are_answered_afterwards() {
    fn outage(begun: f64, _: bool, _: f64) -> Option<Duration> {
        (!(0.4..0.5).contains(&begun)).then(|| secs(5))
    }
    for rate in [0.2, 0.5, 2.0] {
        let told = tell(GeminiLayer::relay(), Scenario { rate: Some(rate), takes: outage, ..ORDINARY });
        println!("outage at {rate}: {} in {}, longest {:?}", told.answered, told.attempts, told.took.last());
        assert_eq!(told.answered, 400, "{rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_times_of_a_stack_are_recorded_with_fixed_clocks_too_and_can_be_handed_on() {
    let upstream = || {
        service_fn(|_: Request<ReplayBody<Full<Bytes>>>| async {
            sleep(secs(5)).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(HELLO)))
        })
    };
    let before = GeminiLayer::relay().fixed_clocks().build().unwrap();
    for _ in 0..16 {
        before.layer(upstream()).oneshot(post(GENERATE)).await.unwrap();
    }
    assert_eq!(before.service_times().p95(MODEL, false), Some(secs(5)));
    // The stack after a reload knows the model from its first call on.
    let after = GeminiLayer::relay().service_times(before.service_times().clone()).build().unwrap();
    let began = Instant::now();
    let hangs = Arc::new(AtomicUsize::new(1));
    let moody = service_fn(move |request| {
        let hangs = hangs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let answer = upstream().oneshot(request);
        async move { if hangs { std::future::pending().await } else { answer.await } }
    });
    after.layer(moody).oneshot(post(GENERATE)).await.unwrap();
    assert!(began.elapsed() < secs(17), "{:?}", began.elapsed());
    // None adapts where no clock is set for an attempt.
    let described = GeminiLayer::relay().without_clocks().build().unwrap().describe().to_string();
    assert!(!described.contains("adaptive"), "{described}");
}
