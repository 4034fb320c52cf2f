//! The models of upstreams that several rows ask.

use std::{collections::VecDeque, time::Duration};

use fastrand::Rng;

use crate::upstream::{Asked, Exceeded, INPUT_TOKENS, Model, REQUESTS, Reply};

/// An upstream that turns a part of the attempts away, at random.
pub(crate) struct Shedding {
    rng: Rng,
    part: f64,
    service: Duration,
}

impl Shedding {
    pub(crate) fn new(seed: u64, part: f64, service: Duration) -> Self {
        Self { rng: Rng::with_seed(seed), part, service }
    }
}

impl Model for Shedding {
    fn ask(&mut self, _: Duration, _: &Asked) -> Reply {
        if self.rng.f64() < self.part { Reply::Overloaded } else { Reply::Answer(self.service) }
    }
}

/// An upstream with a quota, which it counts exactly over a sliding minute. Refused attempts cost nothing.
pub(crate) struct Metered {
    limit: u64,
    /// True if it counts tokens in place of requests.
    by_tokens: bool,
    service: Duration,
    spent: VecDeque<(Duration, u64)>,
    sum: u64,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Metered {
    /// Creates an upstream that takes so many requests a minute.
    pub(crate) fn requests(limit: u64, service: Duration) -> Self {
        Self { limit, by_tokens: false, service, spent: VecDeque::new(), sum: 0 }
    }

    /// Creates an upstream that takes so many input tokens a minute.
    pub(crate) fn tokens(limit: u64, service: Duration) -> Self {
        Self { by_tokens: true, ..Self::requests(limit, service) }
    }
}

impl Model for Metered {
    fn ask(&mut self, at: Duration, attempt: &Asked) -> Reply {
        while let Some((_, cost)) = self.spent.front().copied().filter(|(spent_at, _)| *spent_at + MINUTE <= at) {
            self.spent.pop_front();
            self.sum -= cost;
        }
        let cost = if self.by_tokens { attempt.tokens } else { 1 };
        if self.sum + cost <= self.limit {
            self.spent.push_back((at, cost));
            self.sum += cost;
            return Reply::Answer(self.service);
        }
        // The wait ends when enough of the minute has passed for this attempt.
        let mut freed = 0;
        let room_at = self.spent.iter().find_map(|(spent_at, spent)| {
            freed += spent;
            (self.sum - freed + cost <= self.limit).then_some(*spent_at + MINUTE)
        });
        let retry_in = room_at.unwrap_or(at + MINUTE) - at;
        let id = if self.by_tokens { INPUT_TOKENS } else { REQUESTS };
        Reply::Quota(Exceeded { id, value: self.limit, retry_in })
    }
}
