//! An upstream that turns away a part of its attempts at random, with a 503: bursts and steady traffic.

use std::time::Duration;

use crate::{
    caller::Preset,
    calls::{Calls, Done, answered, last_answer, p99, poisson},
    models::Shedding,
    row::{
        Bar::{AtLeast, TimesOptimum},
        Figure, Row, Run, Scenario, Value,
    },
    upstream::Upstream,
};

/// The time that an answer takes.
const SERVICE: Duration = Duration::from_secs(5);

const BURST: &[Figure] =
    &[Figure::share("answered"), Figure::seconds("last answer, s"), Figure::ratio("attempts a call")];
const STEADY: &[Figure] = &[Figure::share("answered"), Figure::seconds("p99, s"), Figure::ratio("attempts a call")];

pub(super) fn rows() -> Vec<Row> {
    let row = |name, scenario, preset, seeds, figures, bars, run: Scenario| Row {
        name,
        scenario,
        preset,
        seeds,
        figures,
        optimum: None,
        bars,
        run,
    };
    use Preset::{Batch, Interactive};
    vec![
        row("burst-500-30", "500 calls at once, 30 % shed", Batch, 5, BURST, &[(0, AtLeast(0.999))], |run| {
            Box::pin(burst(run, 500, 0.3))
        }),
        row("burst-2000-30", "2,000 calls at once, 30 % shed", Batch, 5, BURST, &[(0, AtLeast(0.999))], |run| {
            Box::pin(burst(run, 2_000, 0.3))
        }),
        row("burst-500-50", "500 calls at once, 50 % shed", Batch, 5, BURST, &[(0, AtLeast(0.999))], |run| {
            Box::pin(burst(run, 500, 0.5))
        }),
        row(
            "steady-10-70",
            "10 calls/s for 5 min, 70 % shed",
            Batch,
            3,
            STEADY,
            &[(0, AtLeast(0.995)), (1, TimesOptimum(8.0))],
            |run| Box::pin(steady(run, 10.0, 5, 0.7)),
        ),
        row("steady-1-30", "1 call/s for 30 min, 30 % shed", Interactive, 5, STEADY, &[(0, AtLeast(0.999))], |run| {
            Box::pin(steady(run, 1.0, 30, 0.3))
        }),
        row("steady-1-50", "1 call/s for 30 min, 50 % shed", Interactive, 5, STEADY, &[(0, AtLeast(0.995))], |run| {
            Box::pin(steady(run, 1.0, 30, 0.5))
        }),
        row("steady-1-70", "1 call/s for 30 min, 70 % shed", Batch, 5, STEADY, &[(0, AtLeast(0.99))], |run| {
            Box::pin(steady(run, 1.0, 30, 0.7))
        }),
    ]
}

async fn burst(run: Run, calls: usize, part: f64) -> Vec<Value> {
    let (done, attempts) = make(run, part, vec![Duration::ZERO; calls]).await;
    vec![Value::of(answered(&done), done.len()), Value::one(last_answer(&done)), Value::of(attempts, done.len())]
}

async fn steady(run: Run, rate: f64, minutes: u64, part: f64) -> Vec<Value> {
    let arrivals = poisson(!run.seed, rate, Duration::ZERO, Duration::from_secs(minutes * 60));
    let (done, attempts) = make(run, part, arrivals).await;
    vec![Value::of(answered(&done), done.len()), Value::one(p99(&done)), Value::of(attempts, done.len())]
}

/// Makes the calls at their times, and returns them with the number of attempts.
async fn make(run: Run, part: f64, arrivals: Vec<Duration>) -> (Vec<Done>, usize) {
    let upstream = Upstream::new(Shedding::new(run.seed, part, SERVICE));
    let caller = run.contestant.caller(run.preset, &upstream);
    let mut calls = Calls::new(&upstream);
    for at in arrivals {
        calls.at(at, &caller).await;
    }
    let done = calls.all().await;
    (done, upstream.attempts().len())
}
