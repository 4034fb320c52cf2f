//! The news that instances tell each other over a real server: dead keys, blocked projects and open breakers.

#[path = "support/redis_server.rs"]
mod redis_server;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use redis_server::{RedisReply, RedisServer};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_gemini::{
    CircuitBreakerLayer, ClassifyLayer, KeyPoolLayer,
    circuit_breaker::{CircuitBreakers, State, Target, Trip},
    key_pool::{ApiKey, DisabledReason, Fingerprint, Key, KeyPool, KeyState},
    redis_store::{RedisStore, SharedNews, StoreState},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Two probes of at most 0.3 s, and what the machine needs besides.
const FRESH: Duration = Duration::from_millis(800);

const KEYS: [&str; 3] = ["AIza-nobodys", "AIza-anybodys", "AIza-somebodys"];

/// An instance that shares all it can.
struct Instance {
    store: RedisStore,
    news: SharedNews,
    pool: KeyPool,
    breakers: CircuitBreakers,
}

impl Instance {
    fn start(url: &str) -> Self {
        let key = |(at, key): (usize, &&str)| Key::new(ApiKey::new(*key).unwrap()).project(format!("p{at}"));
        let pool =
            KEYS.iter().enumerate().map(key).fold(KeyPool::builder(), |pool, key| pool.key(key)).build().unwrap();
        let breakers = CircuitBreakers::builder().trip(Trip::consecutive(3)).build().unwrap();
        let news = SharedNews::new();
        news.share_keys(pool.clone());
        news.share_parks(pool.clone());
        news.share_breakers(breakers.clone());
        // A busy machine must not take the server away from a test of the news.
        let store = RedisStore::builder(url).unwrap().call_timeout(200 * MS).news(news.clone()).connect();
        Self { store, news, pool, breakers }
    }

    async fn connected(url: &str) -> Self {
        let instance = Self::start(url);
        until("connected", || instance.store.report().state == StoreState::Connected).await;
        instance
    }

    fn disabled(&self) -> [bool; 3] {
        let is_disabled = |at: usize| matches!(self.pool.snapshot()[at].state, KeyState::Disabled { .. });
        std::array::from_fn(is_disabled)
    }

    /// Returns which project rests.
    fn parked(&self) -> [bool; 3] {
        std::array::from_fn(|at| !self.pool.snapshot()[at].models.is_empty())
    }

    /// Sends a call, with whichever key the pool chooses.
    async fn call(&self, answer: (u16, &'static str)) {
        let upstream = service_fn(move |_: Request<Full<Bytes>>| async move {
            let body = Full::new(Bytes::from_static(answer.1.as_bytes()));
            Ok::<_, Infallible>(Response::builder().status(answer.0).body(body).unwrap())
        });
        let pool = KeyPoolLayer::new(self.pool.clone());
        let service =
            pool.layer(CircuitBreakerLayer::new(self.breakers.clone()).layer(ClassifyLayer::new().layer(upstream)));
        let request = Request::post("/v1beta/models/m:generateContent").body(Full::<Bytes>::default()).unwrap();
        let _ = service.oneshot(request).await;
    }

    fn state(&self) -> State {
        self.breakers.state(&Target::new("m", ""))
    }
}

fn key(at: usize) -> Fingerprint {
    Fingerprint::of(KEYS[at])
}

async fn until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < 10 * SECOND, "not within 10 s: {what}");
        sleep(5 * MS).await;
    }
    begun.elapsed()
}

/// Prints the server's time for each command.
fn print_cost(server: &RedisServer) {
    let RedisReply::Bulk(info) = server.command(&["INFO", "commandstats"]) else { return };
    let info = String::from_utf8_lossy(&info).into_owned();
    let of_news = |line: &&str| ["xadd", "xrange", "pexpire", "eval:"].iter().any(|name| line.contains(name));
    info.lines().filter(of_news).for_each(|line| println!("{line}"));
}

fn length(server: &RedisServer) -> usize {
    match server.command(&["XLEN", "tower-gemini:news"]) {
        RedisReply::Int(length) => length as usize,
        other => panic!("{other:?}"),
    }
}

const LEAKED: (u16, &str) = (
    403,
    r#"{"error": {"code": 403, "message": "Your API key was reported as leaked. Please use another API key.", "status": "PERMISSION_DENIED"}}"#,
);

const DAY: (u16, &str) = (
    429,
    r#"{"error": {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED", "details": [
    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
    "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaDimensions": {"model": "m"}, "quotaValue": "20"}]}]}}"#,
);

const OVERLOADED: (u16, &str) =
    (503, r#"{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}"#);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_key_that_one_finds_bad_serves_at_no_other_within_the_second_and_comes_back_with_one_word() {
    let server = RedisServer::start();
    let url = server.url();
    let (one, other) = (Instance::connected(&url).await, Instance::connected(&url).await);
    let mut times = Vec::new();
    for round in 0..3 {
        one.call(LEAKED).await;
        let bad = one.disabled();
        assert_eq!(bad.iter().filter(|bad| **bad).count(), 1);
        times.push(until("the key is out", || other.disabled() == bad).await);
        let reason = other.pool.snapshot().into_iter().find_map(|report| match report.state {
            KeyState::Disabled { reason, .. } => Some(reason),
            _ => None,
        });
        assert!(matches!(reason, Some(DisabledReason::Refused(_))), "{reason:?}");
        let at = bad.iter().position(|bad| *bad).unwrap();
        // Whoever enables it: the one that has found it bad, or the other.
        let (by, at_the_other) = if round % 2 == 0 { (&other, &one) } else { (&one, &other) };
        assert!(by.pool.enable(&key(at)));
        times.push(until("the key is back", || at_the_other.disabled() == [false; 3]).await);
    }
    println!("from a change at one instance to the same at the other: {times:?}");
    print_cost(&server);
    assert!(times.iter().all(|time| *time < FRESH), "{times:?}");
    let (told, heard) = (one.news.report(), other.news.report());
    assert_eq!((told.told + heard.told, told.taken_up + heard.taken_up), (6, 6), "{told:?} {heard:?}");
    assert_eq!(length(&server), 6);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_project_that_one_finds_used_up_rests_at_the_others_until_it_is_lifted_at_one() {
    let server = RedisServer::start();
    let url = server.url();
    let (one, other) = (Instance::connected(&url).await, Instance::connected(&url).await);
    one.call(DAY).await;
    let parked = one.parked();
    assert_eq!(parked.iter().filter(|parked| **parked).count(), 1);
    let rests = until("the project rests", || other.parked() == parked).await;
    let project = format!("p{}", parked.iter().position(|parked| *parked).unwrap());
    assert!(other.pool.lift_model(&project, "m"));
    let lifted = until("the project is lifted", || one.parked() == [false; 3]).await;
    assert!(rests < FRESH && lifted < FRESH, "{rests:?} {lifted:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_breaker_that_opens_at_one_is_open_at_the_others_that_get_no_answers() {
    let server = RedisServer::start();
    let url = server.url();
    let (one, other, third) =
        (Instance::connected(&url).await, Instance::connected(&url).await, Instance::connected(&url).await);
    third.call((200, r#"{"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}"#)).await;
    for _ in 0..3 {
        one.call(OVERLOADED).await;
    }
    assert_eq!(one.state(), State::Open);
    let time = until("the breaker is open", || other.state() == State::Open).await;
    assert!(time < FRESH, "{time:?}");
    until("the third has heard of it", || third.news.report().heard == 1).await;
    assert_eq!((third.state(), third.news.report().taken_up), (State::Closed, 0));
    // It probes for itself, with one call.
    until("time for probes", || other.state() == State::HalfOpen).await;
    other.call(OVERLOADED).await;
    assert_eq!(other.state(), State::Open);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a redis-server; .ci/run does"]
async fn whoever_starts_knows_what_is_dead_and_a_flush_or_an_empty_restart_loses_nothing_of_it() {
    let mut server = RedisServer::start();
    let url = server.url();
    let (one, other) = (Instance::connected(&url).await, Instance::connected(&url).await);
    one.pool.disable(&key(0));
    other.pool.disable(&key(1));
    until("the keys are out", || one.disabled() == [true, true, false]).await;
    one.call(DAY).await;
    let (dead, parked) = ([true, true, false], [false, false, true]);
    until("all is told", || (one.disabled(), other.parked()) == (dead, parked)).await;
    let knows = |instance: &Instance| (instance.disabled(), instance.parked()) == (dead, parked);
    let new = Instance::connected(&url).await;
    println!("a new instance knows after {:?}", until("the new one knows", || knows(&new)).await);
    drop((one, new));
    for round in 0..2 {
        if round == 0 {
            server.flush()
        } else {
            server.restart()
        }
        let told = until("it is told again", || server_has_news(&server)).await;
        let new = Instance::connected(&url).await;
        let knows = until("one that starts knows it", || knows(&new)).await;
        println!("round {round}: told again after {told:?}, known to a new instance after {knows:?}");
    }
    // Changes while the server is away are told when it is back.
    let new = Instance::connected(&url).await;
    until("it knows", || knows(&new)).await;
    server.kill();
    sleep(SECOND).await;
    other.pool.enable(&key(0));
    sleep(SECOND).await;
    server.restart();
    until("the key is back", || new.disabled() == [false, true, false]).await;
}

fn server_has_news(server: &RedisServer) -> bool {
    length(server) > 0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_flood_of_events_neither_grows_nor_holds_up_anything() {
    let server = RedisServer::start();
    let url = server.url();
    let (one, other) = (Instance::connected(&url).await, Instance::connected(&url).await);
    one.pool.disable(&key(0));
    until("the key is out", || other.disabled()[0]).await;
    // Events of others: some broken, and none of a key that is here.
    let mut connection = server.connect();
    let begun = Instant::now();
    for number in 0..20_000u32 {
        let text = match number % 4 {
            0 => "broken".to_owned(),
            1 => format!(
                r#"{{"version": 1, "from": "x", "at": 0, "facts": [{{"kind": "key", "key": "{number:08x}", "age": 0, "disabled": {{"reason": "by_hand", "since": 1}}}}]}}"#
            ),
            2 => format!(
                r#"{{"version": 1, "from": "x", "at": 0, "facts": [{{"kind": "open", "model": "m{number}", "endpoint": "", "until": 1}}]}}"#
            ),
            _ => "x".repeat(4_000),
        };
        connection.command(&["XADD", "tower-gemini:news", "MAXLEN", "~", "1000", "*", "e", &text]);
        if number % 1_000 == 0 {
            sleep(50 * MS).await;
        }
    }
    println!("20,000 events in {:?}", begun.elapsed());
    assert!(length(&server) <= 1_200, "{}", length(&server));
    other.pool.disable(&key(1));
    let time = until("the key is out in spite of that", || one.disabled()[1]).await;
    println!("a change behind the flood took {time:?}");
    let new = Instance::connected(&url).await;
    until("one that starts knows both", || new.disabled() == [true, true, false]).await;
    for instance in [&one, &other] {
        let report = instance.news.report();
        assert!(report.known <= 3 && report.ignored > 0, "{report:?}");
        assert_eq!(
            (instance.store.report().state, instance.store.report().counts.timed_out),
            (StoreState::Connected, 0)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_that_is_full_takes_the_news_when_it_has_room_again() {
    let server = RedisServer::start();
    let url = server.url();
    let (one, other) = (Instance::connected(&url).await, Instance::connected(&url).await);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    one.pool.disable(&key(0));
    sleep(SECOND).await;
    assert!(!other.disabled()[0]);
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    until("the key is out", || other.disabled()[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_store_that_is_dropped_tells_and_hears_nothing_more() {
    let server = RedisServer::start();
    let url = server.url();
    let (one, other) = (Instance::connected(&url).await, Instance::connected(&url).await);
    let Instance { store, news, pool, .. } = other;
    drop(store);
    sleep(SECOND).await;
    one.pool.disable(&key(0));
    pool.disable(&key(1));
    sleep(SECOND).await;
    assert_eq!((one.disabled(), length(&server)), ([true, false, false], 1));
    assert_eq!(news.report().heard, 0);
}
