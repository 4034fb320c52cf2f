//! The instances that share the quota, as the server has seen them.

use std::time::Duration;

use redis::Cmd;
use tokio::time::Instant;

/// The time after which an instance that is not seen is gone.
const GONE_MS: u64 = 3_000;

/// The time for which a larger number of instances counts: after an outage, they come back one by one.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The time for which the registry is kept.
const KEPT: Duration = Duration::from_secs(60);

/// The time for which an instance that was noted is there: where it is not, the server has lost its keys. Each instance looks for
/// itself, because the first one to look makes the registry anew.
pub(super) const NOTED: Duration = Duration::from_millis(GONE_MS - 500);

/// Notes this instance at the server's own time, and returns that time, whether the instance was noted before, and the number of
/// instances. Times from the future are another clock's.
const REGISTRY: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local had = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + ARGV[2], '+inf')
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { now, had, redis.call('ZCARD', KEYS[1]) }";

/// Returns the command that notes an instance.
pub(super) fn note(prefix: &str, instance: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(REGISTRY).arg(1).arg(format!("{prefix}:instances")).arg(instance);
    command.arg(GONE_MS).arg(KEPT.as_millis() as u64);
    command
}

/// Returns the command that takes an instance out, because it ends.
pub(super) fn leave(prefix: &str, instance: &str) -> Cmd {
    let mut command = redis::cmd("ZREM");
    command.arg(format!("{prefix}:instances")).arg(instance);
    command
}

/// The number of instances to reckon with.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenInstances {
    count: u32,
    /// The time at which as many were last seen; `None`: the number is an assumption.
    at: Option<Instant>,
}

impl SeenInstances {
    pub(super) fn new(assumed: u32) -> Self {
        Self { count: assumed.max(1), at: None }
    }

    /// Notes the number of instances that the server has seen.
    pub(super) fn seen(&mut self, now: Instant, count: u32) {
        let is_over = self.at.is_none_or(|at| now.saturating_duration_since(at) > REMEMBERED);
        if count >= self.count || is_over {
            *self = Self { count: count.max(1), at: Some(now) };
        }
    }

    pub(super) fn count(self) -> u32 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_instances_are_believed_after_a_minute_only() {
        let now = Instant::now();
        let mut instances = SeenInstances::new(4);
        assert_eq!(instances.count(), 4);
        // The first number replaces the assumption.
        instances.seen(now, 2);
        assert_eq!(instances.count(), 2);
        instances.seen(now, 9);
        instances.seen(now + REMEMBERED, 1);
        assert_eq!(instances.count(), 9);
        instances.seen(now + REMEMBERED + Duration::from_millis(1), 0);
        assert_eq!(instances.count(), 1);
    }
}
