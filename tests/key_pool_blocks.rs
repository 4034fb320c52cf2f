//! Tests of the blocks of `KeyPoolLayer`: which refusals take a project out, for which calls, and when it is asked again.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, ClassifyLayer, ErrorResponseLayer, GeminiLayer, KeyPoolLayer, Outcome, RateLimitLayer, ReplayLayer,
    RetryLayer,
    emulator::{Emulator, Trouble, When},
    failure::{Failure, Kind},
    key_pool::{ApiKey, Fingerprint, Key, KeyPool, KeyState, Part},
    rate_limit::Limiter,
};

use crate::support::{AnyBody, BATCH, GENERATE, INTERACTIONS, Upstream, hello, json, post, post_body, secs};

const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const CACHES: &str = "/v1beta/cachedContents";
const VEO: &str = "/v1beta/models/veo-3:predictLongRunning";
const UPLOAD: &str = "/upload/v1beta/files";

type Answer = Result<Response<AnyBody>, BoxError>;

/// Makes a pool of keys, each the only one of the project of its name. All calls of these tests are alike, and yet are to be
/// spread.
fn pool(keys: &[&str]) -> KeyPool {
    let key = |name: &&str| Key::new(ApiKey::new(format!("AIza-nobodys-{name}")).unwrap()).project(*name).name(*name);
    keys.iter().fold(KeyPool::builder().cache_affinity(None), |builder, name| builder.key(key(name))).build().unwrap()
}

fn stack(
    pool: &KeyPool,
    upstream: &Upstream,
) -> impl Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError, Future: Send> + Clone + Send + 'static
{
    ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(support::any))
        .layer(ReplayLayer::default())
        .layer(RetryLayer::default())
        .layer(KeyPoolLayer::new(pool.clone()))
        .layer(RateLimitLayer::new(Limiter::new()))
        .layer(ClassifyLayer::new())
        .service(upstream.clone())
}

/// Makes an upstream that answers each key by `answer`, which is told the key's name and the request's body.
fn by_key(answer: impl Fn(&str, &str) -> Response<AnyBody> + Send + Sync + Clone + 'static) -> Upstream {
    Upstream::new(move |_, asked| {
        let answer = answer.clone();
        async move {
            let body = String::from_utf8_lossy(&asked.body).into_owned();
            Ok(answer(key_of(&asked), &body))
        }
    })
}

fn key_of(asked: &support::Asked) -> &str {
    asked.headers["x-goog-api-key"].to_str().unwrap().trim_start_matches("AIza-nobodys-")
}

/// Counts the calls that were made with a key.
fn asked(upstream: &Upstream, key: &str) -> usize {
    upstream.asked().iter().filter(|asked| key_of(asked) == key).count()
}

fn ok(result: &Answer) -> bool {
    result.as_ref().is_ok_and(|response| response.status() == StatusCode::OK)
}

fn kind(result: &Answer) -> Option<Kind> {
    Outcome::of(result).failure().map(Failure::kind)
}

fn state(pool: &KeyPool, name: &str) -> KeyState {
    pool.snapshot().into_iter().find(|report| report.name.as_deref() == Some(name)).unwrap().state
}

fn error(code: u16, status: &str, message: &str, details: &str) -> Response<AnyBody> {
    json(
        code,
        format!(r#"{{"error":{{"code":{code},"message":"{message}","status":"{status}","details":[{details}]}}}}"#),
    )
}

fn closed() -> Response<AnyBody> {
    let message = "This model models/gemini-2.5-flash is no longer available to new users. Please update your code to use a newer model.";
    error(404, "NOT_FOUND", message, "")
}

fn exhausted(id: &str, value: u64, delay: &str) -> Response<AnyBody> {
    let violation =
        format!(r#"{{"violations":[{{"quotaId":"{id}","quotaValue":"{value}"}}]}},{{"retryDelay":"{delay}"}}"#);
    error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", &violation)
}

const DAY: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";
const MINUTE: &str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier";

#[tokio::test(start_paused = true)]
async fn a_model_that_is_closed_for_a_project_is_asked_of_another_and_remembered() {
    let upstream = by_key(|key, _| if key == "a" { closed() } else { hello() });
    let pool = pool(&["a", "b"]);
    let service = stack(&pool, &upstream);
    for _ in 0..40 {
        assert!(ok(&service.clone().oneshot(post(FLASH)).await));
    }
    assert_eq!(asked(&upstream, "a"), 1);
    assert!(matches!(state(&pool, "a"), KeyState::Exhausted { .. }));
    // Its other models are served, and so are calls that cost nothing.
    for uri in [GENERATE, "/v1beta/models/gemini-2.5-flash:countTokens"] {
        let before = asked(&upstream, "a");
        for _ in 0..40 {
            let _ = service.clone().oneshot(post(uri)).await;
        }
        assert!(asked(&upstream, "a") > before, "{uri}");
    }
    // Once an hour somebody looks.
    let before = asked(&upstream, "a");
    sleep(secs(3_600)).await;
    for _ in 0..40 {
        assert!(ok(&service.clone().oneshot(post(FLASH)).await));
    }
    assert_eq!(asked(&upstream, "a"), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_closed_for_every_project_is_the_callers_to_know() {
    let upstream = by_key(|_, _| closed());
    let service = stack(&pool(&["a", "b"]), &upstream);
    let begun = Instant::now();
    let refused = service.clone().oneshot(post(FLASH)).await;
    assert_eq!((kind(&refused), upstream.calls()), (Some(Kind::ModelClosed), 2));
    let refused = service.oneshot(post(FLASH)).await;
    assert_eq!((kind(&refused), upstream.calls()), (Some(Kind::KeysExhausted), 2));
    assert_eq!((Outcome::of(&refused).retry_after(), begun.elapsed()), (Some(secs(3_600)), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_makes_something_goes_to_the_next_key_where_the_first_is_refused() {
    let info = |reason: &str| {
        format!(
            r#"{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"{reason}","domain":"googleapis.com"}}"#
        )
    };
    let refusals = [
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", info("API_KEY_INVALID")),
        (400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", info("API_KEY_INVALID")),
        (403, "PERMISSION_DENIED", "Permission denied: Consumer has been suspended.", info("CONSUMER_SUSPENDED")),
        (403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key.", String::new()),
        (401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", String::new()),
        (403, "PERMISSION_DENIED", "The caller does not have permission", String::new()),
    ];
    for (code, status, message, details) in refusals {
        for as_list in [false, true] {
            for uri in [VEO, BATCH, INTERACTIONS, CACHES, UPLOAD, GENERATE] {
                let details = details.clone();
                let upstream = by_key(move |key, _| {
                    if key != "a" {
                        return hello();
                    }
                    let object = format!(
                        r#"{{"error":{{"code":{code},"message":"{message}","status":"{status}","details":[{details}]}}}}"#
                    );
                    json(code, if as_list { format!("[{object}]") } else { object })
                });
                let pool = pool(&["a", "b"]);
                let service = stack(&pool, &upstream);
                for _ in 0..6 {
                    let answer = service.clone().oneshot(post_body(uri, r#"{"model":"m","input":"hi"}"#)).await;
                    assert!(ok(&answer), "{uri} {message} {:?}", Outcome::of(&answer));
                }
                assert_eq!(asked(&upstream, "b"), 6, "{uri} {message}");
            }
        }
    }
}

fn cap(message: &'static str) -> Upstream {
    by_key(move |key, _| if key == "a" { error(429, "RESOURCE_EXHAUSTED", message, "") } else { hello() })
}

#[tokio::test(start_paused = true)]
async fn a_project_without_money_is_out_for_all_models_and_for_what_is_no_models() {
    let upstream = cap("Your project has exceeded its monthly spending cap.");
    let pool = pool(&["a", "b"]);
    let service = stack(&pool, &upstream);
    // They are made in the first key's project, where that can be.
    for _ in 0..6 {
        assert!(ok(&service.clone().oneshot(post(CACHES)).await));
    }
    assert_eq!((asked(&upstream, "a"), asked(&upstream, "b")), (1, 6));
    assert!(matches!(state(&pool, "a"), KeyState::Exhausted { .. }));
    for uri in [GENERATE, FLASH, VEO, UPLOAD, INTERACTIONS] {
        for _ in 0..10 {
            assert!(ok(&service.clone().oneshot(post(uri)).await), "{uri}");
        }
    }
    assert_eq!(asked(&upstream, "a"), 1);
    // A call that only reads costs nothing.
    for _ in 0..30 {
        let _ = service.clone().oneshot(Request::get("/v1beta/models").body(Full::default()).unwrap()).await;
    }
    let before = asked(&upstream, "a");
    assert!(before > 1);
    // An hour later one call looks, and an hour after that another one.
    for nth in 1..4 {
        sleep(secs(3_600)).await;
        join_all((0..20).map(|_| service.clone().oneshot(post(GENERATE)))).await;
        assert_eq!(asked(&upstream, "a"), before + nth);
    }
    // An operator knows better.
    assert!(pool.lift(&Fingerprint::of("AIza-nobodys-a")));
    assert_eq!(state(&pool, "a"), KeyState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_spending_over_ten_minutes_comes_back_by_itself() {
    let upstream = Upstream::at_once(|nth| {
        let message = "Spend limit of your project exceeded: $10 in any 10 minutes.";
        Ok(if nth < 2 { error(429, "RESOURCE_EXHAUSTED", message, "") } else { hello() })
    });
    let pool = pool(&["a"]);
    let service = stack(&pool, &upstream);
    assert!(!ok(&service.clone().oneshot(post(GENERATE)).await));
    assert_eq!(state(&pool, "a"), KeyState::Cooling { left: secs(600) });
    for uri in [FLASH, CACHES] {
        let refused = service.clone().oneshot(post(uri)).await;
        assert_eq!((kind(&refused), upstream.calls()), (Some(Kind::KeysExhausted), 1), "{uri}");
    }
    sleep(secs(601)).await;
    assert!(!ok(&service.clone().oneshot(post(FLASH)).await));
    sleep(secs(601)).await;
    for uri in [FLASH, GENERATE, CACHES] {
        assert!(ok(&service.clone().oneshot(post(uri)).await), "{uri}");
    }
}

const GROUNDED: &str = r#"{"contents":[{"parts":[{"text":"hi"}]}],"tools":[{"google_search":{}}]}"#;

fn grounding_quota() -> Response<AnyBody> {
    let message = "You exceeded your current quota, please check your plan and billing details.";
    error(
        429,
        "RESOURCE_EXHAUSTED",
        message,
        r#"{"@type":"type.googleapis.com/google.rpc.Help","links":[{"url":"https://x.y"}]}"#,
    )
}

#[tokio::test(start_paused = true)]
async fn a_project_without_searches_left_serves_plain_calls() {
    let searches = |body: &str| body.contains("google_search");
    let upstream = by_key(move |key, body| if key == "a" && searches(body) { grounding_quota() } else { hello() });
    let pool = pool(&["a", "b"]);
    let service = stack(&pool, &upstream);
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(ok(&service.clone().oneshot(post_body(GENERATE, GROUNDED)).await));
    }
    assert_eq!(asked(&upstream, "a"), 1);
    for _ in 0..20 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    assert!(asked(&upstream, "a") > 1);
    assert_eq!(begun.elapsed(), Duration::ZERO);

    // With one key, the grounded call goes back at once, and plain calls go.
    let upstream = by_key(move |_, body| if searches(body) { grounding_quota() } else { hello() });
    let service = stack(&self::pool(&["a"]), &upstream);
    assert_eq!(kind(&service.clone().oneshot(post_body(GENERATE, GROUNDED)).await), Some(Kind::QuotaGrounding));
    for _ in 0..5 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
        assert_eq!(kind(&service.clone().oneshot(post_body(GENERATE, GROUNDED)).await), Some(Kind::KeysExhausted));
    }
    assert_eq!((upstream.calls(), begun.elapsed()), (6, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_day_that_was_a_mistake_is_over_within_a_quarter_of_a_minute() {
    let upstream = Upstream::at_once(|nth| Ok(if nth == 1 { exhausted(DAY, 250, "5s") } else { hello() }));
    let pool = pool(&["a"]);
    let service = stack(&pool, &upstream);
    assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    assert_eq!(kind(&service.clone().oneshot(post(GENERATE)).await), Some(Kind::QuotaDay));
    let begun = Instant::now();
    let refused = service.clone().oneshot(post(GENERATE)).await;
    // Nobody waits for the look: it may be refused.
    assert_eq!((kind(&refused), begun.elapsed()), (Some(Kind::KeysExhausted), Duration::ZERO));
    assert_eq!(Outcome::of(&refused).retry_after(), Some(secs(15)));
    sleep(secs(15)).await;
    for _ in 0..5 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    assert_eq!(state(&pool, "a"), KeyState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_minute_elsewhere_is_waited_for_and_a_day_here_is_not() {
    // Whichever project is asked first.
    for seed in 0..20 {
        fastrand::seed(seed);
        let first = std::sync::atomic::AtomicBool::new(true);
        let upstream = Upstream::new(move |_, asked| {
            let minute = key_of(&asked) == "b" && first.swap(false, std::sync::atomic::Ordering::Relaxed);
            let answer = match key_of(&asked) {
                "a" => exhausted(DAY, 250, "5s"),
                _ if minute => exhausted(MINUTE, 10, "90s"),
                _ => hello(),
            };
            std::future::ready(Ok(answer))
        });
        let service = stack(&pool(&["a", "b"]), &upstream);
        let begun = Instant::now();
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await), "{seed}");
        // At `b`, and not at midnight; nor does it look at `a` again, which has refused it.
        let waited = begun.elapsed();
        assert!(waited.is_zero() || (secs(90)..secs(93)).contains(&waited), "{waited:?}");
        assert!(asked(&upstream, "b") <= 2 && asked(&upstream, "a") <= 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_emulators_troubles_rest_what_they_concern() {
    let searches = post_body(GENERATE, GROUNDED);
    for (trouble, kind, request, rests) in [
        (Trouble::model_closed(), Kind::ModelClosed, post(FLASH), [true, false, false]),
        (Trouble::grounding_quota(), Kind::QuotaGrounding, searches, [false, false, false]),
        (Trouble::spend_limit(), Kind::QuotaSpend, post(FLASH), [true, true, true]),
        (Trouble::spending_cap(), Kind::QuotaSpend, post(FLASH), [true, true, true]),
        (Trouble::day_quota(), Kind::QuotaDay, post(FLASH), [true, false, false]),
    ] {
        let emulator = Emulator::builder().key("AIza-nobodys-a", "a").trouble(When::first(1), trouble).build();
        let service = ServiceBuilder::new()
            .layer(ReplayLayer::default())
            .layer(KeyPoolLayer::new(pool(&["a"])))
            .layer(ClassifyLayer::new())
            .service(emulator.clone());
        let refused = service.clone().oneshot(request).await;
        assert_eq!(Outcome::of(&refused).failure().map(Failure::kind), Some(kind));
        for (uri, rests) in [FLASH, GENERATE, CACHES].into_iter().zip(rests) {
            let before = emulator.journal().len();
            let _ = service.clone().oneshot(post(uri)).await;
            assert_eq!(emulator.journal().len() == before, rests, "{kind}: {uri}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_call_looks_while_the_others_stay_out() {
    let upstream = Upstream::new(|nth, _| async move {
        sleep(secs(1)).await;
        Ok(if nth < 2 { exhausted(MINUTE, 10, "1000000000s") } else { hello() })
    });
    let pool = pool(&["a"]);
    let service = ServiceBuilder::new().layer(KeyPoolLayer::new(pool.clone())).layer(ClassifyLayer::new());
    let service = service.service(upstream.clone());
    assert!(service.clone().oneshot(post(GENERATE)).await.is_ok());
    assert_eq!(state(&pool, "a"), KeyState::Cooling { left: secs(120) });
    for calls in [2, 3] {
        sleep(secs(120)).await;
        let results = join_all((0..9).map(|_| service.clone().oneshot(post(GENERATE)))).await;
        assert_eq!(upstream.calls(), calls);
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 8);
    }
    join_all((0..9).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    assert_eq!(upstream.calls(), 12);
}

/// Makes a call that no key can take, and returns the words of the refusal.
async fn refusal(answer: fn() -> Response<AnyBody>, pool: &KeyPool, call: fn() -> Request<Full<Bytes>>) -> String {
    let upstream = by_key(move |_, body| if body.contains("plain") { hello() } else { answer() });
    let service = stack(pool, &upstream);
    assert!(!ok(&service.clone().oneshot(call()).await));
    let refused = service.oneshot(call()).await;
    assert_eq!(kind(&refused), Some(Kind::KeysExhausted));
    Outcome::of(&refused).failure().unwrap().message().to_owned()
}

fn says(text: &str, parts: &[&str], never: &[&str]) {
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert!(!never.iter().any(|part| text.contains(part)), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_project_without_searches_is_active_and_the_refusal_names_grounded_calls() {
    let pool = pool(&["a"]);
    let text = refusal(grounding_quota, &pool, || post_body(FLASH, GROUNDED)).await;
    says(&text, &["none of 1 keys can take grounded calls of gemini-2.5-flash", "ask without search"], &[]);
    let report = pool.snapshot().remove(0);
    assert_eq!((report.state, report.spending), (KeyState::Active, None));
    let [of_flash] = &report.models[..] else { panic!("{:?}", report.models) };
    assert_eq!((of_flash.part, of_flash.reason), (Part::Grounded, Kind::QuotaGrounding));
    assert!(matches!(of_flash.state, KeyState::Exhausted { .. }) && of_flash.look <= secs(60), "{of_flash:?}");
    assert_eq!(&*of_flash.model, "gemini-2.5-flash");
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_a_closed_model_says_so_and_advises_nobody_to_wait() {
    let pool = pool(&["p1"]);
    let text = refusal(closed, &pool, || post(FLASH)).await;
    says(&text, &["closed to project p1", "ask another model"], &["wait", "exhausted", "within"]);
    let report = pool.snapshot().remove(0);
    assert_eq!((report.models[0].part, report.models[0].reason), (Part::Closed, Kind::ModelClosed));
    assert_eq!(report.models[0].look, secs(3_600));
}

#[tokio::test(start_paused = true)]
async fn a_project_that_has_spent_what_it_may_is_reported_as_a_whole() {
    fn capped() -> Response<AnyBody> {
        error(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap.", "")
    }
    let pool = pool(&["p1"]);
    let text = refusal(capped, &pool, || post(FLASH)).await;
    says(&text, &["project p1 has spent what it may, asked again in 3600s"], &["wait", "exhausted", "another model"]);
    let report = pool.snapshot().remove(0);
    let spending = report.spending.unwrap();
    assert_eq!((spending.reason, spending.look, spending.state), (Kind::QuotaSpend, secs(3_600), report.state));
    assert_eq!(report.models, []);
    pool.lift(&report.fingerprint);
    assert_eq!(pool.snapshot()[0].spending, None);

    // A limit within ten minutes comes back by itself, for no model before the others.
    fn limited() -> Response<AnyBody> {
        error(429, "RESOURCE_EXHAUSTED", "Spend limit of your project exceeded: $10 in any 10 minutes.", "")
    }
    let text = refusal(limited, &pool, || post(FLASH)).await;
    says(&text, &["within 600", "project p1 has spent what it may", "; wait, or add a key"], &["another model"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_model_beside_a_days_quota_is_worth_a_wait() {
    let upstream = by_key(|key, _| if key == "a" { closed() } else { exhausted(DAY, 250, "5s") });
    let service = stack(&pool(&["a", "b"]), &upstream);
    for _ in 0..2 {
        let _ = service.clone().oneshot(post(FLASH)).await;
    }
    let refused = service.oneshot(post(FLASH)).await;
    let text = Outcome::of(&refused).failure().unwrap().message().to_owned();
    says(&text, &["closed to project a", "of b: exhausted for another", "; wait, add a key"], &["grounded"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_to_come_again_for_a_closed_model() {
    let upstream = by_key(|_, _| closed());
    let service = ServiceBuilder::new().layer(ErrorResponseLayer::new()).service(stack(&pool(&["a"]), &upstream));
    for _ in 0..2 {
        let refused = service.clone().oneshot(post(FLASH)).await.unwrap();
        assert_eq!((refused.status(), refused.headers().get(RETRY_AFTER)), (StatusCode::NOT_FOUND, None));
    }
    assert_eq!(upstream.calls(), 1, "it is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_days_refusal_that_is_wrong_is_over_within_a_minute_in_all_layers() {
    for names in [&["a"][..], &["a", "b"]] {
        let wrong = Arc::new(AtomicBool::new(true));
        let is_wrong = wrong.clone();
        let upstream =
            by_key(
                move |key, _| {
                    if key == "a" && is_wrong.load(Ordering::Relaxed) { exhausted(DAY, 250, "5s") } else { hello() }
                },
            );
        let keys = names.iter().fold(KeyPool::builder(), |keys, name| {
            keys.key(Key::new(ApiKey::new(format!("AIza-nobodys-{name}")).unwrap()).project(*name).name(*name))
        });
        let layer = GeminiLayer::interactive().keys(keys).build().unwrap();
        let (pool, limiter) = (layer.keys().unwrap().clone(), layer.limiter().unwrap().clone());
        let service = ServiceBuilder::new().layer(layer).service(upstream.clone());
        // A call a second, none like the other.
        let ask = async |nth: u64| {
            let request = post_body(FLASH, format!(r#"{{"contents":[{{"parts":[{{"text":"{nth}"}}]}}]}}"#));
            let response = service.clone().oneshot(request).await;
            response.is_ok_and(|response| response.status() == StatusCode::OK)
        };
        let mut refused_at = None;
        let begun = Instant::now();
        let mut seen = Vec::new();
        for second in 0..180 {
            sleep(secs(second).saturating_sub(begun.elapsed())).await;
            let before = asked(&upstream, "a");
            let is_answered = ask(second).await;
            let is_asked = asked(&upstream, "a") > before;
            if refused_at.is_none() && is_asked {
                refused_at = Some(second);
                wrong.store(false, Ordering::Relaxed);
                assert!(matches!(state(&pool, "a"), KeyState::Exhausted { .. }));
                let shown = limiter.snapshot().into_iter().find(|report| report.scope.project() == "a");
                assert!(shown.unwrap().blocked_for.is_some_and(|left| left > secs(3_600)), "it is shown until when");
            } else if is_asked {
                seen.push(second);
            }
            assert!(is_answered || names.len() == 1 && refused_at.is_some_and(|at| second < at + 15), "{second}");
        }
        let refused_at = refused_at.unwrap();
        // With two projects, each call looks with a chance of one half.
        assert!(
            (refused_at + 15..refused_at + if names.len() > 1 { 30 } else { 16 }).contains(&seen[0]),
            "{refused_at}: {seen:?}"
        );
        // One success lifts it for everybody: from there on the project takes its share.
        assert!(seen.len() > 30, "{seen:?}");
        assert_eq!(state(&pool, "a"), KeyState::Active);
        assert!(limiter.snapshot().iter().all(|report| report.blocked_for.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_nobody_names_takes_a_project_out_for_longer_each_time() {
    let upstream = by_key(|_, _| support::status(429));
    let pool = pool(&["a"]);
    let service = stack(&pool, &upstream);
    let calls = (0..864).map(|nth| {
        let service = service.clone();
        async move {
            sleep(secs(nth * 100)).await;
            ok(&service.oneshot(post(FLASH)).await)
        }
    });
    assert!(join_all(calls).await.into_iter().all(|is_answered| !is_answered));
    println!("{} refusals", upstream.calls());
    assert!((10..=100).contains(&upstream.calls()), "{}", upstream.calls());
}

#[tokio::test(start_paused = true)]
async fn an_operator_lifts_one_model_of_a_project_or_the_whole_project() {
    let upstream = by_key(|_, _| exhausted(DAY, 250, "5s"));
    let pool = pool(&["a"]);
    let service =
        ServiceBuilder::new().layer(KeyPoolLayer::new(pool.clone())).layer(ClassifyLayer::new()).service(upstream);
    for uri in [FLASH, GENERATE] {
        service.clone().oneshot(post(uri)).await.unwrap();
    }
    let blocked = || pool.snapshot()[0].models.iter().map(|report| report.model.to_string()).collect::<Vec<_>>();
    assert_eq!(blocked(), ["gemini-2.5-flash", "gemini-2.5-pro"]);
    assert!(!pool.lift_model("b", "gemini-2.5-pro") && !pool.lift_project("b"));
    assert!(pool.lift_model("a", "gemini-2.5-pro"));
    assert_eq!(blocked(), ["gemini-2.5-flash"]);
    // It is asked again at once.
    assert_eq!(service.clone().oneshot(post(GENERATE)).await.unwrap().status(), 429);
    assert_eq!(blocked(), ["gemini-2.5-flash", "gemini-2.5-pro"]);
    assert!(pool.lift_project("a"));
    assert!(blocked().is_empty() && state(&pool, "a") == KeyState::Active);
}
