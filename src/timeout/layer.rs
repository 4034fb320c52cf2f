//! The layer and its clocks.

use std::{fmt, time::Duration};

use tower_layer::Layer;

use super::{
    Timeout,
    clocks::{Clocks, FlexClocks},
    service::Timekeeping,
};
use crate::{
    describe::{Describe, LEFT_OUT},
    service_times::ServiceTimes,
};

/// A layer that ends calls, attempts and answers that hang. See the [module](super) for the four clocks.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct TimeoutLayer {
    clocks: Clocks,
    timekeeping: Option<Timekeeping>,
}

impl TimeoutLayer {
    /// The total clock's default: many clients give up on headers at 300 s, and should see an error that explains
    /// itself.
    pub const TOTAL: Duration = Duration::from_secs(285);
    /// The attempt clock's default, for unary answers: their headers come at the end, and thinking is slow.
    pub const ATTEMPT: Duration = Duration::from_secs(180);
    /// The first-content clock's default, for streams: thinking is slow. 30 s suits Flash.
    pub const FIRST_CONTENT: Duration = Duration::from_secs(180);
    /// The total clock's default for the flex tier, and a little longer than one attempt of it.
    pub const FLEX_TOTAL: Duration = Duration::from_secs(16 * 60);
    /// The default of an attempt's clock for the flex tier: its first byte may take 15 minutes.
    pub const FLEX_FIRST_BYTE: Duration = Duration::from_secs(15 * 60);
    /// The shortest clock that is made of the times seen: 10 s, unless a shorter one is set.
    pub const ADAPTIVE_FLOOR: Duration = Duration::from_secs(10);
    /// The idle clock's default: no healthy stream pauses for a minute between two events.
    pub const IDLE: Duration = Duration::from_secs(60);

    /// Makes a layer with the total clock: it limits the whole call up to its answer's first content, queueing, retries
    /// and other models included.
    ///
    /// It belongs outside of [`RetryLayer`](crate::RetryLayer), and sets the [`Deadline`](crate::context::Deadline) for
    /// everything inside.
    pub fn total(limit: Duration) -> Self {
        Self::with_clocks(Clocks { total: Some(limit), ..Clocks::default() })
    }

    /// Makes a layer with the clocks of one attempt: `limit` for a unary answer, and the defaults
    /// [`FIRST_CONTENT`](Self::FIRST_CONTENT) and [`IDLE`](Self::IDLE) for a stream.
    ///
    /// It belongs inside of [`RetryLayer`](crate::RetryLayer).
    pub fn attempt(limit: Duration) -> Self {
        let (first_content, idle) = (Some(Self::FIRST_CONTENT), Some(Self::IDLE));
        Self::with_clocks(Clocks { attempt: Some(limit), first_content, idle, ..Clocks::default() })
    }

    /// Makes a layer without any clock, of the same type: for stacks in which it is optional.
    pub fn disabled() -> Self {
        Self::with_clocks(Clocks::default())
    }

    /// Makes the layer of an attempt's clocks. Where its unary clock is set, a stream has at least the default clocks.
    pub(crate) fn of_an_attempt(clocks: Clocks) -> Self {
        let default = clocks.attempt.map_or_else(Self::disabled, Self::attempt).clocks;
        let (first_content, idle) = (clocks.first_content.or(default.first_content), clocks.idle.or(default.idle));
        Self::with_clocks(Clocks { first_content, idle, flex: clocks.flex, ..default })
    }

    /// Makes the layer of the total clock, with the flex tier's.
    pub(crate) fn of_the_whole(clocks: Clocks) -> Self {
        Self::with_clocks(Clocks { total: clocks.total, flex: clocks.flex, ..Clocks::default() })
    }

    fn with_clocks(clocks: Clocks) -> Self {
        Self { clocks, timekeeping: None }
    }

    /// Sets the longest time from the beginning of a stream's attempt to its first content.
    pub fn first_content(mut self, limit: Duration) -> Self {
        self.clocks.first_content = Some(limit);
        self
    }

    /// Sets the time that calls of the flex tier have in place of this layer's clock: the whole call, or one attempt up
    /// to its answer, or its stream's first content.
    ///
    /// Default: [`FLEX_TOTAL`](Self::FLEX_TOTAL) and [`FLEX_FIRST_BYTE`](Self::FLEX_FIRST_BYTE), or the clock of other
    /// calls where that is longer.
    pub fn flex(mut self, limit: Duration) -> Self {
        self.clocks.flex = FlexClocks { total: Some(limit), first_byte: Some(limit) };
        self
    }

    /// Records the times of answered attempts, and makes the clocks of an attempt by them: shorter than they are set
    /// where the model is faster, so that there is time for another attempt. The [module](super#adaptive-clocks) has
    /// the rule.
    ///
    /// It is in force only where a [`RetryLayer`](crate::RetryLayer) outside has said that another attempt follows
    /// ([`CallContext::repeats_timeouts`](crate::CallContext::repeats_timeouts)): not for a call that cannot be sent
    /// twice, a body that was not kept, or the last attempt that its policy makes.
    pub fn adaptive(self, times: ServiceTimes) -> Self {
        Self { timekeeping: Some(Timekeeping { times, adapts: true }), ..self }
    }

    /// Records the times of answered attempts for other layers. The clocks are as they are set.
    pub fn service_times(self, times: ServiceTimes) -> Self {
        Self { timekeeping: Some(Timekeeping { times, adapts: false }), ..self }
    }

    /// Sets the longest silence in an answer that has begun.
    pub fn idle(mut self, limit: Duration) -> Self {
        self.clocks.idle = Some(limit);
        self
    }
}

impl Describe for TimeoutLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Clocks { total, attempt, first_content, idle, flex } = self.clocks;
        let for_flex = if total.is_some() { flex.total } else { flex.first_byte };
        let clocks = [
            ("total", total),
            ("attempt", attempt),
            ("first content", first_content),
            ("idle", idle),
            ("for flex", for_flex.filter(|_| !self.clocks.are_all_stopped())),
        ];
        let mut any = false;
        for (name, limit) in clocks {
            let Some(limit) = limit else { continue };
            write!(f, "{}{name} {limit:?}", if any { ", " } else { "" })?;
            any = true;
        }
        let adapts = self.timekeeping.as_ref().is_some_and(|timekeeping| timekeeping.adapts);
        match (any, adapts && (attempt.is_some() || first_content.is_some())) {
            (false, _) => f.write_str(LEFT_OUT),
            (true, true) => f.write_str(", adaptive"),
            (true, false) => Ok(()),
        }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout { inner, clocks: self.clocks, timekeeping: self.timekeeping.clone(), last: None }
    }
}
