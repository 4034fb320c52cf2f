//! The bars: ratios and counts that this crate has to reach.

use crate::{
    groups::SHORT_EVENTS,
    rows::{Row, Rows},
    shared::bars::Bars,
};

/// Returns the bars with the figures of a run, and of another build's beside it.
pub(crate) fn of(rows: &Rows, before: Option<&Rows>) -> Bars {
    let row = |group: &str, name: &str| rows.get(group, name);
    // Noise can make a price that is none, from which nothing follows.
    let over = |group: &str, name: &str| row(group, name).map(|row| row.over).filter(|over| *over > 0.0);
    let allocations = |group: &str, name: &str| row(group, name).and_then(|row| Some(row.more_allocations? as f64));
    let ratio = |group: &str, ours: &str, theirs: &str| divided(over(group, ours), over(group, theirs));
    let to_before = |group: &str, name: &str| {
        divided(over(group, name), before.and_then(|rows| rows.get(group, name)).map(|row| row.over))
    };
    let frame = |group: &str, name: &str| Some(over(group, name)? / row(group, name)?.frames as f64 / 1e3);
    let total = |name: &str| row("GeminiLayer, threads", name).map(|row: &Row| row.nanos);
    let whole = "interactive; key, limits of requests, chain";
    let four = "four: retry, rate, breaker, timeout";
    let rendered = "ErrorResponseLayer, RateLimitLayer, a 429";
    let mut bars = Bars::default();
    let add_to_before = |bars: &mut Bars, what, most, name: (&str, &str)| match before {
        Some(_) => bars.add(what, ..=most, to_before(name.0, name.1)),
        None => bars.add_without_older_build(what, ..=most),
    };
    add_to_before(&mut bars, "GeminiLayer, key, limits of requests, chain ÷ before", 0.35, ("GeminiLayer", whole));
    bars.add("– allocations", ..=14.0, allocations("GeminiLayer", whole));
    add_to_before(&mut bars, "five rooms ÷ before", 0.5, ("unary", "all five rooms"));
    bars.add("– allocations", ..=9.0, allocations("unary", "all five rooms"));
    bars.add("four rooms ÷ tower-resilience's", ..=0.5, ratio(four, "tower_gemini", "tower_resilience"));
    bars.add("– allocations", ..=2.0, allocations(four, "tower_gemini"));
    bars.add("time-out, attempt ÷ tower's, ready", ..=1.3, ratio("unary", "TimeoutLayer::attempt", "tower::timeout"));
    bars.add(
        "time-out, attempt ÷ tower's, pending",
        ..=1.3,
        ratio("pending once", "TimeoutLayer::attempt", "tower::timeout"),
    );
    bars.add("– allocations", ..=0.0, allocations("unary", "TimeoutLayer::attempt"));
    bars.add(
        "retry that never resends ÷ tower's",
        ..=1.5,
        ratio("retries that never resend", "RetryLayer", "tower::retry"),
    );
    bars.add("breaker ÷ recloser", ..=1.2, ratio("circuit breakers", "CircuitBreakerLayer", "recloser"));
    bars.add(
        "rate limit, three dimensions ÷ tower-resilience's one",
        ..=0.6,
        ratio("rate limits", "RateLimitLayer", "tower_resilience::ratelimiter"),
    );
    bars.add("refusal by the limiter, µs", ..=0.4, over("refusals", "RateLimitLayer, an error").map(|ns| ns / 1e3));
    bars.add("– allocations", ..=2.0, allocations("refusals", "RateLimitLayer, an error"));
    bars.add("rendered 429 ÷ tower_governor's", ..=0.5, ratio("refusals", rendered, "tower_governor, a 429"));
    bars.add("– allocations", ..=8.0, allocations("refusals", rendered));
    bars.add(
        "an event of 150 B through all rooms but KeepAliveLayer, µs",
        ..=0.25,
        frame(SHORT_EVENTS, "all rooms but KeepAliveLayer"),
    );
    bars.add(
        "GeminiLayer on two threads ÷ one, ÷ the bare control's",
        ..=1.15,
        divided(
            divided(total("two threads"), total("one thread")),
            divided(total("bare, two threads"), total("bare, one thread")),
        ),
    );
    bars
}

/// Returns a ratio, but none of a figure that noise has made zero or less.
fn divided(this: Option<f64>, by: Option<f64>) -> Option<f64> {
    let (this, by) = (this?, by?);
    (this > 0.0 && by > 0.0).then_some(this / by)
}
