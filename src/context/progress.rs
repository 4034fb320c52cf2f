//! The view of a call that is under way.

use http::Request;

use super::{CallContext, Tally};
use crate::call::Call;

/// A view of a call that is under way, or that its caller has left before an answer came: for a log, which would know
/// nothing of such a call but its path.
///
/// It is put into the request, and filled by [`TelemetryLayer::attempt`](crate::TelemetryLayer::attempt) further inside;
/// without that layer it stays empty. All clones are views of the same call.
///
/// ```
/// use tower_gemini::context::CallProgress;
///
/// let mut request = http::Request::new(());
/// let progress = CallProgress::watch(&mut request);
/// assert_eq!((progress.call(), progress.attempts()), (None, 0));
/// ```
#[derive(Clone, Debug)]
pub struct CallProgress(Tally);

impl CallProgress {
    /// Begins to watch the call of a request.
    pub fn watch<B>(request: &mut Request<B>) -> Self {
        let known = CallContext::of(request).and_then(CallContext::tally).cloned();
        let tally = known.unwrap_or_else(|| {
            let tally = Tally::default();
            CallContext::update(request.extensions_mut(), |context| context.set_tally(tally.clone()));
            tally
        });
        Self(tally)
    }

    /// Returns the call, as its path and its body say, once a first attempt at it has begun.
    pub fn call(&self) -> Option<Call> {
        self.0.report().call
    }

    /// Returns the number of attempts that have begun.
    pub fn attempts(&self) -> u32 {
        self.0.report().attempts
    }
}
