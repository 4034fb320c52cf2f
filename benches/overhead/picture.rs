//! The picture: what a call costs in our rooms beside the peers'.

use crate::{
    rows::Rows,
    shared::picture::{Panel, PictureBar, draw as draw_panels},
};

/// The panels: a title, a group of rows, and of these the peers and ours.
const SHOWN: [(&str, &str, &[&str], &[&str]); 8] = [
    (
        "A clock, answered at once",
        "unary",
        &["tower::timeout", "tower_http::timeout", "seatbelt::timeout", "tower_resilience::timelimiter"],
        &["TimeoutLayer::attempt"],
    ),
    (
        "A clock, pending once",
        "pending once",
        &["tower::timeout", "tower_http::timeout", "seatbelt::timeout", "tower_resilience::timelimiter"],
        &["TimeoutLayer::attempt"],
    ),
    (
        "A retry that is not needed",
        "unary",
        &["tower::retry", "tower_resilience::retry", "seatbelt::retry"],
        &["RetryLayer"],
    ),
    (
        "A circuit breaker that is closed",
        "circuit breakers",
        &["recloser", "failsafe", "seatbelt::breaker", "tower_resilience::circuitbreaker"],
        &["CircuitBreakerLayer"],
    ),
    (
        "A rate limit: the peer's counts one dimension, ours three",
        "rate limits",
        &["tower_resilience::ratelimiter"],
        &["RateLimitLayer"],
    ),
    (
        "Retry, rate limit, breaker and clock together",
        "four: retry, rate, breaker, timeout",
        &["tower_resilience"],
        &["tower_gemini"],
    ),
    (
        "A call that the rate limit refuses, as a 429",
        "refusals",
        &["tower_governor, a 429"],
        &["ErrorResponseLayer, RateLimitLayer, a 429"],
    ),
    (
        "The whole stack",
        "GeminiLayer",
        &[],
        &[
            "all five rooms",
            "interactive",
            "interactive; key, limits of requests, chain",
            "interactive; key, limits of requests and tokens, chain",
        ],
    ),
];

/// Draws the picture of a run.
pub(crate) fn draw(rows: &Rows) -> String {
    let panels = SHOWN.map(|(title, group, peers, own)| {
        let bars = peers.iter().map(|name| (name, false)).chain(own.iter().map(|name| (name, true)));
        let bars = bars.filter_map(|(name, own)| {
            let row = rows.get(group, name)?;
            let time =
                if row.over < 1e3 { format!("{:.0} ns", row.over) } else { format!("{:.1} µs", row.over / 1e3) };
            let allocations = match row.more_allocations {
                Some(1) => ", 1 allocation".to_owned(),
                Some(more) => format!(", {more} allocations"),
                None => String::new(),
            };
            let label = name.strip_suffix(", a 429").unwrap_or(name).to_owned();
            Some(PictureBar { label, value: row.over, figure: time + &allocations, own })
        });
        Panel { title: title.into(), bars: bars.collect() }
    });
    draw_panels(
        "What a call costs in each layer",
        "Time and allocations over a bare call from memory. Each panel has its own scale; ours are coloured.",
        &panels,
    )
}
