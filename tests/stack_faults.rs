//! Random bad days through all layers: for all behaviour of the upstream, every call ends in an answer or in one typed error,
//! no call is sent more often than its budget allows, and each key is marked for the upstream's answers to it and for nothing
//! else.

mod support;

use std::{collections::HashMap, io, num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use parking_lot::Mutex;
use proptest::prelude::*;
use support::*;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::{
    BoxError, CircuitBreakerLayer, ClassifyLayer, Error, KeyPoolLayer, ModelFallbackLayer, Outcome, RateLimitLayer,
    RetryLayer, RetryPolicy, TimeoutLayer,
    circuit_breaker::CircuitBreakers,
    failure::{Kind, TimeoutKind},
    key_pool::{ApiKey, Fingerprint, Key, KeyPool, KeyState},
    model_fallback::FallbackChains,
    quota::until_pacific_midnight,
    rate_limit::Limiter,
};

const MODELS: [&str; 3] = ["gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"];

/// The keys with their projects: two of one project, and one for each of two others.
const KEYS: [(&str, &str); 4] = [
    ("AIzaSyA-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "p1"),
    ("AIzaSyB-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "p1"),
    ("AIzaSyC-ccccccccccccccccccccccccccccccc", "p2"),
    ("AIzaSyD-ddddddddddddddddddddddddddddddd", "p3"),
];

const HINT: Duration = Duration::from_secs(7);

/// The upstream's reaction to a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answer,
    Overloaded,
    Broken,
    Malformed,
    Minute,
    Day,
    Zero,
    BadKey,
    Leaked,
    Reset,
    Slow,
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Answer),
        4 => Just(Fate::Overloaded),
        1 => Just(Fate::Broken),
        1 => Just(Fate::Malformed),
        2 => Just(Fate::Minute),
        1 => Just(Fate::Day),
        1 => Just(Fate::Zero),
        3 => Just(Fate::BadKey),
        1 => Just(Fate::Leaked),
        1 => Just(Fate::Reset),
        1 => Just(Fate::Slow),
    ]
}

/// A visit as the upstream saw it.
#[derive(Clone, Debug)]
struct Visit {
    call: usize,
    key: usize,
    model: usize,
    at: Instant,
    fate: Fate,
}

fn error(status: u16, name: &str, message: &str, details: &str) -> Response<AnyBody> {
    let body =
        format!(r#"{{"error":{{"code":{status},"message":"{message}","status":"{name}","details":[{details}]}}}}"#);
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(support::any(Full::<Bytes>::from(body)))
        .unwrap()
}

fn quota(id: &str, value: &str, delay: &str) -> Response<AnyBody> {
    let details = format!(
        r#"{{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaMetric":"m","quotaId":"{id}"{value}}}]}},
           {{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}"}}"#
    );
    error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", &details)
}

fn reason(name: &str) -> String {
    format!(r#"{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"{name}","domain":"googleapis.com"}}"#)
}

async fn suffer(fate: Fate) -> Answer {
    Ok(match fate {
        Fate::Answer => Response::new(support::any(Full::<Bytes>::from(HELLO))),
        Fate::Overloaded => error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.", ""),
        Fate::Broken => error(500, "INTERNAL", "An internal error has occurred.", ""),
        Fate::Malformed => error(400, "INVALID_ARGUMENT", "Invalid value at 'contents'.", ""),
        Fate::Minute => quota("GenerateRequestsPerMinutePerProjectPerModel", r#","quotaValue":"10""#, "7s"),
        Fate::Day => quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", r#","quotaValue":"250""#, "0s"),
        Fate::Zero => quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "", "5s"),
        Fate::BadKey => error(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            &reason("API_KEY_INVALID"),
        ),
        Fate::Leaked => {
            error(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key.", "")
        }
        Fate::Reset => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        Fate::Slow => {
            sleep(Duration::from_secs(400)).await;
            Response::new(support::any(Full::<Bytes>::from(HELLO)))
        }
    })
}

/// Makes an upstream that writes down its visits, and reacts to each with the next fate of the list.
fn upstream(
    fates: Vec<Fate>,
    visits: Arc<Mutex<Vec<Visit>>>,
) -> impl Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError, Future: Send> + Clone {
    service_fn(move |request: Request<Full<Bytes>>| {
        let headers = request.headers();
        assert!(!headers.contains_key("authorization"), "two credentials");
        let sent: Vec<_> = headers.get_all("x-goog-api-key").iter().map(|key| key.to_str().unwrap()).collect();
        let [sent] = sent[..] else { panic!("{sent:?}") };
        let key = KEYS.iter().position(|(key, _)| *key == sent).unwrap();
        let model = MODELS.iter().position(|model| request.uri().path().contains(&format!("/{model}:"))).unwrap();
        let call = headers["x-call"].to_str().unwrap().parse().unwrap();
        let mut visits = visits.lock();
        let fate = fates[visits.len() % fates.len()];
        visits.push(Visit { call, key, model, at: Instant::now(), fate });
        suffer(fate)
    })
}

/// The marks that a key should have, by the upstream's answers to it.
#[derive(Clone, Copy, Debug, Default)]
struct Expected {
    strikes: u32,
    disabled: bool,
}

#[derive(Debug, Default)]
struct Truth {
    keys: [Expected; KEYS.len()],
    /// The time before which a project and model may not be asked.
    closed: HashMap<(&'static str, usize), Instant>,
    /// The time from which one call may look whether that is still so.
    look: HashMap<(&'static str, usize), Instant>,
    midnight: Option<Instant>,
}

impl Truth {
    fn hear(&mut self, visit: &Visit) {
        let (key, scope) = (&mut self.keys[visit.key], (KEYS[visit.key].1, visit.model));
        assert!(!key.disabled, "{visit:?} with a key that is out");
        let closed = self.closed.get(&scope).filter(|until| visit.at < **until);
        let looks = self.look.get(&scope).is_some_and(|look| visit.at >= *look);
        assert!(closed.is_none() || looks, "{visit:?} although {scope:?} had no quota");
        match visit.fate {
            Fate::Answer => {
                key.strikes = 0;
                self.closed.remove(&scope);
            }
            Fate::BadKey => {
                key.strikes += 1;
                key.disabled = key.strikes >= 3;
            }
            Fate::Leaked => key.disabled = true,
            Fate::Minute => {
                self.closed.insert(scope, visit.at + HINT);
                self.look.remove(&scope);
            }
            Fate::Day | Fate::Zero => {
                self.closed.insert(scope, self.midnight.unwrap());
                // A day may be a mistake; a limit of zero hardly is.
                let look = if matches!(visit.fate, Fate::Day) { 15 } else { 3_600 };
                self.look.insert(scope, visit.at + Duration::from_secs(look));
            }
            _ => {}
        }
    }
}

async fn bad_day(fates: Vec<Fate>, batches: Vec<usize>, seed: u64) {
    fastrand::seed(seed);
    let visits = Arc::new(Mutex::new(Vec::new()));
    let breakers = CircuitBreakers::new();
    let limiter = Limiter::builder().gate(breakers.clone()).build();
    let pool =
        KEYS.iter().fold(KeyPool::builder().cache_affinity(None).headroom(limiter.clone()), |pool, (key, project)| {
            pool.key(Key::new(ApiKey::new(*key).unwrap()).project(*project).weight(NonZeroU32::MIN))
        });
    let pool = pool.build().unwrap();
    let chains = FallbackChains::builder()
        .chain(MODELS[0], [MODELS[1], MODELS[2]])
        .chain(MODELS[1], [MODELS[2]])
        .build()
        .unwrap();
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total(Duration::from_secs(285)))
        .layer(ModelFallbackLayer::new(chains))
        .layer(RetryLayer::default())
        .layer(KeyPoolLayer::new(pool.clone()))
        .layer(RateLimitLayer::new(limiter))
        .layer(CircuitBreakerLayer::new(breakers))
        .layer(TimeoutLayer::attempt(Duration::from_secs(60)))
        .layer(ClassifyLayer::new())
        .service(upstream(fates, visits.clone()));

    // A block until midnight ends at midnight also in a test that runs at night.
    let midnight = Instant::now() + until_pacific_midnight(tower_gemini::clock::wall()) - Duration::from_secs(1);
    let mut truth = Truth { midnight: Some(midnight), ..Truth::default() };
    let (mut call, mut heard) = (0, 0);
    for batch in batches {
        let calls = (0..batch).map(|_| {
            let mut request = post(&format!("/v1beta/models/{}:generateContent", MODELS[call % 2]));
            request.headers_mut().insert("x-call", call.into());
            // The caller's own credentials are not passed on.
            request.headers_mut().insert("authorization", "Bearer the-callers-own".parse().unwrap());
            call += 1;
            let service = service.clone();
            async move { (call - 1, service.oneshot(request).await) }
        });
        for (call, result) in join_all(calls).await {
            let visits = visits.lock();
            let of_call: Vec<_> = visits.iter().filter(|visit| visit.call == call).collect();
            let attempts = u32::try_from(of_call.len()).unwrap();
            assert!(attempts <= RetryPolicy::MAX_ATTEMPTS, "{of_call:#?}");
            let mut models: Vec<_> = of_call.iter().map(|visit| visit.model).collect();
            models.dedup();
            assert!((1..models.len()).all(|at| !models[..at].contains(&models[at])), "back to a model: {of_call:#?}");
            // The verdict of the model that was asked for is final; a fallback model may lack a feature that it has.
            let asked = call % 2;
            let malformed = of_call.iter().position(|visit| visit.fate == Fate::Malformed && visit.model == asked);
            assert!(malformed.is_none_or(|at| at + 1 == of_call.len()), "sent again: {of_call:#?}");
            let again = |pair: &[&Visit]| pair[0].fate == Fate::Malformed && pair[1].model == pair[0].model;
            assert!(!of_call.windows(2).any(again), "sent again: {of_call:#?}");
            if let Err(error) = &result {
                assert!(Error::find(&**error).is_some(), "not an error of this crate: {error}");
            }
            let outcome = Outcome::of(&result);
            if result.is_ok_and(|response| response.status().is_success()) {
                assert!(matches!(of_call.last().unwrap().fate, Fate::Answer), "{of_call:#?}");
                assert!(outcome.failure().is_none(), "{outcome:?}");
                continue;
            }
            let failure = outcome.failure().expect("a failed call has a failure");
            // The total clock stands outside of the layer that counts attempts, and drops the call under way.
            let is_cut_off = failure.kind() == Kind::Timeout(TimeoutKind::Total);
            assert!(is_cut_off || outcome.attempts() == attempts, "{outcome:?} {of_call:#?}");
        }
        let visits = visits.lock();
        visits[heard..].iter().for_each(|visit| truth.hear(visit));
        heard = visits.len();
        for (at, (key, _)) in KEYS.iter().enumerate() {
            let report = pool.snapshot().into_iter().find(|report| report.fingerprint == Fingerprint::of(key)).unwrap();
            let disabled = matches!(report.state, KeyState::Disabled { .. });
            assert_eq!(disabled, truth.keys[at].disabled, "{report:?} {:?}", truth.keys[at]);
            assert!(disabled || report.strikes == truth.keys[at].strikes, "{report:?} {:?}", truth.keys[at]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    #[test]
    fn a_bad_day_ends_well(
        fates in proptest::collection::vec(fates(), 5..120),
        batches in proptest::collection::vec(1usize..4, 1..15),
        seed in proptest::num::u64::ANY,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(bad_day(fates, batches, seed));
    }
}
