//! Law 10: a caller cannot grow the memory of a recorder.

use std::collections::BTreeSet;

use tower::{Layer, ServiceExt};
use tower_gemini::TelemetryLayer;

use super::{
    listen::Metrics,
    spans::{ask, emulator},
};
use crate::support::*;

/// Returns all values of a model's label.
fn models(metrics: &Metrics) -> BTreeSet<String> {
    let values = metrics.take();
    let labels = values.keys().flat_map(|key| key.trim_end_matches('}').split(['{', ',']));
    labels.filter_map(|label| label.strip_prefix("gen_ai.request.model=")).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn law_10_ten_thousand_invented_models_are_one_label() {
    let metrics = Metrics::listen();
    // The upstream knows none of these models.
    let upstream = emulator().build();
    let (call, attempt) = (TelemetryLayer::call(), TelemetryLayer::attempt());
    let service = call.layer(attempt.layer(upstream));
    for nth in 0..10_000 {
        let uri = format!("/v1beta/models/invented-{nth}:generateContent");
        let response = service.clone().oneshot(ask(&uri)).await.unwrap();
        assert_eq!(response.status(), 404);
    }
    assert_eq!(models(&metrics), BTreeSet::from(["other".to_owned()]));
    // A model that exists is still known by name after them.
    read(service.oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    assert_eq!(models(&metrics), BTreeSet::from(["gemini-2.5-pro".to_owned(), "other".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn law_10_an_upstream_that_answers_to_any_name_gets_64() {
    let metrics = Metrics::listen();
    let service = TelemetryLayer::attempt().layer(Upstream::at_once(|_| Ok(hello())));
    for nth in 0..10_000 {
        let uri = format!("/v1beta/models/invented-{nth}:generateContent");
        read(service.clone().oneshot(ask(&uri)).await.unwrap().into_body()).await;
    }
    assert_eq!(models(&metrics).len(), 65);
}

#[tokio::test(start_paused = true)]
async fn law_10_nor_do_versions_that_an_upstream_invents() {
    let metrics = Metrics::listen();
    let upstream = Upstream::at_once(|nth| Ok(json(200, HELLO.replace("\"gemini-2.5-pro\"", &format!("\"v-{nth}\"")))));
    let service = TelemetryLayer::call().layer(tower_gemini::ClassifyLayer::new().layer(upstream));
    for _ in 0..1_000 {
        read(service.clone().oneshot(ask(GENERATE)).await.unwrap().into_body()).await;
    }
    // A stream that breaks confirms nothing.
    let upstream = Upstream::at_once(|nth| {
        let event = event("a").replace("]}\r", &format!("],\"modelVersion\":\"cut-{nth}\"}}\r"));
        Ok(sse(chunks([event])))
    });
    let service = TelemetryLayer::call().layer(tower_gemini::ClassifyLayer::new().layer(upstream));
    let _ = frames(service.oneshot(ask(STREAM)).await.unwrap().into_body()).await;
    let values = metrics.take();
    assert!(values.keys().any(|key| key.contains("error.type=stream_cut") && key.contains("response.model=other")));
    let series = values.keys().filter(|key| !key.contains("error.type"));
    let series = series.filter(|key| key.starts_with("gen_ai.client.inference.duration")).count();
    assert_eq!(series, 64, "one name is the request's, and one is `other`");
}
