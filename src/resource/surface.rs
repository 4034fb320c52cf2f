//! Reads the requests that Google's descriptions and SDKs know, and compares each property with the truth.

use http::Method;
use serde::Deserialize;

use super::{Mentions, Resource};
use crate::call::Call;

#[derive(Deserialize)]
struct Row {
    method: String,
    uri: String,
    body: Option<String>,
    truth: Truth,
}

#[derive(Deserialize)]
struct Truth {
    surface: String,
    op: String,
    model: Option<String>,
    streaming: String,
    resend: String,
    quota: bool,
    #[serde(default, deserialize_with = "present")]
    affinity: Option<Option<String>>,
    collection: Option<bool>,
    body_affinity: Option<String>,
}

/// Tells a member that is null from one that is missing.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

#[test]
fn every_request_of_the_apis_is_read_rightly() {
    let path = std::env::var("TOWER_GEMINI_SURFACE")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/surface/surface.jsonl").into());
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Row> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut wrong = Vec::new();
    let mut bad = 0;
    for row in &rows {
        let uri = row.uri.parse().unwrap();
        let method = Method::from_bytes(row.method.as_bytes()).unwrap();
        let mut call = Call::new(&method, &uri);
        let mut named = None;
        if let Some(body) = &row.body {
            call = call.read_body(body.as_bytes());
            named = Mentions::new(body.as_bytes()).next().map(|mention| mention.resource);
        }
        let truth = &row.truth;
        let before = wrong.len();
        let mut check = |field: &str, found: String, expected: String| {
            if found != expected {
                wrong.push(format!("{field} {} {}: {found} expected {expected}", row.method, row.uri));
            }
        };
        // The Developer API has this path as well, and only the host says whose it is.
        if uri.path() != "/v1/operations/x1" {
            check("surface", format!("{:?}", call.surface()), truth.surface.clone());
        }
        check("op", format!("{:?}", call.operation()), truth.op.clone());
        // A request that calls no model may still name one.
        if truth.model.is_some() || !matches!(truth.op.as_str(), "Read" | "Write") {
            check("model", format!("{:?}", call.model()), format!("{:?}", truth.model.as_deref()));
        }
        check("streaming", format!("{:?}", call.streaming()), truth.streaming.clone());
        check("resend", format!("{:?}", call.idempotency()), truth.resend.clone());
        check("quota", call.pays_quota().to_string(), truth.quota.to_string());
        if let Some(affinity) = &truth.affinity {
            let found = Resource::in_uri(&uri).map(|resource| resource.0.to_string());
            check("affinity", format!("{found:?}"), format!("{affinity:?}"));
        }
        if let Some(collection) = truth.collection {
            check("collection", Resource::is_collection(uri.path()).to_string(), collection.to_string());
        }
        if truth.body_affinity.is_some() {
            let found = named.map(|resource| resource.0.to_string());
            check("body_affinity", format!("{found:?}"), format!("{:?}", truth.body_affinity));
        }
        bad += usize::from(wrong.len() > before);
    }
    assert!(wrong.is_empty(), "{bad} of {} rows are wrong:\n{}", rows.len(), wrong.join("\n"));
}
