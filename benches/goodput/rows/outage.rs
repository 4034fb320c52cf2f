//! An upstream that is down for three minutes, after ten minutes in which all was well.

use std::time::Duration;

use crate::{
    caller::Preset,
    calls::{Calls, answered, poisson},
    row::{
        Bar::{AtLeast, AtMost},
        Figure, Row, Run, Scenario, Value,
    },
    upstream::{Asked, Model, Reply, Upstream},
};

const SERVICE: Duration = Duration::from_secs(5);
const DOWN_FROM: Duration = Duration::from_secs(600);
const DOWN_UNTIL: Duration = Duration::from_secs(780);
const END: Duration = Duration::from_secs(900);

/// The failed attempts that one call a second cost before: fewer calls must not cost more.
const BEFORE: f64 = 100.0;

pub(super) fn rows() -> Vec<Row> {
    const FIGURES: &[Figure] =
        &[Figure::share("answered of those that came meanwhile"), Figure::seconds("failed attempts")];
    let row = |name, scenario, seeds, bars, run: Scenario| Row {
        name,
        scenario,
        preset: Preset::Relay,
        seeds,
        figures: FIGURES,
        // All can wait for its end, and whoever knew when it is would waste nothing.
        optimum: Some(&[1.0, 0.0]),
        bars,
        run,
    };
    vec![
        row("outage-0.02", "an outage of 180 s, 0.02 calls/s", 60, &[(0, AtLeast(0.95)), (1, AtMost(BEFORE))], |run| {
            Box::pin(outage(run, 0.02))
        }),
        row("outage-0.1", "an outage of 180 s, 0.1 calls/s", 30, &[(0, AtLeast(0.99)), (1, AtMost(BEFORE))], |run| {
            Box::pin(outage(run, 0.1))
        }),
        row("outage-0.3", "an outage of 180 s, 0.3 calls/s", 20, &[(0, AtLeast(0.99)), (1, AtMost(BEFORE))], |run| {
            Box::pin(outage(run, 0.3))
        }),
        row("outage-1", "an outage of 180 s, 1 call/s", 10, &[(0, AtLeast(0.99)), (1, AtMost(BEFORE))], |run| {
            Box::pin(outage(run, 1.0))
        }),
        row("outage-10", "an outage of 180 s, 10 calls/s", 3, &[(0, AtLeast(0.99))], |run| Box::pin(outage(run, 10.0))),
    ]
}

/// The upstream, which is down from one time to another.
pub(super) struct Down {
    pub(super) from: Duration,
    pub(super) until: Duration,
    pub(super) service: Duration,
}

impl Model for Down {
    fn ask(&mut self, at: Duration, _: &Asked) -> Reply {
        if (self.from..self.until).contains(&at) { Reply::Overloaded } else { Reply::Answer(self.service) }
    }
}

async fn outage(run: Run, rate: f64) -> Vec<Value> {
    let upstream = Upstream::new(Down { from: DOWN_FROM, until: DOWN_UNTIL, service: SERVICE });
    let caller = run.contestant.caller(run.preset, &upstream);
    let mut calls = Calls::new(&upstream);
    for at in poisson(!run.seed, rate, Duration::ZERO, END) {
        calls.at(at, &caller).await;
    }
    let mut done = calls.all().await;
    done.retain(|call| (DOWN_FROM..DOWN_UNTIL).contains(&call.begun));
    let failed = upstream.attempts().iter().filter(|attempt| !attempt.answers).count();
    vec![Value::of(answered(&done), done.len()), Value::one(failed as f64)]
}
