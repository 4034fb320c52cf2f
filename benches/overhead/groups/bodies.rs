//! Answers while they pass: streams, and the scan of long ones.

use tower::{Layer, ServiceBuilder};
use tower_gemini::{ClassifyLayer, ErrorResponseLayer, KeepAliveLayer, TimeoutLayer};

use super::{LIMIT, SHORT_EVENTS, stacks};
use crate::{
    measure::Bench,
    upstream::{Upstream, code, prose},
};

/// Measures 20 server-sent events, each in a frame of its own.
pub(super) fn events(bench: &mut Bench<'_>) {
    let upstream = Upstream::events(20, 40);
    let mut group = bench.group("20 events", &upstream);
    group.call("bare", upstream.clone());
    group.call("TimeoutLayer::attempt", TimeoutLayer::attempt(LIMIT).layer(upstream.clone()));
    group.call("ClassifyLayer", ClassifyLayer::new().layer(upstream.clone()));
    group.call("ErrorResponseLayer", ErrorResponseLayer::new().layer(upstream.clone()));
    group.call("KeepAliveLayer", KeepAliveLayer::new(LIMIT).layer(upstream.clone()));
    group.call("all five rooms", stacks::five(upstream));
    group.measure();
}

/// Measures a long stream of short events, of which every tenth has the usage so far: the time of a frame counts.
pub(super) fn short_events(bench: &mut Bench<'_>) {
    let upstream = Upstream::short_events(500);
    let mut group = bench.group(SHORT_EVENTS, &upstream);
    group.call("bare", upstream.clone());
    group.call("TimeoutLayer::attempt", TimeoutLayer::attempt(LIMIT).layer(upstream.clone()));
    group.call("ClassifyLayer", ClassifyLayer::new().layer(upstream.clone()));
    group.call("ErrorResponseLayer", ErrorResponseLayer::new().layer(upstream.clone()));
    group.call("KeepAliveLayer", KeepAliveLayer::new(LIMIT).layer(upstream.clone()));
    group.call("all five rooms", stacks::five(upstream.clone()));
    group.call("all rooms but KeepAliveLayer", stacks::outermost(upstream.clone()));
    let kept = ServiceBuilder::new().layer(KeepAliveLayer::new(LIMIT)).service(stacks::outermost(upstream));
    group.call("all rooms with KeepAliveLayer", kept);
    group.measure();
}

/// Measures the scan of answers of several kinds.
pub(super) fn scan(bench: &mut Bench<'_>) {
    for (name, upstream) in [
        ("unary, 1 MiB of prose", Upstream::text(&prose(1 << 20))),
        ("unary, 1 MiB of code", Upstream::text(&code(1 << 20))),
        ("unary, 1 MiB, pretty-printed", Upstream::pretty(1 << 20)),
        ("unary, 1 MiB image", Upstream::text(&"iVBORw0KGgoAAAANSUhEUgAA".repeat((1 << 20) / 24))),
        ("1000 events of 1 token", Upstream::events(1000, 4)),
        ("1000 events of 400 bytes", Upstream::events(1000, 100)),
    ] {
        let mut group = bench.group(name, &upstream);
        group.call("bare", upstream.clone());
        group.call("ClassifyLayer", ClassifyLayer::new().layer(upstream));
        group.measure();
    }
}
