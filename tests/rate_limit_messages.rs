//! Tests of the limiter's messages where the pace makes a call wait.

mod support;

use std::num::NonZeroU32;

use futures_util::future::join_all;
use tower::{Layer, ServiceExt};
use tower_gemini::{
    RateLimitLayer,
    quota::Limits,
    rate_limit::{Limiter, Pacing},
};

use crate::support::{GENERATE, Upstream, find, hello, post};

async fn message(requests_per_minute: u64, burst: u32, calls: usize) -> String {
    let pacing = Pacing::Smooth { burst: NonZeroU32::new(burst).unwrap() };
    let limits = Limits::new().requests_per_minute(requests_per_minute);
    let limiter = Limiter::builder().limits(limits).pacing(pacing).reject().build();
    let service = RateLimitLayer::new(limiter).layer(Upstream::at_once(|_| Ok(hello())));
    let mut answers = join_all((0..calls).map(|_| service.clone().oneshot(post(GENERATE)))).await;
    let last = answers.pop().unwrap().unwrap_err();
    assert!(answers.iter().all(Result::is_ok));
    find(&last).failure().message().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_pace_is_told_the_pace_and_what_helps() {
    assert_eq!(
        message(30, 3, 4).await,
        "waited 0 s of 2.0s needed, and nobody waits: 3 of 30 requests a minute are used, the pacing is one request in \
         2.0s after its burst, 0 calls wait for project default, model gemini-2.5-pro; raise max_wait or the pacing's \
         burst, or add a project"
    );
}

#[tokio::test(start_paused = true)]
async fn a_larger_burst_is_no_advice_where_the_minute_is_used_up() {
    assert!(message(3, 3, 4).await.ends_with("model gemini-2.5-pro; raise max_wait, or add a project"));
}
