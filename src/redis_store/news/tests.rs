//! The news between instances over a stream that is kept here, as a server would.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use proptest::prelude::*;
use redis::Arg;
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};

use super::{register::EventId, state::TOLD, *};
use crate::{
    ClassifyLayer, KeyPoolLayer,
    circuit_breaker::{CircuitBreakerLayer, State as BreakerState, Target, Trip},
    key_pool::{ApiKey, DisabledReason, Fingerprint, Key, KeyState},
};

const PROBE: Duration = Duration::from_millis(250);

/// A stream as a server keeps it. Its clock is the test's, unless it is put back.
struct Stream {
    began: Instant,
    /// The server's time at the beginning, in milliseconds since 1970.
    time: u64,
    last: EventId,
    events: Vec<(EventId, Vec<u8>)>,
    is_full: bool,
    /// The events that it has taken in all.
    taken: usize,
}

impl Stream {
    fn new() -> Self {
        let (time, last) = (1_700_000_000_000, EventId::default());
        Self { began: Instant::now(), time, last, events: Vec::new(), is_full: false, taken: 0 }
    }

    fn now(&self) -> u64 {
        self.time + self.began.elapsed().as_millis() as u64
    }

    fn flush(&mut self) {
        self.events.clear();
        self.last = EventId::default();
    }

    fn add(&mut self, text: impl Into<Vec<u8>>) -> EventId {
        self.last = self.last.next().max(EventId(self.now(), 0));
        self.events.push((self.last, text.into()));
        self.taken += 1;
        // The server trims whole blocks.
        if self.events.len() > KEPT + 100 {
            self.events.drain(..100);
        }
        self.last
    }

    fn run(&mut self, command: &Cmd) -> Value {
        let args: Vec<_> = command.args_iter().map(|arg| if let Arg::Simple(arg) = arg { arg } else { b"" }).collect();
        let id = |arg: &[u8]| EventId::of(&Value::BulkString(arg.to_vec()));
        match (args[0], &args[2..]) {
            (b"XADD", _) if self.is_full => redis::Value::ServerError(oom()),
            (b"XADD", [b"MAXLEN", b"~", b"1000", b"*", b"e", text]) => {
                Value::BulkString(self.add(*text).to_string().into_bytes())
            }
            (b"PEXPIRE", [_]) => Value::Int((!self.events.is_empty()).into()),
            (b"XRANGE", [from, b"+", b"COUNT", count]) => {
                let from = id(from).unwrap_or_default();
                let count = std::str::from_utf8(count).unwrap().parse().unwrap();
                let events = self.events.iter().filter(|(id, _)| *id >= from).take(count);
                Value::Array(events.map(|(id, text)| event_value(*id, text)).collect())
            }
            _ => panic!("no server knows {args:?}"),
        }
    }

    /// Runs the probe of an instance.
    fn probe(&mut self, news: &SharedNews) {
        let asked = news.ask("p:news");
        let replies: Vec<_> = asked.commands.iter().map(|command| self.run(command)).collect();
        news.take(asked, &replies, self.now());
    }

    /// Runs the probes of all instances for a time.
    async fn probes(&mut self, all: &[&SharedNews], time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            advance(PROBE).await;
            all.iter().for_each(|news| self.probe(news));
        }
    }

    async fn settle(&mut self, all: &[&SharedNews]) {
        self.probes(all, PROBE * 2).await;
    }
}

fn oom() -> redis::ServerError {
    match redis::parse_redis_value(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n") {
        Ok(Value::ServerError(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn event_value(id: EventId, text: &[u8]) -> Value {
    let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    Value::Array(vec![bulk(id.to_string().as_bytes()), Value::Array(vec![bulk(b"e"), bulk(text)])])
}

const KEYS: [&str; 3] = ["a-secret-key", "another-secret-key", "a-third-secret-key"];

fn pool_of(keys: &[&str]) -> KeyPool {
    let key = |(at, key): (usize, &&str)| Key::new(ApiKey::new(*key).unwrap()).project(format!("p{at}"));
    keys.iter().enumerate().map(key).fold(KeyPool::builder(), |pool, key| pool.key(key)).build().unwrap()
}

/// An instance that shares all it can.
fn instance() -> (SharedNews, KeyPool, CircuitBreakers) {
    let (news, pool) = (SharedNews::new(), pool_of(&KEYS));
    let breakers = CircuitBreakers::builder().trip(Trip::consecutive(3)).build().unwrap();
    news.share_keys(pool.clone());
    news.share_parks(pool.clone());
    news.share_breakers(breakers.clone());
    (news, pool, breakers)
}

fn key(at: usize) -> Fingerprint {
    Fingerprint::of(KEYS[at])
}

fn states(pool: &KeyPool) -> Vec<&'static str> {
    pool.snapshot().iter().map(|report| report.state.as_str()).collect()
}

/// The refusal of a key that was leaked.
const LEAKED: (u16, &str) = (
    403,
    r#"{"error": {"code": 403, "message": "Your API key was reported as leaked. Please use another API key.", "status": "PERMISSION_DENIED"}}"#,
);

/// The refusal of a day's quota.
const DAY: (u16, &str) = (
    429,
    r#"{"error": {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED", "details": [
    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
    "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaDimensions": {"model": "m"}, "quotaValue": "20"}]}]}}"#,
);

const GOOD: (u16, &str) =
    (200, r#"{"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}"#);

/// Sends a call through the pool, whose key the upstream answers so.
async fn call(pool: &KeyPool, answer: (u16, &'static str)) {
    let upstream = service_fn(move |_: Request<Full<Bytes>>| async move {
        let body = Full::new(Bytes::from_static(answer.1.as_bytes()));
        Ok::<_, Infallible>(Response::builder().status(answer.0).body(body).unwrap())
    });
    let service = KeyPoolLayer::new(pool.clone()).layer(ClassifyLayer::new().layer(upstream));
    let request = Request::post("/v1beta/models/m:generateContent").body(Full::<Bytes>::default()).unwrap();
    let _ = service.oneshot(request).await;
}

/// Makes calls fail until the breaker opens.
async fn break_calls(breakers: &CircuitBreakers, times: usize, status: u16) {
    let service =
        CircuitBreakerLayer::new(breakers.clone()).layer(service_fn(move |_: Request<Full<Bytes>>| async move {
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
        }));
    for _ in 0..times {
        let request = Request::post("/v1beta/models/m:generateContent").body(Full::<Bytes>::default()).unwrap();
        let _ = service.clone().oneshot(request).await;
    }
}

fn target() -> Target {
    Target::new("m", "")
}

// === keys ===

#[tokio::test(start_paused = true)]
async fn a_key_that_one_instance_finds_bad_serves_at_no_other_until_one_of_them_finds_it_good() {
    let mut stream = Stream::new();
    let ((one, pool, _), (other, others, _)) = (instance(), instance());
    stream.settle(&[&one, &other]).await;
    assert_eq!(stream.taken, 0);
    call(&pool, LEAKED).await;
    let bad = states(&pool);
    assert_eq!(bad.iter().filter(|state| **state == "disabled").count(), 1);
    assert_eq!(states(&others), ["active"; 3]);
    stream.settle(&[&one, &other]).await;
    assert_eq!(states(&others), bad);
    let reason = others.snapshot().into_iter().find_map(|report| match report.state {
        KeyState::Disabled { reason, .. } => Some(reason),
        _ => None,
    });
    assert!(matches!(reason, Some(DisabledReason::Refused(kind)) if kind.as_str() == "key_leaked"), "{reason:?}");
    // The other one checks it, and it is good again.
    let good =
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) });
    let checks = tokio::time::timeout(Duration::from_secs(500), others.recheck(good)).await;
    assert!(checks.is_err() && states(&others) == ["active"; 3] && states(&pool) == bad);
    stream.settle(&[&one, &other]).await;
    assert_eq!(states(&pool), ["active"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_taken_out_by_hand_is_out_everywhere_and_comes_back_by_hand_wherever_that_is() {
    let mut stream = Stream::new();
    let all: [_; 3] = std::array::from_fn(|_| instance());
    let news = [&all[0].0, &all[1].0, &all[2].0];
    for (off, on) in [(0, 1), (1, 0), (2, 2)] {
        all[off].1.disable(&key(1));
        stream.settle(&news).await;
        for (_, pool, _) in &all {
            assert_eq!(states(pool), ["active", "disabled", "active"]);
            let state = pool.snapshot()[1].state;
            assert!(matches!(state, KeyState::Disabled { reason: DisabledReason::ByHand, .. }), "{state:?}");
        }
        all[on].1.enable(&key(1));
        stream.settle(&news).await;
        assert!(all.iter().all(|(_, pool, _)| states(pool) == ["active"; 3]));
    }
    assert_eq!(stream.taken, 6, "each change was told once");
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_is_not_told_again() {
    let mut stream = Stream::new();
    let ((one, pool, breakers), (other, _, _)) = (instance(), instance());
    pool.disable(&key(0));
    call(&pool, DAY).await;
    break_calls(&breakers, 3, 503).await;
    stream.probes(&[&one, &other], Duration::from_secs(600)).await;
    let (told, heard) = (one.report(), other.report());
    assert_eq!((told.told, told.heard, told.taken_up), (3, 0, 0), "{told:?}");
    assert_eq!((heard.told, heard.heard, heard.taken_up), (0, 3, 3), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_found_later_counts_whoever_tells_it_first() {
    let mut stream = Stream::new();
    let ((one, pool, _), (other, others, _)) = (instance(), instance());
    stream.settle(&[&one, &other]).await;
    // One of them does not reach the server, and takes a key out, which the other has long enabled again then.
    pool.disable(&key(0));
    stream.probes(&[&other], Duration::from_secs(60)).await;
    others.disable(&key(0));
    stream.probes(&[&other], Duration::from_secs(60)).await;
    others.enable(&key(0));
    stream.settle(&[&other]).await;
    stream.settle(&[&one, &other]).await;
    assert_eq!((states(&pool), states(&others)), (vec!["active"; 3], vec!["active"; 3]));
    // The same, and the one that was away has found its own later.
    others.disable(&key(1));
    stream.settle(&[&other]).await;
    others.enable(&key(1));
    stream.settle(&[&other]).await;
    pool.disable(&key(1));
    stream.settle(&[&one, &other]).await;
    assert_eq!((states(&pool)[1], states(&others)[1]), ("disabled", "disabled"));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_starts_reads_what_all_others_know_and_believes_it_more_than_what_it_has_kept() {
    let mut stream = Stream::new();
    let (one, pool, _) = instance();
    stream.settle(&[&one]).await;
    pool.disable(&key(0));
    pool.disable(&key(1));
    call(&pool, DAY).await;
    let kept = pool.memory();
    stream.settle(&[&one]).await;
    pool.enable(&key(1));
    pool.lift_project("p2");
    stream.settle(&[&one]).await;
    // Many other events lie between.
    for _ in 0..600 {
        stream.add(r#"{"version": 1, "from": "x", "at": 0, "facts": []}"#);
    }
    advance(Duration::from_secs(10)).await;
    let (new, news, _) = instance();
    news.restore(&kept);
    stream.probes(&[&new, &one], Duration::from_secs(5)).await;
    assert_eq!(states(&news), ["disabled", "active", "active"]);
    assert_eq!(states(&pool), ["disabled", "active", "active"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_takes_the_place_of_another_hears_the_last_words() {
    let mut stream = Stream::new();
    let ((one, pool, _), (other, _, _)) = (instance(), instance());
    pool.disable(&key(0));
    call(&pool, DAY).await;
    stream.settle(&[&one, &other]).await;
    let told = stream.taken;
    let anew = pool_of(&KEYS);
    other.share_keys(anew.clone());
    other.share_parks(anew.clone());
    stream.settle(&[&one, &other]).await;
    assert_eq!((states(&anew), stream.taken), (states(&pool), told));
    // One without the key says nothing of it.
    other.share_keys(pool_of(&KEYS[1..]));
    other.share_parks(None);
    stream.settle(&[&one, &other]).await;
    assert_eq!((states(&pool)[0], stream.taken), ("disabled", told));
}

#[tokio::test(start_paused = true)]
async fn what_is_switched_off_is_neither_told_nor_taken_up() {
    let mut stream = Stream::new();
    let ((one, pool, breakers), (other, others, other_breakers)) = (instance(), instance());
    other.share_keys(None);
    other.share_breakers(None);
    pool.disable(&key(0));
    others.disable(&key(1));
    call(&pool, DAY).await;
    break_calls(&breakers, 3, 503).await;
    stream.settle(&[&one, &other]).await;
    assert_eq!(states(&pool).iter().filter(|state| **state == "disabled").count(), 1);
    assert_eq!(states(&others).iter().filter(|state| **state == "disabled").count(), 1);
    assert_eq!(states(&others)[1], "disabled");
    assert_eq!(others.snapshot().iter().filter(|report| !report.models.is_empty()).count(), 1);
    assert_eq!(other_breakers.state(&target()), BreakerState::Closed);
    let nothing = SharedNews::new();
    assert!(nothing.ask("p:news").commands.is_empty());
}

// === blocks ===

fn parked(pool: &KeyPool) -> usize {
    pool.snapshot().iter().filter(|report| !report.models.is_empty()).count()
}

#[tokio::test(start_paused = true)]
async fn a_block_is_taken_up_with_its_looks_and_ends_where_it_ends_elsewhere() {
    let mut stream = Stream::new();
    let ((one, pool, _), (other, others, _)) = (instance(), instance());
    stream.settle(&[&one, &other]).await;
    call(&pool, DAY).await;
    stream.settle(&[&one, &other]).await;
    assert_eq!((parked(&pool), parked(&others)), (1, 1));
    let look = |pool: &KeyPool| pool.snapshot().iter().find_map(|report| Some(report.models.first()?.look)).unwrap();
    assert!(look(&others) >= look(&pool) + Duration::from_millis(999), "{:?} {:?}", look(&others), look(&pool));
    assert!(look(&others) <= look(&pool) + Duration::from_secs(8));
    // An operator lifts it at the other one.
    let project = pool.snapshot().into_iter().find(|report| !report.models.is_empty()).unwrap().project;
    assert!(others.lift_project(&project));
    stream.settle(&[&one, &other]).await;
    assert_eq!((parked(&pool), parked(&others)), (0, 0));
    // And one that ends by itself is told to nobody.
    let told = stream.taken;
    call(&pool, DAY).await;
    stream.probes(&[&one, &other], Duration::from_secs(26 * 3_600)).await;
    assert_eq!((parked(&pool), parked(&others), stream.taken), (0, 0, told + 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_at_one_instance_ends_a_block_at_all() {
    let mut stream = Stream::new();
    let ((one, pool, _), (other, others, _)) = (instance(), instance());
    // With a single project, the look goes there.
    let (pools, key) = ([&pool, &others], |pool: &KeyPool, at| pool.remove(&self::key(at)));
    for pool in pools {
        assert!(key(pool, 1) && key(pool, 2));
    }
    stream.settle(&[&one, &other]).await;
    call(&pool, DAY).await;
    stream.settle(&[&one, &other]).await;
    assert_eq!((parked(&pool), parked(&others)), (1, 1));
    advance(Duration::from_secs(30)).await;
    call(&others, GOOD).await;
    assert_eq!((parked(&pool), parked(&others)), (1, 0));
    stream.settle(&[&one, &other]).await;
    assert_eq!((parked(&pool), parked(&others)), (0, 0));
}

// === breakers ===

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_at_one_instance_is_open_at_the_others_and_each_probes_for_itself() {
    let mut stream = Stream::new();
    let ((one, _, breakers), (other, _, others)) = (instance(), instance());
    stream.settle(&[&one, &other]).await;
    break_calls(&breakers, 3, 503).await;
    assert_eq!(breakers.state(&target()), BreakerState::Open);
    let mut transitions = others.subscribe();
    stream.settle(&[&one, &other]).await;
    assert_eq!(others.state(&target()), BreakerState::Open);
    let opening = transitions.next().await.unwrap();
    let open_for = opening.open_for.unwrap();
    assert!(open_for > Duration::from_secs(1) && open_for < Duration::from_secs(8), "{open_for:?}");
    assert_eq!(opening.reason.to_string(), "3 requests failed in another instance");
    // It closes at one, which is told to nobody.
    advance(Duration::from_secs(4)).await;
    break_calls(&breakers, 1, 200).await;
    stream.settle(&[&one, &other]).await;
    assert_eq!(breakers.state(&target()), BreakerState::Ramping);
    advance(Duration::from_secs(4)).await;
    assert_eq!(others.state(&target()), BreakerState::HalfOpen);
    // Its single probe fails; that it is open again opens nothing where calls are answered.
    break_calls(&others, 1, 503).await;
    assert_eq!(others.state(&target()), BreakerState::Open);
    stream.settle(&[&one, &other]).await;
    assert_eq!(breakers.state(&target()), BreakerState::Ramping);
    assert_eq!(stream.taken, 2);
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_network_is_down_closes_nothing_for_those_who_get_answers() {
    let mut stream = Stream::new();
    let ((one, _, breakers), (other, _, others)) = (instance(), instance());
    for _ in 0..120 {
        break_calls(&breakers, 3, 503).await;
        break_calls(&others, 1, 200).await;
        stream.probes(&[&one, &other], Duration::from_secs(1)).await;
        assert_eq!(others.state(&target()), BreakerState::Closed);
    }
    assert!(other.report().heard >= 10, "{:?}", other.report());
    // Once they get none, they believe it.
    for _ in 0..25 {
        break_calls(&breakers, 3, 503).await;
        stream.probes(&[&one, &other], Duration::from_secs(1)).await;
    }
    assert_ne!(others.state(&target()), BreakerState::Closed);
}

// === what goes wrong ===

#[tokio::test(start_paused = true)]
async fn what_a_flush_has_lost_is_told_again_by_one_of_those_who_know_it() {
    let mut stream = Stream::new();
    let all: [_; 4] = std::array::from_fn(|_| instance());
    let news: Vec<_> = all.iter().map(|(news, ..)| news).collect();
    all[0].1.disable(&key(0));
    all[1].1.disable(&key(1));
    stream.settle(&news).await;
    call(&all[2].1, DAY).await;
    stream.settle(&news).await;
    let before = stream.taken;
    assert_eq!(before, 3);
    // The instances that have told them are gone.
    stream.flush();
    stream.probes(&news[3..], Duration::from_secs(5)).await;
    let (late, pool, _) = instance();
    stream.settle(&[&late]).await;
    assert_eq!(states(&pool), states(&all[3].1));
    assert_eq!(states(&pool)[..2], ["disabled"; 2]);
    // Few tell it twice where all of them are there.
    stream.flush();
    let before = stream.taken;
    stream.probes(&news, Duration::from_secs(5)).await;
    assert!((1..=8).contains(&(stream.taken - before)), "{}", stream.taken - before);
    // Changes in between are not lost either.
    stream.flush();
    all[0].1.enable(&key(0));
    stream.probes(&news, Duration::from_secs(5)).await;
    assert!(all.iter().all(|(_, pool, _)| states(pool)[..2] == ["active", "disabled"]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_with_an_earlier_clock_is_read_from_its_beginning() {
    let mut stream = Stream::new();
    let ((one, pool, _), (other, others, _)) = (instance(), instance());
    pool.disable(&key(0));
    stream.settle(&[&one, &other]).await;
    stream.flush();
    stream.time -= 3_600_000;
    pool.disable(&key(1));
    stream.probes(&[&one, &other], Duration::from_secs(5)).await;
    assert_eq!(states(&others), ["disabled", "disabled", "active"]);
    others.enable(&key(0));
    stream.settle(&[&one, &other]).await;
    assert_eq!(states(&pool), ["active", "disabled", "active"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_server_refuses_or_whose_reply_is_lost_is_told_again() {
    let mut stream = Stream::new();
    let ((one, pool, _), (other, others, _)) = (instance(), instance());
    stream.settle(&[&one, &other]).await;
    stream.is_full = true;
    pool.disable(&key(0));
    stream.probes(&[&one, &other], Duration::from_secs(2)).await;
    assert_eq!(states(&others), ["active"; 3]);
    stream.is_full = false;
    stream.settle(&[&one, &other]).await;
    assert_eq!(states(&others)[0], "disabled");
    // The server has carried it out, and nobody knows.
    pool.disable(&key(1));
    let asked = one.ask("p:news");
    asked.commands.iter().for_each(|command| drop(stream.run(command)));
    drop(asked);
    let told = stream.taken;
    stream.probes(&[&one, &other], Duration::from_secs(5)).await;
    assert_eq!((states(&others)[1], stream.taken), ("disabled", told + 1));
    // Replies of another sort, or too few, are no replies.
    for replies in [vec![], vec![Value::Nil], vec![Value::Okay, Value::Int(1), Value::Nil]] {
        one.take(one.ask("p:news"), &replies, stream.now());
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_are_broken_or_unknown_are_passed_over() {
    let mut stream = Stream::new();
    let ((one, pool, breakers), (other, others, other_breakers)) = (instance(), instance());
    stream.settle(&[&one, &other]).await;
    let at = millis(wall());
    let fact = |fact: &str| format!(r#"{{"version": 1, "from": "x", "at": {at}, "facts": [{fact}]}}"#);
    let long = fact(&format!(r#"{{"kind": "key", "key": "{}"}}"#, "0".repeat(100_000)));
    let texts = [
        "".to_owned(),
        "\0\u{1}".to_owned(),
        "[[[[".repeat(10_000),
        long,
        r#"{"version": 2, "from": "x", "at": 0, "facts": []}"#.to_owned(),
        r#"{"version": 1, "from": 7}"#.to_owned(),
        fact(r#"{"kind": "tomorrow"}"#),
        fact(r#"{"kind": "key", "key": "+1234567", "age": 0}"#),
        fact(r#"{"kind": "key", "key": "x", "age": -1}"#),
        fact(&format!(
            r#"{{"kind": "key", "key": "{}", "age": 0, "disabled": {{"reason": "boredom", "since": 1}}}}"#,
            key(0)
        )),
        fact(r#"{"kind": "park", "project": "p0", "part": "all", "age": 0}"#),
        fact(
            r#"{"kind": "park", "project": "p0", "part": "model", "model": "m", "age": 0, "block": {"kind": "nothing", "ends": 9, "look": 9, "step_ms": 9}}"#,
        ),
        fact(&format!(
            r#"{{"kind": "open", "model": "m", "endpoint": "", "until": {}, "openings": 4000000000}}"#,
            at / 1_000 - 5
        )),
        fact(&format!(r#"{{"kind": "open", "model": "{}", "endpoint": "", "until": {}}}"#, "m".repeat(600), u64::MAX)),
    ];
    let count = texts.len();
    for text in texts {
        stream.add(text);
    }
    stream.settle(&[&one, &other]).await;
    for (pool, breakers) in [(&pool, &breakers), (&others, &other_breakers)] {
        assert_eq!(states(pool), ["active"; 3]);
        assert!(breakers.snapshot().is_empty(), "{:?}", breakers.snapshot());
    }
    let ignored = other.report().ignored;
    assert!((6..=count as u64).contains(&ignored), "{ignored}");
    // Those behind them are read.
    pool.disable(&key(0));
    stream.settle(&[&one, &other]).await;
    assert_eq!(states(&others)[0], "disabled");
    // No end that is told is believed for longer than the upstream itself would be.
    stream.add(fact(&format!(
        r#"{{"kind": "open", "model": "m", "endpoint": "", "until": {}, "openings": 9}}"#,
        u64::MAX
    )));
    stream.settle(&[&other]).await;
    assert_eq!(other_breakers.state(&target()), BreakerState::Open);
    advance(Duration::from_secs(301)).await;
    assert_eq!(other_breakers.state(&target()), BreakerState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_stays_bounded_and_what_matters_is_told_again_behind_it() {
    let mut stream = Stream::new();
    let ((one, pool, _), (other, others, _)) = (instance(), instance());
    pool.disable(&key(0));
    stream.settle(&[&one, &other]).await;
    let at = millis(wall());
    for number in 0..20_000u32 {
        let facts: Vec<_> = (0..16u32)
            .map(|fact| {
                let key = Fingerprint::of((number * 16 + fact).to_le_bytes());
                format!(
                    r#"{{"kind": "key", "key": "{key}", "age": 0, "disabled": {{"reason": "by_hand", "since": {}}}}}"#,
                    at / 1_000
                )
            })
            .collect();
        stream.add(format!(r#"{{"version": 1, "from": "flood", "at": {at}, "facts": [{}]}}"#, facts.join(",")));
    }
    assert!(stream.events.len() <= KEPT + 100);
    let asked = other.ask("p:news");
    assert!(asked.commands.len() <= TOLD + 3);
    stream.probes(&[&one, &other], Duration::from_secs(10)).await;
    let report = other.report();
    assert!(report.known <= register::MOST && report.heard <= 16 * 1_200, "{report:?}");
    assert_eq!(states(&others), ["disabled", "active", "active"]);
    // The flood has pushed it off the stream, and it is there again.
    let (late, pool, _) = instance();
    stream.probes(&[&late], Duration::from_secs(3)).await;
    assert_eq!(states(&pool), ["disabled", "active", "active"]);
}

// === the form ===

#[tokio::test(start_paused = true)]
async fn an_event_is_small_and_has_nothing_secret_in_it() {
    let mut stream = Stream::new();
    let (one, pool, breakers) = instance();
    pool.disable(&key(0));
    stream.probe(&one);
    stream.settle(&[&one]).await;
    call(&pool, DAY).await;
    stream.settle(&[&one]).await;
    break_calls(&breakers, 3, 503).await;
    stream.settle(&[&one]).await;
    let sizes: Vec<_> = stream.events.iter().map(|(_, text)| text.len()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < 260), "{sizes:?}");
    println!("bytes of an event that tells a key, a block, an opening: {sizes:?}");
    let all: Vec<u8> = stream.events.iter().flat_map(|(_, text)| text.clone()).collect();
    assert!(!String::from_utf8(all).unwrap().contains("secret"));
    assert!(!format!("{one:?}").contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn no_two_clocks_have_to_agree() {
    // The teller's wall clock is a day ahead, and the reader's server says that the event is 2 s old.
    let (now, at) = (Instant::now(), millis(wall()) + 86_400_000);
    let until = at / 1_000 + 8;
    let mut stream = Stream::new();
    let (one, _, breakers) = instance();
    stream.add(format!(
        r#"{{"version": 1, "from": "x", "at": {at}, "facts": [{{"kind": "open", "model": "m", "endpoint": "", "until": {until}, "openings": 1}}]}}"#
    ));
    let mut transitions = breakers.subscribe();
    advance(Duration::from_secs(2)).await;
    stream.probe(&one);
    let open_for = transitions.next().await.unwrap().open_for.unwrap();
    assert!(open_for >= Duration::from_secs(4) && open_for <= Duration::from_secs(9), "{open_for:?}");
    assert_eq!(Instant::now() - now, Duration::from_secs(2));
}

// === all together ===

#[derive(Clone, Debug)]
enum Action {
    Disable(usize, usize),
    Enable(usize, usize),
    Park(usize),
    Lift(usize, usize),
    Probe(usize),
    LostReply(usize),
    Flush,
    Trim,
    Restart(usize),
    Wait(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let (who, key) = (0..3usize, 0..3usize);
    prop_oneof![
        3 => (who.clone(), key.clone()).prop_map(|(who, key)| Action::Disable(who, key)),
        3 => (who.clone(), key.clone()).prop_map(|(who, key)| Action::Enable(who, key)),
        1 => who.clone().prop_map(Action::Park),
        1 => (who.clone(), key).prop_map(|(who, key)| Action::Lift(who, key)),
        8 => who.clone().prop_map(Action::Probe),
        1 => who.clone().prop_map(Action::LostReply),
        1 => Just(Action::Flush),
        1 => Just(Action::Trim),
        1 => who.prop_map(Action::Restart),
        4 => (1..5_000u64).prop_map(Action::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn all_come_to_the_same_and_each_key_is_as_it_was_last_set(actions in prop::collection::vec(action(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut stream = Stream::new();
            let mut all: Vec<_> = (0..3).map(|_| instance()).collect();
            for (news, ..) in &all {
                stream.probe(news);
            }
            let mut last = [false; 3];
            for action in actions {
                // No two things happen at once.
                advance(Duration::from_millis(30)).await;
                match action {
                    Action::Disable(who, key) => {
                        // Whoever is out already stays so, for the old reason.
                        if states(&all[who].1)[key] != "disabled" {
                            all[who].1.disable(&self::key(key));
                            last[key] = true;
                        }
                    }
                    Action::Enable(who, key) => {
                        if states(&all[who].1)[key] == "disabled" {
                            all[who].1.enable(&self::key(key));
                            last[key] = false;
                        }
                    }
                    Action::Park(who) => call(&all[who].1, DAY).await,
                    Action::Lift(who, key) => drop(all[who].1.lift(&self::key(key))),
                    // A change is told with the next probe, and found no later than that.
                    Action::Probe(who) => stream.probe(&all[who].0),
                    Action::LostReply(who) => {
                        let asked = all[who].0.ask("p:news");
                        asked.commands.iter().for_each(|command| drop(stream.run(command)));
                    }
                    Action::Flush => stream.flush(),
                    Action::Trim => drop(stream.events.drain(..stream.events.len() / 2)),
                    Action::Restart(who) => {
                        // It has told all that it knows, others have heard it, and it keeps it.
                        let news: Vec<_> = all.iter().map(|(news, ..)| news).collect();
                        stream.probes(&news, Duration::from_secs(5)).await;
                        let kept = all[who].1.memory();
                        advance(Duration::from_secs(2)).await;
                        all[who] = instance();
                        all[who].1.restore(&kept);
                    }
                    Action::Wait(ms) => advance(Duration::from_millis(ms)).await,
                }
                // A change is found when it happens: all that have changed something notice it.
                for (news, ..) in &all {
                    news.shared.state.lock().notice(Instant::now());
                }
            }
            let news: Vec<_> = all.iter().map(|(news, ..)| news).collect();
            stream.probes(&news, Duration::from_secs(20)).await;
            for (_, pool, _) in &all {
                let disabled: Vec<_> = pool
                    .snapshot()
                    .iter()
                    .map(|report| matches!(report.state, KeyState::Disabled { .. }))
                    .collect();
                prop_assert_eq!(&disabled, &last.to_vec());
                prop_assert_eq!(parked(pool), parked(&all[0].1));
            }
            // And nobody tells anything any more.
            let taken = stream.taken;
            stream.probes(&news, Duration::from_secs(20)).await;
            prop_assert_eq!(stream.taken, taken);
            Ok(())
        })?;
    }
}

/// Names the shared state, which clones share.
#[test]
fn clones_are_the_same_news() {
    let one = SharedNews::new();
    assert!(Arc::ptr_eq(&one.shared, &one.clone().shared));
}
