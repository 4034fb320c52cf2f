//! The tables in the documentation of `telemetry` list exactly the metrics and attributes that are emitted.

use std::collections::{BTreeMap, BTreeSet};

use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::{
    CallContext, CallerLimitLayer, CircuitBreakerLayer, ClassifyLayer, RateLimitLayer, ReplayLayer, RetryBudget,
    RetryLayer, RetryPolicy, TelemetryLayer, TimeoutLayer,
    caller_limit::{CallerLimits, CallerQuota},
    circuit_breaker::{CircuitBreakers, Trip},
    emulator::{Trouble, When},
    key_pool::{ApiKey, Key, KeyPool},
    quota::Limits,
    rate_limit::Limiter,
    telemetry::{self, Conventions},
};

use super::{
    interactions::{all_tokens, answered, get, read_and_recorded},
    listen::{Metrics, Spans, Values},
    spans::{ask, emulator, one_after_the_other, stack},
};
use crate::support::*;

/// Reads the rows of the table under a heading of the documentation: cells without their backticks.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let docs = include_str!("../../src/telemetry/mod.rs");
    let lines = docs.lines().map(|line| line.trim_start_matches("//!").trim());
    let section = lines.skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with('#'));
    let rows = section.filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

/// Makes calls of every kind, until each metric and each attribute has been recorded.
async fn a_busy_day(layer: &TelemetryLayer) {
    // Streams, retries, waits in the queue, and failures that are not tried again.
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1)).max_wait(secs(90)).build();
    let upstream = emulator().trouble(When::nth(2), Trouble::overloaded().hint(secs(1))).build();
    let service = stack!(upstream, RetryPolicy::default(), limiter.clone(), layer.clone());
    for _ in 0..2 {
        read(service.clone().oneshot(ask(STREAM)).await.unwrap().into_body()).await;
    }
    let upstream = emulator().trouble(When::always(), Trouble::overloaded()).build();
    let policy = RetryPolicy::default().budget(RetryBudget::new(0));
    stack!(upstream, policy, Limiter::new(), layer.clone()).oneshot(ask(GENERATE)).await.unwrap();
    // Two models.
    let attempt = TelemetryLayer::attempt();
    one_after_the_other(layer, attempt.layer(Upstream::at_once(|_| Ok(hello()))), GENERATE, &["pro", "flash"]).await;
    // A breaker that opens.
    let breakers = CircuitBreakers::builder().trip(Trip::consecutive(1)).build().unwrap();
    let failing = CircuitBreakerLayer::new(breakers.clone()).layer(Upstream::at_once(|_| Ok(busy())));
    failing.oneshot(ask(GENERATE)).await.unwrap();
    let pool = KeyPool::builder().key(Key::new(ApiKey::new("a-key-of-nobody").unwrap())).build().unwrap();
    // A caller with limits.
    let callers = CallerLimits::builder().caller("app", CallerQuota::new().requests_per_day(9)).build().unwrap();
    let mut request = ask(GENERATE);
    CallContext::update(request.extensions_mut(), |context| context.set_caller("app"));
    CallerLimitLayer::new(callers.clone()).layer(Upstream::at_once(|_| Ok(hello()))).oneshot(request).await.unwrap();
    let memory = ReplayLayer::new().memory().clone();
    layer.gauges().watch(limiter).watch(callers).watch(breakers).watch(pool).watch(memory).report();
    // Embeddings, a list, and an interaction in the background that is fetched later.
    calls_with_tokens(layer).await;
    // Attributes that only some calls have.
    let thinking = emulator().thinking().trouble(When::nth(2), Trouble::cut(2)).build();
    let thinking = stack!(thinking, RetryPolicy::default(), Limiter::new(), layer.clone());
    for _ in 0..2 {
        let _ = frames(thinking.clone().oneshot(ask(STREAM)).await.unwrap().into_body()).await;
    }
}

/// Makes calls whose answers say everything about their tokens that an answer can say.
async fn calls_with_tokens(layer: &TelemetryLayer) {
    let upstream = Upstream::new(|_, asked| {
        let is_created = asked.method == http::Method::POST && asked.uri.path() == INTERACTIONS;
        std::future::ready(Ok(answered(move |usage| {
            usage.response_id = Some("i-1".into());
            if !is_created {
                all_tokens(usage);
                usage.service_tier = Some("standard".into());
            }
        })))
    });
    let service = read_and_recorded!(layer.clone(), upstream);
    let agent =
        r#"{"agent":"a","input":"b","previous_interaction_id":"i-0","generation_config":{"thinking_level":"low"}}"#;
    for request in [
        ask(GENERATE),
        ask("/v1beta/models/gemini-embedding-001:embedContent"),
        post_body(&format!("https://generativelanguage.googleapis.com{INTERACTIONS}"), agent),
        get("/v1beta/interactions/i-1"),
    ] {
        read(service.clone().oneshot(request).await.unwrap().into_body()).await;
    }
    // The same, when they fail.
    let failing = layer.layer(Upstream::at_once(|_| Ok(busy())));
    for uri in ["/v1beta/models/gemini-embedding-001:embedContent", "/v1beta/models/m:countTokens"] {
        failing.clone().oneshot(ask(uri)).await.unwrap();
    }
}

/// Collects the names of all labels of each metric.
fn labels(values: &Values) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for key in values.keys() {
        let (name, labels) = key.trim_end_matches('}').split_once('{').unwrap();
        let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        all.entry(name.to_owned()).or_default().extend(names);
    }
    all
}

const CONVENTIONS: [(Conventions, &str); 2] = [(Conventions::V0_1, "## By v0.1.0"), (Conventions::V1_41, "## By 1.41")];

fn layer(conventions: Conventions) -> TelemetryLayer {
    TelemetryLayer::call().conventions(conventions).token_histograms(true)
}

#[tokio::test(start_paused = true)]
async fn the_tables_of_metrics_are_what_is_emitted() {
    for (conventions, heading) in CONVENTIONS {
        let metrics = Metrics::listen();
        a_busy_day(&layer(conventions)).await;
        let emitted = labels(&metrics.take());
        let table: BTreeMap<String, BTreeSet<String>> = [rows(heading), rows("## Of this crate")]
            .concat()
            .into_iter()
            .map(|row| {
                let labels = row[2].split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
                (row[0].clone(), labels.collect())
            })
            .collect();
        assert!(table.len() > 20, "{table:?}");
        assert_eq!(emitted, table, "{conventions:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_metric_is_described_with_the_unit_of_the_table() {
    for (conventions, heading) in CONVENTIONS {
        let metrics = Metrics::listen();
        telemetry::describe(conventions);
        a_busy_day(&layer(conventions)).await;
        let described = metrics.described();
        let mut histograms: BTreeMap<_, _> = telemetry::histograms(conventions).collect();
        for row in [rows(heading), rows("## Of this crate")].concat() {
            let (unit, text) = described[&row[0]].clone();
            let (instrument, in_table) = row[1].split_once(", ").unwrap_or((&row[1], "count"));
            let unit = unit.unwrap_or_else(|| panic!("{} is not described", row[0]));
            let symbol = match unit {
                metrics::Unit::Seconds => "s",
                metrics::Unit::Bytes => "By",
                _ => "count",
            };
            assert_eq!(in_table, symbol, "{}", row[0]);
            assert!(["counter", "gauge", "histogram"].contains(&instrument), "{row:?}");
            assert!(text.is_some_and(|text| text.ends_with('.')), "{row:?}");
            // Each histogram, and nothing else, has boundaries that rise.
            let boundaries = histograms.remove(&*row[0]);
            assert_eq!(boundaries.is_some(), instrument == "histogram", "{row:?}");
            assert!(boundaries.is_none_or(|each| each.len() > 5 && each.is_sorted()), "{row:?}");
        }
        assert_eq!(histograms, BTreeMap::new(), "{conventions:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_table_of_attributes_is_what_is_recorded() {
    for (conventions, _) in CONVENTIONS {
        let (spans, _guard) = Spans::listen();
        a_busy_day(&layer(conventions)).await;
        let cached = HELLO.replace("\"totalTokenCount\"", "\"cachedContentTokenCount\":1,\"totalTokenCount\"");
        let upstream = Upstream::at_once(move |_| {
            let mut response = json(200, cached.clone());
            let outcome = tower_gemini::Outcome::default().with_key("1f2e3d", "project-7");
            response.extensions_mut().insert(outcome);
            Ok(response)
        });
        let inner = TelemetryLayer::attempt().layer(ClassifyLayer::new().layer(upstream));
        read(layer(conventions).layer(inner).oneshot(ask(GENERATE)).await.unwrap().into_body()).await;

        let recorded = |name: &str| -> BTreeSet<String> {
            spans.named(name).iter().flat_map(|span| span.fields.keys().map(|field| (*field).to_owned())).collect()
        };
        let is_there = |row: &Vec<String>| conventions == Conventions::V0_1 || row[3] == "yes";
        let table = |column: usize| -> BTreeSet<String> {
            let rows = rows("# Spans").into_iter().filter(|row| row[column] == "yes" && is_there(row));
            rows.map(|row| row[0].clone()).collect()
        };
        assert_eq!(recorded("gemini.call"), table(1), "{conventions:?}");
        assert_eq!(recorded("gemini.attempt"), table(2), "{conventions:?}");
    }
}
