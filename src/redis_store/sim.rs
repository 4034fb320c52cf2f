//! Several stores on a plain account of a server, in virtual time, while things happen to the server and the network.
//!
//! The stores are the real ones, with their tasks, looks and time-outs; only the wire and the server are plain. So it is seen
//! what all take together in any minute, whatever happens, in many more ways than with a real server.

mod server;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

pub(super) use self::server::{SimAddress, SimLink};
use self::server::{SimFault, SimServer};
use super::{RedisStore, address::ServerAddress, builder::RedisStoreBuilder};
use crate::quota::{Answer, Correction, Limits, Question, QuotaStore, Reply, Scope};

const INSTANCES: usize = 4;
const SECOND: Duration = Duration::from_secs(1);

fn random_ms(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}

/// The calls that were sent, and the time at which each was.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<(Instant, u64, String)>>>);

impl Sent {
    /// Returns what happened before the first excess.
    fn trace(&self, begun: Instant, limit: u64) -> String {
        let mut all = self.0.lock().clone();
        all.sort_unstable_by_key(|(at, ..)| *at);
        let (mut first, mut sum) = (0, 0);
        for (at, requests, _) in &all {
            sum += requests;
            while all[first].0 + Duration::from_secs(60) <= *at {
                sum -= all[first].1;
                first += 1;
            }
            if sum > limit {
                let mut by = std::collections::BTreeMap::<_, u64>::new();
                for (when, requests, who) in
                    all.iter().filter(|(when, ..)| *when <= *at + 3 * SECOND && *when + 63 * SECOND > *at)
                {
                    *by.entry((when.duration_since(begun).as_millis() / 200, who.clone())).or_default() += requests;
                }
                let list: Vec<_> =
                    by.iter().map(|((t, who), n)| format!("{}.{}:{who}={n}", t / 5, t % 5 * 2)).collect();
                return format!("over at {:.3}: {}", at.duration_since(begun).as_secs_f64(), list.join(" "));
            }
        }
        String::new()
    }

    /// Returns the most requests of any minute.
    fn most(&self) -> u64 {
        let mut all = self.0.lock().clone();
        all.sort_unstable_by_key(|(at, ..)| *at);
        let (mut first, mut sum, mut most) = (0, 0, 0);
        for (at, requests, _) in &all {
            sum += requests;
            while all[first].0 + Duration::from_secs(60) <= *at {
                sum -= all[first].1;
                first += 1;
            }
            most = most.max(sum);
        }
        most
    }
}

fn store(server: &Arc<SimServer>, nth: usize) -> RedisStore {
    let mut builder = RedisStoreBuilder::new("redis://h").unwrap().instance(format!("i{nth}"));
    builder.settings.address = ServerAddress::Sim(SimAddress { server: server.clone(), instance: nth });
    builder.connect()
}

/// Calls at one instance: bursts, and rests between them.
async fn calls(store: RedisStore, nth: usize, limit: u64, sent: Sent, until: Instant) {
    let scope = Scope::new("p", "m");
    while Instant::now() < until {
        let ends = Instant::now() + random_ms(50..6_000);
        while Instant::now() < ends.min(until) {
            let requests = if limit >= 600 { fastrand::u64(1..6) } else { fastrand::u64(1..3) };
            let question = Question::new(requests, 10).limits(Limits::new().requests_per_minute(limit));
            let asked = Instant::now();
            let answer = match store.take(&scope, question) {
                Reply::Now(answer) => answer,
                // Some callers go away.
                Reply::Later(answer) if fastrand::u8(..) < 6 => {
                    let _ = tokio::time::timeout(random_ms(0..25), answer).await;
                    continue;
                }
                Reply::Later(answer) => answer.await,
            };
            let took = asked.elapsed();
            assert!(took <= Duration::from_millis(35), "an answer took {took:?}");
            match answer {
                Answer::Granted(grant) if fastrand::u8(..) < 8 => {
                    let (store, scope) = (store.clone(), scope.clone());
                    tokio::spawn(async move {
                        sleep(random_ms(0..3_000)).await;
                        store.correct(&scope, grant.charge, Correction::refund(requests, 10));
                    });
                }
                Answer::Granted(grant) => {
                    let is_share = grant.charge.1 >> 32 == 0;
                    sent.0.lock().push((
                        Instant::now(),
                        requests,
                        format!("i{nth}{}", if is_share { "share" } else { "" }),
                    ));
                }
                Answer::Full { wait, .. } => sleep(wait.clamp(Duration::from_millis(5), random_ms(10..300))).await,
                answer => panic!("{answer:?}"),
            }
            sleep(random_ms(1..if limit >= 600 { 6 } else { 40 })).await;
        }
        sleep(random_ms(0..4_000)).await;
    }
}

struct Run {
    most: u64,
    all: u64,
    events: Vec<String>,
}

/// Runs four instances for a while, with a fault every few seconds.
fn run(seed: u64, limit: u64, length: Duration, faults: &[fn() -> SimFault]) -> Run {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let server = SimServer::new(INSTANCES);
        let sent = Sent::default();
        let begun = Instant::now();
        let until = begun + length;
        let stores: Vec<_> = (0..INSTANCES).map(|nth| store(&server, nth)).collect();
        let mut tasks = Vec::new();
        for (nth, store) in stores.iter().enumerate() {
            for _ in 0..3 {
                tasks.push(tokio::spawn(calls(store.clone(), nth, limit, sent.clone(), until)));
            }
        }
        let mut events = Vec::new();
        while Instant::now() < until {
            sleep(random_ms(3_000..30_000)).await;
            if Instant::now() >= until {
                break;
            }
            let fault = faults[fastrand::usize(..faults.len())]();
            events.push(format!("{:.3} {fault:?}", begun.elapsed().as_secs_f64()));
            server.suffer(fault).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        let all = sent.0.lock().iter().map(|(_, requests, _)| requests).sum();
        if sent.most() > limit {
            events.push(sent.trace(begun, limit));
        }
        Run { most: sent.most(), all, events }
    })
}

/// Returns the largest excess over the limit, in requests, of many runs.
fn excess(name: &str, limit: u64, faults: &[fn() -> SimFault]) -> u64 {
    let runs = std::env::var("SIM_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(2);
    let first: u64 = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(6);
    let mut worst = 0;
    let (mut over, mut all) = (0, 0);
    for seed in first..first + runs {
        let run = run(seed, limit, 150 * SECOND, faults);
        all += run.all;
        let excess = run.most.saturating_sub(limit);
        if excess > 0 {
            over += 1;
            println!("{name}: seed {seed}: {} of {limit}: {:?}", run.most, run.events);
        }
        worst = worst.max(excess);
    }
    println!("{name}: limit {limit}: {over} of {runs} runs over, worst by {worst}; {} a run", all / runs);
    worst
}

const NONE: fn() -> SimFault = || SimFault::None;
const STOP: fn() -> SimFault = || SimFault::Stop(random_ms(20..5_000));
const KILL: fn() -> SimFault = || SimFault::Kill { down: random_ms(0..3_000), age: None };
const OLD: fn() -> SimFault = || SimFault::Kill { down: random_ms(0..3_000), age: Some(random_ms(0..8_000)) };
const FLUSH: fn() -> SimFault = || SimFault::Flush;
const SLOW: fn() -> SimFault = || SimFault::Slow(random_ms(2..60), random_ms(100..4_000));
const FLAP: fn() -> SimFault = || SimFault::Flap(fastrand::u32(2..12));
const CUT_ALL: fn() -> SimFault = || SimFault::Cut(vec![0, 1, 2, 3], random_ms(20..5_000));
const CUT_ONE: fn() -> SimFault = || SimFault::Cut(vec![fastrand::usize(0..4)], random_ms(50..20_000));
const EVICT: fn() -> SimFault = || SimFault::Evict;
const PROMOTE: fn() -> SimFault = || SimFault::Promote { age: random_ms(0..1_000), clock: fastrand::i64(-200..200) };
const STEP: fn() -> SimFault = || SimFault::Step(fastrand::i64(-1_500..1_500));
const HOUR: fn() -> SimFault = || SimFault::Step(if fastrand::bool() { 3_600_000 } else { -3_600_000 });

macro_rules! sims {
    ($($name:ident: $($fault:ident),+;)*) => { $(
        #[test]
        fn $name() {
            let faults: &[fn() -> SimFault] = &[$($fault),+];
            assert_eq!(excess(stringify!($name), 60, faults), 0);
            assert_eq!(excess(stringify!($name), 1_200, faults), 0);
        }
    )* };
}

sims! {
    no_minute_has_too_many_while_nothing_happens: NONE;
    no_minute_has_too_many_where_the_server_is_restarted_empty: KILL;
    no_minute_has_too_many_where_the_server_is_restarted_with_old_data: OLD;
    no_minute_has_too_many_where_the_clock_is_set: STEP, HOUR;
    no_minute_has_too_many_where_a_replica_is_promoted: PROMOTE;
    no_minute_has_too_many_whatever_happens_to_the_server: STOP, KILL, FLUSH, EVICT, SLOW, FLAP, CUT_ALL, OLD, PROMOTE;
}

#[test]
fn an_instance_that_is_cut_off_takes_a_fifth_of_the_limit_too_many_at_most() {
    assert!(excess("cut off", 60, &[CUT_ONE]) <= 12);
}
