//! The layer, which holds a policy.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{
    policy::{OnOpen, RetryPolicy},
    service::Retry,
};
use crate::{
    describe::{Describe, LEFT_OUT},
    service_times::ServiceTimes,
};

/// A layer that sends a failed request again if another attempt can succeed. The [module](super) has the table.
///
/// All services made from one layer, and its clones, share the policy's budget.
#[derive(Clone, Debug, Default)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RetryLayer {
    policy: Arc<RetryPolicy>,
}

impl RetryLayer {
    /// Creates a layer with this policy. [`RetryLayer::default`] uses the default table.
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy: Arc::new(policy) }
    }

    /// Makes the layer ask for the times that answers take, which a layer inside records, and send no attempt that has
    /// less time left until the deadline than the quickest of its model's last answers took. Without them, it sends until the
    /// deadline.
    pub fn service_times(mut self, times: ServiceTimes) -> Self {
        Arc::make_mut(&mut self.policy).times = Some(times);
        self
    }

    /// Makes the layer ask for these times, unless it asks for others already.
    pub(crate) fn or_service_times(self, times: &ServiceTimes) -> Self {
        if self.policy.times.is_some() { self } else { self.service_times(times.clone()) }
    }

    /// Creates a layer that never retries. It has the same type, for stacks where retries are optional.
    pub fn disabled() -> Self {
        Self::new(RetryPolicy::never())
    }

    /// Returns the policy.
    pub fn policy(&self) -> &RetryPolicy {
        &self.policy
    }
}

impl Describe for RetryLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = &*self.policy;
        if policy.max_attempts <= 1 {
            return f.write_str(LEFT_OUT);
        }
        let open = match policy.on_open {
            OnOpen::Wait => "waited for",
            OnOpen::Fail => "given back",
        };
        write!(f, "{} attempts; hints up to {:?}; an open circuit is ", policy.max_attempts, policy.max_hint)?;
        f.write_str(open)
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry { inner, policy: self.policy.clone() }
    }
}
