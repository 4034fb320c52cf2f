//! The groups of rows: each compares services that do the same, or measures one beside its bare control.

mod bodies;
mod refusals;
mod rooms;
mod stacks;
mod telemetry;

use std::time::Duration;

use http::StatusCode;
use tower_gemini::{RetryLayer, RetryPolicy, quota::Limits, rate_limit::Limiter, retry::Rule};

use crate::measure::Bench;

/// A clock that no run reaches.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A limit that no run reaches.
pub(crate) const ROOM: u64 = 1 << 40;

/// The name of the group of a long stream.
pub(crate) const SHORT_EVENTS: &str = "500 events of 150 B on average";

/// Measures all groups.
pub(crate) fn measure(bench: &mut Bench<'_>) {
    rooms::unary(bench);
    rooms::pending(bench);
    rooms::never_resending(bench);
    rooms::limiting(bench);
    rooms::pooling(bench);
    rooms::breaking(bench);
    rooms::falling_back(bench);
    rooms::checking(bench);
    stacks::four(bench);
    stacks::gemini(bench);
    stacks::threads(bench);
    refusals::refusing(bench);
    refusals::failing(bench);
    bodies::events(bench);
    bodies::short_events(bench);
    telemetry::telemetry(bench);
    bodies::scan(bench);
}

/// Makes limits of requests: a minute and a day.
fn limits_of_requests() -> Limits {
    Limits::new().requests_per_minute(ROOM).requests_per_day(ROOM)
}

/// Makes limits in three dimensions: of requests, and of tokens a minute.
fn limits() -> Limits {
    limits_of_requests().input_tokens_per_minute(ROOM)
}

fn limiter() -> Limiter {
    Limiter::builder().limits(limits()).build()
}

fn at_once() -> RetryLayer {
    RetryLayer::new(
        RetryPolicy::default().on(StatusCode::SERVICE_UNAVAILABLE, Rule::attempts(3).base_delay(Duration::ZERO)),
    )
}
