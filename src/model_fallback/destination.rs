//! The model that a call goes to after a failure.
//!
//! A failure of the model that was asked for goes back to the caller, unless it is a reason to fall back. Of another
//! model, which the caller did not ask for, only an answer counts: its refusals say nothing about the request.

use super::reason::{FallbackReason, Reasons};
use crate::failure::{Failure, Fault, Kind};

/// The place that a call goes to after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// Back to the caller, with the failure.
    Back,
    /// The next model.
    Next,
    /// The models that take more input.
    Larger,
    /// The model that was asked for, if it is still to come.
    Requested,
}

/// Decides after a failure of the model that was asked for (`is_asked`) or of another one.
pub(super) fn destination(reasons: Reasons, failure: &Failure, sent: bool, is_asked: bool) -> Destination {
    if failure.is_after_commit() {
        return Destination::Back;
    }
    let reason = FallbackReason::of(failure);
    if reason.is_some_and(|reason| reasons.has(reason)) {
        return Destination::Next;
    }
    match (is_asked, failure.kind()) {
        (true, Kind::ContextTooLong) => Destination::Larger,
        (true, _) => Destination::Back,
        // The request does not suit this model.
        (false, Kind::ContextTooLong | Kind::ModelNotFound | Kind::Unimplemented) => Destination::Next,
        (false, _) if failure.fault() == Fault::Caller && !sent => Destination::Next,
        // The request may suit no model: the one that was asked for decides.
        (false, _) if failure.fault() == Fault::Caller || reason.is_some() => Destination::Requested,
        // The next model shares the key and the connection.
        (false, _) => Destination::Back,
    }
}

/// Returns whether other calls to the model would fail as well, so that they need not try.
///
/// An empty answer, the same 500 twice, a time-out (callers choose how much there is to think about, and may send a
/// deadline of their own) or a turn that comes too late may be due to the request. If it is not, the circuit breaker
/// opens, and that counts.
pub(super) fn is_for_all_callers(failure: &Failure) -> bool {
    match FallbackReason::of(failure) {
        // The model still answers plain calls.
        _ if failure.is_of_grounded_calls() => false,
        None | Some(FallbackReason::Timeout | FallbackReason::RateLimited) => false,
        Some(FallbackReason::Service) => {
            let in_time = !matches!(failure.kind(), Kind::DeadlineExceeded | Kind::Cancelled);
            in_time && failure.counts_against_upstream() && !failure.is_content_suspected()
        }
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::failure::TimeoutKind;

    #[test]
    fn the_table() {
        use Destination::*;
        // The kind; the destination after the model that was asked for, and after another one, sent and not sent; and
        // whether all callers' calls fail.
        let rows = [
            (Kind::Overloaded, Next, Next, Next, true),
            (Kind::Capacity, Next, Next, Next, true),
            (Kind::ServerError, Next, Next, Next, true),
            (Kind::BadGateway, Next, Next, Next, true),
            (Kind::Unavailable, Next, Next, Next, true),
            (Kind::DeadlineExceeded, Next, Next, Next, false),
            (Kind::Cancelled, Next, Next, Next, false),
            (Kind::EmptyResponse, Next, Next, Next, false),
            (Kind::EmptyMalformedFunctionCall, Next, Next, Next, false),
            (Kind::Timeout(TimeoutKind::Attempt), Next, Next, Next, false),
            (Kind::Timeout(TimeoutKind::FirstContent), Next, Next, Next, false),
            (Kind::CircuitOpen, Next, Next, Next, true),
            (Kind::QuotaDay, Next, Next, Next, true),
            (Kind::QuotaZero, Next, Next, Next, true),
            (Kind::ModelClosed, Next, Next, Next, true),
            (Kind::QuotaGrounding, Next, Next, Next, false),
            (Kind::QuotaSpend, Back, Back, Back, false),
            (Kind::KeysExhausted, Next, Next, Next, true),
            (Kind::QuotaMinute, Back, Requested, Requested, true),
            (Kind::QuotaTokensMinute, Back, Requested, Requested, true),
            (Kind::QuotaUnknown, Back, Requested, Requested, true),
            (Kind::RateLimited, Back, Requested, Requested, false),
            (Kind::ModelNotFound, Back, Next, Next, true),
            (Kind::ContextTooLong, Larger, Next, Next, false),
            (Kind::Unimplemented, Back, Next, Next, false),
            (Kind::InvalidRequest, Back, Requested, Next, false),
            (Kind::LargerThanQuota, Back, Requested, Next, false),
            (Kind::PayloadTooLarge, Back, Requested, Next, false),
            (Kind::ContentBlocked, Back, Requested, Next, false),
            (Kind::ResourceNotAccessible, Back, Requested, Next, false),
            (Kind::AuthKeyInvalid, Back, Back, Back, false),
            (Kind::PermissionDenied, Back, Back, Back, false),
            (Kind::BillingRequired, Back, Back, Back, false),
            (Kind::Connect, Back, Back, Back, false),
            (Kind::NotSent, Back, Back, Back, false),
            (Kind::Reset, Back, Back, Back, false),
            (Kind::Transport, Back, Back, Back, false),
            (Kind::StreamCut, Back, Back, Back, false),
            (Kind::Timeout(TimeoutKind::Idle), Back, Back, Back, false),
            (Kind::Timeout(TimeoutKind::Total), Back, Back, Back, false),
            (Kind::KeysDisabled, Back, Back, Back, false),
            (Kind::BodyTooLarge, Back, Back, Back, false),
            (Kind::BadRequest, Back, Back, Back, false),
            (Kind::RequestBody, Back, Back, Back, false),
        ];
        for (kind, asked, sent, not_sent, all_callers) in rows {
            let failure = Failure::local(kind, "no");
            let reasons = Reasons::default();
            let destinations = [(true, true), (true, false), (false, true), (false, false)];
            let destinations = destinations.map(|(is_asked, sent)| destination(reasons, &failure, sent, is_asked));
            assert_eq!(destinations, [asked, asked, sent, not_sent], "{kind}");
            assert_eq!(is_for_all_callers(&failure), all_callers, "{kind}");
            let late = failure.into_after_commit();
            assert_eq!(destination(reasons, &late, true, true), Back, "{kind}");
            assert_eq!(destination(reasons, &late, true, false), Back, "{kind}");
        }
        let timeout = Failure::timeout(TimeoutKind::FirstContent, Duration::from_secs(1));
        assert_eq!(destination(Reasons::default(), &timeout, true, true), Next);
    }

    #[test]
    fn each_reason_can_be_switched() {
        let kinds = [
            (FallbackReason::Model, Kind::Overloaded),
            (FallbackReason::Service, Kind::ServerError),
            (FallbackReason::Timeout, Kind::Timeout(TimeoutKind::Attempt)),
            (FallbackReason::CircuitOpen, Kind::CircuitOpen),
            (FallbackReason::QuotaDay, Kind::QuotaDay),
            (FallbackReason::QuotaZero, Kind::QuotaZero),
            (FallbackReason::KeysExhausted, Kind::KeysExhausted),
            (FallbackReason::QuotaMinute, Kind::QuotaTokensMinute),
            (FallbackReason::RateLimited, Kind::RateLimited),
            (FallbackReason::ModelNotFound, Kind::ModelNotFound),
        ];
        for (reason, kind) in kinds {
            let failure = Failure::local(kind, "no");
            assert_eq!(FallbackReason::of(&failure), Some(reason));
            let mut reasons = Reasons::default();
            assert_eq!(reasons.has(reason), reason.is_on_by_default(), "{reason}");
            reasons.set(reason, true);
            assert_eq!(destination(reasons, &failure, true, true), Destination::Next, "{reason}");
            reasons.set(reason, false);
            assert_eq!(destination(reasons, &failure, true, true), Destination::Back, "{reason}");
            for (other, kind) in kinds.into_iter().filter(|(other, _)| *other != reason) {
                let moves = destination(reasons, &Failure::local(kind, "no"), true, true) == Destination::Next;
                assert_eq!(moves, other.is_on_by_default(), "{other} after {reason}");
            }
        }
    }

    #[test]
    fn what_would_take_longer_than_anybody_waits_is_as_a_days_quota() {
        for kind in [Kind::RateLimited, Kind::QuotaMinute, Kind::QuotaTokensMinute, Kind::QuotaUnknown] {
            let failure = |secs| Failure::local(kind, "no").with_hint(Duration::from_secs(secs));
            assert_eq!(destination(Reasons::default(), &failure(300), false, true), Destination::Back, "{kind}");
            assert_eq!(destination(Reasons::default(), &failure(301), false, true), Destination::Next, "{kind}");
            assert_eq!(FallbackReason::of(&failure(301)), Some(FallbackReason::QuotaDay));
        }
        let zero = Failure::local(Kind::QuotaZero, "no").with_hint(Duration::from_secs(301));
        assert_eq!(FallbackReason::of(&zero), Some(FallbackReason::QuotaZero));
    }

    #[test]
    fn a_500_that_may_be_the_requests_own_is_for_nobody_else() {
        let mut failure = Failure::from_status(StatusCode::INTERNAL_SERVER_ERROR, &HeaderMap::new());
        assert!(is_for_all_callers(&failure));
        failure.mark_content_suspected();
        assert!(!is_for_all_callers(&failure));
    }
}
