//! A store on a real server: several instances share a quota while it is stopped, killed, emptied, full or slow.

#[path = "support/redis_server.rs"]
mod redis_server;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use redis_server::{RedisReply, RedisServer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tower_gemini::{
    quota::{Answer, Closing, Correction, Dimension, Limits, Question, QuotaStore, Reply, Scope},
    redis_store::{AwayReason, RedisStore, StoreState},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The time of a take that is not to be exceeded on a machine that does other things besides: the store's own is 20 ms.
const TAKE: Duration = Duration::from_millis(150);

fn scope() -> Scope {
    Scope::new("p1", "gemini-2.5-flash")
}

fn question(limit: u64) -> Question {
    Question::new(1, 10).limits(Limits::new().requests_per_minute(limit))
}

fn store(url: &str, name: &str) -> RedisStore {
    RedisStore::builder(url).unwrap().instance(name.to_owned()).connect()
}

/// Returns four instances that have found the server and each other.
async fn four(url: &str) -> Vec<RedisStore> {
    let stores: Vec<_> = (0..4).map(|nth| store(url, &format!("i{nth}"))).collect();
    for store in &stores {
        until("connected", || store.report().state == StoreState::Connected && store.report().instances == 4).await;
    }
    // The server has just been started: until then each has its share only.
    sleep(2_100 * MS).await;
    stores
}

/// Returns whether an instance has missed the server's answers, without any fault of the server's.
fn was_away(stores: &[RedisStore]) -> bool {
    stores.iter().any(|store| store.report().counts.outages > 0)
}

/// Runs a test of exact counts with four instances, and then the checks that it returns. An instance that gets no time from a
/// busy machine for 20 ms takes its share alone, which another test is about: this one begins again.
async fn undisturbed<C: FnOnce()>(test: impl AsyncFn(&RedisServer, &[RedisStore]) -> C) {
    for _ in 0..5 {
        let server = RedisServer::start();
        let stores = four(&server.url()).await;
        let check = test(&server, &stores).await;
        if !was_away(&stores) {
            return check();
        }
    }
    panic!("the machine never had 20 ms for each of the instances");
}

async fn until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < 10 * SECOND, "not within 10 s: {what}");
        sleep(5 * MS).await;
    }
    begun.elapsed()
}

async fn answer(reply: Reply) -> Answer {
    match reply {
        Reply::Now(answer) => answer,
        Reply::Later(answer) => answer.await,
        _ => panic!("an unknown reply"),
    }
}

async fn take(store: &RedisStore, limit: u64) -> Answer {
    answer(store.take(&scope(), question(limit))).await
}

fn is_granted(answer: Answer) -> bool {
    matches!(answer, Answer::Granted(_))
}

/// Returns the requests that the server counts.
fn counted(server: &RedisServer) -> u64 {
    match server.command(&["GETRANGE", "tower-gemini:quota:p1/gemini-2.5-flash", "24", "31"]) {
        RedisReply::Bulk(bytes) if bytes.len() == 8 => u64::from_le_bytes(bytes.try_into().unwrap()),
        _ => 0,
    }
}

/// Calls that come without end at each of the instances.
struct Load {
    granted: Arc<Mutex<Vec<Instant>>>,
    slowest: Arc<Mutex<Duration>>,
    is_over: Arc<AtomicBool>,
}

impl Load {
    fn start(stores: &[RedisStore], limit: u64) -> Self {
        let load = Self { granted: Arc::default(), slowest: Arc::default(), is_over: Arc::default() };
        for store in stores {
            for _ in 0..3 {
                let (store, granted) = (store.clone(), load.granted.clone());
                let (slowest, is_over) = (load.slowest.clone(), load.is_over.clone());
                tokio::spawn(async move {
                    while !is_over.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        let answer = take(&store, limit).await;
                        let took = begun.elapsed();
                        {
                            let mut slowest = slowest.lock();
                            *slowest = took.max(*slowest);
                        }
                        match answer {
                            Answer::Granted(_) => granted.lock().push(Instant::now()),
                            Answer::Full { wait, .. } => sleep(wait.min(20 * MS)).await,
                            answer => panic!("{answer:?}"),
                        }
                        sleep(MS).await;
                    }
                });
            }
        }
        load
    }

    fn granted(&self) -> u64 {
        self.granted.lock().len() as u64
    }

    fn end(&self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let slowest = *self.slowest.lock();
        assert!(slowest < TAKE, "a take took {slowest:?}");
        self.granted()
    }
}

/// Has a third of the quota used, and then calls without end while something happens to the server: what all take together stays
/// within the limit and is not far from it in the end, and all are back soon.
async fn survives(stores: &[RedisStore], meanwhile: impl AsyncFnOnce()) {
    const LIMIT: u64 = 120;
    let mut used = 0;
    for nth in 0.. {
        used += u64::from(is_granted(take(&stores[nth % 4], LIMIT).await));
        if used == LIMIT / 3 {
            break;
        }
        assert!(nth < 1_000, "{used} of {LIMIT} at once");
    }
    sleep(300 * MS).await;
    let begun = Instant::now();
    let load = Load::start(stores, LIMIT);
    meanwhile().await;
    let back = until("all are back", || stores.iter().all(|store| store.report().state == StoreState::Connected)).await;
    // Returned, learned, and used up.
    sleep(4 * SECOND).await;
    let granted = load.end() + LIMIT / 3;
    assert!(begun.elapsed() < 40 * SECOND, "so long that the minute is over");
    let reports: Vec<_> = stores.iter().map(|store| store.report().counts).collect();
    println!("{granted} of {LIMIT}, back after {back:?}, {:?} at most: {reports:#?}", load.slowest.lock());
    assert!(granted <= LIMIT, "{granted} of {LIMIT}: {reports:#?}");
    assert!(granted >= LIMIT - 4, "{granted} of {LIMIT}: {reports:#?}");
    assert!(back < 2 * SECOND, "{back:?}");
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn four_instances_take_what_one_limit_has_and_no_more() {
    undisturbed(async |server, stores| {
        let takes: Vec<_> = (0..200)
            .map(|nth| {
                tokio::spawn({
                    let store = stores[nth % 4].clone();
                    async move { take(&store, 60).await }
                })
            })
            .collect();
        let mut answers = Vec::new();
        for take in takes {
            answers.push(take.await.unwrap());
        }
        let counted = counted(server);
        let report = stores[0].report();
        move || {
            let mut granted = 0;
            for answer in answers {
                match answer {
                    Answer::Granted(grant) => {
                        granted += 1;
                        assert!(grant.requests <= 60 && !grant.is_look);
                    }
                    Answer::Full { dimension, wait } => {
                        assert_eq!(dimension, Some(Dimension::RequestsPerMinute));
                        assert!(wait > 55 * SECOND && wait < 61 * SECOND, "{wait:?}");
                    }
                    answer => panic!("{answer:?}"),
                }
            }
            assert_eq!((granted, counted), (60, 60));
            assert!(report.server.as_deref().is_some_and(|server| server.contains(' ')), "{report:?}");
            assert_eq!((report.counts.takes, report.counts.leases, report.eviction), (50, 0, None));
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn leases_save_most_ways_to_the_server_and_what_is_left_of_them_is_given_back() {
    undisturbed(async |server, stores| {
        let mut granted = 0;
        for nth in 0..3_000 {
            granted += u64::from(is_granted(take(&stores[nth % 4], 6_000).await));
            if nth % 4 == 0 {
                sleep(MS).await;
            }
        }
        let leased: u64 = stores.iter().map(|store| store.report().counts.leased).sum();
        if granted == 3_000 {
            until("the rest is given back", || counted(server) == 3_000 || was_away(stores)).await;
        }
        // The second half is used up to the last.
        let load = Load::start(stores, 6_000);
        sleep(5 * SECOND).await;
        let in_all = granted + load.end();
        move || {
            assert_eq!(granted, 3_000);
            assert!(leased > 2_000, "{leased} of 3,000 from leases");
            assert!((5_880..=6_000).contains(&in_all), "{in_all}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_that_stops_for_five_seconds_costs_no_call_and_no_limit() {
    let server = RedisServer::start();
    let stores = four(&server.url()).await;
    survives(&stores, async || {
        sleep(20 * MS).await;
        server.pause();
        sleep(5 * SECOND).await;
        assert!(stores.iter().all(|store| matches!(store.report().state, StoreState::Away { .. })));
        server.resume();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_that_is_killed_and_comes_back_empty_is_told_everything() {
    let mut server = RedisServer::start();
    let stores = four(&server.url()).await;
    survives(&stores, async || {
        sleep(20 * MS).await;
        server.kill();
        sleep(3 * SECOND).await;
        server.restart();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_that_is_restarted_at_once_is_told_everything() {
    let mut server = RedisServer::start();
    let stores = four(&server.url()).await;
    survives(&stores, async || {
        sleep(20 * MS).await;
        server.restart();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_that_is_flushed_is_told_everything() {
    let server = RedisServer::start();
    let stores = four(&server.url()).await;
    survives(&stores, async || {
        sleep(10 * MS).await;
        server.flush();
        sleep(SECOND).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_whose_memory_is_full_is_away_until_it_has_room() {
    let server = RedisServer::start();
    let stores = four(&server.url()).await;
    survives(&stores, async || {
        server.limit_memory(Some(0));
        until("away", || {
            let full = AwayReason::OutOfMemory;
            stores.iter().all(|store| matches!(store.report().state, StoreState::Away { reason, .. } if reason == full))
        })
        .await;
        sleep(2 * SECOND).await;
        server.limit_memory(None);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_that_is_slow_is_away_until_it_is_fast_again() {
    let server = RedisServer::start();
    let proxy = SlowProxy::start(server.address()).await;
    let stores = four(&proxy.url()).await;
    survives(&stores, async || {
        sleep(20 * MS).await;
        proxy.delay(100);
        sleep(4 * SECOND).await;
        assert!(stores.iter().all(|store| matches!(store.report().state, StoreState::Away { .. })));
        proxy.delay(0);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_that_is_not_there_yet_is_found_and_told_what_was_taken() {
    let mut server = RedisServer::start();
    let url = server.url();
    server.kill();
    let store = store(&url, "alone");
    let begun = Instant::now();
    // A quarter of 60, less a fifth, for one of the four that are assumed.
    let mut granted = 0;
    while begun.elapsed() < 2 * SECOND {
        match store.take(&scope(), question(60)) {
            Reply::Now(Answer::Granted(_)) => granted += 1,
            Reply::Now(Answer::Full { wait, .. }) => sleep(wait.min(20 * MS)).await,
            reply => panic!("{reply:?}"),
        }
    }
    assert_eq!(granted, 12);
    server.restart();
    until("connected", || store.report().state == StoreState::Connected).await;
    until("told", || counted(&server) == 12).await;
    assert_eq!(store.report().instances, 1);
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_take_that_is_dropped_on_its_way_gives_back_what_it_takes() {
    let server = RedisServer::start();
    let proxy = SlowProxy::start(server.address()).await;
    let stores = four(&proxy.url()).await;
    assert!(is_granted(take(&stores[0], 60).await));
    proxy.delay(4);
    for _ in 0..5 {
        let Reply::Later(mut answer) = stores[0].take(&scope(), question(60)) else {
            panic!("below 600, each is asked")
        };
        assert!(futures_util::poll!(&mut answer).is_pending());
        sleep(MS).await;
        drop(answer);
        // Dropped before it was polled: nothing is sent.
        drop(stores[0].take(&scope(), question(60)));
    }
    sleep(100 * MS).await;
    until("given back", || counted(&server) == 1).await;
    assert_eq!(stores[0].report().counts.timed_out, 0);
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn charges_are_corrected_for_all() {
    let server = RedisServer::start();
    let stores = four(&server.url()).await;
    let question = Question::new(1, 700).limits(Limits::new().input_tokens_per_minute(1_000));
    let Answer::Granted(grant) = answer(stores[0].take(&scope(), question)).await else { panic!() };
    assert_eq!((grant.requests, grant.tokens), (1, 700));
    let refused = answer(stores[1].take(&scope(), question)).await;
    assert!(matches!(refused, Answer::Full { dimension: Some(Dimension::InputTokensPerMinute), .. }), "{refused:?}");
    stores[0].correct(&scope(), grant.charge, Correction::settle(700, 300));
    sleep(100 * MS).await;
    let Answer::Granted(grant) = answer(stores[1].take(&scope(), question)).await else { panic!() };
    assert_eq!((grant.requests, grant.tokens), (2, 1_000));
    stores[1].correct(&scope(), grant.charge, Correction::refund(1, 700));
    sleep(100 * MS).await;
    assert_eq!(counted(&server), 1);
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_refusal_closes_the_scope_for_all_and_costs_the_closed_no_way_to_the_server() {
    let server = RedisServer::start();
    let stores = four(&server.url()).await;
    assert!(is_granted(take(&stores[0], 60).await));
    let mut closing = Closing::of(30 * SECOND);
    closing.look = 700 * MS;
    stores[0].close(&scope(), closing);
    let Reply::Now(Answer::Closed(closing)) = stores[0].take(&scope(), question(60)) else {
        panic!("it is remembered")
    };
    assert!(closing.look <= 700 * MS && closing.ends > 29 * SECOND);
    assert_eq!(stores[0].report().overshoot.counts, [1, 0, 0, 0, 0, 0, 0]);
    sleep(100 * MS).await;
    let closed = take(&stores[1], 60).await;
    assert!(matches!(closed, Answer::Closed(closing) if closing.ends > 29 * SECOND), "{closed:?}");
    assert!(matches!(stores[1].take(&scope(), question(60)), Reply::Now(Answer::Closed(_))));
    // One of all looks.
    sleep(SECOND).await;
    let mut looks = 0;
    for nth in 0..8 {
        match take(&stores[nth % 4], 60).await {
            Answer::Granted(grant) => {
                assert!(grant.is_look);
                looks += 1;
            }
            answer => assert!(matches!(answer, Answer::Closed(_)), "{answer:?}"),
        }
    }
    assert_eq!(looks, 1);
    stores[2].open(&scope());
    // The others read it with their next look but one.
    sleep(SECOND).await;
    for store in &stores {
        assert!(is_granted(take(store, 60).await));
    }
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn scripts_that_are_flushed_are_loaded_again_by_the_call_that_needs_them() {
    let server = RedisServer::start();
    let stores = four(&server.url()).await;
    server.command(&["SCRIPT", "FLUSH"]);
    for store in &stores {
        assert!(is_granted(take(store, 60).await));
    }
    assert!(stores.iter().all(|store| store.report().counts.failed == 0 && store.report().counts.outages == 0));
    server.command(&["SCRIPT", "FLUSH"]);
    stores[0].close(&scope(), Closing::of(10 * SECOND));
    sleep(100 * MS).await;
    assert!(matches!(take(&stores[1], 60).await, Answer::Closed(_)));
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn the_connection_ends_with_the_last_handle() {
    let server = RedisServer::start();
    let stores = four(&server.url()).await;
    let clients = || server.command(&["CLIENT", "LIST"]).text().lines().count();
    assert_eq!(clients(), 5);
    let clone = stores[0].clone();
    drop(stores);
    until("three have gone", || clients() == 2).await;
    assert!(is_granted(take(&clone, 60).await));
    drop(clone);
    until("all have gone", || clients() == 1).await;
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_password_is_used_and_never_shown_and_a_wrong_one_leaves_the_share() {
    let server = RedisServer::start_with(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]);
    server.command(&["CONFIG", "SET", "requirepass", "s3cret"]);
    let right = store(&format!("redis://:s3cret@{}", server.address()), "right");
    let wrong = store(&format!("redis://:wr0ng@{}", server.address()), "wrong");
    until("connected", || right.report().state == StoreState::Connected).await;
    assert_eq!(right.report().eviction.as_deref(), Some("allkeys-lru"));
    until("denied", || matches!(wrong.report().state, StoreState::Away { reason: AwayReason::Denied, .. })).await;
    sleep(2 * SECOND).await;
    assert!(is_granted(take(&wrong, 60).await));
    let shown = format!("{right:?} {:?} {wrong:?} {:?}", right.report(), wrong.report());
    assert!(!shown.contains("s3cret") && !shown.contains("wr0ng"), "{shown}");
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_server_without_tls_is_unreachable_by_tls() {
    let server = RedisServer::start();
    let store = store(&format!("rediss://{}", server.address()), "tls");
    until(
        "tried",
        || matches!(store.report().state, StoreState::Away { reason, .. } if reason != AwayReason::Starting),
    )
    .await;
    sleep(2 * SECOND).await;
    assert!(is_granted(take(&store, 60).await));
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_socket_of_the_machine_and_a_cluster_are_servers_like_any() {
    let socket = std::env::temp_dir().join(format!("tower-gemini-store-{}.sock", std::process::id()));
    let server = RedisServer::start_with(&["--unixsocket", socket.to_str().unwrap()]);
    let stores = four(&format!("unix://{}", socket.display())).await;
    assert!(is_granted(take(&stores[0], 60).await));
    assert_eq!(counted(&server), 1);
    drop((stores, server));
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    // Redis 6.2 knows no ranges of them.
    let slots: Vec<_> = (0..16_384).map(|slot| slot.to_string()).collect();
    let command: Vec<_> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
    server.command(&command);
    until("a cluster", || server.command(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok")).await;
    let stores = four(&format!("redis+cluster://{}", server.address())).await;
    let mut granted = 0;
    for nth in 0..70 {
        granted += u64::from(is_granted(take(&stores[nth % 4], 60).await));
    }
    assert_eq!((granted, counted(&server)), (60, 60));
    stores[1].close(&scope(), Closing::of(10 * SECOND));
    sleep(100 * MS).await;
    assert!(matches!(take(&stores[2], 60).await, Answer::Closed(_)));
    server.flush();
    sleep(2 * SECOND).await;
    // The closing is told again, too.
    assert_eq!(counted(&server), 60);
    assert!(matches!(take(&stores[3], 60).await, Answer::Closed(_)));
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_sentinel_names_the_master() {
    let server = RedisServer::start();
    let dir = std::env::temp_dir().join(format!("tower-gemini-sentinel-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = dir.join("sentinel.conf");
    let text = format!("port {port}\nbind 127.0.0.1\nsentinel monitor m 127.0.0.1 {} 1\n", server.port());
    std::fs::write(&config, text).unwrap();
    let program = std::env::var("TOWER_GEMINI_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let mut sentinel = std::process::Command::new(program)
        .arg(&config)
        .arg("--sentinel")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The first does not answer: the next one is asked.
    let store = store(&format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/m/0"), "by a sentinel");
    until("connected", || store.report().state == StoreState::Connected).await;
    sleep(2_100 * MS).await;
    assert!(is_granted(take(&store, 60).await));
    assert_eq!(counted(&server), 1);
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A proxy that passes everything on after a time.
struct SlowProxy {
    port: u16,
    delay: Arc<AtomicU64>,
}

impl SlowProxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let delay = Arc::new(AtomicU64::new(0));
        let proxy = Self { port, delay: delay.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(server).await else { continue };
                client.set_nodelay(true).unwrap();
                upstream.set_nodelay(true).unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), upstream.into_split());
                for (mut from, mut to) in [(from_client, to_server), (from_server, to_client)] {
                    let (late, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
                    let delay = delay.clone();
                    tokio::spawn(async move {
                        let mut piece = vec![0; 64 << 10];
                        while let Ok(read @ 1..) = from.read(&mut piece).await {
                            let at = Instant::now() + MS * delay.load(Ordering::Relaxed) as u32;
                            let _ = late.send((at, piece[..read].to_vec()));
                        }
                    });
                    tokio::spawn(async move {
                        while let Some((at, piece)) = due.recv().await {
                            sleep_until(at).await;
                            if to.write_all(&piece).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("valkey://127.0.0.1:{}", self.port)
    }

    /// Delays what comes from now on by half of these milliseconds in each direction.
    fn delay(&self, ms: u64) {
        self.delay.store(ms / 2, Ordering::Relaxed);
    }
}

#[tokio::test]
#[ignore = "needs a redis-server; .ci/run does"]
async fn a_user_with_the_documented_commands_may_do_all_and_one_without_one_of_them_is_denied() {
    let (docs, server) = (include_str!("../src/redis_store/mod.rs"), RedisServer::start());
    let (_, commands) = docs.split_once("A user needs the commands").unwrap();
    let (commands, _) = commands.split_once("and may be denied INFO").unwrap();
    // SCRIPT LOAD is one command.
    let commands = commands.replace("SCRIPT LOAD", "SCRIPT|LOAD");
    let is_command = |word: &&str| word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c == '|');
    let commands: Vec<_> =
        commands.split([' ', ',', '\n']).filter(is_command).map(|word| format!("+{}", word.to_lowercase())).collect();
    assert!(commands.len() > 10, "{commands:?}");
    let mut user = vec!["ACL", "SETUSER", "relay", "on", ">secret", "~tower-gemini:*"];
    user.extend(commands.iter().map(String::as_str));
    server.command(&user);
    let url = server.url().replace("redis://", "redis://relay:secret@");
    let one = store(&url, "one");
    until("connected", || one.report().state == StoreState::Connected).await;
    assert!(is_granted(take(&one, 60).await));
    server.command(&["ACL", "SETUSER", "relay", "-zscore"]);
    until("denied", || matches!(one.report().state, StoreState::Away { reason: AwayReason::Denied, .. })).await;
}
