//! The two versions of the conventions: which names come of each, and that they never come together.

use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::{
    ClassifyLayer, RateLimitLayer, ReplayLayer, RetryLayer, RetryPolicy, TelemetryLayer, TimeoutLayer,
    rate_limit::Limiter, telemetry::Conventions,
};

use super::{
    interactions::{all_tokens, answered, get, read_and_recorded},
    listen::{Metrics, Spans, only},
    spans::{ask, emulator, stack},
};
use crate::support::*;

const ANSWERED: &str = "gen_ai.operation.name=generate_content,gen_ai.provider.name=gcp.gemini,\
    gen_ai.request.model=gemini-2.5-pro,gen_ai.response.model=gemini-2.5-pro";

/// The labels of a call's metrics by v0.1.0, with the modality that stands between these in the order of their names.
fn labels(modality: &str) -> String {
    let modality = if modality.is_empty() { String::new() } else { format!(",gen_ai.token.modality={modality}") };
    format!("{ANSWERED}{modality},tower_gemini.service_tier=standard")
}

/// Asks with these conventions: a stream, an embedding, a count and a list.
async fn ask_everything(layer: TelemetryLayer) {
    let upstream = emulator().first_token(secs(3)).between_chunks(secs(1)).chunks(5).build();
    let service = stack!(upstream, RetryPolicy::default(), Limiter::new(), layer.clone());
    read(service.oneshot(ask(STREAM)).await.unwrap().into_body()).await;
    let upstream = Upstream::at_once(|_| Ok(answered(|usage| usage.prompt_tokens = Some(6))));
    let service = layer.layer(upstream);
    for request in [
        ask("/v1beta/models/gemini-embedding-001:embedContent"),
        ask("/v1beta/models/gemini-2.5-pro:countTokens"),
        get("/v1beta/models"),
    ] {
        read(service.clone().oneshot(request).await.unwrap().into_body()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn by_v0_1_each_kind_of_call_has_metrics_of_its_own() {
    let metrics = Metrics::listen();
    ask_everything(TelemetryLayer::call()).await;
    let values = metrics.take();
    let answered = labels("");
    assert_eq!(only(&values, &format!("gen_ai.client.inference.duration{{{answered}}}")), [7.0]);
    assert_eq!(only(&values, &format!("gen_ai.client.inference.time_to_first_chunk{{{answered}}}")), [3.0]);
    let of = |name: &str| values.keys().filter(|key| key.starts_with(&format!("{name}{{"))).count();
    assert_eq!(
        (of("gen_ai.client.embeddings.duration"), of("gen_ai.client.embeddings.operation.input_tokens")),
        (1, 1)
    );
    // The conventions have no name for the time of the other two.
    assert_eq!(of("tower_gemini.call.duration"), 2);
    assert_eq!(
        of("gen_ai.client.inference.usage.input_tokens"),
        1,
        "only an answer of a model spends tokens: {values:#?}"
    );
    // The histograms of tokens are asked for.
    assert_eq!(of("gen_ai.client.inference.operation.input_tokens"), 0);
    // No old name, nor its label.
    for old in ["gen_ai.client.operation.", "gen_ai.client.token.usage", "gen_ai.token.type"] {
        assert!(!values.keys().any(|key| key.contains(old)), "{old} in {values:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn by_1_41_all_calls_have_the_old_names_and_no_other() {
    let metrics = Metrics::listen();
    ask_everything(TelemetryLayer::call().conventions(Conventions::V1_41).token_histograms(true)).await;
    let values = metrics.take();
    assert_eq!(only(&values, &format!("gen_ai.client.operation.duration{{{ANSWERED}}}")), [7.0]);
    assert_eq!(only(&values, &format!("gen_ai.client.operation.time_to_first_chunk{{{ANSWERED}}}")), [3.0]);
    for kind in ["input", "output"] {
        let tokens = only(&values, &format!("gen_ai.client.token.usage{{{ANSWERED},gen_ai.token.type={kind}}}"));
        assert!(tokens.len() == 1 && tokens[0] > 0.0, "{tokens:?}");
    }
    for new in [
        "gen_ai.client.inference.",
        "gen_ai.client.embeddings.",
        "gen_ai.token.modality",
        "service_tier",
        "call.duration",
    ] {
        assert!(!values.keys().any(|key| key.contains(new)), "{new} in {values:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_by_modality_and_the_rest_is_unknown() {
    let metrics = Metrics::listen();
    let (spans, _guard) = Spans::listen();
    let layer = TelemetryLayer::call().token_histograms(true);
    let service = layer.layer(Upstream::at_once(|_| Ok(answered(all_tokens))));
    read(service.oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    let values = metrics.take();
    for (name, parts) in [
        // 1,000 tokens and 40 of tool results, of which the modality is not said.
        (
            "input",
            &[
                ("text", 500.0),
                ("image", 258.0),
                ("audio", 128.0),
                ("video", 64.0),
                ("document", 50.0),
                ("unknown", 40.0),
            ][..],
        ),
        // 300 tokens, thoughts included.
        ("output", &[("text", 200.0), ("image", 30.0), ("audio", 20.0), ("unknown", 50.0)]),
        ("cache_read.input", &[("text", 90.0), ("image", 6.0), ("audio", 4.0)]),
        ("reasoning.output", &[("unknown", 50.0)]),
    ] {
        for (modality, tokens) in parts {
            let labels = labels(modality);
            assert_eq!(only(&values, &format!("gen_ai.client.inference.usage.{name}_tokens{{{labels}}}")), [*tokens]);
        }
        let of = values.keys().filter(|key| key.starts_with(&format!("gen_ai.client.inference.usage.{name}_tokens{{")));
        assert_eq!(of.count(), parts.len(), "{name}");
    }
    // A distribution has the call's own number, and no modality.
    assert_eq!(only(&values, &format!("gen_ai.client.inference.operation.input_tokens{{{}}}", labels(""))), [1040.0]);
    assert_eq!(only(&values, &format!("gen_ai.client.inference.operation.output_tokens{{{}}}", labels(""))), [300.0]);

    let call = spans.call();
    for (field, tokens) in [
        ("input_tokens", "1040"),
        ("text.input_tokens", "500"),
        ("image.input_tokens", "258"),
        ("audio.input_tokens", "128"),
        ("cache_read.input_tokens", "100"),
        ("text.cache_read.input_tokens", "90"),
        ("image.cache_read.input_tokens", "6"),
        ("audio.cache_read.input_tokens", "4"),
        ("output_tokens", "300"),
        ("text.output_tokens", "200"),
        ("image.output_tokens", "30"),
        ("audio.output_tokens", "20"),
        ("reasoning.output_tokens", "50"),
    ] {
        assert_eq!(call.get(&format!("gen_ai.usage.{field}")), Some(tokens), "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_counts_is_counted_as_zero() {
    let metrics = Metrics::listen();
    let service = TelemetryLayer::call().layer(Upstream::at_once(|_| Ok(busy())));
    service.oneshot(ask(GENERATE)).await.unwrap();
    let values = metrics.take();
    let labels = "gen_ai.operation.name=generate_content,gen_ai.provider.name=gcp.gemini,gen_ai.request.model=other,\
        gen_ai.token.modality=unknown,tower_gemini.service_tier=standard";
    for kind in ["input", "output", "cache_read.input", "reasoning.output"] {
        assert_eq!(only(&values, &format!("gen_ai.client.inference.usage.{kind}_tokens{{{labels}}}")), [0.0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_has_an_event_that_repeats_nothing_of_the_upstreams_words() {
    let secret = "whispered-in-confidence";
    for (conventions, uri, events) in [
        (Conventions::V0_1, GENERATE, 1),
        // The event is one of inference.
        (Conventions::V0_1, "/v1beta/models/m:embedContent", 0),
        (Conventions::V0_1, "/v1beta/models/m:countTokens", 0),
        (Conventions::V1_41, GENERATE, 0),
    ] {
        let (spans, _guard) = Spans::listen();
        let body = format!(r#"{{"error":{{"code":400,"message":"{secret}","status":"INVALID_ARGUMENT"}}}}"#);
        let upstream = Upstream::at_once(move |_| Ok(json(400, body.clone())));
        let inner = TelemetryLayer::attempt().layer(ClassifyLayer::new().layer(upstream));
        let service = TelemetryLayer::call().conventions(conventions).layer(inner);
        read(service.oneshot(ask(uri)).await.unwrap().into_body()).await;
        let call = spans.call();
        assert_eq!(call.get("error.type"), Some("invalid_request"), "{uri}");
        assert_eq!(call.events.len(), events, "{uri}: {:?}", call.events);
        for event in &call.events {
            assert!(event.contains("\"exception.type\": \"invalid_request\""), "{event}");
            assert!(event.contains("\"exception.message\": ") && !event.contains(secret), "{event}");
        }
        // An attempt is no operation of the conventions.
        assert!(spans.attempts()[0].events.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_tier_that_was_asked_for_and_the_one_that_served_are_told_apart() {
    let (spans, _guard) = Spans::listen();
    let metrics = Metrics::listen();
    let upstream = Upstream::at_once(|_| {
        Ok(answered(|usage| {
            all_tokens(usage);
            usage.service_tier = Some("standard".into());
        }))
    });
    let service = read_and_recorded!(TelemetryLayer::call(), upstream);
    let body = r#"{"serviceTier":"priority","contents":[{"parts":[{"text":"hi"}]}]}"#;
    let request = post_body(&format!("https://generativelanguage.googleapis.com{GENERATE}"), body);
    read(service.oneshot(request).await.unwrap().into_body()).await;
    let call = spans.call();
    assert_eq!(call.get("tower_gemini.request.service_tier"), Some("priority"));
    assert_eq!(call.get("tower_gemini.response.service_tier"), Some("standard"));
    let values = metrics.take();
    let tiers = values.keys().filter(|key| key.contains("service_tier"));
    assert!(tiers.clone().count() > 4 && tiers.clone().all(|key| key.contains("service_tier=standard")), "{values:#?}");
}
