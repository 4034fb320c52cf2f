//! Reads what a request is, and rewrites it for another model.
//!
//! The input is a URI in the first line, a model's name in the second, and a JSON body in the rest.

#![no_main]

use std::collections::BTreeMap;

use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tower_gemini::call::{Call, Idempotency, ServiceTier};

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (uri, model, body) = (line(), line(), line());
    let Ok(model) = std::str::from_utf8(model) else { return };
    if let Ok(uri) = Uri::try_from(uri) {
        path(&uri, model, body);
    }
    rewritten_body(model, body);
    rewritten_tier(body);
});

fn path(uri: &Uri, model: &str, body: &[u8]) {
    for method in [Method::POST, Method::GET] {
        let call = Call::new(&method, uri);
        let read = call.clone().read_body(body);
        assert_eq!((read.surface(), read.operation()), (call.surface(), call.operation()));
        assert!(read.requests() >= 1);
        let stored_nowhere = (call.idempotency(), read.idempotency()) == (Idempotency::Unsafe, Idempotency::Billed);
        assert!(read.idempotency() == call.idempotency() || (call.speaks_in_body() && stored_nowhere), "{uri}");
        assert!(!read.may_repeat_after_error() || read.idempotency() == Idempotency::Unsafe, "{uri}");
        assert!(read.model().is_none() || read.agent().is_none(), "{uri}");
        if !call.speaks_in_body() {
            let named = (read.model(), read.streaming(), read.idempotency());
            assert_eq!(named, (call.model(), call.streaming(), call.idempotency()), "the body is not asked for it");
        }

        let Some(other) = Call::uri_with_model(uri, model) else { continue };
        let moved = Call::new(&method, &other);
        assert_eq!(moved.model(), Some(model), "{other}");
        assert_eq!(
            (moved.surface(), moved.operation(), moved.streaming(), moved.idempotency()),
            (call.surface(), call.operation(), call.streaming(), call.idempotency()),
            "{uri} became another call: {other}"
        );
        assert_eq!((other.query(), other.scheme(), other.authority()), (uri.query(), uri.scheme(), uri.authority()));
        assert_eq!(Call::uri_with_model(&other, model), Some(other.clone()), "twice is once");
    }
}

fn rewritten_body(model: &str, body: &[u8]) {
    let Some(other) = Call::body_with_model(body, model) else { return };
    // Of members that are there twice, the last one counts here, too. The rest of a body need not be UTF-8.
    if std::str::from_utf8(&other).is_err() {
        return;
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(&other).expect("an object");
    let new: String = serde_json::from_str(members["model"].get()).expect("a model's name");
    assert!(new.ends_with(model), "{new} does not name {model}");
    // A change of any other member would change the answer: all but the name stays.
    let before = body.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let after = body.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    let name = |text: &str| serde_json::to_string(text).expect("a string").len();
    assert!(before + after + name(&new) >= other.len(), "more than the name has changed");
}

fn rewritten_tier(body: &[u8]) {
    for tier in [ServiceTier::Standard, ServiceTier::Flex, ServiceTier::Priority] {
        let Some(other) = Call::body_with_service_tier(body, tier) else { continue };
        let uri = Uri::from_static("/v1/interactions");
        let read = Call::new(&Method::POST, &uri).read_body(&other);
        assert_eq!(read.service_tier(), tier);
        assert_eq!(Call::body_with_service_tier(&other, tier), Some(other), "twice is once");
    }
}
