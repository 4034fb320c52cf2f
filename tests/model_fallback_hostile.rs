//! `ModelFallbackLayer` against callers and upstreams that mean no good, on a paused clock.

mod support;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::*;
use tokio::time::advance;
use tower::{Layer, ServiceExt};
use tower_gemini::{
    Error, ModelFallbackLayer, Outcome,
    failure::{Failure, Kind, TimeoutKind},
    model_fallback::FallbackChains,
};

const PRO: &str = "gemini-2.5-pro";
const FLASH: &str = "gemini-2.5-flash";

fn chains() -> FallbackChains {
    FallbackChains::builder().chain(PRO, [FLASH]).build().unwrap()
}

fn is_pro(asked: &Asked) -> bool {
    asked.uri.path().contains(PRO)
}

/// An upstream whose first choice fails with that kind, and whose other model answers.
fn fails(kind: Kind) -> Upstream {
    Upstream::new(move |_, asked| {
        let failure = Failure::local(kind, "no");
        let answer = match (is_pro(&asked), failure.code().as_u16()) {
            (true, _) if kind == Kind::RateLimited => Err(Error::refusal("tests", failure).into()),
            (true, code) => Ok(judged(json(code, BUSY), failure)),
            (false, _) => Ok(hello()),
        };
        std::future::ready(answer)
    })
}

async fn ask(chains: &FallbackChains, upstream: &Upstream) -> Response<AnyBody> {
    ModelFallbackLayer::new(chains.clone()).layer(upstream.clone()).oneshot(post(GENERATE)).await.unwrap()
}

/// A prompt that takes long to think about, or a deadline that the caller has set, is one caller's own.
#[tokio::test(start_paused = true)]
async fn one_slow_request_moves_nobody_else() {
    for kind in [
        Kind::Timeout(TimeoutKind::Attempt),
        Kind::Timeout(TimeoutKind::FirstContent),
        Kind::DeadlineExceeded,
        Kind::Cancelled,
    ] {
        let (chains, upstream) = (chains(), fails(kind));
        assert_eq!(ask(&chains, &upstream).await.headers()["x-gemini-model"], FLASH, "{kind}: it is answered");
        assert_eq!(chains.snapshot()[0].current(), PRO, "{kind}: and nobody else is moved");
    }
}

/// The limiter may refuse a large request and admit a small one; to ask it costs nothing.
#[tokio::test(start_paused = true)]
async fn one_large_request_moves_nobody_else() {
    use tower_gemini::model_fallback::FallbackReason;
    let chains = FallbackChains::builder().chain(PRO, [FLASH]).on(FallbackReason::RateLimited, true).build().unwrap();
    let upstream = fails(Kind::RateLimited);
    assert_eq!(ask(&chains, &upstream).await.headers()["x-gemini-model"], FLASH);
    assert_eq!(chains.snapshot()[0].current(), PRO);
}

/// A probe may take long, or never end: after another sticky duration another call probes.
#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_does_not_keep_all_away() {
    let chains = chains();
    ask(&chains, &fails(Kind::Overloaded)).await;
    assert_eq!(chains.snapshot()[0].current(), FLASH);
    advance(FallbackChains::STICKY).await;
    let hanging = Upstream::hangs();
    let mut probe = tokio_test::task::spawn(ask(&chains, &hanging));
    assert!(probe.poll().is_pending());
    assert!(is_pro(&hanging.asked()[0]));
    let well = Upstream::at_once(|_| Ok(hello()));
    advance(FallbackChains::STICKY - millis(1)).await;
    assert_eq!(ask(&chains, &well).await.headers()["x-gemini-model"], FLASH, "one at a time");
    advance(millis(1)).await;
    assert_eq!(ask(&chains, &well).await.headers()["x-gemini-model"], PRO);
    assert_eq!(chains.snapshot()[0].current(), PRO);
    drop(probe);
    assert_eq!(chains.snapshot()[0].current(), PRO);
}

/// Both settings of thinking, side by side: both are cut out, with their commas, and the rest is JSON.
#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_request_is_json() {
    let chains = FallbackChains::builder().chain("gemini-3-flash", ["gemini-2.5-pro"]).strip(true).build().unwrap();
    let members = [r#""thinkingLevel":"low""#, r#""thinkingBudget":0"#, r#""includeThoughts":true"#, r#""x":1"#];
    for orders in 0..members.len().pow(4) {
        let order: Vec<usize> = (0..4).map(|digit| orders / members.len().pow(digit) % members.len()).collect();
        if (0..4).any(|member| !order.contains(&member)) {
            continue;
        }
        let config = order.iter().map(|at| members[*at]).collect::<Vec<_>>().join(", ");
        let body = format!(r#"{{"generationConfig":{{"thinkingConfig":{{{config}}}}},"contents":[]}}"#);
        let upstream = Upstream::new(|_, asked| {
            let failure = Failure::local(Kind::Overloaded, "no");
            std::future::ready(Ok(if is_pro(&asked) { hello() } else { judged(busy(), failure) }))
        });
        let request: Request<Full<Bytes>> = post_body("/v1beta/models/gemini-3-flash:generateContent", body.clone());
        let result = ModelFallbackLayer::new(chains.clone()).layer(upstream.clone()).oneshot(request).await;
        assert!(Outcome::of(&result).failure().is_none());
        let sent = upstream.asked().pop().unwrap().body;
        let left: serde_json::Value = serde_json::from_slice(&sent).unwrap_or_else(|error| panic!("{body}: {error}"));
        assert_eq!(left["generationConfig"]["thinkingConfig"], serde_json::json!({"includeThoughts": true, "x": 1}));
        // The next call begins with the first choice.
        advance(FallbackChains::STICKY).await;
    }
}
