//! Four relays under load whose store fails in each way in which a server can: no call fails for it, no minute at the upstream
//! has more than the limit, and the relays are back within two seconds.
//!
//! They need a server, which they start themselves, and a minute and a half together if they run at once:
//! `cargo test -p relay --test relay_store_chaos -- --ignored --test-threads=6`.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/support/redis_server.rs"]
mod redis_server;
mod relay_fleet;
mod relay_process;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, block_in_place},
    time::{Instant, interval, sleep, sleep_until},
};

use redis_server::RedisServer;
use relay_fleet::{Fleet, fullest_minute};

/// The models, their limits, and the time between two calls of all relays: a fifth more calls than the limit admits. Of the
/// first, relays take leases.
const MODELS: [(&str, usize, Duration); 2] =
    [("gemini-2.5-flash", 600, Duration::from_micros(83_333)), ("gemini-2.5-pro", 60, Duration::from_micros(833_333))];

/// The time for which calls begin: a minute, and some of the next one.
const LOAD: Duration = Duration::from_secs(75);

/// The time at which the trouble begins: a minute's quota is nearly used by then, and none of it is back.
const TROUBLE: Duration = Duration::from_secs(45);

/// The time for which a trouble lasts.
const LASTS: Duration = Duration::from_secs(5);

/// The longest time until the relays are back.
const BACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a redis-server, and a minute and a half; .ci/run does"]
async fn a_server_that_is_killed_and_started_again_loses_no_call_and_no_charge() {
    under_load(async |store, fleet| {
        block_in_place(|| store.server.kill());
        fleet.until("away", |store| store["connected"] == false).await;
        sleep(LASTS).await;
        block_in_place(|| store.server.restart());
        let back = fleet.until_connected().await;
        assert!(fleet.sum("by_share").await > 0, "calls have gone meanwhile");
        back
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a redis-server, and a minute and a half; .ci/run does"]
async fn a_server_that_is_stopped_for_five_seconds_loses_no_call_and_no_charge() {
    under_load(async |store, fleet| {
        store.server.pause();
        fleet.until("away", |store| store["away"] == "no answer in time").await;
        sleep(LASTS).await;
        store.server.resume();
        let back = fleet.until_connected().await;
        assert!(fleet.sum("timeouts").await > 0);
        back
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a redis-server, and a minute and a half; .ci/run does"]
async fn a_server_that_is_flushed_is_told_the_last_minute() {
    under_load(async |store, fleet| {
        let before = fleet.sum("retold").await;
        store.server.flush();
        let begun = Instant::now();
        fleet.until_connected().await;
        while fleet.sum("retold").await < before + MODELS.len() as u64 {
            assert!(begun.elapsed() < BACK, "nobody tells it anything");
            sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a redis-server, and a minute and a half; .ci/run does"]
async fn a_server_that_is_slow_is_not_waited_for() {
    under_load(async |store, fleet| {
        store.slow_down(Duration::from_millis(100));
        fleet.until("away", |store| store["connected"] == false).await;
        sleep(LASTS).await;
        assert!(fleet.stores().await.iter().all(|store| store["connected"] == false), "answers come too late");
        store.slow_down(Duration::ZERO);
        fleet.until_connected().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a redis-server, and a minute and a half; .ci/run does"]
async fn a_server_that_is_restarted_empty_is_told_the_last_minute() {
    under_load(async |store, fleet| {
        let before = fleet.sum("retold").await;
        block_in_place(|| store.server.restart());
        let begun = Instant::now();
        while fleet.sum("retold").await < before + MODELS.len() as u64 {
            assert!(begun.elapsed() < BACK, "nobody tells it anything");
            sleep(Duration::from_millis(20)).await;
        }
        fleet.until_connected().await;
        begun.elapsed()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a redis-server, and a minute and a half; .ci/run does"]
async fn a_server_whose_memory_is_full_is_done_without() {
    under_load(async |store, fleet| {
        store.server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        fleet.until("away", |store| store["away"] == "out of memory").await;
        sleep(LASTS).await;
        store.server.limit_memory(None);
        fleet.until_connected().await
    })
    .await;
}

/// Calls through four relays for longer than a minute, with a trouble of their store in between, which returns the time after
/// which they were back.
async fn under_load(trouble: impl AsyncFnOnce(&mut Store, &Fleet) -> Duration) {
    let mut store = Store::start().await;
    let limits = MODELS.map(|(model, limit, _)| format!("[limits.{model:?}]\nrpm = {limit}\n")).concat();
    let fleet = Arc::new(Fleet::start(4, &store.url(), &limits).await);
    fleet.until_connected().await;
    let begun = Instant::now();
    let callers = MODELS.map(|(model, _, between)| tokio::spawn(calls(fleet.clone(), model, between)));
    sleep_until(begun + TROUBLE).await;
    let back = trouble(&mut store, &fleet).await;
    let trouble_took = begun.elapsed() - TROUBLE;
    for ((model, limit, _), calls) in MODELS.into_iter().zip(join_all(callers).await) {
        let answers = calls.unwrap();
        let failures: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        let arrivals = fleet.arrivals(model);
        let (fullest, from) = fullest_minute(&arrivals);
        // The shortest time in which one call more than the limit has arrived.
        let closest =
            (limit..arrivals.len()).map(|nth| arrivals[nth] - arrivals[nth - limit]).min().unwrap_or_default();
        println!(
            "{model}: {} calls, {} failed; the fullest minute has {fullest} of {limit}, from {from:.1?} on; one more took {closest:.3?}",
            answers.len(),
            failures.len()
        );
        assert!(failures.is_empty(), "{failures:#?}");
        assert_eq!(arrivals.len(), answers.len(), "each has been sent once");
        assert!(fullest <= limit, "{fullest} of {limit} in a minute from {from:?} on");
        assert!(fullest * 10 >= limit * 9, "more were waiting, and {fullest} of {limit} have gone");
    }
    println!("back {back:.2?} after a trouble that took {trouble_took:.1?} in all");
    for store in fleet.stores().await {
        println!("  {store}");
    }
    // On a busy machine an answer may come late at any time.
    fleet.until_connected().await;
    assert!(back <= BACK, "{back:?}");
}

/// Makes calls of a model at an even pace, each through the next relay, and waits for all of them.
async fn calls(fleet: Arc<Fleet>, model: &'static str, between: Duration) -> Vec<Result<(), String>> {
    let (begun, mut ticks, mut calls) = (Instant::now(), interval(between), Vec::new());
    while begun.elapsed() < LOAD {
        ticks.tick().await;
        let (fleet, nth) = (fleet.clone(), calls.len());
        calls.push(tokio::spawn(async move { fleet.call(nth, model).await }));
    }
    join_all(calls).await.into_iter().map(Result::unwrap).collect()
}

// === a server that can be slow ===

/// A server, and the way to it, on which its answers may be late.
struct Store {
    server: RedisServer,
    proxy: SocketAddr,
    /// The time by which each answer comes later, in milliseconds.
    late: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Store {
    async fn start() -> Self {
        let server = block_in_place(RedisServer::start);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (proxy, late, to) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)), server.address());
        let accepting = tokio::spawn(accept(listener, to, late.clone()));
        Self { server, proxy, late, accepting }
    }

    fn url(&self) -> String {
        format!("redis://{}", self.proxy)
    }

    fn slow_down(&self, late: Duration) {
        self.late.store(late.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Hands each connection on to a server. One that the server has not accepted is closed.
async fn accept(listener: TcpListener, to: SocketAddr, late: Arc<AtomicU64>) {
    while let Ok((caller, _)) = listener.accept().await {
        let late = late.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(to).await else { return };
            let _ = (caller.set_nodelay(true), server.set_nodelay(true));
            let ((from_caller, to_caller), (from_server, to_server)) = (caller.into_split(), server.into_split());
            // The end of one direction is the end of both.
            tokio::select! {
                () = pass(from_caller, to_server, Arc::default()) => {}
                () = pass(from_server, to_caller, late) => {}
            }
        });
    }
}

/// Passes bytes on, each piece so many milliseconds after it has come, and in its order.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, late: Arc<AtomicU64>) {
    let (send, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(10_000);
    let read = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + Duration::from_millis(late.load(Ordering::Relaxed));
            if send.send((due, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}
