//! The bars: ratios and counts that this crate has to reach, each with the figure of this run.

use std::fmt::Write as _;

use crate::rows::{Row, Rows};

/// Returns the table of the bars, and whether one is missed. A figure of rows that were not measured misses none.
pub(crate) fn table(rows: &Rows, before: Option<&Rows>) -> (String, bool) {
    let row = |group: &str, name: &str| rows.get(group, name);
    let over = |group: &str, name: &str| row(group, name).map(|row| row.over);
    let allocations = |group: &str, name: &str| row(group, name).map(|row| row.more_allocations as f64);
    let ratio = |group: &str, ours: &str, theirs: &str| divided(over(group, ours), over(group, theirs));
    let to_before = |group: &str, name: &str| {
        divided(over(group, name), before.and_then(|rows| rows.get(group, name)).map(|row| row.over))
    };
    let frame = |group: &str, name: &str| row(group, name).map(|row| row.over / row.frames as f64 / 1e3);
    let total = |name: &str| row("GeminiLayer, threads", name).map(|row: &Row| row.nanos);
    let whole = "interactive; key, limits, chain";
    let four = "four: retry, rate, breaker, timeout";
    let rendered = "ErrorResponseLayer, RateLimitLayer, a 429";
    let bars = [
        ("GeminiLayer, key, limits and chain ÷ before", to_before("GeminiLayer", whole), 0.35),
        ("– allocations", allocations("GeminiLayer", whole), 14.0),
        ("five rooms ÷ before", to_before("unary", "all five rooms"), 0.5),
        ("– allocations", allocations("unary", "all five rooms"), 9.0),
        ("four rooms ÷ tower-resilience's", ratio(four, "tower_gemini", "tower_resilience"), 0.5),
        ("– allocations", allocations(four, "tower_gemini"), 2.0),
        ("time-out, attempt ÷ tower's, ready", ratio("unary", "TimeoutLayer::attempt", "tower::timeout"), 1.3),
        ("time-out, attempt ÷ tower's, pending", ratio("pending once", "TimeoutLayer::attempt", "tower::timeout"), 1.3),
        ("– allocations", allocations("unary", "TimeoutLayer::attempt"), 0.0),
        ("retry that never resends ÷ tower's", ratio("retries that never resend", "RetryLayer", "tower::retry"), 1.5),
        ("breaker ÷ recloser", ratio("circuit breakers", "CircuitBreakerLayer", "recloser"), 1.2),
        (
            "rate limit, three dimensions ÷ tower-resilience's one",
            ratio("rate limits", "RateLimitLayer", "tower_resilience::ratelimiter"),
            0.6,
        ),
        ("refusal by the limiter, µs", over("refusals", "RateLimitLayer, an error").map(|ns| ns / 1e3), 0.4),
        ("– allocations", allocations("refusals", "RateLimitLayer, an error"), 2.0),
        ("rendered 429 ÷ tower_governor's", ratio("refusals", rendered, "tower_governor, a 429"), 0.5),
        ("– allocations", allocations("refusals", rendered), 8.0),
        ("an event of 150 B through all rooms, µs", frame("500 events of 150 B", "all rooms"), 0.25),
        (
            "GeminiLayer on two threads ÷ one, ÷ the bare control's",
            divided(
                divided(total("two threads"), total("one thread")),
                divided(total("bare, two threads"), total("bare, one thread")),
            ),
            1.15,
        ),
    ];
    let mut text = String::from("| bar | at most | this run | |\n|---|---|---|---|\n");
    let mut missed = false;
    for (what, most, figure) in bars.map(|(what, figure, most)| (what, most, figure)) {
        let (figure, met) = match figure {
            Some(figure) if figure <= most => (rounded(figure), "met"),
            Some(figure) => (rounded(figure), "missed"),
            None => ("–".into(), "not measured"),
        };
        missed |= met == "missed";
        let _ = writeln!(text, "| {what} | {most} | {figure} | {met} |");
    }
    if before.is_none() {
        text.push_str("\nOVERHEAD_BEFORE=PROGRAM measures an older build of this bench beside it.\n");
    }
    (text, missed)
}

fn divided(this: Option<f64>, by: Option<f64>) -> Option<f64> {
    Some(this? / by?)
}

fn rounded(figure: f64) -> String {
    if figure.fract() == 0.0 { format!("{figure}") } else { format!("{figure:.2}") }
}
