//! The peers: the retry policies that people use with this API today, each a pure function of what has failed, and the loop that
//! obeys one.
//!
//! None of them has a clock for an attempt by default, and none knows quotas; the total clock is that of the row's preset, so that
//! all have the same time.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tower::{
    ServiceExt,
    retry::budget::{Budget, TpsBudget},
};

use crate::{
    caller::{Caller, End},
    upstream::{Refusal, Upstream},
};

/// The state of one call: the failures so far, and what its policy keeps of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) failures: u32,
    /// The next backoff in seconds, in policies that carry it on.
    backoff: Option<f64>,
    /// The cost of the last retry.
    cost: u32,
}

/// A policy. All calls of a program share it.
pub(crate) trait Policy: Send + Sync + 'static {
    /// Decides after a failure, of which the call has had `progress.failures`: the wait before the next attempt, or none.
    /// `roll` is from 0 up to 1.
    fn failed(&self, progress: &mut Progress, refusal: Refusal, roll: f64) -> Option<Duration>;

    /// Decides, after the wait, whether the next attempt may be made.
    fn may_begin(&self) -> bool {
        true
    }

    /// Takes note of an answer.
    fn answered(&self, _: Progress) {}
}

/// Makes a caller that obeys this policy, within a total clock.
pub(crate) fn caller(policy: impl Policy, total: Duration, upstream: &Upstream) -> Caller {
    let policy: Arc<dyn Policy> = Arc::new(policy);
    let upstream = upstream.clone();
    Caller::new(move |request| {
        let (policy, upstream) = (policy.clone(), upstream.clone());
        let call = async move {
            let mut progress = Progress::default();
            loop {
                let Ok(response) = upstream.clone().oneshot(request.clone()).await;
                let Some(refusal) = response.extensions().get::<Refusal>().copied() else {
                    policy.answered(progress);
                    return End::Answered;
                };
                progress.failures += 1;
                match policy.failed(&mut progress, refusal, fastrand::f64()) {
                    Some(wait) => sleep(wait).await,
                    None => return End::Failed,
                }
                if !policy.may_begin() {
                    return End::Failed;
                }
            }
        };
        async move { timeout(total, call).await.unwrap_or(End::Failed) }
    })
}

/// One attempt, as most programs make it: google-genai, too, without `retry_options`.
pub(crate) struct Once;

impl Policy for Once {
    fn failed(&self, _: &mut Progress, _: Refusal, _: f64) -> Option<Duration> {
        None
    }
}

/// Attempts without end, each at once: it answers all that can be answered, as soon as it can be, where the upstream decides
/// each attempt for itself. No program may do that, because it multiplies the load; it is the optimum that others are measured
/// against.
pub(crate) struct AtOnce;

impl Policy for AtOnce {
    fn failed(&self, _: &mut Progress, _: Refusal, _: f64) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

/// google-genai for Python 3.6.1 with `retry_options` (`_api_client.py`, `retry_args`): tenacity's `wait_exponential_jitter`,
/// 5 attempts, 1 s doubling to 60 s, and up to 1 s at random; 408, 429, 500, 502, 503 and 504, without their hints.
pub(crate) struct GoogleGenai;

impl Policy for GoogleGenai {
    fn failed(&self, progress: &mut Progress, _: Refusal, roll: f64) -> Option<Duration> {
        let wait = 2f64.powi(progress.failures as i32 - 1) + roll;
        (progress.failures < 5).then(|| Duration::from_secs_f64(wait.min(60.0)))
    }
}

/// gemini-cli 0.61.0 (`utils/retry.js`, `retryWithBackoff`, and `googleQuotaErrors.js`): 10 attempts, 5 s doubling to 30 s, 30 %
/// more or less at random; a hint of up to 300 s is waited for, with up to 20 % more; a day's quota ends the call.
pub(crate) struct GeminiCli;

impl Policy for GeminiCli {
    fn failed(&self, progress: &mut Progress, refusal: Refusal, roll: f64) -> Option<Duration> {
        if refusal.of_a_day || progress.failures >= 10 {
            return None;
        }
        let backoff = progress.backoff.unwrap_or(5.0);
        let (backoff, wait) = match refusal.hint.map(|hint| hint.as_secs_f64()).filter(|hint| *hint > 0.0) {
            Some(hint) if hint > 300.0 => return None,
            Some(hint) => (backoff.max(hint), backoff.max(hint) * (1.0 + 0.2 * roll)),
            None => (backoff, backoff * (1.0 + 0.3 * (2.0 * roll - 1.0))),
        };
        progress.backoff = Some((backoff * 2.0).min(30.0));
        Some(Duration::from_secs_f64(wait))
    }
}

/// The loop of the guides: `for i in range(5): try … except: time.sleep(2**i)`.
pub(crate) struct Doubling;

impl Policy for Doubling {
    fn failed(&self, progress: &mut Progress, _: Refusal, _: f64) -> Option<Duration> {
        (progress.failures < 5).then(|| Duration::from_secs(1 << (progress.failures - 1)))
    }
}

/// The standard mode of AWS's SDKs of November 2026 (botocore 1.44.8, `retries/standard.py` and `quota.py`): 3 attempts; full
/// jitter up to 50 ms doubling, 1 s for throttling, 20 s at most; 500 tokens, of which a retry takes 14, or 5 after throttling,
/// and an answer gives back what the last retry took, or 1.
pub(crate) struct Aws {
    tokens: Mutex<u32>,
}

impl Aws {
    const CAPACITY: u32 = 500;

    pub(crate) fn new() -> Self {
        Self { tokens: Mutex::new(Self::CAPACITY) }
    }
}

impl Policy for Aws {
    fn failed(&self, progress: &mut Progress, refusal: Refusal, roll: f64) -> Option<Duration> {
        if progress.failures >= 3 {
            return None;
        }
        let (cost, scale) = if refusal.status == 429 { (5, 1.0) } else { (14, 0.05) };
        let mut tokens = self.tokens.lock();
        *tokens = tokens.checked_sub(cost)?;
        progress.cost = cost;
        let ceiling = (scale * 2f64.powi(progress.failures as i32 - 1)).min(20.0);
        Some(Duration::from_secs_f64(roll * ceiling))
    }

    fn answered(&self, progress: Progress) {
        let mut tokens = self.tokens.lock();
        *tokens = (*tokens + progress.cost.max(1)).min(Self::CAPACITY);
    }
}

/// gRPC's retries (gRFC A6, grpc-js 1.14.7, `retrying-call.js`): 5 attempts, 1 s growing by 1.3 to 10 s, which are the numbers of
/// Google's own clients for this API, 20 % more or less at random, for UNAVAILABLE only; `retryThrottling` of 10 tokens, of which a failure
/// takes one and an answer gives back 0.1, and which stops retries at half of them.
pub(crate) struct Grpc {
    /// Tenths of a token.
    tenths: Mutex<u32>,
}

impl Grpc {
    const CAPACITY: u32 = 100;

    pub(crate) fn new() -> Self {
        Self { tenths: Mutex::new(Self::CAPACITY) }
    }
}

impl Policy for Grpc {
    fn failed(&self, progress: &mut Progress, refusal: Refusal, roll: f64) -> Option<Duration> {
        if refusal.status != 503 {
            return None;
        }
        let mut tenths = self.tenths.lock();
        *tenths = tenths.saturating_sub(10);
        let backoff = 1.3f64.powi(progress.failures as i32 - 1).min(10.0);
        (progress.failures < 5).then(|| Duration::from_secs_f64(backoff * (0.8 + 0.4 * roll)))
    }

    fn may_begin(&self) -> bool {
        *self.tenths.lock() > Self::CAPACITY / 2
    }

    fn answered(&self, _: Progress) {
        let mut tenths = self.tenths.lock();
        *tenths = (*tenths + 1).min(Self::CAPACITY);
    }
}

/// `tower::retry` 0.5.3 as its documentation shows it: the real `TpsBudget` with its defaults (10 s, 10 retries a second, 20 %),
/// `ExponentialBackoff` with its defaults (50 ms doubling, up to 99 % more at random), and no other limit.
pub(crate) struct TowerBudget {
    budget: TpsBudget,
}

impl TowerBudget {
    pub(crate) fn new() -> Self {
        Self { budget: TpsBudget::default() }
    }
}

impl Policy for TowerBudget {
    fn failed(&self, progress: &mut Progress, _: Refusal, roll: f64) -> Option<Duration> {
        let base = 0.05 * 2f64.powi(progress.failures as i32 - 1);
        self.budget.withdraw().then(|| Duration::from_secs_f64(base * (1.0 + 0.99 * roll)))
    }

    fn answered(&self, _: Progress) {
        self.budget.deposit();
    }
}
