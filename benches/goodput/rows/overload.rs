//! An upstream of limited capacity that is offered more than it has for two minutes, and less than it has afterwards. Turning an
//! attempt away costs it a twentieth of what an answer costs, so that enough retries keep it from answering at all, long after
//! the cause is gone: attempts at once and without end answer 4 % of all calls here, and it never
//! recovers.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range, time::Duration};

use crate::{
    caller::{Contestant, End, Preset},
    calls::{Calls, Done, answered, poisson},
    row::{
        Bar::{AtLeast, AtMost},
        Figure, Row, Run, Value,
    },
    upstream::{Asked, Model, Reply, Upstream},
};

/// The attempts that it serves at the same time: ten a second.
const PLACES: usize = 20;
const SERVICE: Duration = Duration::from_secs(2);
/// The time for which a refusal takes a place.
const REFUSAL: Duration = Duration::from_millis(100);

const OVERLOAD: Duration = Duration::from_secs(120);
const END: Duration = Duration::from_secs(420);

pub(super) fn rows() -> Vec<Row> {
    const FIGURES: &[Figure] = &[
        Figure::share("answered"),
        Figure::seconds("the upstream has recovered after, s"),
        Figure::seconds("the backlog is gone after, s"),
        Figure::ratio("attempts a call"),
    ];
    let row = |name, preset, bars| Row {
        name,
        scenario: "1.2 of the capacity for 120 s, then 0.7 of it for 300 s",
        preset,
        seeds: 5,
        figures: FIGURES,
        optimum: None,
        bars,
        run: |run| Box::pin(overload(run)),
    };
    vec![
        row("overload-interactive", Preset::Interactive, &[]),
        row("overload-relay", Preset::Relay, &[(0, AtLeast(0.97)), (1, AtMost(20.0))]),
    ]
}

/// The upstream. The heap has the times at which its work ends.
#[derive(Default)]
struct Crowded {
    work: BinaryHeap<Reverse<Duration>>,
}

impl Model for Crowded {
    fn ask(&mut self, at: Duration, _: &Asked) -> Reply {
        while self.work.peek().is_some_and(|Reverse(ends)| *ends <= at) {
            self.work.pop();
        }
        let has_room = self.work.len() < PLACES;
        self.work.push(Reverse(at + if has_room { SERVICE } else { REFUSAL }));
        if has_room { Reply::Answer(SERVICE) } else { Reply::Overloaded }
    }
}

async fn overload(run: Run) -> Vec<Value> {
    let arrivals = arrivals(run.seed);
    if run.contestant == Contestant::Optimum {
        return one_queue(&arrivals);
    }
    let upstream = Upstream::new(Crowded::default());
    let caller = run.contestant.caller(run.preset, &upstream);
    let mut calls = Calls::new(&upstream);
    for at in arrivals {
        calls.at(at, &caller).await;
    }
    let done = calls.all().await;
    let attempts = upstream.attempts();
    let answers: Vec<_> = attempts.iter().filter(|attempt| attempt.answers).map(|attempt| attempt.at).collect();
    vec![
        Value::of(answered(&done), done.len()),
        Value::one(recovered_after(&done, &answers).as_secs_f64()),
        Value::one(backlog_gone_after(&done).as_secs_f64()),
        Value::of(attempts.len(), done.len()),
    ]
}

fn arrivals(seed: u64) -> Vec<Duration> {
    let capacity = PLACES as f64 / SERVICE.as_secs_f64();
    let mut arrivals = poisson(!seed, capacity * 1.2, Duration::ZERO, OVERLOAD);
    arrivals.extend(poisson(seed, capacity * 0.7, OVERLOAD, END));
    arrivals
}

/// Computes the optimum: all calls in one queue, each of which goes when a place is free.
fn one_queue(arrivals: &[Duration]) -> Vec<Value> {
    let mut begun: Vec<Duration> = Vec::new();
    for (nth, arrival) in arrivals.iter().enumerate() {
        let free = nth.checked_sub(PLACES).map_or(Duration::ZERO, |before| begun[before] + SERVICE);
        begun.push(free.max(*arrival));
    }
    let done: Vec<_> = arrivals
        .iter()
        .zip(&begun)
        .map(|(arrival, at)| Done { begun: *arrival, ended: *at + SERVICE, end: End::Answered })
        .collect();
    vec![
        Value::of(done.len(), done.len()),
        Value::one(recovered_after(&done, &begun).as_secs_f64()),
        Value::one(backlog_gone_after(&done).as_secs_f64()),
        Value::of(done.len(), done.len()),
    ]
}

/// The time over which it is judged.
const SPAN: Duration = Duration::from_secs(10);

/// Returns the time from the end of the overload until the upstream answers nine tenths of what it is offered again: whatever is
/// lost then is lost to retries.
fn recovered_after(done: &[Done], answers: &[Duration]) -> Duration {
    first_normal(|span| {
        let offered = done.iter().filter(|call| span.contains(&call.begun)).count();
        answers.iter().filter(|at| span.contains(at)).count() * 10 >= offered * 9
    })
}

/// Returns the time from the end of the overload until nine tenths of the new calls are answered within ten seconds.
fn backlog_gone_after(done: &[Done]) -> Duration {
    first_normal(|span| {
        let of: Vec<_> = done.iter().filter(|call| span.contains(&call.begun)).collect();
        of.iter().filter(|call| call.is_answered() && call.took() <= SPAN).count() * 10 >= of.len() * 9
    })
}

/// Returns the time from the end of the overload until the first span that is normal; if there is none, the time for which it
/// is watched.
fn first_normal(is_normal: impl Fn(Range<Duration>) -> bool) -> Duration {
    let watched = (END - OVERLOAD).as_secs();
    let normal = (0..=watched - SPAN.as_secs()).find(|second| {
        let from = OVERLOAD + Duration::from_secs(*second);
        is_normal(from..from + SPAN)
    });
    Duration::from_secs(normal.unwrap_or(watched))
}
