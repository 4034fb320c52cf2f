//! The failures for which a call falls back to the next model.

use std::{fmt, time::Duration};

use crate::failure::{Failure, Fault, Kind, TimeoutKind};

/// The longest time that a caller waits for a quota; one that takes longer is treated as a day's.
const LONG: Duration = Duration::from_secs(300);

/// The reason for which a call falls back to the next model.
/// [`FallbackChainsBuilder::on`](super::FallbackChainsBuilder::on) switches each on and off.
///
/// | reason | what has happened | by default |
/// |---|---|---|
/// | `Model` | the model is overloaded or its shared capacity is used up, and retries did not help | on |
/// | `Service` | 500, 502, 504, 499 or an empty answer, and retries did not help | on |
/// | `Timeout` | the attempt's time-out or the one for the first content has passed | on |
/// | `CircuitOpen` | the circuit breaker refuses calls to the model | on |
/// | `QuotaDay` | the day's quota of the model is used up, or another quota for more than 5 minutes, of which the limiter may know | on |
/// | `QuotaZero` | the project has no quota for the model at all, or the model is closed for it | on |
/// | `KeysExhausted` | no key has quota left for the model | on |
/// | `QuotaMinute` | a minute's quota is used up, or an unnamed one: `RetryLayer` waits for it | off |
/// | `RateLimited` | the local limiter would have to make the call wait too long: `RetryLayer` retries | off |
/// | `ModelNotFound` | there is no such model, or not for this method: a mistake that should be seen | off |
///
/// A call never falls back for other failures: another model is behind the same connection, takes the same key, and
/// reads the same request. A context that is too long leads to [`larger`](super::FallbackChainsBuilder::larger) models
/// only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FallbackReason {
    /// The model has no capacity left, for any caller.
    Model,
    /// The service has failed: 500, 502, 504, 499, an answer without content.
    Service,
    /// An attempt, or the wait for the first content, took too long.
    Timeout,
    /// The circuit of the model is open.
    CircuitOpen,
    /// The day's quota is used up, or another one for more than 5 minutes.
    QuotaDay,
    /// The project's quota for the model is zero.
    QuotaZero,
    /// No key has quota left.
    KeysExhausted,
    /// A minute's quota is used up, of requests or of tokens, or one that the upstream does not name.
    QuotaMinute,
    /// The local limiter refuses the call.
    RateLimited,
    /// There is no such model.
    ModelNotFound,
}

impl FallbackReason {
    /// Returns whether calls fall back for this reason unless it is switched off.
    #[must_use]
    pub const fn is_on_by_default(self) -> bool {
        !matches!(self, Self::QuotaMinute | Self::RateLimited | Self::ModelNotFound)
    }

    /// Returns the reason that a failure amounts to, if any.
    pub(super) fn of(failure: &Failure) -> Option<Self> {
        let is_long = failure.is_lasting() || failure.hint().is_some_and(|hint| hint.delay() > LONG);
        match (failure.kind(), failure.fault()) {
            (Kind::Timeout(TimeoutKind::Attempt | TimeoutKind::FirstContent), _) => Some(Self::Timeout),
            (Kind::CircuitOpen, _) => Some(Self::CircuitOpen),
            (Kind::QuotaDay, _) => Some(Self::QuotaDay),
            (Kind::QuotaZero | Kind::ModelClosed, _) => Some(Self::QuotaZero),
            (Kind::QuotaGrounding, _) if !failure.same_key_may_help() => Some(Self::QuotaDay),
            // All models of the project wait.
            (Kind::QuotaSpend, _) => None,
            (Kind::RateLimited, _) | (_, Fault::Quota) if is_long => Some(Self::QuotaDay),
            (Kind::KeysExhausted, _) => Some(Self::KeysExhausted),
            (Kind::RateLimited, _) => Some(Self::RateLimited),
            (Kind::ModelNotFound, _) => Some(Self::ModelNotFound),
            (_, Fault::Quota) => Some(Self::QuotaMinute),
            (_, Fault::Model) => Some(Self::Model),
            (_, Fault::Service) => Some(Self::Service),
            _ => None,
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Service => "service",
            Self::Timeout => "timeout",
            Self::CircuitOpen => "circuit_open",
            Self::QuotaDay => "quota_day",
            Self::QuotaZero => "quota_zero",
            Self::KeysExhausted => "keys_exhausted",
            Self::QuotaMinute => "quota_minute",
            Self::RateLimited => "rate_limited",
            Self::ModelNotFound => "model_not_found",
        })
    }
}

/// The reasons that are switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reasons(u16);

impl Reasons {
    pub(super) fn set(&mut self, reason: FallbackReason, moves: bool) {
        match moves {
            true => self.0 |= reason.bit(),
            false => self.0 &= !reason.bit(),
        }
    }

    pub(super) fn has(self, reason: FallbackReason) -> bool {
        self.0 & reason.bit() != 0
    }
}

impl Default for Reasons {
    fn default() -> Self {
        use FallbackReason::*;
        let mut on = Self(0);
        for reason in [Model, Service, Timeout, CircuitOpen, QuotaDay, QuotaZero, KeysExhausted] {
            on.set(reason, true);
        }
        on
    }
}
