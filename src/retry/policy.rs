//! The policy: a table of causes and rules, and the limits of a call.

use std::{fmt, time::Duration};

use http::StatusCode;

use super::budget::RetryBudget;
use crate::{
    failure::{Failure, Fault, Kind},
    service_times::ServiceTimes,
};

/// The rules by which failures are retried: which, how often and after how long.
///
/// The default is the table of the [module](super). [`on`](Self::on) changes one row; [`rule`](Self::rule) and
/// `Display` show the rules in force.
///
/// ```
/// use std::time::Duration;
/// use http::StatusCode;
/// use tower_gemini::retry::{Cause, RetryPolicy, Rule};
///
/// let policy = RetryPolicy::default()
///     .on(StatusCode::SERVICE_UNAVAILABLE, Rule::attempts(3).base_delay(Duration::from_millis(200)))
///     .on(Cause::Timeout, Rule::never());
/// assert_eq!(policy.rule(StatusCode::SERVICE_UNAVAILABLE).max_attempts(), 3);
/// assert_eq!(policy.rule(StatusCode::BAD_REQUEST), &Rule::never());
/// println!("{policy}");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryPolicy {
    rows: Vec<TableRow>,
    pub(super) max_attempts: u32,
    pub(super) max_hint: Duration,
    pub(super) on_open: OnOpen,
    pub(super) budget: Option<RetryBudget>,
    /// The times that answers take, which the layer sets: here, because a call holds its policy anyway.
    pub(super) times: Option<ServiceTimes>,
}

#[derive(Clone, Copy, Debug)]
struct TableRow {
    cause: Cause,
    rule: Rule,
    /// Set if the user wrote the row, which then also applies to failures that are not retried by default.
    explicit: bool,
}

/// The cause of a failure, which selects a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// An answer with this status. Exhausted shared capacity counts as 503, and a service that was too slow as 504,
    /// whatever their status is.
    Status(StatusCode),
    /// No connection could be made.
    Connect,
    /// The connection broke.
    Reset,
    /// One attempt timed out.
    Timeout,
    /// A 200 without content.
    Empty,
    /// The request certainly never reached the upstream.
    NotSent,
}

/// The rule of one row: the number of attempts and the backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rule {
    attempts: u32,
    base_delay: Duration,
    max_delay: Duration,
    /// The most attempts while another model is left.
    attempts_before_fallback: u32,
}

/// The reaction to an open circuit.
///
/// Other refusals by layers inside are not its matter: one of the limiter or the key pool says when there is quota
/// again, and is waited for as a hint of the upstream's is, within [`RetryPolicy::max_hint`] and the deadline. A call
/// that the limiter refuses for its own longest wait is not made to wait here, either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnOpen {
    /// A wait until the circuit may close again, within the deadline. No attempt is counted, because nothing was sent.
    /// The default.
    #[default]
    Wait,
    /// The breaker's refusal, returned at once.
    Fail,
}

impl RetryPolicy {
    /// The default of the most attempts of one call, the first included: 8.
    pub const MAX_ATTEMPTS: u32 = 8;
    /// The default of the longest hint that is waited for: 300 s. A longer one stands for a longer period's quota;
    /// gemini-cli draws the line there too.
    pub const MAX_HINT: Duration = Duration::from_secs(300);

    /// Creates a policy that never retries.
    pub fn never() -> Self {
        Self {
            rows: Vec::new(),
            max_attempts: 1,
            max_hint: Duration::ZERO,
            on_open: OnOpen::Fail,
            budget: None,
            times: None,
        }
    }

    /// Creates a policy for a person who waits: up to 12 attempts, 0.25 s apart at first and 4 s at most, within the
    /// deadline. A 429 without details is backed off from 1 s, as ever: a quota is not load that passes in a moment.
    pub fn interactive() -> Self {
        let (base, longest) = (Duration::from_millis(250), Duration::from_secs(4));
        let policy = Self::default().max_attempts(12).base_delay(base).max_delay(longest);
        let quota = *policy.rule(StatusCode::TOO_MANY_REQUESTS);
        policy.with(StatusCode::TOO_MANY_REQUESTS, quota.base_delay(Duration::from_secs(1)))
    }

    /// Creates a policy for work that may take its time: up to 60 attempts on 503, at most 8 s apart, within the
    /// deadline, and with a budget of [`RetryBudget::PERSISTENT_CAPACITY`].
    pub fn persistent() -> Self {
        let budget = Some(RetryBudget::new(RetryBudget::PERSISTENT_CAPACITY));
        let mut policy = Self { max_attempts: 60, budget, ..Self::default() };
        for cause in [Cause::Status(StatusCode::SERVICE_UNAVAILABLE), Cause::Connect, Cause::Reset] {
            policy.set(cause, Rule::unlimited().max_delay(Duration::from_secs(8)), false);
        }
        let quota = Rule::attempts(Self::MAX_ATTEMPTS).base_delay(Duration::from_secs(1));
        policy.with(StatusCode::TOO_MANY_REQUESTS, quota)
    }

    /// Sets the rule for failures of this cause.
    ///
    /// A rule that was set also applies to failures that are not retried by default, such as a 404; but never to a
    /// day's quota, a limit of zero or a verdict on the content, which no repetition changes.
    pub fn on(mut self, cause: impl Into<Cause>, rule: Rule) -> Self {
        self.set(cause.into(), rule, true);
        self
    }

    /// Sets the most attempts of one call, the first included, over all causes (default 8). Less than 1 counts as 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// Sets the base of the backoff in every row (default 0.5 s, and 1 s for 429).
    pub fn base_delay(mut self, delay: Duration) -> Self {
        self.rows.iter_mut().for_each(|row| row.rule.base_delay = delay);
        self
    }

    /// Sets the longest backoff in every row (default 20 s). Hints of the upstream may be longer.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.rows.iter_mut().for_each(|row| row.rule.max_delay = delay);
        self
    }

    /// Sets the longest hint that is waited for, of the upstream or in a refusal by the limiter or the key pool (default
    /// 300 s).
    pub fn max_hint(mut self, hint: Duration) -> Self {
        self.max_hint = hint;
        self
    }

    /// Sets the reaction to an open circuit (default: wait).
    pub fn on_open(mut self, on_open: OnOpen) -> Self {
        self.on_open = on_open;
        self
    }

    /// Sets the budget that all calls share (default: one of its own). Where it is empty, a retry waits for its token, and
    /// a call with another model left goes there.
    /// `None`: only the rows limit retries.
    pub fn budget(mut self, budget: impl Into<Option<RetryBudget>>) -> Self {
        self.budget = budget.into();
        self
    }

    /// Returns the rule for a cause; [`Rule::never`] if the table has none.
    pub fn rule(&self, cause: impl Into<Cause>) -> &Rule {
        const NEVER: Rule = Rule::never();
        let cause = cause.into();
        self.rows.iter().find(|row| row.cause == cause).map_or(&NEVER, |row| &row.rule)
    }

    /// Returns whether the user has set the row.
    pub(super) fn is_explicit(&self, cause: Cause) -> bool {
        self.rows.iter().any(|row| row.cause == cause && row.explicit)
    }

    /// Returns whether a request can be sent a second time, so that it has to be kept. A policy of a single attempt that
    /// fails on an open circuit waits for nothing, and copies no request.
    pub(super) fn ever_resends(&self) -> bool {
        self.max_attempts > 1 || self.on_open == OnOpen::Wait
    }

    /// Sets a row of a preset.
    fn with(mut self, cause: impl Into<Cause>, rule: Rule) -> Self {
        self.set(cause.into(), rule, false);
        self
    }

    fn set(&mut self, cause: Cause, rule: Rule, explicit: bool) {
        self.rows.retain(|row| row.cause != cause);
        self.rows.push(TableRow { cause, rule, explicit });
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let busy = Rule::unlimited().before_fallback(3);
        let rows = [
            (StatusCode::TOO_MANY_REQUESTS.into(), Rule::unlimited().base_delay(Duration::from_secs(1))),
            (StatusCode::SERVICE_UNAVAILABLE.into(), busy),
            (Cause::Connect, busy),
            (Cause::Reset, busy),
            // An attempt that has hung has waited long enough.
            (Cause::Timeout, Rule::unlimited().max_delay(Duration::from_secs(2)).before_fallback(2)),
            (StatusCode::INTERNAL_SERVER_ERROR.into(), Rule::attempts(4)),
            (StatusCode::BAD_GATEWAY.into(), Rule::attempts(4)),
            (StatusCode::GATEWAY_TIMEOUT.into(), Rule::attempts(2)),
            (StatusCode::REQUEST_TIMEOUT.into(), Rule::attempts(2)),
            (Cause::Empty, Rule::attempts(2)),
            (Cause::NotSent, busy),
        ];
        Self {
            rows: rows.map(|(cause, rule)| TableRow { cause, rule, explicit: false }).into(),
            max_attempts: Self::MAX_ATTEMPTS,
            max_hint: Self::MAX_HINT,
            on_open: OnOpen::Wait,
            budget: Some(RetryBudget::default()),
            times: None,
        }
    }
}

impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at most {} attempts a call; hints up to {:?} are waited for", self.max_attempts, self.max_hint)?;
        self.rows.iter().try_for_each(|TableRow { cause, rule, .. }| writeln!(f, "{cause:>8}: {rule}"))
    }
}

impl Rule {
    /// Creates a rule that never retries.
    pub const fn never() -> Self {
        Self::attempts(1)
    }

    /// Creates a rule whose only limit is [`RetryPolicy::max_attempts`]. It backs off as [`attempts`](Self::attempts)
    /// does.
    pub const fn unlimited() -> Self {
        Self::attempts(u32::MAX)
    }

    /// Creates a rule that allows `attempts` failures of this cause in one call: with 3, the third goes back. It backs
    /// off from 0.5 s, doubling up to 20 s, with full jitter.
    pub const fn attempts(attempts: u32) -> Self {
        let (base_delay, max_delay) = (Duration::from_millis(500), Duration::from_secs(20));
        Self { attempts, base_delay, max_delay, attempts_before_fallback: attempts }
    }

    /// Sets the longest first backoff. Zero: at once.
    pub const fn base_delay(mut self, delay: Duration) -> Self {
        self.base_delay = delay;
        self
    }

    /// Sets the longest backoff.
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Allows fewer attempts while another model is left.
    pub const fn before_fallback(mut self, attempts: u32) -> Self {
        self.attempts_before_fallback = attempts;
        self
    }

    /// Returns the number of failures of this cause that end a call. [`u32::MAX`]: only the call's own limit ends it.
    pub const fn max_attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the number of failures of this cause that end the attempts at the current model.
    pub(super) fn attempts_here(&self, models_left: u32) -> u32 {
        if models_left > 0 { self.attempts.min(self.attempts_before_fallback) } else { self.attempts }
    }

    /// Returns the longest backoff after the `nth` failure (from 1).
    pub(super) fn ceiling(&self, nth: u32) -> Duration {
        let doublings = nth.saturating_sub(1).min(31);
        self.base_delay.saturating_mul(1 << doublings).min(self.max_delay)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempts {
            0 | 1 => f.write_str("never"),
            u32::MAX => write!(f, "all attempts, backoff {:?} to {:?}", self.base_delay, self.max_delay),
            attempts => write!(f, "{attempts} attempts, backoff {:?} to {:?}", self.base_delay, self.max_delay),
        }
    }
}

impl Cause {
    /// Returns the cause of a failure.
    pub fn of(failure: &Failure) -> Self {
        match failure.kind() {
            Kind::Connect => Self::Connect,
            Kind::NotSent => Self::NotSent,
            Kind::Timeout(_) => Self::Timeout,
            Kind::EmptyResponse | Kind::EmptyMalformedFunctionCall => Self::Empty,
            Kind::DeadlineExceeded | Kind::Cancelled => StatusCode::GATEWAY_TIMEOUT.into(),
            _ if failure.fault() == Fault::Model => StatusCode::SERVICE_UNAVAILABLE.into(),
            _ if failure.fault() == Fault::Transport => Self::Reset,
            _ => failure.code().into(),
        }
    }
}

impl From<StatusCode> for Cause {
    fn from(status: StatusCode) -> Self {
        Self::Status(status)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.pad(status.as_str()),
            Self::Connect => f.pad("connect"),
            Self::Reset => f.pad("reset"),
            Self::Timeout => f.pad("timeout"),
            Self::Empty => f.pad("empty"),
            Self::NotSent => f.pad("not sent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_holds() {
        let text = RetryPolicy::default().max_attempts(12).on(Cause::Timeout, Rule::never()).to_string();
        assert!(text.starts_with("at most 12 attempts a call"), "{text}");
        for row in ["     503: all attempts, backoff 500ms to 20s", "     502: 4 attempts,", " timeout: never"] {
            assert!(text.contains(row), "{row} in {text}");
        }
        assert_eq!(RetryPolicy::persistent().rule(StatusCode::TOO_MANY_REQUESTS).max_attempts(), 8);
    }
}
