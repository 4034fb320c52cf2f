//! One wrong 429 that names a day's quota of which next to nothing is used; all is well afterwards.

use std::time::Duration;

use tower_gemini::key_pool::{ApiKey, Key};

use crate::{
    caller::Preset,
    calls::Calls,
    row::{Bar::AtMost, Figure, Row, Run, Value},
    upstream::{Asked, DAY, Exceeded, Model, Reply, Upstream},
};

/// The time from one call to the next.
const EVERY: Duration = Duration::from_secs(1);

/// The time for which it is watched: fewer calls than the day's quota.
const WATCH: Duration = Duration::from_secs(240);

/// The end of the day, as the refusal says.
const MIDNIGHT: Duration = Duration::from_secs(19 * 3_600 + 18 * 60);

pub(super) fn rows() -> Vec<Row> {
    const FIGURES: &[Figure] =
        &[Figure::seconds("asked again after, s"), Figure::seconds("all well after, s"), Figure::seconds("calls lost")];
    vec![Row {
        name: "wrong-day",
        scenario: "one wrong 429 of a day's quota (250, of which 1 is used), a call a second for 4 min",
        preset: Preset::Relay,
        seeds: 3,
        figures: FIGURES,
        optimum: Some(&[0.0, 0.0, 0.0]),
        bars: &[(0, AtMost(60.0))],
        run: |run| Box::pin(wrong_day(run)),
    }]
}

/// The second attempt gets the refusal.
struct OnceWrong(u32);

impl Model for OnceWrong {
    fn ask(&mut self, _: Duration, _: &Asked) -> Reply {
        self.0 += 1;
        if self.0 == 2 {
            return Reply::Quota(Exceeded { id: DAY, value: 250, retry_in: MIDNIGHT });
        }
        Reply::Answer(Duration::from_secs(1))
    }
}

async fn wrong_day(run: Run) -> Vec<Value> {
    let upstream = Upstream::new(OnceWrong(0));
    let key = Key::new(ApiKey::new("a-key-of-this-bench").expect("a key")).project("p1");
    let caller = run.contestant.caller_with(run.preset, |settings| settings.key(key), &upstream);
    let mut calls = Calls::new(&upstream);
    for nth in 0..(WATCH.as_secs() / EVERY.as_secs()) as u32 {
        calls.at(EVERY * nth, &caller).await;
    }
    let done = calls.all().await;
    let attempts = upstream.attempts();
    let refused_at = attempts.iter().find(|attempt| !attempt.answers).map_or(WATCH, |attempt| attempt.at);
    let asked_again = attempts.iter().map(|attempt| attempt.at).find(|at| *at > refused_at).unwrap_or(WATCH);
    let last_lost = done.iter().filter(|call| !call.is_answered()).map(|call| call.begun).max();
    let lost = done.iter().filter(|call| !call.is_answered()).count();
    // A call that is lost is followed by the next one, a second later.
    let well = last_lost.map_or(Duration::ZERO, |last| (last + EVERY).saturating_sub(refused_at));
    vec![Value::one((asked_again - refused_at).as_secs_f64()), Value::one(well.as_secs_f64()), Value::one(lost as f64)]
}
