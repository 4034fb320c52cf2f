//! Interactions: a poll spends no tokens, and the tokens of an interaction in the background are counted once.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_gemini::{
    Outcome, TelemetryLayer,
    context::{Usage, UsageReport},
    telemetry::Conventions,
};

use super::{
    listen::{Metrics, Spans, only},
    spans::ask,
};
use crate::support::*;

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://generativelanguage.googleapis.com{uri}")).body(Full::default()).unwrap()
}

/// Stacks telemetry around a layer that reads requests. Nobody reads the answers: they [say themselves](answered) what is
/// in them.
macro_rules! read_and_recorded {
    ($layer:expr, $upstream:expr) => {
        tower::ServiceBuilder::new()
            .layer($layer)
            .layer(tower_gemini::ReplayLayer::new())
            .layer(tower_gemini::TelemetryLayer::attempt())
            .service($upstream)
    };
}
pub(crate) use read_and_recorded;

/// Makes an answer of which that is known, as `ClassifyLayer` makes it known.
pub(crate) fn answered(known: impl FnOnce(&mut UsageReport)) -> Response<AnyBody> {
    let usage = Usage::default();
    usage.update(|report| {
        report.model_version = Some("gemini-2.5-pro".into());
        report.ended = true;
        known(report);
    });
    let mut response = json(200, "{}");
    response.extensions_mut().insert(Outcome::default().with_usage(usage));
    response
}

/// Fills in tokens of all kinds.
pub(crate) fn all_tokens(report: &mut UsageReport) {
    report.prompt_tokens = Some(1_000);
    report.tool_use_prompt_tokens = Some(40);
    report.candidates_tokens = Some(250);
    report.thoughts_tokens = Some(50);
    report.cached_tokens = Some(100);
    report.total_tokens = Some(1_340);
    let input = &mut report.input_by_modality;
    (input.text, input.image, input.audio) = (Some(500), Some(258), Some(128));
    (input.video, input.document) = (Some(64), Some(50));
    let output = &mut report.output_by_modality;
    (output.text, output.image, output.audio) = (Some(200), Some(30), Some(20));
    let cached = &mut report.cached_by_modality;
    (cached.text, cached.image, cached.audio) = (Some(90), Some(6), Some(4));
}

/// Creates an interaction in the background, and polls it until after its end. It is under way at the first poll.
async fn in_the_background(layer: &TelemetryLayer) {
    let upstream = Upstream::at_once(|nth| {
        Ok(answered(|report| {
            report.response_id = Some("v1_abc".into());
            report.finish_reason = Some(if nth < 2 { "in_progress" } else { "completed" }.into());
            if nth > 0 {
                all_tokens(report);
            }
        }))
    });
    let service = layer.layer(TelemetryLayer::attempt().layer(upstream));
    read(service.clone().oneshot(ask(INTERACTIONS)).await.unwrap().into_body()).await;
    for _ in 0..4 {
        read(service.clone().oneshot(get("/v1beta/interactions/v1_abc")).await.unwrap().into_body()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_a_fetch_that_spends_no_tokens() {
    for (conventions, operation) in [(Conventions::V0_1, "fetch_response"), (Conventions::V1_41, "read")] {
        let (spans, _guard) = Spans::listen();
        let metrics = Metrics::listen();
        in_the_background(&TelemetryLayer::call().conventions(conventions).token_histograms(true)).await;
        let calls = spans.named("gemini.call");
        assert_eq!(calls[0].get("gen_ai.operation.name"), Some("generate_content"));
        assert_eq!(calls.len(), 5);
        for poll in &calls[1..] {
            assert_eq!((poll.get("gen_ai.operation.name"), poll.get("otel.name")), (Some(operation), Some(operation)));
            assert_eq!(poll.get("gen_ai.response.id"), Some("v1_abc"));
            assert_eq!(poll.get("gen_ai.response.model"), Some("gemini-2.5-pro"));
            assert!(!poll.fields.keys().any(|field| field.starts_with("gen_ai.usage.")), "{poll:#?}");
        }
        let values = metrics.take();
        let tokens = values
            .iter()
            .filter(|(key, _)| key.starts_with("gen_ai.") && (key.contains("tokens") || key.contains("token.usage")));
        // The interaction itself answered without tokens.
        for (key, values) in tokens {
            assert!(key.contains("generate_content") && values.iter().all(|value| *value == 0.0), "{key}: {values:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_the_background_are_counted_once_whoever_polls_how_often() {
    let metrics = Metrics::listen();
    let layer = TelemetryLayer::call();
    in_the_background(&layer).await;
    let created = "gen_ai.operation.name=generate_content,gen_ai.provider.name=gcp.gemini,gen_ai.request.model=";
    let values = metrics.take();
    assert_eq!(only(&values, &format!("tower_gemini.background.input_tokens{{{created}}}")), [1040.0]);
    assert_eq!(only(&values, &format!("tower_gemini.background.output_tokens{{{created}}}")), [300.0]);

    // An interaction that was created elsewhere, or answered with its tokens, is not counted here.
    let upstream = Upstream::at_once(|nth| {
        Ok(answered(|report| {
            report.response_id = Some(if nth == 0 { "elsewhere" } else { "foreground" }.into());
            all_tokens(report);
        }))
    });
    let service = layer.layer(upstream);
    for request in [get("/v1beta/interactions/elsewhere"), ask(INTERACTIONS), get("/v1beta/interactions/foreground")] {
        read(service.clone().oneshot(request).await.unwrap().into_body()).await;
    }
    let values = metrics.take();
    let background = values.iter().filter(|(key, _)| key.contains("background"));
    assert!(background.flat_map(|(_, values)| values).all(|value| *value == 0.0), "{values:#?}");
    let of_model = values.iter().filter(|(key, _)| key.starts_with("gen_ai.client.inference.usage.input_tokens"));
    assert_eq!(of_model.flat_map(|(_, values)| values).sum::<f64>(), 1040.0, "the foreground's, once");
}

#[tokio::test(start_paused = true)]
async fn an_interaction_whose_caller_hung_up_is_counted_when_it_is_fetched() {
    let metrics = Metrics::listen();
    let layer = TelemetryLayer::call();
    let upstream = Upstream::at_once(|nth| {
        let mut response = answered(|report| {
            report.response_id = Some("v1_abc".into());
            report.ended = nth > 0;
            if nth > 0 {
                all_tokens(report);
            }
        });
        if nth == 0 {
            *response.body_mut() = any(fed().1);
        }
        Ok(response)
    });
    let service = layer.layer(upstream);
    drop(service.clone().oneshot(ask(INTERACTIONS)).await.unwrap());
    for _ in 0..2 {
        read(service.clone().oneshot(get("/v1beta/interactions/v1_abc")).await.unwrap().into_body()).await;
    }
    let created = "gen_ai.operation.name=generate_content,gen_ai.provider.name=gcp.gemini,gen_ai.request.model=";
    assert_eq!(only(&metrics.take(), &format!("tower_gemini.background.input_tokens{{{created}}}")), [1040.0]);
}

/// Asks an upstream that gives each interaction the next id of these, and returns the spans of the calls.
async fn converse(ids: &'static [&'static str], requests: &[Request<Full<Bytes>>]) -> Vec<super::listen::Seen> {
    let (spans, _guard) = Spans::listen();
    let upstream = Upstream::at_once(|nth| Ok(answered(|report| report.response_id = Some(ids[nth].into()))));
    let service = read_and_recorded!(TelemetryLayer::call(), upstream);
    for request in requests {
        read(service.clone().oneshot(request.clone()).await.unwrap().into_body()).await;
    }
    spans.named("gemini.call")
}

fn interaction(body: &'static str) -> Request<Full<Bytes>> {
    post_body(&format!("https://generativelanguage.googleapis.com{INTERACTIONS}"), body)
}

#[tokio::test(start_paused = true)]
async fn an_interaction_names_its_conversation_and_the_one_before() {
    let first = interaction(r#"{"model":"gemini-3.8-flash","input":"a"}"#);
    let second = interaction(
        r#"{"model":"gemini-3.8-flash","input":"b","previous_interaction_id":"i1","generation_config":{"thinking_level":"low"}}"#,
    );
    let third = interaction(r#"{"model":"gemini-3.8-flash","input":"c","previous_interaction_id":"i2"}"#);
    let calls = converse(&["i1", "i2", "i3", "i2"], &[first, second, third, get("/v1beta/interactions/i2")]).await;
    let of = |field: &str| -> Vec<_> { calls.iter().map(|call| call.get(field).map(str::to_owned)).collect() };
    let some = |text: &str| Some(text.to_owned());
    let created = || some("generate_content gemini-3.8-flash");
    assert_eq!(of("otel.name"), [created(), created(), created(), some("fetch_response")]);
    assert_eq!(of("gen_ai.response.id"), ["i1", "i2", "i3", "i2"].map(some));
    assert_eq!(of("gen_ai.request.previous_response.id"), [None, some("i1"), some("i2"), None]);
    assert_eq!(of("gen_ai.conversation.id"), ["i1"; 4].map(some));
    assert_eq!(of("gen_ai.request.reasoning.level"), [None, some("low"), None, None]);
}

#[tokio::test(start_paused = true)]
async fn law_9_an_id_or_an_agent_that_is_a_key_is_not_shown() {
    let request = interaction(
        r#"{"agent":"AIzaSyA-0123456789_abcdefghijklmnopqrst","input":"a","previous_interaction_id":"AIzaSyA-0123456789_abcdefghijklmnopqrst"}"#,
    );
    let fetch = get(&format!("/v1beta/interactions/{KEY}"));
    let metrics = Metrics::listen();
    let calls = converse(&["AIzaSyA-0123456789_abcdefghijklmnopqrst"; 2], &[request, fetch]).await;
    for field in ["gen_ai.response.id", "gen_ai.request.previous_response.id", "gen_ai.conversation.id"] {
        assert_eq!(calls[0].get(field), Some("[redacted]"), "{field}");
    }
    let shown = format!("{calls:?} {:?}", metrics.take());
    assert!(shown.contains("invoke_agent") && !shown.contains("AIza"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_invoked_by_its_name() {
    let metrics = Metrics::listen();
    let request = interaction(r#"{"agent":"deep-research-preview","input":"a","background":true}"#);
    let calls = converse(&["i1"], &[request]).await;
    for (field, value) in [
        ("otel.name", Some("invoke_agent deep-research-preview")),
        ("gen_ai.operation.name", Some("invoke_agent")),
        ("gen_ai.agent.name", Some("deep-research-preview")),
        ("gen_ai.request.model", None),
    ] {
        assert_eq!(calls[0].get(field), value, "{field}");
    }
    // In metrics it stands where models stand, by the name under which its quota is counted.
    let values = metrics.take();
    let labels = "gen_ai.operation.name=invoke_agent,gen_ai.provider.name=gcp.gemini,\
        gen_ai.request.model=agents/deep-research-preview";
    assert_eq!(only(&values, &format!("tower_gemini.calls{{{labels},outcome=ok}}")), [1.0]);
}

#[tokio::test(start_paused = true)]
async fn a_level_of_reasoning_is_named_as_the_caller_spells_it() {
    for (uri, body, level) in [
        (GENERATE, r#"{"generationConfig":{"thinkingConfig":{"thinkingLevel":"HIGH"}}}"#, Some("HIGH")),
        (CHAT, r#"{"model":"gemini-2.5-pro","reasoning_effort":"minimal"}"#, Some("minimal")),
        (GENERATE, r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":512}}}"#, None),
        // It may be anything, and is shown as other texts of callers are.
        (CHAT, r#"{"model":"m","reasoning_effort":"AIzaSyA-0123456789_abcdefghijklmnopqrst"}"#, Some("[redacted]")),
    ] {
        let request = post_body(&format!("https://generativelanguage.googleapis.com{uri}"), body);
        assert_eq!(converse(&["r"], &[request]).await[0].get("gen_ai.request.reasoning.level"), level, "{body}");
    }
}
