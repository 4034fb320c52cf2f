//! `[store]` of the relay as a process: right and wrong settings, a server that is away or shared by four relays, and the
//! password that nothing says.
//!
//! Those that need a server start one of their own: `cargo test -p relay --test relay_store -- --ignored`. The two of the full
//! size take three minutes each: `cargo test --release -p relay --test relay_store -- --ignored at_full_size`.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/support/redis_server.rs"]
mod redis_server;
mod relay_fleet;
mod relay_page;
mod relay_process;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;
use tower_gemini::{
    client::Client,
    emulator::{Trouble, When},
};

use redis_server::RedisServer;
use relay_fleet::{Fleet, MINUTE, fullest_minute};
use relay_page::Page;
use relay_process::{PATIENCE, Relay, checked, ended_with, refused_at};

const FLASH: &str = "gemini-2.5-flash";
const PRO: &str = "gemini-2.5-pro";
const LITE: &str = "gemini-2.5-flash-lite";
const EMULATOR: &str = "upstream = \"emulator\"\n";
const PASSWORD: &str = "the-password-of-the-store";

/// A store that nobody can reach: no server listens on that port.
const NOWHERE: &str = "redis://127.0.0.1:1";

async fn get(relay: &Relay, path: &str) -> (StatusCode, String) {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri_of(path)).build().unwrap();
    let response = timeout(PATIENCE, client.oneshot(Request::get(path).body(Full::default()).unwrap()));
    let (head, body) = response.await.expect("no answer").unwrap().into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    (head.status, String::from_utf8(body.to_vec()).unwrap())
}

async fn status(relay: &Relay) -> Value {
    serde_json::from_str(&get(relay, "/status").await.1).unwrap()
}

async fn ask(relay: &Relay) -> StatusCode {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
    let body = Full::from(r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#);
    let request = Request::post(format!("/v1beta/models/{FLASH}:generateContent")).body(body).unwrap();
    timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap().status()
}

// --- settings ---

#[tokio::test]
async fn the_documented_store_is_accepted_and_described() {
    let documented = r#"
        [store]
        redis = "redis://valkey:6379"
        prefix = "tower-gemini"
        share = ["quota", "parks", "keys", "breakers"]
        instances = 4
        leases = true
    "#;
    let (code, described, remarks) = checked(&format!("{EMULATOR}{documented}")).await;
    assert_eq!((code, &*remarks), (Some(0), ""), "{described}");
    let line = described.lines().find(|line| line.starts_with("shared store")).unwrap_or_else(|| panic!("{described}"));
    for words in ["redis://valkey:6379, for quota, parks, keys, breakers", "\"tower-gemini\"", "4 relays until"] {
        assert!(line.contains(words), "no {words:?} in {line}");
    }
    for (store, says) in [
        ("redis = \"rediss://me:p@cache.example:6380/0\"", "rediss://cache.example:6380/0, for quota, parks"),
        ("redis = \"redis+sentinel://a:26379,b/mymaster\"\nshare = [\"quota\"]", "/mymaster, for quota"),
        ("redis = \"redis+cluster://a:7000,b:7001\"\nleases = false", "without leases"),
        ("redis = \"valkey://valkey\"\nshare = [\"keys\", \"parks\"]", "valkey://valkey, for parks, keys"),
    ] {
        let (code, described, remarks) = checked(&format!("{EMULATOR}[store]\n{store}")).await;
        assert_eq!((code, &*remarks), (Some(0), ""), "{store}");
        assert!(described.contains(says), "{store}: no {says:?} in {described}");
    }
}

#[tokio::test]
async fn a_wrong_store_is_refused_with_its_line_and_what_would_be_right() {
    for (settings, place, says) in [
        ("[stor]\nredis = \"redis://h\"", "1:2", &["did you mean store?"][..]),
        ("store = \"redis://h\"", "1:9", &["store is a text here; it is a section, [store]"]),
        ("[store]", "1:1", &["[store] has no redis", "redis://host:6379"]),
        ("[store]\nreddis = \"redis://h\"", "2:1", &["did you mean redis?"]),
        ("[store]\nredis = 6379", "2:9", &["is a whole number here", "\"redis://host:6379\""]),
        ("[store]\nredis = \"h:6379\"", "2:9", &["the scheme is missing"]),
        ("[store]\nredis = \"reddis://h\"", "2:9", &["the scheme is unknown", "did you mean redis://?"]),
        ("[store]\nredis = \"redis+sentinel://h\"", "2:9", &["/mymaster"]),
        ("[store]\nredis = \"redis://h:99999\"", "2:9", &["a port is no number"]),
        ("[store]\nredis = \"env:RELAY_TEST_UNSET\"", "2:9", &["RELAY_TEST_UNSET is not set"]),
        ("[store]\nredis = \"env:\"", "2:9", &["env:NAME"]),
        ("[store]\nredis = \"redis://h\"\nprefix = \"\"", "3:10", &["is empty"]),
        ("[store]\nredis = \"redis://h\"\nprefix = \"a b\"", "3:10", &["other characters"]),
        ("[store]\nredis = \"redis://h\"\nshare = \"quota\"", "3:9", &["is a text here", "a list with any of"]),
        ("[store]\nredis = \"redis://h\"\nshare = [\"quotas\"]", "3:9", &["did you mean \"quota\"?"]),
        ("[store]\nredis = \"redis://h\"\nshare = []", "3:9", &["take [store] out"]),
        ("[store]\nredis = \"redis://h\"\ninstances = 0", "3:13", &["is 0", "from 1"]),
        ("[store]\nredis = \"redis://h\"\nleases = \"no\"", "3:10", &["true or false"]),
        ("leases = false\n[store]\nredis = \"redis://h\"", "1:1", &["belongs in [store]"]),
    ] {
        refused_at(settings, place, says).await;
    }
}

#[tokio::test]
async fn a_variable_stands_in_place_of_the_files_address() {
    let wrong = "redis+sentinal://me:the-password-of-the-store@h/m";
    let (code, said) = ended_with(EMULATOR, &[("RELAY_STORE_REDIS", wrong)]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("RELAY_STORE_REDIS") && said.contains("did you mean redis+sentinel://?"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    for settings in
        [EMULATOR.to_owned(), format!("{EMULATOR}[store]\nprefix = \"a\"\nredis = \"env:RELAY_TEST_UNSET\"\n")]
    {
        let relay = Relay::start_logging(&settings, &[("RELAY_STORE_REDIS", NOWHERE)]).await;
        assert_eq!(status(&relay).await["store"]["address"], "127.0.0.1:1");
        let log = relay.logged("shared store").await;
        assert!(log.contains(NOWHERE), "{log}");
    }
}

#[tokio::test]
async fn an_address_on_which_others_read_or_write_is_remarked_on() {
    for (address, says) in [
        ("redis://:the-password-of-the-store@cache.example", "goes to cache.example unencrypted"),
        ("redis+sentinel://:the-password-of-the-store@10.0.0.1,8.8.8.8/m", "write rediss+sentinel://"),
        ("redis://8.8.8.8", "there is no password"),
        ("rediss://cache.example", "there is no password"),
    ] {
        let (code, _, remarks) = checked(&format!("{EMULATOR}[store]\nredis = {address:?}")).await;
        assert_eq!((code, remarks.lines().count()), (Some(0), 1), "{address}: {remarks}");
        assert!(remarks.contains(":3:9: redis: ") && remarks.contains(says), "{address}: {remarks}");
        assert!(!remarks.contains(PASSWORD), "{remarks}");
    }
    let (_, _, remarks) =
        checked(&format!("{EMULATOR}[store]\nredis = \"redis://h\"\nshare = [\"keys\"]\nleases = false")).await;
    assert!(remarks.contains(":5:10: leases has no effect: share has no \"quota\""), "{remarks}");
}

#[tokio::test]
async fn the_settings_for_compose_are_right() {
    let compose = include_str!("../compose.yml");
    // Compose refuses to write settings into a container whose root is only read; a file is mounted.
    assert!(compose.contains("relay.toml: {file: compose.toml}") && !compose.contains("content:"), "{compose}");
    let settings = include_str!("../compose.toml");
    let variables = [
        ("RELAY_STORE_REDIS", "redis://:the-password-of-the-store@127.0.0.1:1"),
        ("RELAY_UPSTREAM", "emulator"),
        ("RELAY_TOKEN", "a-token-of-some-length"),
        ("GEMINI_API_KEY", "key-of-the-relay"),
    ];
    for (name, _) in variables.iter().filter(|(name, _)| *name != "RELAY_UPSTREAM") {
        assert!(compose.contains(&format!("    {name}: ")), "{name}");
    }
    let relay = Relay::start_logging(settings, &variables).await;
    let log = relay.logged("60 requests a minute for every model; shares its quota").await;
    assert!(log.contains("redis://127.0.0.1:1, for quota"), "{log}");
    let mut warnings = log.lines().filter(|line| line.contains(" WARN "));
    assert!(warnings.all(|line| line.contains("server is away")) && !log.contains(PASSWORD), "{log}");
}

// --- a server that is away ---

#[tokio::test]
async fn a_relay_whose_store_is_away_serves_its_share_and_says_so() {
    let settings = format!("{EMULATOR}[store]\nredis = {NOWHERE:?}\n[limits.default]\nrpm = 100\nmax_wait = \"0s\"\n");
    let relay = Relay::start(&settings).await;
    // The share has its size after 1.6 s: until then a server that is only slow could still answer.
    sleep(Duration::from_secs(2)).await;
    // 0.8 of 100 for 4 relays: nobody has told how many there are.
    for nth in 0..20 {
        assert_eq!(ask(&relay).await, StatusCode::OK, "{nth}");
    }
    assert_eq!(ask(&relay).await, StatusCode::TOO_MANY_REQUESTS);
    let status = status(&relay).await;
    let store = &status["store"];
    assert_eq!((&store["connected"], &store["instances"]), (&false.into(), &4.into()), "{store}");
    assert!(store["away"].is_string() && store["away_for_s"].is_number() && store["server"].is_null(), "{store}");
    let wrong =
        &status["wrong"].as_array().unwrap().iter().find(|wrong| wrong["what"].as_str().unwrap().contains("The store"));
    let wrong = wrong.unwrap_or_else(|| panic!("{status}"));
    assert!(
        wrong["level"] == "warn" && wrong["what"].as_str().unwrap().contains("no more than 20 %, as one of 4"),
        "{wrong}"
    );
    let metrics = get(&relay, "/metrics").await.1;
    for line in [
        "tower_gemini_store_connected{reason=\"unreachable\",gen_ai_request_model=\"\"} 0",
        "tower_gemini_store_instances{gen_ai_request_model=\"\"} 4",
        "tower_gemini_store_decided_locally_total{by=\"share\",gen_ai_request_model=\"\"} 21",
    ] {
        assert!(metrics.lines().any(|each| each == line), "no {line} in {metrics}");
    }
    assert_eq!(get(&relay, "/readyz").await.0, StatusCode::OK, "callers are answered");
}

#[tokio::test]
async fn the_password_is_said_nowhere() {
    let settings = format!("{EMULATOR}[store]\nredis = \"redis://of-relays:{PASSWORD}@127.0.0.1:1/3\"\n");
    let (_, described, remarks) = checked(&settings).await;
    assert!(!described.contains(PASSWORD) && !remarks.contains(PASSWORD), "{described} {remarks}");
    assert!(described.contains("redis://127.0.0.1:1/3"), "{described}");
    // In a wrong place, nobody knows that it is one.
    for slip in [format!("prefix = \"redis://:{PASSWORD}@h\""), format!("share = [{PASSWORD:?}]")] {
        let (code, _, said) = checked(&format!("{EMULATOR}[store]\nredis = \"redis://h\"\n{slip}\n")).await;
        assert!(code == Some(2) && said.contains(":4:") && !said.contains(PASSWORD), "{said}");
    }
    let relay = Relay::start_talkative(&settings).await;
    assert_eq!(ask(&relay).await, StatusCode::OK);
    for path in ["/", "/status", "/metrics"] {
        let (code, body) = get(&relay, path).await;
        assert_eq!(code, StatusCode::OK, "{path}");
        assert!(!body.contains(PASSWORD), "{path}: {body}");
    }
    let log = relay.reload(&format!("{settings}share = [\"quotas\", \"{PASSWORD}\"]\n")).await;
    assert!(log.contains("did you mean"), "{log}");
    let said = relay.said().await;
    assert!(said.contains("shared store") && !said.contains(PASSWORD), "{said}");
}

#[tokio::test]
async fn a_reload_keeps_the_store_unless_its_own_settings_change() {
    let settings = format!("{EMULATOR}[store]\nredis = {NOWHERE:?}\n");
    let relay = Relay::start_logging(&settings, &[]).await;
    let instance = async || status(&relay).await["store"]["instance"].as_str().map(str::to_owned);
    let first = instance().await;
    assert!(first.is_some());
    relay.reload(&format!("{settings}[limits.default]\nrpm = 5\n[breaker]\nmode = \"consecutive\"\n")).await;
    assert_eq!(instance().await, first, "limits and breakers are no matter of the store's");
    relay.reload(&format!("{settings}prefix = \"other\"\n")).await;
    let second = instance().await;
    assert!(second.is_some() && second != first, "{second:?}");
    relay.reload(&format!("{settings}share = []\n")).await;
    assert_eq!(instance().await, second, "wrong settings change nothing");
    let instances = async || {
        let metrics = get(&relay, "/metrics").await.1;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("tower_gemini_store_instances{gen_ai_request_model=\"\"} "));
        line.map(str::to_owned).unwrap_or_else(|| panic!("{metrics}"))
    };
    assert_eq!(instances().await, "4");
    relay.reload(EMULATOR).await;
    assert_eq!((instance().await, &*instances().await), (None, "0"), "an alert would never end otherwise");
}

#[tokio::test]
async fn another_store_forgets_no_call_of_the_last_minute() {
    let limits = "[limits.default]\nrpm = 100\nmax_wait = \"0s\"\n";
    let relay = Relay::start_logging(&format!("{EMULATOR}{limits}"), &[]).await;
    for _ in 0..100 {
        assert_eq!(ask(&relay).await, StatusCode::OK);
    }
    relay.reload(&format!("{EMULATOR}[store]\nredis = {NOWHERE:?}\n{limits}")).await;
    assert_eq!(ask(&relay).await, StatusCode::TOO_MANY_REQUESTS);
}

// --- a server ---

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn the_page_and_the_status_show_a_server_that_counts() {
    let server = RedisServer::start();
    let fleet = Fleet::start(2, &server.url(), "[limits.default]\nrpm = 50\n").await;
    fleet.until_connected().await;
    for nth in 0..10 {
        fleet.call(nth, FLASH).await.unwrap();
    }
    let stores = fleet.stores().await;
    for store in &stores {
        assert_eq!(
            (&store["away"], &store["granted"], &store["scopes"]),
            (&Value::Null, &5.into(), &1.into()),
            "{store}"
        );
        assert!(
            store["server"]
                .as_str()
                .is_some_and(|server| server.starts_with("redis ") || server.starts_with("valkey ")),
            "{store}"
        );
        assert_eq!(store["share"].as_f64(), Some(0.4), "{store}");
    }
    let status = status(&fleet.relays[0]).await;
    let metrics = get(&fleet.relays[1], "/metrics").await.1;
    assert!(metrics.contains("tower_gemini_store_connected{reason=\"\",gen_ai_request_model=\"\"} 1"), "{metrics}");
    // Each knows of the other's calls with its next own.
    let used = &status["models"][0]["limits"][0]["dimensions"][0];
    assert_eq!((&used["used"], &used["used_here"], &used["max"]), (&9.into(), &5.into(), &50.into()), "{status}");
}

#[tokio::test]
#[ignore = "needs a redis-server and Chromium; .ci/run does"]
async fn in_a_browser_the_page_shows_the_store() {
    let mut server = RedisServer::start();
    let fleet = Fleet::start(1, &server.url(), "").await;
    fleet.until_connected().await;
    let mut page = Page::open(&fleet.relays[0].operator_uri()).await;
    page.until("document.querySelector('#head').textContent === 'All is well'").await;
    page.until("document.body.innerText.includes('Shared quota') && document.body.innerText.includes('1 relay ')")
        .await;
    page.picture("store.png").await;
    server.kill();
    page.until("document.body.innerText.includes('is away for')").await;
    page.until("document.querySelector('#head').textContent === 'It works, but needs attention'").await;
    page.picture("store-away.png").await;
    page.close().await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn relays_tell_each_other_of_keys_parks_and_closed_quota() {
    let server = RedisServer::start();
    let fleet = Fleet::start(3, &server.url(), "[limits.default]\nrpm = 1000\nmax_wait = \"0s\"\n").await;
    fleet.until_connected().await;
    // A refusal for the day that one of them has got, none of the others asks for again.
    fleet.emulator.trouble(When::always().model(PRO), Trouble::day_quota());
    let begun = Instant::now();
    while fleet.arrivals(PRO).is_empty() {
        assert!(fleet.call(0, PRO).await.unwrap_err().starts_with("429") && begun.elapsed() < PATIENCE);
    }
    let is_parked = |status: &Value| status["parked"].as_array().unwrap().iter().any(|park| park["model"] == PRO);
    let took = fleet.until_status("parked", is_parked).await;
    println!("parked everywhere after {took:.2?}");
    let asked = fleet.arrivals(PRO).len();
    for nth in 0..6 {
        assert!(fleet.call(nth, PRO).await.unwrap_err().starts_with("429"));
    }
    assert_eq!(fleet.arrivals(PRO).len(), asked);
    // An operator lifts it, where it was refused.
    fleet.emulator.clear_troubles();
    fleet.wish(0, "/lift").await;
    let took = fleet.until_status("lifted", |status| !is_parked(status)).await;
    println!("lifted everywhere after {took:.2?}");
    fleet.call(2, PRO).await.unwrap();

    let key = fleet.status().await[0]["keys"][0]["fingerprint"].as_str().unwrap().to_owned();
    for (wish, state) in [("disable", "disabled"), ("enable", "active")] {
        fleet.wish(0, &format!("/keys/{key}/{wish}")).await;
        let took = fleet.until_status(wish, |status| status["keys"][0]["state"] == state).await;
        println!("{state} everywhere after {took:.2?}");
        for relay in 0..3 {
            assert_eq!(fleet.call(relay, FLASH).await.is_ok(), state == "active", "{state} {relay}");
        }
    }
    for store in fleet.stores().await {
        println!("  {store}");
        assert!(store["news"]["told"].as_u64().unwrap() + store["news"]["taken_up"].as_u64().unwrap() > 0, "{store}");
    }
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_relay_that_shares_quota_alone_keeps_its_keys_to_itself() {
    let server = RedisServer::start();
    let fleet = Fleet::start(2, &server.url(), "share = [\"quota\"]\n[limits.default]\nrpm = 1000\n").await;
    fleet.until_connected().await;
    let key = fleet.status().await[0]["keys"][0]["fingerprint"].as_str().unwrap().to_owned();
    fleet.wish(0, &format!("/keys/{key}/disable")).await;
    sleep(Duration::from_secs(2)).await;
    let states: Vec<_> = fleet.status().await.iter().map(|status| status["keys"][0]["state"].clone()).collect();
    assert_eq!(states, ["disabled", "active"]);
    fleet.call(1, FLASH).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_callers_limit_is_one_over_two_relays() {
    let server = RedisServer::start();
    let callers = "[[callers]]\nname = \"app\"\ntoken = \"token-of-the-app\"\nrpm = 5\nrpd = 100\n\
                   [[callers]]\nname = \"job\"\ntoken = \"token-of-the-job\"\nrpm = 5\n";
    let fleet = Fleet::start(2, &server.url(), callers).await;
    fleet.until_connected().await;
    let call = async |relay: usize, token: &str| {
        let client: Client<Full<Bytes>> = Client::builder().base_url(fleet.relays[relay].uri()).build().unwrap();
        let body = Full::from(r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#);
        let request = Request::post(format!("/v1beta/models/{FLASH}:generateContent")).header("x-goog-api-key", token);
        let answer = timeout(PATIENCE, client.oneshot(request.body(body).unwrap())).await.expect("no answer").unwrap();
        let waits = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().parse::<u64>().unwrap());
        (answer.status(), waits)
    };
    for token in ["token-of-the-app", "token-of-the-job"] {
        let mut served = 0;
        for nth in 0..16 {
            // All at one relay first, which the other has to know.
            let (status, waits) = call(usize::from(nth >= 3), token).await;
            match status {
                StatusCode::OK => served += 1,
                status => {
                    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{nth}");
                    assert!(waits.is_some_and(|wait| (50..=62).contains(&wait)), "{waits:?}");
                }
            }
        }
        assert_eq!(served, 5, "{token}");
    }
    assert_eq!(call(0, "token-of-the-app").await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(fleet.arrivals(FLASH).len(), 10);
}

// --- one quota ---

/// A number of calls at once, and the limit that holds for all relays together.
#[derive(Clone, Copy)]
struct Rush {
    calls: usize,
    limit: usize,
    /// The most calls that are under way at once.
    at_once: usize,
}

/// Sends all calls through four relays. All of them are answered, no minute at the upstream has more than the limit, and of
/// it at least 98 % are used. Returns the part of the quota that was used until the last call went.
async fn rush(rush: Rush) -> f64 {
    let Rush { calls, limit, at_once } = rush;
    let server = RedisServer::start();
    // The emulator takes 1,024 connections at once. A burst that needs more waits for them, and arrives long after it was charged.
    let pacing = if limit > 1_000 { "pacing = \"smooth\"\nburst = 100\n" } else { "" };
    let fleet = Fleet::start(4, &server.url(), &format!("[limits.default]\nrpm = {limit}\n{pacing}")).await;
    fleet.until_connected().await;
    // Connections to the upstream: a call that has to open one arrives later after its charge than others do.
    let warm = join_all((0..limit.min(1_000)).map(|nth| fleet.call(nth, LITE))).await;
    assert!(warm.iter().all(Result::is_ok), "{warm:?}");
    let (fleet, places) = (Arc::new(fleet), Arc::new(Semaphore::new(at_once)));
    let calls_under_way = (0..calls).map(|nth| {
        let (fleet, places) = (fleet.clone(), places.clone());
        tokio::spawn(async move {
            let _place = places.acquire().await.unwrap();
            fleet.call(nth, FLASH).await
        })
    });
    for (nth, answer) in join_all(calls_under_way).await.into_iter().enumerate() {
        answer.unwrap().unwrap_or_else(|failure| panic!("call {nth}: {failure}"));
    }
    let arrivals = fleet.arrivals(FLASH);
    // One that was sent twice, because its connection was lost, has taken quota twice.
    assert!((calls..=calls + calls / 100).contains(&arrivals.len()), "{}", arrivals.len());
    let calls = arrivals.len();
    let (fullest, begun) = fullest_minute(&arrivals);
    // The last may go so many minutes after the one that had its place in the first minute, if each is as full as it may be.
    let took = arrivals[calls - 1] - arrivals[(calls - 1) % limit];
    let least = MINUTE * ((calls - 1) / limit) as u32;
    let used = least.as_secs_f64() / took.as_secs_f64();
    // The shortest time in which one call more than the limit has arrived.
    let closest = (limit..calls).map(|nth| arrivals[nth] - arrivals[nth - limit]).min().unwrap();
    println!(
        "{calls} calls at {limit} a minute: {took:.2?} for {least:?}, {:.1} % used; the fullest minute has {fullest}, from {begun:.1?} on; one \
         more than the limit took {closest:.3?}",
        used * 100.0
    );
    let in_ten_seconds = |nth: u64| arrivals.iter().filter(|at| at.as_secs() / 10 == nth).count();
    println!(
        "  each ten seconds: {:?}",
        (0..=arrivals[calls - 1].as_secs() / 10).map(in_ten_seconds).collect::<Vec<_>>()
    );
    for store in fleet.stores().await {
        println!("  {store}");
    }
    assert!(fullest <= limit, "{fullest} calls in a minute that begins at {begun:?}");
    assert!(fullest * 100 >= limit * 98, "{fullest} calls in the fullest minute");
    used
}

#[tokio::test]
#[ignore = "needs a redis-server, and a minute; .ci/run does"]
async fn four_relays_never_send_more_than_their_one_limit() {
    // A busy machine, on which the server's answers come late, may use less than that in all.
    rush(Rush { calls: 90, limit: 60, at_once: 90 }).await;
}

#[tokio::test]
#[ignore = "needs a redis-server, and three minutes in which nothing else runs"]
async fn at_full_size_two_hundred_calls_at_once_share_sixty_a_minute() {
    let used = rush(Rush { calls: 200, limit: 60, at_once: 200 }).await;
    assert!(used >= 0.98, "{used}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a redis-server, a release build of this test, and three minutes in which nothing else runs"]
async fn at_full_size_twenty_thousand_calls_share_six_thousand_a_minute() {
    // More than a whole minute's quota is always waiting.
    let used = rush(Rush { calls: 20_000, limit: 6_000, at_once: 8_000 }).await;
    assert!(used >= 0.98, "{used}");
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn relays_that_come_later_share_what_is_left() {
    let server = RedisServer::start();
    let settings = "[limits.default]\nrpm = 40\nmax_wait = \"0s\"\n";
    let fleet = Fleet::start(2, &server.url(), settings).await;
    fleet.until_connected().await;
    // Of a server that has just started, others may have known more: until it has learned that, each has its share only.
    sleep(Duration::from_millis(2_100)).await;
    let mut answered = 0;
    for nth in 0..100 {
        answered += usize::from(fleet.call(nth, FLASH).await.is_ok());
    }
    assert_eq!((answered, fleet.arrivals(FLASH).len()), (40, 40));
    // One that has just started knows nothing of these calls but by the server.
    let late = Fleet::start(1, &server.url(), settings).await;
    late.until("connected", |store| store["connected"] == true).await;
    assert!(late.call(0, FLASH).await.unwrap_err().starts_with("429"), "the project's minute is used");
    assert_eq!(late.arrivals(FLASH), [Duration::ZERO; 0]);
}

// --- what it costs ---

/// The rounds in which the relays take turns, and the calls of one round: no call of one is under way while another's is.
const ROUNDS: usize = 12;
const CALLS: usize = 2_000;

/// The most that half of the calls may take longer with a store, as a share of their time without one: without leases, and
/// with them. Without, a call that is alone on two cores waits for three threads that sleep: the server's, that of its
/// connection, and its own.
const ADDED: [f64; 2] = [1.0, 0.1];

#[tokio::test]
#[ignore = "needs a redis-server, a release build, and half a minute in which nothing else runs"]
async fn at_full_size_the_store_adds_little_to_a_call() {
    let server = RedisServer::start();
    let limits = "[limits.default]\nrpm = 1000000\n";
    let store = |leases: bool| format!("[store]\nredis = {:?}\nleases = {leases}\n{limits}", server.url());
    let settings = [limits.to_owned(), store(false), store(true)].map(|more| format!("{EMULATOR}{more}"));
    let relays = join_all(settings.iter().map(|settings| Relay::start_quiet(settings))).await;
    for relay in &relays[1..] {
        while status(relay).await["store"]["connected"] != true {
            sleep(Duration::from_millis(50)).await;
        }
    }
    sleep(Duration::from_secs(2)).await;
    let addresses: Vec<_> = relays.iter().map(Relay::address).collect();
    let times = spawn_blocking(move || {
        let mut callers: Vec<_> = addresses.into_iter().map(|address| (Caller::connect(address), Vec::new())).collect();
        for round in 0..=ROUNDS {
            for (caller, times) in &mut callers {
                let of_round: Vec<_> = (0..CALLS).map(|_| caller.call()).collect();
                // The first warms up.
                times.extend(of_round.into_iter().filter(|_| round > 0));
            }
        }
        callers.into_iter().map(|(_, times)| times).collect::<Vec<_>>()
    });
    let [alone, asked, leased] = times.await.unwrap().try_into().unwrap();
    let shown = async |nth: usize| status(&relays[nth]).await["store"].take();
    println!("the store: {}\nwith leases: {}", shown(1).await, shown(2).await);
    let mut p50s = Vec::new();
    for (name, mut times) in [("without a store", alone), ("with one", asked), ("with one and leases", leased)] {
        times.sort_unstable();
        let at = |percent: usize| times[times.len() * percent / 100];
        println!("{name}: p50 {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99));
        p50s.push(at(50));
    }
    for (p50, most) in p50s[1..].iter().zip(ADDED) {
        let added = p50.saturating_sub(p50s[0]);
        assert!(added <= p50s[0].mul_f64(most), "{added:?} more than {:?}", p50s[0]);
    }
}

/// A connection on which one call follows the other.
struct Caller(std::net::TcpStream);

impl Caller {
    const REQUEST: &str = "POST /v1beta/models/gemini-2.5-flash:generateContent HTTP/1.1\r\nhost: relay\r\n\
        content-type: application/json\r\ncontent-length: 46\r\n\r\n{\"contents\": [{\"parts\": [{\"text\": \"hello\"}]}]}";

    fn connect(address: std::net::SocketAddr) -> Self {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Makes a call, and returns the time until its answer was there.
    fn call(&mut self) -> Duration {
        use std::io::{Read, Write};
        let begun = Instant::now();
        self.0.write_all(Self::REQUEST.as_bytes()).unwrap();
        let (mut answer, mut buffer) = (Vec::new(), [0; 4_096]);
        loop {
            let read = self.0.read(&mut buffer).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..read]);
            if is_whole(&answer) {
                break;
            }
        }
        let took = begun.elapsed();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        took
    }
}

/// Returns whether an answer has its end, by its length or by its last chunk.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.map_or_else(|| body.ends_with("0\r\n\r\n"), |length: usize| body.len() >= length)
}
