//! A model that thinks for one to two minutes before it answers, and from which one attempt in ten never hears again.

use std::time::Duration;

use fastrand::Rng;

use crate::{
    caller::Preset,
    calls::{Calls, answered, p99, poisson},
    row::{Bar::AtLeast, Figure, Row, Run, Value},
    upstream::{Asked, Model, Reply, Upstream},
};

pub(super) fn rows() -> Vec<Row> {
    const FIGURES: &[Figure] =
        &[Figure::share("answered"), Figure::seconds("p99, s"), Figure::ratio("attempts a call")];
    let row = |name, preset, bars| Row {
        name,
        scenario: "a model that thinks for 60 to 120 s, 10 % hang, 0.2 calls/s for an hour",
        preset,
        seeds: 5,
        figures: FIGURES,
        optimum: Some(&[1.0, 120.0, 1.0]),
        bars,
        run: |run| Box::pin(thinking(run)),
    };
    vec![
        row("thinking-interactive", Preset::Interactive, &[]),
        row("thinking-relay", Preset::Relay, &[(0, AtLeast(0.999))]),
    ]
}

struct Thinking(Rng);

impl Model for Thinking {
    fn ask(&mut self, _: Duration, _: &Asked) -> Reply {
        let seconds = 60.0 + 60.0 * self.0.f64();
        if self.0.f64() < 0.1 { Reply::Hang } else { Reply::Answer(Duration::from_secs_f64(seconds)) }
    }
}

async fn thinking(run: Run) -> Vec<Value> {
    let upstream = Upstream::new(Thinking(Rng::with_seed(run.seed)));
    let caller = run.contestant.caller(run.preset, &upstream);
    let mut calls = Calls::new(&upstream);
    for at in poisson(!run.seed, 0.2, Duration::ZERO, Duration::from_secs(3_600)) {
        calls.at(at, &caller).await;
    }
    let done = calls.all().await;
    vec![
        Value::of(answered(&done), done.len()),
        Value::one(p99(&done)),
        Value::of(upstream.attempts().len(), done.len()),
    ]
}
