//! Many callers who would have to wait longer than they may.

use std::time::Duration;

use tower_gemini::quota::Limits;

use crate::{
    caller::Preset,
    calls::{Calls, Done, answered},
    models::Metered,
    row::{Bar::AtMost, Figure, Row, Run, Value},
    upstream::Upstream,
};

const SERVICE: Duration = Duration::from_secs(5);

/// The requests a minute, all of which are used when the crowd comes.
const LIMIT: u64 = 60;
const CROWD: usize = 500;

/// The time at which it comes: the first of the minute is free again after 40 s.
const COMES: Duration = Duration::from_secs(20);

pub(super) fn rows() -> Vec<Row> {
    const FIGURES: &[Figure] = &[
        Figure::share("answered"),
        Figure { name: "the others know after, s", digits: 3 },
        Figure::ratio("attempts a call"),
    ];
    vec![Row {
        name: "window-used",
        scenario: "500 calls at once, the minute of 60 requests used up",
        preset: Preset::Interactive,
        seeds: 3,
        figures: FIGURES,
        // Sixty could be answered at the end of a longer wait than this preset allows.
        optimum: Some(&[f64::NAN, 0.0, f64::NAN]),
        bars: &[(1, AtMost(0.05))],
        run: |run| Box::pin(crowd(run)),
    }]
}

async fn crowd(run: Run) -> Vec<Value> {
    let upstream = Upstream::new(Metered::requests(LIMIT, SERVICE));
    let limits = Limits::new().requests_per_minute(LIMIT);
    let caller = run.contestant.caller_with(run.preset, |settings| settings.limits(limits), &upstream);
    let mut calls = Calls::new(&upstream);
    for _ in 0..LIMIT {
        calls.at(Duration::ZERO, &caller).await;
    }
    for _ in 0..CROWD {
        calls.at(COMES, &caller).await;
    }
    let mut done = calls.all().await;
    done.drain(..LIMIT as usize);
    let others: Vec<_> = done.iter().filter(|call| !call.is_answered()).map(Done::took).collect();
    let attempts = upstream.attempts().len() - LIMIT as usize;
    vec![
        Value::of(answered(&done), done.len()),
        Value::one(others.into_iter().max().map_or(f64::NAN, |longest| longest.as_secs_f64())),
        Value::of(attempts, done.len()),
    ]
}
