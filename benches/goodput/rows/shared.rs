//! Two programs that share one quota of requests a minute, and know nothing of each other.

use std::time::Duration;

use tower_gemini::quota::Limits;

use crate::{
    caller::{Caller, Contestant, End, Preset},
    calls::{Calls, Done, answered, last_answer, p99, poisson},
    models::Metered,
    row::{
        Bar::{AtLeast, AtMost},
        Figure, Row, Run, Value,
    },
    upstream::Upstream,
};

const SERVICE: Duration = Duration::from_secs(5);

/// The requests a minute: 300 calls need four turns of the window more than the first.
const LIMIT: u64 = 60;

/// The calls of each program in the burst, first all of one, then all of the other, and the time between two of them.
const CALLS: usize = 150;
const APART: Duration = Duration::from_millis(1);

/// The length of the steady traffic.
const LENGTH: Duration = Duration::from_secs(15 * 60);

pub(super) fn rows() -> Vec<Row> {
    const BURST: &[Figure] =
        &[Figure::share("answered"), Figure::seconds("last answer, s"), Figure::ratio("attempts a call")];
    const STEADY: &[Figure] = &[Figure::share("answered"), Figure::seconds("p99, s"), Figure::ratio("attempts a call")];
    vec![
        Row {
            name: "shared-burst",
            scenario: "two processes, one quota, 150 calls at once each",
            preset: Preset::Batch,
            seeds: 5,
            figures: BURST,
            optimum: Some(&[1.0, 245.0, 1.0]),
            bars: &[(0, AtLeast(1.0)), (1, AtMost(260.0))],
            run: |run| Box::pin(burst(run)),
        },
        Row {
            name: "shared-steady",
            scenario: "two processes, one quota, 90 % of it for 15 min",
            preset: Preset::Batch,
            seeds: 5,
            figures: STEADY,
            optimum: None,
            bars: &[],
            run: |run| Box::pin(steady(run)),
        },
    ]
}

/// Makes the callers: each knows the quota, and takes it for its own.
fn callers(run: Run, upstream: &Upstream) -> [Caller; 2] {
    let limits = Limits::new().requests_per_minute(LIMIT);
    [(); 2].map(|()| run.contestant.caller_with(run.preset, |settings| settings.limits(limits), upstream))
}

async fn burst(run: Run) -> Vec<Value> {
    let upstream = Upstream::new(Metered::requests(LIMIT, SERVICE));
    let callers = callers(run, &upstream);
    let mut calls = Calls::new(&upstream);
    for nth in 0..2 * CALLS {
        calls.at(APART * nth as u32, &callers[nth / CALLS]).await;
    }
    let done = calls.all().await;
    vec![
        Value::of(answered(&done), done.len()),
        Value::one(last_answer(&done)),
        Value::of(upstream.attempts().len(), done.len()),
    ]
}

async fn steady(run: Run) -> Vec<Value> {
    if run.contestant == Contestant::Optimum {
        return one_queue(&arrivals(run));
    }
    let upstream = Upstream::new(Metered::requests(LIMIT, SERVICE));
    let callers = callers(run, &upstream);
    let mut calls = Calls::new(&upstream);
    let mut which = fastrand::Rng::with_seed(run.seed);
    for at in arrivals(run) {
        calls.at(at, &callers[which.usize(..2)]).await;
    }
    let done = calls.all().await;
    vec![
        Value::of(answered(&done), done.len()),
        Value::one(p99(&done)),
        Value::of(upstream.attempts().len(), done.len()),
    ]
}

fn arrivals(run: Run) -> Vec<Duration> {
    poisson(!run.seed, LIMIT as f64 / 60.0 * 0.9, Duration::ZERO, LENGTH)
}

/// Computes the optimum: all calls in one queue, each of which goes as soon as the minute before it has room.
fn one_queue(arrivals: &[Duration]) -> Vec<Value> {
    let mut begun: Vec<Duration> = Vec::new();
    let done: Vec<_> = arrivals
        .iter()
        .enumerate()
        .map(|(nth, arrival)| {
            let room = nth.checked_sub(LIMIT as usize).map(|before| begun[before] + Duration::from_secs(60));
            begun.push(room.map_or(*arrival, |room| room.max(*arrival)));
            Done { begun: *arrival, ended: begun[nth] + SERVICE, end: End::Answered }
        })
        .collect();
    vec![Value::of(done.len(), done.len()), Value::one(p99(&done)), Value::of(done.len(), done.len())]
}
