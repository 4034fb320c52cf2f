//! A light caller beside a heavy one, in one program whose quota of tokens is used up.

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep_until};
use tower_gemini::{
    CallContext, TokenPrecheckLayer,
    quota::{Limits, TokenCost},
};

use crate::{
    caller::{Caller, Preset},
    calls::{Calls, answered, p99},
    models::Metered,
    row::{Bar::AtMost, Figure, Row, Run, Value},
    upstream::{Upstream, request},
};

const SERVICE: Duration = Duration::from_secs(5);

/// The input tokens a minute.
const LIMIT: u64 = 250_000;

/// The heavy caller: jobs of so many tokens, by so many workers.
const JOBS: usize = 200;
const WORKERS: usize = 30;
const HEAVY: u64 = 20_000;

/// The light caller's tokens, and the time from one of its calls to the next.
const LIGHT: u64 = 500;
const EVERY: Duration = Duration::from_secs(5);

/// The time for which the light caller calls: as long as the jobs need at least.
const LIGHT_UNTIL: Duration = Duration::from_secs(900);

pub(super) fn rows() -> Vec<Row> {
    const FIGURES: &[Figure] = &[
        Figure::share("light: answered"),
        Figure::seconds("light: p99, s"),
        Figure::share("jobs: answered"),
        Figure::seconds("jobs: end, s"),
        Figure { name: "jobs: end ÷ end alone", digits: 3 },
    ];
    vec![Row {
        name: "light-beside-heavy",
        scenario: "a light caller beside 200 jobs of 20,000 tokens, 250,000 tokens a minute",
        preset: Preset::Batch,
        seeds: 3,
        figures: FIGURES,
        // Twelve jobs a minute, 16 times, and the last eight.
        optimum: Some(&[1.0, 5.0, 1.0, 965.0, 1.0]),
        bars: &[(1, AtMost(10.0)), (4, AtMost(1.03))],
        run: |run| Box::pin(beside(run)),
    }]
}

async fn beside(run: Run) -> Vec<Value> {
    let (upstream, caller) = program(run);
    let working = tokio::spawn(work(upstream.clone(), caller.clone()));
    let mut calls = Calls::new(&upstream);
    // The first comes when the jobs have used the minute up.
    for nth in 0..(LIGHT_UNTIL.as_secs() / EVERY.as_secs()) as usize {
        let at = Duration::from_secs(1) + EVERY * nth as u32;
        calls.request_at(at, &caller, call_of("light", LIGHT)).await;
    }
    let light = calls.all().await;
    let (jobs, end) = working.await.expect("no job panics");

    let (upstream, caller) = program(run);
    let (_, alone) = work(upstream, caller).await;
    vec![
        Value::of(answered(&light), light.len()),
        Value::one(p99(&light)),
        Value::of(jobs, JOBS),
        Value::one(end.as_secs_f64()),
        Value::one(end.as_secs_f64() / alone.as_secs_f64()),
    ]
}

/// Makes the upstream, and the program before it, which knows its quota. The pre-check is left out: it would count the tokens of
/// the text in place of those that the calls say.
fn program(run: Run) -> (Upstream, Caller) {
    let upstream = Upstream::new(Metered::tokens(LIMIT, SERVICE));
    let limits = Limits::new().input_tokens_per_minute(LIMIT);
    let caller = run.contestant.caller_with(
        run.preset,
        |settings| settings.limits(limits).precheck(TokenPrecheckLayer::disabled()),
        &upstream,
    );
    (upstream, caller)
}

/// Does all jobs, and returns how many were answered, and when the last of them ended.
async fn work(upstream: Upstream, caller: Caller) -> (usize, Duration) {
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (caller, begun) = (caller.clone(), upstream.begun());
        workers.spawn(async move {
            sleep_until(begun).await;
            let mut answered = 0;
            for _ in (worker..JOBS).step_by(WORKERS) {
                let end = caller.call(call_of("jobs", HEAVY)).await;
                answered += usize::from(end == crate::caller::End::Answered);
            }
            answered
        });
    }
    let mut answered = 0;
    while let Some(done) = workers.join_next().await {
        answered += done.expect("no worker panics");
    }
    (answered, upstream.begun().elapsed())
}

fn call_of(name: &'static str, tokens: u64) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = request(tokens);
    CallContext::update(request.extensions_mut(), |context| {
        context.set_caller(name);
        context.set_token_cost(TokenCost::estimate(tokens));
    });
    request
}
