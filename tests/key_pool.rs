//! `KeyPoolLayer` over the emulator, on a paused clock: the choice of a key, and the failures that take one out.

mod support;

use std::{convert::Infallible, future::ready, num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Empty, Full};
use parking_lot::RwLock;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, Error, KeyPoolLayer, Outcome, RateLimitLayer, RetryLayer,
    call::Surface,
    context::{Claimant, Headroom, RetryAdvice, Tried},
    emulator::{Emulator, EmulatorBuilder, Trouble, Visit, When},
    failure::{Failure, Fault, Kind},
    key_pool::{ApiKey, Credential, DisabledReason, Fingerprint, Key, KeyPool, KeyPoolBuilder, KeyReport, KeyState},
    quota::{Limits, Scope, until_pacific_midnight},
    rate_limit::Limiter,
};

use crate::support::{
    AnyBody, Asked, CHAT, GENERATE, INTERACTIONS, STREAM, Upstream, find, full, hello, json, judged, post, post_body,
    read, secs, settle, sse,
};

const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const COUNT: &str = "/v1beta/models/gemini-2.5-pro:countTokens";

/// The secret of the key of that name.
fn secret(name: &str) -> String {
    format!("AIza-nobodys-{name}")
}

fn fingerprint(name: &str) -> Fingerprint {
    Fingerprint::of(secret(name))
}

fn key(name: &str, project: &str) -> Key {
    Key::new(ApiKey::new(secret(name)).unwrap()).project(project).name(name)
}

/// Keys as name and project.
fn builder(keys: &[(&str, &str)]) -> KeyPoolBuilder {
    keys.iter()
        .fold(KeyPool::builder().cache_affinity(None), |builder, (name, project)| builder.key(key(name, project)))
}

fn pool(keys: &[(&str, &str)]) -> KeyPool {
    builder(keys).build().unwrap()
}

/// An upstream that knows these keys.
fn upstream(keys: &[(&str, &str)]) -> EmulatorBuilder {
    keys.iter().fold(Emulator::builder(), |builder, (name, project)| builder.key(&secret(name), project))
}

type Answer = Result<Response<AnyBody>, BoxError>;

/// The paved path around a pool: retry outside, limiter and classify inside.
fn stack<S, R>(
    pool: &KeyPool,
    limiter: &Limiter,
    upstream: S,
) -> impl Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError, Future: Send> + Clone + Send + 'static
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    R: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    R::Error: Into<BoxError>,
{
    ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(support::any))
        .layer(RetryLayer::default())
        .layer(KeyPoolLayer::new(pool.clone()))
        .layer(RateLimitLayer::new(limiter.clone()))
        .layer(ClassifyLayer::new())
        .service(upstream)
}

/// The pool alone, over classify.
fn alone<S, R>(
    pool: &KeyPool,
    upstream: S,
) -> impl Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError, Future: Send> + Clone + Send + 'static
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    R: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    R::Error: Into<BoxError>,
{
    ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(support::any))
        .layer(KeyPoolLayer::new(pool.clone()))
        .layer(ClassifyLayer::new())
        .service(upstream)
}

fn with(mut request: Request<Full<Bytes>>, change: impl FnOnce(&mut CallContext)) -> Request<Full<Bytes>> {
    CallContext::update(request.extensions_mut(), change);
    request
}

fn report(pool: &KeyPool, name: &str) -> KeyReport {
    pool.snapshot().into_iter().find(|report| report.name.as_deref() == Some(name)).expect("a key of that name")
}

fn is_disabled(pool: &KeyPool, name: &str) -> bool {
    matches!(report(pool, name).state, KeyState::Disabled { .. })
}

/// Counts the calls that were made with a key.
fn asked(emulator: &Emulator, name: &str) -> usize {
    let shown = Emulator::fingerprint(&secret(name));
    emulator.count(|visit: &Visit| visit.key.as_deref() == Some(&*shown))
}

/// The keys that an upstream was asked with, in order.
fn keys_of(upstream: &Upstream) -> Vec<String> {
    upstream.asked().iter().map(key_of).collect()
}

fn key_of(asked: &Asked) -> String {
    let header = asked.headers.get("x-goog-api-key").or(asked.headers.get(AUTHORIZATION)).expect("a credential");
    header.to_str().unwrap().trim_start_matches("Bearer ").trim_start_matches("AIza-nobodys-").to_owned()
}

fn ok(result: &Answer) -> bool {
    result.as_ref().is_ok_and(|response| response.status() == StatusCode::OK)
}

fn kind(result: &Answer) -> Option<Kind> {
    Outcome::of(result).failure().map(Failure::kind)
}

fn error(status: u16, name: &str, message: &str) -> Response<AnyBody> {
    json(status, format!(r#"{{"error":{{"code":{status},"message":"{message}","status":"{name}"}}}}"#))
}

/// Calls one after the other until each of these keys has answered once.
async fn warm_up<S>(service: &S, pool: &KeyPool, names: &[&str])
where
    S: Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError> + Clone,
{
    for _ in 0..1_000 {
        if names.iter().all(|name| report(pool, name).proven) {
            return;
        }
        assert!(ok(&service.clone().oneshot(post(FLASH)).await));
    }
    panic!("not all keys were used");
}

// === signing ===

#[tokio::test(start_paused = true)]
async fn each_surface_gets_its_one_header_and_nothing_of_the_callers() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = alone(&pool(&[("a", "p1")]), upstream.clone());
    let vertex = "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent";
    for (uri, name, value) in [
        (GENERATE, "x-goog-api-key", secret("a")),
        (CHAT, "authorization", format!("Bearer {}", secret("a"))),
        (vertex, "x-goog-api-key", secret("a")),
        (INTERACTIONS, "x-goog-api-key", secret("a")),
    ] {
        let mut request =
            post(&format!("{uri}?x=1&key=callers&%6Bey=callers&%24key=callers&alt=sse&access_token=callers"));
        for header in ["x-goog-api-key", "authorization", "cookie", "x-api-key"] {
            request.headers_mut().append(header, HeaderValue::from_static("callers"));
            request.headers_mut().append(header, HeaderValue::from_static("callers-other"));
        }
        service.clone().oneshot(request).await.unwrap();
        let asked = upstream.asked().pop().unwrap();
        assert_eq!(asked.uri.query(), Some("x=1&alt=sse"), "{uri}");
        let mut credentials: Vec<_> = asked.headers.iter().filter(|(_, value)| value.is_sensitive()).collect();
        let (header, sent) = credentials.pop().unwrap();
        assert_eq!((header.as_str(), sent), (name, &HeaderValue::from_str(&value).unwrap()), "{uri}");
        assert!(credentials.is_empty(), "{uri}: {credentials:?}");
        assert!(asked.headers.values().all(|value| !value.as_bytes().starts_with(b"callers")), "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disabled_layer_leaves_the_callers_key_alone() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = KeyPoolLayer::disabled().layer(upstream.clone());
    let mut request = post(&format!("{GENERATE}?key=mine"));
    request.headers_mut().insert("x-goog-api-key", HeaderValue::from_static("mine"));
    service.oneshot(request).await.unwrap();
    let asked = &upstream.asked()[0];
    assert_eq!(
        (asked.uri.query(), &asked.headers["x-goog-api-key"]),
        (Some("key=mine"), &HeaderValue::from_static("mine"))
    );
    assert!(asked.context.is_none());
}

#[derive(Debug, Default)]
struct Token(RwLock<Option<HeaderValue>>);

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Token>);

impl Credential for Shared {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of("robot")
    }

    fn header(&self, _: Surface) -> Option<(HeaderName, HeaderValue)> {
        Some((AUTHORIZATION, self.0.0.read().clone()?))
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_without_a_token_is_passed_over_until_it_has_one() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let source = Shared::default();
    let token = || Key::from_credential(source.clone()).project("p1").name("robot");
    let service = alone(&KeyPool::builder().key(token()).build().unwrap(), upstream.clone());
    let refused = service.clone().oneshot(post(GENERATE)).await;
    assert_eq!(kind(&refused), Some(Kind::KeysExhausted));
    assert_eq!(Outcome::of(&refused).retry_after(), Some(secs(1)));

    let both = alone(&KeyPool::builder().key(token()).key(key("a", "p2")).build().unwrap(), upstream.clone());
    for _ in 0..20 {
        assert!(ok(&both.clone().oneshot(post(GENERATE)).await));
    }
    assert_eq!(keys_of(&upstream), vec!["a"; 20]);
    *source.0.0.write() = Some(HeaderValue::from_static("Bearer ya29.x"));
    assert!(ok(&service.oneshot(post(GENERATE)).await));
    assert_eq!(keys_of(&upstream).pop().unwrap(), "ya29.x");
}

// === choosing ===

#[tokio::test(start_paused = true)]
async fn load_is_spread_over_projects_and_keys_by_weight() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let weight = |weight| NonZeroU32::new(weight).unwrap();
    let pool = KeyPool::builder()
        .cache_affinity(None)
        .key(key("a", "p1").weight(weight(3)))
        .key(key("b", "p1"))
        .key(key("c", "p2").weight(weight(2)))
        .key(key("d", "p3").weight(weight(2)))
        .build()
        .unwrap();
    let service = alone(&pool, upstream.clone());
    for _ in 0..4_000 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    let keys = keys_of(&upstream);
    let uses = |name: &str| keys.iter().filter(|key| *key == name).count();
    for (name, expected) in [("a", 1_500), ("b", 500), ("c", 1_000), ("d", 1_000)] {
        let uses = uses(name);
        assert!(uses.abs_diff(expected) < 160, "{name}: {uses} of {expected}");
        assert_eq!(report(&pool, name).uses as usize, uses);
    }
    assert!((uses("a") as i64 - 3 * uses("b") as i64).abs() <= 4, "keys of one project take turns exactly");
}

#[tokio::test(start_paused = true)]
async fn calls_go_where_they_wait_least() {
    let keys = [("a", "p1"), ("b", "p2"), ("c", "p3")];
    let limits = Limits::new().requests_per_minute(4);
    let limiter = Limiter::builder().limits(limits).max_wait(secs(600)).build();
    let emulator = upstream(&keys).limits(limits).build();
    let pool = builder(&keys).headroom(limiter.clone()).build().unwrap();
    let service = stack(&pool, &limiter, emulator.clone());
    let begun = Instant::now();
    // All at once: twelve find room, twelve wait for a minute, none is refused, and none waits for two.
    let answers = join_all((0..24).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    assert!(answers.iter().all(ok));
    assert!((secs(60)..secs(62)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(emulator.count(|visit| visit.status == Some(StatusCode::TOO_MANY_REQUESTS)), 0);
    for (name, _) in keys {
        assert_eq!(asked(&emulator, name), 8);
    }
}

#[tokio::test(start_paused = true)]
async fn the_words_go_in() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = alone(&pool(&[("a", "p1"), ("b", "p2")]), upstream.clone());
    let response = service.clone().oneshot(post(GENERATE)).await.unwrap();
    let context = upstream.asked().pop().unwrap().context.unwrap();
    let project = &**context.project().unwrap();
    assert!(["p1", "p2"].contains(&project) && context.may_move());
    let outcome = support::outcome(&response);
    assert_eq!(outcome.project(), Some(project));
    let name = if project == "p1" { "a" } else { "b" };
    assert_eq!(outcome.key(), Some(&*fingerprint(name).to_string()));

    let tried = [Tried::Project("p1".into())];
    service.clone().oneshot(with(post(GENERATE), |context| context.set_tried(tried.clone()))).await.unwrap();
    let context = upstream.asked().pop().unwrap().context.unwrap();
    assert_eq!((&**context.project().unwrap(), context.may_move()), ("p2", false));

    let tried = [Tried::Key(fingerprint("a").to_string().into()), Tried::Key(fingerprint("b").to_string().into())];
    let refused = service.oneshot(with(post(GENERATE), |context| context.set_tried(tried))).await;
    assert_eq!(kind(&refused), Some(Kind::KeysDisabled), "a key is never tried again in one call");
}

// === quota ===

#[tokio::test(start_paused = true)]
async fn a_minutes_quota_is_answered_from_another_project_without_a_wait() {
    let keys = [("a", "p1"), ("b", "p1"), ("c", "p2")];
    let pool = pool(&keys);
    let emulator = upstream(&keys).trouble(When::first(1).project("p1"), Trouble::minute_quota(secs(30))).build();
    let service = stack(&pool, &Limiter::new(), emulator.clone());
    let begun = Instant::now();
    for _ in 0..40 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(asked(&emulator, "a") + asked(&emulator, "b"), 1, "the sibling has the same quota");
    let KeyState::Cooling { left } = report(&pool, "a").state else { panic!("{:?}", report(&pool, "a")) };
    assert!((secs(29)..=secs(31)).contains(&left), "{left:?}");
    assert_eq!(report(&pool, "b").state, KeyState::Cooling { left });
    assert_eq!(report(&pool, "c").state, KeyState::Active);

    // Another model of that project is served meanwhile, and this one again afterwards.
    for _ in 0..20 {
        assert!(ok(&service.clone().oneshot(post(FLASH)).await));
    }
    assert!(asked(&emulator, "a") + asked(&emulator, "b") > 1);
    sleep(secs(32)).await;
    let before = asked(&emulator, "a");
    for _ in 0..20 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    assert!(asked(&emulator, "a") > before);
    assert_eq!(report(&pool, "a").models, []);
}

#[tokio::test(start_paused = true)]
async fn a_days_quota_is_asked_for_by_a_look_now_and_then_and_a_quota_of_none_is_not() {
    // The looks are due after 15 and 45 s.
    for (trouble, times) in [
        (Trouble::day_quota().hint(Duration::ZERO), 2..=3),
        (Trouble::day_quota(), 2..=3),
        (Trouble::zero_quota(), 1..=1),
    ] {
        let keys = [("a", "p1"), ("b", "p2")];
        let pool = pool(&keys);
        let emulator = upstream(&keys).trouble(When::always().project("p1").model("gemini-2.5-pro"), trouble).build();
        let service = stack(&pool, &Limiter::new(), emulator.clone());
        for _ in 0..50 {
            assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
            sleep(secs(1)).await;
        }
        assert!(times.contains(&asked(&emulator, "a")), "{times:?}: {}", asked(&emulator, "a"));
        let KeyState::Exhausted { left } = report(&pool, "a").state else { panic!("{:?}", report(&pool, "a")) };
        assert!(left <= secs(25 * 3_600), "{left:?}");
        for _ in 0..30 {
            assert!(ok(&service.clone().oneshot(post(FLASH)).await));
        }
        assert!(asked(&emulator, "a") > *times.end(), "its other models are served");
        assert_eq!(report(&pool, "a").models.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_says_nothing_cools_for_longer_each_time() {
    let upstream =
        Upstream::at_once(|_| Ok(error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")));
    let pool = pool(&[("a", "p1")]);
    let service = alone(&pool, upstream.clone());
    for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 1_200, 1_200] {
        // Calls that are refused together are one event.
        join_all((0..3).map(|_| service.clone().oneshot(post(GENERATE)))).await;
        let refused = service.clone().oneshot(post(GENERATE)).await;
        assert_eq!(kind(&refused), Some(Kind::KeysExhausted));
        assert_eq!(Outcome::of(&refused).retry_after(), Some(secs(expected)));
        assert!(!Outcome::of(&refused).was_sent());
        sleep(secs(expected)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_pays_no_quota_neither_blocks_nor_is_blocked() {
    let upstream = Upstream::new(|_, asked| async move {
        let counts = asked.uri.path().ends_with(":countTokens") && key_of(&asked) == "a";
        Ok(if counts || key_of(&asked) == "a" { error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.") } else { hello() })
    });
    let pool = pool(&[("a", "p1"), ("b", "p2")]);
    let service = stack(&pool, &Limiter::new(), upstream.clone());
    for _ in 0..20 {
        assert!(ok(&service.clone().oneshot(post(COUNT)).await));
    }
    assert!(report(&pool, "a").models.is_empty());
    for _ in 0..20 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    assert_eq!(report(&pool, "a").models.len(), 1);
    let before = keys_of(&upstream).iter().filter(|key| *key == "a").count();
    for _ in 0..20 {
        assert!(ok(&service.clone().oneshot(post(COUNT)).await));
    }
    assert!(keys_of(&upstream).iter().filter(|key| *key == "a").count() > before);
}

#[tokio::test(start_paused = true)]
async fn the_soonest_project_is_waited_for_when_all_are_out() {
    let keys = [("a", "p1"), ("b", "p2")];
    let emulator = upstream(&keys)
        .trouble(When::first(1).project("p1"), Trouble::minute_quota(secs(50)))
        .trouble(When::first(1).project("p2"), Trouble::minute_quota(secs(10)))
        .build();
    let service = stack(&pool(&keys), &Limiter::new(), emulator.clone());
    let begun = Instant::now();
    assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    // Whichever project was asked first: 10 s and a little, not 50.
    assert!((secs(10)..secs(13)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(ok(&service.oneshot(post(GENERATE)).await));
    assert_eq!(emulator.journal().len(), 4);
}

/// The wait of calls in each project.
#[derive(Debug)]
struct Waits([u64; 2]);

impl Headroom for Waits {
    fn headroom(&self, scope: &Scope, _: u32, _: u64, _: Claimant<'_>) -> Duration {
        secs(self.0[usize::from(scope.project() == "p2")])
    }
}

/// Returns the outcome of a failure in p1 when a call would wait for `wait` seconds in p2.
async fn said(
    wait: u64,
    tried: &[Tried],
    failed: impl Fn() -> support::Answer + Send + Sync + Copy + 'static,
) -> Outcome {
    loop {
        let pool = builder(&[("a", "p1"), ("b", "p2")]).headroom(Waits([0, wait])).build().unwrap();
        let service = KeyPoolLayer::new(pool).layer(Upstream::at_once(move |_| failed()));
        let request = with(post(GENERATE), |context| context.set_tried(tried));
        let outcome = Outcome::of(&service.oneshot(request).await);
        if outcome.project() == Some("p1") {
            return outcome;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_moves_where_it_waits_less_than_here() {
    let p1 = Some(Tried::Project("p1".into()));
    let quota = || Err(Error::refusal("test", Failure::local(Kind::QuotaMinute, "").with_hint(secs(30))).into());
    let limited =
        || Err(Error::refusal("rate_limit", Failure::local(Kind::RateLimited, "").with_hint(secs(30))).into());
    for (wait, expected) in [(0, Some(RetryAdvice::Now)), (20, Some(RetryAdvice::Queued)), (40, None)] {
        let outcome = said(wait, &[], quota).await;
        assert_eq!((outcome.retry(), outcome.tried()), (expected, p1.as_ref()), "{wait}");
        // A refusal of the limiter that is left as it is would come back here at once.
        let expected = expected.unwrap_or(RetryAdvice::After(secs(30)));
        let tried = p1.as_ref().filter(|_| wait < 30);
        let outcome = said(wait, &[], limited).await;
        assert_eq!((outcome.retry(), outcome.tried()), (Some(expected), tried), "{wait}");
        assert!(!outcome.was_sent());
    }
    // No other project is left: not before there is room again, in the project where that comes first.
    let p2 = [Tried::Project("p2".into())];
    assert_eq!(said(20, &p2, quota).await.retry(), None);
    assert_eq!(said(20, &p2, limited).await.retry(), Some(RetryAdvice::After(secs(20))));
    assert_eq!(said(40, &p2, limited).await.retry(), Some(RetryAdvice::After(secs(30))));
}

#[tokio::test(start_paused = true)]
async fn who_is_back_first_is_known() {
    let upstream = Upstream::new(|_, asked| async move {
        let hint = if key_of(&asked) == "a" { 10 } else { 50 };
        Ok(judged(json(429, "{}"), Failure::local(Kind::QuotaMinute, "slow down").with_hint(secs(hint))))
    });
    let project = |name: &str| [Tried::Project(name.into())];
    let service = KeyPoolLayer::new(pool(&[("a", "p1"), ("b", "p2")])).layer(upstream);
    let mut retries = Vec::new();
    for tried in ["p2", "p1"] {
        let request = with(post(GENERATE), |context| context.set_tried(project(tried)));
        retries.push(Outcome::of(&service.clone().oneshot(request).await).retry());
    }
    assert_eq!(retries, [None, Some(RetryAdvice::After(secs(10)))]);
}

#[tokio::test(start_paused = true)]
async fn a_day_lasts_until_midnight_pacific_or_as_long_as_is_said_and_no_longer_than_a_day() {
    for (hint, expected) in [(None, None), (Some(7_200), Some(7_200)), (Some(604_800), Some(25 * 3_600))] {
        let upstream = Upstream::at_once(move |_| {
            let failure = Failure::local(Kind::QuotaDay, "come tomorrow");
            Ok(judged(json(429, "{}"), hint.map_or(failure.clone(), |hint| failure.with_hint(secs(hint)))))
        });
        let midnight = until_pacific_midnight(tower_gemini::clock::wall());
        let pool = pool(&[("a", "p1")]);
        let _ = KeyPoolLayer::new(pool.clone()).layer(upstream).oneshot(post(GENERATE)).await;
        let KeyState::Exhausted { left } = report(&pool, "a").state else { panic!("{:?}", report(&pool, "a")) };
        // Wall time goes on while the test runs, and the day may end at this moment.
        let expected = expected.map_or(midnight, secs);
        assert!(left.abs_diff(expected) < secs(5) || midnight < secs(5), "{left:?}, {expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_the_limiter_refuses_moves_and_never_spins() {
    let keys = [("a", "p1"), ("b", "p2")];
    let limits = Limits::new().requests_per_minute(2);
    let limiter = Limiter::builder().limits(limits).reject().build();
    let emulator = upstream(&keys).limits(limits).build();
    // A pool that does not know the limiter chooses at random, and is refused.
    let service = stack(&pool(&keys), &limiter, emulator.clone());
    let begun = Instant::now();
    for _ in 0..4 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // No call waits outside of a limiter that lets none wait.
    let refused = service.clone().oneshot(post(GENERATE)).await.map(drop).unwrap_err();
    assert!(find(&refused).is_rate_limited() && find(&refused).retry_after().unwrap() >= secs(60));
    assert_eq!((begun.elapsed(), emulator.journal().len()), (Duration::ZERO, 4));

    // The pool's own advice, seen from outside: at once elsewhere, and after that not before there is room.
    let both = builder(&keys).headroom(limiter.clone()).build().unwrap();
    let inner = RateLimitLayer::new(limiter).layer(emulator);
    let service = KeyPoolLayer::new(both).layer(inner);
    sleep(secs(120)).await;
    for _ in 0..4 {
        assert!(service.clone().oneshot(post(GENERATE)).await.is_ok());
    }
    let refused = service.oneshot(post(GENERATE)).await.map(|_| ()).unwrap_err();
    let Some(RetryAdvice::After(wait)) = find(&refused).outcome().retry() else { panic!("{refused:?}") };
    assert!((secs(59)..secs(62)).contains(&wait), "{wait:?}");
}

// === keys ===

#[tokio::test(start_paused = true)]
async fn a_bad_key_is_used_three_times_in_all() {
    let good = [("a", "p1"), ("b", "p2")];
    let all = [("a", "p1"), ("bad", "p1"), ("b", "p2"), ("worse", "p3")];
    // One after the other, from a cold start.
    let (emulator, keys) = (upstream(&good).build(), pool(&all));
    let service = stack(&keys, &Limiter::new(), emulator.clone());
    for _ in 0..100 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    for name in ["bad", "worse"] {
        assert_eq!(asked(&emulator, name), 3, "{name}");
        let KeyState::Disabled { reason, .. } = report(&keys, name).state else { panic!("{:?}", report(&keys, name)) };
        assert_eq!(reason, DisabledReason::Refused(Kind::AuthKeyInvalid));
    }

    // Twenty at once, each of them slow, once the good ones have answered.
    let emulator = upstream(&good)
        .before_headers(secs(1))
        .trouble(When::always().path("/").key(&secret("bad")), Trouble::invalid_key().delayed(secs(1)))
        .build();
    let keys = pool(&good);
    let service = stack(&keys, &Limiter::new(), emulator.clone());
    warm_up(&service, &keys, &["a", "b"]).await;
    keys.add(key("bad", "p1")).unwrap();
    for _ in 0..10 {
        let answers = join_all((0..20).map(|_| service.clone().oneshot(post(GENERATE)))).await;
        assert!(answers.iter().all(ok));
    }
    assert_eq!(asked(&emulator, "bad"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_good_key_that_is_refused_once_heals() {
    let keys = [("a", "p1"), ("b", "p2")];
    let pool = pool(&keys);
    let emulator = upstream(&keys).trouble(When::every(7).key(&secret("a")), Trouble::invalid_key()).build();
    let service = stack(&pool, &Limiter::new(), emulator.clone());
    for _ in 0..200 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    assert!(asked(&emulator, "a") > 60);
    assert!(!is_disabled(&pool, "a") && report(&pool, "a").proven);
}

#[tokio::test(start_paused = true)]
async fn what_google_has_taken_out_is_out_at_once() {
    for (trouble, expected) in [
        (Trouble::leaked_key(), Kind::KeyLeaked),
        (Trouble::suspended_key(), Kind::KeySuspended),
        (Trouble::service_disabled(), Kind::ServiceDisabled),
    ] {
        let keys = [("a", "p1"), ("a2", "p1"), ("b", "p2")];
        let pool = pool(&keys);
        let emulator = upstream(&keys).trouble(When::always().key(&secret("a")), trouble).build();
        let service = stack(&pool, &Limiter::new(), emulator.clone());
        for _ in 0..30 {
            assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
        }
        assert_eq!(asked(&emulator, "a"), 1);
        let KeyState::Disabled { reason, .. } = report(&pool, "a").state else { panic!("{:?}", report(&pool, "a")) };
        assert_eq!(reason, DisabledReason::Refused(expected));
        assert!(asked(&emulator, "a2") > 0 && !is_disabled(&pool, "a2"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_tried_or_else_its_whole_project() {
    for (kind, whole) in [
        (Kind::AuthKeyInvalid, false),
        (Kind::PermissionDenied, false),
        (Kind::KeyLeaked, false),
        (Kind::KeyRestricted, false),
        (Kind::KeySuspended, true),
        (Kind::AccountBanned, true),
        (Kind::AccountLimited, true),
        (Kind::ConsumerInvalid, true),
        (Kind::ServiceDisabled, true),
        (Kind::BillingRequired, true),
    ] {
        let upstream = Upstream::at_once(move |_| Ok(judged(json(403, "{}"), Failure::local(kind, ""))));
        let service = KeyPoolLayer::new(pool(&[("a", "p1")])).layer(upstream);
        let outcome = Outcome::of(&service.oneshot(post(GENERATE)).await);
        let key = Tried::Key(fingerprint("a").to_string().into());
        let expected = if whole { Tried::Project("p1".into()) } else { key };
        assert_eq!(outcome.tried(), Some(&expected), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_one_call_at_a_time_tries_a_key() {
    let (feed, gate) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    drop(feed);
    let held = gate.clone();
    let upstream = Upstream::new(move |nth, _| {
        let held = held.clone();
        async move {
            if nth == 0 {
                return Ok(json(
                    400,
                    r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#,
                ));
            }
            let _permit = held.acquire().await;
            Ok(hello())
        }
    });
    let pool = pool(&[("a", "p1")]);
    let service = alone(&pool, upstream.clone());
    let refused = service.clone().oneshot(post(GENERATE)).await;
    assert_eq!(kind(&refused), Some(Kind::AuthKeyInvalid));
    let outcome = Outcome::of(&refused);
    assert_eq!(outcome.tried(), Some(&Tried::Key(fingerprint("a").to_string().into())));
    assert_eq!((outcome.retry(), outcome.key()), (None, Some(&*fingerprint("a").to_string())));
    assert_eq!(report(&pool, "a").strikes, 1);

    let mut first = tokio_test::task::spawn(service.clone().oneshot(post(GENERATE)));
    assert!(first.poll().is_pending());
    let second = service.clone().oneshot(post(GENERATE)).await;
    assert_eq!(kind(&second), Some(Kind::KeysExhausted));
    assert_eq!(Outcome::of(&second).retry_after(), Some(secs(1)));
    // A call that gives up gives the trial back.
    drop(first);
    gate.add_permits(1);
    assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    assert_eq!((report(&pool, "a").strikes, report(&pool, "a").proven), (0, true));
    let mut many = [(); 3].map(|()| tokio_test::task::spawn(service.clone().oneshot(post(GENERATE))));
    gate.forget_permits(1);
    assert!(many.iter_mut().all(|call| call.poll().is_pending()), "it is shared again");
    assert_eq!(upstream.in_flight(), 3);
}

#[tokio::test(start_paused = true)]
async fn others_faults_mark_nothing() {
    for (status, name, sent) in
        [(400, "INVALID_ARGUMENT", 1), (404, "NOT_FOUND", 1), (503, "UNAVAILABLE", 8), (500, "INTERNAL", 4)]
    {
        let upstream = Upstream::at_once(move |_| Ok(error(status, name, "Something is wrong.")));
        let pool = pool(&[("a", "p1"), ("b", "p2")]);
        let service = stack(&pool, &Limiter::new(), upstream.clone());
        let answer = service.oneshot(post(GENERATE)).await.unwrap();
        assert_eq!((answer.status().as_u16(), upstream.calls()), (status, sent));
        assert_eq!(support::outcome(&answer).tried(), None);
        for report in pool.snapshot() {
            assert_eq!((report.state, report.strikes, report.models.len()), (KeyState::Active, 0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_a_key_out_by_asking_for_what_is_not_his() {
    let denied = || Ok(error(403, "PERMISSION_DENIED", "The caller does not have permission"));
    let upstream = Upstream::at_once(move |_| denied());
    let pool = pool(&[("a", "p1"), ("b", "p2")]);
    let service = alone(&pool, upstream.clone());
    let cached = r#"{"contents":[],"cachedContent":"cachedContents/not-mine"}"#;
    let get = |uri: &str| Request::get(uri).body(Full::default()).unwrap();
    for _ in 0..5 {
        for request in [
            post_body(GENERATE, cached),
            get("/v1beta/files/not-mine"),
            post("/v1beta/tunedModels/not-mine:generateContent"),
            post("/v1beta/models/gemini-2.5-pro:batchGenerateContent"),
        ] {
            let refused = service.clone().oneshot(request).await;
            assert_eq!(Outcome::of(&refused).failure().map(Failure::code), Some(StatusCode::FORBIDDEN));
        }
    }
    assert!(pool.snapshot().iter().all(|report| report.strikes == 0 && report.state == KeyState::Active));

    // A model for paying projects only is not a reason either: the project is not asked for that model again.
    let upstream = Upstream::at_once(|nth| {
        if nth > 0 {
            Ok(hello())
        } else {
            Ok(error(400, "INVALID_ARGUMENT", "Imagen API is only accessible to billed users at this time."))
        }
    });
    let pool = self::pool(&[("a", "p1")]);
    let service = alone(&pool, upstream.clone());
    let refused = service.clone().oneshot(post("/v1beta/models/imagen-4:predict")).await;
    assert_eq!(kind(&refused), Some(Kind::BillingRequired));
    assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    assert_eq!(kind(&service.oneshot(post("/v1beta/models/imagen-4:predict")).await), Some(Kind::KeysExhausted));
}

#[tokio::test(start_paused = true)]
async fn nothing_left_says_how_each_key_stands() {
    let upstream = Upstream::new(|_, asked| async move {
        Ok(match &*key_of(&asked) {
            "a" => judged(json(403, "{}"), Failure::local(Kind::KeyLeaked, "leaked")),
            // The first is back in 20 s, each other one a second later.
            key => {
                let nth: u64 = key[1..].parse().unwrap();
                judged(json(429, "{}"), Failure::local(Kind::QuotaMinute, "slow down").with_hint(secs(20 + nth)))
            }
        })
    });
    let keys: Vec<(String, String)> = (0..12).map(|nth| (format!("k{nth}"), format!("p{nth}"))).collect();
    let pool =
        keys.iter().fold(builder(&[("a", "p")]), |pool, (name, project)| pool.key(key(name, project))).build().unwrap();
    let service = stack(&pool, &Limiter::new(), upstream.clone());
    while !pool.snapshot().iter().all(|report| report.state != KeyState::Active) {
        let service = KeyPoolLayer::new(pool.clone()).layer(upstream.clone());
        let _ = service.oneshot(post(GENERATE)).await;
    }
    let refused =
        KeyPoolLayer::new(pool.clone()).layer(upstream.clone()).oneshot(post(GENERATE)).await.map(|_| ()).unwrap_err();
    let error = find(&refused);
    assert_eq!(
        (error.layer(), error.failure().kind(), error.retry_after()),
        ("key_pool", Kind::KeysExhausted, Some(secs(20)))
    );
    let text = error.to_string();
    assert!(text.contains(&format!("a {} of p: disabled for 0 s: key_leaked", fingerprint("a"))), "{text}");
    assert!(text.contains("k0 ") && text.contains("of p0: cooling for another 20 s"), "{text}");
    assert!(text.contains("and 5 more") && !text.contains("AIza"), "{text}");

    keys.iter().for_each(|(name, _)| assert!(pool.disable(&fingerprint(name))));
    let refused = service.oneshot(post(GENERATE)).await.map(|_| ()).unwrap_err();
    let error = find(&refused);
    assert_eq!((error.failure().kind(), error.failure().code()), (Kind::KeysDisabled, StatusCode::SERVICE_UNAVAILABLE));
    assert!(error.never_sent() && error.to_string().contains("by hand"), "{error}");
    let shown = format!("{pool:?} {:?} {error:?}", pool.snapshot());
    assert!(!shown.contains("AIza"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn keys_come_and_go_while_calls_run() {
    let all = [("a", "p1"), ("b", "p2"), ("c", "p3")];
    let pool = pool(&all[..1]);
    let emulator = upstream(&all).before_headers(secs(2)).build();
    let service = stack(&pool, &Limiter::new(), emulator.clone());
    let spawn = || tokio::spawn(service.clone().oneshot(post(GENERATE)));
    let wave = |count| (0..count).map(|_| spawn()).collect::<Vec<_>>();
    let first = wave(10);
    settle().await;
    pool.add(key("b", "p2")).unwrap();
    assert!(pool.add(key("b", "p9")).is_err());
    assert!(pool.remove(&fingerprint("a")) && !pool.remove(&fingerprint("a")));
    let second = wave(10);
    settle().await;
    assert!(pool.disable(&fingerprint("b")) && !pool.disable(&fingerprint("c")));
    assert_eq!(kind(&service.clone().oneshot(post(GENERATE)).await), Some(Kind::KeysDisabled));
    pool.add(key("c", "p3")).unwrap();
    let third = wave(10);
    settle().await;
    assert!(pool.enable(&fingerprint("b")));
    for call in first.into_iter().chain(second).chain(third) {
        assert!(ok(&call.await.unwrap()));
    }
    assert_eq!(["a", "b", "c"].map(|name| asked(&emulator, name)), [10; 3]);
    assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    assert!(pool.remove(&fingerprint("b")) && pool.remove(&fingerprint("c")));
    assert_eq!(kind(&service.oneshot(post(GENERATE)).await), Some(Kind::KeysDisabled), "an empty pool refuses");
}

#[test]
fn what_cannot_work_is_not_built() {
    for (builder, expected) in [
        (KeyPool::builder(), "without a key"),
        (builder(&[("a", "p1"), ("a", "p2")]), "is in the pool already"),
        (builder(&[("a", "p1")]).default_project("p2"), "no key is of the default project p2"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("AIza"), "{error}");
    }
}

// === affinity ===

/// Makes files, caches and interactions, and refuses what another project has made.
fn storing() -> Upstream {
    let made = Arc::new(parking_lot::Mutex::new(std::collections::HashMap::<String, String>::new()));
    Upstream::new(move |nth, asked| {
        let made = made.clone();
        async move {
            let (key, path) = (key_of(&asked), asked.uri.path().to_owned());
            let text =
                format!("{path}?{} {}", asked.uri.query().unwrap_or_default(), String::from_utf8_lossy(&asked.body));
            let mut made = made.lock();
            if let Some((_, owner)) = made.iter().find(|(name, _)| text.contains(&**name))
                && *owner != key
            {
                return Ok(error(
                    403,
                    "PERMISSION_DENIED",
                    "You do not have permission to access the File or it may not exist.",
                ));
            }
            let post = asked.method == http::Method::POST;
            let mut make = |name: String| made.insert(name, key.clone());
            Ok(match &*path {
                "/upload/v1beta/files" if asked.uri.query() == Some("uploadType=resumable") => {
                    make(format!("upload_id=u{nth}z"));
                    let address =
                        format!("https://host/upload/v1beta/files?upload_id=u{nth}z&upload_protocol=resumable");
                    let mut response = json(200, "");
                    response.headers_mut().insert("x-goog-upload-url", address.parse().unwrap());
                    response
                }
                "/upload/v1beta/files" => {
                    make(format!("files/f{nth}z"));
                    json(200, format!(r#"{{"file": {{"name": "files/f{nth}z"}}}}"#))
                }
                "/v1beta/cachedContents" if post => {
                    make(format!("cachedContents/c{nth}z"));
                    json(200, format!(r#"{{"name": "cachedContents/c{nth}z"}}"#))
                }
                "/v1beta/models/veo-3:predictLongRunning" => {
                    make(format!("operations/o{nth}z"));
                    make(format!("files/v{nth}z"));
                    json(200, format!(r#"{{"name": "models/veo-3/operations/o{nth}z"}}"#))
                }
                INTERACTIONS if text.contains("stream") => {
                    make(format!("v1_i{nth}z"));
                    let first =
                        format!("event: interaction.start\ndata: {{\"interaction\":{{\"id\":\"v1_i{nth}z\"}}}}\n\n");
                    let last = "data: {\"event_type\": \"interaction.completed\"}\n\n";
                    sse(support::chunks([&first[..30], &first[30..], "data: {\"id\": \"other\"}\n\n", last]))
                }
                INTERACTIONS => {
                    make(format!("v1_i{nth}z"));
                    json(200, format!(r#"{{"id": "v1_i{nth}z", "object": "interaction"}}"#))
                }
                path if path.contains("/operations/o") => {
                    let id = path.rsplit("operations/o").next().unwrap_or_default();
                    json(
                        200,
                        format!(
                            r#"{{"response": {{"generateVideoResponse": {{"generatedSamples": [{{"video": {{"uri": "https://host/v1beta/files/v{id}:download"}}}}]}}}}}}"#
                        ),
                    )
                }
                _ => hello(),
            })
        }
    })
}

const FIVE: [(&str, &str); 5] = [("a", "p1"), ("b", "p2"), ("c", "p3"), ("d", "p4"), ("e", "p5")];

async fn answer<S>(service: &S, request: Request<Full<Bytes>>) -> String
where
    S: Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError> + Clone,
{
    let asked = format!("{} {}", request.method(), request.uri());
    let response = service.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{asked}");
    String::from_utf8(read(response.into_body()).await.to_vec()).unwrap()
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_made_is_asked_of_the_project_that_made_it() {
    let upstream = storing();
    let spread = builder(&FIVE).spread_creations(true).build().unwrap();
    // Two handles to the same pool learn from each other.
    let (makes, uses) = (alone(&spread, upstream.clone()), alone(&spread.clone(), upstream.clone()));
    for _ in 0..10 {
        let answered = answer(&makes, post("/upload/v1beta/files")).await;
        let file = answered.split('"').find(|text| text.starts_with("files/")).unwrap().to_owned();
        let uri = format!("https://generativelanguage.googleapis.com/v1beta/{file}");
        let prompt = format!(r#"{{"contents":[{{"parts":[{{"fileData":{{"fileUri":"{uri}"}}}}]}}]}}"#);
        for _ in 0..3 {
            answer(&uses, post_body(GENERATE, prompt.clone())).await;
            answer(&uses, get(&format!("/v1beta/{file}"))).await;
        }
        let pinned = upstream.asked().pop().unwrap().context.unwrap();
        assert!(!pinned.may_move());

        let cached = answer(&makes, post("/v1beta/cachedContents")).await;
        let name = cached.split('"').find(|text| text.starts_with("cachedContents/")).unwrap();
        answer(&uses, post_body(GENERATE, format!(r#"{{"cachedContent":"{name}"}}"#))).await;

        let operation = answer(&makes, post("/v1beta/models/veo-3:predictLongRunning")).await;
        let name = operation.split('"').find(|text| text.starts_with("models/")).unwrap();
        let done = answer(&uses, get(&format!("/v1beta/{name}"))).await;
        let video = done.split('"').find(|text| text.starts_with("https://")).unwrap();
        answer(&uses, get(video.trim_start_matches("https://host"))).await;

        for body in [r#"{"model":"gemini-2.5-pro","input":"hi"}"#, r#"{"model":"gemini-2.5-pro","stream":true}"#] {
            let interaction = answer(&makes, post_body(INTERACTIONS, body)).await;
            let id = interaction.split('"').find(|text| text.starts_with("v1_i")).unwrap();
            answer(&uses, post_body(INTERACTIONS, format!(r#"{{"previous_interaction_id":"{id}"}}"#))).await;
            answer(&uses, get(&format!("{INTERACTIONS}/{id}"))).await;
        }
        let upload = makes.clone().oneshot(post("/upload/v1beta/files?uploadType=resumable")).await.unwrap();
        let address = upload.headers()["x-goog-upload-url"].to_str().unwrap().trim_start_matches("https://host");
        answer(&uses, post(address)).await;
    }
    let used: std::collections::HashSet<_> = keys_of(&upstream).into_iter().collect();
    assert!(used.len() >= 4, "they are spread: {used:?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_goes_to_the_default_project() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let pool = builder(&FIVE).default_project("p3").build().unwrap();
    let service = alone(&pool, upstream.clone());
    for _ in 0..5 {
        for request in [
            get("/v1beta/files/unknown"),
            get("/v1beta/files"),
            get("/v1beta/cachedContents?pageSize=2"),
            post("/upload/v1beta/files"),
            post("/v1beta/cachedContents"),
            post("/v1beta/tunedModels/t:generateContent"),
            post_body(GENERATE, r#"{"cachedContent":"cachedContents/unknown"}"#),
            post_body(INTERACTIONS, r#"{"previous_interaction_id":"v1_x"}"#),
        ] {
            service.clone().oneshot(request).await.unwrap();
        }
    }
    assert_eq!(keys_of(&upstream), vec!["c"; 40]);
    // A call that names no resource goes anywhere.
    for _ in 0..40 {
        service.clone().oneshot(post(GENERATE)).await.unwrap();
    }
    assert!(keys_of(&upstream)[40..].iter().any(|key| key != "c"));

    // If the default project has no usable key, files are created elsewhere; listings are not requested elsewhere.
    pool.disable(&fingerprint("c"));
    assert!(ok(&service.clone().oneshot(post("/upload/v1beta/files")).await));
    assert_ne!(keys_of(&upstream).pop().unwrap(), "c");
    assert_eq!(kind(&service.oneshot(get("/v1beta/files")).await), Some(Kind::KeysDisabled));
}

#[tokio::test(start_paused = true)]
async fn a_bound_call_moves_to_a_sibling_key_and_to_no_other_project() {
    let keys = [("bad", "p1"), ("good", "p1"), ("b", "p2")];
    let emulator =
        upstream(&keys[1..]).trouble(When::first(1).key(&secret("good")), Trouble::minute_quota(secs(20))).build();
    // The store is p1's, and the pool has not seen it being made.
    let mut make = post("/v1beta/fileSearchStores");
    make.headers_mut().insert("x-goog-api-key", secret("good").parse().unwrap());
    let made = read(emulator.clone().oneshot(make).await.unwrap().into_body()).await;
    let store = serde_json::from_slice::<serde_json::Value>(&made).unwrap()["name"].clone();
    let tools = format!(r#"[{{"fileSearch":{{"fileSearchStoreNames":[{store}]}}}}]"#);
    let bound = || post_body(GENERATE, format!(r#"{{"contents":[{{"parts":[{{"text":"hi"}}]}}],"tools":{tools}}}"#));
    let service = stack(&pool(&keys), &Limiter::new(), emulator.clone());
    let begun = Instant::now();
    let answer = service.clone().oneshot(bound()).await;
    assert!(ok(&answer), "{:?}", Outcome::of(&answer));
    assert!((secs(20)..secs(23)).contains(&begun.elapsed()), "it waits for its own project: {:?}", begun.elapsed());
    assert_eq!(asked(&emulator, "b"), 0);
    for _ in 0..10 {
        assert!(ok(&service.clone().oneshot(bound()).await));
    }
    assert_eq!((asked(&emulator, "bad"), asked(&emulator, "b")), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_bound_call_is_never_told_to_come_again_at_once_for_want_of_quota() {
    let upstream = Upstream::at_once(|_| Ok(error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted.")));
    let service = alone(&pool(&[("a", "p1"), ("a2", "p1"), ("b", "p2")]), upstream.clone());
    for uri in [COUNT, GENERATE] {
        let refused = service.clone().oneshot(post_body(uri, r#"{"cachedContent":"cachedContents/x"}"#)).await;
        let outcome = Outcome::of(&refused);
        assert_eq!((outcome.retry(), outcome.tried()), (None, None), "{uri}");
        assert_eq!(outcome.project(), Some("p1"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_untouched_while_it_is_read() {
    let large = format!(r#"{{"name":"cachedContents/late","filler":"{}"}}"#, "x".repeat(200_000));
    let body = large.clone();
    let upstream = Upstream::at_once(move |_| Ok(json(200, body.clone())));
    let service = alone(&pool(&[("a", "p1"), ("b", "p2")]), upstream);
    let response = service.clone().oneshot(post("/v1beta/cachedContents")).await.unwrap();
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(large.len() as u64));
    assert_eq!(read(response.into_body()).await, large);

    // A caller need not poll for the end of a body that reports its end.
    let upstream = storing();
    let service = alone(&builder(&FIVE).spread_creations(true).build().unwrap(), upstream.clone());
    for _ in 0..10 {
        let mut made = service.clone().oneshot(post("/v1beta/cachedContents")).await.unwrap().into_body();
        let name = made.frame().await.unwrap().unwrap().into_data().unwrap();
        let name = String::from_utf8_lossy(&name);
        let name = name.split('"').find(|text| text.starts_with("cachedContents/")).unwrap();
        answer(&service, get(&format!("/v1beta/{name}"))).await;
    }
}

// === recheck ===

#[tokio::test(start_paused = true)]
async fn disabled_keys_are_looked_at_again_and_return() {
    let good = [("a", "p1"), ("b", "p2")];
    let emulator = upstream(&good).build();
    let pool = pool(&[("a", "p1"), ("b", "p2"), ("bad", "p3")]);
    let service = stack(&pool, &Limiter::new(), emulator.clone());
    let recheck = tokio::spawn(pool.recheck::<_, Full<Bytes>, _>(emulator.clone()));
    // It sleeps, and no key is disabled yet.
    settle().await;
    for _ in 0..60 {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    assert!(is_disabled(&pool, "bad"));
    let out = emulator.elapsed();
    let looks = || -> Vec<u64> {
        let looks = emulator.journal().into_iter().filter(|visit| visit.path == "/v1beta/models");
        looks.map(|visit| (visit.at - out).as_secs()).collect()
    };
    sleep(secs(3_000)).await;
    // Each time after twice as long: 1, 2, 4, 8, 16 minutes.
    assert_eq!(looks(), [60, 180, 420, 900, 1_860]);
    sleep(secs(7 * 24 * 3_600)).await;
    let times = looks();
    assert_eq!(times[times.len() - 1] - times[times.len() - 2], 6 * 3_600);
    recheck.abort();

    // A leaked key is checked after five minutes; a check that goes wrong otherwise tells nothing; then it is good again.
    let looking = When::always().path("/v1beta/models").operation(tower_gemini::call::Operation::ListModels);
    let emulator = upstream(&good)
        .trouble(When::first(1).key(&secret("a")), Trouble::leaked_key())
        .script(looking, [Trouble::overloaded(), Trouble::leaked_key()])
        .build();
    let pool = self::pool(&good);
    let recheck = tokio::spawn(pool.recheck::<_, Full<Bytes>, _>(ClassifyLayer::new().layer(emulator.clone())));
    let service = stack(&pool, &Limiter::new(), emulator.clone());
    while !is_disabled(&pool, "a") {
        assert!(ok(&service.clone().oneshot(post(GENERATE)).await));
    }
    pool.disable(&fingerprint("b"));
    let at = |seconds| sleep(secs(seconds));
    at(899).await;
    assert!(is_disabled(&pool, "a"), "looked at after 300 s and 600 s");
    at(302).await;
    assert!(!is_disabled(&pool, "a") && is_disabled(&pool, "b"));
    let visits = emulator.journal().into_iter().filter(|visit| visit.path == "/v1beta/models");
    assert_eq!(visits.map(|visit| visit.at.as_secs()).collect::<Vec<_>>(), [300, 600, 1_200]);
    assert!(
        emulator
            .journal()
            .iter()
            .filter(|visit| visit.path == "/v1beta/models")
            .all(|visit| visit.key == Some(Emulator::fingerprint(&secret("a"))))
    );
    assert!(ok(&service.oneshot(post(GENERATE)).await));
    recheck.abort();
}

#[tokio::test(start_paused = true)]
async fn alone_it_goes_by_the_status() {
    let upstream = Upstream::at_once(|nth| Ok(if nth == 0 { support::status(429) } else { hello() }));
    let pool = pool(&[("a", "p1"), ("b", "p2")]);
    let service = KeyPoolLayer::new(pool.clone()).layer(upstream.clone());
    let response = service.clone().oneshot(post(GENERATE)).await.unwrap();
    let outcome = support::outcome(&response);
    assert_eq!((outcome.retry(), outcome.failure().unwrap().fault()), (Some(RetryAdvice::Now), Fault::Quota));
    assert_eq!(pool.snapshot().iter().filter(|report| report.models.len() == 1).count(), 1);
    // A success without an outcome stays without.
    let response = service.oneshot(post(STREAM)).await.unwrap();
    assert!(response.extensions().get::<Outcome>().is_none());
    let _ = full("");
}

/// `PUP_LIMITED_DISABLED` comes as a finish reason, with a 200.
#[tokio::test(start_paused = true)]
async fn an_account_that_is_limited_leaves_its_model_to_another_project() {
    let upstream = Upstream::new(|_, asked| async move {
        Ok(match key_of(&asked).as_str() {
            "a" => json(200, r#"{"candidates":[{"finishReason":"PUP_LIMITED_DISABLED"}]}"#),
            _ => hello(),
        })
    });
    let pool = pool(&[("a", "p1"), ("b", "p2")]);
    let service = stack(&pool, &Limiter::builder().build(), upstream.clone());
    for _ in 0..8 {
        let response = service.clone().oneshot(post(GENERATE)).await.unwrap();
        assert_eq!(read(response.into_body()).await, support::HELLO);
    }
    let a = keys_of(&upstream).into_iter().filter(|key| *key == "a").count();
    assert_eq!((a, is_disabled(&pool, "a")), (1, false), "the account may serve others");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_dropped_leaves_its_key_to_another() {
    let key = ApiKey::new("AIza-nobodys").unwrap();
    let pool = KeyPool::builder().key(Key::new(key)).build().unwrap();
    let checks = || {
        tokio::spawn(pool.recheck(service_fn(|_: Request<Empty<Bytes>>| {
            ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
        })))
    };
    let [first, _second] = [checks(), checks()];
    tokio::task::yield_now().await;
    let body =
        r#"{"error":{"code":403,"message":"Your API key was reported as leaked.","status":"PERMISSION_DENIED"}}"#;
    let upstream = service_fn(|_: Request<Full<Bytes>>| {
        let response = Response::builder().status(403).body(Full::<Bytes>::from(body));
        ready(Ok::<_, Infallible>(response.unwrap()))
    });
    let mut service = KeyPoolLayer::new(pool.clone()).layer(tower_gemini::ClassifyLayer::new().layer(upstream));
    let request = Request::post("/v1beta/models/gemini-2.5-pro:generateContent").body(Full::default()).unwrap();
    let _ = service.call(request).await;
    let is_disabled = || matches!(pool.snapshot()[0].state, KeyState::Disabled { .. });
    assert!(is_disabled());
    // It has heard of the key, and waits.
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.abort();
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert!(!is_disabled(), "nobody has checked the key");
}
