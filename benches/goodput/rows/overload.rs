//! An upstream of limited capacity that is offered more than it has for two minutes, and less than it has afterwards. Turning an
//! attempt away costs it a twentieth of what an answer costs, so that enough retries keep it from answering at all, long after
//! the cause is gone: attempts at once and without end answer 4 % of all calls here, and it never becomes normal.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use crate::{
    caller::Preset,
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
    const FIGURES: &[Figure] =
        &[Figure::share("answered"), Figure::seconds("normal after, s"), Figure::ratio("attempts a call")];
    let row = |name, preset, bars| Row {
        name,
        scenario: "1.2 of the capacity for 120 s, then 0.7 of it for 300 s",
        preset,
        seeds: 5,
        figures: FIGURES,
        optimum: Some(&[1.0, 0.0, 1.0]),
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
    let upstream = Upstream::new(Crowded::default());
    let caller = run.contestant.caller(run.preset, &upstream);
    let capacity = PLACES as f64 / SERVICE.as_secs_f64();
    let mut calls = Calls::new(&upstream);
    let crowd = poisson(!run.seed, capacity * 1.2, Duration::ZERO, OVERLOAD);
    let rest = poisson(run.seed, capacity * 0.7, OVERLOAD, END);
    for at in crowd.into_iter().chain(rest) {
        calls.at(at, &caller).await;
    }
    let done = calls.all().await;
    vec![
        Value::of(answered(&done), done.len()),
        Value::one(normal_after(&done).as_secs_f64()),
        Value::of(upstream.attempts().len(), done.len()),
    ]
}

/// Returns the time from the end of the overload until the first ten seconds of whose calls nine in ten are answered within
/// ten seconds; if there are none, the time for which it is watched.
fn normal_after(done: &[Done]) -> Duration {
    const SPAN: Duration = Duration::from_secs(10);
    let is_normal = |from: Duration| {
        let of: Vec<_> = done.iter().filter(|call| (from..from + SPAN).contains(&call.begun)).collect();
        let good = of.iter().filter(|call| call.is_answered() && call.took() <= SPAN).count();
        good * 10 >= of.len() * 9
    };
    let watched = (END - OVERLOAD).as_secs();
    let normal = (0..=watched - SPAN.as_secs()).find(|second| is_normal(OVERLOAD + Duration::from_secs(*second)));
    Duration::from_secs(normal.unwrap_or(watched))
}
