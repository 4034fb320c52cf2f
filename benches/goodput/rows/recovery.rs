//! A program that makes one call after the other, and takes what it gets: its first calls after an outage.

use std::time::Duration;

use tokio::time::sleep;
use tower_gemini::RetryPolicy;

use super::outage::Down;
use crate::{
    caller::{End, Preset},
    row::{Bar::AtMost, Figure, Row, Run, Value},
    upstream::{Upstream, request},
};

const DOWN_FROM: Duration = Duration::from_secs(120);

/// The pause after a call that was not answered, until the upstream is back.
const PAUSE: Duration = Duration::from_secs(1);

/// The time after the outage for which the program is watched.
const PATIENCE: Duration = Duration::from_secs(600);

/// The calls after the recovery that count.
const FIRST: usize = 20;

/// The times of an answer, the pauses between two calls and the lengths of the outage: each combination is a setting.
const ANSWERS: [u64; 3] = [50, 200, 400];
const PAUSES: [u64; 3] = [0, 5, 20];
const LENGTHS: [u64; 3] = [20, 60, 180];

pub(super) fn rows() -> Vec<Row> {
    const FIGURES: &[Figure] = &[Figure::seconds("refused of the first 20"), Figure::share("settings with a refusal")];
    vec![Row {
        name: "recovery",
        scenario: "one call after the other, no retries: after an outage, 27 settings",
        preset: Preset::Relay,
        seeds: (ANSWERS.len() * PAUSES.len() * LENGTHS.len()) as u64,
        figures: FIGURES,
        optimum: Some(&[0.0, 0.0]),
        bars: &[(0, AtMost(0.0))],
        run: |run| Box::pin(recovery(run)),
    }]
}

/// The seed is the number of the setting, too.
async fn recovery(run: Run) -> Vec<Value> {
    let setting = run.seed as usize - 1;
    let [answer, pause, length] = [ANSWERS[setting % 3], PAUSES[setting / 3 % 3], LENGTHS[setting / 9 % 3]];
    let [answer, pause, until] =
        [Duration::from_millis(answer), Duration::from_millis(pause), DOWN_FROM + Duration::from_secs(length)];
    let upstream = Upstream::new(Down { from: DOWN_FROM, until, service: answer });
    let caller = run.contestant.caller_with(run.preset, |settings| settings.retry(RetryPolicy::never()), &upstream);
    let (mut recovered, mut counted, mut refused) = (false, 0, 0);
    while counted < FIRST && upstream.begun().elapsed() < until + PATIENCE {
        let end = caller.call(request(0)).await;
        if recovered {
            counted += 1;
            refused += usize::from(end != End::Answered);
        }
        recovered |= end == End::Answered && upstream.begun().elapsed() >= until;
        sleep(if recovered || end == End::Answered { pause } else { PAUSE }).await;
    }
    // A program that never recovers has none of its first calls answered.
    refused += FIRST - counted;
    vec![Value::one(refused as f64), Value::of(usize::from(refused > 0), 1)]
}
