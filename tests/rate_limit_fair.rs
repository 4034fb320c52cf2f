//! Tests of fair turns in the limiter's queue, of calls that wait until their deadline, and of those for which no answer
//! can come in time.

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::{
    CallContext, GeminiLayer, KeyPoolLayer, RateLimitLayer,
    context::{Deadline, GaveUp, Priority},
    key_pool::{ApiKey, Key, KeyPool},
    quota::{Limits, TokenCost},
    rate_limit::{Limiter, LimiterBuilder, RateLimit},
    service_times::ServiceTimes,
};

use crate::support::{GENERATE, STREAM, Upstream, find, hello, millis, post, secs, settle};

const MODEL: &str = "gemini-2.5-pro";

fn per_minute(requests: u64) -> LimiterBuilder {
    Limiter::builder().limits(Limits::new().requests_per_minute(requests))
}

fn by(caller: &str, priority: Priority, tokens: u64) -> Request<Full<Bytes>> {
    let mut request = post(GENERATE);
    CallContext::update(request.extensions_mut(), |context| {
        if !caller.is_empty() {
            context.set_caller(caller);
        }
        context.set_priority(priority);
        context.set_token_cost(TokenCost::estimate(tokens));
    });
    request
}

fn within(time: Duration, uri: &str) -> Request<Full<Bytes>> {
    let mut request = post(uri);
    CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(Deadline::after(time)));
    request
}

/// An upstream that takes this long, and its service.
fn service(limiter: &Limiter, takes: Duration) -> RateLimit<Upstream> {
    let upstream = Upstream::new(move |_, _| async move {
        sleep(takes).await;
        Ok(hello())
    });
    RateLimitLayer::new(limiter.clone()).layer(upstream)
}

// === callers ===

/// The heavy caller's 200 jobs of 20,000 tokens, by 40 workers, and the light caller's calls of 500 tokens beside them, one
/// in 5 s, at 250,000 tokens a minute. Returns how long the jobs took, and how long the light calls waited.
async fn beside(jobs: (&'static str, Priority), light: Option<&'static str>) -> (Duration, Vec<Duration>) {
    let limits = Limits::new().input_tokens_per_minute(250_000);
    let limiter = Limiter::builder().limits(limits).max_wait(secs(3_600)).build();
    let service = service(&limiter, Duration::ZERO);
    let begun = Instant::now();
    let queue = Arc::new(Mutex::new(200));
    let mut workers = JoinSet::new();
    for _ in 0..40 {
        let (service, queue) = (service.clone(), queue.clone());
        workers.spawn(async move {
            let next = || {
                let mut left = queue.lock();
                *left -= i32::from(*left > 0);
                *left
            };
            while next() > 0 {
                service.clone().oneshot(by(jobs.0, jobs.1, 20_000)).await.unwrap();
                sleep(secs(3)).await;
            }
        });
    }
    let waits = Arc::<Mutex<Vec<Duration>>>::default();
    let noting = waits.clone();
    let others = tokio::spawn(async move {
        let Some(light) = light else { return };
        for nth in 1.. {
            sleep_until(begun + secs(5) * nth).await;
            let (service, waits) = (service.clone(), noting.clone());
            tokio::spawn(async move {
                let came = Instant::now();
                service.oneshot(by(light, Priority::Normal, 500)).await.unwrap();
                waits.lock().push(came.elapsed());
            });
        }
    });
    workers.join_all().await;
    let took = begun.elapsed();
    others.abort();
    let mut waits = waits.lock().clone();
    waits.sort();
    (took, waits)
}

#[tokio::test(start_paused = true)]
async fn a_light_caller_does_not_wait_for_a_heavy_one_which_is_hardly_later_for_it() {
    let p99 = |waits: &[Duration]| waits[waits.len() * 99 / 100];
    let (alone, _) = beside(("jobs", Priority::Normal), None).await;
    for priority in [Priority::Normal, Priority::Batch] {
        let (took, waits) = beside(("jobs", priority), Some("light")).await;
        println!("jobs {priority}: alone {alone:.1?}, beside {took:.1?}; the light caller's p99 {:.1?}", p99(&waits));
        assert!(waits.len() > 150 && p99(&waits) <= secs(10), "{priority}: {:?}", p99(&waits));
        assert!(took <= alone.mul_f64(1.03), "{priority}: {took:?}, alone {alone:?}");
    }
    // Those that cannot be told apart wait for one another, unless one is more urgent.
    let (_, waits) = beside(("", Priority::Normal), Some("")).await;
    assert!(p99(&waits) > secs(120), "{:?}", p99(&waits));
    let (took, waits) = beside(("", Priority::Batch), Some("")).await;
    assert!(p99(&waits) <= secs(10) && took <= alone.mul_f64(1.03), "{:?} {took:?}", p99(&waits));
}

#[tokio::test(start_paused = true)]
async fn callers_take_turns_whoever_came_first() {
    let limiter = per_minute(10).max_wait(secs(3_600)).build();
    let mut service = service(&limiter, Duration::ZERO);
    let went = Arc::<Mutex<String>>::default();
    let mut calls = JoinSet::new();
    for (caller, count) in [("x", 10), ("a", 12), ("b", 6), ("c", 3)] {
        for _ in 0..count {
            let (call, went) = (service.call(by(caller, Priority::Normal, 1)), went.clone());
            calls.spawn(async move {
                call.await.unwrap();
                went.lock().push_str(caller);
            });
        }
    }
    settle().await;
    let report = &limiter.snapshot()[0];
    assert_eq!((report.waiting, report.waiting_by_priority), (21, [0, 21, 0]));
    calls.join_all().await;
    // The first ten went at once, and are charged to nobody. The next was alone in the queue with twelve, and has used up
    // what all wait for.
    assert_eq!(went.lock()[10..], "bcabcabcababab".to_owned() + "aaaaaaa");
}

/// The first waiter sleeps until the window has room; one that comes before it takes its place, with a timer of its own.
#[tokio::test(start_paused = true)]
async fn one_that_becomes_first_is_woken_and_so_is_the_next_when_it_leaves() {
    let limiter = per_minute(1).max_wait(secs(3_600)).build();
    let service = service(&limiter, Duration::ZERO);
    let begun = Instant::now();
    service.clone().oneshot(by("a", Priority::Normal, 1)).await.unwrap();
    let call = |priority| {
        let service = service.clone();
        tokio::spawn(async move {
            service.oneshot(by("a", priority, 1)).await.unwrap();
            begun.elapsed()
        })
    };
    let batch = call(Priority::Batch);
    settle().await;
    let normal = call(Priority::Normal);
    settle().await;
    let (leaves, interactive) = (call(Priority::Interactive), call(Priority::Interactive));
    settle().await;
    assert_eq!(limiter.snapshot()[0].waiting_by_priority, [2, 1, 1]);
    leaves.abort();
    let turns = [interactive.await, normal.await, batch.await].map(Result::unwrap);
    // The old ones share: the normal one and that of the batch begin with nothing saved up.
    assert_eq!(turns, [1, 2, 3].map(|turn| millis(60_250) * turn));
}

/// A batch under a flood of urgent calls: it takes part once it is old.
#[tokio::test(start_paused = true)]
async fn a_batch_goes_while_urgent_calls_never_end() {
    let limiter = per_minute(60).max_wait(secs(3_600)).build();
    let service = service(&limiter, Duration::ZERO);
    let begun = Instant::now();
    let flood = {
        let service = service.clone();
        tokio::spawn(async move {
            loop {
                tokio::spawn(service.clone().oneshot(by("urgent", Priority::Interactive, 1)));
                sleep(millis(500)).await;
            }
        })
    };
    sleep(secs(50)).await;
    let batch = join_all((0..10).map(|_| service.clone().oneshot(by("jobs", Priority::Batch, 1)))).await;
    assert!(batch.iter().all(Result::is_ok));
    // A fifth of two minutes' 60 is 24.
    assert!(begun.elapsed() > secs(110) && begun.elapsed() < secs(250), "{:?}", begun.elapsed());
    flood.abort();
}

// === deadlines ===

/// At 300 a minute, five minutes' worth goes in 285 s: the others are refused at once, and nobody overtakes.
#[tokio::test(start_paused = true)]
async fn calls_that_wait_until_their_deadline_are_answered_in_their_order_and_the_rest_is_refused_at_once() {
    for (all, answered) in [(900, 900), (2_000, 1_500)] {
        let limiter = per_minute(300).wait_until_deadline().build();
        let service = service(&limiter, secs(1));
        let begun = Instant::now();
        let calls = (0..all).map(|_| service.clone().oneshot(within(secs(285), GENERATE)));
        let calls = calls.map(|call| async move {
            let result = call.await;
            (result.is_ok(), begun.elapsed())
        });
        let ends = join_all(calls).await;
        assert_eq!(ends.iter().filter(|(is_ok, _)| *is_ok).count(), answered);
        let (went, refused) = ends.split_at(answered);
        assert!(went.is_sorted_by_key(|(_, at)| *at) && went.iter().all(|(is_ok, _)| *is_ok));
        assert!(refused.iter().all(|(is_ok, at)| !is_ok && at.is_zero()), "{refused:?}");
        assert!(went.last().is_some_and(|(_, at)| *at <= secs(60) * (answered as u32 / 300)));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_a_call_waits_for_285_seconds_at_most() {
    let limiter = per_minute(1).wait_until_deadline().build();
    let service = service(&limiter, Duration::ZERO);
    let calls = join_all((0..6).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    let refused: Vec<_> = calls.iter().filter_map(|call| call.as_ref().err()).collect();
    assert_eq!(refused.len(), 1);
    let error = find(refused[0]);
    assert_eq!((error.retry_after(), error.outcome().gave_up()), (Some(millis(301_250)), Some(GaveUp::Wait)));
    let stack = GeminiLayer::interactive().limiter(per_minute(100).wait_until_deadline()).build().unwrap();
    assert!(stack.warnings().iter().all(|warning| !warning.contains("max_wait")), "{:?}", stack.warnings());
    let described = stack.describe().to_string();
    assert!(described.contains("waits until the deadline, or for up to 285s where there is none"), "{described}");
}

/// Answers take 10 s, and the quickest 8 s: with less than these left after its wait, a call would be sent for nobody.
#[tokio::test(start_paused = true)]
async fn a_call_for_which_no_answer_can_come_in_time_is_refused_at_once_and_not_sent() {
    let times = ServiceTimes::new();
    (0..20).for_each(|nth| times.record(MODEL, false, if nth < 4 { secs(8) } else { secs(10) }));
    let limiter = per_minute(1).max_wait(secs(3_600)).service_times(times).build();
    let service = service(&limiter, Duration::ZERO);
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    // Its turn comes after 60.25 s.
    for (uri, deadline, goes) in [(GENERATE, 68, false), (STREAM, 61, true), (GENERATE, 130, true)] {
        let mut call = tokio_test::task::spawn(Box::pin(service.clone().oneshot(within(secs(deadline), uri))));
        match call.poll() {
            std::task::Poll::Ready(result) => {
                let error = result.err().unwrap();
                assert!(!goes && find(&error).is_rate_limited(), "{error}");
                let message = find(&error).failure().message();
                assert!(message.starts_with("waited 0 s of 60.2s needed, 60.0s are allowed"), "{message}");
                assert!(message.contains("its deadline comes before"), "{message}");
            }
            std::task::Poll::Pending => {
                assert!(goes);
                call.into_inner().await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gives_up_when_an_answer_would_come_too_late() {
    let times = ServiceTimes::new();
    (0..20).for_each(|_| times.record(MODEL, false, secs(8)));
    let limiter = per_minute(1).max_wait(secs(3_600)).service_times(times).build();
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = RateLimitLayer::new(limiter.clone()).layer(upstream.clone());
    service.clone().oneshot(post(GENERATE)).await.unwrap();
    let begun = Instant::now();
    // It could go in time, were it not for the one that comes before it: a more urgent one.
    let call = tokio::spawn(service.clone().oneshot(within(secs(100), GENERATE)));
    settle().await;
    let urgent = tokio::spawn(service.clone().oneshot(by("", Priority::Interactive, 1)));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(begun.elapsed(), secs(92));
    assert_eq!(find(&error).outcome().gave_up(), Some(GaveUp::Wait));
    assert!(urgent.await.unwrap().is_ok());
    assert_eq!((upstream.calls(), limiter.snapshot()[0].waiting), (2, 0));
}

/// Returns how long an interactive call waits that may go to any of these projects: p with 200 batch calls in its queue,
/// or q with 20 interactive ones.
async fn waits_beside_a_batch(projects: &[&str]) -> Duration {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let limiter = per_minute(60).max_wait(secs(3_600)).build();
    let of = |names: &[&str]| {
        let keys = names.iter().fold(KeyPool::builder().headroom(limiter.clone()), |keys, name| {
            keys.key(Key::new(ApiKey::new(format!("AIza-nobodys-{name}")).unwrap()).project(*name))
        });
        let pool = KeyPoolLayer::new(keys.build().unwrap());
        pool.layer(RateLimitLayer::new(limiter.clone()).layer(upstream.clone()))
    };
    let (p, q) = (of(&["p"]), of(&["q"]));
    for _ in 0..60 {
        for service in [&p, &q] {
            service.clone().oneshot(by("", Priority::Normal, 10)).await.unwrap();
        }
        sleep(millis(900)).await;
    }
    let mut waiting = JoinSet::new();
    for (service, priority, calls) in [(p, Priority::Batch, 200), (q, Priority::Interactive, 20)] {
        for _ in 0..calls {
            waiting.spawn(service.clone().oneshot(by("", priority, 10)));
        }
        settle().await;
    }
    let begun = Instant::now();
    of(projects).oneshot(by("", Priority::Interactive, 10)).await.unwrap();
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn an_interactive_call_is_sent_to_the_project_whose_queue_lets_it_go_first() {
    let (best, chosen) = (waits_beside_a_batch(&["p"]).await, waits_beside_a_batch(&["p", "q"]).await);
    assert!(best < secs(10) && chosen <= best, "{best:?} {chosen:?}");
}
