//! Calls that are made at given times, and what became of them.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::Request;
use http_body_util::Full;
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    caller::{Caller, End},
    upstream::{Upstream, request},
};

/// A call that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
    pub(crate) end: End,
}

impl Done {
    pub(crate) fn is_answered(&self) -> bool {
        self.end == End::Answered
    }

    pub(crate) fn took(&self) -> Duration {
        self.ended - self.begun
    }
}

/// Calls under way.
pub(crate) struct Calls {
    upstream: Upstream,
    under_way: JoinSet<(usize, Done)>,
    made: usize,
}

impl Calls {
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self { upstream: upstream.clone(), under_way: JoinSet::new(), made: 0 }
    }

    /// Waits for the time, then makes a call of no tokens.
    pub(crate) async fn at(&mut self, at: Duration, caller: &Caller) {
        self.request_at(at, caller, request(0)).await;
    }

    /// Waits for the time, then makes a call with this request.
    pub(crate) async fn request_at(&mut self, at: Duration, caller: &Caller, request: Request<Full<Bytes>>) {
        sleep_until(self.upstream.begun() + at).await;
        let (caller, begun, nth) = (caller.clone(), self.upstream.begun(), self.made);
        self.made += 1;
        self.under_way.spawn(async move {
            let from = begun.elapsed();
            let end = caller.call(request).await;
            (nth, Done { begun: from, ended: begun.elapsed(), end })
        });
    }

    /// Waits for all, and returns them in the order in which they were made.
    pub(crate) async fn all(mut self) -> Vec<Done> {
        let mut all = Vec::with_capacity(self.made);
        while let Some(done) = self.under_way.join_next().await {
            all.push(done.expect("no call panics"));
        }
        all.sort_unstable_by_key(|(nth, _)| *nth);
        all.into_iter().map(|(_, done)| done).collect()
    }
}

/// Returns the times of Poisson arrivals from `from` until `until`, so many a second.
pub(crate) fn poisson(seed: u64, rate: f64, from: Duration, until: Duration) -> Vec<Duration> {
    let mut rng = Rng::with_seed(seed);
    let mut at = from.as_secs_f64();
    let mut arrivals = Vec::new();
    loop {
        at -= (1.0 - rng.f64()).ln() / rate;
        if at >= until.as_secs_f64() {
            return arrivals;
        }
        arrivals.push(Duration::from_secs_f64(at));
    }
}

/// Returns how many calls were answered.
pub(crate) fn answered(calls: &[Done]) -> usize {
    calls.iter().filter(|call| call.is_answered()).count()
}

/// Returns the time in seconds within which 99 of 100 answered calls were answered; not a number if none was.
pub(crate) fn p99(calls: &[Done]) -> f64 {
    let mut times: Vec<_> = calls.iter().filter(|call| call.is_answered()).map(Done::took).collect();
    times.sort_unstable();
    let nth = (times.len() as f64 * 0.99).ceil() as usize;
    nth.checked_sub(1).map_or(f64::NAN, |nth| times[nth].as_secs_f64())
}

/// Returns the time in seconds at which the last answer came; not a number if there was none.
pub(crate) fn last_answer(calls: &[Done]) -> f64 {
    let last = calls.iter().filter(|call| call.is_answered()).map(|call| call.ended).max();
    last.map_or(f64::NAN, |last| last.as_secs_f64())
}
